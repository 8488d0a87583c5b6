"""Teacher, student, and the same student without a teacher, side by side."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luce.evaluation import metrics
from luce.evaluation.inputs import encode_labels

if TYPE_CHECKING:
    from luce.models.classifier import Classifier
    from luce.training.material import Held

__all__ = ["compared"]

# Rows of each measurement of speed, and how many measurements the fastest is of.
TIMED_ROWS, TIMED = 2_000, 5

# Disagreements are counted; so many of them, and of their pairs, are listed.
SHOWN_EXAMPLES, SHOWN_PAIRS = 20, 10


def compared(sides: Mapping[str, tuple[str, Classifier]], held: Held) -> dict[str, Any]:
    """Return the figures of several classifiers on the same rows, and where two of them disagree.

    Parameters
    ----------
    sides : mapping of str to (model, Classifier)
        "teacher" and "student", and "alone" if the student was also trained without a teacher:
        the kind of model, and what was learnt; all of the same classes.
    held : Held
        The rows.

    Returns
    -------
    dict
        As metrics.json holds it under ``distillation``.
    """
    classifiers = {who: classifier for who, (_, classifier) in sides.items()}
    classes, codes = classifiers["student"].classes, None
    if held.labels is not None:
        codes = encode_labels("distil", held.labels, classes, len(classes))
    found = {who: _probabilities(each, held.features) for who, each in classifiers.items()}
    speeds = _rows_per_second(classifiers, held)
    entries = []
    for who, classifier in classifiers.items():
        size = classifier.describe()
        entries.append(
            {
                "who": who,
                "model": sides[who][0],
                **_figures(codes, found[who]),
                "parameters": size["parameters"],
                "flops_per_example": size["flops_per_example"],
                "rows_per_second": speeds[who],
            }
        )
    return {
        "scored_on": held.words,
        "rows": len(found["student"]),
        "models": entries,
        **_disagreements(found["teacher"], found["student"], codes, classes, held.positions),
    }


def _probabilities(classifier: Classifier, features: Any) -> NDArray[np.floating[Any]]:
    return classifier.probabilities(classifier.schema.encode(features)[0])


def _figures(
    codes: NDArray[np.intp] | None, probabilities: NDArray[np.floating[Any]]
) -> dict[str, float | None]:
    if codes is None:
        return dict.fromkeys(("accuracy", "log_loss", "ece"))
    return {
        "accuracy": metrics.accuracy(codes, probabilities),
        "log_loss": metrics.log_loss(codes, probabilities),
        "ece": metrics.expected_calibration_error(codes, probabilities),
    }


def _rows_per_second(classifiers: Mapping[str, Classifier], held: Held) -> dict[str, float]:
    """Return how many raw rows a second each predicts: the fastest of several times, in turns.

    Whatever else the machine does only slows it down.
    """
    features = held.features[:TIMED_ROWS]
    seconds: dict[str, list[float]] = {who: [] for who in classifiers}
    for _ in range(TIMED):
        for who, classifier in classifiers.items():
            since = time.perf_counter()
            _probabilities(classifier, features)
            seconds[who].append(time.perf_counter() - since)
    return {who: len(features) / max(min(s), 1e-9) for who, s in seconds.items()}


def _disagreements(
    teacher: NDArray[np.floating[Any]],
    student: NDArray[np.floating[Any]],
    codes: NDArray[np.intp] | None,
    classes: list[Any],
    positions: NDArray[np.intp],
) -> dict[str, Any]:
    """Return how often the two say another class, who is right then, and the surest of them."""
    by_teacher, by_student = teacher.argmax(axis=1), student.argmax(axis=1)
    rows = np.flatnonzero(by_teacher != by_student)
    sure = teacher[rows, by_teacher[rows]] + student[rows, by_student[rows]]
    pairs = Counter(zip(by_teacher[rows].tolist(), by_student[rows].tolist(), strict=True))
    return {
        "disagreements": len(rows),
        "teacher_right": None if codes is None else int((by_teacher == codes)[rows].sum()),
        "student_right": None if codes is None else int((by_student == codes)[rows].sum()),
        "pairs": [
            {"teacher": classes[a], "student": classes[b], "count": count}
            for (a, b), count in pairs.most_common(SHOWN_PAIRS)
        ],
        "examples": [
            {
                "row": int(positions[row]),
                "teacher": classes[by_teacher[row]],
                "teacher_probability": float(teacher[row, by_teacher[row]]),
                "student": classes[by_student[row]],
                "student_probability": float(student[row, by_student[row]]),
                "label": None if codes is None else classes[codes[row]],
            }
            for row in rows[np.argsort(-sure, kind="stable")[:SHOWN_EXAMPLES]].tolist()
        ],
    }
