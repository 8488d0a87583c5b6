"""Columns of text: which columns they are, their terms and rows, and what is stored of them."""

import tracemalloc

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from luce.data import ngrams, read_schema, vocabulary
from luce.data.arrays import ArraySchema
from luce.data.columns import infer
from luce.data.columns.text import Text
from luce.data.tables import TableSchema
from luce.data.vocabulary import Vocabulary
from luce.errors import DataError, RunError

# Letters of one to four bytes, capitals that grow or shrink, marks that end a word, numerals.
LETTERS = st.sampled_from([*"aAbZ09_ .-\n\0'", *"éÉßẞİıΣσςΚ\u0301²½Ⅷ中文あ한Ⱥ🦊𝐀𐐀𐐨"])
WORDS = st.sampled_from(
    ["good", "Good", "GOOD FILM", "bad film", "ΟΔΟΣ", "İstanbul", "x", "的 电影"]
)
TEXTS = st.lists(
    st.one_of(st.text(LETTERS, max_size=12), st.lists(WORDS, max_size=6).map(" ".join), st.text()),
    min_size=1,
    max_size=12,
)


def theirs(**more):
    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, **more)


@settings(max_examples=300, deadline=None)
@given(TEXTS.filter(lambda texts: all(text.isprintable() or "\n" in text for text in texts)))
@example(["ΑΣ ΑΣ. ΣΑ", "ας ΑΣΣΑ as", "İi i̇i", "K\u212a \u212ak"])
@example(["a\u0301b ab", "ab\u200dcd ab cd", "½¾ ½¾"])
def test_terms_and_rows_are_those_of_scikit_learn(texts):
    """Whatever the script, terms, their order and the rows are TfidfVectorizer's."""
    ours = Vocabulary.learn(pl.Series(texts, dtype=pl.String))
    vectorizer = theirs()
    try:
        rows = vectorizer.fit_transform(texts)
    except ValueError:  # it refuses an empty vocabulary
        assert len(ours) == 0
        return
    assert ours.names == vectorizer.get_feature_names_out().tolist()
    mine = ours.encode(pl.Series(texts, dtype=pl.String))
    np.testing.assert_allclose(mine.toarray(), rows.toarray(), atol=1e-6)


def test_every_letter_is_small_as_python_has_it():
    """The table has the small letter of every code point but the two that a table cannot say."""
    table = ngrams.letters()
    for point in range(0x110000):
        letter = chr(point)
        small = letter.lower()
        if letter in ngrams.LOWER_IN_PYTHON:
            continue
        assert len(small) == 1
        assert table[point] == (ord(small) if small.isalnum() or small == "_" else 0), hex(point)


def test_rows_of_other_texts_are_those_of_scikit_learn(monkeypatch):
    """Texts that were not learnt from, in blocks of a few, have the rows of TfidfVectorizer too."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}é" if i % 3 else f"W{i}" for i in range(400)])
    texts = [" ".join(rng.choice(words, rng.integers(0, 60))) for _ in range(600)]
    monkeypatch.setattr(vocabulary, "BLOCK_BYTES", 2_000)
    vectorizer = theirs().fit(texts[:300])
    ours = Vocabulary.learn(pl.Series(texts[:300]))
    assert ours.names == vectorizer.get_feature_names_out().tolist()
    mine = ours.encode(pl.Series(texts))
    np.testing.assert_allclose(mine.toarray(), vectorizer.transform(texts).toarray(), atol=1e-6)


def test_a_very_long_text_is_a_row_like_others():
    """A text of megabytes, without a blank or of blanks alone, costs its length and no more."""
    texts = pl.Series(["ab" * 2_000_000, " " * 4_000_000, "ab cd " * 500_000, "ab cd"])
    rows = Vocabulary.learn(texts).encode(texts)
    assert rows.sum(axis=1).tolist()[:2] == [0, 0]
    assert rows.shape == (4, 3)  # ab, ab cd, cd; "cd ab" is in one text alone


def test_of_too_many_terms_the_commonest_are_kept(monkeypatch):
    """Where there are more terms than allowed, those are kept that are in the most texts."""
    monkeypatch.setattr(vocabulary, "MOST_TERMS", 2)
    ours = Vocabulary.learn(pl.Series(["one two", "one two three", "one three", "one"]))
    assert ours.names == ["one", "one two"]
    assert ours.counts.tolist() == [4, 2]


SENTENCES = [f"the film number {i} was {'good' if i % 2 else 'bad'} all in all" for i in range(40)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (SENTENCES, "text"),
        ([f"Mr. Owen {i} Harris" for i in range(40)], "left out"),
        ([f"https://example.org/a/{i}" for i in range(40)], "left out"),
        ([f"{i}-{i}-{i} {i}" for i in range(40)], "left out"),
        ([f"{i} {i} {i} {i} {i} {i}" for i in range(40)], "left out"),
        (["a rather long name of one of two categories"] * 20 + ["another"] * 20, "category"),
        ([*SENTENCES, None, "", "NA"], "text"),
    ],
)
def test_texts_are_inferred(values, kind):
    """Sentences are text; names, addresses, identifiers and few values that repeat are not."""
    (column,) = infer([pl.Series("x", values)])
    assert column.kind == kind


def fitted(frame):
    return TableSchema.infer(frame).fit(frame)


def test_missing_texts_numbers_and_emoji_have_rows():
    """A missing text has no words and says so; numbers and emoji in between are texts too."""
    frame = pl.DataFrame(
        {"remark": [*SENTENCES, None, "", "3.5", "🦊🦊 🎉", "12 good"], "n": range(45)}
    )
    schema = fitted(frame)
    rows, handled = schema.encode(frame)
    names = schema.feature_names
    assert rows[40, names.index("remark missing")] == rows[41, names.index("remark missing")] == 1
    assert np.isfinite(rows.data).all()
    assert handled == {
        "missing value in 'remark', treated as no words": 2,
        "text in 'remark' of which no word is known": 2,
    }
    assert rows[44, names.index("remark: good")] > 0


def test_a_text_column_stands_beside_others():
    """Numbers and categories keep their encoding, and the text's part is that of its vocabulary."""
    frame = pl.DataFrame({"n": range(40), "remark": SENTENCES, "c": list("ab") * 20})
    rows, _ = fitted(frame).encode(frame)
    dense, _ = fitted(frame.drop("remark")).encode(frame.drop("remark"))
    whole = rows.toarray()
    np.testing.assert_array_equal(whole[:, [0, -2, -1]], dense)
    np.testing.assert_allclose(np.linalg.norm(whole[:, 1:-2], axis=1), 1, rtol=1e-6)


