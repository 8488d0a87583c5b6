"""Sources that are read as streams: when, and how a classifier is scored on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from luce.data.kinds import NAMES, existing, tables_in
from luce.data.streams.dealing import TEST, VALIDATION, Dealer
from luce.data.streams.files import files_of, fingerprint, memory_for, recognised
from luce.data.targets import target_columns
from luce.errors import ArgumentError, DataError
from luce.processor import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from luce.data.blocks import Part
    from luce.data.dataset import Dataset
    from luce.data.streams.files import StreamFile
    from luce.data.streams.reading import Reader
    from luce.data.tables import TableSchema
    from luce.models.classifier import Classifier

__all__ = [
    "Asked",
    "Held",
    "ScoredBlock",
    "as_labels",
    "check_table",
    "is_large",
    "most_scored",
    "sample_of",
    "score_block",
    "score_files",
    "some_rows",
]

SHARE: Final = 0.5
"""A table is read as a stream if it would take more of the free memory than this."""

ALWAYS_SMALL: Final = 2**24
"""Bytes of files that nobody has to look further at."""

SHOWN_ROWS: Final = 10_000
"""Rows that a report shows, and that an exported file is compared on."""

SCORED_CELLS: Final = 2**22
"""Of rows that are scored together, the most probabilities; but see `MOST_SCORED`."""

FEWEST_SCORED: Final = 10_000


def most_scored(classes: int) -> int:
    """Return how many rows are scored at most: a million of four classes."""
    return max(FEWEST_SCORED, SCORED_CELLS // max(1, classes))


def check_table(source: Any, option: str = "stream") -> None:
    """Raise ArgumentError, of an option, unless a source is a table in files, or several."""
    named = isinstance(source, str | Path) and source not in {*NAMES, "-"}
    if not named or not tables_in(existing(source)):
        what = repr(str(source)) if isinstance(source, str | Path) else "what is in memory"
        raise ArgumentError(
            f"{option} is for tables in files, such as 'data/*.parquet'; {what} is none. Leave it "
            "out."
        )


def is_large(source: Any) -> tuple[int, int] | None:
    """Return about how much memory a table would take and how much is free, if it is too much.

    None for any other source, and for what fits: see `SHARE`.
    """
    if not isinstance(source, str | Path) or source in NAMES:
        return None
    try:
        tables = tables_in(existing(source))
        if sum(each.stat().st_size for each in tables) <= ALWAYS_SMALL:
            return None
    except (DataError, OSError):  # who reads it says so better
        return None
    needed, free = memory_for(files_of(source)), free_memory()
    return (needed, free) if needed > SHARE * free else None


def sample_of(part: Part, most: int, seed: int) -> tuple[Any, NDArray[Any]]:
    """Return rows of a part that the seed draws, in their order, and their labels."""
    rows = part.shape[0]
    random = np.random.default_rng(seed)
    if rows <= most:
        index = np.arange(rows)
    elif rows <= 4 * most:
        index = np.sort(random.permutation(rows)[:most])
    else:  # a permutation of all would be larger than what is drawn
        drawn = np.unique(random.integers(0, rows, 2 * most))
        index = np.sort(random.permutation(drawn)[:most])
    found, codes, start = [], [], 0
    for k, count in enumerate(part.blocks):
        first, last = np.searchsorted(index, [start, start + count])
        if last > first:
            X, own, _ = part.open(k)
            where = index[first:last] - start
            found.append(X[where])
            codes.append(own[where])
        start += count
    if part.sparse:
        import scipy.sparse

        features: Any = scipy.sparse.vstack(found, format="csr")
    else:
        features = np.concatenate(found)
    return features, as_labels(np.concatenate(codes), part.classes)


def as_labels(codes: NDArray[Any], classes: Sequence[Any]) -> NDArray[Any]:
    """Return the classes that codes stand for, as `luce.Dataset.labels` has them.

    Which of several labels at once are on, (rows, labels), stands for itself.
    """
    if codes.ndim == 2:
        return codes
    dtype: Any = {bool: np.bool_, int: np.int64}.get(type(classes[0]), object)
    labels: NDArray[Any] = np.array(classes, dtype=dtype)[codes]
    return labels


@dataclass(frozen=True)
class Held:
    """What a run held out of the files that it was trained on.

    Attributes
    ----------
    fingerprint : str
        Of these files.
    split : mapping
        How their rows were dealt: validation_size, test_size and seed.
    files : mapping of str to str
        By their names, what each is known by. Of runs of earlier versions, and of those that were
        trained in memory, nothing.
    """

    fingerprint: str
    split: Mapping[str, Any]
    files: Mapping[str, str]

    def among(self, files: Sequence[StreamFile]) -> tuple[list[StreamFile], frozenset[str]]:
        """Find the run's files among others, or copies of them; see `recognised`."""
        if not self.files and fingerprint(files) == self.fingerprint:
            return list(files), frozenset(each.name for each in files)
        return recognised(files, self.files)


