"""How calls on a GPU are timed, and what the machine does at best."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
# Larger than any cache of a GPU: written before each call that is timed, so that all begin cold.
COLD_BYTES = 256 << 20
# While the device sleeps, the host asks for all the kernels of a call: then gaps between small
# kernels, in which the device waits for the host, are not timed. At first, and at most, for so
# many seconds; a device counts some two cycles in a nanosecond.
FIRST_SLEEP, LONGEST_SLEEP, CYCLES = 1e-3, 20e-3, 2e9


class Machine(NamedTuple):
    """What a machine does at best, as measured on it."""

    device: torch.device
    bytes: float  # that it reads and writes in a second, in a copy
    flops: Mapping[str, float]  # of a large matrix product in a second, by dtype


def seconds_of(
    call: Callable[[], object], device: torch.device, cold: torch.Tensor, sleep: float
) -> tuple[float, float]:
    """Return how long the device works on a call, from cold caches on, and how long the host did.

    The device sleeps first, for so many seconds.
    """
    cold.zero_()
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        return took, took
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(round(CYCLES * sleep))  # noqa: SLF001 - PyTorch's own tests use it
    begin.record()
    start = time.perf_counter()
    call()
    host = time.perf_counter() - start
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3, host


def alternated(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    repeats: int,
    *,
    with_host: bool = False,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time calls in turn, after two rounds that are not counted; return also who failed, and why.

    A call that fails, for want of memory or of what it was made for, is left out. ``with_host``
    lets the device begin at once, so that what it waits for the host counts, as for its users.
    """
    cold = torch.empty(COLD_BYTES if device.type == "cuda" else 1, dtype=torch.int8, device=device)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    sleeps = dict.fromkeys(calls, 0.0 if with_host else FIRST_SLEEP)
    failed: dict[str, str] = {}
    for round_ in range(repeats + 2):
        for name, call in calls.items():
            if name in failed:
                continue
            try:
                took, host = seconds_of(call, device, cold, sleeps[name])
            except Exception as error:  # noqa: BLE001 - of whoever's
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                del seconds[name]
                continue
            if not with_host:
                sleeps[name] = min(2 * host, LONGEST_SLEEP)
            if round_ >= 2:
                seconds[name].append(took)
    return seconds, failed


def measured(device: torch.device, *, tiny: bool = False) -> Machine:
    """Measure what the machine does at best: a copy, and a matrix product in each dtype."""
    size = 1 << 20 if tiny else 1 << 30
    source = torch.empty(size, dtype=torch.int8, device=device)
    place = torch.empty_like(source)
    calls: dict[str, Callable[[], object]] = {"copy": lambda: place.copy_(source)}
    side = 64 if tiny else 8_192
    for name, dtype in DTYPES.items():
        a = torch.randn(side, side, device=device).to(dtype)
        calls[name] = functools.partial(torch.mm, a, a)
    times, _ = alternated(calls, device, 9)
    best = {name: min(each) for name, each in times.items()}
    flops = {name: 2.0 * side**3 / best[name] for name in DTYPES}
    return Machine(device, 2.0 * size / best["copy"], flops)
