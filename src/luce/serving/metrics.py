"""Figures of a server as text for Prometheus."""

from __future__ import annotations

import bisect
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["Histogram", "Metrics", "line"]

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16_384)

MOST_CLASSES = 1_000
"""Of more classes, predictions are not counted one by one."""


def line(name: str, value: float, **labels: object) -> str:
    r"""Return one sample.

    Examples
    --------
    >>> line("rows_total", 3, model='a "b"')
    'rows_total{model="a \\"b\\""} 3'
    """
    inside = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Histogram:
    """Counts of values by upper bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, **labels: object) -> Iterable[str]:
        """Yield the samples."""
        reached = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            reached += count
            yield line(f"{name}_bucket", reached, **labels, le=bound)
        yield line(f"{name}_sum", self.total, **labels)
        yield line(f"{name}_count", reached, **labels)


class Metrics:
    """What is counted of all requests since the start. One thread writes each figure."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.latency: dict[str, Histogram] = {}
        self.batches = Histogram(SIZES)
        self.batched = Histogram(SIZES)
        self.rows: Counter[str] = Counter()
        self.classes: dict[str, tuple[Sequence[Any], NDArray[np.int64]]] = {}
        self.reloads: Counter[str] = Counter()

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request that is answered."""
        self.requests[endpoint, status] += 1
        if endpoint not in self.latency:
            self.latency[endpoint] = Histogram(SECONDS)
        self.latency[endpoint].add(seconds)

    def batch(
        self,
        requests: int,
        model: str,
        labels: Sequence[Any],
        rows: int,
        counts: NDArray[np.int64],
    ) -> None:
        """Count rows that are predicted at once; `counts` are of the labels."""
        self.batches.add(rows)
        self.batched.add(requests)
        self.rows[model] += rows
        if len(counts) <= MOST_CLASSES:
            before, known = self.classes.get(model, (None, counts))
            # A run that was trained again may have other classes.
            self.classes[model] = labels, known + counts if before == labels else counts

    def lines(self, waiting: int) -> list[str]:
        """Return all figures."""
        out = ["# TYPE luce_requests_total counter"]
        for (endpoint, status), count in sorted(self.requests.items()):
            out.append(line("luce_requests_total", count, endpoint=endpoint, status=status))
        out.append("# TYPE luce_request_seconds histogram")
        for endpoint, histogram in sorted(self.latency.items()):
            out += histogram.lines("luce_request_seconds", endpoint=endpoint)
        out += ["# TYPE luce_batch_rows histogram", *self.batches.lines("luce_batch_rows")]
        out += ["# TYPE luce_batch_requests histogram", *self.batched.lines("luce_batch_requests")]
        out += ["# TYPE luce_waiting_requests gauge", line("luce_waiting_requests", waiting)]
        out.append("# TYPE luce_rows_total counter")
        out += [line("luce_rows_total", n, model=model) for model, n in sorted(self.rows.items())]
        out.append("# TYPE luce_predictions_total counter")
        for model in sorted(self.classes):
            labels, counts = self.classes[model]
            for label, count in zip(labels, counts.tolist(), strict=True):
                name = "luce_predictions_total"
                out.append(line(name, count, model=model, **{"class": label}))
        out.append("# TYPE luce_reloads_total counter")
        out += [line("luce_reloads_total", n, result=r) for r, n in sorted(self.reloads.items())]
        return out
