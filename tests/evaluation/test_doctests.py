"""Every example in the room's docstrings and in docs/evaluation.md runs."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import luce.evaluation

MODULES = [module.name for module in pkgutil.iter_modules(luce.evaluation.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    """The examples in the module's docstrings give what they print."""
    module = importlib.import_module(f"luce.evaluation.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", ["intervals", "metrics", "mistakes", "reliability"])
def test_every_public_function_has_an_example(name):
    """Each name in `__all__` shows how it is called."""
    module = importlib.import_module(f"luce.evaluation.{name}")
    for public in module.__all__:
        assert ">>>" in getattr(module, public).__doc__, public


def test_documentation():
    """The examples of docs/evaluation.md give what the page shows."""
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    found = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert found.attempted > 20
    assert found.failed == 0
