"""The operators beside PyTorch's and SciPy's: ``python -m benchmarks operators [part ...]``.

Parts: cross_entropy, classes (the same for batches of other numbers of rows and classes), binary
(binary cross-entropy of logits, with a weight for each label and without), softmax, linear, memory;
all of them if none is named. Two threads, float32
unless said. Each timing is forward and backward with the last gradient let go before, as in
training. "copy" is a plain copy of the logits into memory that is already there; "products" are
the linear head's three matrix products alone, into memory that is already there.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from typing import Any

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F

import luce
from benchmarks.timing import alternate, apart, ratio, record

THREADS = 2
SHAPES = [(102_400, 10), (16_384, 1_000), (2_048, 32_000), (512, 131_072), (4, 16, 512, 512)]
BATCHES = [(N, K) for N in (128, 4_096, 65_536) for K in (10, 50, 100, 200, 300, 1_000)]
LINEAR = [(2_048, 256, 32_000), (2_048, 512, 32_768), (4_096, 256, 16_384), (60_000, 784, 10)]


def main(arguments: list[str]) -> None:
    """Run the parts, print a table of each and write the results."""
    torch.set_num_threads(THREADS)
    parts = {
        "cross_entropy": cross_entropy,
        "classes": classes,
        "binary": binary,
        "softmax": softmax,
        "linear": linear,
        "memory": memory,
    }
    if arguments[:1] == ["measure-memory"]:
        measure_memory(*map(int, arguments[1:4]), *arguments[4:6])
        return
    unknown = sorted(set(arguments) - set(parts))
    if unknown:
        sys.exit(f"unknown part {unknown[0]!r}; there are {', '.join(parts)}")
    for name in arguments or parts:
        rows = parts[name]()
        print(f"→ {record(f'operators-{name}', rows, threads=THREADS)}\n")


def spread(r: dict[str, float]) -> str:
    """Return a ratio with its 10–90 % range."""
    return f"{r['ratio']:6.2f}× ({r['low']:.2f}–{r['high']:.2f})"


def milliseconds(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return float(np.median(seconds)) * 1e3


def geometric_mean(values: list[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def trained(loss: Any, *leaves: torch.Tensor) -> Any:
    """Return a step: let go of the gradients, forward, backward."""

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return step


def cross_entropy() -> list[dict[str, Any]]:
    """Forward and backward against F.cross_entropy and against a copy."""
    print("cross_entropy, forward + backward: PyTorch's time / ours; ours / a copy")
    rows = [trained_on(shape, 9) for shape in SHAPES]
    print(f"geometric mean {geometric_mean([r['speedup']['ratio'] for r in rows]):.2f}×")
    return rows


def classes() -> list[dict[str, Any]]:
    """Do the same for small and large batches of few and many classes."""
    print("cross_entropy, forward + backward: PyTorch's time / ours; ours / a copy")
    return [trained_on((N, K), 101 if N * K < 1e6 else 15) for N, K in BATCHES]


def trained_on(shape: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Time cross_entropy of logits of a shape."""
    values, place = torch.randn(shape), torch.empty(shape)
    y = torch.randint(0, shape[1], (shape[0], *shape[2:]))
    # A leaf each: whoever made a gradient also pays for giving its memory back.
    x, peers = (values.clone().requires_grad_() for _ in range(2))
    times = alternate(
        {
            "ours": trained(lambda: luce.cross_entropy(x, y), x),
            "torch": trained(lambda: F.cross_entropy(peers, y), peers),
            "copy": lambda: place.copy_(values),
        },
        repeats=repeats,
    )
    r, c = ratio(times["torch"], times["ours"]), ratio(times["ours"], times["copy"])
    print(
        f"{shape!s:>20}  ours {milliseconds(times['ours']):8.3f} ms  {spread(r)}  "
        f"copies {c['ratio']:.2f}"
    )
    return {"shape": shape, "seconds": times, "speedup": r, "copies": c}


