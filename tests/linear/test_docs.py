"""The examples of docs/regression.md and of the public docstrings run as they are written."""

import doctest
from pathlib import Path

import pytest

import luce.linear.path
import luce.linear.regression

DOCS = Path(__file__).parents[2] / "docs"


def test_page_runs():
    """Every example of docs/regression.md gives what the page shows."""
    if not DOCS.is_dir():
        pytest.skip("the documentation is not beside the tests")
    failed, tried = doctest.testfile(str(DOCS / "regression.md"), module_relative=False)
    assert tried > 20
    assert failed == 0


@pytest.mark.parametrize("module", [luce.linear.regression, luce.linear.path])
def test_docstrings_run(module):
    """Every example of the estimators' docstrings gives what it shows."""
    failed, tried = doctest.testmod(module)
    assert tried >= 3
    assert failed == 0
