"""Rows as users hand them over: arrays, sparse matrices, or tensors if PyTorch is loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from luce.errors import DataError, not_finite_at

if TYPE_CHECKING:
    import mmap

__all__ = [
    "as_array",
    "find_bad",
    "is_part",
    "is_scan",
    "is_source",
    "is_tensor",
    "memory_map",
    "not_finite",
    "numpy_of",
    "part_of",
]


def is_tensor(value: Any) -> bool:
    """Say whether a value is a PyTorch tensor; PyTorch is not loaded to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_source(value: Any) -> bool:
    """Say whether a value is a `luce.linear.streamed_rows.Source`, read block by block."""
    return callable(getattr(type(value), "blocks", None)) and hasattr(value, "shape")


def is_part(value: Any) -> bool:
    """Say whether a value is the part of a block store: rows and labels, encoded on disk."""
    return callable(getattr(type(value), "stamp", None)) and hasattr(value, "blocks")


def is_scan(value: Any) -> bool:
    """Say whether a value is what `luce.scan` gives: names of files, whose rows are not encoded."""
    return callable(getattr(type(value), "as_part", None))


def part_of(value: Any) -> tuple[Any, Any]:
    """Return the part that a scan of files makes of its rows, and the schema that it fits to them.

    Only a fit may ask so: whoever predicts has a schema. Any other value is returned as it is, with
    None.
    """
    return value.as_part() if is_scan(value) else (value, None)


def as_array(X: Any) -> Any:
    """Return rows in memory as NumPy or SciPy have them, without a copy; None if they cannot."""
    if is_source(X):
        return None
    if not is_tensor(X):
        return X
    return X.numpy() if X.device.type == "cpu" and str(X.dtype) != "torch.bfloat16" else None


def numpy_of(values: Any) -> np.ndarray:
    """Return an array or a tensor as an array."""
    return values.cpu().numpy() if is_tensor(values) else np.asarray(values)


def find_bad(X: Any) -> tuple[int, int, float] | None:
    """Return the row, the column and the value of the first NaN or infinity, or None.

    X is an array or a sparse matrix in memory, by rows.
    """
    bad = np.argwhere(~np.isfinite(X.data if hasattr(X, "nnz") else X))
    if len(bad) == 0:
        return None
    if hasattr(X, "nnz"):
        at = int(bad[0, 0])
        row = int(np.searchsorted(X.indptr, at, side="right")) - 1
        return row, int(X.indices[at]), float(X.data[at])
    row, column = bad[0].tolist()
    return row, column, float(X[row, column])


def not_finite(name: str, bad: tuple[int, int, float] | None) -> DataError:
    """Return the error for columns without a finite variance, from what `find_bad` found."""
    if bad is None:
        return DataError(
            f"{name}: the squares of X overflow: scale its columns, with "
            "sklearn.preprocessing.StandardScaler."
        )
    row, column, value = bad
    return not_finite_at(value, [row, column])


def memory_map(array: np.ndarray) -> mmap.mmap | None:
    """Return the map that an array is a view of, if its pages can be handed back.

    Those of a copy-on-write map cannot: what was written to it lives nowhere else.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode != "c":
            return cast("mmap.mmap | None", getattr(base, "_mmap", None))
        base = base.base
    return None
