"""Anything → `Dataset`: sources, schemas and splits."""

from luce.data.schema import Schema
from luce.data.sources import Block, Dataset, load_dataset, read_blocks
from luce.data.split import check_labels, rare_classes, split_rows, three_way

__all__ = [
    "Block",
    "Dataset",
    "Schema",
    "check_labels",
    "load_dataset",
    "rare_classes",
    "read_blocks",
    "split_rows",
    "three_way",
]
