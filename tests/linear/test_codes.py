"""Codes: what is drawn where none is given, and what is refused of one that is."""

import numpy as np
import pytest

from luce.errors import ArgumentError
from luce.linear.codes import as_code, drawn, is_identity, output_code, pairs


@pytest.mark.parametrize("K", range(2, 8))
def test_few_classes_have_every_column(K):
    """Up to 7 classes there are all 2^(K - 1) - 1 ways to part them, none twice."""
    code = output_code(K)
    assert code.shape == (K, 2 ** (K - 1) - 1)
    sides = {frozenset([tuple(column), tuple(-column)]) for column in code.T}
    assert len(sides) == code.shape[1]
    assert not (code == code[0]).all(axis=0).any()


@pytest.mark.parametrize("K", [8, 10, 26, 60])
def test_drawn_codes_have_ten_columns_for_a_doubling_and_none_twice(K):
    """Of more classes ⌈10 log₂ K⌉, with no column equal to another or to its complement."""
    code = output_code(K)
    assert code.shape == (K, int(np.ceil(10 * np.log2(K))))
    assert np.isin(code, (-1, 1)).all()
    products = np.abs(code.T.astype(int) @ code)
    assert (products[~np.eye(len(products), dtype=bool)] < K).all()
    assert (np.abs(code.astype(int).sum(axis=0)) < K).all()


def test_the_best_of_many_is_drawn():
    """Its two nearest rows are farther apart than those of nine in ten codes drawn alike."""
    K, B = 12, output_code(12).shape[1]

    def distance(code):
        return min((code[i] != code[j]).sum() for i in range(K) for j in range(i))

    rng = np.random.default_rng(1)
    others = [distance(rng.choice([-1, 1], (K, B))) for _ in range(100)]
    assert distance(output_code(K)) > np.quantile(others, 0.9)


def test_the_same_code_for_the_same_number_of_classes():
    """A code follows from the number of classes alone, so that two fits have the same columns."""
    drawn.cache_clear()
    first = drawn(9).copy()
    drawn.cache_clear()
    np.testing.assert_array_equal(first, drawn(9))


def test_pairs_stand_in_the_order_of_scikit_learn():
    """Columns are (0, 1), (0, 2), (1, 2); the later class is +1, and no other has a part."""
    np.testing.assert_array_equal(pairs(3), [[-1, -1, 0], [1, 0, -1], [0, 1, 1]])


def test_zeros_and_ones_are_sides():
    """Of a code of 0 and 1 alone, 0 is the side -1; beside a -1 it is no part."""
    np.testing.assert_array_equal(
        as_code("x", [[0, 1], [1, 0], [1, 1]], "abc"), [[-1, 1], [1, -1], [1, 1]]
    )
    np.testing.assert_array_equal(
        as_code("x", [[0, 1], [1, 0], [-1, -1]], "abc"), [[0, 1], [1, 0], [-1, -1]]
    )


def test_the_identity_is_known():
    """Only the identity is: no other order of its columns."""
    assert is_identity(as_code("x", np.eye(4), "abcd"))
    assert not is_identity(as_code("x", np.eye(4)[:, ::-1], "abcd"))


BAD = {
    "rows": ([[1], [-1]], r"must have 3 rows, one for each of the 3 classes .*, got 2 rows"),
    "flat": ([1, -1, 1], r"a matrix of numbers .*, got an array of shape \(3,\)"),
    "ragged": ([[1, 2], [1], [1]], "got rows of several lengths"),
    "words": ([["a"], ["b"], ["c"]], r"a matrix of numbers .*, got an array of shape \(3, 1\)"),
    "nothing": (np.empty((3, 0)), r"got an array of shape \(3, 0\)"),
    "value": ([[1, 2], [-1, 1], [1, 1]], r"the values -1, 0 and \+1 \(or 0 and 1\), got 2"),
    "nan": ([[1.0, np.nan], [-1, 1], [1, 1]], "got nan"),
    "half": ([[0.5, 1], [-1, 1], [1, 1]], r"got 0\.5"),
    "all +1": ([[1, 1], [1, -1], [1, 0]], "column 0 of code has no class on the side -1"),
    "all 0": ([[0, 1], [0, -1], [0, 0]], r"column 0 of code has no class on the side \+1"),
    "equal": ([[1, -1, 1], [-1, 1, -1], [-1, -1, -1]], "columns 0 and 2 of code are equal"),
    "complement": ([[1, -1, 1], [-1, 1, 1], [-1, 1, -1]], "columns 0 and 1 of code are complem"),
    "no part": ([[1, 1], [-1, -1], [0, 0]], "columns 0 and 1 of code are equal"),
    "no row": ([[1], [-1], [0]], "only zeros for class 'c'"),
    "same rows": ([[1, -1], [-1, 1], [-1, 1]], "columns 0 and 1 of code are complementary"),
    "twins": ([[1, -1], [1, 1], [1, 1]], "column 0 of code has no class on the side -1"),
    "told apart": ([[1], [-1], [-1]], "equal rows for the classes 'b' and 'c'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_code_says_what_is_wrong(name):
    """Each code that binary problems cannot be made of is refused with the place of its fault."""
    code, words = BAD[name]
    with pytest.raises(ArgumentError, match=words):
        as_code("SoftmaxRegression", code, ["a", "b", "c"])


def test_a_row_that_is_all_one_is_a_class_as_any_other():
    """The exhaustive code has one: a row says which side a class is on, and all may be one side."""
    exhaustive = output_code(3)
    assert any(abs(row.sum()) == exhaustive.shape[1] for row in exhaustive)
    assert as_code("S", -exhaustive, ["a", "b", "c"]).tolist() == (-exhaustive).tolist()
