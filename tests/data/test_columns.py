"""Kinds of columns: what is stored of them, which claims a column, dense and sparse rows."""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse

import luce
from luce.data import columns, read_schema
from luce.data.columns import KINDS, Column, infer, read_column, stacks
from luce.data.columns.category import Category
from luce.data.directions import Directions
from luce.data.tables import TableSchema
from luce.errors import DataError, RunError


@dataclass(frozen=True, kw_only=True)
class Words(Column):
    """Which words a text has, as sparse rows; those of the training rows have a column each."""

    kind, plural, sparse = "words", "texts", True
    words: tuple[str, ...] = ()

    @classmethod
    def infer(cls, seen):
        return cls(name=seen.name) if seen.texts.str.contains(" ").any() else None

    @classmethod
    def fit(cls, columns, values, _normalise):
        rows = len(values) // len(columns)
        for i, column in enumerate(columns):
            words = " ".join(values[i * rows : (i + 1) * rows].drop_nulls()).split()
            yield replace(column, words=tuple(sorted(set(words))))

    @classmethod
    def encode(cls, columns, values, _out, _handled):
        texts = np.array(values.fill_null("").to_list(), object).reshape(len(columns), -1)
        rows = []
        for column, own in zip(columns, texts, strict=True):
            has = [[float(word in text.split()) for word in column.words] for text in own]
            rows.append(scipy.sparse.csr_array(np.reshape(has, (len(own), column.width))))
        return rows

    @property
    def names(self):
        return [f"{self.name}: {word}" for word in self.words]


@pytest.fixture
def words(monkeypatch):
    """Let inference ask for words before anything else."""
    monkeypatch.setattr(columns, "KINDS", {"words": Words, **KINDS})


def talk(rows):
    """Return texts beside numbers and categories, and labels that follow from a word."""
    rng = np.random.default_rng(0)
    said = rng.choice(["good", "bad", "so so"], rows)
    return pl.DataFrame(
        {
            "x": rng.normal(size=rows),
            "said": [f"it was {word}, {i % 7} times" for i, word in enumerate(said)],
            "c": rng.choice(["u", "v"], rows),
            "heard": rng.choice(["of a thing", "of none", ""], rows),
            "y": np.where(said == "good", "yes", "no"),
        }
    )


def test_the_first_kind_that_claims_a_column_has_it(words):
    """Kinds are asked in the order of the dict, and what none claims is left out."""
    frame = talk(40).with_columns(free=pl.Series([f"remark{i}" for i in range(40)]))
    kinds = [column.kind for column in infer(frame.get_columns())]
    assert kinds == ["number", "words", "category", "words", "boolean", "left out"]


def test_a_table_with_a_sparse_column_is_encoded_to_sparse_rows(words):
    """The rows are those that the columns give one by one, side by side in their order."""
    frame = talk(40).drop("y")
    schema = TableSchema.infer(frame).fit(frame)
    encoded, _ = schema.encode(frame)
    assert scipy.sparse.issparse(encoded)
    assert encoded.dtype == np.float32
    assert encoded.shape == (40, len(schema.feature_names))
    alone = []
    for name in frame.columns:
        own = frame.select(name)
        part, _ = TableSchema.infer(own).fit(own).encode(own)
        alone.append(part.toarray() if scipy.sparse.issparse(part) else part)
    np.testing.assert_array_equal(encoded.toarray(), np.hstack(alone))
    none, _ = schema.encode(frame.head(0))
    assert scipy.sparse.issparse(none)
    assert none.shape == (0, encoded.shape[1])


def test_softmax_regression_learns_from_sparse_columns(words, tmp_path):
    """Trained, reported on, stored and loaded, the rows stay sparse and predict the same."""
    table = talk(400)
    run = luce.train(table, target="y", model="linear", out=tmp_path)
    again = luce.load_run(run.path)
    assert again.schema == run.schema
    assert run.metrics["test"]["accuracy"] > 0.99
    np.testing.assert_array_equal(again.predict_proba(table), run.predict_proba(table))
    importance = again.report(talk(400).reverse()).summary["importance"]
    assert importance["columns"][0]["name"] == "said"


