"""What a student has of its teacher: both, and the student without a teacher, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luce.report.text import name

__all__ = ["distillation"]

NO_TEACHER = "The run was trained without a teacher."
WHO = {"teacher": "teacher", "student": "student", "alone": "without a teacher"}


def distillation(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the comparison that a distillation ended with, its labels as text.

    Parameters
    ----------
    metrics : mapping
        As metrics.json of the run.

    Returns
    -------
    dict
        ``scored_on``, ``rows``, ``models`` (a line each), ``gain`` (accuracy over the student
        without a teacher; None if unknown), ``lost`` (accuracy of the teacher over it; None if
        unknown), ``disagreements``, ``teacher_right``, ``student_right``, ``pairs``, ``examples``;
        or ``absent``.
    """
    content = metrics.get("distillation")
    if not content:
        return {"absent": NO_TEACHER}
    accuracy = {each["who"]: each["accuracy"] for each in content["models"]}
    return {
        **content,
        "models": [
            {**each, "who": name(WHO.get(each["who"], each["who"]))} for each in content["models"]
        ],
        "gain": _difference(accuracy, "student", "alone"),
        "lost": _difference(accuracy, "teacher", "student"),
        "pairs": [_named(each) for each in content["pairs"]],
        "examples": [_named(each) for each in content["examples"]],
    }


def _difference(accuracy: Mapping[str, float | None], of: str, over: str) -> float | None:
    mine, other = accuracy.get(of), accuracy.get(over)
    return None if mine is None or other is None else mine - other


def _named(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its labels as text that a page can show."""
    return {
        key: name(value) if key in ("teacher", "student", "label") and value is not None else value
        for key, value in record.items()
    }
