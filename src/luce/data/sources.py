"""A name, a path or what is in memory → `Dataset`; the same, unlabelled, in blocks of rows."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from luce.data import idx
from luce.data.arrays import ArraySchema, check_array, read_npy, read_npz, row_slices
from luce.data.catalogue import load_named
from luce.data.dataset import Dataset, Features
from luce.data.delimited import WINDOWS, Dialect, csv_blocks, pieces_of
from luce.data.directions import Directions
from luce.data.frames import as_frame, read_frame
from luce.data.images import (
    IMAGE_ENDINGS,
    ImageSchema,
    as_images,
    list_images,
    read_images,
    survey,
)
from luce.data.kinds import (
    NAMES,
    ending,
    existing,
    is_idx,
    no_column,
    no_rows,
    no_target,
    on_disk,
    tables_in,
    unknown_ending,
)
from luce.data.labels import as_classes, labels_from_array, labels_from_series
from luce.data.schema import ImageSize, Schema, check_image_size
from luce.data.several import aligned, labels_of_table
from luce.data.split import split_rows
from luce.data.streams.files import files_of
from luce.data.streams.reading import Reader
from luce.data.tables import TableSchema
from luce.data.targets import GIVEN, target_columns
from luce.data.wording import counted, listed, shown
from luce.errors import ArgumentError, DataError, DtypeError
from luce.label_matrix import is_several, read_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from io import BufferedIOBase

    from luce.data.remote import AnyPath
    from luce.data.streams.files import StreamFile

__all__ = ["Block", "Dataset", "dialect_of", "load_dataset", "read_blocks", "reader_of"]


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a source, for prediction.

    Attributes
    ----------
    features : ndarray or polars.DataFrame
        Raw, as in `Dataset.features`; what the schema calls the target is left out.
    start : int
        The position of the first row in the source.
    names : tuple of str, or None
        For images, the file of each row.
    notices : tuple of str
        What the user should know, a sentence each.
    """

    features: Features
    start: int
    names: tuple[str, ...] | None = None
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.features)


def load_dataset(
    source: Any,
    *,
    target: str | Path | None = None,
    features: str | None = None,
    image_size: ImageSize | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    several: str | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    schema: Schema | None = None,
    data_dir: str | Path | None = None,
) -> Dataset:
    """Load labelled data of any kind.

    Parameters
    ----------
    source : str, Path, array, frame or (features, labels)
        A name (``digits``, ``mnist``, ``fashion-mnist``); the path of a CSV, TSV, JSON Lines,
        Parquet, Arrow, Excel, NPZ, NPY or IDX file, of a folder of images, or of a folder or a
        pattern (``sales/*.csv``) of tables with the same columns, which are read as one, also at
        an address that fsspec reads (``s3://…``); or what is in memory: an array, an ``(X, y)``
        pair, a pandas or polars frame. Text may be packed (``.gz``, ``.zst``). A sheet of a
        workbook is named ``book.xlsx#Sheet 1``.
    target : str or Path, optional
        Tables: the label column. NPZ: the name of the labels' array (``y``). NPY and IDX: the path
        of the labels' file; IDX finds its own by the usual naming.
    features : str, optional
        NPZ: the name of the features' array (``X``).
    image_size : int or (int, int), optional
        Folders of images: what all of them are resized to, as the pixels of the longer side or as
        (height, width). By default the median height and width, scaled down to 64 on the longer
        side.
    encoding, separator : str, optional
        CSV: how it is written. By default UTF-8, or UTF-16 where it begins with its mark, or
        Windows-1252 where it is neither; and what divides the first rows alike.
    decimal : {".", ","}, optional
        Tables: what comes before the fraction of numbers in text; by default what they say.
    several : str, optional
        Tables whose labels do not exclude each other: what separates them within the target
        column; or "columns" where `target` names a column of 0 and 1 for each label, with commas
        between. An empty cell has no label that is on.
    drop, keep : sequence of str
        Tables: columns to leave out, and columns not to be left out though they seem to be
        identifiers or copies of the target.
    types : mapping of str to str, optional
        Tables: the kinds of columns by name, such as ``{"zip": "category"}``.
    schema : Schema, optional
        A run's fitted schema: the data are read as the run needs them. Target column and image
        size come from it, labels are given the type of its classes, and may be absent.
    data_dir : path, optional
        Where named data sets are looked for first; ``$LUCE_DATA_DIR`` by default.

    Returns
    -------
    Dataset

    Raises
    ------
    luce.errors.DataError
        If the data cannot be used; the message says which line, column or file, and what to do.
    luce.errors.ArgumentError
        If an option does not belong to the kind of source, or a needed one is not there.

    Examples
    --------
    >>> digits = load_dataset("digits")
    >>> digits.features.shape, digits.classes, len(digits.test)
    ((1438, 1, 8, 8), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 359)
    """
    if schema is not None and target is None:
        target = schema.target
    told = Directions(
        encoding=encoding,
        separator=separator,
        decimal=decimal,
        several=several,
        drop=drop,
        keep=keep,
        types=types or {},
    )
    check_image_size(image_size)
    if image_size is not None and not _is_image_folder(source):
        raise ArgumentError(f"image_size is for a folder of images; {shown(str(source))} is none.")
    if isinstance(source, str | Path):
        dataset = _from_path(source, target, features, image_size, schema, data_dir, told)
    else:
        dataset = _from_memory(source, target, schema, told)
    told.check_kind(shown(str(dataset.name)), table=dataset.schema.kind == "table")
    if features is not None and not str(source).lower().endswith(".npz"):
        raise ArgumentError(
            f"features names an array of an NPZ file; {shown(str(source))} is none."
        )
    if dataset.labels is not None and len(dataset.labels) != len(dataset):
        raise DataError(
            f"{dataset.name}: there are {len(dataset):,} rows of features, but "
            f"{len(dataset.labels):,} labels. They must be of the same length."
        )
    if len(dataset) == 0:
        raise DataError(f"{dataset.name}: there are no rows.")
    return dataset if schema is None else _under(schema, dataset)


