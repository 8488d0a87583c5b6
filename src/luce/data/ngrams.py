r"""Words and pairs of words of many texts: Numba kernels over UTF-8.

A word is what ``\b\w\w+\b`` finds in the text in small letters, as Python has both: two or more
letters, digits or underscores. Each different word gets a number, in the order in which they come;
a pair of neighbours is two numbers. No word is ever a Python object.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Counts", "Pairs", "Words", "add_words", "count", "letters", "weigh", "words_of"]

LOWER_IN_PYTHON = ["\u0130", "\u03a3"]
"""The letters that a table of small letters cannot say: İ becomes two, and Σ depends on the place.

A text with one of them has to come in small letters already.
"""

_NOT_ASCII = 0xFF
_EMPTY, _FIRST, _FACTOR = -1, 0x4BF29CE484222325, 0x100000001B3  # of an FNV hash


F = TypeVar("F", bound="Callable[..., Any]")


def kernel(function: F) -> F:
    """Compile at first use; keep the machine code on disk where there is a place for it.

    As `luce.kernels.cpu.compile` does, which would load PyTorch; nobody here needs that.
    """
    try:
        return cast("F", numba.njit(nogil=True, error_model="numpy", cache=True)(function))
    except RuntimeError:  # "cannot cache function: no locator available"
        return part(function)


def part(function: F) -> F:
    """Compile a part of kernels."""
    return cast("F", numba.njit(nogil=True, error_model="numpy")(function))


@cache
def letters() -> NDArray[np.int32]:
    """Return for each code point its small letter, or 0 if that belongs to no word."""
    points = np.arange(0x110000, dtype="<u4")
    points[[ord(letter) for letter in LOWER_IN_PYTHON]] = [ord("i"), ord("\u03c3")]
    text = points.tobytes().decode("utf-32-le", "surrogatepass").lower()
    small = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").copy()
    inside = np.char.isalnum(small.view("<U1")) | (small == ord("_"))
    return np.where(inside, small, 0).astype(np.int32)


class Words(NamedTuple):
    """Different words, each by its number.

    Attributes
    ----------
    pool : ndarray of uint8
        Their UTF-8, end to end; there may be room behind.
    bounds : ndarray of int64
        Where each begins; one more says where the last ends. There may be room behind.
    hashes : ndarray of int64
        With room behind.
    slots : ndarray of int64
        By the hash: its upper half and the number, or -1 where there is none. A power of two long.
    known : int
        How many words there are.
    """

    pool: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    hashes: NDArray[np.int64]
    slots: NDArray[np.int64]
    known: int

    @classmethod
    def none(cls) -> Words:
        """Return no words."""
        return cls(
            np.empty(0, np.uint8),
            np.zeros(1, np.int64),
            np.empty(0, np.int64),
            np.full(1, _EMPTY, np.int64),
            0,
        )


@part
def _slot(slots, bounds, pool, code, letters, start, stop):
    """Return the slot of the word letters[start:stop], or the free one that is to be its own."""
    at = code & (len(slots) - 1)
    while slots[at] != _EMPTY:
        if (slots[at] ^ code) >> 32 == 0:
            begin = bounds[slots[at] & 0xFFFFFFFF]
            if bounds[(slots[at] & 0xFFFFFFFF) + 1] - begin == stop - start:
                j = 0
                while j < stop - start and pool[begin + j] == letters[start + j]:
                    j += 1
                if j == stop - start:
                    break
        at = (at + 1) & (len(slots) - 1)
    return at


@part
def _entry(code, word):
    return (code >> 32) << 32 | word


@part
def _mixed(code):
    return code ^ (code >> 32) ^ (code >> 15)


@kernel
def _words_of(  # noqa: C901, PLR0912 - one loop over bytes, which calls would only hide
    text, ends, small, plain, learn, own, pool, bounds, hashes, slots, known, first, found, stops
):
    """Go on from text `first` as long as there is room; return the next text, and known words.

    A word is first written to `own`: only one that is learnt changes what the words are.
    """
    total = stops[first - 1] if first else 0
    start = ends[first - 1] if first else 0
    for d in range(first, len(ends)):
        end = ends[d]
        if learn and known + (end - start) // 3 + 1 > len(hashes):
            return d, known
        i = start
        while i < end:
            at, code, length = 0, _FIRST, 0
            while i < end:
                letter = np.int64(plain[text[i]])
                more = 0
                if letter == _NOT_ASCII:
                    letter = np.int64(text[i])
                    more = 1 + (letter >= 0xE0) + (letter >= 0xF0)
                    letter &= 0x3F >> more
                    for j in range(1, more + 1):
                        letter = (letter << 6) | np.int64(text[i + j] & 0x3F)
                    letter = np.int64(small[letter])
                i += 1 + more
                if not letter:
                    break
                if letter < 0x80:
                    own[at] = letter
                    at += 1
                else:
                    more = 1 + (letter >= 0x800) + (letter >= 0x10000)
                    own[at] = (0xFF << (7 - more)) & 0xFF | (letter >> (6 * more))
                    for j in range(1, more + 1):
                        own[at + j] = 0x80 | ((letter >> (6 * (more - j))) & 0x3F)
                    at += 1 + more
                code = (code ^ letter) * _FACTOR
                length += 1
            if length < 2:
                continue
            code = _mixed(code)
            slot = _slot(slots, bounds, pool, code, own, 0, at)
            word = slots[slot]
            if word != _EMPTY:
                word &= 0xFFFFFFFF
            elif learn:
                word = known
                slots[slot] = _entry(code, word)
                hashes[word] = code
                begin = bounds[known]
                for j in range(at):
                    pool[begin + j] = own[j]
                known += 1
                bounds[known] = begin + at
            found[total] = word
            total += 1
        stops[d] = total
        start = end
    return len(ends), known


@kernel
def _rehash(hashes, known, slots):
    for word in range(known):
        at = hashes[word] & (len(slots) - 1)
        while slots[at] != _EMPTY:
            at = (at + 1) & (len(slots) - 1)
        slots[at] = _entry(hashes[word], word)


def _with_room(words: Words, more_words: int, more_bytes: int) -> Words:
    """Return the words with room for so many more."""
    known = words.known
    used = int(words.bounds[known])
    pool, bounds, hashes, slots = words.pool, words.bounds, words.hashes, words.slots
    if used + more_bytes > len(pool):
        pool = np.empty(used + more_bytes, np.uint8)
        pool[:used] = words.pool[:used]
    if known + more_words > len(hashes):
        size = max(known + more_words, 2 * len(hashes))
        hashes, bounds = np.empty(size, np.int64), np.empty(size + 1, np.int64)
        hashes[:known], bounds[: known + 1] = words.hashes[:known], words.bounds[: known + 1]
        slots = np.full(1 << (2 * size - 1).bit_length(), _EMPTY, np.int64)
        _rehash(hashes, known, slots)
    return Words(pool, bounds, hashes, slots, known)


def words_of(
    text: NDArray[np.uint8], ends: NDArray[np.int64], words: Words, *, learn: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64], Words]:
    """Return the number of each word of each text, where each text's end, and the words.

    Parameters
    ----------
    text : ndarray of uint8
        UTF-8, valid; none of the letters of `LOWER_IN_PYTHON`.
    ends : ndarray of int64
        Where each text ends.
    words : Words
        Those that have a number.
    learn : bool
        Whether others get one; else theirs is -1.
    """
    found = np.empty((len(text) + len(ends)) // 3 + 1, np.int32)
    stops = np.empty(len(ends), np.int64)
    small, plain = letters(), np.full(256, _NOT_ASCII, np.uint8)
    plain[:128] = small[:128]
    # A small letter may take half as many bytes more.
    own, done = np.empty(2 * len(text) + 4, np.uint8), 0
    while done < len(ends):
        start = int(ends[done - 1]) if done else 0
        if learn:
            words = _with_room(words, int(ends[done] - start) // 3 + 1, 2 * (len(text) - start))
        done, known = _words_of(text, ends, small, plain, learn, own, *words, done, found, stops)
        words = words._replace(known=known)
    return found[: stops[-1] if len(stops) else 0], stops, words


@kernel
def _add_words(text, ends, pool, bounds, hashes, slots, known):
    """Add the words as they are. Their hashes are of code points, as those of `_words_of`."""
    start, begin = 0, bounds[known]
    for w in range(len(ends)):
        code, letter = _FIRST, 0
        for i in range(start, ends[w]):
            byte = np.int64(text[i])
            pool[begin + i - start] = byte
            if byte & 0xC0 == 0x80:
                letter = (letter << 6) | (byte & 0x3F)
            else:
                more = (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
                letter = byte & (0x3F >> more) if more else byte
            if i + 1 == ends[w] or text[i + 1] & 0xC0 != 0x80:
                code = (code ^ letter) * _FACTOR
        code, stop = _mixed(code), begin + ends[w] - start
        slots[_slot(slots, bounds, pool, code, pool, begin, stop)] = _entry(code, known)
        hashes[known] = code
        known += 1
        bounds[known] = begin = stop
        start = ends[w]
    return known


def add_words(text: NDArray[np.uint8], ends: NDArray[np.int64]) -> Words:
    """Return words that are given as they are, all different; they are numbered in their order."""
    words = _with_room(Words.none(), len(ends), len(text))
    return words._replace(known=_add_words(text, ends, *words))


class Pairs(NamedTuple):
    """Pairs of numbers, each with a number of its own: a table by their hashes.

    Attributes
    ----------
    keys : ndarray of int64, a power of two long
        ``first << 32 | second``, or -1 where there is none.
    values : ndarray of int64
        As long.
    known : int
        How many pairs there are.
    """

    keys: NDArray[np.int64]
    values: NDArray[np.int64]
    known: int

    @classmethod
    def none(cls) -> Pairs:
        """Return no pairs."""
        return cls(np.full(16, _EMPTY, np.int64), np.empty(16, np.int64), 0)

    @classmethod
    def of(cls, keys: NDArray[np.int64], values: NDArray[np.int64], most: int = 0) -> Pairs:
        """Return different pairs with these values, and room for `most` of them."""
        size = 1 << (2 * max(len(keys), most, 8) - 1).bit_length()
        pairs = cls(np.full(size, _EMPTY, np.int64), np.empty(size, np.int64), len(keys))
        _add_pairs(pairs.keys, pairs.values, keys, values)
        return pairs


@part
def _place(keys, key):
    code = key * 0x1E3779B97F4A7C15
    at = (code ^ (code >> 32)) & (len(keys) - 1)
    while keys[at] != key and keys[at] >= 0:
        at = (at + 1) & (len(keys) - 1)
    return at


@kernel
def _add_pairs(keys, values, added, theirs):
    for i in range(len(added)):
        at = _place(keys, added[i])
        keys[at] = added[i]
        values[at] = theirs[i]


class Counts(NamedTuple):
    """In how many texts each word and each pair is.

    Attributes
    ----------
    texts : int
        How many texts there are.
    words : ndarray of int64
        Of each word, the texts that it is in, and the last of them: ``texts << 32 | last``.
    pairs : Pairs
        The same of each pair.
    """

    texts: int
    words: NDArray[np.int64]
    pairs: Pairs

    @classmethod
    def none(cls) -> Counts:
        """Return the counts of no text."""
        return cls(0, np.zeros(0, np.int64), Pairs.none())


@part
def _counted(value, text):
    if value & 0xFFFFFFFF == text:
        return value
    return (((value >> 32) + 1) << 32) | text


@kernel
def _count(found, stops, texts, words, first, keys, values, known):
    """Go on from text `first` as long as there is room; return the next text, and known pairs."""
    start = stops[first - 1] if first else 0
    for d in range(first, len(stops)):
        if 2 * (known + stops[d] - start) > len(keys):
            return d, known
        text, before = texts + d, np.int64(-1)
        for i in range(start, stops[d]):
            word = np.int64(found[i])
            words[word] = _counted(words[word], text)
            if before >= 0:
                key = before << 32 | word
                at = _place(keys, key)
                if keys[at] < 0:
                    keys[at] = key
                    values[at] = 0
                    known += 1
                values[at] = _counted(values[at], text)
            before = word
        start = stops[d]
    return len(stops), known


def count(found: NDArray[np.int32], stops: NDArray[np.int64], known: int, counts: Counts) -> Counts:
    """Return the counts with those of more texts, given as `words_of` returns them.

    Parameters
    ----------
    found, stops : ndarray
        All words have a number.
    known : int
        How many words have a number.
    counts : Counts
        What has been counted until now.
    """
    words = np.zeros(known, np.int64)
    words[: len(counts.words)] = counts.words
    pairs, done = counts.pairs, 0
    # Texts are numbered from 1: the last of a new term is none.
    first = counts.texts + 1
    while done < len(stops):
        done, known = _count(found, stops, first, words, done, *pairs)
        pairs = pairs._replace(known=known)
        if done < len(stops):
            size = int(stops[done] - (stops[done - 1] if done else 0))
            there = pairs.keys >= 0
            pairs = Pairs.of(pairs.keys[there], pairs.values[there], 2 * (known + size))
    return Counts(counts.texts + len(stops), words, pairs)


@part
def _column_of_pair(keys, values, before, word):
    if before < 0 or word < 0:
        return np.int64(-1)
    at = _place(keys, before << 32 | word)
    return values[at] if keys[at] >= 0 else np.int64(-1)


@kernel
def _weigh(found, stops, unigrams, keys, values, weights, often, indptr, indices, data):
    start, stored = 0, 0
    for d in range(len(stops)):
        first = stored
        before = np.int64(-1)
        for i in range(start, stops[d]):
            word = np.int64(found[i])
            single = np.int64(unigrams[word]) if word >= 0 else np.int64(-1)
            for column in (single, _column_of_pair(keys, values, before, word)):
                if column >= 0:
                    if often[column] == 0:
                        indices[stored] = column
                        stored += 1
                    often[column] += 1
            before = word
        total = 0.0
        for at in range(first, stored):
            column = indices[at]
            weight = weights[column]
            if often[column] > 1:
                weight *= 1 + math.log(often[column])
            often[column] = 0
            total += weight * weight
            data[at] = weight
        length = math.sqrt(total)
        for at in range(first, stored):
            data[at] /= length
        indptr[d + 1] = stored
        start = stops[d]


def weigh(
    found: NDArray[np.int32],
    stops: NDArray[np.int64],
    unigrams: NDArray[np.int32],
    pairs: Pairs,
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """Return data, indices and indptr of sparse rows of length 1; those of no term are empty.

    A term that is there n times weighs ``(1 + log n)`` times its weight. The columns of a row
    come in the order in which their terms do.

    Parameters
    ----------
    found, stops : ndarray
        As `words_of` returns them.
    unigrams : ndarray of int32
        The column of each word, -1 for none.
    pairs : Pairs
        The column of each pair.
    weights : ndarray of float64
        Of each column.
    """
    indptr = np.zeros(len(stops) + 1, np.int64)
    indices, data = np.empty(2 * len(found), np.int32), np.empty(2 * len(found), np.float32)
    often = np.zeros(len(weights), np.int32)
    _weigh(found, stops, unigrams, pairs.keys, pairs.values, weights, often, indptr, indices, data)
    return data[: indptr[-1]], indices[: indptr[-1]], indptr
