"""Fits on a GPU, and what is a part of them: passes, steps; each a job of ``benchmarks cuda``.

A job is given the time, of ``time.monotonic()``, after which it begins nothing: peers that are not
reached are named among those that are absent.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import luce
from benchmarks.cuda_timing import DTYPES, Machine, alternated
from benchmarks.timing import ratio

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Rows = list[dict[str, Any]]
PROBE, MNIST, TINY = (1_280_000, 1_024, 1_000), (60_000, 784, 10), (600, 8, 4)
# Rows at a time, for what the peers lack.
BLOCK = 65_536


def mnist_folder() -> Path | None:
    """Return the folder with MNIST's files, if it is there; else say where it was looked for."""
    folder = Path(os.environ.get("LUCE_DATA_DIR", "data")) / "mnist"
    if (folder / "train-images-idx3-ubyte.gz").is_file():
        return folder
    print(f"no MNIST under {folder}: set LUCE_DATA_DIR to the folder that has mnist/")
    return None


def a_pass(
    shape: tuple[int, int, int], dtype: str, machine: Machine, end: float, *, tiny: bool
) -> Rows:
    """Time value and gradient of a softmax regression, plainly and, if it is small, as a graph."""
    from luce.linear.objective import Objective
    from luce.linear.rows import as_rows

    del end
    N, D, K = TINY if tiny else shape
    torch.manual_seed(0)
    X = torch.empty(N, D, dtype=DTYPES[dtype], device=machine.device)
    for i in range(0, N, BLOCK):
        X[i : i + BLOCK] = torch.randn(len(X[i : i + BLOCK]), D, device=machine.device)
    y = torch.randint(K, (N,), device=machine.device)
    weight = torch.ones(N, dtype=torch.float64, device=machine.device)
    objective = Objective(
        as_rows(X), y, weight, n_logits=K, link="softmax", C=1.0, fit_intercept=True,
        dtype=torch.float32,
    )  # fmt: skip
    theta = objective.start()
    calls = {"plain": lambda: objective._pass(theta, logs=False)}  # noqa: SLF001 - what is captured
    if tiny or shape == MNIST:
        calls["graph"] = lambda: objective.unread(theta)
    what = f"a pass of {N:,}×{D:,}×{K:,}"
    row = _in_turn(what, calls, machine, tiny=tiny)
    # Two products in float32, and the rows read for each.
    moved = 2.0 * N * D * X.element_size() / machine.bytes
    bound = max(4.0 * N * D * K / machine.flops["fp32"], moved)
    best = min(statistics.median(each) for each in row["seconds"].values())
    row |= {"share": bound / best, "kept": best <= 1.5 * bound}
    print(f"{what}: {bound / best:.1%} of what is possible (asked: 67%)")
    return [row]


def small_network(machine: Machine, end: float, *, tiny: bool) -> Rows:
    """Time small steps plainly and as CUDA graphs, in turn."""
    del end
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(2_048, 64)).astype(np.float32)
    labels = generator.integers(0, 10, len(rows))

    def trained(step: str) -> Callable[[], object]:
        options = {"epochs": 2 if tiny else 10, "device": str(machine.device), "step": step}
        return lambda: luce.NeuralClassifier(**options).fit(rows, labels)

    steps = {"plain": trained("plain")}
    if machine.device.type == "cuda":
        steps["graph"] = trained("graph")
    return [_in_turn("a small network", steps, machine, tiny=tiny)]


def _in_turn(
    what: str, calls: dict[str, Callable[[], object]], machine: Machine, *, tiny: bool
) -> dict[str, Any]:
    """Time plain work and graphs as users meet them: waiting for the host is what graphs save."""
    seconds, failed = alternated(calls, machine.device, 3 if tiny else 9, with_host=True)
    row: dict[str, Any] = {"case": what, "seconds": seconds, "absent": failed}
    if {"graph", "plain"} <= seconds.keys():
        row["ratio"] = ratio(seconds["plain"], seconds["graph"])
        print(f"{what}: as a graph {row['ratio']['ratio']:.2f}× as fast as plainly")
    for name, reason in failed.items():
        print(f"{what}, {name}: {reason}")
    return row


def mnist_regression(machine: Machine, end: float, *, tiny: bool) -> Rows:
    """Fit MNIST's pixels, C = 1, to a gap of 1e-6, beside cuML and PyTorch's L-BFGS."""
    if tiny:
        X = torch.randn(TINY[:2], device=machine.device)
        y = torch.arange(len(X), device=machine.device) % TINY[2]
    else:
        from benchmarks.peers import tutorial_mnist

        folder = mnist_folder()
        if folder is None:
            return []
        examples = tutorial_mnist.MNIST(folder, "train")
        X = (examples.data.flatten(1).float() / 255).to(machine.device)
        y = examples.targets.to(machine.device)
    return [_fitted("MNIST, C = 1", X, y, machine, end)]


def probe(machine: Machine, end: float, *, tiny: bool) -> Rows:
    """Fit a made-up probe of ImageNet's size, beside cuML and PyTorch's L-BFGS."""
    N, D, K = TINY if tiny else PROBE
    torch.manual_seed(0)
    centres = torch.randn(K, D, device=machine.device)
    y = torch.randint(K, (N,), device=machine.device)
    y[:K] = torch.arange(K, device=machine.device)
    X = torch.empty(N, D, dtype=torch.bfloat16, device=machine.device)
    for i in range(0, N, BLOCK):
        part = slice(i, i + BLOCK)
        X[part] = (0.12 * centres[y[part]] + torch.randn_like(X[part], dtype=torch.float32)).to(X)
    return [_fitted("a probe", X, y, machine, end)]


