"""What is asked of the machine: answers where it gives one, and None where it does not."""

import os
from pathlib import Path

import pytest

from luce import processor


def no_file(*_arguments, **_options):
    raise FileNotFoundError("/proc/meminfo")


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux says what is free there")
def test_free_memory_counts_what_caches_hold():
    """What is available, which is at least what nobody uses, less what was taken meanwhile."""
    unused = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert processor.free_memory() > 0.5 * unused


def unknown(name):
    raise ValueError("unrecognized configuration name")


@pytest.mark.parametrize(
    ("sysconf", "free"),
    [
        ({"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.get, 4_096_000),
        ({"SC_AVPHYS_PAGES": -1, "SC_PAGE_SIZE": 4096}.get, None),
        (unknown, None),
    ],
    ids=["pages", "no answer", "unknown name"],
)
def test_free_memory_elsewhere(sysconf, free, monkeypatch):
    """Without that file the system is asked for free pages; it may not know the question."""
    monkeypatch.setattr(Path, "read_text", no_file)
    monkeypatch.setattr(os, "sysconf", sysconf, raising=False)
    assert processor.free_memory() == free
