"""The operators and fits on an NVIDIA GPU beside everyone else's: ``python -m benchmarks cuda``.

``python -m benchmarks cuda [--minutes M] [PART ...]``, parts: linear, rows, graphs, regression,
networks, distillation, top_k; all of them without one, in this order. The machine's own bandwidth
and matrix speed are measured first, and times are given as shares of what these allow, and as
ratios to the peers', in turn with them. Peers that cannot be imported or that fail, and cases for
which there is no memory, are named with the reason. With ``--minutes`` the parts share the time
evenly, begin no case after it, and name those that they did not. What the issue asked of an H200 is
beside each case.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

import luce
from benchmarks.peers.gpu import peers_of
from benchmarks.timing import ratio, record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
# Larger than any cache of a GPU: written before each call that is timed, so that all begin cold.
COLD_BYTES = 256 << 20


class Machine(NamedTuple):
    """What a machine does at best, as measured on it."""

    device: torch.device
    bytes: float  # that it reads and writes in a second, in a copy
    flops: Mapping[str, float]  # of a large matrix product in a second, by dtype


class Case(NamedTuple):
    """One thing to time: arguments, and what must be moved and multiplied for it at least."""

    operator: str
    dtype: str
    shape: tuple[int, ...]
    options: Mapping[str, Any]
    most: float  # times the bound for which it was asked; infinity where nothing was
    milliseconds: float  # what was asked of an H200


# What says most stands first: there may be time for no more.
ROWS = [(n, k) for n in (8_192, 65_536) for k in (32_000, 128_256, 1_000)]
SMALL, MAPS = (102_400, 10), (16, 20, 512, 512)
HEADS = {
    (8_192, 4_096, 128_256): {None: 36.0, 1 << 30: 44.0, 1 << 28: 48.0, 1 << 26: 61.0},
    (16_384, 2_048, 248_320): {None: math.inf},
    (65_536, 4_096, 128_256): {None: math.inf},
}
# A shape of each kind, small enough for a CPU: what the tests run.
TINY: dict[str, Any] = {"rows": [(64, 300)], "maps": (2, 3, 8, 8), "heads": (32, 16, 200)}


def cases(part: str, *, tiny: bool = False) -> list[Case]:
    """Return what a part times."""
    if part == "rows":
        shapes = TINY["rows"] if tiny else [*ROWS, SMALL]
        shapes = [*shapes, TINY["maps"] if tiny else MAPS]
        return [
            Case(operator, dtype, shape, {}, 1.15 if shape[1] <= 16_384 else 1.5, math.inf)
            for dtype in DTYPES
            for operator in ("cross_entropy", "softmax", "log_softmax")
            for shape in shapes
        ]
    if part == "linear":
        heads: Any = {TINY["heads"]: {None: math.inf, 1 << 20: math.inf}} if tiny else HEADS
        return [
            Case("linear_cross_entropy", "bf16", shape, {"memory_budget": budget}, math.inf, most)
            for shape, budgets in heads.items()
            for budget, most in budgets.items()
        ]
    if part == "distillation":
        shape = TINY["heads"] if tiny else (8_192, 4_096, 128_256)
        return [Case("linear_distillation_loss", "bf16", shape, {}, math.inf, math.inf)]
    shapes = [TINY["heads"]] if tiny else [(1_024, 4_096, 128_256), (1_024, 1_024, 1_000_000)]
    return [Case("linear_top_k", "bf16", shape, {"k": 50}, math.inf, math.inf) for shape in shapes]


def bound(case: Case, machine: Machine) -> float:
    """Return the seconds that a case takes at least: by what is moved, or by what is multiplied.

    One read and one write of the logits for a loss with its gradient. Softmax and its gradient
    read and write once each way, and the gradient reads two. Of a head three products, one more for
    a teacher, and one alone for the most probable classes.
    """
    size = DTYPES[case.dtype].itemsize
    if not case.operator.startswith("linear"):
        passes = 2 if case.operator == "cross_entropy" else 5
        return passes * math.prod(case.shape) * size / machine.bytes
    N, D, K = case.shape
    products = {"linear_cross_entropy": 3, "linear_distillation_loss": 4, "linear_top_k": 1}
    multiplied = products[case.operator] * 2.0 * N * D * K / machine.flops[case.dtype]
    return max(multiplied, (N * D + K * D) * size / machine.bytes)


def arguments(case: Case, device: torch.device) -> tuple[tuple[Any, ...], list[torch.Tensor]]:
    """Return what an operator is called with, and of what gradients are taken."""
    torch.manual_seed(0)
    dtype = DTYPES[case.dtype]

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(shape, device=device) * scale).to(dtype)

    if not case.operator.startswith("linear"):
        z = normal(*case.shape).requires_grad_()
        N, K, *rest = case.shape
        y = torch.randint(K, (N, *rest), device=device)
        return ((z, y) if case.operator == "cross_entropy" else (z,)), [z]
    N, D, K = case.shape
    x, w = normal(N, D), normal(K, D, scale=D**-0.5)
    if case.operator == "linear_top_k":
        return (x, w, case.options["k"]), []
    x, w = x.requires_grad_(), w.requires_grad_()
    if case.operator == "linear_distillation_loss":
        return (x, w, normal(N, D), normal(K, D, scale=D**-0.5)), [x, w]
    return (x, w, torch.randint(K, (N,), device=device)), [x, w]


def step(function: Callable[..., Any], given: tuple[Any, ...], leaves: list[torch.Tensor]) -> Any:
    """Return a call: forward and, if anything wants one, backward."""

    def call() -> None:
        result = function(*given)
        if leaves:
            incoming = None if result.ndim == 0 else torch.ones_like(result)
            torch.autograd.grad(result, leaves, incoming)

    return call


def seconds_of(call: Callable[[], object], device: torch.device, cold: torch.Tensor) -> float:
    """Return how long the device works on a call, beginning with cold caches."""
    cold.zero_()
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def alternated(
    calls: Mapping[str, Callable[[], object]], device: torch.device, repeats: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time calls in turn, after two rounds that are not counted; return also who failed, and why.

    A call that fails, for want of memory or of what it was made for, is left out.
    """
    cold = torch.empty(COLD_BYTES if device.type == "cuda" else 1, dtype=torch.int8, device=device)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    failed: dict[str, str] = {}
    for round_ in range(repeats + 2):
        for name, call in calls.items():
            if name in failed:
                continue
            try:
                took = seconds_of(call, device, cold)
            except Exception as error:  # noqa: BLE001 - of whoever's
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                del seconds[name]
                continue
            if round_ >= 2:
                seconds[name].append(took)
    return seconds, failed


