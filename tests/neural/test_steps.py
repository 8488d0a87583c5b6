"""Steps of a network as CUDA graphs, on a device that is not there: the same training."""

import numpy as np
import pytest
import torch

import luce
from luce.errors import ArgumentError, DivergenceError
from luce.neural import classifier, options
from tests.pretend import DEVICE, Pretend, Recording

# Tensors of PyTorch's "meta" device hold no numbers, so it warns of a copy; the pretended ones do.
pytestmark = pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")


@pytest.fixture
def made(monkeypatch):
    """Return the graphs that are captured, while networks are trained on a device that does."""
    graphs = []

    def recording(device):
        graphs.append(Recording(device))
        return graphs[-1]

    monkeypatch.setattr(classifier, "choose_device", lambda *_: DEVICE)
    for module in (luce.graphs, options):
        monkeypatch.setattr(module, "captures", lambda device: device == DEVICE)
    monkeypatch.setattr(luce.graphs, "Recording", recording)
    return graphs


@pytest.fixture
def rows():
    """Three overlapping clouds in the plane."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 61)
    return (2 * np.eye(3)[y][:, :2] + rng.normal(size=(183, 2))).astype(np.float32), y


def trained(X, y, sample_weight=None, **options):
    """Return the weights of a network that was trained on the device, and its history."""
    with Pretend() as device:
        model = luce.NeuralClassifier(
            **{"hidden": (8,), "epochs": 3, "batch_size": 16, "dropout": 0.0} | options
        )
        model.fit(X, y, sample_weight)
        state = model.network_.state_dict()
        return {k: device.take(v).clone() for k, v in state.items()}, model.history_


CASES = {
    "adamw": {},
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0},
    "clipped": {"clip_norm": 0.1},
    "weights": {"class_weight": "balanced"},
    "averaged": {"averaging": 1.0, "schedule": "constant"},
    "early stopping": {"patience": 1},
    "members and bins": {"members": 3, "bins": 4},
    "contrastive": {"loss": "contrastive"},
    "focal": {"loss": "focal"},
    "logit adjusted": {"loss": "logit_adjusted"},
    "float64": {"precision": "float64"},
}
# PyTorch has no autocast for the device that is not there.
ON_GPU = CASES | {"mixed": {"precision": "mixed"}}


@pytest.mark.parametrize("case", CASES)
def test_a_training_of_graphs_is_that_of_plain_steps(case, made, rows):
    """Up to the rounding of the rate, which a graph reads as float32; two shapes of a batch."""
    found, history = trained(*rows, **CASES[case], step="graph")
    assert len(made) == 2
    assert made[0].replayed > 20
    wanted, plain = trained(*rows, **CASES[case])
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=2e-4, atol=2e-5)
    assert [r["loss"] for r in history] == pytest.approx([r["loss"] for r in plain], rel=1e-4)


def test_images(made):
    """Normalisation's running statistics are the network's, and move once a step."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(64, 1, 8, 8)).astype(np.float32), np.arange(64) % 3
    options = {"module": "cnn", "batch_size": 16, "epochs": 2}
    found, _ = trained(X, y, **options, step="graph")
    assert made[0].replayed == 6
    wanted, _ = trained(X, y, **options)
    assert any("num_batches" in name for name in wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=1e-3)


def test_several_labels(made, rows):
    """And a teacher: what is beside a batch is copied in too."""
    X, y = rows
    found, _ = trained(X, np.eye(3, dtype=int)[y], step="graph")
    wanted, _ = trained(X, np.eye(3, dtype=int)[y])
    assert made[0].replayed
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=2e-4, atol=2e-5)


def test_what_a_teacher_says_is_copied_in(made, rows):
    """With every batch."""
    X, y = rows
    teacher = luce.SoftmaxRegression().fit(X, y)
    models = []
    for step in ("graph", "plain"):
        with Pretend() as device:
            model = luce.NeuralClassifier(hidden=(8,), epochs=3, batch_size=16, step=step)
            model.fit(X, y, teacher=teacher)
            models.append({k: device.take(v) for k, v in model.network_.state_dict().items()})
    assert made[0].replayed
    for name, found in models[0].items():
        torch.testing.assert_close(found, models[1][name], rtol=2e-4, atol=2e-5)


