"""What the model looks at: weights, the first layer's filters, and what each column is worth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from luce.data.tables import TableSchema
from luce.evaluation import metrics
from luce.report.text import name, picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data import Schema
    from luce.data.columns import Column
    from luce.models.classifier import Classifier
    from luce.report.subject import Scored

__all__ = ["importance", "parts_of", "weights"]

# More classes, features or filters than these help nobody.
SHOWN_CLASSES, SHOWN_FEATURES, SHOWN_FILTERS, SHOWN_COLUMNS = 30, 8, 64, 30
SHOWN_TERMS = 16
SHOWN_LEFT = 100

# Permutation importance predicts for each column and each shuffle: at most PREDICTED_ROWS rows and
# PREDICTED_CELLS probabilities in all. A shuffle is of at most ROWS rows, and of at least ENOUGH.
PREDICTED_ROWS, PREDICTED_CELLS = 1_000_000, 30_000_000
ROWS, ENOUGH, REPEATS = 2_000, 100, 5


def weights(classifier: Classifier, classes: list[Any], support: NDArray[Any]) -> dict[str, Any]:
    """Describe the weights: pictures per class or per filter, or the top features of each class.

    Parameters
    ----------
    classifier : Classifier
        What was learnt.
    classes : list
        The class of each column.
    support : ndarray of int, shape (classes,)
        Rows of each class: the commonest classes are shown where there are too many.
    """
    schema, found = classifier.schema, classifier.explain()
    if found is None:
        return {"kind": "none"}
    shape, array = schema.input_shape, found.array
    if found.of == "classes":
        chosen = np.sort(np.argsort(-support, kind="stable")[:SHOWN_CLASSES])
        common = {"classes": len(classes), "shown": len(chosen)}
        if schema.kind == "image":
            images = array[chosen].reshape(-1, *shape).mean(axis=1)
            names = [name(classes[k]) for k in chosen]
            return {"kind": "weights", **common, **_pictures(images, names)}
        features = schema.feature_names
        texts = [
            part for column, part in parts_of(schema) if column is not None and column.in_parts
        ]
        whole = np.ones(array.shape[1], bool)
        for part in texts:
            whole[part] = False

        def listed(k: int, of: NDArray[np.intp], count: int) -> list[dict[str, Any]]:
            return [{"name": name(features[j]), "weight": float(array[k, j])} for j in of[:count]]

        used = np.asarray(array.any(axis=0))
        left = _first(np.flatnonzero(used & whole), -np.linalg.norm(array, axis=0))
        return {
            "kind": "features",
            **common,
            # Where the penalty left some out.
            "left": None
            if used.all()
            else {
                "count": int(used.sum()),
                "total": len(used),
                "names": [name(features[j]) for j in left[:SHOWN_LEFT]],
            },
            "per_class": [
                {
                    "class": name(classes[k]),
                    "features": listed(
                        k, _first(np.flatnonzero(whole), -np.abs(array[k])), SHOWN_FEATURES
                    ),
                    "terms": listed(
                        k, _first(np.flatnonzero(~whole & (array[k] > 0)), -array[k]), SHOWN_TERMS
                    ),
                }
                for k in chosen
            ],
        }
    if schema.kind != "image":
        return {"kind": "none"}
    flat = array.reshape(len(array), -1)
    largest = np.argsort(-np.linalg.norm(flat, axis=1), kind="stable")[:SHOWN_FILTERS]
    images = array[largest]
    images = (images.reshape(-1, *shape) if images.ndim == 2 else images).mean(axis=1)
    names = [f"{found.of[:-1]} {unit}" for unit in largest]
    return {
        "kind": found.of,
        "classes": len(classes),
        "total": len(array),
        "shown": len(largest),
        **_pictures(images, names),
    }


def _first(which: NDArray[np.intp], by: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Return the numbers in the order of what they are sorted by."""
    return which[np.argsort(by[which], kind="stable")]


