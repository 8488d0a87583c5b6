"""Kernels on ARM: what LLVM makes of them, and their results under an emulator."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.aarch64 import ENVIRONMENT

HERE = Path(__file__).parent
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
VECTOR = re.compile(r"\t(fmla|fmls|fmul|fadd|fsub|fdiv|fcmgt|fmax|fmaxnm)\tv\d+\.(4s|2d)")
# x − x asks whether x is a NaN or infinite: where the largest is, a loop looks for a NaN.
ASKS = re.compile(r"\tfsub\t[sd]\d+, ([sd]\d+), \1")
SCALAR = re.compile(r"\t(fmadd|fmsub|fnmadd|fnmsub|fmul|fadd|fsub|fdiv)\t[sd]\d+")


# One worker runs all of these: each would compile for half a minute.
pytestmark = pytest.mark.xdist_group("aarch64")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder with the assembly of each part and the objects of whole kernels."""
    folder = tmp_path_factory.mktemp("aarch64")
    command = [sys.executable, "-m", "tests.kernels.aarch64", str(folder)]
    environment = {**os.environ, **ENVIRONMENT}
    root = HERE.parents[1]
    subprocess.run(command, check=True, env=environment, cwd=root)
    return folder


def inner_loops(assembly):
    """Return the text of each loop that has no other inside, from its label to the branch back."""
    lines = assembly.splitlines()
    labels = {s[:-1]: i for i, s in enumerate(lines) if re.match(r"\.LBB\w+:$", s)}
    loops = []
    for i, line in enumerate(lines):
        target = re.match(r"\t(?:b|b\.\w+|cbn?z|tbn?z)\t.*?(\.LBB\w+)$", line)
        if target and labels.get(target[1], len(lines)) <= i:
            loops.append((labels[target[1]], i))
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return ["\n".join(lines[start : stop + 1]) for start, stop in inner]


def of_kernels(assembly):
    """Return Luce's own functions, without what calls them from Python."""
    functions = re.split(r"\.Lfunc_end\d+:", assembly)
    own = [text for text in functions if re.search(r"^_ZN4luce\S+:$", text, re.MULTILINE)]
    assert own
    return "".join(own)


def test_inner_loops_are_found():
    """Of two loops, one in the other, the inner one; a branch ahead makes none."""
    text = "f:\n.LBB0_1:\n\tadd\n.LBB0_2:\n\tfmul\ts0, s1, s2\n\tb.ne\t.LBB0_2\n\tb\t.LBB0_1\n"
    assert inner_loops(text) == [".LBB0_2:\n\tfmul\ts0, s1, s2\n\tb.ne\t.LBB0_2"]
    assert inner_loops("f:\n\tcbz\tx0, .LBB0_1\n\tret\n.LBB0_1:\n\tret\n") == []


def test_parts_are_vectors_in_neon(compiled):
    """Their inner loops have NEON's vectors, no calls and no arithmetic of single numbers."""
    parts = sorted(compiled.glob("*.s"))
    assert len(parts) > 20
    for path in parts:
        loops = inner_loops(of_kernels(path.read_text()))
        assert loops, path.stem
        for loop in loops:
            assert not re.search(r"\tblr?\t", loop), f"{path.stem} calls:\n{loop}"
            assert not SCALAR.search(ASKS.sub("", loop)), f"{path.stem} is not in vectors:\n{loop}"
        moves = path.stem.startswith(("load_tile", "store_tile"))
        wanted = re.compile(r"\t(trn1|zip1|uzp1|ext)\tv|\tstp?\tq") if moves else VECTOR
        assert any(wanted.search(loop) for loop in loops), path.stem


def test_an_exponential_stays_in_registers(compiled):
    """Four registers of an exponential at once fit into NEON's 32: the loop spills none."""
    assembly = (compiled / "exp_sum_into float32.s").read_text()
    loops = [s for s in inner_loops(of_kernels(assembly)) if len(re.findall(r"\tfmla\t", s)) > 8]
    assert loops
    for loop in loops:
        assert not re.search(r"\t(ldr|str|ldp|stp)\tq.*\[(sp|x29)", loop), loop


