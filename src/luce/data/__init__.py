"""Anything → `Dataset`: sources, schemas and splits.

Each name is imported on first use, so that what needs no data (`kinds`, `schema`) stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOME = {
    "Block": "sources",
    "Dataset": "dataset",
    "Schema": "schema",
    "check_labels": "split",
    "folds": "split",
    "load_dataset": "sources",
    "rare_classes": "split",
    "read_blocks": "sources",
    "read_schema": "schemas",
    "split_rows": "split",
    "three_way": "split",
}

__all__ = [
    "Block",
    "Dataset",
    "Schema",
    "check_labels",
    "folds",
    "load_dataset",
    "rare_classes",
    "read_blocks",
    "read_schema",
    "split_rows",
    "three_way",
]

if TYPE_CHECKING:
    from luce.data.dataset import Dataset
    from luce.data.schema import Schema
    from luce.data.schemas import read_schema
    from luce.data.sources import Block, load_dataset, read_blocks
    from luce.data.split import check_labels, folds, rare_classes, split_rows, three_way


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'luce.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"luce.data.{home}"), name)
    globals()[name] = value
    return value
