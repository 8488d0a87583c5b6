"""Columns of sentences: words, and pairs of words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np
import polars as pl

from luce.data.columns.base import ODD, Column, Handled
from luce.data.columns.fitting import Fitting
from luce.data.columns.seen import Seen, is_opaque
from luce.data.plain import BESIDE
from luce.data.vocabulary import Learner, Vocabulary
from luce.data.wording import shown

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    import scipy.sparse
    from numpy.typing import NDArray

    from luce.data.schema import Normalise
    from luce.nodes import Encoded, Var

__all__ = ["Text"]

SEVERAL = 5
"""Values are sentences if they have so many words on average; names and addresses have fewer."""

MOST_TEXTS = 2**18
"""Texts that terms are learnt from, of rows that come block by block."""

SAMPLE = 10_000
"""How many values are looked at for that."""


@final
@dataclass(frozen=True, kw_only=True)
class Text(Column):
    """Sparse rows of length 1: how much of each word and pair of words a text holds.

    The terms are those of two or more of the training rows, up to 2^20. A missing value has none
    of them; one more column is 1 there, if training had missing values.

    Attributes
    ----------
    indicator : bool
        Whether a column says where a value is missing.
    vocabulary : Vocabulary
        The terms.
    """

    kind: ClassVar[str] = "text"
    plural: ClassVar[str] = "texts"
    in_pages: ClassVar[bool] = True
    in_parts: ClassVar[bool] = True
    indicator: bool = False
    vocabulary: Vocabulary = field(default_factory=Vocabulary, metadata=BESIDE)

    @classmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column if its values are sentences, of five words and more on average.

        A word has a letter in it and blanks around. Categories have been told apart before.
        """
        if is_opaque(seen.dtype) or not len(seen.values):
            return None
        if seen.dtype != pl.String and not seen.asked:
            return None
        texts = seen.texts
        some = texts.gather_every(max(1, len(texts) // SAMPLE))
        words = float(some.str.count_matches(r"\S*\p{L}\S*").to_numpy().mean())
        if not seen.asked and words < SEVERAL:
            return None
        note = f"{seen.distinct:,} different texts of {words:.0f} words on average{seen.gone}"
        return cls(name=seen.name, note=note)

    @property
    def names(self) -> list[str]:
        """``remark: good``, ``remark: very good``, …, ``remark missing``."""
        names = [f"{self.name}: {term}" for term in self.vocabulary.names]
        return names + [f"{self.name} missing"] * self.indicator

    @property
    def width(self) -> int:
        """How many terms there are, and one more for the indicator."""
        return len(self.vocabulary) + self.indicator

    @property
    def handled(self) -> Handled:
        """Of what is missing and of texts without a word that is known; see `Column.handled`."""
        name = shown(self.name)
        return Handled(
            f"missing value in {name}, treated as no words",
            unseen=(f"text in {name} of which no word is known",),
        )

    @property
    def expected(self) -> str:
        """What a text should have."""
        return "a text with words of those that were learnt from"

    @property
    def examples(self) -> Sequence[str]:
        """A few of the commonest words, which are no sentence."""
        return [" ".join(self.vocabulary.commonest(8))]

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a text; see `Column.json_schema`."""
        return {**super().json_schema(), "contentMediaType": "text/plain"}

    @property
    def sparse(self) -> bool:
        """Yes: a text holds few of all terms."""
        return True

    @classmethod
    def fit(
        cls,
        columns: Sequence[Self],
        values: pl.Series,
        normalise: Normalise,  # noqa: ARG003 - rows are of length 1 in any case
    ) -> Iterator[Self]:
        """Return the columns with the terms of the training rows; see `Column.fit`."""
        for column, texts in _each(columns, values):
            yield replace(
                column,
                vocabulary=Vocabulary.learn(texts.drop_nulls()),
                indicator=texts.null_count() > 0,
            )

    @classmethod
    def fitting(cls, columns: Sequence[Self], normalise: Normalise, rows: int) -> Fitting:
        """Return what counts the texts that terms are in; see `Column.fitting`."""
        return TextFitting(columns, normalise, rows)

    @classmethod
    def encode(
        cls,
        columns: Sequence[Self],
        values: pl.Series,
        out: Sequence[NDArray[np.float32]] | None,  # noqa: ARG003
        handled: Counter[str],
    ) -> Sequence[scipy.sparse.csr_array]:
        """Return how much of each term the texts hold; see `Column.encode`."""
        import scipy.sparse

        parts = []
        for column, texts in _each(columns, values):
            gone = texts.is_null().to_numpy()
            rows = column.vocabulary.encode(texts.fill_null(""))
            said = column.handled
            handled[said.missing] += int(gone.sum())
            strange = (np.diff(rows.indptr) == 0) & ~gone
            handled[said.unseen[0]] += int(strange.sum())
            if column.indicator:
                more = scipy.sparse.csr_array(gone[:, None].astype(np.float32))
                rows = scipy.sparse.csr_array(scipy.sparse.hstack([rows, more], format="csr"))
            parts.append(rows)
        return parts

    @property
    def made_up(self) -> list[Any]:
        """Texts of known words and of others; see `Column.made_up`."""
        terms = self.vocabulary.names[:: 1 + len(self.vocabulary) // 40]
        texts = ["; ".join(terms), " ".join(terms * 2), *terms[:10], "a b c", "\tone\ntwo "]
        texts += [f"({terms[i]}), {terms[-i]}!" for i in range(min(len(terms), 10))]
        return [*ODD, *texts, *map(str.upper, texts), *map(str.title, texts[:12])]

    @property
    def beyond_onnx(self) -> str:
        """How texts are cut into words."""
        return f"Standard ONNX has no operator that cuts the texts of {shown(self.name)} into words"

    @classmethod
    def nodes(cls, columns: Sequence[Self], inputs: Sequence[Var]) -> Sequence[Encoded]:
        """Return how much of each term the texts hold; see `Column.nodes`."""
        from luce.data.columns.words import text_nodes

        return [
            text_nodes(text, column.vocabulary, indicator=column.indicator)
            for column, text in zip(columns, inputs, strict=True)
        ]

    def spans(self, value: str) -> list[tuple[int, int, int]]:
        """Return where the text has which term; see `Column.spans`."""
        return self.vocabulary.spans(value)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the vocabulary as arrays."""
        return self.vocabulary.tensors()

    def with_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """Return the column with the vocabulary; see `Column.with_tensors`."""
        return replace(self, vocabulary=Vocabulary.from_tensors(tensors))


class TextFitting(Fitting):
    """The terms of texts.

    They are those of a sample where there are more than `MOST_TEXTS`: of ever more texts, there are
    ever more pairs of words.
    """

    def __init__(self, columns: Sequence[Any], normalise: Normalise, rows: int) -> None:
        super().__init__(columns, normalise, rows)
        self.share = MOST_TEXTS / max(rows, MOST_TEXTS)
        self._learners = [Learner() for _ in self.columns]
        self._missing = [False for _ in self.columns]

    def add(self, part: slice, values: pl.Series, draws: NDArray[np.float64]) -> None:
        """Learn the terms of the block's texts; see `Fitting.add`."""
        sample = pl.Series(draws < self.share)
        for i, (_, texts) in enumerate(_each(self.columns[part], values), part.start):
            self._missing[i] |= texts.null_count() > 0
            self._learners[i].add(texts.filter(sample).drop_nulls())

    def fitted(self) -> Iterator[Text]:
        """Return the columns with the terms; see `Fitting.fitted`."""
        for column, learner, missing in zip(
            self.columns, self._learners, self._missing, strict=True
        ):
            yield replace(column, vocabulary=learner.vocabulary(), indicator=missing)


def _each(columns: Sequence[Text], values: pl.Series) -> Iterator[tuple[Any, pl.Series]]:
    """Yield each column with its own texts."""
    rows = len(values) // len(columns)
    for i, column in enumerate(columns):
        yield column, values[i * rows : (i + 1) * rows].cast(pl.String)
