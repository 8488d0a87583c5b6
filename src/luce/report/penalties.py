"""What a path of penalties left at each C, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["path"]

KEYS = ("C", "nonzero_coefficients", "used_features", "duality_gap")


def path(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's outcome has of its path, or why it has none.

    Returns
    -------
    dict
        ``rows``: C, coefficients that are not zero, features in use and gap, as numbers, whatever
        the folder holds; ``C`` and ``l1_ratio`` of the model. Or ``absent``.
    """
    try:
        rows = [{key: float(each[key]) for key in KEYS} for each in outcome["path"]]
        chosen = {key: float(outcome[key]) for key in ("C", "l1_ratio")}
    except (KeyError, TypeError, ValueError):
        rows, chosen = [], {}
    positive = all(0 < row["C"] < math.inf for row in rows)
    finite = all(math.isfinite(value) for row in rows for value in row.values())
    if len(rows) < 2 or not (positive and finite):
        return {"absent": "No path of penalties was followed."}
    return {"rows": rows, **chosen}
