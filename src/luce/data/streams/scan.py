"""luce.scan: a name for files that are read as a stream. Light: nothing is read yet."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luce.data.directions import Directions
from luce.data.kinds import no_column
from luce.data.streams.files import CHANGED, StreamFile, check_same, files_of
from luce.data.wording import counted, in_bytes, shown
from luce.errors import DataError, DtypeError
from luce.options import check_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from luce.data.blocks import Part
    from luce.data.schema import Normalise
    from luce.data.streams.encoding import Streamed
    from luce.data.tables import TableSchema

__all__ = ["Scan", "name_of", "scan"]


@dataclass(frozen=True)
class Scan:
    """Files that are read as one table, block by block; made by :func:`luce.scan`.

    :func:`luce.train` takes it as a source. :class:`luce.SoftmaxRegression` and
    :class:`luce.SoftmaxRegressionCV` take it as X: ``fit`` and ``score`` have the rows with a
    label, ``predict_proba`` and its like have all rows; both in the order of the files' names. Rows
    are predicted as those of the fit were encoded, whichever files they are in.

    Attributes
    ----------
    source : str
        As it was given.
    files : tuple of StreamFile
    target : str or None
        The column of the labels.
    told : Directions
        What was said of the columns.
    """

    source: str
    files: tuple[StreamFile, ...]
    target: str | None
    told: Directions

    def __repr__(self) -> str:
        target = "" if self.target is None else f", target {shown(self.target)}"
        return f"Scan({shown(self.source, 200)}: {self._size()}{target})"

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        lines = {"source": self.source, "files": self._size(), "target": self.target or "none"}
        rows = "".join(
            f"<tr><th style='text-align: left'>{name}</th>"
            f"<td style='text-align: left'>{html.escape(text)}</td></tr>"
            for name, text in lines.items()
        )
        return f"<table><caption>luce.Scan</caption><tbody>{rows}</tbody></table>"

    def _size(self) -> str:
        size = sum(each.size for each in self.files)
        return f"{counted(len(self.files), 'file')}, {in_bytes(size)}"

    @property
    def arguments(self) -> dict[str, Any]:
        """The same as arguments of :func:`luce.train`."""
        told = {name: getattr(self.told, name) for name in self.told.given}
        return {"stream": True, **told} | ({"target": self.target} if self.target else {})

    def encoded(
        self,
        *,
        validation_size: float = 0.0,
        test_size: float = 0.0,
        seed: int = 0,
        normalise: Normalise = "standard",
        drop_rare: int = 0,
        cache_size: int | None = None,
        cache_dir: str | Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> Streamed:
        """Return the encoded rows: those that an earlier call has kept, or new ones.

        Parameters
        ----------
        validation_size, test_size, seed, normalise, drop_rare
            As for :func:`luce.train`.
        cache_size : int, optional
            How many bytes all encoded rows may take on the disk, once these are written. Rows that
            are there already are used, whatever they take.
        cache_dir : path, optional
            Where they are kept: by default ``$LUCE_CACHE_DIR``, else the user's folder for caches.
        say : callable
            Hears how far it is.

        Returns
        -------
        Streamed
            Its ``store`` has the rows, its ``schema`` says how they were encoded.

        Raises
        ------
        luce.errors.ArgumentError
            If sizes are not allowed, alone or together.
        luce.errors.DataError
            If the files cannot be learnt from, changed since they were named, or the disk has no
            room.
        """
        from luce.data.streams.cache import Cache
        from luce.data.streams.encoding import Wanted, streamed

        check_sizes(validation_size, test_size)
        wanted = Wanted(
            target=self.target,
            told=self.told,
            validation_size=validation_size,
            test_size=test_size,
            seed=seed,
            normalise=normalise,
            drop_rare=drop_rare,
        )
        cache = Cache(cache_dir, size=cache_size)
        return streamed(name_of(self.source), self.files, wanted, cache=cache, say=say)

    def as_part(self) -> tuple[Part, TableSchema]:
        """Return all rows that have a label, as a part of a block store, and how they are encoded.

        In the order of the files, which is that of their names.
        """
        found = self.encoded()
        return found.store.part("train"), found.schema

    def features(self, schema: TableSchema) -> Iterator[Any]:
        """Yield all rows in their order, with and without a label, as a fitted schema encodes them.

        What was said of columns is the schema's; of this scan only how its text is written counts.

        Parameters
        ----------
        schema : TableSchema
            Of the rows that were learnt from, which may be other files.

        Raises
        ------
        luce.errors.DataError
            If the files do not fit the schema, have no rows, or changed meanwhile.
        """
        for _, encoded in self._encoded_by(schema, None):
            yield encoded

    def labelled(self, schema: TableSchema) -> Iterator[tuple[Any, NDArray[Any]]]:
        """Yield the rows that have a label, as `features` does, each block with its labels.

        Labels are places among the schema's classes; of several at once, which are on.

        Raises
        ------
        luce.errors.DataError
            As `features`; or if there are no labels, or one is none of the classes.
        """
        from luce.data.streams.labelling import labelled

        target = self.target or schema.target
        for codes, encoded in self._encoded_by(schema, target):
            there = labelled(codes)
            if there.any():
                yield encoded[there], codes[there]

    def _encoded_by(self, schema: TableSchema, target: str | None) -> Iterator[tuple[Any, Any]]:
        """Yield the target's codes, where there is one, and the encoded rows of each block."""
        from luce.data.opening import of_source
        from luce.data.sources import reader_of
        from luce.data.streams.labelling import known_target
        from luce.data.streams.pipeline import ahead
        from luce.data.targets import target_columns

        check_same(self.files, since=CHANGED)
        name = name_of(self.source)
        reader = reader_of(self.files, schema, told=self.told)
        columns = target_columns(target or self.target or schema.target, schema.several)
        there = False
        with of_source(name):
            for _, _, frame in ahead(reader.blocks()):
                there = True
                lacks = [each for each in columns if each not in frame.columns]
                if target is not None and lacks:
                    raise no_column(name, lacks[0], frame.columns)
                codes = None if target is None else known_target(frame, target, schema, name=name)
                yield codes, schema.encode(frame.drop(columns, strict=False))[0]
            if not there:
                raise DataError("there are no rows in it.")


