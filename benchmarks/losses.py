"""What each loss does to the digits: as they are, with wrong labels, and with rare classes.

``python -m benchmarks losses`` trains the same small network with every loss, several seeds:

- *clean*: the 1,797 digits as they are;
- *wrong labels*: a new class is drawn for 40% of the training and validation rows, which may be the
  old one;
- *rare*: of the odd digits only 5% of the training and validation rows are left.

30% of the rows are kept apart for the test; their labels are right and no class is rare there. Of
the other rows 20% only set a temperature: log-loss is given before and after it. The figures are
means over the seeds. ``--draw`` only draws the losses, to ``docs/losses.svg``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

import luce
from benchmarks.timing import RESULTS, record
from luce.evaluation import metrics
from luce.evaluation.calibration import fit_temperature
from luce.neural.losses import LOSSES, choose_loss

NETWORK: dict[str, Any] = {"hidden": (64,), "epochs": 60, "batch_size": 64}
OPTIONS = luce.NeuralClassifier().get_params()
# Okabe and Ito's palette: told apart by every kind of colour vision. Dashes differ too.
COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#0072b2")
LINES = ("-", "--", "-.", ":")
GREYS = ("#000000", "#555555", "#999999")
# Of the class that the picture has for a rare one.
RARE = 0.1


def main(arguments: list[str]) -> None:
    """Train with every loss on every version; print a table; write ``losses.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks losses", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="splits and networks (default 5)")
    parser.add_argument("--draw", action="store_true", help="only draw the losses")
    options = parser.parse_args(arguments)
    if options.draw:
        draw(RESULTS.parents[1] / "docs" / "losses.svg")
        return
    print(f"{'':<27}{'accuracy':>9}{'balanced':>10}{'log-loss':>10}{'then':>8}{'T':>6}")
    rows = []
    for version, spoil in VERSIONS.items():
        print(version)
        for loss in LOSSES:
            found = [figures(loss, spoil, seed) for seed in range(options.seeds)]
            mean = {name: statistics.mean(each[name] for each in found) for name in found[0]}
            print(
                f"  {loss:<25}{mean['accuracy']:>9.1%}{mean['balanced']:>10.1%}"
                f"{mean['log_loss']:>10.3f}{mean['calibrated']:>8.3f}{mean['temperature']:>6.2f}",
                flush=True,
            )
            rows.append({"version": version, "loss": loss, **mean})
    print(f"\nWritten to {record('losses', rows, seeds=options.seeds)}")


def figures(loss: str, spoil: Any, seed: int) -> dict[str, float]:
    """Return how a network does on the test rows that learnt spoilt ones."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, stratify=y, random_state=seed)
    X, y = spoil(X, y, np.random.default_rng(seed))
    X, X_valid, y, y_valid = train_test_split(X, y, test_size=0.2, random_state=seed)
    model = luce.NeuralClassifier(**NETWORK, loss=loss, seed=seed).fit(X, y)
    temperature = fit_temperature(model.predict_log_proba(X_valid), y_valid)
    logs = model.predict_log_proba(X_test)
    before, after = (luce.softmax(logs / t, dim=1) for t in (1.0, temperature))
    said = before.argmax(axis=1)
    return {
        "accuracy": metrics.accuracy(y_test, before),
        "balanced": float(balanced_accuracy_score(y_test, said)),
        "log_loss": metrics.log_loss(y_test, before),
        "calibrated": metrics.log_loss(y_test, after),
        "temperature": temperature,
    }


def _wrong(X: Any, y: Any, generator: np.random.Generator) -> tuple[Any, Any]:
    chosen = generator.random(len(y)) < 0.4
    return X, np.where(chosen, generator.integers(10, size=len(y)), y)


def _rare(X: Any, y: Any, generator: np.random.Generator) -> tuple[Any, Any]:
    kept = (y % 2 == 0) | (generator.random(len(y)) < 0.05)
    # At least one row of each class.
    kept[np.unique(y, return_index=True)[1]] = True
    return X[kept], y[kept]


VERSIONS = {"clean": lambda X, y, _: (X, y), "wrong labels": _wrong, "rare": _rare}


def draw(path: Path) -> None:
    """Draw the losses of two classes over the margin, what they pull, and the contrastive part."""
    margin = torch.linspace(-5, 5, 201, dtype=torch.float64)
    logits = torch.stack([margin, torch.zeros_like(margin)], dim=1)
    target = torch.zeros(len(margin), dtype=torch.int64)
    shares = torch.tensor([RARE, 1 - RARE], dtype=torch.float64)
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for i, name in enumerate(each for each in LOSSES if not LOSSES[each].needs_features):
        z = logits.clone().requires_grad_()
        losses = choose_loss(name, OPTIONS, shares)(z, target, reduction="none")
        losses.sum().backward()
        assert z.grad is not None
        label = name.replace("_", " ") + (f" (class of {RARE:.0%})" * LOSSES[name].needs_shares)
        style = {"color": COLOURS[i], "linestyle": LINES[i % len(LINES)], "label": label}
        left.plot(margin, losses.detach(), **style)
        middle.plot(margin, -z.grad[:, 0], **style)
    left.set(title="loss", ylim=(0, 5), xlabel="margin $z_y - z_{other}$")
    middle.set(title="how hard it pulls $z_y$ up", xlabel="margin $z_y - z_{other}$")
    similarity = torch.linspace(-1, 1, 81, dtype=torch.float64)
    for i, temperature in enumerate((1.0, 0.5, 0.1)):
        right.plot(
            similarity,
            pulled(similarity, temperature),
            color=GREYS[i],
            linestyle=LINES[i],
            label=f"T = {temperature:g}",
        )
    right.set(
        title="contrastive part", ylim=(0, 5), xlabel="similarity to its own class\n(others: 0)"
    )
    right.legend(frameon=False, fontsize="small")
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    with rc_context({"svg.hashsalt": "luce"}):
        figure.savefig(path, metadata={"Date": None})
    print(f"Drawn in {path}")


def pulled(similarity: torch.Tensor, temperature: float) -> list[float]:
    """Return the contrastive loss of an example with one of its class and one at right angles."""
    options = {**OPTIONS, "contrastive_temperature": temperature, "contrastive_weight": 1.0}
    loss, target = choose_loss("contrastive", options), torch.tensor([0, 0, 1])
    found = []
    for s in similarity.tolist():
        # In three dimensions, so that the third is at right angles to the first whatever s is.
        rest = (1 - s * s) ** 0.5
        hidden = torch.tensor([[1, 0, 0], [s, rest, 0], [0, 0, 1]], dtype=torch.float64)
        even = torch.zeros(3, 2, dtype=torch.float64)
        both = loss(even, target, reduction="none", features=hidden)[0]
        found.append(float(both) - float(torch.tensor(2.0).log()))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
