"""A stream's rows → the block store: one pass that fits the schema, one that encodes.

Between the passes, and after the last, the files must be those that they were. What is written
stands in its place once it is whole.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from luce.data.blocks import PARTS, BlockStore, BlockWriter
from luce.data.opening import of_source
from luce.data.schemas import read_schema
from luce.data.streams.cache import Cache, Entry, Hold, key_of
from luce.data.streams.dealing import TEST, TRAIN, VALIDATION, Dealer
from luce.data.streams.files import CHANGED, check_same, fingerprint
from luce.data.streams.filling import filling
from luce.data.streams.labelling import labelled
from luce.data.streams.look import Look, look
from luce.data.streams.pipeline import Behind, ahead
from luce.data.streams.reading import RawBlock, Reader
from luce.data.tables import TableSchema
from luce.errors import DataError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from luce.data.directions import Directions
    from luce.data.schema import Normalise
    from luce.data.streams.files import StreamFile

__all__ = ["Streamed", "Wanted", "streamed"]

MOST_ON: Final = 2**26
"""Bytes that say at a time which labels are on."""

WORTH_COMPILING: Final = 2**21
"""Encoded numbers from which on Numba is loaded."""

TRIES: Final = 3
"""How often rows are encoded that are gone when they are to be read."""

HELD_OUT: Final = 10_000
"""Rows that are kept as they were in the files, to report on."""

HELD_OUT_CELLS: Final = 2**21


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What encoded rows follow from, beside the files.

    Attributes
    ----------
    target : str or None
    told : Directions
    validation_size, test_size : float
    seed : int
    normalise : {"standard", "none"} or (float, float)
    drop_rare : int
    """

    target: str | None
    told: Directions
    validation_size: float
    test_size: float
    seed: int
    normalise: Normalise
    drop_rare: int

    @property
    def dealer(self) -> Dealer:
        """What says to which part a row belongs."""
        return Dealer(
            validation_size=self.validation_size, test_size=self.test_size, seed=self.seed
        )

    def key(self, source: str) -> str:
        """Return the name of the encoded rows of files with this fingerprint."""
        told = self.told
        own = {name: getattr(told, name) for name in ("encoding", "separator", "decimal")}
        own |= {"drop": list(told.drop), "keep": list(told.keep), "types": dict(told.types)}
        if told.several is not None:
            own["several"] = told.several
        sizes = [self.validation_size, self.test_size]
        how = {"seed": self.seed, "normalise": self.normalise, "drop_rare": self.drop_rare}
        return key_of({"source": source, "target": self.target, "told": own, "sizes": sizes} | how)


@dataclass(frozen=True)
class Streamed:
    """Encoded rows of a stream.

    Attributes
    ----------
    name : str
    files : tuple of StreamFile
    schema : TableSchema
        Fitted on the training rows; it knows the classes.
    store : BlockStore
    fingerprint : str
        Of the files.
    rows : dict of str to int
        How many rows each part has.
    notices : tuple of str
        What the user should know, a sentence each.
    found : bool
        Whether the rows were encoded before.
    hold : Hold
        Keeps the rows in the cache for as long as this is somewhere.
    """

    name: str
    files: tuple[StreamFile, ...]
    schema: TableSchema
    store: BlockStore
    fingerprint: str
    notices: tuple[str, ...]
    found: bool
    _entry: Entry
    hold: Hold

    @property
    def rows(self) -> dict[str, int]:  # noqa: D102 - above
        return {part: self.store.part(part).shape[0] for part in PARTS}

    def held_out(self) -> tuple[pl.DataFrame, int] | None:
        """Return some rows as they were in the files, and of how many they are.

        They are test rows, or if there are none, validation rows; None if there are neither.
        """
        part = "test" if self.rows["test"] else "validation"
        if not self.rows[part]:
            return None
        try:
            return pl.read_parquet(self._entry.held_out), self.rows[part]
        except (OSError, pl.exceptions.PolarsError):  # it is no part of what is trained on
            return None


