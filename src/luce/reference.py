"""What rows looked like that a run was judged on: what new rows can be compared with.

Not the rows are kept, but of each column how many were in which tenth. `reference.json` holds it.
The columns are looked at as the model reads them, encoded: no kind of column is asked for more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import msgspec
import numpy as np

from luce.errors import RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data.schema import Encoded, Schema

__all__ = ["Measure", "Reference", "compare"]

MOST = 1_000
"""Columns that are kept."""

MOST_DENSE = 200
"""Of a wider sparse column, only how many terms a row has is looked at."""

TENTHS = np.arange(1, 10) / 10

FEWEST = 5
"""Of fewer expected rows, a bin is put together with others: the test would be wrong of it."""

Finite = Annotated[float, msgspec.Meta(ge=-3.5e38, le=3.5e38)]
Counts = Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]


How = Literal[
    "value", "code", "terms", "mean", "deviation", "class", "certainty", "label", "labels"
]


class Measure(msgspec.Struct, frozen=True):
    """A number of each row, and how those of the reference's rows were spread.

    Attributes
    ----------
    name : str
        Of the column.
    how : str
        What the number is: "value", the column's first encoded one; "code", which of its encoded
        ones is 1; "terms", how many there are; "mean" or "deviation" of a channel; "class", the
        predicted one; "certainty", its probability. Of several labels at once, "label", whether
        the label of this name is predicted, and "labels", how many are.
    edges : list of float
        Between the bins, in order; a value at an edge is above it. Codes have none.
    counts : list of int
        The rows in each bin.
    """

    name: str
    how: How
    edges: list[Finite]
    counts: Counts

    def bins(self, numbers: NDArray[Any]) -> NDArray[np.int64]:
        """Return how many of the numbers are in each bin."""
        if self.how in ("code", "class", "label"):
            place = np.clip(numbers, 0, len(self.counts) - 1).astype(np.int64)
        else:
            place = np.searchsorted(np.asarray(self.edges), numbers, side="right")
        return np.bincount(place, minlength=len(self.counts))


@dataclass(frozen=True)
class Reference:
    """How the rows were spread that a run was judged on: inputs and predictions.

    Attributes
    ----------
    rows : int
    measures : list of Measure

    Examples
    --------
    >>> import luce, tempfile
    >>> run = luce.train("digits", model="linear", out=tempfile.mkdtemp())
    >>> [(measure.name, measure.how) for measure in run.reference.measures][:2]
    [('channel 0', 'mean'), ('channel 0', 'deviation')]
    """

    rows: int
    measures: list[Measure]

    @classmethod
    def of(
        cls,
        schema: Schema,
        encoded: Encoded,
        probabilities: NDArray[Any],
        thresholds: NDArray[Any] | None = None,
    ) -> Self:
        """Return what is kept of encoded rows and what was predicted of them.

        `thresholds` are those of several labels at once.
        """
        measures = []
        for name, block in _blocks(schema, encoded):
            for how, numbers in _numbers(block, images=schema.kind == "image"):
                edges, width = _edges(how, numbers, block.shape[1])
                empty = Measure(name, how, edges, [0] * width)
                counts = empty.bins(numbers).tolist()
                measures.append(Measure(name, how, edges, counts))
            if len(measures) >= MOST:
                break
        for name, how, numbers in _predicted(schema, probabilities, thresholds):
            edges, width = _edges(how, numbers, probabilities.shape[1])
            empty = Measure(name, how, edges, [0] * width)
            measures.append(msgspec.structs.replace(empty, counts=empty.bins(numbers).tolist()))
        return cls(len(probabilities), measures)

    def counted(
        self,
        schema: Schema,
        encoded: Encoded,
        probabilities: NDArray[Any],
        thresholds: NDArray[Any] | None = None,
    ) -> list[NDArray[np.int64]]:
        """Return of each measure how many of other rows are in each of its bins."""
        wanted = {measure.name for measure in self.measures}
        blocks = {name: each for name, each in _blocks(schema, encoded) if name in wanted}
        predicted = {
            (name, how): numbers
            for name, how, numbers in _predicted(schema, probabilities, thresholds)
        }
        found = []
        for measure in self.measures:
            numbers = predicted.get((measure.name, measure.how))
            if numbers is None:
                numbers = HOW[measure.how](blocks[measure.name])
            found.append(measure.bins(numbers))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the plain dict that reference.json holds."""
        return {"rows": self.rows, "measures": [msgspec.to_builtins(m) for m in self.measures]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], schema: Schema) -> Self:
        """Build from what `to_json` returned, for a run of this schema.

        Raises
        ------
        RunError
            If anything in the record is missing, of the wrong kind, or of other columns.
        """
        try:
            found = msgspec.convert(record, _Stored)
        except msgspec.ValidationError as error:
            raise RunError(f"reference.json is damaged: {error}.") from error
        widths = dict(_names(schema))
        for measure in found.measures:
            _check(measure, widths, schema)
        return cls(found.rows, found.measures)


class _Stored(msgspec.Struct):
    rows: Annotated[int, msgspec.Meta(ge=1)]
    measures: list[Measure]