def binary() -> list[dict[str, Any]]:
    """Binary cross-entropy, forward and backward, against PyTorch's and against a copy."""
    print("binary cross-entropy, forward + backward: PyTorch's time / ours; ours / a copy")
    rows = []
    for N, L in ((4_096, 20), (102_400, 10), (16_384, 1_000), (2_048, 32_000)):
        for weighted in (False, True):
            values, place = torch.randn(N, L), torch.empty(N, L)
            on = (torch.rand(N, L) < 0.1).float()
            pos_weight = torch.rand(L) + 0.5 if weighted else None
            x, peers = (values.clone().requires_grad_() for _ in range(2))
            more = {"pos_weight": pos_weight}
            ours = functools.partial(luce.binary_cross_entropy_with_logits, x, on, **more)
            peer = functools.partial(F.binary_cross_entropy_with_logits, peers, on, **more)
            times = alternate(
                {
                    "ours": trained(ours, x),
                    "torch": trained(peer, peers),
                    "copy": lambda place=place, values=values: place.copy_(values),
                },
                repeats=101 if N * L < 1e6 else 15,
            )
            r, c = ratio(times["torch"], times["ours"]), ratio(times["ours"], times["copy"])
            print(
                f"{(N, L)!s:>16} {'pos_weight' if weighted else '':>10}  ours "
                f"{milliseconds(times['ours']):8.3f} ms  {spread(r)}  copies {c['ratio']:.2f}"
            )
            shape = {"shape": (N, L), "pos_weight": weighted}
            rows.append({**shape, "seconds": times, "speedup": r, "copies": c})
    print(f"geometric mean {geometric_mean([r['speedup']['ratio'] for r in rows]):.2f}×")
    return rows


def softmax() -> list[dict[str, Any]]:
    """Softmax and log-softmax, forward, against PyTorch and SciPy."""
    rows = []
    for name in ("softmax", "log_softmax"):
        ours, peer = getattr(luce, name), getattr(F, name)
        scipys = getattr(scipy.special, name)
        print(f"{name}: PyTorch's time / ours; SciPy's / ours")
        ratios = []
        for shape in SHAPES:
            x = torch.randn(shape)
            array = x.numpy()
            times = alternate(
                {
                    "ours": lambda x=x, ours=ours: ours(x, 1),
                    "torch": lambda x=x, peer=peer: peer(x, 1),
                    "scipy": lambda array=array, scipys=scipys: scipys(array, axis=1),
                },
                repeats=5,
            )
            r, s = ratio(times["torch"], times["ours"]), ratio(times["scipy"], times["ours"])
            ratios.append(r["ratio"])
            print(
                f"{shape!s:>20}  ours {milliseconds(times['ours']):8.2f} ms  {spread(r)}  "
                f"SciPy {s['ratio']:.1f}×"
            )
            rows.append({"name": name, "shape": shape, "seconds": times, "speedup": r, "scipy": s})
        print(f"geometric mean {geometric_mean(ratios):.2f}×")
    return rows


def products(x: torch.Tensor, w: torch.Tensor) -> Any:
    """Return the three matrix products of a linear head, each into its own memory."""
    z, dx, dw = torch.empty(len(x), len(w)), torch.empty_like(x), torch.empty_like(w)

    def multiply() -> None:
        torch.mm(x, w.t(), out=z)
        torch.mm(z, w, out=dx)
        torch.mm(z.t(), x, out=dw)

    return multiply