def measured(device: torch.device, *, tiny: bool = False) -> Machine:
    """Measure what the machine does at best: a copy, and a matrix product in each dtype."""
    size = 1 << 20 if tiny else 1 << 30
    source = torch.empty(size, dtype=torch.int8, device=device)
    place = torch.empty_like(source)
    calls: dict[str, Callable[[], object]] = {"copy": lambda: place.copy_(source)}
    side = 64 if tiny else 8_192
    for name, dtype in DTYPES.items():
        a = torch.randn(side, side, device=device).to(dtype)
        calls[name] = functools.partial(torch.mm, a, a)
    times, _ = alternated(calls, device, 9)
    best = {name: min(each) for name, each in times.items()}
    flops = {name: 2.0 * side**3 / best[name] for name in DTYPES}
    return Machine(device, 2.0 * size / best["copy"], flops)


def timed(case: Case, machine: Machine, *, tiny: bool = False) -> dict[str, Any]:
    """Time a case beside its peers; return a row of the results, and print it."""
    given, leaves = arguments(case, machine.device)
    peers, absent = peers_of(case.operator)
    if tiny:
        del peers["compile"]  # which needs a compiler
    own = {k: v for k, v in case.options.items() if k == "memory_budget" and v is not None}
    peers["ours"] = functools.partial(peers["ours"], **own)
    calls = {name: step(peer, given, leaves) for name, peer in peers.items()}
    seconds, failed = alternated(calls, machine.device, 3 if tiny else 9)
    asked = {"most": case.most, "milliseconds": case.milliseconds}
    row: dict[str, Any] = {
        "case": described(case),
        "asked": {name: each for name, each in asked.items() if math.isfinite(each)},
        "seconds": seconds,
        "absent": {**absent, **failed},
        "bound": bound(case, machine),
    }
    if "ours" not in seconds:
        print(f"{described(case)}  ours failed: {failed['ours']}")
        return row
    median = statistics.median(seconds["ours"])
    row["share"] = row["bound"] / median
    row["ratios"] = {
        name: ratio(each, seconds["ours"]) for name, each in seconds.items() if name != "ours"
    }
    row["kept"] = median <= case.most * row["bound"] and 1e3 * median <= case.milliseconds
    others = "  ".join(f"{name} {r['ratio']:.2f}×" for name, r in row["ratios"].items())
    kept = "" if row["kept"] else "  (asked for less)"
    print(f"{described(case)}  {row['share']:6.1%} of what is possible  {others}{kept}")
    for name, reason in row["absent"].items():
        print(f"    {name}: {reason}")
    return row


