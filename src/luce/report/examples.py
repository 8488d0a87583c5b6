"""The rows to look at: pictures of images, the values of tables; a bounded number of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.evaluation import mistakes
from luce.report.attention import parts_of
from luce.report.causes import causes
from luce.report.excerpt import excerpt
from luce.report.text import name, photograph

if TYPE_CHECKING:
    from luce.data import Schema
    from luce.models.classifier import Classifier
    from luce.report.subject import Scored, Subject

__all__ = ["examples"]

# The most pictures, rows and columns that are shown.
SHOWN_PICTURES, SHOWN_ROWS, SHOWN_COLUMNS = 24, 12, 8

# A number with more characters than this is rounded to six digits.
LONG_NUMBER = 12


def examples(
    subject: Subject, classes: list[Any], scored: Scored, columns: list[str]
) -> dict[str, dict[str, Any]]:
    """Choose the most confident mistakes, the least certain rows and the likely label errors.

    Parameters
    ----------
    subject : Subject
        Its schema says what the rows are, its weights which words of a text made a mistake, and the
        rows that it learnt from which of them led to it.
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
    classifier = subject.classifier
    schema = classifier.schema
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
                "pair": (each["predicted"], each["second"]),
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
            | _shown(found, classifier, scored, columns)
        )
    codes = scored.codes
    wrong = mistakes.most_wrong(codes, probabilities, limit=limit)
    found["wrong"] = {
        "total": int((probabilities.argmax(axis=1) != codes).sum()),
        "rows": [
            {
                "row": each["row"],
                "pair": (each["predicted"], each["true"]),
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
                "pair": (each["suggested"], each["given"]),
                "predicted": names[each["suggested"]],
                "probability": each["suggested_probability"],
                "other": names[each["given"]],
                "other_probability": each["given_probability"],
                "given": names[each["given"]],
            }
            for each in issues[:limit]
        ],
    }
    for what in ("wrong", "labels"):
        _lead(found[what], subject, scored)
    return found | _shown(found, classifier, scored, columns)


def _lead(listed: dict[str, Any], subject: Subject, scored: Scored) -> None:
    """Add to rows which of those that were learnt from speak most against their labels."""
    rows = [row["row"] for row in listed["rows"]]
    if scored.codes is None or not rows:
        return
    asked, codes = scored.encoded[rows], scored.codes[rows]
    outcome = subject.config.get("outcome", {})
    led = causes(subject.classifier, subject.learnt, outcome, asked, codes)
    for row, by in zip(listed["rows"], led or (), strict=False):
        row["led_by"] = by


def _shown(
    found: dict[str, dict[str, Any]], classifier: Classifier, scored: Scored, columns: list[str]
) -> dict[str, dict[str, Any]]:
    """Return the lists with what the rows look like, and their numbers in the source."""
    schema, words = classifier.schema, _Words(classifier, scored)
    return {
        what: {
            **listed,
            "columns": _columns(schema, scored, columns),
            "rows": [
                {
                    **{key: value for key, value in row.items() if key != "pair"},
                    "row": int(scored.positions[row["row"]]),
                    **_look(schema, scored, row["row"], columns, words, row["pair"]),
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


def _look(
    schema: Schema,
    scored: Scored,
    row: int,
    columns: list[str],
    words: _Words,
    pair: tuple[int, int],
) -> dict[str, Any]:
    if schema.kind == "image":
        return {"picture": photograph(np.asarray(scored.features[row]))}
    if isinstance(scored.features, pl.DataFrame):
        present = set(scored.features.columns)
        return {
            "values": [
                words.excerpt(column, value, row, pair) or _value(value)
                for column in columns[:SHOWN_COLUMNS]
                for value in [scored.features[column][row] if column in present else None]
            ]
        }
    return {"values": [_value(value) for value in scored.features[row][:SHOWN_COLUMNS].tolist()]}


class _Words:
    """What makes excerpts of texts: the columns of text, and the weights of their terms."""

    def __init__(self, classifier: Classifier, scored: Scored) -> None:
        self._columns = {
            column.name: (column, part)
            for column, part in parts_of(classifier.schema)
            if column is not None and column.in_parts
        }
        self._encoded: Any = scored.encoded
        found = classifier.explain() if self._columns else None
        self._weights = found.array if found is not None and found.of == "classes" else None

    def excerpt(
        self, column: str, value: Any, row: int, pair: tuple[int, int]
    ) -> list[dict[str, Any]] | None:
        """Return passages of a text with what speaks for the first class of the pair marked."""
        if column not in self._columns or value is None or not str(value).strip():
            return None
        text = str(value)
        own, part = self._columns[column]
        if self._weights is None:
            return excerpt(text, [])
        one, two = self._weights[list(pair), part]
        told = self._encoded[[row]][:, part].toarray()[0] * (one - two)
        return excerpt(text, [(start, stop, told[at]) for start, stop, at in own.spans(text)])


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str) and len(value) > LONG_NUMBER:  # a CSV's numbers are text still
        try:
            value = float(value)
        except ValueError:
            return name(value)
    return f"{value:.6g}" if isinstance(value, float) else name(value)