def linear() -> list[dict[str, Any]]:
    """linear_cross_entropy, forward and backward, against PyTorch's paths and its products."""
    print("linear_cross_entropy: ours / three products; unchunked / ours; chunked / ours")
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for N, D, K in LINEAR:
            x = torch.randn(N, D).to(dtype)
            w = (torch.randn(K, D) / D**0.5).to(dtype)
            y = torch.randint(0, K, (N,))
            losses = {
                "ours": luce.linear_cross_entropy,
                "unchunked": lambda x, w, y: F.cross_entropy(F.linear(x, w), y),
            }
            if hasattr(F, "linear_cross_entropy"):
                chunks = torch.nn.LinearCrossEntropyOptions()
                losses["chunked"] = functools.partial(F.linear_cross_entropy, options=chunks)
            candidates = {"products": products(x.float(), w.float())}
            for name, loss in losses.items():
                leaves = [t.clone().requires_grad_() for t in (x, w)]  # as for cross_entropy
                candidates[name] = trained(functools.partial(loss, *leaves, y), *leaves)
            times = alternate(candidates, repeats=5, warmup=1)
            row: dict[str, Any] = {"shape": (N, D, K), "dtype": str(dtype), "seconds": times}
            row["products"] = ratio(times["ours"], times["products"])
            text = (
                f"{str(dtype)[6:]:>9} {(N, D, K)!s:>20}  ours {milliseconds(times['ours']):8.1f} ms"
            )
            text += f"  products {spread(row['products'])}"
            for peer in sorted(set(times) & {"unchunked", "chunked"}):
                row[peer] = ratio(times[peer], times["ours"])
                text += f"  {peer} {spread(row[peer])}"
            print(text)
            rows.append(row)
    return rows


def memory() -> list[dict[str, Any]]:
    """Peak memory of the linear losses beyond inputs and gradients, a process for each."""
    print("linear losses: peak beyond inputs and gradients, budget 64 MiB")
    rows = []
    large = (256, 128, 1_000_000)
    cases = [("linear_cross_entropy", shape) for shape in (*LINEAR, large)]
    for name, (N, D, K) in [*cases, ("linear_distillation_loss", large)]:
        for dtype in ("float32", "bfloat16"):
            shape = (str(N), str(D), str(K))
            row = json.loads(apart("operators", "measure-memory", *shape, dtype, name))
            print(f"{name:>24} {dtype:>9} {(N, D, K)!s:>22}  {row['extra'] / 2**20:7.1f} MiB")
            rows.append(row)
    return rows


def measure_memory(N: int, D: int, K: int, dtype_name: str, name: str) -> None:
    """Print what one call takes beyond inputs and gradients, from the system's peak."""
    dtype = getattr(torch, dtype_name)

    def given(N: int, K: int) -> tuple[torch.Tensor, ...]:
        """Return features and head, target, and features and head of a teacher."""
        x = torch.randn(N, D, dtype=dtype).requires_grad_()
        w = (torch.randn(K, D, dtype=dtype) / D**0.5).requires_grad_()
        y = torch.randint(0, K, (N,))
        return x, w, y, torch.randn(N, D, dtype=dtype), torch.randn(K, D, dtype=dtype)

    def step(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor, *rest: Any, **options: Any) -> None:
        teacher: tuple[torch.Tensor, torch.Tensor] = rest[0], rest[1]
        if name == "linear_distillation_loss":
            loss = luce.linear_distillation_loss(x, w, *teacher, y, **options)
        else:
            loss = luce.linear_cross_entropy(x, w, y, **options)
        loss.backward()

    # Compile first: few and many classes, all in one tile and not, in float64 (small) and not.
    for rows, classes, budget in ((8, 10, 64 << 20), (100, 10, 9999), (100, 200, 16 * D * 8)):
        step(*given(rows, classes), memory_budget=budget)
    tensors = given(N, K)
    x, w = tensors[:2]
    # Products of the sizes to come, so that the BLAS library has its own buffers before.
    torch.mm(x.detach()[:256].float(), w.detach()[:512].float().t())
    before, files = resident("VmRSS"), resident("RssFile")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:  # noqa: PTH123
        reset.write("5")
    start = time.perf_counter()
    step(*tensors)
    seconds = time.perf_counter() - start
    gradients = (x.numel() + w.numel()) * dtype.itemsize
    # Pages of libraries come and go with what else runs on the machine.
    extra = resident("VmHWM") - before - gradients - (resident("RssFile") - files)
    row = {"name": name, "shape": (N, D, K), "dtype": dtype_name, "extra": extra}
    print(json.dumps(row | {"seconds": seconds}))


def resident(field: str) -> int:
    """Return a memory figure of this process in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        return next(int(s.split()[1]) * 1024 for s in status if s.startswith(field))