class Asked(NamedTuple):
    """Which rows of files are scored, and against what.

    Attributes
    ----------
    name : str
        What messages call the files.
    target : str
        The column of the labels.
    dealer : Dealer
    trained : frozenset of str
        The names of files that the run was trained on: of these the rows that it held out are
        scored, of others all.
    """

    name: str
    target: str
    dealer: Dealer
    trained: frozenset[str]


class ScoredBlock(NamedTuple):
    """What a classifier says of the rows of a block.

    Attributes
    ----------
    rows : int
        How many are wanted and have a label.
    draws, codes : ndarray of shape (n,)
        Of those that are drawn: their draws, and their classes' numbers; of several labels at once
        which are on, (n, labels).
    said : ndarray of shape (n, classes)
        Log-probabilities.
    handled : dict
        What had to be handled in them.
    """

    rows: int
    draws: NDArray[np.float64]
    codes: NDArray[np.int32] | NDArray[np.bool_]
    said: NDArray[Any]
    handled: dict[str, int]


def score_files(
    name: str,
    source: str | Path,
    target: str | None,
    classifier: Classifier,
    held: Held | None = None,
    spread: Callable[[Reader, Asked, Callable[[], float]], Iterator[ScoredBlock]] | None = None,
) -> dict[str, Any]:
    """Score a classifier on the rows of files, which are read block by block.

    Parameters
    ----------
    name : str
        What messages call the source.
    source : str or Path
    target : str or None
        The column of the labels.
    classifier : Classifier
    held : Held, optional
        Of files that the run was trained on, and of copies of them, only the rows that were held
        out are scored.
    spread : callable, optional
        What has blocks scored elsewhere, and yields them in their order: it is given a reader, what
        is asked, and a function that says below which draw rows are needed. By default it is done
        here.

    Returns
    -------
    dict
        As `Classifier.score`; and ``scored_on``, ``handled`` and ``useless`` as `luce.Run.evaluate`
        has them.

    Raises
    ------
    luce.errors.DataError
        If they do not fit the run, have no labels, or nothing was held out.
    """
    from luce.data.sources import reader_of

    schema: TableSchema = classifier.schema  # type: ignore[assignment] # files are tables
    files, trained = files_of(source), frozenset[str]()
    dealer = Dealer(validation_size=0.0, test_size=0.0, seed=0)
    if held is not None:
        files, trained = held.among(files)
    if held is not None and trained:
        dealer = Dealer(**held.split)
        if not dealer.test_size and all(each.name in trained for each in files):
            raise DataError(
                f"the run was trained on all of {name} and held nothing out: its score there would "
                "say nothing. Give other data, or train with --test-size 0.2."
            )
    asked = Asked(name, str(target or schema.target), dealer, trained)
    scorer = _Scorer(classifier, asked, others=any(each.name not in trained for each in files))
    reader = reader_of(files, schema)
    if spread is None:
        for file, start, frame in reader.blocks():
            scorer.add(score_block(classifier, asked, file.name, start, frame, scorer.limit))
    else:
        for block in spread(reader, asked, lambda: scorer.limit):
            scorer.add(block)
    return scorer.figures()


def score_block(
    classifier: Classifier, asked: Asked, file: str, start: int, frame: Any, limit: float
) -> ScoredBlock:
    """Score the rows of a block of a file, which begins at row `start`.

    Those whose draw is at least `limit` are only counted.

    Raises
    ------
    luce.errors.DataError
        If they do not fit the classifier, or have no labels.
    """
    import polars as pl

    from luce.data.streams.labelling import known_target, labelled

    schema = classifier.schema
    columns = target_columns(asked.target, schema.several)
    for column in columns:
        if column not in frame.columns:
            raise DataError(
                f"{asked.name} has no labels to score against: it has no column {column!r}. "
                "Say where they are with target, or use `luce predict` for it."
            )
    which = np.ones(frame.height, bool)
    if file in asked.trained:
        which = asked.dealer.parts(file, start, frame.height) == TEST
    codes = known_target(frame, asked.target, schema, name=asked.name)
    which &= labelled(codes)
    rows = int(which.sum())
    draws = asked.dealer.draws(file, np.arange(start, start + frame.height))
    which &= draws < limit
    if not which.any():
        nothing = np.empty((0, len(classifier.classes)))
        return ScoredBlock(rows, draws[:0], codes[:0], nothing, {})
    encoded, handled = schema.encode(frame.filter(pl.Series(which)).drop(columns))
    said = classifier.log_probabilities(encoded)
    return ScoredBlock(rows, draws[which], codes[which], said, dict(handled))


