"""Work split over threads that sleep when idle, next to PyTorch's own.

Kernels release the GIL, so plain Python threads run them side by side. Chosen by measurement over
Numba's ``parallel=True`` (docs/log.md): no layer that spins or forbids two callers at once, the
number of threads is what ``torch.set_num_threads`` says at each call, and a fork starts afresh.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["share"]

# Below this much memory to go through, waking a thread costs more than it saves.
_BYTES_PER_THREAD = 1 << 18
_pool: ThreadPoolExecutor | None = None


def share(work: Callable[[int, int], object], units: int, bytes_per_unit: int) -> None:
    """Call ``work(start, stop)`` over ranges that together cover ``range(units)``.

    The calling thread always takes part; small work stays on it altogether. Ranges are handed out
    as threads come free, because other programs may hold a core.
    """
    threads = min(torch.get_num_threads(), units, units * bytes_per_unit // _BYTES_PER_THREAD)
    if threads <= 1:
        if units:
            work(0, units)
        return
    step = -(-units // (threads * 4))
    starts = itertools.count(0, step)

    def take() -> None:
        for start in starts:
            if start >= units:
                return
            work(start, min(start + step, units))

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


def _forget_pool() -> None:
    global _pool  # noqa: PLW0603
    _pool = None


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork; the child makes its own.
    os.register_at_fork(after_in_child=_forget_pool)
