"""What every test stands on: real data where they are given, one thread, repeatable examples."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("luce", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("luce")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the real data, or skip."""
    folder = os.environ.get("LUCE_DATA_DIR")
    if not folder:
        pytest.skip("LUCE_DATA_DIR is not set: the real data are not here")
    return Path(folder)
