"""The shape of the code: imports run one way, the public list is true, `import luce` is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import luce

SOURCE = Path(luce.__file__).parent

# Each room may import the rooms named after it, itself, and errors. The order is the design's:
# cli → fitting → run → report → evaluation → estimators → functional → kernels.
MAY_IMPORT = {
    "__main__": {"cli"},
    "cli": {
        "compiling",
        "data",
        "fitting",
        "kernels",
        "options",
        "plan",
        "predicting",
        "printing",
        "progress",
        "report",
        "request",
        "run",
    },
    "compiling": {"functional", "kernels", "linear"},
    "fitting": {
        "calibrating",
        "plan",
        "models",
        "neural",
        "progress",
        "request",
        "run",
        "data",
        "storage",
        "folders",
        "manifest",
    },
    "predicting": {"data", "evaluation", "run", "storage"},
    "printing": {"data"},
    "progress": {"data", "neural", "printing"},
    "plan": {"data", "folders", "manifest", "options", "request", "storage"},
    "request": {"data", "models", "options", "storage"},
    "run": {
        "calibrating",
        "data",
        "evaluation",
        "folders",
        "manifest",
        "models",
        "report",
        "request",
        "storage",
    },
    "manifest": {"options", "request", "storage"},
    "folders": {"storage"},
    "models": {"calibrating", "data", "evaluation", "linear", "neural", "options"},
    "plots": {"report", "models", "evaluation", "neural", "functional"},
    "report": {"calibrating", "evaluation", "data", "models", "storage"},
    "calibrating": {"evaluation"},
    "evaluation": {"functional"},
    "linear": {"functional", "kernels", "options", "processor"},
    "neural": {"functional", "nn", "options", "processor"},
    "nn": {"functional"},
    "functional": {"kernels"},
    "kernels": {"processor"},
    "processor": set(),
    "data": {"options"},
    "options": set(),
    "storage": set(),
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