def test_schemas_of_the_first_runs_encode_to_the_same_bits():
    """A schema that was stored before kinds had classes gives the very numbers that it gave."""
    stored = json.loads(Path(__file__).with_name("first_schema.json").read_text())
    schema = read_schema(stored["schema"])
    assert {column.kind for column in schema.columns} == set(KINDS) - {"text"}  # which came later
    expected = [[float.fromhex(value) for value in row] for row in stored["encoded"]]
    encoded, handled = schema.encode(pl.DataFrame(stored["rows"]))
    np.testing.assert_array_equal(encoded, np.array(expected, np.float32))
    assert handled == stored["handled"]
    assert read_schema(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "os.system"}, "a column's kind must be one of left out, number, .*'os.system'"),
        ({"fill": "3"}, r"column 'x': Expected `float`, got `str` - at `\$\.fill`"),
        ({"fill": 1e39}, r"column 'x': Expected `float` <= .* - at `\$\.fill`"),
        ({"mean": float("nan")}, r"column 'x': Expected `float` >= .* - at `\$\.mean`"),
        ({"scale": 0.0}, r"column 'x': Expected `float` > 0\.0 - at `\$\.scale`"),
        ({"indicator": 1}, r"column 'x': Expected `bool`, got `int`"),
        ({"categories": ["u"]}, "column 'x': missing none; unknown 'categories'"),
        ({"kind": "category"}, "column 'x': missing 'categories', 'other'; unknown 'fill'"),
        ({"kind": "date", "format": "%s", "time": False}, "column 'x': a date's format is unknown"),
    ],
)
def test_a_stored_column_is_refused_by_name_and_field(change, message):
    """The message says which column, which of its fields, and what was expected of it."""
    (column,) = infer([pl.Series("x", [1.5, 2.5, 4.0])])
    # As the first runs wrote a column, of whichever kind.
    body = {k: v for k, v in column.to_json().items() if k not in column.added}
    with pytest.raises(RunError, match=rf"schema\.json cannot be used: {message}"):
        read_column({**body, "fill": 2.0, **change})


def test_a_category_is_stored_once():
    """What contradicts itself is refused, whichever its kind."""
    body = {"kind": "category", "name": "c", "note": "", "other": False, "indicator": False}
    assert read_column({**body, "categories": ["u", "v"]}).names == ["c=u", "c=v"]
    with pytest.raises(RunError, match="column 'c': a category is there twice"):
        read_column({**body, "categories": ["u", "u"]})
    with pytest.raises(RunError, match=r"column 'c': Expected `array` of length <= 65536"):
        read_column({**body, "categories": [str(i) for i in range(2**16 + 1)]})


