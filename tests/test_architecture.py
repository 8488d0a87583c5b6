"""The shape of the code: imports run one way, the public list is true, `import luce` is light."""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import luce

SOURCE = Path(luce.__file__).parent

# Each room may import the rooms named after it, itself, and errors. The order is the design's:
# cli → training → run → report → evaluation → estimators → functional → kernels.
MAY_IMPORT = {
    "__main__": {"cli"},
    "cli": {
        "group",
        "importing",
        "compiling",
        "costs",
        "data",
        "training",
        "kernels",
        "options",
        "plan",
        "predicting",
        "printing",
        "progress",
        "request",
        "run",
        "serving",
    },
    "costs": {"data", "linear", "options"},
    "compiling": {"data", "functional", "kernels", "linear"},
    "training": {
        "engines",
        "evaluation",
        "group",
        "label_matrix",
        "options",
        "plan",
        "models",
        "neural",
        "progress",
        "reference",
        "request",
        "run",
        "data",
        "storage",
        "streaming",
        "folders",
        "manifest",
    },
    "serving": {
        "data",
        "evaluation",
        "manifest",
        "predicting",
        "reference",
        "run",
        "storage",
    },
    "reference": {"data"},
    "predicting": {"data", "engines", "evaluation", "run", "storage"},
    "printing": {"data", "models", "texttable"},
    "progress": {"data", "neural", "printing"},
    "plan": {"data", "folders", "group", "manifest", "models", "options", "request", "storage"},
    "request": {"data", "models", "options", "storage"},
    "run": {
        "calibrating",
        "calibrating_labels",
        "data",
        "elsewhere",
        "engines",
        "export",
        "folders",
        "manifest",
        "models",
        "reference",
        "report",
        "request",
        "storage",
        "streaming",
    },
    "elsewhere": {"data", "linear", "models", "streaming"},
    "streaming": {"data", "models", "processor"},
    "export": {"data", "models", "neural", "nodes", "options", "storage"},
    "manifest": {"options", "request", "storage"},
    "folders": {"storage"},
    "importing": set(),
    "models": {
        "calibrating",
        "calibrating_labels",
        "data",
        "evaluation",
        "importing",
        "linear",
        "neural",
        "options",
    },
    "plots": {"report", "models", "evaluation", "neural", "functional"},
    "report": {"calibrating", "calibrating_labels", "evaluation", "data", "models", "storage"},
    "calibrating": {"evaluation"},
    "calibrating_labels": {"evaluation"},
    "evaluation": {"label_matrix", "targets"},
    "engines": {"kernels"},
    "label_matrix": set(),
    "linear": {
        "engines",
        "graphs",
        "kernels",
        "label_matrix",
        "options",
        "processor",
        "targets",
        "texttable",
    },
    "group": set(),
    "graphs": set(),
    "neural": {"functional", "graphs", "group", "label_matrix", "options", "processor", "targets"},
    "nn": {"functional"},
    "functional": {"kernels"},
    "kernels": {"processor"},
    "processor": set(),
    "data": {"label_matrix", "nodes", "options"},
    "nodes": set(),
    "options": set(),
    "storage": set(),
    "targets": set(),
    "texttable": set(),
    "errors": set(),
}


def rooms_imported_by(path: Path) -> set[str]:
    """Return the top-level parts of luce that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            if node.module == "luce":
                found |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("luce."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("luce.")}
    return found - {"__version__"}


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(SOURCE.rglob("*.py")) if p != SOURCE / "__init__.py"],
    ids=lambda p: p.relative_to(SOURCE).as_posix(),
)
def test_imports_run_one_way(path):
    """A file imports only from its own room, from errors and from the rooms below it."""
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    forbidden = rooms_imported_by(path) - MAY_IMPORT[room] - {room, "errors"}
    assert not forbidden, f"{room} must not import {sorted(forbidden)}"


def test_every_permission_is_needed():
    """What `MAY_IMPORT` allows a room, some file of the room imports."""
    needed = {room: set() for room in MAY_IMPORT}
    for path in SOURCE.rglob("*.py"):
        if path != SOURCE / "__init__.py":
            needed[path.relative_to(SOURCE).parts[0].removesuffix(".py")] |= rooms_imported_by(path)
    spare = {room: allowed - needed[room] for room, allowed in MAY_IMPORT.items()}
    assert not {room: sorted(rooms) for room, rooms in spare.items() if rooms}


def imports_when_run(tree, files):
    """Yield which of the files code imports, in functions too; not what is for type checkers.

    A name that a package imports on first use stands for the file that it comes from.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.ImportFrom) and node.module in files:
            lazy = getattr(sys.modules.get(node.module), "_HOME", {})
            for name in (alias.name for alias in node.names):
                found = f"{node.module}.{lazy.get(name, name)}"
                yield found if found in files else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        yield from imports_when_run(node, files)


def circle(sources):
    """Return names of modules that import each other in a circle, or None; source by name."""
    graph = {
        name: set(imports_when_run(ast.parse(source), sources)) - {name}
        for name, source in sources.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_files_import_each_other_in_no_circle():
    """No file imports, at its head or within a function, one that comes to need it."""
    importlib.import_module("luce.data")  # so that its lazy names are known
    sources = {}
    for path in SOURCE.rglob("*.py"):
        parts = ("luce", *path.relative_to(SOURCE).with_suffix("").parts)
        sources[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    assert circle(sources) is None


def test_a_circle_is_found():
    """An import within a function closes a circle; one for type checkers alone does not."""
    later = "def f():\n    from luce import a"
    assert set(circle({"luce": "", "luce.a": "import luce.b", "luce.b": later})) == {
        "luce.a",
        "luce.b",
    }
    types = "if TYPE_CHECKING:\n    from luce import a"
    assert circle({"luce": "", "luce.a": "import luce.b", "luce.b": types}) is None


def test_public_names_are_sorted_and_exist():
    """`luce.__all__` is sorted, without repeats, and every name in it can be had."""
    assert luce.__all__ == sorted(set(luce.__all__))
    for name in luce.__all__:
        assert getattr(luce, name) is not None


def test_import_is_light():
    """`import luce` loads none of the heavy libraries."""
    code = (
        "import sys, luce;"
        "heavy = {'torch', 'numba', 'numpy', 'sklearn', 'polars', 'matplotlib', 'rich', 'typer'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
