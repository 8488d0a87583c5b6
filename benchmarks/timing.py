"""How everything here is timed: in turn, after warm-up, as a ratio of medians with its spread."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_info

from benchmarks import isa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RESULTS = Path(__file__).parent / "results"


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 9,
    warmup: int = 2,
    rest: float = 0.0,
) -> dict[str, list[float]]:
    """Time each candidate once per round, in turn, so that all meet the same disturbances.

    Parameters
    ----------
    candidates
        Name → a call without arguments.
    repeats
        Timed rounds.
    warmup
        Rounds before them that are not timed.
    rest
        Seconds before each call: threads of one candidate may go on spinning for a while, and the
        next would be charged for it.

    Returns
    -------
    dict
        Name → seconds of each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(warmup + repeats):
        for name, call in candidates.items():
            time.sleep(rest)
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if round_ >= warmup:
                seconds[name].append(elapsed)
    return seconds


def ratio(peer: list[float], ours: list[float]) -> dict[str, float]:
    """Return how many times faster ours is: ratio of medians, and the 10–90 % range of the rounds.

    Above 1, ours is faster.
    """
    rounds = sorted(p / o for p, o in zip(peer, ours, strict=True))
    last = len(rounds) - 1
    return {
        "ratio": statistics.median(peer) / statistics.median(ours),
        "low": rounds[round(0.1 * last)],
        "high": rounds[round(0.9 * last)],
    }


def record(name: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write the results to ``benchmarks/results/NAME.json``, with where and when."""
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
            **{p: version(p) for p in ("torch", "numpy", "numba", "scikit-learn")},
            # For which processor the library multiplies that NumPy and scikit-learn use.
            "BLAS": sorted({p["architecture"] for p in threadpool_info() if "architecture" in p}),
            "isa": isa.check(),
        },
        **more,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = results(name)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def results(name: str) -> Path:
    """Return where the results of a benchmark are kept, at the level that was chosen."""
    level = os.environ.get(isa.CHOSEN, "native")
    return RESULTS / (f"{name}.json" if level == "native" else f"{name}-{level}.json")


def processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((s.split(":")[1].strip() for s in lines if s.startswith("model name")), "unknown")


def apart(*arguments: str) -> str:
    """Return what ``python -m benchmarks`` prints with these arguments, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
