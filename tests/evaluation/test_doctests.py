"""Every example in a docstring of the room runs."""

import doctest
import importlib
import pkgutil

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
