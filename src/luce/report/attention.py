"""What the model looks at: weights, the first layer's filters, and what each column is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.data.tables import TableSchema
from luce.evaluation import metrics
from luce.report.text import name, picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data import Schema
    from luce.report.subject import Scored

__all__ = ["class_weights", "first_layer", "importance", "weights"]

# More classes, features or filters than these help nobody.
SHOWN_CLASSES, SHOWN_FEATURES, SHOWN_FILTERS, SHOWN_COLUMNS = 30, 8, 64, 30

# Permutation importance costs a prediction for each column and shuffle: so many rows and so many
# probabilities in all, at most. Each shuffle is of up to ROWS rows, and of no fewer than ENOUGH.
PREDICTED_ROWS, PREDICTED_CELLS = 1_000_000, 30_000_000
ROWS, ENOUGH, REPEATS = 2_000, 100, 5


def class_weights(estimator: Any) -> NDArray[np.floating[Any]] | None:
    """Return a linear model's weights, (classes, features), centred over the classes, or None.

    Softmax does not change when the same is added to every class's weights, so only differences
    between classes say anything: the mean over the classes is taken away.
    """
    if hasattr(estimator, "coef_"):
        coefficients = np.asarray(estimator.coef_, dtype=np.float64)
        if len(coefficients) == 1:  # two classes: the weights of the second against the first
            coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
    else:
        tensors = _tensors(estimator)
        if set(tensors) != {"output.weight", "output.bias"}:
            return None
        coefficients = tensors["output.weight"].astype(np.float64)
    centred: NDArray[np.floating[Any]] = coefficients - coefficients.mean(axis=0)
    return centred


def first_layer(estimator: Any) -> NDArray[np.floating[Any]] | None:
    """Return the weights of a network's first layer, one entry for each unit or filter, or None."""
    tensors = _tensors(estimator)
    for key in ("hidden1.weight", "conv1.weight"):
        if key in tensors:
            return tensors[key].astype(np.float64)
    return None


def _tensors(estimator: Any) -> dict[str, NDArray[Any]]:
    network = getattr(estimator, "network_", None)
    if network is None:
        return {}
    return {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}


def weights(
    estimator: Any, schema: Schema, classes: list[Any], support: NDArray[Any]
) -> dict[str, Any]:
    """Describe the weights: pictures per class or per filter, or the top features of each class.

    Parameters
    ----------
    estimator : estimator
        The fitted model.
    schema : Schema
        Of its features.
    classes : list
        The class of each column.
    support : ndarray of int, shape (classes,)
        Rows of each class: the commonest classes are shown where there are too many.
    """
    shape = schema.input_shape
    linear = class_weights(estimator)
    if linear is not None:
        chosen = np.sort(np.argsort(-support, kind="stable")[:SHOWN_CLASSES])
        common = {"classes": len(classes), "shown": len(chosen)}
        if schema.kind == "image":
            images = linear[chosen].reshape(-1, *shape).mean(axis=1)
            names = [name(classes[k]) for k in chosen]
            return {"kind": "weights", **common, **_pictures(images, names)}
        features = schema.feature_names
        return {
            "kind": "features",
            **common,
            "per_class": [
                {
                    "class": name(classes[k]),
                    "features": [
                        {"name": name(features[j]), "weight": float(linear[k, j])}
                        for j in np.argsort(-np.abs(linear[k]), kind="stable")[:SHOWN_FEATURES]
                    ],
                }
                for k in chosen
            ],
        }
    layer = first_layer(estimator)
    if layer is None or schema.kind != "image":
        return {"kind": "none"}
    flat = layer.reshape(len(layer), -1)
    largest = np.argsort(-np.linalg.norm(flat, axis=1), kind="stable")[:SHOWN_FILTERS]
    images = layer[largest]
    images = (images.reshape(-1, *shape) if images.ndim == 2 else images).mean(axis=1)
    kind = "units" if layer.ndim == 2 else "filters"
    names = [f"{kind[:-1]} {unit}" for unit in largest]
    return {
        "kind": kind,
        "classes": len(classes),
        "total": len(layer),
        "shown": len(largest),
        **_pictures(images, names),
    }


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


def importance(estimator: Any, schema: Schema, scored: Scored) -> dict[str, Any]:
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
    if schema.kind == "image":
        return {"absent": "The columns of images are pixels; the pictures above show more."}
    if scored.codes is None:
        return {"absent": "Without labels nobody knows what shuffling a column makes worse."}
    groups = _column_groups(schema)
    classes = scored.probabilities.shape[1]
    share = min(PREDICTED_ROWS, PREDICTED_CELLS // classes) // len(groups)
    if share < ENOUGH:
        return {
            "absent": f"{len(groups):,} columns and {classes:,} classes are too many to shuffle "
            "one column after the other."
        }
    generator = np.random.default_rng(0)
    rows = np.sort(generator.permutation(len(scored))[: min(ROWS, share)])
    repeats = max(1, min(REPEATS, share // len(rows)))
    encoded, codes = scored.encoded[rows], scored.codes[rows]
    before = estimator.predict_proba(encoded)
    base_loss, base_accuracy = metrics.log_loss(codes, before), metrics.accuracy(codes, before)
    shuffled = encoded.copy()
    columns: list[dict[str, Any]] = []
    for label, part in groups:
        losses, accuracies = [], []
        for _ in range(repeats):
            shuffled[:, part] = encoded[generator.permutation(len(rows)), part]
            after = estimator.predict_proba(shuffled)
            losses.append(metrics.log_loss(codes, after) - base_loss)
            accuracies.append(base_accuracy - metrics.accuracy(codes, after))
        shuffled[:, part] = encoded[:, part]
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


def _column_groups(schema: Schema) -> list[tuple[str, slice]]:
    """Return each raw column and where its encoded columns are."""
    if not isinstance(schema, TableSchema):
        return [(label, slice(i, i + 1)) for i, label in enumerate(schema.feature_names)]
    groups, start = [], 0
    for column in schema.used:
        stop = start + len(column.names)
        groups.append((column.name, slice(start, stop)))
        start = stop
    return groups
