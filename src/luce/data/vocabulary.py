"""The terms of texts, and texts as sparse rows of how much of each term they hold: tf-idf."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    import scipy.sparse
    from numpy.typing import NDArray

    from luce.data.ngrams import Pairs, Words

__all__ = ["LEAST_TEXTS", "MOST_TERMS", "Learner", "Vocabulary"]

LEAST_TEXTS = 2
"""A term must be in so many of the training rows' texts."""

MOST_TERMS = 2**20
"""Of more terms, those are kept that are in the most texts."""

BLOCK_BYTES = 2**25
"""Texts are read in blocks of about so many bytes."""

WORD = re.compile(r"\b\w\w+\b")

NONE = -1


@final
class Vocabulary:
    """Words, and pairs of neighbouring words, and in how many texts each was.

    Terms are those of scikit-learn's ``TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True,
    min_df=2)``, in the same order, and so are the rows.

    Attributes
    ----------
    texts : int
        How many texts were learnt from.
    words : str
        Each word that is part of a term, sorted by their code points, with line feeds between.
    terms : ndarray of int32, shape (terms, 2)
        Of each term, the numbers of its words; the second is -1 for a single word. Sorted.
    counts : ndarray of int32, shape (terms,)
        In how many texts each term was.

    Examples
    --------
    >>> import polars as pl
    >>> texts = pl.Series(["A good film", "a good, good book", "one book"])
    >>> vocabulary = Vocabulary.learn(texts)
    >>> vocabulary.names
    ['book', 'good']
    >>> vocabulary.encode(texts).toarray().astype(float).round(2).tolist()
    [[0.0, 1.0], [0.51, 0.86], [1.0, 0.0]]
    """

    def __init__(
        self,
        texts: int = 0,
        words: str = "",
        terms: NDArray[np.int32] | None = None,
        counts: NDArray[np.int32] | None = None,
    ) -> None:
        self.texts = texts
        self.words = words
        self.terms = np.empty((0, 2), np.int32) if terms is None else terms
        self.counts = np.empty(0, np.int32) if counts is None else counts
        self._check()

    def _check(self) -> None:
        """Raise ValueError for what contradicts itself."""
        words, first, second = self.words.split("\n"), *self.terms.T
        if len(self.words) and not all(words):
            raise ValueError("a word is empty")
        if not pl.Series(words, dtype=pl.String).is_sorted() or len(set(words)) < len(words):
            raise ValueError("the words are not sorted, or one is there twice")
        if len(self.terms) > MOST_TERMS or len(self.counts) != len(self.terms):
            raise ValueError(f"there are {len(self.terms):,} terms, {len(self.counts):,} counts")
        if len(self.terms) and not (
            first.min() >= 0
            and second.min() >= NONE
            and max(first.max(), second.max()) < len(words)
            and self.counts.min() >= 1
            and self.counts.max() <= self.texts
            and (np.diff(_keys(self.terms)) > 0).all()
        ):
            raise ValueError("its terms contradict its words or its texts")

    def __len__(self) -> int:
        return len(self.terms)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        mine, theirs = self.tensors(), other.tensors()
        return all(np.array_equal(mine[name], theirs[name]) for name in mine)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def learn(cls, texts: pl.Series) -> Vocabulary:
        """Return the terms of texts: those that are in two or more of them, at most 2^20.

        Parameters
        ----------
        texts : Series of strings
            None of them null.
        """
        learner = Learner()
        learner.add(texts)
        return learner.vocabulary()

    @property
    def names(self) -> list[str]:
        """Each term as a text: its word, or its two with a space between."""
        words = [*self.words.split("\n"), ""]
        return [
            f"{words[first]} {words[second]}" if second >= 0 else words[first]
            for first, second in self.terms.tolist()
        ]

    def commonest(self, most: int) -> list[str]:
        """Return the words that are in most texts, the commonest first."""
        words = self.words.split("\n")
        single = np.flatnonzero(self.terms[:, 1] < 0)
        best = single[np.argsort(-self.counts[single], kind="stable")[:most]]
        return [words[word] for word in self.terms[best, 0].tolist()]

    @cached_property
    def idf(self) -> NDArray[np.float64]:
        """What a term weighs: 1 if it is in every text, the more the fewer texts it is in."""
        idf: NDArray[np.float64] = np.log((1 + self.texts) / (1 + self.counts.astype(float))) + 1
        return idf

    def encode(self, texts: pl.Series) -> scipy.sparse.csr_array:
        """Return a row of length 1 for each text, float32; of no known term, a row of zeros.

        A term that is n times in a text has ``(1 + log n) * idf`` there, before rows are scaled.

        Parameters
        ----------
        texts : Series of strings
            None of them null.
        """
        import scipy.sparse

        from luce.data.ngrams import weigh, words_of

        words, unigrams, pairs = self._index
        shape, idf = len(self), self.idf
        parts = [scipy.sparse.csr_array((0, shape), dtype=np.float32)]
        for text, ends in _blocks(texts):
            found, stops, _ = words_of(text, ends, words, learn=False)
            rows = weigh(found, stops, unigrams, pairs, idf)
            parts.append(scipy.sparse.csr_array(rows, shape=(len(ends), shape)))
        return parts[-1] if len(parts) == 2 else scipy.sparse.vstack(parts, format="csr")

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """Return where a text has which term: begin, end and column."""
        small = text.lower()
        if len(small) != len(text):  # as a letter becomes two
            small = "".join(c if len(c.lower()) != 1 else c.lower() for c in text)
        words = [(match.start(), match.end()) for match in WORD.finditer(small)]
        ranges = [*words, *((first[0], second[1]) for first, second in pairwise(words))]
        spelled = [small[start:stop] for start, stop in words]
        terms = [*spelled, *map(" ".join, pairwise(spelled))]
        return [
            (start, stop, self._columns[term])
            for (start, stop), term in zip(ranges, terms, strict=True)
            if term in self._columns
        ]

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {term: column for column, term in enumerate(self.names)}

    @cached_property
    def _index(self) -> tuple[Words, NDArray[np.int32], Pairs]:
        """The words by their spelling, the column of each, and that of each pair."""
        from luce.data.ngrams import Pairs, add_words

        spelled = pl.Series(self.words.split("\n") if self.words else [], dtype=pl.String)
        words = add_words(*_utf8(spelled))
        columns = np.arange(len(self), dtype=np.int64)
        single = self.terms[:, 1] == NONE
        unigrams = np.full(len(spelled), NONE, np.int32)
        unigrams[self.terms[single, 0]] = columns[single]
        pairs = self.terms[~single].astype(np.int64)
        return words, unigrams, Pairs.of(pairs[:, 0] << 32 | pairs[:, 1], columns[~single])

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the vocabulary as arrays, for `from_tensors`."""
        return {
            "texts": np.array(self.texts, np.int64),
            "words": np.frombuffer(self.words.encode(), np.uint8),
            "terms": self.terms,
            "counts": self.counts,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """Return the vocabulary that `tensors` gave, after every part of it is checked.

        Raises
        ------
        ValueError
            If an array is missing or unknown, of another dtype or shape, or contradicts others.
        """
        expected = {"texts": ("int64", 0), "words": ("uint8", 1)}
        expected |= {"terms": ("int32", 2), "counts": ("int32", 1)}
        received = {name: (str(each.dtype), each.ndim) for name, each in tensors.items()}
        if received != expected or tensors["terms"].shape[1] != 2:
            raise ValueError(f"it needs {expected} of dtypes and dimensions, got {received}")
        return cls(
            texts=int(tensors["texts"]),
            words=tensors["words"].tobytes().decode(),
            terms=tensors["terms"],
            counts=tensors["counts"],
        )


@final
class Learner:
    """Learns a vocabulary from texts that come one after the other."""

    def __init__(self) -> None:
        from luce.data.ngrams import Counts, Words

        self._words, self._counts = Words.none(), Counts.none()

    def add(self, texts: pl.Series) -> None:
        """Count the terms of more texts, none of them null."""
        from luce.data.ngrams import count, words_of

        for text, ends in _blocks(texts):
            found, stops, self._words = words_of(text, ends, self._words, learn=True)
            self._counts = count(found, stops, self._words.known, self._counts)

    def vocabulary(self) -> Vocabulary:
        """Return the terms that are in two or more of the texts, at most 2^20."""
        words, counts = self._words, self._counts
        pairs = counts.pairs.keys >= 0
        keys = counts.pairs.keys[pairs]
        often = np.concatenate([counts.words, counts.pairs.values[pairs]]) >> 32
        terms = np.full((len(often), 2), NONE, np.int64)
        terms[: words.known, 0] = np.arange(words.known)
        terms[words.known :] = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)
        kept = np.flatnonzero(often >= LEAST_TEXTS)
        # The words that are used, and the place of each in their order.
        used = np.unique(terms[kept])
        used = used[used >= 0]
        spelled = _spelled(words, used)
        order = spelled.arg_sort().to_numpy()
        place = np.full(words.known + 1, NONE)  # one more for "no word", which is the last
        place[used[order]] = np.arange(len(used))
        terms, often = place[terms[kept]], often[kept]
        spelled = spelled.sort()
        order = np.argsort(_keys(terms))
        terms, often = terms[order], often[order]
        if len(terms) > MOST_TERMS:
            kept = np.sort(np.argsort(-often, kind="stable")[:MOST_TERMS])
            terms, often = terms[kept], often[kept]
            used = np.unique(terms[terms >= 0])
            place = np.full(len(spelled) + 1, NONE)
            place[used] = np.arange(len(used))
            terms, spelled = place[terms], spelled.gather(used)
        return Vocabulary(
            texts=counts.texts,
            words="\n".join(spelled.to_list()),
            terms=terms.astype(np.int32),
            counts=often.astype(np.int32),
        )


def _keys(terms: NDArray[Any]) -> NDArray[np.int64]:
    """Return a number for each term; they are in the order of the terms."""
    first, second = terms.astype(np.int64).T
    keys: NDArray[np.int64] = first << 32 | (second + 1)
    return keys


def _spelled(words: Words, chosen: NDArray[np.int64]) -> pl.Series:
    """Return the words of these numbers as strings."""
    pool = words.pool[: words.bounds[words.known]].tobytes()
    starts, stops = words.bounds[chosen].tolist(), words.bounds[chosen + 1].tolist()
    spelled = [pool[start:stop].decode() for start, stop in zip(starts, stops, strict=True)]
    return pl.Series(spelled, dtype=pl.String)


def _blocks(texts: pl.Series) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield texts end to end as UTF-8, with where each ends: as `luce.data.ngrams` takes them."""
    from luce.data.ngrams import LOWER_IN_PYTHON

    ends = texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK_BYTES)))
        block = texts[start:stop]
        if block.str.contains_any(LOWER_IN_PYTHON).any():
            block = pl.Series([text.lower() for text in block.to_list()], dtype=pl.String)
        yield _utf8(block)
        start = stop


def _utf8(texts: pl.Series) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return texts end to end, with where each ends."""
    whole = (texts.str.join("").item() or "") if len(texts) else ""
    ends = texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    return np.frombuffer(whole.encode(), np.uint8), ends.astype(np.int64)
