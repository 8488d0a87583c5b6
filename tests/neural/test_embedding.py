"""Networks over sparse rows: embeddings beside the encoding of dense columns."""

import copy

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import luce
from luce.errors import ArgumentError, DataError
from luce.models import MODELS
from luce.neural import embedding
from luce.neural.embedding import DIMENSION, SCALE, EmbeddedRows
from luce.neural.sparse_rows import SparseRows
from luce.neural.tabular import Encoding

SHORT = {"hidden": (8,), "epochs": 2, "batch_size": 32, "learning_rate": 0.01}


@pytest.fixture
def rows():
    """Rows of three numbers, a column of zeros and forty columns that few rows hold."""
    rng = np.random.default_rng(0)
    few = scipy.sparse.random(300, 40, 0.1, random_state=0, dtype=np.float32).toarray()
    X = np.column_stack([rng.normal(size=(300, 3)), np.zeros(300), few]).astype(np.float32)
    return scipy.sparse.csr_array(X)


@pytest.fixture
def labels(rows):
    """Return labels that numbers and embedded columns say together."""
    rng = np.random.default_rng(1)
    said = rows @ np.r_[2.0, -1.0, 0.0, 0.0, 4 * rng.normal(size=40)]
    return np.where(said > 0, "up", "down")


def without(rows, which, value=0.0):
    """Return the rows with some that hold nothing, or one number."""
    dense = rows.toarray()
    dense[which] = value
    return scipy.sparse.csr_array(dense)


@pytest.mark.parametrize("order", ["slice", "empty", "numbers"])
def test_rows_are_taken_as_from_a_matrix(rows, order):
    """A slice and numbers, with repeats and rows of nothing, give what SciPy gives."""
    rows = without(rows, 5)
    which = {
        "slice": slice(3, 17),
        "empty": slice(20, 20),
        "numbers": torch.tensor([7, 5, 299, 7, 0]),
    }[order]
    taken = SparseRows.of(rows)[which]
    expected = torch.from_numpy(rows.toarray())[which]
    dense = torch.zeros(taken.shape)
    dense[taken.numbers(), taken.columns] = taken.values
    torch.testing.assert_close(dense, expected, rtol=0, atol=0)
    assert len(taken) == len(expected)


def test_the_layer_is_a_product_with_the_embeddings(rows):
    """In evaluation mode, the sum is the dense product in float64, and the others are encoded."""
    rows = without(rows, [4, 9])
    torch.manual_seed(0)
    layer = EmbeddedRows.of(rows, 8).double().eval()
    exact = rows.toarray().astype(np.float64)
    weight = np.zeros((44, DIMENSION))
    place = layer.place.numpy()
    embedded = (place >= 0) & (place < 40)
    assert embedded.tolist() == [False] * 4 + [True] * 40
    weight[embedded] = layer.embedding.weight.detach().numpy()[place[embedded]]
    found = layer(SparseRows.of(rows.astype(np.float64))).detach().numpy()
    np.testing.assert_allclose(found[:, :DIMENSION], SCALE * exact @ weight, rtol=1e-12, atol=1e-12)
    others = Encoding.of(rows.toarray()[:, :3], 8).double()(torch.from_numpy(exact[:, :3]))
    np.testing.assert_array_equal(found[:, DIMENSION:], others.numpy())
    matrix = layer(torch.from_numpy(exact)).detach().numpy()
    np.testing.assert_allclose(matrix, found, rtol=1e-12, atol=1e-12)


def test_numbers_are_told_from_amounts():
    """A column that no row lacks, or with values below 0 in most rows, is a number."""
    rng = np.random.default_rng(0)
    tenth = np.arange(100) % 10
    columns = [
        1 + rng.random(100),  # no row lacks it
        rng.normal(size=100) * (tenth > 0),  # below 0 in some, and 0 in a tenth
        rng.random(100) * (tenth > 0),  # a word that most texts have
        rng.normal(size=100) * (tenth > 6),  # most rows lack it
        1.0 * (tenth > 0),  # a category that most rows have
    ]
    layer = EmbeddedRows.of(scipy.sparse.csr_array(np.column_stack(columns)), 4)
    assert layer.place.tolist() == [3, 4, 0, 1, 2]


def test_in_training_each_value_is_dropped_by_itself(rows, monkeypatch):
    """With everything dropped nothing is left of the embeddings, and all of the other columns."""
    monkeypatch.setattr(embedding, "DROPPED", 1.0)
    layer = EmbeddedRows.of(rows, 0)
    kept, whole = layer.train()(SparseRows.of(rows)), layer.eval()(SparseRows.of(rows))
    assert not kept[:, :DIMENSION].any()
    assert whole[:, :DIMENSION].any()
    torch.testing.assert_close(kept[:, DIMENSION:], whole[:, DIMENSION:], rtol=0, atol=0)


