"""Every public function of the room shows how it is called; test_docs.py runs what it shows."""

import importlib

import pytest


@pytest.mark.parametrize("name", ["intervals", "metrics", "mistakes", "reliability", "thresholds"])
def test_every_public_function_has_an_example(name):
    """Each name in `__all__` shows how it is called."""
    module = importlib.import_module(f"luce.evaluation.{name}")
    for public in module.__all__:
        assert ">>>" in getattr(module, public).__doc__, public
