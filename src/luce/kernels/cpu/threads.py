"""Work split over PyTorch's own threads, or over threads that sleep where those cannot be had.

PyTorch's operators leave their OpenMP threads spinning for some milliseconds, in case another
operator follows. Kernels on threads of their own would share a core with them: on two cores, half
of the time was lost (docs/log.md). So the work goes to the very same threads, through the entry
point that compilers use (``GOMP_parallel``, which GNU's and, on Linux, LLVM's library have). There
are never more threads than ``torch.set_num_threads`` says, and none of them is ours.

Where there is no such entry point, and in a forked process (OpenMP's threads do not survive a
fork), plain Python threads take the work. Either way kernels release the GIL and run side by side.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["chunk_rows", "gather", "split"]

# A thread gets at least this many bytes of memory to go through at once. For fewer, waking it, and
# handing Python's lock over, cost more than it saves.
_BYTES_PER_THREAD = 1 << 19
_TURNS = 4  # how often a thread comes back for more, at most
_CHUNK = 4096  # rows that a thread takes at once, at most
_LEAST = 1024  # and at least, as long as that makes eight chunks
_LANES = 64  # and a multiple of so many, which kernels go through side by side
_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def split(work: Callable[[int, int], object], units: int, bytes_per_unit: int) -> None:
    """Call ``work(start, stop)`` over ranges that together cover ``range(units)``.

    The calling thread always takes part; small work stays on it altogether. Ranges are handed out
    as threads come free, because other programs may hold a core.
    """
    portions = units * bytes_per_unit // _BYTES_PER_THREAD
    threads = min(torch.get_num_threads(), units, portions)
    if threads <= 1:
        if units:
            work(0, units)
        return
    step = -(-units // (threads * min(_TURNS, portions // threads)))
    starts = itertools.count(0, step)

    def take() -> None:
        for start in starts:
            if start >= units:
                return
            work(start, min(start + step, units))

    _run(take, threads)


def gather(work: Callable[[int], Any], parts: int) -> list[Any]:
    """Return work(0) … work(parts - 1), in order; each part is large enough for a thread."""
    results: list[Any] = [None] * parts

    def some(start: int, stop: int) -> None:
        for part in range(start, stop):
            results[part] = work(part)

    split(some, parts, _BYTES_PER_THREAD)
    return results


def chunk_rows(n: int, most: int | None = None) -> int:
    """Return how many rows make a chunk: all about equal, and about as many for each thread.

    It depends on the rows alone, so any number of threads adds up the same sums. ``most`` chunks
    can be asked for, 8 or more.
    """
    chunks = max(1, -(-n // _CHUNK), min(8, n // _LEAST))
    if chunks > 8:
        chunks = -(-chunks // 8) * 8
    if most is not None and chunks > most:
        chunks = most // 8 * 8
    return -(-n // (chunks * _LANES)) * _LANES


def _run_on_openmp(take: Callable[[], None], threads: int) -> None:
    """Run ``take`` once in each thread of PyTorch's team; raise what any of them raised."""
    raised: list[BaseException] = []

    def body(_data: int | None) -> None:
        try:
            take()
        except BaseException as error:  # noqa: BLE001  (it must not cross the C frames)
            raised.append(error)

    _openmp.GOMP_parallel(_Body(body), None, threads, 0)
    if raised:
        raise raised[0]


def _run_on_pool(take: Callable[[], None], threads: int) -> None:
    """Run ``take`` in the calling thread and in those of a pool that are free."""
    try:
        helpers = [_executor().submit(take) for _ in range(threads - 1)]
    except RuntimeError:  # the interpreter is shutting down: no new threads
        helpers = []
    take()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


def _executor() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603
    if _pool is None:
        _pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1)), thread_name_prefix="luce")
    return _pool


def _start_afresh() -> None:
    """Leave threads alone that did not survive a fork."""
    global _pool, _run
    _pool, _run = None, _run_on_pool


def _find_openmp() -> Any:
    """Return PyTorch's library if its OpenMP can be asked to run a function, else None."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        library.GOMP_parallel.argtypes = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        library.GOMP_parallel.restype = None
    except (OSError, AttributeError):
        return None
    return library


_pool: ThreadPoolExecutor | None = None
_openmp = _find_openmp()
_run = _run_on_pool if _openmp is None else _run_on_openmp

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
