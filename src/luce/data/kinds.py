"""What kind of source a name or a path is, told from its name. Light: a slip costs no time."""

from __future__ import annotations

import os
import re
from pathlib import Path

from luce.data.downloads import is_address, kept
from luce.data.opening import found, reading
from luce.data.remote import AnyPath, RemotePath, answering, is_remote, look_again
from luce.data.wording import closest, listed, shown
from luce.errors import ArgumentError, DataError

__all__ = [
    "ARROW_ENDINGS",
    "ENDINGS",
    "JSON_ENDINGS",
    "NAMES",
    "PARQUET_ENDINGS",
    "TEXT_ENDINGS",
    "WORKBOOK_ENDINGS",
    "base_of",
    "brings_test_rows",
    "ending",
    "existing",
    "is_idx",
    "is_pattern",
    "no_column",
    "no_rows",
    "no_target",
    "on_disk",
    "sheet_of",
    "tables_in",
    "unknown_ending",
]

# The data sets that have a name; catalogue.py loads them.
NAMES = ("digits", "mnist", "fashion-mnist")

TEXT_ENDINGS = (".csv", ".tsv", ".txt")
JSON_ENDINGS = (".jsonl", ".ndjson")
PARQUET_ENDINGS = (".parquet", ".pq")
ARROW_ENDINGS = (".arrow", ".feather", ".ipc")
WORKBOOK_ENDINGS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
# Of tables.
ENDINGS = TEXT_ENDINGS + JSON_ENDINGS + PARQUET_ENDINGS + ARROW_ENDINGS + WORKBOOK_ENDINGS

PACKED = (".gz", ".zst")


def ending(path: AnyPath) -> str:
    """Return the file's ending in lower case, without a final ``.gz``, ``.zst`` or sheet."""
    name = sheet_of(path)[0].name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return Path(name).suffix


def sheet_of(path: AnyPath) -> tuple[AnyPath, str | None]:
    """Return the file and the sheet that ``book.xlsx#Sheet 1`` names; None where it names none."""
    inside = path.path if isinstance(path, RemotePath) else str(path)
    name, mark, sheet = inside.rpartition("#")
    if mark and Path(name).suffix.lower() in WORKBOOK_ENDINGS:
        return path.at(name) if isinstance(path, RemotePath) else Path(name), sheet
    return path, None


def tables_in(path: AnyPath) -> list[AnyPath]:
    """Return the files of a table: of a folder or a pattern all of them, sorted.

    A folder is one of tables if it has some directly in it and no sub-folders; those are classes of
    images. An empty list says that it is none.

    Raises
    ------
    luce.errors.DataError
        If the files are of different kinds, or the folder may not be read.
    """
    if path.is_dir():
        with reading(path):
            all_of_it = sorted(path.iterdir(), key=_parts)
        inside = [each for each in all_of_it if not each.name.startswith((".", "_"))]
        if any(each.is_dir() for each in inside):
            return []
        found = [each for each in inside if ending(each) in ENDINGS]
    elif is_pattern(path):
        base = base_of(path)
        with reading(base):
            below = path.relative_to(base)  # type: ignore[arg-type] # both are here, or there
            matching = [each for each in base.glob(str(below)) if each.is_file()]
            found = sorted(matching, key=_parts)
    else:
        return [path] if ending(path) in ENDINGS else []
    kinds = sorted({ending(each) for each in found})
    if len(kinds) > 1:
        folder = path if path.is_dir() else path.parent
        raise DataError(
            f"{path}: it has files of the kinds {', '.join(kinds)}. Name those of one kind, such "
            f"as {str(folder / f'*{kinds[0]}')!r}."
        )
    return found


def _parts(path: AnyPath) -> tuple[str, ...]:
    return path.parts


def base_of(path: AnyPath) -> AnyPath:
    """Return the folder that names of a table's files begin in: its own, or that of a file.

    Of a pattern it is the last without a wildcard.
    """
    if path.is_dir():
        return path
    base = path.parent
    if is_pattern(path):
        while base != base.parent and re.search(r"[*?\[]", str(base)):
            base = base.parent
    return base


def is_pattern(path: AnyPath) -> bool:
    """Return whether the name stands for several files: ``sales/*.csv``."""
    return any(letter in str(path) for letter in "*?[") and found(path) is None


