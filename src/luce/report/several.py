"""A run of several labels at once and the rows it is scored on → a plain dict for its own page.

As `luce.report.summary`, of what can be said where labels do not exclude each other.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luce.calibrating_labels import LabelCalibration, score_labels
from luce.data.opening import of_source
from luce.evaluation import several
from luce.report.attention import weights
from luce.report.curves import curves
from luce.report.penalties import path
from luce.report.text import counted, name
from luce.report.tuning import tuning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from luce.data import Dataset
    from luce.report.subject import Role, Subject

__all__ = ["summarise_labels"]

# More labels than these are not listed: those with the lowest F1 are.
SHOWN_LABELS: Final = 500
# The rows with the largest loss that are listed.
SHOWN_ROWS: Final = 20
# Sets that hold so much of a row's labels, on average.
COVERAGES: Final = (0.8, 0.9, 0.95)
# With fewer rows than this a label's figures are mostly chance.
FEW_MEMBERS: Final = 20
FEW_ROWS: Final = 100

# The figures that stand side by side for training, validation and test rows.
HEADLINE: Final = (
    ("log_loss", "Log-loss", "mean over rows and labels, in nats; 0 is perfect"),
    ("mean_average_precision", "Mean average precision", "of the labels; 1 is perfect"),
    ("micro_f1", "Micro F1", "of all labels of all rows together"),
    ("macro_f1", "Macro F1", "mean of the labels' F1"),
    ("hamming_loss", "Hamming loss", "share of all labels that are wrong"),
    ("subset_accuracy", "All right", "share of rows of which every label is right"),
    (
        "label_ranking_average_precision",
        "Label ranking",
        "how well the labels that are on come first in their row; 1 is perfect",
    ),
    ("ece", "ECE", "mean calibration error of the labels: 15 bins of equal width"),
)

NO_ROWS: Final = (
    "There are no rows to score on: training held none out. Give a labelled source, "
    "luce report RUN SOURCE, or train with --test-size 0.2."
)
NO_LABELS: Final = "The rows have no labels to compare the predictions with."


def summarise_labels(
    subject: Subject, rows: Dataset | None, words: str, role: Role
) -> dict[str, Any]:
    """Describe a run of several labels and how it does on rows, as a dict that JSON can hold.

    Parameters
    ----------
    subject : Subject
        The run's parts; its ``scored`` is None.
    rows : Dataset or None
        What it is scored on; None where there is nothing.
    words : str
        Which rows they are.
    role : {"test", "source", "validation"}
        Whose they are.

    Returns
    -------
    dict
        ``kind`` ("labels"), ``title``, ``about``, ``scored``, ``findings``, ``figures``,
        ``labels``, ``calibration``, ``sets``, ``wrong``, ``weights``, ``path``, ``curves``,
        ``tuning``; or ``absent`` in
        a section, with a sentence that says why.
    """
    classifier, config = subject.classifier, subject.config
    names = [name(label) for label in subject.classes]
    content: dict[str, Any] = {
        "kind": "labels",
        "luce": str(config["luce"]),
        "title": name(config["data"]["name"]),
        "about": _about(subject, names),
        "curves": curves(subject.history, str(config["label"]), config.get("outcome", {})),
        "tuning": tuning(subject.tuning),
        "path": path(config.get("outcome", {})),
        "scored": {"words": NO_ROWS, "rows": 0, "role": "none", "labelled": False, "useless": []},
    }
    figures: dict[str, Any] | None = None
    handled: Mapping[str, int] = {}
    support = np.zeros(len(names), int)
    if rows is not None:
        with of_source(rows.name):
            encoded, handled = classifier.schema.encode(rows.features)
        logits = classifier.log_probabilities(encoded)
        content["scored"] = {
            "words": words,
            "rows": len(rows),
            "role": role,
            "labelled": rows.labels is not None,
            "useless": classifier.schema.useless(handled, len(rows)),
        }
    calibration: Any = classifier.calibration
    if rows is None or rows.labels is None:
        why = {"absent": NO_ROWS if rows is None else NO_LABELS}
        content |= dict.fromkeys(("labels", "sets", "wrong"), why)
    else:
        figures = score_labels(rows.labels, logits, subject.classes, calibration)
        p = classifier.probabilities(encoded)
        content["labels"] = _labels(names, figures)
        content["sets"] = _sets(calibration, rows.labels, p)
        content["wrong"] = _wrong(names, rows.labels, p)
        support = np.asarray(rows.labels).sum(axis=0)
    content["weights"] = weights(classifier, names, support)
    content["figures"] = _figures(subject.metrics, figures, role)
    content["calibration"] = _calibration(calibration, figures)
    content["findings"] = _findings(content, figures)
    return content


def _about(subject: Subject, names: list[str]) -> dict[str, Any]:
    config, request = subject.config, subject.config["request"]
    rows = config["data"]["rows"]
    source = request["source"]
    repeat = ["luce", "train", "--config", f"{subject.path}/config.json"]
    return {
        "path": subject.path,
        "model": str(config["model"]),
        "data": name(config["data"]["name"]),
        "names": names[:20],
        "labels": len(names),
        "rows": {part: int(rows.get(part, 0)) for part in ("train", "validation", "test")},
        "leaderboard": [
            {key: record.get(key) for key in ("label", "log_loss", "accuracy", "seconds")}
            for record in subject.metrics.get("leaderboard", [])
        ],
        "command": None if source is None else shlex.join(repeat),
    }


def _labels(names: list[str], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of each label; of the worst where there are too many."""
    rows = [{**row, "label": label} for row, label in zip(figures["per_label"], names, strict=True)]
    if len(rows) > SHOWN_LABELS:
        rows = sorted(rows, key=lambda row: row["f1"])[:SHOWN_LABELS]
    return {"total": len(names), "rows": rows}


