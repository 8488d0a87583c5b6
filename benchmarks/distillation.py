"""MNIST: what a small network gains from a teacher, over the same network without one.

``python -m benchmarks distillation`` trains a convolutional network on the 60,000 training images,
then for each seed a student of 32 hidden units twice, from the same initial weights and on batches
in the same order: on the labels alone, and from the teacher beside them. All are scored on the
10,000 test images. The gain is in points of accuracy; asked for are 0.3 in the mean of five seeds.
A student needs time: on its own it learns the training images by heart, with a teacher it goes on
to gain (Beyer et al., 2022). ``--rows`` and ``--epochs`` make it smaller; ``--temperatures``
and ``--alphas`` try several.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import luce
from benchmarks.mnist import load
from benchmarks.timing import record
from luce.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN = 32


def main(arguments: list[str]) -> None:
    """Train all; print a line for each student and the mean gain; write ``distillation.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks distillation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="students of each kind (default 5)")
    parser.add_argument("--rows", type=int, default=60_000, help="training rows (default all)")
    parser.add_argument("--epochs", type=int, default=40, help="of the students (default 40)")
    parser.add_argument("--teacher-epochs", type=int, default=3, help="of the teacher (default 3)")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[2.0])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.9])
    options = parser.parse_args(arguments)
    folder = Path(os.environ.get("LUCE_DATA_DIR", "data")) / "mnist"
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        sys.exit(f"no MNIST under {folder}: set LUCE_DATA_DIR to the folder that has mnist/")
    images, labels = (array[: options.rows] for array in load(folder, "train"))
    test = load(folder, "t10k")
    since = time.perf_counter()
    teacher = luce.NeuralClassifier(
        "cnn", **{**MODELS["cnn"].defaults, "epochs": options.teacher_epochs}
    ).fit(images, labels)
    scored = float(teacher.score(*test))
    print(f"teacher: {scored:.2%} after {time.perf_counter() - since:.0f} s", flush=True)
    answers = Answers(teacher, images)
    recipe: dict[str, Any] = {"hidden": (HIDDEN,), "epochs": options.epochs, "batch_size": 256}
    rows: list[dict[str, Any]] = [{"what": "teacher", "accuracy": scored}]
    alone: list[float] = []
    for seed in range(options.seeds):
        student = luce.NeuralClassifier(**recipe, learning_rate=5e-3, seed=seed)
        alone.append(float(student.fit(images, labels).score(*test)))
        print(f"seed {seed}, alone: {alone[-1]:.2%}", flush=True)
    for temperature in options.temperatures:
        for alpha in options.alphas:
            found: list[float] = []
            for seed in range(options.seeds):
                student = luce.NeuralClassifier(**recipe, learning_rate=5e-3, seed=seed)
                student.fit(images, labels, teacher=answers, temperature=temperature, alpha=alpha)
                found.append(float(student.score(*test)))
            rows.append(summary(temperature, alpha, alone, found))
    path = record("distillation", rows, options=vars(options), threads=torch.get_num_threads())
    print(f"\nWritten to {path}")


class Answers:
    """A teacher of the same rows again and again: its answers are computed once."""

    def __init__(self, teacher: luce.NeuralClassifier, rows: Any) -> None:
        self.classes_ = teacher.classes_
        self.given, self.at = teacher.predict_proba(rows), 0

    def predict_proba(self, rows: Any) -> Any:
        """Return the answers of the next rows; after the last come the first."""
        found = self.given[self.at : self.at + len(rows)]
        self.at = (self.at + len(rows)) % len(self.given)
        return found


def summary(
    temperature: float, alpha: float, alone: Sequence[float], taught: Sequence[float]
) -> dict[str, Any]:
    """Print what the students gained, and return it."""
    gains = [100 * (b - a) for a, b in zip(alone, taught, strict=True)]
    print(
        f"T = {temperature:g}, alpha = {alpha:g}: {statistics.mean(alone):.2%} alone, "
        f"{statistics.mean(taught):.2%} taught: {statistics.mean(gains):+.2f} points "
        f"({min(gains):+.2f} to {max(gains):+.2f})",
        flush=True,
    )
    return {
        "what": "student",
        "hidden": HIDDEN,
        "temperature": temperature,
        "alpha": alpha,
        "alone": list(alone),
        "taught": list(taught),
        "gain": statistics.mean(gains),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
