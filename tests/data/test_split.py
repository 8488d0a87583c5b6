"""Splits: stratified, repeatable, and refused where no classifier can be trained."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luce.data import (
    check_labels,
    folds,
    load_dataset,
    rare_classes,
    read_schema,
    split_rows,
    three_way,
)
from luce.data.labels import coded, labels_from_series
from luce.errors import ArgumentError, DataError, RunError


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.floats(0, 0.99),
    st.integers(0, 2**32),
)
def test_split_is_a_stratified_partition(values, fraction, seed):
    """Every row is on one side, both sorted; classes keep a row, and their share within one."""
    labels = np.array(values)
    kept, held = split_rows(labels, fraction, seed=seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    for label in np.unique(labels):
        count = int((labels == label).sum())
        out = int((labels[held] == label).sum())
        assert out <= count - 1
        assert out > fraction * count - 1 - 1e-9 or out == count - 1
        assert out < fraction * count + 1 + 1e-9
    again = split_rows(labels, fraction, seed=seed)
    np.testing.assert_array_equal(kept, again[0])


@given(st.lists(st.text(max_size=3), min_size=1, max_size=60), st.integers(0, 99))
def test_texts_are_coded_and_split_as_their_places_in_the_alphabet(values, seed):
    """NumPy's ``unique`` is the truth for the codes, and texts are split as those codes are."""
    labels = np.array(values, dtype=object)
    classes, codes = np.unique(labels, return_inverse=True)
    found = coded(labels)
    assert found[0].tolist() == classes.tolist()
    assert found[1].tolist() == codes.tolist()
    sizes = {"validation_size": 0.2, "test_size": 0.3, "seed": seed}
    for own, other in zip(three_way(labels, **sizes), three_way(codes, **sizes), strict=True):
        assert own.tolist() == other.tolist()


@pytest.mark.parametrize("classes", [3, 70_000])
def test_folds_deal_every_class_in_turn(classes):
    """However many classes there are, no two folds differ by more than one row of a class."""
    codes = np.arange(140_001) % classes
    dealt = folds(codes, 2, seed=0)
    counts = np.stack([np.bincount(codes[dealt == fold], minlength=classes) for fold in (0, 1)])
    assert np.abs(counts[0] - counts[1]).max() <= 1
    assert counts.sum() == len(codes)


def test_rows_of_a_class_share_one_text():
    """A million labels of a column are as many references, not as many texts."""
    labels, _ = labels_from_series(pl.Series("y", ["no", "yes", "no", None, "yes"]))
    assert labels.tolist() == ["no", "yes", "no", "yes"]
    assert labels[0] is labels[2]


def test_split_depends_on_the_seed():
    """Another seed holds out other rows, as many of them."""
    labels = np.array(["a", "b"] * 50, dtype=object)
    first, second = (split_rows(labels, 0.2, seed=seed)[1] for seed in (0, 1))
    assert len(first) == len(second) == 20
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_fraction_is_checked(fraction):
    """A fraction outside 0 to 1 is refused."""
    with pytest.raises(ArgumentError, match="fraction must be from 0 to below 1"):
        split_rows(np.zeros(4, int), fraction, seed=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "has no labels. Give target"),
        (np.array([], int), "no rows with a label"),
        (np.array([3, 3, 3]), "All 3 rows have the same label, 3. .*at least two classes"),
        (
            np.array(["a", "a", "b"], dtype=object),
            "Class 'b' has a single example; .*at least two.* --drop-rare 2",
        ),
        (np.array([0, 1]), "Classes 0, 1 have a single example each"),
    ],
)
def test_untrainable_labels_are_refused(labels, message):
    """No labels, no rows, one class, a class with one example: each has its sentence."""
    with pytest.raises(DataError, match=message):
        check_labels(labels)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 0, 1, 1]),
        np.array([True, True, False, False]),
        np.array(["a", "a", "b", "b"], dtype=object),
    ],
    ids=["integers", "booleans", "texts"],
)
def test_good_labels_pass(labels):
    """Two examples for each of two classes are enough; the labels come back as they are."""
    np.testing.assert_array_equal(check_labels(labels), labels, strict=True)


def test_rare_classes_are_left_out_everywhere():
    """Rows of rare classes go from the data and their test split, and from what is read later."""
    X = np.arange(24.0).reshape(12, 2)
    y = np.array(list("aaaabbbbccda"), dtype=object)
    data = replace(load_dataset((X, y)), test=load_dataset((X, y)))
    assert rare_classes(data.labels, 0) == rare_classes(data.labels, 1) == []
    rare = rare_classes(data.labels, 3)
    assert rare == ["c", "d"]
    kept = data.without(rare)
    assert kept.classes == ["a", "b"]
    np.testing.assert_array_equal(kept.features, X[(y == "a") | (y == "b")])
    assert kept.notices == ("3 rows of rare classes left out: 'c', 'd'.",)
    assert len(kept.test) == 9
    schema = kept.schema.fit(kept.features).with_classes(kept.classes)
    again = read_schema(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    read = load_dataset((X, y), schema=again)
    assert read.fingerprint() == kept.fingerprint()
    with pytest.raises(DataError, match="'e' is not among the run's classes"):
        load_dataset((X, np.where(y == "a", "e", y)), schema=again)


def test_rare_classes_are_known_in_any_spelling():
    """A class that was a number in training is left out where a CSV has it as text."""
    X, y = np.arange(14.0).reshape(7, 2), np.array([1, 1, 2, 2, 2, 7, 1])
    kept = load_dataset((X, y)).without([7])
    schema = kept.schema.fit(kept.features).with_classes(kept.classes)
    assert load_dataset((X, y.astype(str)), schema=schema).labels.tolist() == [1, 1, 2, 2, 2, 1]


def test_two_classes_must_remain():
    """A limit that leaves fewer than two classes says how many rows the commonest have."""
    with pytest.raises(
        ArgumentError, match=r"drop_rare=4 leaves 1 of 3 classes.* have 5 and 3 row"
    ):
        rare_classes(np.array(list("aaaaabbbc")), 4)


@pytest.mark.parametrize("dropped", ["c", [1, "c"], ["d", "c"], ["c", "c"], [2**70], [None]])
def test_hostile_dropped_classes_are_refused(dropped):
    """What a stored schema leaves out is checked as its classes are; older ones have none."""
    body = load_dataset((np.eye(2), [0, 1])).schema.fit(np.eye(2)).to_json()
    with pytest.raises(RunError, match=r"schema\.json cannot be used: dropped"):
        read_schema({**body, "dropped": dropped})
    del body["dropped"]
    assert read_schema(body).dropped == []
