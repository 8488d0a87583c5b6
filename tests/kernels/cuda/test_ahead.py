"""Kernels as machine code for each kind of GPU, compiled without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interpreter import MISSING

pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    # One worker runs all of these; Triton keeps what it has compiled.
    pytest.mark.xdist_group("ahead"),
]
NVIDIA = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"]
AMD = ["gfx942", "gfx90a", "gfx1100"]
# One of each maker, and kernels that stand for the others, take half a minute; all, many minutes.
ALL = "LUCE_TEST_AHEAD" in os.environ
TARGETS = [*NVIDIA, *AMD] if ALL else ["sm_90", "gfx942"]
ROOT = Path(__file__).parents[3]
# A thread's share where as many run as a kernel has been started with: 65,536 for a multiprocessor.
REGISTERS = 255


@pytest.fixture(scope="module")
def kernels():
    """What is seen in each kernel, by target."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.cuda.ahead", *["--few"] * (not ALL), *TARGETS]
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    out = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr[-2_000:]
    return json.loads(out.stdout)


def named(kernel):
    return f"{kernel['call']}: {kernel['kernel']}"


def test_every_kernel_compiles_for_every_target(kernels):
    """For each target, the same ones."""
    assert set(kernels) == set(TARGETS)
    for target in kernels.values():
        assert {k["kernel"] for k in target} == {k["kernel"] for k in kernels["sm_90"]}


def test_nothing_spills(kernels):
    """No kernel keeps what it computes of in memory for want of registers."""
    for target, found in kernels.items():
        for kernel in found:
            # In float64 to divide is a call, round which ptxas puts a number or two aside.
            most = 10 if "float64" in kernel["call"] else 0
            assert kernel["spilled"] <= most, f"{target} {named(kernel)}: {kernel['spilled']}"


def test_nothing_is_atomic(kernels):
    """So that sums have one order, and results the same bits."""
    for target, found in kernels.items():
        for kernel in found:
            assert not kernel["atomic"], f"{target} {named(kernel)}: {kernel['atomic']}"


def test_registers_leave_room_for_all_warps(kernels):
    """As many as there are for the warps that a kernel is started with."""
    for target, found in kernels.items():
        for kernel in found:
            most = min(REGISTERS, 65_536 // (32 * kernel["warps"]))
            if target.startswith("gfx"):
                most = 512 if target in {"gfx90a", "gfx942"} else 256
                assert kernel["warps"] <= 16
            assert kernel["registers"] <= most, f"{target} {named(kernel)}: {kernel['registers']}"


def test_rows_are_read_by_16_bytes(kernels):
    """Wherever rows start at 16 bytes, loads are as wide as there are.

    But for maps in half precision on wavefronts of 64, which have 8 bytes of a block for each lane.
    """
    for target, found in kernels.items():
        for kernel in found:
            narrow = target.startswith("gfx9") and "maps" in kernel["call"]
            if "aligned" in kernel["call"] and not narrow:
                assert kernel["wide"], f"{target} {named(kernel)}"