@pytest.fixture(scope="module")
def emulated(compiled):
    """A function that runs a kernel under the emulator."""
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: gcc-aarch64-linux-gnu, qemu-user)")
    driver = compiled / "driver"
    objects = [str(path) for path in compiled.glob("*.o")]
    sources = [str(HERE / "aarch64.c"), *objects]
    ignore = "-Wl,--unresolved-symbols=ignore-all"
    subprocess.run([COMPILER, "-O1", "-static", *sources, "-o", str(driver), ignore], check=True)

    def run(operator, x, mode, columns, target=None):
        N, K = x.shape
        data = x.tobytes() if target is None else x.tobytes() + target.tobytes()
        command = [EMULATOR, str(driver), operator, *map(str, (N, K, mode, columns))]
        out = subprocess.run(command, input=data, capture_output=True, check=True).stdout
        results = np.frombuffer(out, np.float32)
        return results[: N * K].reshape(N, K), results[N * K : N * K + N], results[N * K + N :]

    return run


# Rows with and without a last vector that is not full, and shorter than one; then tiles.
SHAPES = [(37, 128, 0), (37, 203, 0), (5, 1000, 0), (3, 5, 0), (100, 10, 48), (70, 3, 48)]


def given(N, K):
    rng = np.random.default_rng(N * K)
    x = (rng.standard_normal((N, K)) * 5).astype(np.float32)
    x[0, :2] = -np.inf, 80
    wide = x.astype(np.float64)
    top = wide.max(1, keepdims=True)
    lse = (np.log(np.exp(wide - top).sum(1, keepdims=True)) + top)[:, 0]
    return x, wide, lse, np.exp(wide - lse[:, None])


@pytest.mark.parametrize(("N", "K", "columns"), SHAPES)
def test_softmax_on_arm(emulated, N, K, columns):
    """Softmax, log-softmax and log-sum-exp are within a few roundings of float64's."""
    x, wide, lse, p = given(N, K)
    eps = np.finfo(np.float32).eps
    off = np.abs(emulated("softmax", x, 0, columns)[0] - p)
    # The difference from the largest is rounded, which an exponential makes relative.
    away = np.where(np.isfinite(wide), wide.max(1, keepdims=True) - wide, 0)
    assert (off <= p * eps * (4 + away) + 1e-37).all()
    logs = emulated("softmax", x, 1, columns)[0]
    np.testing.assert_allclose(logs, wide - lse[:, None], rtol=4 * eps, atol=16 * eps)
    np.testing.assert_allclose(emulated("softmax", x, 2, columns)[1], lse, rtol=4 * eps)


@pytest.mark.parametrize(("N", "K", "columns"), SHAPES)
def test_cross_entropy_on_arm(emulated, N, K, columns):
    """Loss and gradient, with smoothing, z-loss and an ignored row, agree with float64's."""
    x, wide, lse, p = given(N, K)
    x[0], wide[0] = x[1], wide[1]  # smoothing of an infinite logit is infinite
    lse[0], p[0] = lse[1], p[1]
    y = np.random.default_rng(1).integers(0, K, N)
    y[2] = -100
    counts = (y != -100)[:, None]
    a = 0.9 * (np.arange(K) == y[:, None]) + 0.1 / K
    loss = (a * (lse[:, None] - wide)).sum(1) + 0.01 * lse**2
    gradient = ((1 + 0.02 * lse[:, None]) * p - a) / N
    grad, found_lse, losses = emulated("cross_entropy", x, 0, columns, y)
    np.testing.assert_allclose(found_lse, lse, rtol=1e-6)
    np.testing.assert_allclose(losses, np.where(counts[:, 0], loss, 0), rtol=1e-5)
    np.testing.assert_allclose(grad, np.where(counts, gradient, 0), rtol=1e-5, atol=1e-6 / N)