def _under(schema: Schema, dataset: Dataset) -> Dataset:
    """Return the dataset with a run's schema and the labels in the type of its classes."""
    _check_kind(schema, dataset.schema.kind, dataset.name)
    if schema.dropped:
        dataset = dataset.without(schema.dropped)
    labels = dataset.labels
    if labels is not None and (labels.ndim == 2) != (schema.several is not None):
        has = "several labels at once" if labels.ndim == 2 else "one label for each row"
        raise DataError(
            f"{dataset.name}: it has {has}, which the run was not trained on. Give labels as the "
            "run's were given."
        )
    if labels is not None and labels.ndim == 2 and schema.classes is not None:
        own = dataset.schema.classes or []
        labels = aligned(labels, own, schema.classes, name=dataset.name)
    elif labels is not None and schema.classes is not None:
        labels = as_classes(labels, schema.classes, name=dataset.name)
    test = None if dataset.test is None else _under(schema, dataset.test)
    return replace(dataset, labels=labels, schema=schema, test=test)


def _check_kind(schema: Schema, kind: str, name: str) -> None:
    if schema.kind != kind:
        raise DataError(f"{name}: the run needs data of kind {schema.kind}, this is {kind}.")


def _from_path(
    source: str | Path,
    target: str | Path | None,
    features: str | None,
    image_size: ImageSize | None,
    schema: Schema | None,
    data_dir: str | Path | None,
    told: Directions,
) -> Dataset:
    if source in NAMES:
        return _named(str(source), data_dir)
    path = existing(source)
    splits = idx.splits_in(path)
    if "train" in splits:
        return _idx_splits(path.resolve().name, splits)
    if tables := tables_in(path):
        return _from_tables(path, tables, target, schema, told)
    path = on_disk(source)
    if path.is_dir():
        return _image_folder(path, schema, image_size)
    return _from_file(path, target, features)


def _is_image_folder(source: Any) -> bool:
    if not isinstance(source, str | Path) or source in NAMES:
        return False
    path = existing(source)
    return path.is_dir() and "train" not in idx.splits_in(path) and not tables_in(path)


def _from_file(path: Path, target: str | Path | None, features: str | None) -> Dataset:
    name = path.name.split(".")[0] or path.name
    if is_idx(path):
        labels_path = Path(target) if target is not None else idx.labels_beside(path)
        labels = None if labels_path is None else idx.read_idx(on_disk(labels_path))
        return _from_array(name, idx.read_idx(path), labels, str(path))
    match ending(path):
        case ".npy":
            labels = None if target is None else read_npy(on_disk(target))
            return _from_array(name, read_npy(path), labels, str(path))
        case ".npz":
            arrays = read_npz(path, features, None if target is None else str(target))
            return _from_array(name, arrays["X"], arrays.get("y"), str(path))
        case _:
            raise unknown_ending(path)


