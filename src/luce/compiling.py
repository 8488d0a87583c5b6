"""Compiled kernels: which are on disk, and how to compile those that are usually needed.

Numba compiles a kernel at its first call for the dtypes that it meets, and keeps the machine code
in a folder. ``warm_up`` makes those first calls, a process for each group of kernels: Numba's
compiler is locked to one thread of a process, and two processes must not write the same kernel.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from luce import functional
from luce.kernels import available

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Compiled", "compiled", "warm_up"]

_OF_LINEAR = ("coarse", "coordinate", "fused", "gram", "scans", "sparse")
_FLOATS = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Compiled:
    """What is on disk for this processor and this version.

    Attributes
    ----------
    folder
        Where, or where the folders of its parts are; None if nothing can be kept here.
    kernels
        For how many combinations of dtypes each kernel is compiled; 0 for not yet.
    """

    folder: str | None
    kernels: dict[str, int]


def compiled() -> Compiled:
    """Return which kernels are compiled on disk.

    Examples
    --------
    >>> from luce.compiling import compiled
    >>> "rows.softmax_rows" in compiled().kernels
    True
    """
    folders, kernels = set(), {}
    for name, kernel in sorted(_kernels()):
        cache = kernel._cache  # noqa: SLF001
        index = cache._cache_file._load_index()  # noqa: SLF001
        machine = kernel.targetctx.codegen().magic_tuple()
        kernels[name] = sum(key[1] == machine for key in index)
        folders.add(str(Path(cache.cache_path)))
    folder = os.path.commonpath(folders) if folders else None
    return Compiled(folder, kernels)


def _kernels() -> Iterator[tuple[str, Any]]:
    """Yield each kernel that is kept on disk, as file.name."""
    if available()["cpu"] is not None:
        return
    path = importlib.import_module("luce.kernels.cpu").__path__
    homes = [f"luce.kernels.cpu.{module.name}" for module in pkgutil.iter_modules(path)]
    for home in [*homes, *(f"luce.linear.{name}" for name in _OF_LINEAR), "luce.data.ngrams"]:
        for name, value in vars(importlib.import_module(home)).items():
            of_here = getattr(getattr(value, "py_func", None), "__module__", None) == home
            if of_here and hasattr(value._cache, "_cache_file"):  # noqa: SLF001
                yield f"{home.rpartition('.')[2]}.{name}", value


def warm_up(
    report: Callable[[str, float], object] | None = None, processes: int | None = None
) -> Compiled:
    """Compile what softmax regressions and losses of float32 and float64 tensors need.

    What is on disk already is not compiled again.

    Parameters
    ----------
    report
        Called with the name of each group of kernels and its seconds, when it is there.
    processes
        How many compile side by side; by default as many as there are cores, at most six.

    Returns
    -------
    Compiled
        What is there now.
    """
    groups = list(_GROUPS) if available()["cpu"] is None else []
    workers = min(processes or os.cpu_count() or 1, len(groups))
    if workers > 1:
        # Started afresh: a fork of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for future in as_completed([pool.submit(_compile, name) for name in groups]):
                _told(report, *future.result())
    else:
        for name in groups:
            _told(report, *_compile(name))
    return compiled()


def _told(report: Callable[[str, float], object] | None, name: str, seconds: float) -> None:
    if report is not None:
        report(name, seconds)


def _compile(group: str) -> tuple[str, float]:
    since = time.perf_counter()
    _GROUPS[group]()
    return group, time.perf_counter() - since


# Each group calls kernels that no other does; the longest come first.


def _regression() -> None:
    from luce.kernels.cpu.pairs import has_pairs
    from luce.linear.coarse import coarse_pass, packed
    from luce.linear.fused import dense_pass, padded

    y, weight = np.arange(64) % 2, np.ones(64)
    for kind in (np.float32, np.float64):
        X = np.ones((64, 64), kind)
        for classes in (10, 4, 3, 2, 1):  # the blocks that logits are computed in
            W, bias = np.zeros((classes, 64), kind), np.zeros(classes, kind)
            link = "softmax" if classes > 1 else "sigmoid"
            sums = np.zeros((classes, 64)), np.zeros(classes), np.zeros((0, classes))
            dense_pass(X, padded(W), bias, y, weight, link, *sums)
    if has_pairs():
        W, bias = np.zeros((30, 64), np.float32), np.zeros(30, np.float32)
        sums = np.zeros((30, 64)), np.zeros(30), np.zeros((0, 30))
        coarse_pass(np.ones((64, 64), np.float32), packed(W), bias, y, weight, "softmax", *sums)


def _losses() -> None:
    y = torch.zeros(64, dtype=torch.int64)
    for kind in _FLOATS:
        for classes in (10, 100):  # in tiles, and in rows
            x = torch.zeros(64, classes, dtype=kind, requires_grad=True)
            for goal in (y, x.detach()):
                functional.cross_entropy(x, goal, backend="cpu").backward()
        x = torch.zeros(64, 8, dtype=kind, requires_grad=True)
        head = torch.zeros(300, 8, dtype=kind)
        for budget in (50_000, 64 << 20):  # tiles of classes, and of rows
            functional.linear_cross_entropy(
                x, head, y, memory_budget=budget, backend="cpu"
            ).backward()


def _softmaxes() -> None:
    for kind in _FLOATS:
        for classes in (10, 100):
            x = torch.zeros(64, classes, dtype=kind, requires_grad=True)
            for operator in (functional.softmax, functional.log_softmax, functional.logsumexp):
                operator(x, 1, backend="cpu").sum().backward()


def _regression_starts() -> None:
    from luce.kernels.cpu.pairs import has_pairs
    from luce.linear.gram import dense_grams
    from luce.linear.scans import column_sums, distances

    weight = np.ones(64)
    for kind in (np.float32, np.float64):
        A = np.ones((64, 16), kind)
        for coarse in {False, has_pairs() and kind is np.float32}:
            dense_grams(A, np.ones((1, 64), kind), np.zeros((1, 16, 16), kind), coarse=coarse)
        for X in (A, A.astype(np.uint8)):
            column_sums(X, A[0], weight, np.zeros(16), np.zeros(16))
            distances(X, A[0], np.zeros(64))


def _zeros() -> None:
    from luce.linear.coordinate import descend, descend_groups

    one = np.ones(2)
    descend(np.eye(2), one, one, one, np.zeros(2), 0.1, 1)
    both = np.ones((2, 2))
    descend_groups(np.ones((2, 2, 2)), both, one, one, one, both.copy(), 0.1, 1)


def _sparse() -> None:
    from luce.linear.sparse import sparse_accumulate, sparse_gather, sparse_project

    n = 8
    for kind in (np.float32, np.float64):
        pointers, places = np.arange(n + 1, dtype=np.int32), np.arange(n, dtype=np.int32)
        X = (pointers, places, np.ones(n, kind))
        R, Gt = np.ones((n, 4), kind), np.zeros((n, 4))
        sparse_project(X, 0, R, np.zeros((n, 4), kind), 1)
        sparse_accumulate(X, 0, R, Gt, 1)
        sparse_gather(X, R, Gt, 1)


def _texts() -> None:
    import polars as pl

    from luce.data.vocabulary import Vocabulary

    texts = pl.Series(["good film", "a good film"])
    Vocabulary.learn(texts).encode(texts)


_GROUPS: dict[str, Callable[[], None]] = {
    "softmax regression": _regression,
    "losses": _losses,
    "softmax": _softmaxes,
    "means and covariances": _regression_starts,
    "sparse rows": _sparse,
    "sparse coefficients": _zeros,
    "texts": _texts,
}
