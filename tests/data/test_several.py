"""Several labels at once in a table: cells with a separator, lists, and columns of 0 and 1."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

import luce
from luce.data.several import aligned, labels_of_table
from luce.data.split import split_rows, three_way
from luce.data.targets import joined_names, target_columns
from luce.errors import ArgumentError, DataError
from luce.label_matrix import strata

CELLS = ["drama; comedy", "comedy", "", "war;drama; ", "NA", "comedy ;comedy"]
ON = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]]


def table(cells=CELLS):
    """Return a table with a number and a column of labels."""
    return pl.DataFrame({"x": range(len(cells)), "genres": cells})


def test_cells_are_split_at_the_separator():
    """Blanks are stripped, repeats count once, and an empty cell has no label that is on."""
    on, labels, notices = labels_of_table("films", table(), "genres", ";")
    assert labels == ["comedy", "drama", "war"]
    assert on.astype(int).tolist() == ON
    assert notices == ["2 rows without a label: none is on there."]


@pytest.mark.parametrize(
    "cells",
    [
        [["drama", "comedy"], ["comedy"], [], ["war", "drama"], None, ["comedy"]],
        ['["drama", "comedy"]', '["comedy"]', "[]", '["war", "drama"]', None, '["comedy"]'],
    ],
    ids=["lists", "JSON"],
)
def test_cells_may_be_lists(cells):
    """Lists of Parquet, and their text of JSON Lines, need no separator to occur."""
    on, labels, _ = labels_of_table("films", table(cells), "genres", ";")
    assert labels == ["comedy", "drama", "war"]
    assert on.astype(int).tolist() == ON


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 0], [0, 1]], [[1, 0], [0, 1]]),
        ([["true", "F"], ["no", "Yes"]], [[1, 0], [0, 1]]),
        ([[1.0, 0.0], [0.0, 1.0]], [[1, 0], [0, 1]]),
        ([[True, False], [False, True]], [[1, 0], [0, 1]]),
    ],
    ids=["whole", "words", "floats", "booleans"],
)
def test_columns_of_their_own(values, expected):
    """Each label's column is read as 0 and 1, however these are written; names may have commas."""
    frame = pl.DataFrame({"x": [1, 2], "a, b": [v[0] for v in values], "c": [v[1] for v in values]})
    target = joined_names(["a, b", "c"])
    assert target_columns(target, "columns") == ["a, b", "c"]
    on, labels, _ = labels_of_table("t", frame, target, "columns")
    assert labels == ["a, b", "c"]
    assert on.astype(int).tolist() == expected


@pytest.mark.parametrize(
    ("frame", "target", "several", "says"),
    [
        (
            table(),
            "genres",
            "|",
            r"no value of 'genres' has '\|' in it; values are 'drama; comedy'",
        ),
        (table(), "genre", ";", "genres"),
        (table(["", "NA"] * 2), "genres", ";", "every value is missing"),
        (table(), "genres", "columns", "takes a column for each label"),
        (table(), "x,genres", "columns", "got 2 in row 2|got 'drama; comedy' in row 0"),
        (table(), "x,y", "columns", "no column 'y'|'y'"),
    ],
)
def test_what_cannot_be_labels_is_said(frame, target, several, says):
    """A separator that occurs nowhere, other values than 0 and 1, columns that are not there."""
    with pytest.raises(DataError, match=says):
        labels_of_table("films", frame, target, several)


def test_a_runs_labels_are_the_columns():
    """Of a run, labels have its order, the separator need not occur, and unknown ones are named."""
    on, labels, _ = labels_of_table("new", table(["war", "drama"]), "genres", ";", ["drama", "war"])
    assert labels == ["drama", "war"]
    assert on.astype(int).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(DataError, match="'horror' is not among the run's labels: 'drama'"):
        labels_of_table("new", table(["war;horror"]), "genres", ";", ["drama", "war"])