def described(case: Case) -> str:
    """Return a case in a few words."""
    options = "".join(f" {k}={v}" for k, v in case.options.items() if v is not None)
    return f"{case.operator} {case.dtype} {'×'.join(map(str, case.shape))}{options}"


def regression(machine: Machine, *, tiny: bool = False) -> list[dict[str, Any]]:
    """Fit a made-up probe of ImageNet's size on the device, and PyTorch's L-BFGS to the same gap.

    The peer has the same objective in float32, and goes on until its objective is within a
    millionth of ours, or for 500 iterations.
    """
    N, D, K = (600, 8, 4) if tiny else (1_280_000, 1_024, 1_000)
    torch.manual_seed(0)
    centres = torch.randn(K, D, device=machine.device)
    y = torch.randint(K, (N,), device=machine.device)
    y[:K] = torch.arange(K, device=machine.device)
    X = torch.empty(N, D, dtype=torch.bfloat16, device=machine.device)
    for i in range(0, N, 65_536):
        part = slice(i, i + 65_536)
        X[part] = (0.12 * centres[y[part]] + torch.randn_like(X[part], dtype=torch.float32)).to(X)
    start = time.perf_counter()
    model = luce.SoftmaxRegression().fit(X, y)
    took = time.perf_counter() - start
    peer, reached = _torch_lbfgs(X, y, K, model.objective_)
    row = {
        "shape": (N, D, K),
        "seconds": took,
        "iterations": int(model.n_iter_[0]),
        "gap": model.duality_gap_,
        "torch L-BFGS": {"seconds": peer, "above ours": reached},
        # Two products for each iteration, at what the machine multiplies in float32.
        "share": 4.0 * N * D * K * max(1, int(model.n_iter_[0])) / machine.flops["fp32"] / took,
    }
    print(
        f"regression {N:,}×{D:,}×{K:,}: gap {model.duality_gap_:.1e} in {row['iterations']} "
        f"iterations, torch's L-BFGS {peer / took:.2f}× the time, then {reached:.1e} above ours"
    )
    return [row]


def _torch_lbfgs(X: torch.Tensor, y: torch.Tensor, K: int, best: float) -> tuple[float, float]:
    W = torch.zeros(K, X.shape[1], device=X.device, requires_grad=True)
    b = torch.zeros(K, device=X.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=20, line_search_fn="strong_wolfe")
    loss = math.inf

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = 0.5 * W.square().sum()
        value.backward()
        for i in range(0, len(X), 65_536):
            part = slice(i, i + 65_536)
            own = luce.cross_entropy(X[part].float() @ W.T + b, y[part], reduction="sum")
            own.backward()
            value = value.detach() + own.detach().double()
        return value

    start = time.perf_counter()
    for _ in range(25):
        loss = float(optimizer.step(closure))
        if loss <= best * (1 + 1e-6):
            break
    return time.perf_counter() - start, loss / best - 1


def networks(machine: Machine, *, tiny: bool = False) -> list[dict[str, Any]]:
    """Train MNIST's mlp and cnn on the device; print seconds and the test images that are right."""
    from benchmarks.mnist import RECIPES, load

    folder = Path(os.environ.get("LUCE_DATA_DIR", "data")) / "mnist"
    if tiny or not (folder / "train-images-idx3-ubyte.gz").is_file():
        print(f"networks: no MNIST under {folder}: set LUCE_DATA_DIR to the folder that has mnist/")
        return []
    (X, y), (test, labels) = load(folder, "train"), load(folder, "t10k")
    rows = []
    for name, step in (("mlp", "plain"), ("mlp", "graph"), ("cnn", "plain"), ("cnn", "graph")):
        own = {"device": str(machine.device), "step": step}
        model = luce.NeuralClassifier(**RECIPES[name] | own)
        start = time.perf_counter()
        model.fit(X, y)
        took = time.perf_counter() - start
        right = float((model.predict(test) == labels).mean())
        print(f"MNIST {name}, {step}: {right:.2%} of the test images in {took:.1f} s")
        rows.append({"model": name, "step": step, "seconds": took, "accuracy": right})
    return rows


