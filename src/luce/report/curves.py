"""How training went: the history, thinned to a bounded number of points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["curves"]

# A curve keeps at most this many points.
SHOWN_POINTS = 200


def curves(
    history: Sequence[Mapping[str, Any]], model: str | None, outcome: Mapping[str, Any]
) -> dict[str, Any]:
    """Thin the history to at most SHOWN_POINTS for each curve, keeping the ends and the best.

    ``outcome`` is what the training said of its end.
    """
    records = [each for each in history if model in (None, each.get("model", model))]
    if not records:
        return {"absent": "history.csv is missing or empty: how training went is not known."}
    columns: dict[str, list[float | None]] = {
        key: [_number(record.get(key)) for record in records]
        for key in records[0]
        if key and key != "model"
    }
    numbers = columns.pop("epoch", None)
    steps = numbers or [float(i) for i in range(len(records))]
    steps = [float(i) if value is None else value for i, value in enumerate(steps, start=1)]
    judged = next(
        (key for key in ("validation_loss", "loss", "objective") if any(_known(columns.get(key)))),
        None,
    )
    best = None
    if judged is not None:
        place = min(
            (i for i, value in enumerate(columns[judged]) if value is not None),
            key=lambda i: columns[judged][i] or 0.0,
        )
        best = {"step": steps[place], "by": judged, "value": columns[judged][place], "at": place}
    kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), SHOWN_POINTS)).round())
    if best is not None:
        kept = np.unique([*kept, best.pop("at")])
    places = [int(i) for i in kept]
    lost = sum(
        value is None and str(record.get(key, "")).strip() != ""
        for key, values in columns.items()
        for value, record in zip(values, records, strict=True)
    )
    seconds = [value for value in columns.get("seconds", []) if value is not None]
    return {
        "step": "iteration" if any(_known(columns.get("objective"))) else "epoch",
        "steps": [steps[i] for i in places],
        "series": {
            key: [values[i] for i in places]
            for key, values in columns.items()
            if key not in ("seconds", "learning_rate") and any(_known(values))
        },
        "total": len(records),
        "best": best,
        "not_finite": lost,
        "in_a_pass": outcome.get("epochs_in_a_pass"),
        "seconds": seconds[-1] if seconds else None,
    }


def _number(value: Any) -> float | None:
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _known(values: Sequence[float | None] | None) -> list[bool]:
    return [value is not None for value in values or ()]