def _fitted(what: str, X: Tensor, y: Tensor, machine: Machine, end: float) -> dict[str, Any]:
    """Fit ours to a gap of 1e-6, then the peers; say how far above ours they end.

    The peers have the same objective in float32.
    """
    K = int(y.max()) + 1
    luce.SoftmaxRegression().fit(X[: 4 * K], y[: 4 * K])  # libraries set themselves up
    start = time.perf_counter()
    model = luce.SoftmaxRegression(C=1.0, tol=1e-6).fit(X, y)
    took = time.perf_counter() - start
    iterations = max(1, int(model.n_iter_[0]))
    row: dict[str, Any] = {
        "case": f"{what}: {len(X):,}×{X.shape[1]:,}×{K:,}",
        "seconds": took,
        "iterations": iterations,
        "gap": model.duality_gap_,
        # Two products for each iteration, at what the machine multiplies in float32.
        "share": 4.0 * X.numel() * K * iterations / machine.flops["fp32"] / took,
        "absent": {},
        "peers": {},
    }
    print(f"{row['case']}: gap {row['gap']:.1e} in {iterations} iterations, {took:.2f} s")
    for name, fit in (("cuML", _cuml), ("torch L-BFGS", _torch_lbfgs)):
        if time.monotonic() > end:
            row["absent"][name] = "no time was left"
        else:
            try:
                peer, W, b = fit(X, y, K, model.objective_, end)
                above = _objective(X, y, W, b) / model.objective_ - 1
                row["peers"][name] = {"seconds": peer, "above ours": above}
                print(f"    {name}: {peer / took:.2f}× the time, then {above:.1e} above ours")
            except Exception as error:  # noqa: BLE001 - of whoever's
                row["absent"][name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if name in row["absent"]:
            print(f"    {name}: {row['absent'][name]}")
    return row


def _objective(X: Tensor, y: Tensor, W: Tensor, b: Tensor) -> float:
    """Return what all of them minimise, in float64."""
    total = 0.5 * float(W.double().square().sum())
    for i in range(0, len(X), BLOCK):
        z = X[i : i + BLOCK].double() @ W.double().T + b.double()
        total += float(torch.nn.functional.cross_entropy(z, y[i : i + BLOCK], reduction="sum"))
    return total


def _cuml(X: Tensor, y: Tensor, K: int, best: float, end: float) -> tuple[float, Tensor, Tensor]:
    del K, best, end  # it stops by itself alone
    peer = import_module("cuml.linear_model").LogisticRegression(C=1.0, tol=1e-6, max_iter=1_000)
    wide = X.float()
    torch.cuda.synchronize()
    start = time.perf_counter()
    peer.fit(wide, y)
    torch.cuda.synchronize()
    took = time.perf_counter() - start
    W, b = (torch.as_tensor(np.asarray(a)).to(X.device) for a in (peer.coef_, peer.intercept_))
    return took, W, b


def _torch_lbfgs(
    X: Tensor, y: Tensor, K: int, best: float, end: float
) -> tuple[float, Tensor, Tensor]:
    """Go on until the objective is within a millionth of ours, for 500 iterations or to the end."""
    W = torch.zeros(K, X.shape[1], device=X.device, requires_grad=True)
    b = torch.zeros(K, device=X.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=20, line_search_fn="strong_wolfe")
    loss = math.inf

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = 0.5 * W.square().sum()
        value.backward()
        for i in range(0, len(X), BLOCK):
            part = slice(i, i + BLOCK)
            own = luce.cross_entropy(X[part].float() @ W.T + b, y[part], reduction="sum")
            own.backward()
            value = value.detach() + own.detach().double()
        return value

    start = time.perf_counter()
    for _ in range(25):
        loss = float(optimizer.step(closure))
        if loss <= best * (1 + 1e-6) or time.monotonic() > end:
            break
    return time.perf_counter() - start, W.detach(), b.detach()


def network(
    recipe: str, target: float, step: str, machine: Machine, end: float, *, tiny: bool
) -> Rows:
    """Train MNIST on the device: seconds, and whether the test images that are right are enough."""
    from benchmarks import mnist

    del end
    folder = mnist_folder()
    if tiny or folder is None:
        return []
    (X, y), (test, labels) = mnist.load(folder, "train"), mnist.load(folder, "t10k")
    options = mnist.FAST if recipe == "fast" else mnist.RECIPES[recipe]
    options = options | {"device": str(machine.device), "step": step}
    luce.NeuralClassifier(**options | {"epochs": 1}).fit(X[:2_000], y[:2_000])
    start = time.perf_counter()
    model = luce.NeuralClassifier(**options).fit(X, y)
    took = time.perf_counter() - start
    right = float((model.predict(test) == labels).mean())
    short = "" if right >= target else f", short of {target:.1%}"
    print(f"MNIST {recipe}, {step}: {right:.2%} of the test images in {took:.1f} s{short}")
    row = {"model": recipe, "step": step, "seconds": took, "accuracy": right, "target": target}
    return [row | {"reached": right >= target}]