def streamed(
    name: str,
    files: Sequence[StreamFile],
    wanted: Wanted,
    *,
    cache: Cache,
    say: Callable[[str], None] = lambda _: None,
    rows: int | None = None,
) -> Streamed:
    """Return the encoded rows of files: those that are kept, or new ones.

    Parameters
    ----------
    name : str
        What the stream is called.
    files : sequence of StreamFile
    wanted : Wanted
    cache : Cache
    say : callable
        Hears how far it is.
    rows : int, optional
        How many rows are read at once; it changes nothing but time and memory.

    Raises
    ------
    luce.errors.DataError
        If the files cannot be learnt from, changed meanwhile, or the disk has no room.
    """
    check_same(files, since=CHANGED)
    source = fingerprint(files)
    entry = cache.entry(wanted.key(source))

    def wait() -> None:
        say("another run is encoding the same rows: waiting for it.")

    def kept(*, found: bool) -> Streamed | None:
        lock = cache.reading(entry, wait)
        store = entry.store()
        schema = None if store is None else _stored_schema(store, entry)
        if store is None or schema is None:
            lock.let_go()
            return None
        entry.used()
        notices = tuple(store.note["notices"])
        return Streamed(name, tuple(files), schema, store, source, notices, found, entry, lock)

    there = kept(found=True)
    for _ in range(TRIES):
        if there is not None:
            return there
        with cache.writing(entry, wait):
            made = _stored_schema(entry.store(), entry) is None
            if made:
                entry.remove()
                with of_source(name):
                    _make(name, files, wanted, entry, cache, say, rows)
        # Between the two locks, another run may have made room.
        there = kept(found=not made)
    if there is not None:
        return there
    raise DataError(
        f"the encoded rows of {name} do not stay in {cache.folder}. Look who removes them, or set "
        "LUCE_CACHE_DIR to another folder."
    )


def _make(
    name: str,
    files: Sequence[StreamFile],
    wanted: Wanted,
    entry: Entry,
    cache: Cache,
    say: Callable[[str], None],
    rows: int | None,
) -> None:
    reader = Reader(files, wanted.told.dialect(), rows=rows)
    dealer = wanted.dealer
    seen = look(name, reader, wanted.target, wanted.told, dealer, drop_rare=wanted.drop_rare)
    say(f"{seen.rows:,} rows; their statistics are taken.")
    schema = seen.schema.fit_blocks(
        _training_rows(reader, seen, dealer),
        rows=seen.training_rows,
        normalise=wanted.normalise,
    )
    check_same(files)
    needed = _bytes(schema, seen, reader)
    removed = cache.make_room(entry, needed)
    if removed:
        say(f"of older encoded rows {' and '.join(removed)} removed, to make room.")
    say(f"the rows are encoded into {cache.folder}.")
    told = [line for line in schema.assumed if line not in seen.schema.assumed]
    _write(reader, seen, schema, dealer, entry, [*seen.notices, *told], fingerprint(files))


class Labelled(NamedTuple):
    """Rows of a file that have a label.

    Attributes
    ----------
    frame : polars.DataFrame
        The columns that are used.
    codes : ndarray
        The class of each row, int32; or which labels are on, (rows, labels), bool.
    parts : ndarray of uint8
        The part of each.
    file : str
    rows : ndarray of int64
        The number of each in the file.
    """

    frame: pl.DataFrame
    codes: NDArray[Any]
    parts: NDArray[np.uint8]
    file: str
    rows: NDArray[np.int64]


def _labelled(reader: Reader, seen: Look, dealer: Dealer) -> Iterator[Labelled]:
    target = seen.labels.columns
    wanted = {column.name for column in seen.schema.used} | {*target}
    for file, start, frame in _pieces(reader.blocks(wanted), seen):
        codes = seen.labels.of(frame)
        parts = dealer.parts(file.name, start, frame.height)
        rows = np.arange(start, start + frame.height)
        found = Labelled(frame.drop(target, strict=False), codes, parts, file.name, rows)
        there = labelled(codes)
        if there.all():
            yield found
        elif there.any():
            own = found.frame.filter(pl.Series(there))
            yield Labelled(own, codes[there], parts[there], file.name, rows[there])


