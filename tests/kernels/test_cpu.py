"""The CPU kernels' surroundings: compiled code on disk, memory, threads."""

# ruff: noqa: ARG005

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from luce.data.blocks import BlockWriter
from luce.kernels import available
from luce.kernels.cpu import memory, rows, threads

TASKS = Path("/proc/self/task")

USE = (
    "import torch, luce;"
    "from luce.kernels.cpu.rows import softmax_rows;"
    "luce.softmax(torch.randn(2, 200), 1, backend='cpu');"
    "hits = sum(softmax_rows.stats.cache_hits.values()) if softmax_rows.stats else 0;"
    "print(hits)"
)


def run_with_cache(folder, code=USE):
    """Run a softmax in a fresh process whose kernel cache is this folder; return cache hits."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return int(out.stdout)


def test_compiled_kernels_are_kept_on_disk(tmp_path):
    """A second process finds the machine code of the first."""
    assert run_with_cache(tmp_path) == 0
    assert run_with_cache(tmp_path) > 0


FIT = """
import hashlib, sys
import torch
import luce
from luce.data.blocks import BlockStore
torch.set_num_threads(1)
model = luce.SoftmaxRegression().fit(BlockStore.open(sys.argv[1]).part("train"))
print(hashlib.sha256(model.coef_.tobytes()).hexdigest())
"""


def test_who_compiles_a_kernel_has_the_bits_of_who_loads_it(tmp_path):
    """Workers of one fit may do either. A part must not be called as it was compiled by itself."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100_000, 20), np.float32)
    y = (X @ rng.standard_normal((20, 3)) + rng.gumbel(size=(len(X), 3))).argmax(1)
    rows = tmp_path / "rows"
    with BlockWriter(rows, features=20, dtype="float32", classes=["a", "b", "c"]) as writer:
        for i in range(0, len(X), 30_000):
            writer.add("train", X[i : i + 30_000], y[i : i + 30_000])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    command = [sys.executable, "-c", FIT, str(rows)]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert len(first.strip()) == 64
    assert first == second


def test_a_read_only_install_still_works(tmp_path):
    """Where Numba finds no writable place, kernels are compiled for the process alone."""
    nowhere = "from numba.core import caching;caching.CacheImpl._locator_classes = [];"
    assert run_with_cache(tmp_path, code=nowhere + USE) == 0
    assert not list(tmp_path.iterdir())


def test_both_backends_are_available_here():
    """`available` gives None for what can be used, else the reason."""
    found = available()
    assert found["cpu"] is found["reference"] is None


def test_memory_is_used_again_only_when_nobody_holds_it():
    """A buffer comes back after its last view is gone, and not before."""
    memory.release()
    a = memory.empty((1024, 1024), torch.float32)
    place = a.data_ptr()
    assert place % 64 == 0
    view = a[3:5].t()
    del a
    gc.collect()
    assert memory.kept_bytes() == 0
    assert memory.empty((1024, 1024), torch.float32).data_ptr() != place
    memory.release()
    array = view.numpy()
    del view
    assert memory.kept_bytes() == 0
    del array
    assert memory.kept_bytes() > 0
    assert memory.empty((1024, 1024), torch.float32).data_ptr() == place


def test_kept_memory_has_a_limit():
    """Never more than the limit is kept, however much was used."""
    size = memory.KEPT_BYTES // 4 // 4
    held = [memory.empty((size,), torch.float32) for _ in range(6)]
    del held
    gc.collect()
    assert 0 < memory.kept_bytes() <= memory.KEPT_BYTES
    memory.release()


@pytest.fixture
def two_threads():
    """Let PyTorch use two threads."""
    previous = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(previous)