def test_nobody_outside_asks_for_a_kind_of_column():
    """No file but those of `data/columns` imports a kind's class or compares with its name."""
    source = Path(luce.__file__).parent
    files = "|".join(kind.__module__.rpartition(".")[2] for kind in KINDS.values())
    asks = rf"luce\.data\.columns\.({files})\b|kind\b\W*(==|!=|in\b)\W*\"({'|'.join(KINDS)})\""
    outside = [p for p in source.rglob("*.py") if p.parent != source / "data" / "columns"]
    assert [p for p in outside if re.search(asks, p.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_is_final(kind):
    """A kind is a final class, under the name that it is stored by."""
    assert kind.__final__
    assert KINDS[kind.kind] is kind


@pytest.mark.parametrize("kind", ["number", "category", "boolean", "date", "text"])
@pytest.mark.parametrize(
    "values",
    [
        pl.Series("a", [[1], [2]]),
        pl.Series("a", [{"x": 1}, {"x": 2}]),
        pl.Series("a", [object(), object()], dtype=pl.Object),
        pl.Series("a", [b"\xff", b"b"]),
    ],
    ids=["list", "struct", "object", "binary"],
)
def test_values_that_no_kind_reads_are_refused_in_a_sentence(values, kind):
    """Where the user says what such a column is, the message says which type it has."""
    with pytest.raises(DataError, match=rf"'a' cannot be read as a {kind}: it holds values of"):
        infer([values], types={"a": kind})


def test_inference_changes_nothing_of_what_it_sees():
    """A column that is kept is asked for as a category, and what was seen of it stays."""
    values = pl.Series("a", [f"v{i}" for i in range(40)])
    seen = columns.Seen("a", values, None, kept=True)
    assert columns._claimed(seen, None).kind == "category"
    assert not seen.asked


def test_one_row_looks_up_one_value():
    """Rows are encoded without a look at categories that are not theirs."""

    class Walked(tuple):  # noqa: SLOT001
        walks = 0

        def __iter__(self):
            Walked.walks += 1
            return super().__iter__()

    names = [f"v{i}" for i in range(500)]
    column = Category(name="a", categories=Walked(names), other=True, indicator=True)
    handled = Counter()
    for _ in range(3):
        (row,) = Category.encode([column], pl.Series("a", ["v7", "new", None]), None, handled)
    assert row.indices.tolist() == [7, 500, 501]
    before, _ = Walked.walks, column.width
    Category.encode([column], pl.Series("a", ["v9"]), None, handled)
    assert Walked.walks == before


def test_neighbours_look_up_their_own_categories():
    """A value that two columns share has in each the place that it has there."""
    two = [Category(name="a", categories=("u", "v")), Category(name="b", categories=("v", "w"))]
    out = [np.zeros((3, 2), np.float32) for _ in two]
    handled = Counter()
    Category.encode(two, pl.Series(["u", "v", "w", "v", "u", None]), out, handled)
    np.testing.assert_array_equal(out[0], [[1, 0], [0, 1], [0, 0]])
    np.testing.assert_array_equal(out[1], [[1, 0], [0, 0], [0, 0]])
    assert handled["unseen category in 'a', treated as none"] == 1
    assert handled["missing value in 'b', treated as none"] == 1


def mixture(rows):
    """Columns of every kind, some values missing or of another kind; twice, to be neighbours."""
    own = {
        "number": [f"{i % 37}.5" if i % 9 else "x" for i in range(rows)],
        "skewed": [str(1.5 ** (i % 40)) for i in range(rows)],
        "flag": [("yes", "no", "")[i % 3] for i in range(rows)],
        "day": [f"2024-0{1 + i % 9}-11" for i in range(rows)],
        "town": [f"town {i % 7}" for i in range(rows)],
        "street": [f"street {i % 150}" for i in range(rows)],
        "text": [f"it was a {('good', 'bad')[i % 2]} day for {i % 450} of us" for i in range(rows)],
    }
    return pl.DataFrame(own | {f"{name} too": values[::-1] for name, values in own.items()})


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(threads, monkeypatch):
    """Columns that are worked on at the same time become what they become one after the other."""
    frame, found = mixture(600), []
    monkeypatch.setattr(stacks, "FEWEST_CELLS", 0)
    monkeypatch.setattr(stacks.pl, "thread_pool_size", lambda: threads)
    for most in (1, threads):
        monkeypatch.setattr(stacks, "MOST_THREADS", most)
        schema = TableSchema.infer(frame).fit(frame[:500])
        encoded, handled = schema.encode(frame)
        tensors = {name: tensor.tolist() for name, tensor in schema.tensors().items()}
        found.append((schema.to_json(), tensors, encoded.toarray().tolist(), list(handled.items())))
    assert {column.kind for column in schema.columns} == set(KINDS) - {"left out"}
    assert found[0] == found[1]


def test_of_columns_that_fail_in_threads_the_first_is_named(monkeypatch):
    """The message does not depend on which thread was the first to fail."""
    frame = mixture(50)
    monkeypatch.setattr(stacks, "FEWEST_CELLS", 0)
    monkeypatch.setattr(stacks.pl, "thread_pool_size", lambda: 4)
    types = dict.fromkeys(["town too", "street", "text", "flag too"], "number")
    with pytest.raises(DataError, match="column 'street' cannot be read as a number"):
        TableSchema.infer(frame, directions=Directions(types=types))


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (["18", "80"], "18 to 80"),
        (["-3", "2.5"], "-3 to 2.5"),
        (["0.1234567", "123456789012"], "0.123457 to 123456789012"),
        (["-1.5e-9", "2.25e30"], "-1.5e-09 to 2.25e+30"),
    ],
)
def test_the_range_of_numbers_is_written_as_people_do(values, note):
    """Whole numbers have no fraction, others six digits, and none is cut in the middle."""
    assert infer([pl.Series("x", values)])[0].note == note