def graphs(machine: Machine, *, tiny: bool = False) -> list[dict[str, Any]]:
    """Time small passes and small steps plainly and as CUDA graphs, in turn."""
    from luce.linear.objective import Objective
    from luce.linear.rows import as_rows

    N, D, K = (600, 8, 4) if tiny else (60_000, 784, 10)
    torch.manual_seed(0)
    X, y = torch.randn(N, D, device=machine.device), torch.randint(K, (N,), device=machine.device)
    weight = torch.ones(N, dtype=torch.float64, device=machine.device)
    objective = Objective(
        as_rows(X), y, weight, n_logits=K, link="softmax", C=1.0, fit_intercept=True,
        dtype=torch.float32,
    )  # fmt: skip
    theta = objective.start()
    passes = {
        "graph": lambda: objective.unread(theta),
        "plain": lambda: objective._pass(theta, logs=False),  # noqa: SLF001 - what is captured
    }
    few = y[:2_048].cpu().numpy()
    rows = np.random.default_rng(0).normal(size=(len(few), 64)).astype(np.float32)

    def trained(step: str) -> Callable[[], object]:
        options = {"epochs": 2 if tiny else 10, "device": str(machine.device), "step": step}
        return lambda: luce.NeuralClassifier(**options).fit(rows, few)

    steps = {"plain": trained("plain")}
    if machine.device.type == "cuda":
        steps["graph"] = trained("graph")
    found = []
    for what, calls in ((f"a pass of {N:,}×{D}×{K}", passes), ("a small network", steps)):
        seconds, failed = alternated(calls, machine.device, 3 if tiny else 9)
        row: dict[str, Any] = {"case": what, "seconds": seconds, "absent": failed}
        if {"graph", "plain"} <= seconds.keys():
            row["ratio"] = ratio(seconds["plain"], seconds["graph"])
            print(f"{what}: as a graph {row['ratio']['ratio']:.2f}× as fast as plainly")
        for name, reason in failed.items():
            print(f"{what}, {name}: {reason}")
        found.append(row)
    return found


PARTS = ("linear", "rows", "graphs", "regression", "networks", "distillation", "top_k")
WHOLE = {"graphs": graphs, "regression": regression, "networks": networks}


def main(given: list[str]) -> None:
    """Run the parts, print a line of each case and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cuda")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after these")
    asked = parser.parse_args(given)
    unknown = sorted(set(asked.parts) - set(PARTS))
    if unknown:
        sys.exit(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        print("There is no GPU that PyTorch can use here: run this where one is.", file=sys.stderr)
        sys.exit(2)
    end = time.monotonic() + 60 * asked.minutes
    run(asked.parts or list(PARTS), measured(torch.device("cuda")), end=end)


def run(
    parts: Sequence[str], machine: Machine, *, tiny: bool = False, end: float = math.inf
) -> None:
    """Run parts on a measured machine, which share the time to the end of ``time.monotonic()``."""
    what = "CPU"
    if machine.device.type == "cuda":
        what = torch.cuda.get_device_name(machine.device)
    print(f"{what}: {machine.bytes / 1e12:.2f} TB/s, {machine.flops['bf16'] / 1e12:.0f} TFLOP/s")
    speeds = {"bytes": machine.bytes, "flops": dict(machine.flops)}
    for k, part in enumerate(parts):
        rows: list[dict[str, Any]] = []
        left: list[str] = []
        now = time.monotonic()
        own_end = now + (end - now) / (len(parts) - k)
        for name, job in jobs(part, machine, tiny=tiny):
            if time.monotonic() > own_end:
                left.append(name)
                continue
            try:
                rows += job()
            except Exception as error:  # noqa: BLE001 - one that fails must not stop the others
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                rows.append({"case": name, "failed": reason})
                print(f"{name}: {reason}")
            if machine.device.type == "cuda":
                torch.cuda.empty_cache()
        if left:
            print(f"no time was left for: {', '.join(left)}")
        print(f"→ {record(f'cuda-{part}', rows, gpu=what, measured=speeds, left=left)}\n")


def jobs(
    part: str, machine: Machine, *, tiny: bool
) -> list[tuple[str, Callable[[], list[dict[str, Any]]]]]:
    """Return what a part does: names, and functions that return rows of its results."""
    if part in WHOLE:
        return [(part, functools.partial(WHOLE[part], machine, tiny=tiny))]
    return [
        (described(case), functools.partial(_one, case, machine, tiny=tiny))
        for case in cases(part, tiny=tiny)
    ]


def _one(case: Case, machine: Machine, *, tiny: bool) -> list[dict[str, Any]]:
    return [timed(case, machine, tiny=tiny)]