def _sets(
    calibration: LabelCalibration | None, on: NDArray[np.bool_], p: NDArray[Any]
) -> dict[str, Any]:
    if calibration is None:
        return {"absent": "There were no validation rows to say how much sets would miss."}
    rows = []
    for coverage in COVERAGES:
        held = calibration.sets(coverage)
        found = several.label_set_figures(on, held.predict_sets(p))
        threshold = held.threshold if np.isfinite(held.threshold) else None
        rows.append({"risk": held.risk, "threshold": threshold, **found})
    return {"calibrated_on": calibration.scored, "rows": rows}


def _wrong(names: list[str], on: NDArray[np.bool_], p: NDArray[Any]) -> dict[str, Any]:
    """Return the rows with the largest loss: what was missed there, and what was said in vain."""
    tiny = np.finfo(np.float64).eps
    losses = -np.log(np.where(on, p, 1 - p).clip(min=tiny)).sum(axis=1)
    found = []
    for row in np.argsort(-losses, kind="stable")[:SHOWN_ROWS].tolist():
        order = np.argsort(-np.where(on[row], 1 - p[row], p[row]), kind="stable")
        found.append(
            {
                "row": row,
                "loss": float(losses[row]),
                "on": [names[k] for k in np.flatnonzero(on[row])],
                "worst": [
                    {
                        "label": names[k],
                        "on": bool(on[row, k]),
                        "probability": float(p[row, k]),
                    }
                    for k in order[:3].tolist()
                ],
            }
        )
    return {"rows": found, "total": len(on)}


def _figures(
    metrics: Mapping[str, Any], figures: Mapping[str, Any] | None, role: str
) -> dict[str, Any]:
    """Put training, validation, test and other rows side by side."""
    found = {
        "training": metrics.get("train"),
        "validation": metrics.get("validation"),
        "test": metrics.get("test"),
    }
    if figures is not None:
        found[{"source": "these rows"}.get(role, role)] = dict(figures)
    known = {label: content for label, content in found.items() if content}
    if not known:
        return {"absent": NO_ROWS}
    return {
        "rows": [{"key": key, "label": label, "note": note} for key, label, note in HEADLINE],
        "parts": [
            {
                "label": label,
                "rows": part["rows"],
                "figures": {key: part.get(key) for key, _, _ in HEADLINE},
            }
            for label, part in known.items()
        ],
        "headline": None if figures is None else {key: figures.get(key) for key, _, _ in HEADLINE},
        "baseline": None if figures is None else figures["baseline_log_loss"],
    }


def _calibration(
    calibration: LabelCalibration | None, figures: Mapping[str, Any] | None
) -> dict[str, Any]:
    if calibration is None:
        return {"absent": "It was trained without validation rows: nothing is calibrated."}
    before = None if figures is None else figures["uncalibrated"]
    return {
        "temperature": calibration.temperature,
        "rows": calibration.rows,
        "before": before,
        "after": None
        if figures is None
        else {key: figures[key] for key in ("log_loss", "brier_score", "ece")},
    }


def _findings(
    content: Mapping[str, Any], figures: Mapping[str, Any] | None
) -> list[dict[str, str]]:
    """Say what the figures say about whether to trust the model, in sentences."""
    scored = content["scored"]
    found = [{"level": "bad", "text": sentence} for sentence in scored["useless"]]
    if figures is None:
        return [*found, {"level": "bad", "text": NO_ROWS if not scored["rows"] else NO_LABELS}]
    if scored["role"] == "validation":
        text = (
            "There are no test rows. The figures are of the validation rows, which chose the "
            "model, its temperature and its thresholds: they flatter."
        )
        found.append({"level": "look", "text": text})
    if scored["rows"] < FEW_ROWS:
        text = f"Only {counted(scored['rows'], 'row was', 'rows were')} scored: chance is large."
        found.append({"level": "look", "text": text})
    high, base = figures["log_loss_interval"]["high"], figures["baseline_log_loss"]
    if high < base:
        level, how = "good", "beats"
    else:
        level, how = "bad" if figures["log_loss"] >= base else "look", "may be no better than"
    text = (
        f"Its log-loss, {figures['log_loss']:.4f} a label, {how} that of always saying how often "
        f"each label is on ({base:.4f})."
    )
    found.append({"level": level, "text": text})
    rows = content["labels"]["rows"]
    rare = [row for row in rows if row["rows"] < FEW_MEMBERS]
    if rare:
        few = ", ".join(f"“{row['label']}”" for row in rare[:5]) + ", …" * (len(rare) > 5)
        text = (
            f"{counted(len(rare), 'label has', 'labels have')} fewer than {FEW_MEMBERS} rows here, "
            f"and figures that are mostly chance: {few}."
        )
        found.append({"level": "look", "text": text})
    missed = [row for row in rows if row["rows"] >= FEW_MEMBERS and row["recall"] < 0.1]
    if missed:
        few = ", ".join(f"“{row['label']}”" for row in missed[:5]) + ", …" * (len(missed) > 5)
        found.append({"level": "look", "text": f"It hardly ever finds {few}."})
    off = 100 * figures["ece"]
    level = "good" if off <= 2 else "look"
    text = f"Its probabilities are off by {off:.1f} points on average over the labels."
    found.append({"level": level, "text": text})
    return found
