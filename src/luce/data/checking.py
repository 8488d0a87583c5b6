"""What is wrong with a source, said before any of its rows is read."""

from __future__ import annotations

from pathlib import Path

from luce.data.directions import Directions
from luce.data.kinds import (
    JSON_ENDINGS,
    NAMES,
    ending,
    existing,
    is_idx,
    is_pattern,
    no_column,
    no_target,
    tables_in,
    unknown_ending,
)
from luce.data.remote import AnyPath
from luce.data.targets import target_columns
from luce.data.wording import shown
from luce.errors import ArgumentError

__all__ = ["check_source"]


def check_source(
    source: str | Path,
    *,
    target: str | Path | None = None,
    features: str | None = None,
    told: Directions | None = None,
) -> None:
    """Refuse a source that cannot be trained on, as far as that is seen without reading its rows.

    Of a table the header is read, nothing else of any source.

    Parameters
    ----------
    source, target, features
        As for `load_dataset`.
    told : Directions, optional
        What the user says of a table.

    Raises
    ------
    luce.errors.DataError
        If it is not there or of an unknown kind, or has no such column.
    luce.errors.ArgumentError
        If an option does not belong to the kind of source, or a needed one is not there.
    """
    path = None if source in NAMES else existing(source)
    kind = "" if path is None or path.is_dir() else ending(path)
    told = told or Directions()
    tables = [] if path is None or is_idx(path) else tables_in(path)
    told.check_kind(shown(str(source)), table=bool(tables))
    if features is not None and kind != ".npz":
        raise ArgumentError(
            f"features names an array of an NPZ file; {shown(str(source))} is none."
        )
    if path is not None and tables:
        _check_columns(path, tables, target, told)
    elif path is None or path.is_dir():
        if target is not None:
            where = "a data set with a name" if path is None else "a folder"
            raise ArgumentError(
                f"target: {shown(str(source))} is {where}, which brings its own labels. "
                "Leave target out."
            )
    elif is_idx(path) or kind == ".npy":
        if target is not None:
            existing(target)
    elif kind != ".npz":
        raise unknown_ending(path)


def _check_columns(
    path: AnyPath, tables: list[AnyPath], target: str | Path | None, told: Directions
) -> None:
    from luce.data.frames import read_columns  # which loads Polars

    columns = read_columns(tables[:1], told.dialect())
    if target is None:
        raise no_target(columns)
    name = str(path) if is_pattern(path) else path.name.split(".")[0] or path.name
    if ending(tables[0]) in JSON_ENDINGS:
        return  # other keys may come in later rows
    for each in target_columns(str(target), told.several):
        if each not in columns:
            raise no_column(name, each, columns)
    told.check_columns(name, columns, str(target))
