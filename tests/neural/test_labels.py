"""NeuralClassifier with several labels at once: binary cross-entropy, one sigmoid for each."""

import numpy as np
import pytest
import scipy.sparse
import torch
import torch.nn.functional as F
from sklearn.utils.estimator_checks import check_estimator

import luce
from luce.errors import ArgumentError, DataError
from luce.neural.labels import binary_cross_entropy, hits, log_losses
from luce.neural.tabular import Mean


def several(N=400, D=6, L=4, seed=0):
    """Return rows and the labels that are on."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)).astype(np.float32)
    Z = 2 * X @ rng.normal(size=(D, L)) + np.linspace(-2, 1, L)
    return X, (rng.random((N, L)) < 1 / (1 + np.exp(-Z))).astype(int)


def test_a_linear_network_finds_softmax_regressions_optimum():
    """Trained long enough, one linear layer has the least loss that there is, and no less."""
    X, Y = several()
    network = luce.NeuralClassifier(
        "linear", epochs=150, learning_rate=0.3, l2=0.0, precision="float64"
    ).fit(X, Y)
    exact = luce.SoftmaxRegression(penalty=None).fit(X.astype(np.float64), Y)
    losses = [
        np.logaddexp(0, np.where(Y == 1, -1, 1) * each.decision_function(X)).mean()
        for each in (network, exact)
    ]
    assert losses[1] - 1e-6 <= losses[0] <= losses[1] + 5e-3
    assert network.multilabel_
    assert network.classes_.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"members": 4, "bins": "auto"},
        {"patience": 3, "schedule": "constant", "averaging": 2.0},
        {"class_weight": "balanced"},
        {"label_smoothing": 0.1},
    ],
    ids=str,
)
def test_networks_learn_several_labels(options):
    """Every kind of network for tables is better than always saying the commonest."""
    X, Y = several()
    model = luce.NeuralClassifier(hidden=(16,), epochs=60, **options).fit(X, Y)
    p = model.predict_proba(X)
    assert p.shape == Y.shape
    wrong = (model.predict(X) != Y).mean()
    assert wrong < 0.7 * np.minimum(Y.mean(0), 1 - Y.mean(0)).mean()
    np.testing.assert_array_equal(model.predict(X), p > 0.5)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), p, rtol=1e-5)
    np.testing.assert_array_equal(model.decision_function(X) > 0, p > 0.5)


def test_images_and_sparse_rows():
    """A convolutional network and an mlp over sparse rows learn several labels too."""
    X, Y = several(120, 64, 3)
    images = luce.NeuralClassifier("cnn", epochs=1).fit(X.reshape(-1, 1, 8, 8), Y)
    assert images.predict_proba(X.reshape(-1, 1, 8, 8)).shape == Y.shape
    sparse = scipy.sparse.csr_array(X * (X > 1))
    model = luce.NeuralClassifier(hidden=(8,), epochs=2).fit(sparse, Y)
    assert model.predict(sparse).shape == Y.shape


def test_lists_validation_and_history():
    """Lists of labels are learnt, held-out ones are read in their order, and epochs are judged."""
    X, Y = several(L=3)
    names = ["a", "b", "c"]
    lists = [[name for name, on in zip(names, row, strict=True) if on] for row in Y]
    model = luce.NeuralClassifier(hidden=(8,), epochs=3)
    model.fit(X[:300], lists[:300], validation=(X[300:], lists[300:]))
    assert model.classes_.tolist() == names
    record = model.history_[-1]
    p = model.predict_proba(X[300:]).astype(np.float64)
    expected = -np.log(np.where(Y[300:] == 1, p, 1 - p)).mean()
    assert record["validation_loss"] == pytest.approx(expected, rel=1e-5)
    assert record["validation_accuracy"] == pytest.approx(
        (model.predict(X[300:]) == Y[300:]).mean()
    )
    assert model.score(X, lists) == model.score(X, Y) == (model.predict(X) == Y).all(1).mean()
    with pytest.raises(DataError, match="validation: row 0 has the label 'z'"):
        model.fit(X[:300], lists[:300], validation=(X[300:301], [["z"]]))


def test_the_loss_is_pytorchs():
    """The mean, each example's value and the weighted mean are those of PyTorch's loss."""
    torch.manual_seed(0)
    z, t = torch.randn(7, 3, dtype=torch.float64), torch.rand(7, 3) > 0.4
    each = F.binary_cross_entropy_with_logits(z, t.double(), reduction="none")
    w, own, pos = (torch.rand(n, dtype=torch.float64) for n in (7, 3, 3))
    torch.testing.assert_close(binary_cross_entropy(z, t), each.mean())
    torch.testing.assert_close(binary_cross_entropy(z, t, reduction="none"), each.mean(1))
    torch.testing.assert_close(binary_cross_entropy(z, t, w), (w * each.mean(1)).sum() / w.sum())
    weighed = F.binary_cross_entropy_with_logits(
        z, t.double(), own, pos_weight=pos, reduction="none"
    )
    found = binary_cross_entropy(z, t, w, label_weight=own, pos_weight=pos)
    torch.testing.assert_close(found, (w * weighed.mean(1)).sum() / w.sum())
    assert float(binary_cross_entropy(z, t, torch.zeros(7).double())) == 0
    torch.testing.assert_close(log_losses(z, t), each.mean(1))
    torch.testing.assert_close(hits(z, t), ((z > 0) == t).double().mean(1))


def test_the_mean_of_members_is_that_of_their_sigmoids():
    """In evaluation, the log-odds of the mean probability, with its digits where it is near 1."""
    z = torch.tensor([[[2.0, -60.0, 60.0], [-1.0, -50.0, 50.0]]], dtype=torch.float64)
    mean = Mean().eval()
    mean.several = True
    p, q = torch.sigmoid(z).mean(1), torch.sigmoid(-z).mean(1)
    torch.testing.assert_close(mean(z), p.log() - q.log())


def test_weights_are_repeated_rows():
    """A row of weight 2 counts like two rows, label by label."""
    X, Y = several(60)
    options = {"module": "linear", "epochs": 1, "batch_size": 1000, "precision": "float64"}
    weight = np.where(np.arange(60) < 20, 2.0, 1.0)
    a = luce.NeuralClassifier(**options).fit(X, Y, weight)
    again = np.append(np.arange(60), np.arange(20))
    b = luce.NeuralClassifier(**options).fit(X[again], Y[again])
    np.testing.assert_allclose(a.decision_function(X), b.decision_function(X), atol=1e-7)


def test_what_does_not_fit_several_labels_is_said():
    """Losses of classes, a teacher, weights of no label: each says what to do."""
    X, Y = several(60)
    with pytest.raises(ArgumentError, match="loss='focal' is for classes that exclude each other"):
        luce.NeuralClassifier(loss="focal").fit(X, Y)
    classes = luce.SoftmaxRegression().fit(X, Y[:, 0])
    with pytest.raises(ArgumentError, match="leave teacher out"):
        luce.NeuralClassifier().fit(X, Y, teacher=classes)
    with pytest.raises(ArgumentError, match="names 9, which is no label"):
        luce.NeuralClassifier(class_weight={9: 1.0}).fit(X, Y)
    with pytest.raises(ArgumentError, match="of label 1 must be a number above 0"):
        luce.NeuralClassifier(class_weight={1: 0.0}).fit(X, Y)
    with pytest.raises(DataError, match="got 2 at row 0"):
        luce.NeuralClassifier().fit(X, Y + 1)


def test_a_loss_of_ones_own_is_given_numbers():
    """A callable takes logits and targets, both of (rows, labels), and gives a value for each."""
    X, Y = several(60)
    model = luce.NeuralClassifier("linear", loss=lambda z, t: (z - t).square().sum(1), epochs=30)
    assert model.fit(X, Y).predict(X).shape == Y.shape


def test_classes_after_labels():
    """An estimator that has learnt several labels learns classes as if it had not."""
    X, Y = several(60)
    model = luce.NeuralClassifier(hidden=(4,), epochs=1).fit(X, Y)
    model.fit(X, Y[:, 0])
    assert model.predict_proba(X).shape == (60, 2)
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1, rtol=1e-5)


def test_restored_from_its_tensors():
    """What is stored of a network for labels says the same probabilities."""
    X, Y = several(60)
    for options in ({}, {"members": 3}):
        model = luce.NeuralClassifier(hidden=(8,), epochs=2, **options).fit(X, Y)
        tensors = {k: v.clone() for k, v in model.network_.state_dict().items()}
        again = luce.NeuralClassifier(hidden=(8,), epochs=2, **options)
        again.restore([0, 1, 2, 3], (6,), tensors, multilabel=True)
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_scikit_learns_checks_for_several_labels_pass():
    """The estimator says multi_label, and scikit-learn's checks of it pass."""
    model = luce.NeuralClassifier(hidden=(16,), epochs=5)
    done = check_estimator(model, on_skip=None, on_fail=None)
    multi = [each for each in done if "multilabel" in each["check_name"]]
    assert len(multi) >= 4
    assert {each["status"] for each in multi} == {"passed"}


def test_a_label_that_is_always_on_or_never_is_warned_of():
    """A network can learn nothing of it, and says so as softmax regression does."""
    rng = np.random.default_rng(0)
    X, on = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 2, (40, 2))
    Y = np.column_stack([on, np.ones(40, int), np.zeros(40, int)])
    with pytest.warns(UserWarning, match="2 of 4 labels cannot be learnt: 1 on in every row, 1 in"):
        luce.NeuralClassifier(hidden=(4,), epochs=1).fit(X, Y)