def _from_tables(
    path: AnyPath,
    files: list[AnyPath],
    target: str | Path | None,
    schema: Schema | None,
    told: Directions,
) -> Dataset:
    # Of a pattern the folder says more.
    called = path.resolve() if len(files) == 1 or path.is_dir() else files[0].resolve().parent
    name = called.name if path.is_dir() else called.name.split(".")[0] or called.name
    dialect = told.dialect() if schema is None else dialect_of(schema)
    frame = read_frame(files, dialect)
    dataset = _from_table(name, frame, target, schema, told, dialect)
    said = tuple(f"{path.name}: {each}" for each in dialect.assumed())
    return replace(dataset, notices=(*said, *dataset.notices))


def dialect_of(schema: Schema) -> Dialect:
    """Return how text is to be read for a run: as its training source was, where it may be."""
    if not isinstance(schema, TableSchema):
        return Dialect()
    return Dialect(fallback=schema.encoding or WINDOWS, prefer=schema.separator)


def reader_of(
    files: Sequence[StreamFile],
    schema: Schema,
    *,
    rows: int | None = None,
    told: Directions | None = None,
) -> Reader:
    """Return a reader of files for a fitted schema: a column may be of any type in each of them.

    The schema reads each cell as it is written, whatever type the file gives its column.

    Parameters
    ----------
    files : sequence of StreamFile
    schema : Schema
    rows : int, optional
        How many rows a block has at most.
    told : Directions, optional
        What was said of how these files are written.
    """
    dialect = dialect_of(schema)
    if told is not None:
        dialect = replace(dialect, encoding=told.encoding, separator=told.separator)
    keys = [column.name for column in schema.used] if isinstance(schema, TableSchema) else []
    return Reader(files, dialect, rows=rows, any_types=True, keys=keys)


def _from_memory(
    source: Any, target: str | Path | None, schema: Schema | None, told: Directions
) -> Dataset:
    if isinstance(source, tuple):
        if len(source) != 2:
            raise DtypeError(f"source: a tuple must be (X, y), got {len(source)} items.")
        X, y = source
        if hasattr(X, "columns"):
            frame = as_frame(X)
            labels, several = _given(y)
            if schema is not None and labels.ndim == 2:
                labels = aligned(labels, several["classes"], schema.classes or [], name="y")
            if schema is not None:
                return Dataset("table", frame, labels, schema)
            of_classes = labels if labels.ndim == 1 else None
            table = TableSchema.infer(frame, labels=of_classes, directions=told)
            table = replace(table, **several)
            return Dataset("table", frame, labels, table, tuple(table.assumed + table.warnings))
        return _from_array("array", _as_array(X), y, "X")
    if hasattr(source, "columns"):
        return _from_table("table", as_frame(source), target, schema, told, Dialect())
    return _from_array("array", _as_array(source), None, "X")


def _as_array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"X: cannot be made an array ({error}).") from error


def _from_array(name: str, array: np.ndarray, labels: Any, where: str) -> Dataset:
    y, several = (None, {}) if labels is None else _given(labels)
    if array.ndim >= 3:
        images = as_images(array, name=where)
        return Dataset(name, images, y, replace(ImageSchema.of(images.shape[1:]), **several))
    array = check_array(array, name=where)
    return Dataset(name, array, y, ArraySchema(columns=array.shape[1], **several))