def test_texts_without_a_common_word_are_refused():
    """Where no word is in two rows and there is nothing else, the sentence says so."""
    texts = [
        " ".join(f"{chr(97 + i)}{chr(97 + i)}{chr(97 + j)}" for j in range(6)) for i in range(20)
    ]
    with pytest.raises(DataError, match=r"nothing to learn from in 'x': no word is in two"):
        fitted(pl.DataFrame({"x": texts}))


def test_a_column_of_missing_texts_is_left_out_with_its_reason():
    """A column that is empty in every row is named when nothing else is there."""
    with pytest.raises(DataError, match=r"'x': every value is missing"):
        TableSchema.infer(pl.DataFrame({"x": ["", None, "NA"]}))


def test_the_schema_comes_back_from_json_and_tensors():
    """schema.json has no terms, the tensors have them, and both together are the schema."""
    schema = fitted(pl.DataFrame({"n": range(40), "remark": SENTENCES}))
    assert "film" not in str(schema.to_json())
    assert read_schema(schema.to_json(), schema.tensors()) == schema


def changed(tensors, **changes):
    tensors = dict(tensors)
    for name, value in changes.items():
        tensors[f"0.{name}"] = value
    return tensors


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"texts": np.array(1)}, "contradict"),
        ({"words": np.frombuffer(b"\xff\xfe", np.uint8)}, "decode"),
        ({"words": np.frombuffer(b"b\na", np.uint8)}, "sorted"),
        ({"words": np.frombuffer(b"a\n\nb", np.uint8)}, "empty"),
        ({"terms": np.zeros((3, 2), np.int64)}, "dtypes"),
        ({"terms": np.zeros((3, 3), np.int32)}, "dtypes"),
        ({"terms": np.full((3, 2), 99, np.int32)}, "counts"),
        ({"counts": np.zeros(2, np.int32)}, "counts"),
        ({"more": np.zeros(2)}, "dtypes"),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(changes, said):
    """Whatever is changed in the stored arrays, one sentence names the file and the column."""
    schema = fitted(pl.DataFrame({"remark": SENTENCES}))
    with pytest.raises(RunError, match=rf"schema\.safetensors cannot be used: .*'remark'.*{said}"):
        read_schema(schema.to_json(), changed(schema.tensors(), **changes))


def test_tensors_of_no_text_are_refused():
    """Tensors of a column that has none, or that there is not, are refused."""
    frame = pl.DataFrame({"n": range(40)})
    schema = fitted(frame)
    for name in ("0.words", "7.words", "words"):
        with pytest.raises(RunError, match=r"schema\.safetensors"):
            read_schema(schema.to_json(), {name: np.zeros(1)})
    arrays = ArraySchema(columns=2)
    with pytest.raises(RunError, match=r"schema\.safetensors"):
        read_schema(arrays.to_json(), {"0.words": np.zeros(1)})


def test_spans_are_where_the_terms_are():
    """A text's terms are found where they stand, also where a small letter is two."""
    text = "A Good, good film in İSTANBUL; bad"
    vocabulary = Vocabulary.learn(pl.Series([text, text]))
    found = {(text[start:stop], vocabulary.names[at]) for start, stop, at in vocabulary.spans(text)}
    assert {("Good", "good"), ("good", "good"), ("good film", "good film"), ("bad", "bad")} <= found
    column = Text(name="x", vocabulary=vocabulary)
    assert column.spans("nothing of it") == [] or column.in_parts


def test_words_that_no_kept_term_has_are_dropped(monkeypatch):
    """Where terms are cut, so are the words that are only in those: each word is part of a term."""
    monkeypatch.setattr(vocabulary, "MOST_TERMS", 2)
    texts = pl.Series(["aa zz", "bb zz", "aa bb zz", "bb yy zz", "yy aa zz"])
    learnt = Vocabulary.learn(texts)
    assert learnt.names == ["aa", "zz"]
    assert learnt.words == "aa\nzz"
    assert learnt.encode(texts).shape == (5, 2)


def test_known_words_are_not_copied_to_read_texts():
    """Texts are encoded with the words as they are: an encoding allocates for its text alone."""
    words = pl.Series([f"word{i} word{i}" for i in range(50_000)])
    learnt = Vocabulary.learn(pl.concat([words, words]))
    text = pl.Series(["word7 word9"])
    learnt.encode(text)
    tracemalloc.start()
    learnt.encode(text)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The column counts take 4 bytes for each term; the words are twice as much, the weights too.
    assert most < 6 * len(learnt)
