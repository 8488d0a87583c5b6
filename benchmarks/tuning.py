"""The tutorials' grid on MNIST: a two-layer network, 4 × 4 × 3 cells, five folds.

``python -m benchmarks tuning`` runs the corners of the grid (2 × 2 × 2 cells, every fold) and one
epoch of the classic tutorial's script, and says from these what the whole would take beside ten
runs of that script. ``--full`` runs every cell of the grid, and the script once with its ten
epochs, on a machine that nobody else uses.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import luce
from benchmarks.peers import tutorial_mnist
from benchmarks.timing import record

GRID = Path(__file__).with_name("tuning_grid.json")
RUNS = 10


def main(arguments: list[str]) -> None:
    """Search and train; print the ratio and write ``results/tuning.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tuning", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every cell, and all ten epochs")
    parser.add_argument("--epochs", type=int, default=3, help="of each candidate (default 3)")
    parser.add_argument("--folds", type=int, default=5, help="folds (default 5)")
    parser.add_argument("--processes", type=int, default=1, help="at once (default 1)")
    options = parser.parse_args(arguments)
    folder = Path(os.environ.get("LUCE_DATA_DIR", "data")) / "mnist"
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        sys.exit(f"no MNIST under {folder}: set LUCE_DATA_DIR to the folder that has mnist/")
    grid: dict[str, list[Any]] = json.loads(GRID.read_text(encoding="utf-8"))
    cells = count(grid)
    if not options.full:
        grid = {name: [values[0], values[-1]] for name, values in grid.items()}
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        run = luce.tune(
            "mnist",
            model="mlp",
            grid=grid,
            folds=options.folds,
            epochs=options.epochs,
            processes=options.processes,
            out=out,
        )
        taken = time.perf_counter() - start
        tuning = run.tuning
        accuracy = run.metrics["test"]["accuracy"]
    assert tuning is not None
    epochs = tutorial_mnist.EPOCHS if options.full else 1
    reached, seconds = tutorial_mnist.train(folder, epochs=epochs)
    # Trials alone grow with the cells: reading the data and the last training do not.
    trials = sum(trial["seconds"] for trial in tuning["trials"]) / options.processes
    ours = taken + trials * (cells / count(grid) - 1)
    peer = RUNS * seconds * tutorial_mnist.EPOCHS / epochs
    best = tuning["trials"][tuning["best"]]
    print(f"{count(grid)} of {cells} cells, {options.folds} folds, {options.epochs} epochs")
    print(f"best {best['options']}: log-loss {best['log_loss']:.4f}; test {accuracy:.2%}")
    print(f"tutorial, {epochs} epochs: {reached:.2%} in {seconds:.1f} s")
    print(f"grid {ours:.0f} s, ten runs of the tutorial {peer:.0f} s: {peer / ours:.2f} times")
    row = {
        "cells": count(grid),
        "of": cells,
        "folds": options.folds,
        "epochs": options.epochs,
        "processes": options.processes,
        "grid_seconds": ours,
        "ten_tutorials_seconds": peer,
        "best": best["options"],
        "test_accuracy": accuracy,
        "measured": "all" if options.full else "the corners, one epoch; scaled",
    }
    print(f"\nWritten to {record('tuning', [row], threads=torch.get_num_threads())}")


def count(grid: dict[str, list[Any]]) -> int:
    """Return how many cells a grid has."""
    cells = 1
    for values in grid.values():
        cells *= len(values)
    return cells
