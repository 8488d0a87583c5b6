"""The rows to look at: pictures of images, the values of tables; a bounded number of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.evaluation import mistakes
from luce.report.text import name, photograph

if TYPE_CHECKING:
    from luce.data import Schema
    from luce.report.subject import Scored

__all__ = ["examples"]

# The most pictures, rows and columns that are shown.
SHOWN_PICTURES, SHOWN_ROWS, SHOWN_COLUMNS = 24, 12, 8

# A number with more characters than this is rounded to six digits.
LONG_NUMBER = 12


def examples(
    schema: Schema, classes: list[Any], scored: Scored, columns: list[str]
) -> dict[str, dict[str, Any]]:
    """Choose the most confident mistakes, the least certain rows and the likely label errors.

    Parameters
    ----------
    schema : Schema
        Says what the rows are.
    classes : list
        The class of each column.
    scored : Scored
        The rows.
    columns : list of str
        A table's columns, the most important first.

    Returns
    -------
    dict
        ``wrong``, ``uncertain`` and ``labels``; each has ``total`` and ``rows``, or ``absent``: why
        there are none.
    """
    names = [name(label) for label in classes]
    limit = SHOWN_PICTURES if schema.kind == "image" else SHOWN_ROWS
    probabilities = scored.probabilities
    found: dict[str, dict[str, Any]] = {}

    uncertain = mistakes.least_certain(probabilities, limit=limit)
    found["uncertain"] = {
        "total": len(scored),
        "rows": [
            {
                "row": each["row"],
                "predicted": names[each["predicted"]],
                "probability": each["probability"],
                "other": names[each["second"]],
                "other_probability": each["second_probability"],
                "given": None if scored.codes is None else names[scored.codes[each["row"]]],
            }
            for each in uncertain
        ],
    }
    if scored.codes is None:
        reason = "The rows have no labels to compare with."
        return (
            found
            | {"wrong": {"absent": reason}, "labels": {"absent": reason}}
            | _shown(found, schema, scored, columns)
        )
    codes = scored.codes
    wrong = mistakes.most_wrong(codes, probabilities, limit=limit)
    found["wrong"] = {
        "total": int((probabilities.argmax(axis=1) != codes).sum()),
        "rows": [
            {
                "row": each["row"],
                "predicted": names[each["predicted"]],
                "probability": each["probability"],
                "other": names[each["true"]],
                "other_probability": each["true_probability"],
                "given": names[each["true"]],
            }
            for each in wrong
        ],
    }
    issues = mistakes.label_issues(codes, probabilities)
    found["labels"] = {
        "total": len(issues),
        "rows": [
            {
                "row": each["row"],
                "predicted": names[each["suggested"]],
                "probability": each["suggested_probability"],
                "other": names[each["given"]],
                "other_probability": each["given_probability"],
                "given": names[each["given"]],
            }
            for each in issues[:limit]
        ],
    }
    return found | _shown(found, schema, scored, columns)


def _shown(
    found: dict[str, dict[str, Any]], schema: Schema, scored: Scored, columns: list[str]
) -> dict[str, dict[str, Any]]:
    """Return the lists with what the rows look like, and their numbers in the source."""
    return {
        what: {
            **listed,
            "columns": _columns(schema, scored, columns),
            "rows": [
                {
                    **row,
                    "row": int(scored.positions[row["row"]]),
                    **_look(schema, scored, row["row"], columns),
                }
                for row in listed["rows"]
            ],
        }
        for what, listed in found.items()
    }


def _columns(schema: Schema, scored: Scored, columns: list[str]) -> list[str]:
    if schema.kind == "image":
        return []
    if isinstance(scored.features, pl.DataFrame):
        return [name(column) for column in columns[:SHOWN_COLUMNS]]
    return schema.feature_names[:SHOWN_COLUMNS]


def _look(schema: Schema, scored: Scored, row: int, columns: list[str]) -> dict[str, Any]:
    if schema.kind == "image":
        return {"picture": photograph(np.asarray(scored.features[row]))}
    if isinstance(scored.features, pl.DataFrame):
        present = set(scored.features.columns)
        return {
            "values": [
                _value(scored.features[column][row] if column in present else None)
                for column in columns[:SHOWN_COLUMNS]
            ]
        }
    return {"values": [_value(value) for value in scored.features[row][:SHOWN_COLUMNS].tolist()]}


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str) and len(value) > LONG_NUMBER:  # a CSV's numbers are text still
        try:
            value = float(value)
        except ValueError:
            return name(value)
    return f"{value:.6g}" if isinstance(value, float) else name(value)