def test_a_training_that_was_broken_off_goes_on_to_the_same_bits(made, rows):
    """In the middle of an epoch, with dropout: graphs are captured anew."""
    asked = {"hidden": (8,), "epochs": 3, "batch_size": 16, "dropout": 0.5, "step": "graph"}
    whole, _ = trained(*rows, **asked)
    with Pretend() as device:
        first = luce.NeuralClassifier(**asked)
        for count, _ in enumerate(first.fit_steps(*rows)):
            if count == 16:
                kept = first.state_.tensors(), first.state_.scalars()
                break
        model = luce.NeuralClassifier(**asked)
        for _ in model.fit_steps(*rows, resume=kept):
            pass
        for name, tensor in model.network_.state_dict().items():
            assert torch.equal(device.take(tensor), whole[name])


def test_an_epoch_waits_no_more_often(made, rows):
    """For losses and hits, once in 32 batches and at the end; the rate waits for nothing."""
    with Pretend() as device:
        model = luce.NeuralClassifier(hidden=(8,), epochs=3, batch_size=4, step="graph")
        waits, before = [], None
        for progress in model.fit_steps(*rows):
            if before is not None and progress.batch > 1:
                waits.append(device.waits - before)
            before = device.waits
            if progress.epoch == 2:
                break
    assert sum(waits) == 2


def test_a_loss_that_is_not_finite_is_found(made, rows):
    """As of plain steps on a device: some batches later, by the batch in which it was."""
    options = {"optimizer": "sgd", "learning_rate": 1e30, "schedule": "constant"}
    with pytest.raises(DivergenceError, match=r"epoch 1, batch \d+\. Lower learning_rate"):
        trained(*rows, **options, step="graph")


@pytest.mark.parametrize(
    ("module", "loss"), [("mlp", "cross_entropy"), (torch.nn.Linear(2, 3), "hinge")]
)
def test_a_gpu_is_needed(module, loss, rows):
    """On a CPU steps are what they are; what to do is said."""
    model = luce.NeuralClassifier(module, loss=loss, step="graph", device="cpu")
    with pytest.raises(ArgumentError, match=r"step='graph' is for a GPU, got device 'cpu'\. Use"):
        model.fit(*rows)


def test_sparse_rows_have_no_one_shape(made, rows):
    """And are refused before anything is made of them."""
    import scipy.sparse

    X, y = rows
    model = luce.NeuralClassifier(step="graph")
    with Pretend(), pytest.raises(ArgumentError, match="batches of one shape, got sparse rows"):
        model.fit(scipy.sparse.csr_array(X), y)


def test_what_cannot_be_captured_is_said(made, rows):
    """In PyTorch's words, and what to do."""

    class Reads(torch.nn.Linear):
        calls = 0

        def forward(self, x):
            Reads.calls += self.training
            if Reads.calls == 3:
                raise RuntimeError(
                    "CUDA error: operation not permitted when stream is capturing\n…"
                )
            return super().forward(x)

    with pytest.raises(ArgumentError, match=r"stream is capturing\. Use step='plain'"):
        trained(*rows, module=Reads(2, 3), step="graph")


def test_ranks_share_no_graph():
    """Between two halves of a step they speak."""
    with pytest.raises(ArgumentError, match="is for one process, got 2 in a group"):
        options.check_step("graph", torch.device("cuda"), 2, sparse=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make gpu")
@pytest.mark.parametrize("case", ON_GPU)
def test_cuda_graphs_train_as_plain_steps_do(case, rows):
    """The same random numbers too; nothing waits but to read figures."""
    X, y = rows
    models = []
    for step in ("graph", "plain"):
        asked = {"hidden": (8,), "epochs": 3, "batch_size": 16, "device": "cuda", "step": step}
        model = luce.NeuralClassifier(**asked | ON_GPU[case])
        models.append(model.fit(X, y).network_.state_dict())
    for name, found in models[0].items():
        torch.testing.assert_close(found, models[1][name], rtol=1e-3, atol=1e-3)
