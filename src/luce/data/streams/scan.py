"""luce.scan: a name for files that are read as a stream. Light: nothing is read yet."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luce.data.directions import Directions
from luce.data.streams.files import StreamFile, files_of
from luce.data.wording import counted, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from luce.data.blocks import Part
    from luce.data.schema import Normalise
    from luce.data.streams.encoding import Streamed

__all__ = ["Scan", "name_of", "scan"]


@dataclass(frozen=True)
class Scan:
    """Files that are read as one table, block by block; made by :func:`luce.scan`.

    :func:`luce.train` takes it as a source; ``fit`` and ``predict_proba`` of
    :class:`luce.SoftmaxRegression` take it as X, for all rows that have a label, in their order.

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
        large = f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
        return f"{counted(len(self.files), 'file')}, {large}"

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
            How many bytes all encoded rows may take on the disk.
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
        luce.errors.DataError
            If the files cannot be learnt from, or the disk has no room.
        """
        from luce.data.streams.cache import Cache
        from luce.data.streams.encoding import Wanted, streamed

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

    def as_part(self) -> Part:
        """Return all rows that have a label, encoded, as a part of a block store."""
        return self.encoded().store.part("train")


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
        A CSV, TSV, JSON Lines, Parquet or Arrow file, or a folder or a pattern of such.
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