def test_the_commonest_columns_are_embedded(rows, monkeypatch):
    """Beyond the most that are embedded, columns are not read: their values change nothing."""
    monkeypatch.setattr(embedding, "MOST_EMBEDDED", 5)
    layer = EmbeddedRows.of(rows, 0).eval()
    held = (rows.toarray()[:, 4:] != 0).sum(axis=0)
    embedded = (layer.place[4:] >= 0).numpy()
    assert embedded.sum() == 5
    assert held[embedded].min() >= held[~embedded].max()
    less = rows.toarray()
    less[:, 4:][:, ~embedded] = 7
    torch.testing.assert_close(layer(torch.from_numpy(less)), layer(SparseRows.of(rows)))


def test_of_columns_that_all_rows_hold_the_network_is_that_of_dense_rows():
    """To the bit: nothing is embedded there."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 5)), rng.integers(0, 2, 200)
    options = {**SHORT, "members": 3, "bins": 4, "patience": 2}
    dense = luce.NeuralClassifier(**options).fit(X, y)
    sparse = luce.NeuralClassifier(**options).fit(scipy.sparse.csr_array(X), y)
    np.testing.assert_array_equal(sparse.predict_proba(X), dense.predict_proba(X))
    np.testing.assert_array_equal(
        sparse.predict_proba(scipy.sparse.csc_array(X)), dense.predict_proba(X)
    )


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.coo_array])
@pytest.mark.parametrize("options", [{}, {"members": 2, "bins": 4, "patience": 1}])
def test_sparse_rows_are_learnt_from(rows, labels, kind, options):
    """Any sparse matrix is learnt from; dense rows of the same numbers are told the same."""
    model = luce.NeuralClassifier(**{**SHORT, "epochs": 30, **options}).fit(kind(rows), labels)
    assert model.score(rows, labels) > 0.8
    np.testing.assert_allclose(
        model.predict_proba(rows.toarray()), model.predict_proba(kind(rows)), rtol=1e-5
    )


def test_validation_may_be_of_the_other_sort(rows, labels):
    """A network on sparse rows validates dense ones, and one on dense rows sparse ones."""
    dense = rows.toarray()
    for X, other in ((rows, dense), (dense, rows)):
        own = luce.NeuralClassifier(**SHORT).fit(X, labels, validation=(X, labels))
        mixed = luce.NeuralClassifier(**SHORT).fit(X, labels, validation=(other, labels))
        losses = [[each["validation_loss"] for each in model.history_] for model in (own, mixed)]
        np.testing.assert_allclose(*losses, rtol=1e-6)
        np.testing.assert_allclose(own.predict_proba(other), own.predict_proba(X), rtol=1e-5)


def test_a_place_that_is_named_twice_holds_the_sum(rows):
    """Sparse rows may name a place twice; the caller's stay as they are."""
    parts = np.tile(rows.data / 2, 2), np.tile(rows.tocoo().col, 2), np.r_[0, 2 * rows.nnz]
    twice = scipy.sparse.csr_array(parts, shape=(1, 44))
    layer = EmbeddedRows.of(rows, 0).eval()
    once = scipy.sparse.csr_array(twice.toarray())
    assert twice.nnz > once.nnz
    torch.testing.assert_close(layer(SparseRows.of(twice)), layer(SparseRows.of(once)))
    assert twice.nnz == 2 * rows.nnz


def test_rows_without_any_value_are_learnt_from():
    """Of nothing but zeros, the classes' shares are learnt."""
    X, y = scipy.sparse.csr_array((90, 4)), np.array([0, 0, 1] * 30)
    model = luce.NeuralClassifier(**{**SHORT, "epochs": 40}).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X[:1])[0], [2 / 3, 1 / 3], atol=0.05)


@pytest.mark.parametrize("stop", [1, 5, 12])
def test_stopped_after_any_batch_it_goes_on_to_the_same_bits(rows, labels, stop):
    """A state that was saved and loaded ends where an unbroken training ends."""
    options = {**SHORT, "members": 2, "averaging": 1.0, "patience": 3}
    unbroken = luce.NeuralClassifier(**options).fit(rows, labels)
    model = luce.NeuralClassifier(**options)
    for done, _ in enumerate(model.fit_steps(rows, labels), start=1):
        if done == stop:
            saved = copy.deepcopy((model.state_.tensors(), model.state_.scalars()))
            break
    resumed = luce.NeuralClassifier(**options)
    for _ in resumed.fit_steps(rows, labels, resume=saved):
        pass
    np.testing.assert_array_equal(resumed.predict_proba(rows), unbroken.predict_proba(rows))


