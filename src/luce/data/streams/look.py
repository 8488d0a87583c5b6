"""A first look at a stream: the classes, the kinds of its columns, how many rows there are.

Of Parquet and Arrow it takes the column of the target and slices from all parts of the files. Text
cannot be read from the middle, so it is read once for this.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from luce.data.kinds import no_column, no_target
from luce.data.schema import Label
from luce.data.streams.dealing import TRAIN, Dealer
from luce.data.streams.labelling import LabelCounts, Labels
from luce.data.streams.several import SeveralCounts, SeveralLabels
from luce.data.tables import TableSchema
from luce.data.typed import group_rows
from luce.data.wording import counted, listed, shown
from luce.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data.directions import Directions
    from luce.data.streams.files import StreamFile
    from luce.data.streams.reading import Reader

__all__ = ["Look", "look", "lowest"]

SAMPLED_CELLS: Final = 2**22
"""Values that kinds of columns are told from, in all, but `MOST_SAMPLED` rows at most."""

FEWEST_SAMPLED: Final = 2_000

MOST_SAMPLED: Final = 2**16

SLICES: Final = 32
"""How many parts of typed files they are from."""

FEWEST_GROUPS: Final = 16
"""Of so many groups of rows, the starts are parts from all over the files."""

TARGET_ROWS: Final = 2**21
"""Values of the target that are read at once, from typed files."""


@dataclass(frozen=True)
class Look:
    """What a first look found.

    Attributes
    ----------
    name : str
        What the stream is called.
    schema : TableSchema
        The kinds of the columns, and the classes; not yet fitted.
    labels : Labels or SeveralLabels
    rows : int
        All rows, those that are left out included.
    sample : polars.DataFrame
        The rows that the kinds were told from, without the target.
    notices : tuple of str
    """

    name: str
    schema: TableSchema
    labels: Labels | SeveralLabels
    rows: int
    sample: pl.DataFrame
    notices: tuple[str, ...] = ()

    @property
    def training_rows(self) -> int:
        """How many rows there are to learn from."""
        return int(self.labels.totals[TRAIN])


def look(
    name: str,
    reader: Reader,
    target: str | None,
    told: Directions,
    dealer: Dealer,
    *,
    drop_rare: int = 0,
) -> Look:
    """Look at a stream.

    Parameters
    ----------
    name : str
        What messages call it.
    reader : Reader
    target : str
        The column of the labels.
    told : Directions
    dealer : Dealer
    drop_rare : int
        Classes with fewer rows are left out.

    Raises
    ------
    luce.errors.DataError
        If it cannot be learnt from.
    """
    find = _look_typed if reader.typed else _look_text
    counts = _counts(name, target, told.several)
    sample, rows = find(name, reader, counts, target, dealer)
    assert target is not None  # noqa: S101 - both see to it
    if not rows:
        raise DataError(f"{name}: there are no rows in its {counted(len(reader.files), 'file')}.")
    labels = counts.labels(drop_rare)
    if isinstance(labels, SeveralLabels):
        labels.check(dealer.seed)
        features, of_classes = sample.drop(labels.columns), None
    else:
        check_classes(labels, dealer, drop_rare)
        codes = labels.of(sample)
        features = sample.drop(target).filter(pl.Series(codes >= 0))
        of_text = isinstance(labels.classes[0], str)
        classes = np.array(labels.classes, dtype=object if of_text else None)
        of_classes = classes[codes[codes >= 0]]
    separator = reader.dialect.found_separator
    schema = TableSchema.infer(
        features,
        target=target,
        labels=of_classes,
        directions=told,
        likely="," if separator == ";" else ".",
    )
    schema = replace(
        schema,
        encoding=reader.dialect.found_encoding,
        separator=separator,
        classes=list(labels.classes),
        dropped=list(getattr(labels, "dropped", ())),
        several=told.several,
    )
    notices = [f"{name}: {each}" for each in reader.notices()]
    notices += labels.notices()
    total = int(labels.totals.sum())
    if features.height < total:
        notices.append(
            f"the kinds of the columns are told from {features.height:,} of {total:,} rows."
        )
    notices += schema.assumed + schema.warnings
    return Look(name, schema, labels, rows, features, tuple(notices))


def _counts(name: str, target: str | None, several: str | None) -> LabelCounts | SeveralCounts:
    if several is None or target is None:
        return LabelCounts(str(target))
    return SeveralCounts(name, target, several)


def check_classes(labels: Labels, dealer: Dealer, drop_rare: int) -> None:
    """Raise DataError unless there are two classes or more, each with rows to learn from."""
    totals, classes = labels.rows.sum(axis=1), labels.classes
    if len(classes) < 2:
        if labels.dropped:
            raise ArgumentError(
                f"drop_rare={drop_rare} leaves {len(classes)} of "
                f"{len(classes) + len(labels.dropped):,} classes; two are needed."
            )
        raise DataError(
            f"All {int(totals.sum()):,} rows have the same label, {shown(classes[0])}. A "
            "classifier needs at least two classes: check that target names the right column."
        )
    single = _of(classes, totals == 1)
    if single:
        what = "Class" if len(single) == 1 else "Classes"
        has = "has a single example" if len(single) == 1 else "have a single example each"
        raise DataError(
            f"{what} {listed(single)} {has}; every class needs at least two. Add examples, merge "
            f"rare classes, or leave them out with --drop-rare 2 (drop_rare=2 in Python)."
        )
    unlearnt = labels.rows[:, TRAIN] == 0
    if unlearnt.any():
        names, most = _of(classes, unlearnt), int(totals[unlearnt].max())
        raise DataError(
            f"No row of {listed(names)} falls to the training rows: of a stream each row is dealt "
            f"by itself, and there are only {most:,} or fewer of these. Add examples, leave such "
            f"classes out with --drop-rare {most + 1}, or deal anew with another --seed than "
            f"{dealer.seed}."
        )


def _of(classes: list[Label], which: NDArray[np.bool_]) -> list[Label]:
    return [each for each, it in zip(classes, which.tolist(), strict=True) if it]


def _sampled_rows(columns: int) -> int:
    return max(FEWEST_SAMPLED, min(MOST_SAMPLED, SAMPLED_CELLS // max(1, columns)))


def _look_typed(
    name: str,
    reader: Reader,
    counts: LabelCounts | SeveralCounts,
    target: str | None,
    dealer: Dealer,
) -> tuple[pl.DataFrame, int]:
    heights = reader.heights()
    _check_target(name, target, counts.columns, reader.columns)
    for file, height in zip(reader.files, heights, strict=True):
        for start in range(0, height, TARGET_ROWS):
            values = reader.slice(file, start, TARGET_ROWS, counts.columns)
            counts.add(values, dealer.parts(file.name, start, values.height))
    reader.empty = [f.name for f, height in zip(reader.files, heights, strict=True) if not height]
    most, total = _sampled_rows(len(reader.columns)), sum(heights)
    parts = [
        reader.slice(file, start, stop - start)
        for file, start, stop in _slices(reader.files, heights, most)
    ]
    return pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame(), total


def _slices(
    files: list[StreamFile], heights: list[int], most: int
) -> list[tuple[StreamFile, int, int]]:
    """Return pieces of files, evenly over all rows; all rows where they are no more than `most`."""
    if sum(heights) <= most:
        return [(file, 0, rows) for file, rows in zip(files, heights, strict=True) if rows]
    length = most // SLICES
    begins = np.linspace(0, sum(heights) - length, SLICES).astype(np.int64)
    stops = begins + length
    groups = _group_starts(files, heights)
    if len(groups) > FEWEST_GROUPS:
        # A slice is decoded from the start of its group: so it is taken there, over as many groups
        # as it needs.
        own, counts = np.unique(
            np.searchsorted(groups, begins, side="right") - 1, return_counts=True
        )
        begins = groups[own]
        stops = np.minimum(begins + counts * length, np.append(begins[1:], groups[-1]))
    ends = np.cumsum(heights)
    found = []
    for begin, stop in zip(begins.tolist(), stops.tolist(), strict=True):
        at = int(np.searchsorted(ends, begin, side="right"))
        while begin < stop:
            first = int(ends[at]) - heights[at]
            end = min(stop, int(ends[at]))
            if end > begin:
                found.append((files[at], begin - first, end - first))
            begin, at = end, at + 1  # noqa: PLW2901 - on into the next file
    return found


def _group_starts(files: list[StreamFile], heights: list[int]) -> NDArray[np.int64]:
    """Return where the groups of rows of Parquet files begin, counted through all files.

    One more says where the last ends. Of other files, or where it is not known, nothing.
    """
    lengths = [
        group_rows(file.path) if height else [] for file, height in zip(files, heights, strict=True)
    ]
    if any(sum(own) != height for own, height in zip(lengths, heights, strict=True)):
        return np.empty(0, np.int64)
    return np.cumsum([0, *itertools.chain.from_iterable(lengths)])


def _look_text(
    name: str,
    reader: Reader,
    counts: LabelCounts | SeveralCounts,
    target: str | None,
    dealer: Dealer,
) -> tuple[pl.DataFrame, int]:
    total = 0
    # The rows with the lowest draws: a sample of one size, however many rows are still to come.
    kept: list[tuple[NDArray[np.float64], pl.DataFrame]] = []
    held, limit = 0, 1.0
    for file, start, frame in reader.blocks():
        if not file.keyed or total == 0:
            _check_target(name, target, counts.columns, frame.columns, keyed=file.keyed)
        parts = dealer.parts(file.name, start, frame.height)
        there = [frame[each] for each in counts.columns if each in frame.columns]
        # Of several labels at once, rows of JSON may have lists.
        texts = [each if each.dtype.is_nested() else each.cast(pl.String) for each in there]
        counts.add(pl.DataFrame(texts) if texts else frame, parts)
        total += frame.height
        draws = dealer.draws(file.name, np.arange(start, start + frame.height))
        low = draws < limit
        kept.append((draws[low], frame.filter(pl.Series(low))))
        held += int(low.sum())
        most = _sampled_rows(len(reader.columns))
        if held > 2 * most:
            kept, limit = lowest(kept, most)
            held = most
    most = _sampled_rows(len(reader.columns))
    if held > most:
        kept, _ = lowest(kept, most)
    if not kept:
        return pl.DataFrame(), 0
    sample = pl.concat([frame for _, frame in kept], how="diagonal_relaxed")
    _check_target(name, target, counts.columns, sample.columns)
    return sample, total


def lowest(
    kept: list[tuple[NDArray[np.float64], pl.DataFrame]], most: int
) -> tuple[list[tuple[NDArray[np.float64], pl.DataFrame]], float]:
    """Return the rows with the lowest draws, in their order, and what others must be below."""
    draws = np.concatenate([own for own, _ in kept])
    limit = float(np.partition(draws, most)[most])
    left = [(own[own < limit], frame.filter(pl.Series(own < limit))) for own, frame in kept]
    return left, limit


def _check_target(
    name: str, target: str | None, wanted: list[str], columns: list[str], *, keyed: bool = False
) -> None:
    if target is None:
        raise no_target(columns)
    for column in wanted:
        if column not in columns and not keyed:  # else it may come in later rows
            raise no_column(name, column, columns)
