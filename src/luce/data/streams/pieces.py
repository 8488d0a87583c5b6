"""Files in pieces that anybody can read by themselves: the blocks that one reader would make."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from luce.data.streams.files import StreamFile, check_same
from luce.data.streams.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from luce.data.streams.reading import Begun

__all__ = ["Piece", "frames_of", "pieces_of"]


class Piece(NamedTuple):
    """Some rows of a file.

    Attributes
    ----------
    file : StreamFile
    start : int
        The number of the first.
    rows : int or None
        How many; None for all of the file, since text cannot be read from the middle.
    """

    file: StreamFile
    start: int
    rows: int | None

    @property
    def most_rows(self) -> int:
        """About how many rows there may be: a row of text has some bytes."""
        return self.file.size // 16 if self.rows is None else self.rows


def pieces_of(reader: Reader) -> list[Piece]:
    """Return the pieces of a reader's files, in order; none if no file has a row.

    Of Parquet and Arrow each is a block of the reader's, of text a whole file.

    Raises
    ------
    luce.errors.DataError
        If a file cannot be read; of Parquet and Arrow also, if the files are no one table.
    """
    if not reader.typed:
        if next(reader.blocks(), None) is None:
            return []
        return [Piece(_anywhere(file), 0, None) for file in reader.files if file.size]
    found = []
    heights = reader.heights()
    rows = reader.block_rows(len(reader.columns))
    for each, height in zip(reader.files, heights, strict=True):
        file = _anywhere(each)
        found += [Piece(file, i, min(rows, height - i)) for i in range(0, height, rows)]
    return found


def _anywhere(file: StreamFile) -> StreamFile:
    """Return a file as it is found from any folder."""
    return replace(file, path=file.path.absolute())


def frames_of(
    piece: Piece, begun: Begun, *, rows: int | None = None
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the rows of a piece in blocks, each with the number of its first row.

    Parameters
    ----------
    piece : Piece
    begun : Begun
        What the reader knew that the pieces are of.
    rows : int, optional
        As that reader had it.
    """
    reader = Reader([piece.file], begun.dialect, rows=rows, begun=begun)
    if piece.rows is None:
        for block in reader.blocks():
            yield block.start, block.frame
        return
    check_same([piece.file])  # else it would be other rows
    frame = reader.slice(piece.file, piece.start, piece.rows)
    check_same([piece.file])
    yield piece.start, frame