def test_a_dataset_of_several_labels():
    """load_dataset gives an indicator; the schema says where labels stand, and which there are."""
    data = luce.load_dataset(table(), target="genres", several=";")
    assert data.labels.astype(int).tolist() == ON
    assert data.classes == data.schema.classes == ["comedy", "drama", "war"]
    assert data.schema.several == ";"
    assert data.features.columns == ["x"]
    assert data.take([3]).labels.tolist() == [[False, True, True]]
    other = luce.load_dataset(table(CELLS[::-1]), target="genres", several=";")
    assert data.fingerprint() != other.fingerprint()
    again = luce.load_dataset(table(["war"]), schema=data.schema)
    assert again.labels.tolist() == [[False, False, True]]
    assert luce.load_dataset(table()[["x"]], schema=data.schema).labels is None


def test_labels_that_are_given_beside_the_rows():
    """An indicator, lists or a frame as y of a pair say several labels; a run aligns others."""
    X = np.arange(8.0).reshape(4, 2)
    for y, names in (
        ([["a"], ["b", "a"], [], ["b"]], ["a", "b"]),
        (np.array([[1, 0], [1, 1], [0, 0], [0, 1]]), [0, 1]),
        (pd.DataFrame({"a": [1, 1, 0, 0], "b": [0, 1, 0, 1]}), ["a", "b"]),
    ):
        data = luce.load_dataset((X, y))
        assert data.classes == names
        assert data.schema.several == "y"
        assert data.labels.astype(int).tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]
        back = luce.load_dataset(
            (X[:1], [["b"]] if names[0] == "a" else [[0, 1]]), schema=data.schema
        )
        assert back.labels.tolist() == [[False, True]]
        with pytest.raises(DataError, match="one label for each row, which the run was not"):
            luce.load_dataset((X, [0, 1, 0, 1]), schema=data.schema)
    classes = luce.load_dataset((X, ["a", "b", "a", "b"])).schema.with_classes(["a", "b"])
    with pytest.raises(DataError, match="several labels at once, which the run was not"):
        luce.load_dataset((X, [["a"], ["b"], [], []]), schema=classes)


def test_columns_are_aligned_by_their_labels():
    """Columns are put in the run's order; a plain matrix is taken as it is; others are refused."""
    on = np.array([[True, False], [False, False]])
    assert aligned(on, ["b", "a"], ["a", "b", "c"], name="y").tolist() == [
        [False, True, False],
        [False, False, False],
    ]
    assert aligned(on, [0, 1], ["a", "b"], name="y") is on
    with pytest.raises(DataError, match="'z' is not among"):
        aligned(on, ["z", "a"], ["a", "b"], name="y")


def test_rare_labels_are_shared_out():
    """Each part has its share of the rows of the rarest label, and every row is in one part."""
    rng = np.random.default_rng(0)
    on = rng.random((1000, 4)) < [0.5, 0.3, 0.1, 0.03]
    parts = three_way(on, validation_size=0.2, test_size=0.2, seed=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    rare = on[:, 3].sum()
    for rows, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert abs(on[rows, 3].sum() - share * rare) <= 1
    kept, held = split_rows(on, 0.25, seed=1)
    assert abs(on[held, 3].sum() - rare / 4) <= 1
    assert len(kept) + len(held) == 1000
    code = strata(on)
    assert set(code.tolist()) == set(range(5))


def test_several_is_for_tables():
    """Arrays say themselves how many labels a row has."""
    with pytest.raises(ArgumentError, match="several is for tables"):
        luce.load_dataset("digits", several=";")


def test_a_column_is_named_once():
    """A target that names a column twice is refused, and so is one with a line break."""
    frame = pl.DataFrame({"a": [0, 1], "b": [1, 0]})
    with pytest.raises(DataError, match="target names 'a' twice"):
        labels_of_table("films", frame, "a,b,a", "columns")
    with pytest.raises(ArgumentError, match="names of columns with commas between"):
        target_columns('a\n,"b', "columns")


def test_numbers_may_be_labels():
    """Of a run with the labels 0, 3 and 5, lists of 0, 1 and 2 are not taken for columns."""
    with pytest.raises(DataError, match="1, 2 are not among"):
        aligned(np.eye(3, dtype=bool), [0, 1, 2], [0, 3, 5], name="rows")


def test_one_label_is_no_several():
    """A single label is refused in a sentence that says what to do."""
    with pytest.raises(DataError, match="one label only"):
        luce.train((np.arange(20.0)[:, None], [["a"], []] * 10), model="linear")
