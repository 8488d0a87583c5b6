"""The operators and fits on an NVIDIA GPU beside everyone else's: ``python -m benchmarks cuda``.

``python -m benchmarks cuda [--minutes M] [PART ...]``, parts: linear, rows, regression, networks,
graphs, top_k, distillation; all of them without one, in this order. The machine's own bandwidth
and matrix speed are measured first, and times are given as shares of what these allow, and as
ratios to the peers', in turn with them. Peers that cannot be imported or that fail, and cases for
which there is no memory, are named with the reason. With ``--minutes`` the parts share the time,
begin no case after it, and name those that they did not. What the issue asked of an H200 is
beside each case. Results are written after each case; where the environment variable OUT names a
folder, there too.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from benchmarks import cuda_fits
from benchmarks.cuda_timing import DTYPES, Machine, alternated, measured
from benchmarks.peers.gpu import peers_of
from benchmarks.timing import ratio, record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Rows = list[dict[str, Any]]


class Case(NamedTuple):
    """One thing to time: arguments, and what must be moved and multiplied for it at least."""

    operator: str
    dtype: str
    shape: tuple[int, ...]
    options: Mapping[str, Any]
    most: float  # times the bound for which it was asked; infinity where nothing was
    milliseconds: float  # what was asked of an H200

    @property
    def given(self) -> tuple[object, ...]:
        """What cases that are timed in turn have in common: the tensors, and the peers."""
        return self.operator, self.dtype, self.shape


# What says most stands first: there may be time for no more.
ROWS = [(8_192, 32_000), (102_400, 10), (16, 20, 512, 512), (8_192, 128_256), (8_192, 1_000)]
ROWS += [(65_536, 32_000), (65_536, 1_000), (65_536, 128_256)]
HEADS = {
    (8_192, 4_096, 128_256): {None: 36.0, 1 << 30: 44.0, 1 << 28: 48.0, 1 << 26: 61.0},
    (16_384, 2_048, 248_320): {None: math.inf},
    (65_536, 4_096, 128_256): {None: math.inf},
}
# No peer has these. They may take a tenth longer than the plain loss, without a budget.
FULL: list[dict[str, Any]] = [
    {"label_smoothing": 0.1, "weight": True},
    {"label_smoothing": 0.1, "weight": True, "soft": True},
]
MOST_FOR_OPTIONS = 1.1
# A shape of each kind, small enough for a CPU: what the tests run.
TINY: dict[str, Any] = {"rows": [(64, 300), (2, 3, 8, 8)], "heads": (32, 16, 200)}


def cases(part: str, *, tiny: bool = False) -> list[Case]:
    """Return what a part times."""
    if part == "rows":
        return [
            Case(operator, dtype, shape, {}, 1.15 if shape[1] <= 16_384 else 1.5, math.inf)
            for shape in (TINY["rows"] if tiny else ROWS)
            for operator in ("cross_entropy", "softmax", "log_softmax")
            for dtype in DTYPES
        ]
    if part == "linear":
        heads: Any = {TINY["heads"]: {None: math.inf, 1 << 20: math.inf}} if tiny else HEADS
        found = []
        for i, (shape, budgets) in enumerate(heads.items()):
            asked: list[tuple[dict[str, Any], float]] = [
                ({"memory_budget": budget}, most) for budget, most in budgets.items()
            ]
            asked += [(options, math.inf) for options in FULL] if i == 0 else []
            found += [
                Case("linear_cross_entropy", "bf16", shape, options, math.inf, most)
                for options, most in asked
            ]
        return found
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


def arguments(
    case: Case, device: torch.device
) -> tuple[tuple[Any, ...], list[torch.Tensor], torch.Tensor | None]:
    """Return what an operator is called with, of what gradients are taken, and the incoming one."""
    torch.manual_seed(0)
    dtype = DTYPES[case.dtype]

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(shape, device=device) * scale).to(dtype)

    if not case.operator.startswith("linear"):
        z = normal(*case.shape).requires_grad_()
        N, K, *rest = case.shape
        if case.operator != "cross_entropy":
            return (z,), [z], torch.ones_like(z)
        return (z, torch.randint(K, (N, *rest), device=device)), [z], None
    N, D, K = case.shape
    x, w = normal(N, D), normal(K, D, scale=D**-0.5)
    if case.operator == "linear_top_k":
        return (x, w, case.options["k"]), [], None
    x, w = x.requires_grad_(), w.requires_grad_()
    if case.operator == "linear_distillation_loss":
        return (x, w, normal(N, D), normal(K, D, scale=D**-0.5)), [x, w], None
    return (x, w, torch.randint(K, (N,), device=device)), [x, w], None


def step(
    function: Callable[..., Any],
    given: tuple[Any, ...],
    leaves: list[torch.Tensor],
    incoming: torch.Tensor | None,
) -> Callable[[], None]:
    """Return a call: forward and, if anything wants one, backward."""

    def call() -> None:
        result = function(*given)
        if leaves:
            torch.autograd.grad(result, leaves, incoming)

    return call


def ours_with(
    ours: Callable[..., Any], case: Case, given: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return ours with a case's options, and what it is then called with."""
    keywords = {
        k: v
        for k, v in case.options.items()
        if k in ("memory_budget", "label_smoothing") and v is not None
    }
    if "weight" in case.options:
        x, w, _ = given
        keywords["weight"] = torch.rand(len(w), device=x.device) + 0.5
        if "soft" in case.options:
            given = x, w, torch.rand(len(x), len(w), device=x.device, dtype=x.dtype)
            given[2].div_(given[2].sum(1, keepdim=True))
    return functools.partial(ours, **keywords), given


