"""What every test stands on: real data where they are given, one thread, repeatable examples."""

import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from luce import cli
from tests import interpreter
from tests.browser import Browser

interpreter.interpret()
settings.register_profile("luce", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("luce")

# Two workers share two cores; more threads would only wait for each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _chance():
    """Each test draws the same numbers, alone or among others: what fails once fails again."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what others draw without being told from where
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the real data, or skip."""
    folder = os.environ.get("LUCE_DATA_DIR")
    if not folder:
        pytest.skip("LUCE_DATA_DIR is not set: the real data are not here")
    return Path(folder)


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests here."""
    started = Browser()
    yield started
    started.close()


@dataclass
class Finished:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def luce_command(monkeypatch, capfd):
    """Return a function that runs `luce ARGUMENTS` in this process."""

    def run(*arguments: object, stdin: str | None = None) -> Finished:
        monkeypatch.setattr(sys, "argv", ["luce", *map(str, arguments)])
        if stdin is not None:
            reading, writing = os.pipe()
            os.write(writing, stdin.encode())
            os.close(writing)
            monkeypatch.setattr(sys, "stdin", os.fdopen(reading))
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        if stdin is not None:
            sys.stdin.close()
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Finished(stopped.value.code, captured.out, captured.err)

    return run
