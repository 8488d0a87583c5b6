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
# Registers of a thread, at most: what was seen on any of NVIDIA's, and a tenth more. ptxas itself
# stops where the warps that a kernel is started with would have no room, and puts numbers aside
# instead; what is above these keeps fewer programs on a multiprocessor than there have been.
REGISTERS = {
    "column_sums": 70,
    "cross_entropy_kernel": 162,
    "distillation_kernel": 224,
    "gradient_kernel": 77,
    "lse_kernel": 88,
    "merge_kernel": 125,
    "scale_kernel": 140,
    "softmax_backward_kernel": 99,
    "softmax_kernel": 70,
}
# In float32, with 16 warps and all options, ptxas gives a thread of sm_75 64 registers, so that a
# multiprocessor keeps two programs, and puts up to 13 numbers aside. With 80 it would put none, and
# keep one program; which is faster, only a GPU can say.
KEEPS_TWO = ("sm_75", "cross_entropy_kernel", "float32", 16)
# Other loads: of what there is one of for each row, such as its target. No row is read so.
NARROW = 8


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
    """For each target, the same ones, as code of that target."""
    assert set(kernels) == set(TARGETS)
    for name, target in kernels.items():
        assert {k["kernel"] for k in target} == {k["kernel"] for k in kernels["sm_90"]}
        assert {k["target"] for k in target} == {name.removeprefix("sm_")}


def test_nothing_spills(kernels):
    """No kernel keeps what it computes of in memory for want of registers."""
    for target, found in kernels.items():
        for kernel in found:
            # In float64 to divide is a call, round which ptxas puts a number or two aside.
            most = 10 if "float64" in kernel["call"] else 0
            name, dtype, warps = KEEPS_TWO[1:]
            if target == KEEPS_TWO[0] and (kernel["kernel"], kernel["warps"]) == (name, warps):
                most = 13 if dtype in kernel["call"] else most
            assert kernel["spilled"] <= most, f"{target} {named(kernel)}: {kernel['spilled']}"


def test_nothing_is_atomic(kernels):
    """So that sums have one order, and results the same bits."""
    for target, found in kernels.items():
        for kernel in found:
            assert not kernel["atomic"], f"{target} {named(kernel)}: {kernel['atomic']}"


def test_registers_are_as_few_as_they_were(kernels):
    """So that as many programs share a multiprocessor; on AMD's, as there are for all warps."""
    for target, found in kernels.items():
        for kernel in found:
            most = REGISTERS[kernel["kernel"]]
            if target.startswith("gfx"):
                most = 512 if target in {"gfx90a", "gfx942"} else 256
                assert kernel["warps"] <= 16
            assert kernel["registers"] <= most, f"{target} {named(kernel)}: {kernel['registers']}"


def test_rows_are_read_by_16_bytes(kernels):
    """Wherever rows start at 16 bytes, all loads of them are as wide as there are.

    On AMD's of 8 at least: a block in half precision may have no more for each lane.
    """
    for target, found in kernels.items():
        for kernel in found:
            if "aligned" in kernel["call"]:
                assert kernel["wide"], f"{target} {named(kernel)}"
            if "rows" in kernel["call"] and "aligned" in kernel["call"]:
                assert kernel["narrow"] <= NARROW, f"{target} {named(kernel)}: {kernel['narrow']}"
