"""A run and the rows it is scored on → a plain dict with everything that the page shows.

The dict can be written as JSON, and does not grow with the number of rows: examples are a few,
curves are thinned, and a large confusion matrix is its largest cells. Each section either holds its
content, or ``absent``: a sentence that says why it cannot be shown.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from luce.data.tables import TableSchema
from luce.evaluation import metrics
from luce.models import AVERAGE
from luce.report import attention, certainty
from luce.report.confusion import confusion
from luce.report.curves import curves
from luce.report.distillation import distillation
from luce.report.examples import examples
from luce.report.findings import findings
from luce.report.penalties import path
from luce.report.subject import Scored, Subject
from luce.report.text import name
from luce.report.thresholds import thresholds
from luce.report.tuning import tuning

__all__ = ["summarise"]

# More classes, new labels or remarks than these are counted, not listed.
SHOWN_CLASSES, SHOWN_NAMES = 1_000, 20

NO_ROWS = (
    "There are no rows to score on: training held none out. Give a labelled source, "
    "luce report RUN SOURCE, or train with --test-size 0.2."
)
NO_LABELS = "The rows have no labels to compare the predictions with."

# The figures that stand side by side for training, validation and test rows.
HEADLINE = (
    ("accuracy", "Accuracy", "share of rows whose most probable class is the right one"),
    ("balanced_accuracy", "Balanced accuracy", "mean recall of the classes: each counts alike"),
    ("roc_auc", "ROC AUC", "how often a class's row has more of it than another's; 0.5 is chance"),
    (
        "average_precision",
        "Average precision",
        "of “{watched}”; chance gives its share of the rows",
    ),
    ("log_loss", "Log-loss", "in nats; 0 is perfect"),
    ("brier_score", "Brier score", "0 is perfect, 2 is worst"),
    ("ece", "ECE", "expected calibration error: 15 bins of equal width"),
    ("macro_f1", "Macro F1", "mean of the classes' F1"),
    ("top_5_accuracy", "Top-5 accuracy", "the right class is among the five most probable"),
)

# The sections that need labelled rows.
LABELLED = ("confusion", "classes", "thresholds", "calibration", "importance", "wrong", "labels")


def summarise(subject: Subject) -> dict[str, Any]:
    """Describe a run and how it does on rows, as a dict that JSON can hold.

    Parameters
    ----------
    subject : Subject
        The run's parts, and the rows.

    Returns
    -------
    dict
        ``title``; ``about`` (what was trained on what, and the command that repeats it);
        ``scored`` (which rows, and what is the matter with them); ``findings`` (sentences);
        ``figures``, ``curves``, ``confusion``, ``classes``, ``thresholds``, ``calibration``,
        ``sets``, ``wrong``, ``uncertain``, ``labels``, ``weights``, ``importance``,
        ``distillation``, ``architecture``, ``environment``, ``path``, ``tuning``.
    """
    scored, names = subject.scored, [name(label) for label in subject.classes]
    content: dict[str, Any] = {
        "luce": str(subject.config["luce"]),
        "title": name(subject.config["data"]["name"]),
        "about": _about(subject, names),
        "scored": _scored(scored),
        "curves": curves(
            subject.history, str(subject.config["label"]), subject.config.get("outcome", {})
        ),
        "path": path(subject.config.get("outcome", {})),
        "tuning": tuning(subject.tuning),
        "distillation": distillation(subject.metrics),
        "architecture": _architecture(subject.info),
        "environment": _environment(subject.environment),
    }
    support, figures = np.zeros(len(names), np.int64), None
    if scored is None:
        content |= {key: {"absent": NO_ROWS} for key in (*LABELLED, "sets", "uncertain")}
    else:
        content["sets"] = certainty.prediction_sets(subject, scored)
        if scored.codes is None:
            content |= {key: {"absent": NO_LABELS} for key in LABELLED}
        else:
            figures = metrics.summary(scored.codes, scored.probabilities)
            support = np.bincount(scored.codes, minlength=len(names))
            content |= {
                "confusion": confusion(names, scored.codes, scored.probabilities.argmax(axis=1)),
                "classes": _classes(names, figures),
                "thresholds": thresholds(names, scored, figures),
                "calibration": certainty.calibration(subject, scored),
                "importance": attention.importance(subject.classifier, scored),
            }
        columns = _columns(subject, content["importance"])
        content |= examples(subject, names, scored, columns)
    content["weights"] = attention.weights(subject.classifier, names, support)
    content["figures"] = _figures(subject, names, figures)
    content["findings"] = findings(content)
    return content


def _about(subject: Subject, names: list[str]) -> dict[str, Any]:
    config, schema = subject.config, subject.schema
    request, rows = config["request"], config["data"]["rows"]
    table = isinstance(schema, TableSchema)
    return {
        "path": subject.path,
        # Of a candidate that is its folds' average, what these are.
        "model": str(config["label"] if config["model"] == AVERAGE else config["model"]),
        "averaged": len(config["options"]["parts"]) if config["model"] == AVERAGE else 0,
        "asked": str(request["model"]),
        "data": name(config["data"]["name"]),
        "kind": schema.kind,
        "shape": " × ".join(f"{size:,}" for size in schema.input_shape),
        "columns": len(schema.used) if isinstance(schema, TableSchema) else None,
        "target": name(schema.target) if table and schema.target is not None else None,
        "warnings": list(schema.warnings),
        "classes": len(names),
        "class_names": names[:10],
        "rows": {part: int(rows.get(part, 0)) for part in ("train", "validation", "test")},
        "seed": request["seed"],
        "options": {
            key: value
            for key, value in config["options"].items()
            if value is not None and key != "parts"
        },
        "command": None
        if request["source"] is None
        else shlex.join(
            ["luce", _command(request), "--config", f"{subject.path}/config.json"],
        ),
        "leaderboard": [
            {
                "label": record.get("label", record["model"]),
                **{
                    key: record.get(key)
                    for key in ("accuracy", "log_loss", "seconds", "parameters")
                },
                "weights": record.get("weights", {}),
            }
            for record in subject.metrics.get("leaderboard", [])
        ],
        "folds": int(config.get("folds", 0)),
    }


def _command(request: Mapping[str, Any]) -> str:
    return "train" if request.get("teacher") is None else "distil"


def _environment(environment: Mapping[str, Any]) -> list[list[str]]:
    """Return what trained the run and its version, flat; the file may hold anything."""
    packages = environment.get("packages")
    flat = {**environment, **(packages if isinstance(packages, dict) else {})}
    plain = {key: value for key, value in flat.items() if isinstance(value, str | int | float)}
    return [[name(key.replace("_", " ")), name(value)] for key, value in list(plain.items())[:50]]


def _architecture(info: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("layers", "parameters", "bytes", "flops_per_example", "input_shape", "classes")
    return {key: info[key] for key in keys if key in info}


def _scored(scored: Scored | None) -> dict[str, Any]:
    if scored is None:
        none = {"role": "none", "words": NO_ROWS, "rows": 0, "labelled": False, "new_rows": 0}
        none |= {"new_classes": [], "missing_classes": [], "handled": [], "useless": []}
        return {**none, "new_classes_total": 0, "missing_classes_total": 0}
    return {
        "role": scored.role,
        "words": scored.words,
        "rows": len(scored),
        "labelled": scored.codes is not None,
        "new_classes": [
            {"class": name(label), "rows": count}
            for label, count in list(scored.new_classes.items())[:SHOWN_NAMES]
        ],
        "new_classes_total": len(scored.new_classes),
        "new_rows": sum(scored.new_classes.values()),
        "missing_classes": [name(label) for label in scored.missing_classes[:SHOWN_NAMES]],
        "missing_classes_total": len(scored.missing_classes),
        "handled": [
            {"what": what, "count": count}
            for what, count in list(scored.handled.items())[:SHOWN_NAMES]
        ],
        "useless": list(scored.useless[:SHOWN_NAMES]),
    }


def _figures(subject: Subject, names: list[str], figures: dict[str, Any] | None) -> dict[str, Any]:
    """Put training, validation, test and other rows side by side."""
    role = "none" if subject.scored is None else subject.scored.role
    found = {
        "training": subject.metrics.get("train"),
        "validation": subject.metrics.get("validation"),
        "test": subject.metrics.get("test"),
    }
    if figures is not None:
        if figures["watched"] is not None:  # the others have labels, not column numbers
            label = subject.classes[figures["watched"]["class"]]
            figures = {**figures, "watched": {**figures["watched"], "class": label}}
        found[{"source": "these rows"}.get(role, role)] = figures
    known = {label: content for label, content in found.items() if content}
    if not known:
        return {"absent": NO_ROWS}
    # All of the same class, that of the last rows: where two are as common, others may differ.
    watched = (list(known.values())[-1].get("watched") or {}).get("class")
    parts = [_part(label, content, watched) for label, content in known.items()]
    content: dict[str, Any] = {
        "parts": parts,
        "rows": [
            {"key": key, "label": label, "note": note.format(watched=name(watched))}
            for key, label, note in HEADLINE
            if any(key in part["figures"] for part in parts)
        ],
        "headline": None,
    }
    if figures is not None:
        baseline = figures["baseline"]
        content |= {
            "headline": _part("these rows", figures, watched),
            "baseline": {
                "class": names[baseline["class"]],
                "accuracy": baseline["accuracy"],
            },
            "clipped": figures["log_loss_clipped_rows"],
        }
    return content


def _part(label: str, figures: Mapping[str, Any], watched: Any) -> dict[str, Any]:
    of_class = figures.get("watched") or {"class": None}
    if watched is not None and of_class["class"] == watched:
        figures = {**figures, "average_precision": of_class["average_precision"]}
    return {
        "label": label,
        "rows": figures["rows"],
        "figures": {
            key: {"value": figures[key], "interval": figures.get(f"{key}_interval")}
            for key, _, _ in HEADLINE
            if figures.get(key) is not None  # undefined, or a run older than the figure
        },
    }


def _classes(names: list[str], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of every class; of the worst ones where there are too many."""
    rows = [{**row, "class": names[row["class"]]} for row in figures["per_class"]]
    worst = sorted(rows, key=lambda row: (row["support"] == 0, row["f1"]))
    return {
        "total": len(rows),
        "rows": rows if len(rows) <= SHOWN_CLASSES else worst[:SHOWN_CLASSES],
        "worst": worst[:SHOWN_NAMES],
    }


def _columns(subject: Subject, importance: Mapping[str, Any]) -> list[str]:
    """Return a table's columns, the most important first."""
    if not isinstance(subject.schema, TableSchema):
        return []
    first = [column["column"] for column in importance.get("columns", ())]
    return [*first, *(c.name for c in subject.schema.used if c.name not in set(first))]