def some_rows(
    name: str,
    source: str | Path,
    target: str | None,
    schema: TableSchema,
    held: Held | None = None,
    *,
    most: int = SHOWN_ROWS,
) -> tuple[Dataset, int, bool]:
    """Return some rows of files as they are there, all if they are few.

    Of files of a training, or copies, they are rows that were held out: those to test on, or if
    there are none, those to validate on.

    Parameters
    ----------
    name, source, target, held
        As for `score_files`.
    schema : TableSchema
        The run's.
    most : int
        How many rows.

    Returns
    -------
    dataset : Dataset
        Without labels, if the files have none.
    total : int
        How many rows there are to choose from.
    own : bool
        Whether all are rows that the training held out.
    """
    import polars as pl

    from luce.data.dataset import Dataset
    from luce.data.sources import reader_of
    from luce.data.spelling import present
    from luce.data.streams.labelling import known_target, labelled
    from luce.data.streams.look import lowest

    files, trained = files_of(source), frozenset[str]()
    dealer = Dealer(validation_size=0.0, test_size=0.0, seed=0)
    if held is not None:
        files, trained = held.among(files)
    if held is not None and trained:
        dealer = Dealer(**held.split)
    wanted = TEST if dealer.test_size else VALIDATION
    target = str(target or schema.target)
    columns = target_columns(target, schema.several)
    kept, limit, count, total = [], 1.0, 0, 0
    for file, start, frame in reader_of(files, schema).blocks():
        which = np.ones(frame.height, bool)
        if file.name in trained:
            which = dealer.parts(file.name, start, frame.height) == wanted
        if target in frame.columns and schema.several is None:
            which &= present(frame[target]).is_not_null().to_numpy()
        total += int(which.sum())
        draws = dealer.draws(file.name, np.arange(start, start + frame.height))
        which &= draws < limit
        kept.append((draws[which], frame.filter(pl.Series(which))))
        count += int(which.sum())
        if count > 2 * most:
            kept, limit = lowest(kept, most)
            count = most
    if count > most:
        kept, _ = lowest(kept, most)
    if not total:
        raise DataError(f"{name}: there are no rows to show.")
    whole = pl.concat([frame for _, frame in kept], how="diagonal_relaxed")
    labels = None
    if all(column in whole.columns for column in columns):
        codes = known_target(whole, target, schema, name=name)
        there = labelled(codes)
        whole = whole.drop(columns).filter(pl.Series(there))
        labels = as_labels(codes[there], schema.classes or [])
    own = bool(trained) and all(each.name in trained for each in files)
    return Dataset(name, whole, labels, schema), total, own


class _Scorer:
    """Log-probabilities of a sample of rows, the ones with the lowest draws."""

    def __init__(self, classifier: Classifier, asked: Asked, *, others: bool) -> None:
        self.classifier, self.asked, self.others = classifier, asked, others
        self.most = most_scored(len(classifier.classes))
        self.limit, self.rows, self.held = 1.0, 0, 0
        self.kept: list[tuple[NDArray[Any], ...]] = []
        self.handled: dict[str, int] = {}

    def add(self, block: ScoredBlock) -> None:
        """Keep what was said of the rows of a block that are drawn."""
        self.rows += block.rows
        for what, count in block.handled.items():
            self.handled[what] = self.handled.get(what, 0) + count
        if len(block.said):
            self.kept.append((block.draws, block.codes, block.said))
            self.held += len(block.said)
        if self.held > 2 * self.most:
            self._cut()

    def _cut(self) -> None:
        draws = np.concatenate([own for own, *_ in self.kept])
        self.limit = float(np.partition(draws, self.most)[self.most])
        self.kept = [
            tuple(each[own < self.limit] for each in (own, codes, said))
            for own, codes, said in self.kept
        ]
        self.held = sum(len(own) for own, *_ in self.kept)

    def figures(self) -> dict[str, Any]:
        """Return what the rows score."""
        if self.held > self.most:
            self._cut()
        if not self.kept:
            raise DataError(f"{self.asked.name}: there are no rows with a label to score.")
        codes, said = (np.concatenate([own[i] for own in self.kept]) for i in (1, 2))
        labels = as_labels(codes, self.classifier.classes)
        which = "the" if self.asked.trained else "all"
        words = f"{which} {self.rows:,} rows of {self.asked.name}"
        if self.asked.trained:
            words += (
                " that training held out, or did not have"
                if self.others
                else " that training held out"
            )
        if len(labels) < self.rows:
            words = f"{len(labels):,} of {words}, drawn at random"
        return {
            "scored_on": words,
            **self.classifier.score_said(said, labels),
            "handled": self.handled,
            "useless": self.classifier.schema.useless(self.handled, len(labels)),
        }