def _pieces(blocks: Iterator[RawBlock], seen: Look) -> Iterator[RawBlock]:
    """Yield blocks, read ahead; smaller ones where which labels are on would take much memory."""
    step = None if seen.schema.several is None else max(1, MOST_ON // len(seen.labels.classes))
    for file, start, frame in ahead(blocks):
        for at in range(0, frame.height, step or frame.height):
            yield RawBlock(file, start + at, frame[at : at + (step or frame.height)])


def _training_rows(
    reader: Reader, seen: Look, dealer: Dealer
) -> Iterator[tuple[pl.DataFrame, NDArray[np.float64]]]:
    for frame, _, parts, file, rows in _labelled(reader, seen, dealer):
        training = parts == TRAIN
        if training.any():
            draws = dealer.draws(file, rows[training])
            yield frame.filter(pl.Series(training)), draws


def _write(
    reader: Reader,
    seen: Look,
    schema: TableSchema,
    dealer: Dealer,
    entry: Entry,
    notices: list[str],
    source: str,
) -> None:
    dtype = "float32" if schema.sparse else _dtype(schema, reader)
    sample = HELD_OUT / max(1, int(seen.labels.totals[_held_part(seen)]))
    sample *= min(1.0, HELD_OUT_CELLS / (HELD_OUT * max(1, len(schema.used))))
    total = int(seen.labels.totals.sum())
    if total * schema.input_shape[0] >= WORTH_COMPILING:
        importlib.import_module("numba")  # columns look whether it is there
    held: list[pl.DataFrame] = []
    _write_tensors(entry.tensors, schema)
    writer = BlockWriter(
        entry.rows,
        features=schema.input_shape[0],
        dtype=dtype,
        classes=seen.labels.classes,
        several=schema.several is not None,
        sparse=schema.sparse,
        source=source,
        schema=_digest(schema),
        note={"schema": schema.to_json(), "tensors": _tensors_digest(schema.tensors())},
    )
    several = None if schema.several is None else len(seen.labels.classes)
    with writer, Behind() as behind:
        filled = filling(schema, dtype, several, writer, behind)
        for frame, codes, parts, file, rows in _labelled(reader, seen, dealer):
            filled.add(frame, codes, parts)
            own = np.flatnonzero(parts == _held_part(seen))
            own = own[dealer.draws(file, rows[own]) < sample]
            if len(own):
                held.append(frame[own].with_columns(seen.labels.written(codes[own])))
        filled.flush()
        behind.call(check_same, reader.files)
        said = [*schema.unread(filled.handled), *schema.useless(filled.handled, total)]
        writer.content["note"]["notices"] = [*notices, *said]
        _write_held_out(entry.held_out, held)


def _held_part(seen: Look) -> int:
    """Return the part that rows are kept of as they are in the files."""
    return TEST if seen.labels.totals[TEST] else VALIDATION


def _dtype(schema: TableSchema, reader: Reader) -> str:
    """Return the narrowest type that holds all encoded numbers as they are."""
    found = {column.held_by(reader.dtype(column.name)) for column in schema.used}
    return next(dtype for dtype in ("float32", "float16", "uint8") if dtype in found)


def _bytes(schema: TableSchema, seen: Look, reader: Reader) -> int:
    """Return about how much of the disk the encoded rows take."""
    rows = int(seen.labels.totals.sum())
    target = 4 if schema.several is None else len(seen.labels.classes)
    if not schema.sparse:
        size = np.dtype(_dtype(schema, reader)).itemsize
        return rows * (schema.input_shape[0] * size + target)
    encoded: Any = schema.encode(seen.sample)[0]
    return int(rows * (8 * encoded.nnz / max(1, encoded.shape[0]) + 4 + target))


# -------------------------------------------------------------------------------------------------
# The schema beside its rows
# -------------------------------------------------------------------------------------------------


def _stored_schema(store: BlockStore | None, entry: Entry) -> TableSchema | None:
    """Return the schema of a store, None if it cannot be used."""
    if store is None:
        return None
    tensors: dict[str, NDArray[Any]] = {}
    try:
        if entry.tensors.exists():
            with np.load(entry.tensors, allow_pickle=False) as opened:
                tensors = {name: opened[name] for name in opened.files}
        if _tensors_digest(tensors) != store.note["tensors"]:
            return None
        schema = read_schema(store.note["schema"], tensors)
    except (OSError, ValueError, KeyError, EOFError, RunError):
        return None
    return schema if isinstance(schema, TableSchema) else None


def _write_tensors(path: Path, schema: TableSchema) -> None:
    tensors = schema.tensors()
    if tensors:
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **tensors)
        _write_whole(path, content.getvalue())


def _write_held_out(path: Path, held: list[pl.DataFrame]) -> None:
    if held:
        content = io.BytesIO()
        pl.concat(held, how="diagonal_relaxed").write_parquet(content)
        _write_whole(path, content.getvalue())


def _write_whole(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. Make room, or set LUCE_CACHE_DIR to "
            "a folder on another disk."
        ) from error


def _digest(schema: TableSchema) -> str:
    text = json.dumps(schema.to_json(), sort_keys=True)
    return hashlib.sha256((text + _tensors_digest(schema.tensors())).encode()).hexdigest()


def _tensors_digest(tensors: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        own = np.ascontiguousarray(tensors[name])
        digest.update(f"\0{name}\0{own.dtype.str}\0{own.shape}\0".encode())
        digest.update(own.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