def timed(group: Sequence[Case], machine: Machine, *, tiny: bool = False) -> Rows:
    """Time cases of the same tensors beside their peers, all in turn; return a row for each."""
    given, leaves, incoming = arguments(group[0], machine.device)
    peers, absent = peers_of(group[0].operator)
    if tiny:
        del peers["compile"]  # which needs a compiler
    ours = peers.pop("ours")
    calls = {
        described(case): step(*ours_with(ours, case, given), leaves, incoming) for case in group
    }
    calls |= {name: step(peer, given, leaves, incoming) for name, peer in peers.items()}
    seconds, failed = alternated(calls, machine.device, 3 if tiny else 9)
    rows = [row_of(case, peers, seconds, {**absent, **failed}, machine) for case in group]
    plain = seconds.get(described(group[0]))
    for case, row in zip(group, rows, strict=True):
        if "weight" in case.options and "share" in row and plain:
            row["of plain"] = ratio(seconds[described(case)], plain)
            row["kept"] = row["of plain"]["ratio"] <= MOST_FOR_OPTIONS
            print(f"{described(case)}: {row['of plain']['ratio']:.2f}× the time of the plain loss")
    return rows


def row_of(
    case: Case,
    peers: Mapping[str, object],
    seconds: Mapping[str, list[float]],
    absent: Mapping[str, str],
    machine: Machine,
) -> dict[str, Any]:
    """Return a row of the results, and print it."""
    asked = {"most": case.most, "milliseconds": case.milliseconds}
    others = {name: seconds[name] for name in peers if name in seconds}
    row: dict[str, Any] = {
        "case": described(case),
        "asked": {name: each for name, each in asked.items() if math.isfinite(each)},
        "seconds": others,
        "absent": {k: v for k, v in absent.items() if k in peers or " " not in k},
        "bound": bound(case, machine),
    }
    own = seconds.get(described(case))
    if own is None:
        row["failed"] = absent[described(case)]
        print(f"{described(case)}  ours failed: {row['failed']}")
        return row
    row["seconds"] = {"ours": own, **others}
    median = statistics.median(own)
    row["share"] = row["bound"] / median
    row["ratios"] = {name: ratio(each, own) for name, each in others.items()}
    row["kept"] = median <= case.most * row["bound"] and 1e3 * median <= case.milliseconds
    beside = "  ".join(f"{name} {r['ratio']:.2f}×" for name, r in row["ratios"].items())
    kept = "" if row["kept"] else "  (asked for less)"
    print(f"{described(case)}  {row['share']:6.1%} of what is possible  {beside}{kept}")
    for name, reason in row["absent"].items():
        print(f"    {name}: {reason}")
    return row