def test_a_teacher_of_sparse_rows_is_learnt_from(rows, labels):
    """Without any label the student says what the teacher says."""
    teacher = luce.SoftmaxRegression().fit(rows, labels)
    student = luce.NeuralClassifier(**{**SHORT, "epochs": 60}).fit(rows, teacher=teacher)
    assert (student.predict(rows) == teacher.predict(rows)).mean() > 0.9


def test_scikit_learn_clones_and_searches_on_sparse_rows(rows, labels):
    """A grid search takes sparse rows as it takes dense ones."""
    model = clone(luce.NeuralClassifier(**SHORT))
    search = GridSearchCV(model, {"hidden": [(4,), (8,)]}, cv=2).fit(rows, labels)
    assert search.predict(rows).shape == labels.shape


def stored(rows, labels):
    """Return a fitted classifier's kind, its options and its tensors."""
    kind, options = MODELS["mlp"], {**SHORT, "members": 2, "bins": 4}
    fitted = kind.make(options).fit(rows, labels)
    return kind, options, fitted, kind.tensors(fitted)


def test_what_is_stored_predicts_the_same(rows, labels):
    """Restored from tensors, without a draw from the global random state."""
    kind, options, fitted, tensors = stored(rows, labels)
    before = torch.get_rng_state()
    again = kind.restore(kind.make(options), ["down", "up"], (44,), tensors)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(again.predict_proba(rows), fitted.predict_proba(rows))
    described = kind.describe(again, (44,))
    assert described["parameters"] == sum(each["parameters"] for each in described["layers"])
    assert kind.explain(again) is None


def change(name, at, value):
    def damage(tensors):
        tensors[name] = tensors[name].copy()
        tensors[name][at] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda tensors: tensors.pop("encoding.embedding.weight"), "must be a matrix"),
        (change("encoding.place", 0, -2), "must have each of 40 embeddings once"),
        (change("encoding.place", 0, 44), "must have each of 40 embeddings once"),
        (change("encoding.place", 10, 0), "must have each of 40 embeddings once"),
        (change("encoding.others.numbers", 0, 3), "must be positions of 3 columns"),
        (change("encoding.others.width", 0, 0.0), r"'encoding.others.width' must be above 0"),
        (
            lambda tensors: tensors.update({"encoding.place": tensors["encoding.place"][:-1]}),
            "must be the places of 44 columns",
        ),
        (
            lambda tensors: tensors.update(
                {"encoding.embedding.weight": tensors["encoding.embedding.weight"][:, :3]}
            ),
            r"tensor 'encoding.embedding.weight' must be .*16\)",
        ),
    ],
)
def test_damaged_tensors_are_refused(rows, labels, damage, words):
    """What says which columns are embedded is checked before anything is indexed by it."""
    kind, options, _, tensors = stored(rows, labels)
    damage(tensors)
    with pytest.raises(ArgumentError, match=words):
        kind.restore(kind.make(options), ["down", "up"], (44,), tensors)


@pytest.mark.parametrize("module", ["cnn", "linear", nn.Linear(44, 2)])
def test_networks_that_read_no_sparse_rows_say_so(rows, labels, module):
    """The message says what was received, which network reads it, and what to do."""
    words = r"X is a sparse matrix of shape \(300, 44\).*only module='mlp'.*give X.toarray\(\)"
    with pytest.raises(ArgumentError, match=words):
        luce.NeuralClassifier(module).fit(rows, labels)


def test_numbers_that_are_not_finite_are_found(rows, labels):
    """Row and column of the first are named."""
    rows = without(rows, (17, 30), np.nan)
    with pytest.raises(DataError, match="NaN: the first is at row 17, column 30"):
        luce.NeuralClassifier(**SHORT).fit(rows, labels)


def test_rows_of_another_width_are_refused(rows, labels):
    """The message has both widths."""
    model = luce.NeuralClassifier(**SHORT).fit(rows, labels)
    with pytest.raises(ValueError, match="43 features, but NeuralClassifier is expecting 44"):
        model.predict(rows[:, :43])


def test_a_place_that_is_named_twice_counts_once():
    """Two entries for one place are their sum, to fit and to predict from."""
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((200, 6), density=0.5, format="csr", rng=rng, dtype=np.float32)
    X.data[:] = 1
    y = np.asarray(X[:, [0]].toarray()[:, 0] > 0).astype(int)
    twice = scipy.sparse.csr_array(
        (np.repeat(X.data / 2, 2), np.repeat(X.indices, 2), 2 * X.indptr), X.shape
    )
    assert not twice.has_canonical_format
    models = [luce.NeuralClassifier("mlp", epochs=3).fit(given, y) for given in (X, twice)]
    said = [model.predict_proba(given) for model in models for given in (X, twice)]
    for each in said[1:]:
        np.testing.assert_array_equal(each, said[0])
    assert twice.nnz == 2 * X.nnz  # the caller's stays as it was
