"""Texts as ONNX nodes: words, pairs of words, and how much of each term a text holds.

Standard ONNX cannot cut a text at whatever is no letter. ONNX Runtime can, by its own operator
``com.microsoft.Tokenizer``, with a regular expression of RE2; all else here is standard.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper
from spox import inline

from luce.data.columns.reading import missing
from luce.nodes import Entries, Var, constant, ml
from luce.nodes import strings as op

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.data.vocabulary import Vocabulary

__all__ = ["text_nodes"]

WORD = r"[\p{L}\p{N}_]{2,}"

MOST_LETTERS = 4
"""Of a word with more letters beyond ASCII, only the usual ways to write it are told apart."""


def text_nodes(text: Var, vocabulary: Vocabulary, *, indicator: bool) -> Entries:
    """Return texts, (rows, 1), as the entries of sparse rows of length 1; see `Vocabulary`."""
    gone = op.reshape(missing(text), constant([-1]))
    flat = op.where(gone, constant(""), op.reshape(text, constant([-1])))
    words = _numbers(_tokens(flat), vocabulary)
    rows, columns = _terms(words, vocabulary)
    # Each term of a row once, and how often it is there.
    width = len(vocabulary) + indicator
    size = constant(max(width, 1), np.int64)
    keys, _, _, often = op.unique(op.add(op.mul(rows, size), columns), sorted=1)
    rows = op.div(keys, size)
    columns = op.sub(keys, op.mul(rows, size))
    weight = op.gather(constant(vocabulary.idf.astype(np.float32)), columns)
    one = constant(1, np.float32)
    weight = op.mul(weight, op.add(one, op.log(op.cast(often, to=np.float32))))
    count = op.shape(flat)
    squares = _sums(count, rows, op.mul(weight, weight))
    values = op.div(weight, op.gather(op.sqrt(squares), rows))
    if indicator:
        empty = op.reshape(op.non_zero(gone), constant([-1]))
        last = op.expand(constant(width - 1, np.int64), op.shape(empty))
        ones = op.expand(one, op.shape(empty))
        rows, columns, values = (
            op.concat(pair, axis=0) for pair in ((rows, empty), (columns, last), (values, ones))
        )
    return Entries(rows, columns, values, width)


def _tokens(text: Var) -> Var:
    """Return the words of texts, (rows, most words), in small ASCII letters, "" for none."""
    node = helper.make_node(
        "Tokenizer",
        ["text"],
        ["tokens"],
        domain="com.microsoft",
        mark=0,
        mincharnum=1,
        pad_value="",
        tokenexp=WORD,
    )
    graph = helper.make_graph(
        [node],
        "words",
        [helper.make_tensor_value_info("text", TensorProto.STRING, ["rows"])],
        [helper.make_tensor_value_info("tokens", TensorProto.STRING, ["rows", "words"])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    # A text more, of one word: of no text and of empty ones nothing is made otherwise.
    more = op.concat([text, constant(["aa"])], axis=0)
    (tokens,) = inline(helper.make_model(graph, opset_imports=opsets))(text=more).values()
    # The locale "C" is everywhere, and knows the letters of ASCII alone.
    small = op.string_normalizer(
        op.reshape(tokens, constant([-1])),
        case_change_action="LOWER",
        is_case_sensitive=1,
        locale="C",
    )
    both = op.reshape(small, op.shape(tokens))
    return op.slice(both, constant([0]), constant([-1]), constant([0]))


def _numbers(tokens: Var, vocabulary: Vocabulary) -> Var:
    """Return the number of each word, -1 for none that is known."""
    words = vocabulary.words.split("\n") if vocabulary.words else []
    known = {word: number for number, word in enumerate(words)}
    for number, word in enumerate(words):
        if not word.isascii():
            for way in _ways(word):
                known.setdefault(way, number)
    known = known or {"\n": -1}  # which no word is
    return ml.label_encoder(
        tokens,
        keys_strings=list(known),
        values_int64s=list(known.values()),
        default_int64=-1,
    )


def _ways(word: str) -> Iterator[str]:
    """Yield how a word may be written with capitals beyond ASCII, all of its ASCII letters small.

    Examples
    --------
    >>> sorted(_ways("über"))
    ['Über', 'über']
    """
    choices = [{c, c if c.isascii() else c.upper()} for c in word]
    if sum(len(each) > 1 for each in choices) <= MOST_LETTERS:
        found = {"".join(letters) for letters in itertools.product(*choices)}
    else:
        found = {word, word.upper(), word[0].upper() + word[1:]}
    for way in found:
        if way.lower() == word:
            yield "".join(c.lower() if c.isascii() else c for c in way)


def _terms(words: Var, vocabulary: Vocabulary) -> tuple[Var, Var]:
    """Return row and column of each word and pair of neighbours that is a term."""
    terms = vocabulary.terms.astype(np.int64)
    single = terms[:, 1] < 0
    count = int(terms.max(initial=0)) + 1
    column = np.full(count + 1, -1, np.int64)  # the last is for what is no word
    column[terms[single, 0]] = np.flatnonzero(single)
    none = constant(count, np.int64)
    known = op.where(op.less(words, constant(0, np.int64)), none, words)
    found = [op.gather(constant(column), known)]
    if not single.all():
        # A text of no word has no column to take away.
        before = op.slice(known, constant([0]), constant([-1]), constant([1]))
        after = op.slice(known, constant([1]), constant([2**31 - 1]), constant([1]))
        keys = op.add(op.mul(before, constant(count + 1, np.int64)), after)
        pairs = terms[~single, 0] * (count + 1) + terms[~single, 1]
        found.append(
            ml.label_encoder(
                keys,
                keys_int64s=pairs.tolist(),
                values_int64s=np.flatnonzero(~single).tolist(),
                default_int64=-1,
            )
        )
    whole = found[0] if len(found) == 1 else op.concat(found, axis=1)
    where = op.non_zero(op.greater_or_equal(whole, constant(0, np.int64)))
    rows = op.reshape(op.slice(where, constant([0]), constant([1]), constant([0])), constant([-1]))
    return rows, op.gather_nd(whole, op.transpose(where, perm=[1, 0]))


def _sums(count: Var, rows: Var, values: Var) -> Var:
    """Return the sum of the values of each of `count` rows."""
    start = op.expand(constant(0, np.float32), count)
    return op.scatter_elements(start, rows, values, axis=0, reduction="add")