def described(case: Case) -> str:
    """Return a case in a few words."""
    options = "".join(f" {k}={v}" for k, v in case.options.items() if v is not None)
    return f"{case.operator} {case.dtype} {'×'.join(map(str, case.shape))}{options}"


# What is no operator: by part, jobs by name.
FITS: dict[str, dict[str, Callable[..., Rows]]] = {
    "regression": {
        "MNIST, C = 1": cuda_fits.mnist_regression,
        "a probe": cuda_fits.probe,
        "a pass of the probe": functools.partial(cuda_fits.a_pass, cuda_fits.PROBE, "bf16"),
    },
    "networks": {
        f"{recipe}, {step}": functools.partial(cuda_fits.network, recipe, target, step)
        for recipe, target in (("fast", 0.97), ("mlp", 0.983), ("cnn", 0.994))
        for step in ("plain", "graph")
    },
    "graphs": {
        "a small pass": functools.partial(cuda_fits.a_pass, cuda_fits.MNIST, "fp32"),
        "a small network": cuda_fits.small_network,
    },
}
# In this order, and with so many parts of the time: what says most first.
PARTS = {
    "linear": 3,
    "rows": 4,
    "regression": 2,
    "networks": 1,
    "graphs": 1,
    "top_k": 1,
    "distillation": 1,
}


def jobs(part: str, machine: Machine, *, tiny: bool) -> list[tuple[str, Callable[[float], Rows]]]:
    """Return what a part does: names, and functions of the time after which they begin nothing."""
    if part in FITS:
        return [
            (name, functools.partial(_fit, job, machine, tiny)) for name, job in FITS[part].items()
        ]
    groups = itertools.groupby(cases(part, tiny=tiny), lambda case: case.given)
    found = [list(group) for _, group in groups]
    return [
        (described(group[0]), functools.partial(_cases, group, machine, tiny)) for group in found
    ]


def _fit(job: Callable[..., Rows], machine: Machine, tiny: bool, end: float) -> Rows:
    return job(machine, end, tiny=tiny)


def _cases(group: list[Case], machine: Machine, tiny: bool, end: float) -> Rows:
    del end  # it is one thing: all are timed in turn
    return timed(group, machine, tiny=tiny)


def run(
    parts: Sequence[str], machine: Machine, *, tiny: bool = False, end: float = math.inf
) -> None:
    """Run parts on a measured machine, which share the time to the end of ``time.monotonic()``."""
    what = "CPU"
    if machine.device.type == "cuda":
        what = torch.cuda.get_device_name(machine.device)
    print(f"{what}: {machine.bytes / 1e12:.2f} TB/s, {machine.flops['bf16'] / 1e12:.0f} TFLOP/s")
    speeds = {"bytes": machine.bytes, "flops": dict(machine.flops)}
    unreached = []
    for k, part in enumerate(parts):
        rows: Rows = []
        left: list[str] = []
        now = time.monotonic()
        share = PARTS[part] / sum(PARTS[each] for each in parts[k:])
        own_end = now + (end - now) * share
        for name, job in jobs(part, machine, tiny=tiny):
            if time.monotonic() > own_end:
                left.append(name)
            else:
                rows += _done(name, job, own_end, machine)
            kept = record(f"cuda-{part}", rows, gpu=what, measured=speeds, left=left)
            if "OUT" in os.environ:
                Path(os.environ["OUT"]).mkdir(parents=True, exist_ok=True)
                shutil.copy(kept, os.environ["OUT"])
        print(f"→ {kept}\n", flush=True)
        unreached += left
    if unreached:
        print(f"no time was left for: {', '.join(unreached)}")


def _done(name: str, job: Callable[[float], Rows], end: float, machine: Machine) -> Rows:
    """Return the rows of a job; of one that fails, which must not stop the others, the reason."""
    try:
        return job(end)
    except Exception as error:  # noqa: BLE001 - of whoever's
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        print(f"{name}: {reason}")
        return [{"case": name, "failed": reason}]
    finally:
        if machine.device.type == "cuda":
            torch.cuda.empty_cache()


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