def is_idx(path: AnyPath) -> bool:
    """Return whether the name is one of the usual names of IDX files."""
    return re.search(r"[-.]idx\d?(-ubyte)?(\.gz)?$", path.name.lower()) is not None


def brings_test_rows(source: str | Path) -> bool:
    """Return whether the source may be divided already: then no share of it is held out."""
    path = Path(source)
    return source in NAMES or (path.is_dir() and not tables_in(path))


def existing(source: str | Path) -> AnyPath:
    """Return the path if there is something; raise DataError otherwise."""
    if source == "":
        raise DataError("The source is an empty text. Give a name such as digits, or a path.")
    if is_address(source):
        path = kept(str(source))
        if not path.exists():
            raise DataError(
                f"{source}: is an address, and not downloaded yet. Ask for it with --download "
                f"(download=True in Python)."
            )
        return path
    # What is there is a path, whatever its name.
    if is_remote(source) and not os.path.lexists(source):
        return answering(RemotePath(source), lambda: _remote(RemotePath(source)))
    path = Path(source)
    match = re.match(r"([a-z][a-z0-9+.-]+):/", str(source), re.IGNORECASE)
    if match and not path.exists():
        if match[1].lower() in ("file", "local"):
            raise DataError(f"{source}: give the path alone, without {match[1]}://.")
        if isinstance(source, Path):
            raise DataError(
                f"{source}: give an address as a text, not as a Path, which changes it."
            )
        raise DataError(
            f"{source}: there is no such file. An address has two slashes: "
            f"{match[1]}://{source[match.end() :].lstrip('/')}."
        )
    if found(sheet_of(path)[0]) is None and not (is_pattern(path) and tables_in(path)):
        if source == "-":
            raise DataError("Only luce predict reads standard input (-). Give a file.")
        if is_pattern(path):
            raise DataError(f"{source}: no file is named so. Look into the folder.")
        if path.suffix or len(path.parts) > 1:
            raise DataError(
                f"{source}: there is no such file or folder. Look for slips in the path."
            )
        near = closest(str(source), list(NAMES))
        hint = near if near.startswith("Did") else f"Names are {', '.join(NAMES)}."
        raise DataError(
            f"{source}: there is no such file or folder, nor a data set of that name. {hint}"
        )
    return path


def on_disk(source: str | Path) -> Path:
    """Return an existing path, which may not be an address: what is no table is mapped or listed.

    Raises
    ------
    luce.errors.DataError
        If there is nothing, or it is an address.
    """
    path = existing(source)
    if isinstance(path, RemotePath):
        raise DataError(f"{path}: is read from disks alone. Copy it to one.")
    return path


def _remote(path: RemotePath) -> RemotePath:
    look_again([path])
    tables = tables_in(path)
    if is_pattern(path):
        if not tables:
            raise DataError(f"{path}: no file is named so. Look into the folder.")
    elif found(sheet_of(path)[0]) is None:
        raise DataError(f"{path}: there is no such file or folder. Look for slips in the address.")
    elif not tables:
        raise DataError(
            f"{path}: only tables are read from addresses: {', '.join(ENDINGS)}, a folder or a "
            "pattern of them. Copy other files to a disk."
        )
    return path


def unknown_ending(path: AnyPath) -> DataError:
    """Return the error of a file that no reader is for."""
    return DataError(
        f"{path}: the ending {shown(ending(path))} is unknown. Luce reads {', '.join(ENDINGS)}, "
        f".npz, .npy, IDX files and folders of images."
    )


def no_target(columns: list[str]) -> ArgumentError:
    """Return the error of a table for which no target is named."""
    return ArgumentError(f"target: name the column with the labels, one of {listed(columns, 10)}.")


def no_rows(name: str) -> DataError:
    """Return the error of a table without rows, where some were to be predicted."""
    return DataError(f"{name}: there are no rows in it to predict. Give a table that has some.")


def no_column(name: str, target: str, columns: list[str]) -> DataError:
    """Return the error of a table that has no such column."""
    parts = [part.strip() for part in target.split(",")]
    if len(parts) > 1 and set(parts) <= set(columns):
        return DataError(
            f"{name}: there is no column {shown(target)}. To learn {len(parts)} labels at once, a "
            "column for each, add --several columns."
        )
    return DataError(f"{name}: there is no column {shown(target)}. {closest(target, columns)}")