def _pictures(images: NDArray[np.floating[Any]], names: list[str]) -> dict[str, Any]:
    # A few dead pixels with huge weights must not turn everything else to grey.
    limit = float(np.quantile(np.abs(images), 0.999)) or 1.0
    return {
        "limit": limit,
        "pictures": [
            {"name": label, "picture": picture(image, limit=limit)}
            for label, image in zip(names, images, strict=True)
        ],
    }


def importance(classifier: Classifier, scored: Scored) -> dict[str, Any]:
    """Measure what the log-loss loses when one column's values are shuffled among the rows.

    Breiman (2001), "Random forests", on rows that the model has not learnt from. A table's column
    is shuffled whole, with all the columns that it is encoded as.

    Returns
    -------
    dict
        ``rows``, ``repeats``, and ``columns``: ``name``, ``log_loss`` (mean increase, in nats),
        ``deviation`` (over the repeats) and ``accuracy`` (mean decrease), the largest first; or
        ``absent``, why there is none.
    """
    schema = classifier.schema
    if schema.kind == "image":
        return {"absent": "The columns of images are pixels; the pictures above show more."}
    if scored.codes is None:
        return {"absent": "Without labels nobody knows what shuffling a column makes worse."}
    names = [] if isinstance(schema, TableSchema) else schema.feature_names
    groups = [
        (names[part.start] if column is None else column.name, part)
        for column, part in parts_of(schema)
    ]
    classes = scored.probabilities.shape[1]
    per_column = min(PREDICTED_ROWS, PREDICTED_CELLS // classes) // len(groups)
    if per_column < ENOUGH:
        return {
            "absent": f"{len(groups):,} columns and {classes:,} classes are too many to shuffle "
            "one column after the other."
        }
    generator = np.random.default_rng(0)
    rows = np.sort(generator.permutation(len(scored))[: min(ROWS, per_column)])
    repeats = max(1, min(REPEATS, per_column // len(rows)))
    encoded, codes = scored.encoded[rows], scored.codes[rows]
    before = classifier.probabilities(encoded, calibrated=False)
    base_loss, base_accuracy = metrics.log_loss(codes, before), metrics.accuracy(codes, before)
    columns: list[dict[str, Any]] = []
    for label, part in groups:
        losses, accuracies = [], []
        for _ in range(repeats):
            order = generator.permutation(len(rows))
            after = classifier.probabilities(_shuffled(encoded, part, order), calibrated=False)
            losses.append(metrics.log_loss(codes, after) - base_loss)
            accuracies.append(base_accuracy - metrics.accuracy(codes, after))
        columns.append(
            {
                "name": name(label),
                "column": label,
                "log_loss": float(np.mean(losses)),
                "deviation": float(np.std(losses)),
                "accuracy": float(np.mean(accuracies)),
            }
        )
    columns.sort(key=lambda column: -column["log_loss"])
    return {
        "rows": len(rows),
        "repeats": repeats,
        "total": len(columns),
        "columns": columns[:SHOWN_COLUMNS],
    }


def _shuffled(encoded: Any, part: slice, order: NDArray[np.intp]) -> Any:
    """Return the rows, dense or sparse, with some of their columns in another order of rows."""
    if isinstance(encoded, np.ndarray):
        shuffled = encoded.copy()
        shuffled[:, part] = encoded[order, part]
        return shuffled
    import scipy.sparse

    sides = [encoded[:, : part.start], encoded[order][:, part], encoded[:, part.stop :]]
    return scipy.sparse.csr_array(scipy.sparse.hstack(sides, format="csr"))


def parts_of(schema: Schema) -> list[tuple[Column | None, slice]]:
    """Return each column of a table and where its encoded columns are; None for other data."""
    if not isinstance(schema, TableSchema):
        return [(None, slice(i, i + 1)) for i in range(math.prod(schema.input_shape))]
    groups: list[tuple[Column | None, slice]] = []
    start = 0
    for column in schema.used:
        stop = start + column.width
        groups.append((column, slice(start, stop)))
        start = stop
    return groups
