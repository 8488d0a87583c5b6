"""Every example in the documents and in the docstrings gives what it shows.

The convention of README.md and docs/*.md:

- A ``python`` block is a doctest: ``>>>`` lines, and under each what it prints.
- A ``console`` block is a terminal: ``$ luce …`` lines, and under each what the command writes to
  standard output (with ``2>&1``, to standard error too), then ``[exit status N]`` if it failed.
  Pipes, other commands and lines that go on after a backslash are allowed.
- ``needs-data`` after the language: the block runs only where LUCE_DATA_DIR is set. All such blocks
  of a document run together, without the others.
- Blocks in another language, or in none, are shown and not run.

The blocks of a document run from top to bottom, in one namespace and one empty working directory.
``...`` stands for whatever varies. In a console, columns may be wider or narrower, and a decimal
may differ by 2% or 0.02: other processors round otherwise, and training ends at other weights.
"""

import doctest
import importlib
import math
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import luce

SOURCE = Path(luce.__file__).parents[1]
ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
MODULES = ["luce", *sorted(m.name for m in pkgutil.walk_packages(luce.__path__, "luce."))]

# What engines need: extras that the tests do without.
ENGINES = {"distributed", "pyspark", "ray"}

BLOCK = re.compile(r"^```(python|console)( needs-data)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPENING = re.compile(r"^ *```(?:py|console)", re.MULTILINE)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
VARIES = re.compile(r"(\.\.\.|\d+\.\d+)")
CONSOLE = doctest.register_optionflag("CONSOLE")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST


class Checker(doctest.OutputChecker):
    """doctest's comparison, and a more patient one for consoles."""

    def check_output(self, want, got, optionflags):
        if not optionflags & CONSOLE:
            return super().check_output(want, got, optionflags)
        want, got = (re.sub(" +", " ", text.strip()) for text in (want, got))
        parts = VARIES.split(want)
        fixed, varying = map(re.escape, parts[::2]), parts[1::2]
        wild = [".*?" if part == "..." else r"(\d+\.\d+)" for part in varying]
        pattern = "".join(a + b for a, b in zip(fixed, [*wild, ""], strict=True))
        found = re.fullmatch(pattern, got, re.DOTALL)
        shown = [float(part) for part in varying if part != "..."]
        return found is not None and all(
            math.isclose(a, float(b), rel_tol=0.02, abs_tol=0.02)
            for a, b in zip(shown, found.groups(), strict=True)
        )


def terminal(command):
    """Run a command line and print what it writes to standard output."""
    luce_here = f'luce() {{ "{sys.executable}" -m luce "$@"; }}\n'
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "80"}
    done = subprocess.run(
        ["bash", "-c", luce_here + command], env=environment, stdout=subprocess.PIPE, check=False
    )
    sys.stdout.write(done.stdout.decode())
    if done.returncode:
        sys.stdout.write(f"[exit status {done.returncode}]\n")


def commands(code):
    """Return the command lines of a console block as examples that run them."""
    return [
        doctest.Example(
            f"terminal({found[1]!r})",
            found[2],
            lineno=code.count("\n", 0, found.start()),
            options={CONSOLE: True},
        )
        for found in COMMAND.finditer(code)
    ]


def examples(document, *, with_data):
    """Return the examples of a document: those marked needs-data, or all others."""
    text = (ROOT / document).read_text(encoding="utf-8")
    parsers = {"python": doctest.DocTestParser().get_examples, "console": commands}
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == len(OPENING.findall(text)), f"{document}: an opening that is not ours"
    found = []
    for language, marked, code, start in ((*b.groups(), b.start(3)) for b in blocks):
        line = text.count("\n", 0, start)
        parsed = parsers[language](code)
        assert parsed, f"{document}, line {line}: nothing in this block would be run"
        for example in parsed:
            example.lineno += line
        found += parsed if bool(marked) == with_data else []
    return found


def run(test):
    """Run a doctest up to its first failure, and show that."""
    said = []
    runner = doctest.DocTestRunner(Checker(), optionflags=FLAGS)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def run_document(document, *, with_data):
    """Run one document's examples."""
    found = examples(document, with_data=with_data)
    path = str(ROOT / document)
    run(doctest.DocTest(found, {"terminal": terminal}, document, path, 0, None))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_document(document, tmp_path, monkeypatch):
    """The examples of a document give what it shows."""
    monkeypatch.chdir(tmp_path)
    run_document(document, with_data=False)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if examples(d, with_data=True)])
def test_document_with_data(document, tmp_path, monkeypatch, data_dir):
    """The examples of a document that need the real data give what it shows."""
    monkeypatch.chdir(tmp_path)
    run_document(document, with_data=True)


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module, tmp_path, monkeypatch):
    """The examples in a module's docstrings give what they show."""
    if module.startswith("luce.kernels.cuda"):
        pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.chdir(tmp_path)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in ENGINES:
            raise
        pytest.skip(f"{error.name} is an extra that is not installed here")
    for test in doctest.DocTestFinder(exclude_empty=True).find(found):
        run(test)


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        ("model  accuracy\nmlp  98.61%\n", True),
        ("model accuracy\nmlp 98.00%", True),
        ("model accuracy\n...%", True),
        ("model accuracy\nmlp 95.00%", False),
        ("model accuracy mlp 98.61%", False),
        ("model accuracy\ncnn 98.61%", False),
    ],
)
def test_consoles_are_compared_by_words_and_figures(shown, same):
    """A console that says something else fails; wider columns and other last digits do not."""
    got = "\nmodel   accuracy\nmlp       98.61%\n"
    assert Checker().check_output(shown, got, CONSOLE) is same