def _check(measure: Measure, widths: Mapping[str, int], schema: Schema) -> None:
    """Raise RunError for a measure that is none of a run's with these columns."""
    classes = schema.classes or ()
    if measure.how == "class":
        fits = schema.several is None and len(measure.counts) == len(classes)
    elif measure.how == "label":
        known = schema.several is not None and measure.name in map(str, classes)
        fits = known and len(measure.counts) == 2
    elif measure.how == "code":
        fits = len(measure.counts) == widths.get(measure.name, -2) + 1
    else:
        fits = len(measure.counts) == len(measure.edges) + 1
        fits = fits and (measure.name in widths or measure.how == _OF_ALL[schema.several is None])
    if not fits or any(a >= b for a, b in zip(measure.edges, measure.edges[1:], strict=False)):
        raise RunError(f"reference.json is damaged: measure {measure.name!r} fits no column.")


_OF_ALL = {True: "certainty", False: "labels"}
"""What is looked at of a row's prediction, where classes exclude each other and where not."""


def _predicted(
    schema: Schema, probabilities: NDArray[Any], thresholds: NDArray[Any] | None
) -> Iterator[tuple[str, Any, NDArray[Any]]]:
    """Yield what is looked at of predictions: its name, what it is, and of each row the number."""
    if thresholds is None:
        yield "class", "class", probabilities.argmax(axis=1)
        yield "certainty", "certainty", probabilities.max(axis=1)
        return
    on = probabilities >= thresholds
    for k, label in enumerate((schema.classes or ())[:MOST]):
        yield str(label), "label", on[:, k]
    yield "labels", "labels", on.sum(axis=1)


def _names(schema: Schema) -> Iterator[tuple[str, int]]:
    """Yield the columns of encoded rows that are looked at, and how wide each is."""
    if schema.kind == "table":
        for column in schema.used:  # type: ignore[attr-defined]
            yield column.name, column.width
    elif schema.kind == "image":
        for channel in range(schema.input_shape[0]):
            yield f"channel {channel}", math.prod(schema.input_shape[1:])
    else:
        for name in schema.feature_names[:MOST]:
            yield name, 1


def _blocks(schema: Schema, encoded: Encoded) -> Iterator[tuple[str, Any]]:
    """Yield each of those columns, (rows, width)."""
    if schema.kind == "image":
        for channel, (name, _) in enumerate(_names(schema)):
            yield name, np.asarray(encoded)[:, channel].reshape(len(encoded), -1)
        return
    start = 0
    for name, width in _names(schema):
        block: Any = encoded[:, start : start + width]
        start += width
        if isinstance(block, np.ndarray) or width > MOST_DENSE:
            yield name, block
        else:
            yield name, block.toarray()


def _value(block: Any) -> NDArray[Any]:
    return np.asarray(block[:, 0])


def _code(block: Any) -> NDArray[Any]:
    """Return the place of the 1 in each row, from 1 on; 0 where there is none."""
    found: NDArray[Any] = block @ np.arange(1, block.shape[1] + 1)
    return found


def _terms(block: Any) -> NDArray[Any]:
    return np.diff(block.indptr)


HOW: dict[str, Any] = {
    "value": _value,
    "code": _code,
    "terms": _terms,
    "mean": lambda block: block.mean(axis=1),
    "deviation": lambda block: block.std(axis=1),
}


def _numbers(block: Any, *, images: bool) -> Iterator[tuple[Any, NDArray[Any]]]:
    """Yield what is looked at of a column: what it is, and of each row the number."""
    if images:
        yield "mean", HOW["mean"](block)
        yield "deviation", HOW["deviation"](block)
    elif not isinstance(block, np.ndarray):
        yield "terms", _terms(block)
    elif block.shape[1] == 1:
        yield "value", _value(block)
    elif np.isin(block, (0, 1)).all() and (block.sum(axis=1) <= 1).all():
        yield "code", _code(block)
    else:
        yield "value", _value(block)


WIDTHS: dict[str, Any] = {
    "code": lambda width: width + 1,
    "class": lambda classes: classes,
    "label": lambda _: 2,
}
"""How many bins there are of what is a code, from its columns or the classes."""


def _edges(how: str, numbers: NDArray[Any], width: int) -> tuple[list[float], int]:
    if how in WIDTHS:
        return [], WIDTHS[how](width)
    edges = np.unique(np.quantile(numbers.astype(np.float64), TENTHS, method="lower")).tolist()
    return edges, len(edges) + 1


def compare(reference: NDArray[Any], counts: NDArray[Any]) -> tuple[float, float | None]:
    """Return how far two spreads over the same bins are apart, and how likely chance is.

    Parameters
    ----------
    reference, counts : ndarray of int, shape (bins,)

    Returns
    -------
    distance : float
        The total variation distance: from 0, the same shares, to 1, no bin in common.
    p : float or None
        Of Pearson's chi-squared test that both are of one distribution; None of too few rows.

    Examples
    --------
    >>> import numpy as np
    >>> compare(np.array([50, 50]), np.array([10, 90]))[0]
    0.4
    """
    shares = reference / reference.sum(), counts / max(counts.sum(), 1)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    total = reference + counts
    expected = total * (min(reference.sum(), counts.sum()) / total.sum())
    rare = expected < FEWEST
    table = np.stack([reference, counts])
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if not counts.sum() or expected.sum() < 2 * FEWEST:
        return round(distance, 12), None
    if table.shape[1] < 2:
        return round(distance, 12), 1.0
    from scipy.stats import chi2_contingency

    return round(distance, 12), float(chi2_contingency(table, correction=False).pvalue)
