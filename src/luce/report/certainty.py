"""Whether the probabilities can be believed: the reliability diagram, and prediction sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from luce.evaluation import conformal, metrics
from luce.report.text import name

if TYPE_CHECKING:
    from luce.report.subject import Scored, Subject

__all__ = ["calibration", "prediction_sets"]

COVERAGES = (0.8, 0.9, 0.95, 0.99)

NO_VALIDATION = (
    "The run was trained without validation rows, so nothing could be calibrated. Train with "
    "--validation-size 0.1."
)


def calibration(subject: Subject, scored: Scored) -> dict[str, Any]:
    """Compare probabilities with frequencies, before and after the temperature.

    Returns
    -------
    dict
        ``temperature`` and ``rows`` it was fitted on (None without calibration); ``after`` and
        ``before`` (None without, and where the temperature is 1), each the bins of
        `luce.evaluation.metrics.reliability_bins` and the figures that judge them.
    """
    before = scored.uncalibrated
    if subject.calibration is not None and subject.calibration.temperature == 1:
        before = None  # nothing was changed
    return {
        "temperature": None if subject.calibration is None else subject.calibration.temperature,
        "rows": None if subject.calibration is None else subject.calibration.rows,
        "note": NO_VALIDATION if subject.calibration is None else None,
        "in_sample": scored.role == "validation",
        "after": _reliability(scored, scored.probabilities),
        "before": None if before is None else _reliability(scored, before),
    }


def _reliability(scored: Scored, probabilities: Any) -> dict[str, Any]:
    codes = scored.codes
    assert codes is not None  # noqa: S101 - for mypy: the caller has looked
    return {
        "bins": metrics.reliability_bins(codes, probabilities),
        "ece": metrics.expected_calibration_error(codes, probabilities),
        "ece_equal_mass": metrics.expected_calibration_error(
            codes, probabilities, binning="equal_mass"
        ),
        "log_loss": metrics.log_loss(codes, probabilities),
        "brier_score": metrics.brier_score(codes, probabilities),
        "mean_confidence": float(probabilities.max(axis=1).mean()),
        "accuracy": metrics.accuracy(codes, probabilities),
    }


def prediction_sets(subject: Subject, scored: Scored) -> dict[str, Any]:
    """Ask for several coverages, and see what the rows got.

    Returns
    -------
    dict
        ``rows`` that the thresholds come from, and ``table``: for each coverage what
        `luce.evaluation.conformal.set_figures` finds; or ``absent``.
    """
    if subject.calibration is None:
        return {"absent": NO_VALIDATION}
    if scored.role == "validation":
        return {
            "absent": "The only rows left are those that the thresholds were taken from: there the "
            "coverage is what was asked for, whatever the model."
        }
    table = []
    for coverage in COVERAGES:
        sets = subject.calibration.sets(coverage)
        held = sets.predict_sets(scored.probabilities)
        if scored.codes is None:
            sizes = held.sum(axis=1)
            figures: dict[str, Any] = {
                "mean_size": float(sizes.mean()),
                "empty": float((sizes == 0).mean()),
                "single": float((sizes == 1).mean()),
            }
        else:
            figures = conformal.set_figures(scored.codes, held)
            worst = figures["worst_class"]
            figures["worst_class"] = {**worst, "class": name(subject.classes[worst["class"]])}
        table.append({"asked": coverage, **figures})
    return {
        "rows": len(subject.calibration.scores),
        "labelled": scored.codes is not None,
        "table": table,
    }