def test_small_work_stays_on_the_calling_thread(two_threads):
    """Work below the threshold starts no thread; large work covers every unit once."""
    seen = []
    threads.split(lambda a, b: seen.append((threading.get_ident(), a, b)), 10, 1)
    assert seen == [(threading.get_ident(), 0, 10)]
    covered = []
    threads.split(lambda a, b: covered.extend(range(a, b)), 1_000, 1 << 16)
    assert sorted(covered) == list(range(1_000))


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts threads in /proc")
@pytest.mark.skipif(threads._openmp is None, reason="PyTorch's OpenMP cannot be entered here")
def test_work_runs_on_pytorchs_own_threads(two_threads):
    """Once an operator of PyTorch has used two threads, a kernel starts no more."""
    torch.ones(1 << 20).add_(1)
    before = {task.name for task in TASKS.iterdir()}
    who = set()

    def work(a, b):
        who.add(str(threading.get_native_id()))
        time.sleep(0.002)

    threads.split(work, 1_000, 1 << 16)
    assert len(who) == 2
    assert who <= before


@pytest.mark.parametrize("run", [threads._run_on_pool, threads._run])
def test_every_unit_is_covered_once_by_either_kind_of_thread(run, two_threads, monkeypatch):
    """PyTorch's threads and, where those cannot be had, plain ones share the same work."""
    monkeypatch.setattr(threads, "_run", run)
    covered = []
    threads.split(lambda a, b: covered.extend(range(a, b)), 1_000, 1 << 16)
    assert sorted(covered) == list(range(1_000))


def test_set_num_threads_is_obeyed():
    """With one thread allowed, large work stays on the calling thread too."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        who = set()
        threads.split(lambda a, b: who.add(threading.get_ident()), 1_000, 1 << 20)
    finally:
        torch.set_num_threads(previous)
    assert who == {threading.get_ident()}


@pytest.mark.skipif(not TASKS.is_dir(), reason="looks at threads in /proc")
def test_idle_threads_of_our_own_sleep(two_threads, monkeypatch):
    """After work, the threads of the pool wait for more; none is running."""
    monkeypatch.setattr(threads, "_run", threads._run_on_pool)
    who = set()

    def work(a, b):
        who.add(threading.get_native_id())
        time.sleep(0.002)

    threads.split(work, 100, 1 << 20)
    helpers = who - {threading.get_native_id()}
    assert helpers
    for helper in helpers:
        until = time.monotonic() + 10
        while state(helper) != "S" and time.monotonic() < until:
            time.sleep(0.01)
        assert state(helper) == "S"


def state(task):
    """Return the state of a thread of this process, "S" for asleep."""
    return (TASKS / str(task) / "stat").read_text().rpartition(")")[2].split()[0]


def test_errors_in_a_helper_thread_reach_the_caller(two_threads):
    """An exception in any range is raised, not lost."""

    def fail(a, b):
        raise ValueError("as planned")

    with pytest.raises(ValueError, match="as planned"):
        threads.split(fail, 1_000, 1 << 20)


def test_parts_of_kernels_count_no_references():
    """A part that is handed arrays in a loop over lanes never calls Numba's counter of references.

    Whether the calls are optimised away differs between processors: without AVX-512 they were not.
    """
    row, out = np.arange(100, dtype=np.float32), np.empty(100, np.float32)
    top, one = np.float32(99), np.float32(1)
    total = rows.exp_sum_into(out, row, top, one)
    assert total == pytest.approx(np.exp(row.astype(np.float64) - 99).sum())
    rows.write_scaled(out, out, one, np.float32(0), row[:0])
    assert rows.maximum(row) == 99
    assert rows.total(row) == 4950
    assert rows.dot(row, row) == pytest.approx(328_350)
    assert rows.weighted_gap(row, row[:0], top, one) == 4950
    used = (rows.exp_sum_into, rows.exp_lanes, rows.maximum, rows.write_scaled)
    for part in (*used, rows.total, rows.dot, rows.weighted_gap):
        assert part.nopython_signatures, part.__name__
        for signature in part.nopython_signatures:
            assert "NRT_incref" not in part.inspect_llvm(signature.args), part.__name__