def scan(
    source: str | Path,
    *,
    target: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    several: str | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
) -> Scan:
    """Name a table, or a folder or a pattern of them, to be read as a stream.

    Nothing but names and ends of files is read. What trains on it reads the rows block by block and
    keeps them, encoded, on the disk; so they may be more than memory holds.

    Parameters
    ----------
    source : str or Path
        A CSV, TSV, JSON Lines, Parquet or Arrow file, or a folder or a pattern of such; also an
        address of any protocol that fsspec reads, such as ``s3://bucket/rows/*.parquet``.
    target : str, optional
        The column of the labels.
    encoding, separator, decimal, several, drop, keep, types
        As for :func:`luce.load_dataset`.

    Returns
    -------
    Scan

    Raises
    ------
    luce.errors.DataError
        If there are no such files, or they are of different kinds.
    luce.errors.DtypeError
        If the source is no name.

    Examples
    --------
    >>> import luce, polars as pl, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for part in range(2):
    ...     frame = pl.DataFrame({"x": range(part, part + 40), "y": ["a", "b"] * 20})
    ...     frame.write_parquet(f"{folder}/{part}.parquet")
    >>> flowers = luce.scan(f"{folder}/*.parquet", target="y")
    >>> len(flowers.files), flowers.target
    (2, 'y')
    """
    if not isinstance(source, str | os.PathLike):
        raise DtypeError(
            f"source: luce.scan takes the name of a file, of a folder, or a pattern such as "
            f"'parts/*.parquet', got {type(source).__name__}. For some files of a folder give a "
            "pattern that only they match."
        )
    told = Directions(
        encoding=encoding,
        separator=separator,
        decimal=decimal,
        several=several,
        drop=drop,
        keep=keep,
        types=types or {},
    )
    return Scan(str(source), tuple(files_of(source)), target, told)


def name_of(source: str | Path) -> str:
    """Return what a stream is called: as `luce.load_dataset` calls it."""
    from luce.data.kinds import existing

    path = existing(source)
    called = path.resolve() if path.exists() else files_of(source)[0].path.resolve().parent
    return called.name if called.is_dir() else called.name.split(".")[0] or called.name
