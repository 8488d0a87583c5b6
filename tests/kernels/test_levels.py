"""Kernels are written for the registers of the processor that they are compiled for."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.aarch64 import ENVIRONMENT
from tests.levels import environment

ROOT = Path(__file__).parents[2]
WIDTHS = """
from numba import float32, float64, uint16
from luce.kernels.cpu.lanes import lanes_of, register_of
from luce.kernels.cpu.transposes import _lanes
for kind in (float32, float64, uint16):
    print(register_of(kind[::1]).count, lanes_of(kind[::1]).count, _lanes(kind[::1]))
"""
WANTED = {
    "avx512": [(16, 16, 8), (8, 8, 4), (16, 16, 8)],
    "avx2": [(8, 16, 8), (4, 8, 4), (8, 16, 8)],
    "neon": [(4, 16, 4), (2, 8, 2), (4, 16, 4)],
}


@pytest.mark.parametrize("level", WANTED)
def test_widths_follow_the_processor(level):
    """A register has 64, 32 or 16 bytes, a vector along a row 64, a transposed block at most 32."""
    known = environment("native") | ENVIRONMENT if level == "neon" else environment(level)
    command = [sys.executable, "-c", WIDTHS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=known)
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert found == WANTED[level]


def has_avx512():
    """Whether this processor has more than the level that the next test asks for."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512f" in cpuinfo.read_text(encoding="ascii", errors="ignore")


@pytest.mark.skipif(not has_avx512(), reason="this processor has no AVX-512 to do without")
def test_samples_are_as_exact_without_avx512():
    """PyTorch's samples of softmax and cross-entropy in float32, compiled for AVX2.

    ``.ci/run`` runs all of tests/kernels and tests/conformance so.
    """
    chosen = "cpu and float32 and (log_softmax or cross_entropy) and not linear"
    arguments = ["-q", "-p", "no:cacheprovider", "tests/conformance/test_opinfo.py", "-k", chosen]
    command = [sys.executable, "-m", "tests.levels", "avx2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