def _given(y: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Return labels that were given beside the rows, and what a schema says of several at once."""
    if not is_several(y):
        return labels_from_array(y), {}
    on, labels = read_labels(y, "y")
    return on, {"several": GIVEN, "classes": labels}


def _named(name: str, data_dir: str | Path | None) -> Dataset:
    images, labels, test = load_named(name, data_dir=data_dir)
    schema = ImageSchema.of(images.shape[1:])
    whole = Dataset(name, images, labels, schema)
    if test is None:
        kept, held = split_rows(labels, 0.2, seed=0)
        return replace(whole.take(kept), test=whole.take(held))
    return replace(whole, test=Dataset(name, *test, schema))


def _idx_splits(name: str, splits: dict[str, Path]) -> Dataset:
    found = {}
    for split, path in splits.items():
        labels = idx.labels_beside(path)
        if labels is None:
            raise DataError(f"{path}: there is no labels file beside it.")
        found[split] = _from_array(name, idx.read_idx(path), idx.read_idx(labels), str(path))
        if len(found[split]) != len(found[split].labels):  # type: ignore[arg-type]
            raise DataError(f"{path}: images and labels are not of the same length.")
    return replace(found["train"], test=found.get("test"))


def _image_folder(folder: Path, schema: Schema | None, image_size: ImageSize | None) -> Dataset:
    files, names = list_images(folder)
    if names is None and schema is None:
        raise DataError(
            f"{folder}: the images have no labels. Put them into one sub-folder per class."
        )
    if isinstance(schema, ImageSchema):
        shape, notice = schema.input_shape, None
    else:
        shape, notice = survey(files, image_size)
    images, kept, unreadable = read_images(files, shape)
    if not kept:
        raise DataError(_none_read(folder, len(files), unreadable))
    labels = None if names is None else labels_from_array([names[i] for i in kept], name="folders")
    lost = set(names or ()) - set(() if labels is None else labels.tolist())
    if lost and schema is None:
        # A class that went missing without an error would be learnt without.
        first = min(lost)
        inside = [file for file, name in zip(files, names or (), strict=True) if name == first]
        problems = [each for each in unreadable if each.startswith(str(inside[0]))]
        raise DataError(_none_read(folder / first, len(inside), problems))
    notices = ([notice] if notice else []) + _unreadable(unreadable)
    sizes = ImageSchema.of(shape)
    return Dataset(folder.resolve().name, images, labels, sizes, tuple(notices))


def _none_read(folder: Path, files: int, problems: list[str]) -> str:
    return (
        f"{folder}: none of its {counted(files, 'image')} can be read ({problems[0]}). Mend them, "
        f"or move the folder away."
    )


def _unreadable(problems: list[str]) -> list[str]:
    if not problems:
        return []
    few = listed(problems, width=300)
    return [f"{counted(len(problems), 'unreadable image')} left out: {few}."]


def _from_table(
    name: str,
    frame: pl.DataFrame,
    target: str | Path | None,
    schema: Schema | None,
    told: Directions,
    dialect: Dialect,
) -> Dataset:
    if target is None and schema is None:
        raise no_target(frame.columns)
    target = None if target is None else str(target)
    several = told.several if schema is None else schema.several
    wanted = target_columns(target, several)
    absent = not any(each in frame.columns for each in wanted)
    if schema is not None and target == schema.target and absent:
        return Dataset(name, frame, None, schema)
    if several is not None and target is not None:
        return _of_several(name, frame, target, several, schema, told, dialect)
    if target not in frame.columns:
        raise no_column(name, str(target), frame.columns)
    labels, kept = labels_from_series(frame[target], None if schema is None else schema.classes)
    frame = frame.drop(target)
    notices = []
    if not kept.all():
        frame = frame.filter(pl.Series(kept))
        gone = counted(int((~kept).sum()), "row")
        notices.append(f"{gone} without a label in {shown(target)} left out.")
    if schema is None:
        table = TableSchema.infer(
            frame,
            target=target,
            labels=labels,
            directions=told,
            # Where a comma comes before fractions, a semicolon stands between columns.
            likely="," if dialect.found_separator == ";" else ".",
        )
        schema = replace(table, encoding=dialect.found_encoding, separator=dialect.found_separator)
        notices += table.assumed + table.warnings
    return Dataset(name, frame, labels, schema, tuple(notices))


def _of_several(
    name: str,
    frame: pl.DataFrame,
    target: str,
    several: str,
    schema: Schema | None,
    told: Directions,
    dialect: Dialect,
) -> Dataset:
    """Return a table whose labels do not exclude each other."""
    known = None if schema is None else schema.classes
    on, labels, notices = labels_of_table(name, frame, target, several, known)
    frame = frame.drop(target_columns(target, several))
    if schema is None:
        table = TableSchema.infer(
            frame,
            target=target,
            directions=told,
            likely="," if dialect.found_separator == ";" else ".",
        )
        schema = replace(
            table,
            encoding=dialect.found_encoding,
            separator=dialect.found_separator,
            several=several,
            classes=labels,
        )
        notices = [*notices, *table.assumed, *table.warnings]
    return Dataset(name, frame, on, schema, tuple(notices))


def read_blocks(
    source: Any, schema: Schema, *, features: str | None = None, rows: int = 65_536
) -> Iterator[Block]:
    """Yield the rows of a source in blocks, as a run's schema needs them, for prediction.

    Only one block is in memory, except for NPZ files and named data sets, which are read whole.
    Blocks of wide rows are shorter than `rows`, about 64 MiB.

    Parameters
    ----------
    source : str, Path, array or frame
        As for `load_dataset`; ``"-"`` is a CSV on standard input, and a folder of images may also
        have them directly in it.
    schema : Schema
        The run's schema.
    features : str, optional
        NPZ: the name of the features' array (``X``).
    rows : int, default: 65,536
        The most rows that a block may have.

    Raises
    ------
    luce.errors.DataError
        If the source cannot be used, or is of another kind than the schema; from the first bad
        row on for what is streamed.
    """
    if rows < 1:
        raise ArgumentError(f"read_blocks: rows must be at least 1, got {rows}.")
    start = 0
    for part, names, notices in _parts(source, schema, features, rows):
        yield Block(part, start, names, notices)
        start += len(part)


Part = tuple[Features, tuple[str, ...] | None, tuple[str, ...]]


def _parts(source: Any, schema: Schema, features: str | None, rows: int) -> Iterator[Part]:
    if isinstance(source, str) and source == "-":
        if sys.stdin is None:
            raise DataError("Standard input is closed. Pipe a CSV into it, or give a file.")
        pieces = pieces_of(cast("BufferedIOBase", sys.stdin.buffer), "standard input")
        frames = csv_blocks(pieces, where="standard input", rows=rows, dialect=dialect_of(schema))
        yield from _table_parts(frames, schema, "standard input")
    elif isinstance(source, str | Path) and source not in NAMES:
        yield from _path_parts(source, schema, features, rows)
    elif hasattr(source, "columns"):
        frame = as_frame(source)
        blocks = (frame[part] for part in row_slices(frame.height, 1, rows))
        yield from _table_parts(blocks, schema, "X")
    else:
        named = isinstance(source, str | Path)
        array = _named(str(source), None).features if named else np.asarray(source)
        yield from _array_parts(array, schema, rows, str(source) if named else "X")


def _path_parts(
    source: str | Path, schema: Schema, features: str | None, rows: int
) -> Iterator[Part]:
    found = existing(source)
    splits = idx.splits_in(found)
    if not splits and not is_idx(found) and tables_in(found):
        reader = reader_of(files_of(source), schema, rows=rows)
        yield from _table_parts((each.frame for each in reader.blocks()), schema, str(found))
        return
    path = on_disk(source)
    kind = ending(path)
    if splits or is_idx(path):
        for block in idx.idx_blocks(splits.get("train", path), rows=rows):
            yield from _array_parts(block, schema, rows, str(path))
    elif path.is_dir() or kind in IMAGE_ENDINGS:
        _check_kind(schema, "image", str(path))
        yield from _image_parts(path, schema, rows)
    elif kind == ".npy":
        yield from _array_parts(read_npy(path), schema, rows, str(path))
    elif kind == ".npz":
        yield from _array_parts(read_npz(path, features, None)["X"], schema, rows, str(path))
    else:
        raise unknown_ending(path)


def _table_parts(frames: Iterable[pl.DataFrame], schema: Schema, where: str) -> Iterator[Part]:
    _check_kind(schema, "table", where)
    own = target_columns(schema.target, schema.several)
    there = False
    for frame in frames:
        if frame.height:
            there = True
            yield frame.drop(own, strict=False), None, ()
    if not there:
        raise no_rows(where)


def _array_parts(array: Any, schema: Schema, rows: int, where: str) -> Iterator[Part]:
    _check_kind(schema, "image" if array.ndim >= 3 else "array", where)
    for part in row_slices(len(array), array.itemsize * max(1, array[:1].size), rows):
        if array.ndim >= 3:
            yield as_images(array[part], name=where, channels=schema.input_shape[0]), None, ()
        else:
            yield np.asarray(array[part]), None, ()


def _image_parts(path: Path, schema: Schema, rows: int) -> Iterator[Part]:
    files = list_images(path)[0] if path.is_dir() else [path]
    read = 0
    for part in row_slices(len(files), int(np.prod(schema.input_shape)), rows):
        images, kept, unreadable = read_images(files[part], schema.input_shape)
        read += len(kept)
        # A file's name may be any bytes; the predictions are written as UTF-8.
        names = tuple(os.fsencode(files[part][i]).decode(errors="backslashreplace") for i in kept)
        yield images, names, tuple(_unreadable(unreadable))
    if not read:
        raise DataError(_none_read(path, len(files), unreadable))
