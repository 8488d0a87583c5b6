"""What each rank of a group does for `test_together.py`: trains, and writes what came of it."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import luce
from luce.data.blocks import BlockStore
from luce.errors import LuceError
from luce.group import ALONE, Group, join

warnings.simplefilter("error")
folder = Path(sys.argv[1])
group = join()
X, y, weight, images = (np.load(folder / f"{n}.npy") for n in ("X", "y", "weight", "images"))
store = BlockStore.open(folder / "rows")
facts = {}


def keep(name, model):
    """Write a network's tensors, and its history without times that only a clock knows."""
    save_file(model.network_.state_dict(), folder / f"{name}-{group.rank}.safetensors")
    facts[name] = {"history": model.history_, "epochs": model.n_iter_, "best": model.best_epoch_}


def broken(options, stop_after, *data, **also):
    """Train, stop after so many batches, and go on with another estimator."""
    first = luce.NeuralClassifier(**options)
    steps = first.fit_steps(*data, **also)
    for _ in range(stop_after):
        next(steps)
    # Of rank 0 alone, as a checkpoint is.
    tensors = {k: v.numpy().copy() for k, v in first.state_.tensors().items()}
    state = (
        group.told_arrays(tensors if group.rank == 0 else None),
        group.told(first.state_.scalars()),
    )
    steps.close()
    second = luce.NeuralClassifier(**options)
    for _ in second.fit_steps(*data, **also, resume=state):
        pass
    return second


def fails(name, function):
    """Note how it fails."""
    try:
        function()
    except LuceError as error:
        facts[name] = [type(error).__name__, str(error)]


tabular = {"hidden": (8,), "members": 2, "bins": 4, "dropout": 0.3, "epochs": 4, "batch_size": 33}
tabular |= {"patience": 3}
keep("tabular", luce.NeuralClassifier(**tabular).fit(X, y))
keep("tabular-broken", broken(tabular, 5, X, y))

plain = {"module": "linear", "precision": "float64", "optimizer": "sgd", "schedule": "constant"}
plain |= {"epochs": 3, "batch_size": 41, "clip_norm": 0.5, "averaging": 1.0}
keep("plain", luce.NeuralClassifier(**plain).fit(X, y, weight))

cnn = {"module": "cnn", "epochs": 2, "batch_size": 20}
keep("cnn", luce.NeuralClassifier(**cnn).fit(images, y[: len(images)]))
keep("cnn-broken", broken(cnn, 3, images, y[: len(images)]))

stored = {"hidden": (8,), "dropout": 0.3, "epochs": 3, "batch_size": 33, "patience": 2}
data = {"validation": store.part("validation")}
keep("stored", luce.NeuralClassifier(**stored).fit(store.part("train"), **data))
keep("stored-broken", broken(stored, 6, store.part("train"), **data))

unused = nn.Sequential(nn.Linear(6, 3))
unused.extra = nn.Parameter(torch.ones(2))
keep("unused", luce.NeuralClassifier(unused, epochs=1, l2=0.5).fit(X, y))

limited = {"hidden": (8,), "epochs": 50, "batch_size": 32, "minutes": 1e-4}
keep("limited", luce.NeuralClassifier(**limited).fit(X, y))

fast = {"module": "linear", "optimizer": "sgd", "learning_rate": 1e30, "schedule": "constant"}
fails("diverged", lambda: luce.NeuralClassifier(**fast, epochs=50).fit(X, y))
own = slice(None) if group.rank == 0 else slice(0, 100)
fails("unequal", lambda: luce.NeuralClassifier(epochs=1).fit(X[own], y[own]))
fails("options", lambda: luce.NeuralClassifier(epochs=1 + group.rank).fit(X, y))
fails("small", lambda: luce.NeuralClassifier(epochs=1, batch_size=3).fit(X, y))


def agreed(failing, error):
    with group.agreed():
        if group.rank == failing:
            raise error


fails("agreed-0", lambda: agreed(0, luce.errors.RunError("the disk is full.")))
fails("agreed-1", lambda: agreed(1, luce.errors.DataError("no file.")))
fails("agreed", lambda: agreed(None, None))
facts["told"] = group.told({"rank": group.rank, "text": "ß"})
facts["each"] = group.each(["x"] * group.rank)
facts["any"] = [group.any(group.rank == 1), group.any(asked=False)]
facts["arrays"] = {
    name: [array.tolist(), str(array.dtype)]
    for name, array in group.told_arrays(
        {"a": np.arange(3, dtype=np.int16), "b": np.zeros((0, 2)), "c": np.float32(1.5)}
        if group.rank == 0
        else None
    ).items()
}
facts["same"] = [group == Group(group.rank, 2), ALONE.told("x"), join() == group]
facts["_dynamo"] = "torch._dynamo" in sys.modules
(folder / f"facts-{group.rank}.json").write_text(json.dumps(facts))
