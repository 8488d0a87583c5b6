"""What kind of source a name or a path is, told from its name. Light: a slip costs no time."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from luce.data.opening import found
from luce.data.wording import listed, shown
from luce.errors import ArgumentError, DataError

__all__ = [
    "ARROW_ENDINGS",
    "ENDINGS",
    "NAMES",
    "PARQUET_ENDINGS",
    "TEXT_ENDINGS",
    "brings_test_rows",
    "closest",
    "ending",
    "existing",
    "is_idx",
    "no_column",
    "no_target",
    "unknown_ending",
]

# The data sets that have a name; catalogue.py loads them.
NAMES = ("digits", "mnist", "fashion-mnist")

TEXT_ENDINGS = (".csv", ".tsv", ".txt")
PARQUET_ENDINGS = (".parquet", ".pq")
ARROW_ENDINGS = (".arrow", ".feather", ".ipc")
# Of tables.
ENDINGS = TEXT_ENDINGS + PARQUET_ENDINGS + ARROW_ENDINGS


def ending(path: Path) -> str:
    """Return the file's ending in lower case, without a final ``.gz``."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def is_idx(path: Path) -> bool:
    """Return whether the name is one of the usual names of IDX files."""
    return re.search(r"[-.]idx\d?(-ubyte)?(\.gz)?$", path.name.lower()) is not None


def brings_test_rows(source: str | Path) -> bool:
    """Return whether the source may be divided already: then no share of it is held out."""
    return source in NAMES or Path(source).is_dir()


def existing(source: str | Path) -> Path:
    """Return the path if there is something; raise DataError otherwise."""
    if source == "":
        raise DataError("The source is an empty text. Give a name such as digits, or a path.")
    path = found(Path(source))
    if path is None:
        if source == "-":
            raise DataError("Only luce predict reads standard input (-). Give a file.")
        near = closest(str(source), list(NAMES))
        hint = near if near.startswith("Did") else f"Names are {', '.join(NAMES)}."
        raise DataError(
            f"{source}: there is no such file or folder, nor a data set of that name. {hint}"
        )
    return path


def unknown_ending(path: Path) -> DataError:
    """Return the error of a file that no reader is for."""
    return DataError(
        f"{path}: the ending {shown(ending(path))} is unknown. Luce reads {', '.join(ENDINGS)}, "
        f".npz, .npy, IDX files and folders of images."
    )


def no_target(columns: list[str]) -> ArgumentError:
    """Return the error of a table for which no target is named."""
    return ArgumentError(f"target: name the column with the labels, one of {listed(columns, 10)}.")


def no_column(name: str, target: str, columns: list[str]) -> DataError:
    """Return the error of a table that has no such column."""
    return DataError(f"{name}: there is no column {shown(target)}. {closest(target, columns)}")


def closest(name: str, names: list[str]) -> str:
    """Return a sentence with the names most like `name`, or with all of them."""
    folded = {each.lower(): each for each in names}
    like = [folded[f] for f in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    return (
        f"Did you mean {' or '.join(map(shown, like))}?" if like else f"It has {listed(names, 10)}."
    )
