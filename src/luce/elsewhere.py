"""Rows of files, predicted and scored by an engine's workers: they read the files where they lie.

The files are cut into pieces, which are the blocks that one reader would make, and a piece is
computed on one thread. So it is the same rows at once, and the same bits, whoever computes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from luce.data.kinds import no_rows
from luce.data.opening import of_source
from luce.data.streams.pieces import frames_of, pieces_of
from luce.data.targets import target_columns
from luce.linear.small import one_thread
from luce.models.packing import unpack
from luce.streaming import ScoredBlock, score_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from luce.data.streams.pieces import Piece
    from luce.data.streams.reading import Begun, Reader
    from luce.models.packing import Packed
    from luce.streaming import Asked

__all__ = ["predicted_pieces", "scored_pieces"]

# An engine is given so many bytes of results at once, but at least so many pieces.
_AT_ONCE: Final = 512 << 20
_FEWEST: Final = 8

Arrays = tuple[np.ndarray, ...]


def predicted_pieces(
    map_: Any, packed: Packed, reader: Reader, rows: int, called: str, *, calibrated: bool
) -> Iterator[tuple[np.ndarray, dict[str, int]]]:
    """Yield the probabilities of all rows, piece by piece, and what was handled in them.

    Parameters
    ----------
    map_ : callable
        An engine's ``map``.
    packed : Packed
        The classifier.
    reader : Reader
        Of the files, with blocks of at most so many `rows`.
    called : str
        What messages call the source.
    calibrated : bool
        As `Classifier.probabilities` takes it.
    """
    pieces = pieces_of(reader)
    shared = {
        "packed": packed,
        "begun": reader.begun() if pieces else None,
        "rows": rows,
        "called": called,
        "calibrated": calibrated,
    }
    if not pieces:
        raise no_rows(called)
    for some in _at_once(pieces, packed.classes):
        for probabilities, handled in map_(_predicted, some, shared):
            if len(probabilities):  # a file of text may have a header alone
                yield probabilities, _plain(handled)


def _predicted(
    piece: Piece, *, packed: Packed, begun: Begun, rows: int, called: str, calibrated: bool
) -> Arrays:
    """Return the probabilities of a piece's rows, and counts of what was handled as JSON."""
    classifier = unpack(packed)
    schema = classifier.schema
    found, counts = [], dict[str, int]()
    labels = target_columns(schema.target, schema.several)
    with of_source(called), one_thread():
        for _, frame in frames_of(piece, begun, rows=rows):
            encoded, handled = schema.encode(frame.drop(labels, strict=False))
            found.append(classifier.probabilities(encoded, calibrated=calibrated))
            for what, count in handled.items():
                counts[what] = counts.get(what, 0) + count
    if not found:
        found.append(np.empty((0, len(classifier.classes))))
    return np.concatenate(found), _json(counts)


def scored_pieces(
    map_: Any, packed: Packed, reader: Reader, asked: Asked, limit: Callable[[], float]
) -> Iterator[ScoredBlock]:
    """Yield what the classifier says of the rows of each piece, as `score_files` asks for it."""
    pieces = pieces_of(reader)
    for some in _at_once(pieces, packed.classes):
        shared = {
            "packed": packed,
            "begun": reader.begun(),
            "asked": asked,
            "limit": limit(),
        }
        for rows, draws, codes, said, handled in map_(_scored, some, shared):
            yield ScoredBlock(int(rows), draws, codes, said, _plain(handled))


def _scored(piece: Piece, *, packed: Packed, begun: Begun, asked: Asked, limit: float) -> Arrays:
    """Return the fields of the `ScoredBlock` of a piece, as arrays."""
    classifier = unpack(packed)
    with one_thread():
        blocks = [
            score_block(classifier, asked, piece.file.name, start, frame, limit)
            for start, frame in frames_of(piece, begun)
        ]
    rows = np.array(sum(each.rows for each in blocks))
    counts = dict[str, int]()
    for each in blocks:
        for what, count in each.handled.items():
            counts[what] = counts.get(what, 0) + count
    # Of a block without rows that are drawn the dtype is not the model's.
    some = [each for each in blocks if len(each.said)] or blocks[:1]
    if not some:
        nothing = np.empty(0), np.empty(0, np.int32), np.empty((0, len(classifier.classes)))
        return rows, *nothing, _json(counts)
    fields = (np.concatenate([each[i] for each in some]) for i in (1, 2, 3))
    return rows, *fields, _json(counts)


def _at_once(pieces: Sequence[Piece], classes: int) -> Iterator[list[Piece]]:
    """Yield pieces whose results may be in memory together."""
    some: list[Piece] = []
    size = 0
    for piece in pieces:
        own = 8 * classes * piece.most_rows
        if len(some) >= _FEWEST and size + own > _AT_ONCE:
            yield some
            some, size = [], 0
        some.append(piece)
        size += own
    if some:
        yield some


def _json(counts: dict[str, int]) -> np.ndarray:
    return np.frombuffer(msgspec.json.encode(counts), np.uint8).copy()


def _plain(content: np.ndarray) -> dict[str, int]:
    return msgspec.json.decode(content.tobytes(), type=dict[str, int])
