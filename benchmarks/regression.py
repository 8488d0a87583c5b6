"""SoftmaxRegression beside scikit-learn's LogisticRegression, to the same objective.

``python -m benchmarks regression [CASE ...]``; without a case, all of them. For each, the peer is
given the loosest ``tol`` (of 1e-4, its default, down to 1e-8) with which it reaches a relative gap
of 1e-6, and is timed with that one alone; where it does not get there within its time it is timed
to where it got, and its gap is recorded. Ours goes on until 1e-6 is proven, and has mostly come
much closer by then: so the peer is also timed to the gap of ours (``same``, for the same
objective), or to its best where that is nearer by half. All run in turn. scikit-learn-intelex,
where it can be imported, is timed with the peer's ``tol``. Peak memory is measured in a process of
its own, from after the data are loaded. ``memmap`` and ``scaling`` time ours alone.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import sys
import tempfile
import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import scipy.sparse
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from sklearn.datasets import load_digits
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

from benchmarks.texts import fragments
from benchmarks.timing import RESULTS, alternate, apart, ratio, record, results
from luce import NeuralClassifier, SoftmaxRegression, SoftmaxRegressionCV
from luce.neural.steps import forward

if TYPE_CHECKING:
    from collections.abc import Callable

GAP = 1e-6
MOST = 2000  # iterations: MNIST at C = 100 takes more than the default 200
REST = 1.0  # seconds before each fit that is timed
PEER_SECONDS = float(os.environ.get("LUCE_BENCH_PEER_SECONDS", "60"))

Data = tuple[Any, np.ndarray]


def mnist() -> Data:
    """60,000 × 784 pixels over 255, float32."""
    folder = Path(os.environ["LUCE_DATA_DIR"]) / "mnist"

    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(folder / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    X = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    y = read("train-labels-idx1-ubyte.gz", 8)
    return X.astype(np.float32) / 255, y.astype(np.int64)


def digits() -> Data:
    """scikit-learn's digits: 1,797 × 64, float64."""
    return load_digits(return_X_y=True)


def drawn(X: np.ndarray, W: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a label for each row from the softmax of X Wᵀ."""
    return (X @ W.T + rng.gumbel(size=(len(X), len(W)))).argmax(1)


def correlated(N: int = 20_000, D: int = 256, K: int = 50) -> Data:
    """Features with a covariance whose eigenvalues fall off as 1/j."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(D, D)) / np.sqrt(np.arange(1, D + 1))
    X = rng.normal(size=(N, D)) @ mix.T / 4
    return X.astype(np.float32), drawn(X, rng.normal(size=(K, D)) / 10, rng)


def clustered(N: int, D: int, K: int) -> Data:
    """Embeddings: a cluster for each class, rows of unit norm, half of whose length is noise."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(K, D)).astype(np.float32)
    y = rng.integers(0, K, N)
    X = centres[y]
    X += 1.5 * rng.standard_normal((N, D), dtype=np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, y


def probe(K: int, *, unit: bool = False) -> Data:
    """50,000 × 512 embeddings as networks give them: noisy, of unequal spread, nearly separable."""
    rng = np.random.default_rng(0)
    N, D = 50_000, 512
    M, y = rng.normal(size=(K, D)), rng.integers(0, K, N)
    X = 0.12 * M[y] + rng.normal(size=(N, D)) * 0.7 * (1 + rng.uniform(size=D))
    if unit:
        X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X.astype(np.float32), y


def hidden_layer() -> Data:
    """MNIST as the last hidden layer of a network of ours gives it: 60,000 × 256."""
    X, y = mnist()
    network = NeuralClassifier(hidden=(256,), epochs=2).fit(X, y).network_
    with torch.no_grad():
        _, features = forward(network, torch.from_numpy(X), hidden=True)
    return features.numpy(), y


def reviews() -> Data:
    """120,000 pieces of movie reviews: the leading 256 directions of their tf-idf (LSA)."""
    file = Path(os.environ["LUCE_DATA_DIR"]) / "tables" / "movie-reviews.csv"
    table = fragments(pl.read_csv(file))
    rows = TfidfVectorizer(min_df=2).fit_transform(table["review"])
    X = TruncatedSVD(256, random_state=0).fit_transform(rows)
    return X.astype(np.float32), table["sentiment"].to_numpy().astype(str)


def tall() -> Data:
    """1,000,000 × 20, five classes."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1_000_000, 20), dtype=np.float32)
    return X, drawn(X, rng.normal(size=(5, 20)) / 2, rng)


def sparse() -> Data:
    """20,000 documents of 100 words out of 100,000 (Zipf), twenty topics; rows of unit norm."""
    rng = np.random.default_rng(0)
    N, D, K, words, own = 20_000, 100_000, 20, 100, 20
    often = 1 / np.arange(1, D + 1)
    columns = rng.choice(D, size=(N, words), p=often / often.sum())
    y = rng.integers(0, K, N)
    topics = rng.integers(0, D // 2, size=(K, 500))
    columns[:, :own] = topics[y[:, None], rng.integers(0, 500, size=(N, own))]
    ones = np.ones(N * words, np.float32)
    X = scipy.sparse.csr_matrix((ones, (np.repeat(np.arange(N), words), columns.ravel())), (N, D))
    X.sum_duplicates()
    X.data = 1 + np.log(X.data)
    X.data /= np.repeat(np.sqrt(X.multiply(X).sum(1)).A1, np.diff(X.indptr))
    return X.astype(np.float32), y


# case → data, C
CASES: dict[str, tuple[Callable[[], Data], float]] = {
    "mnist-0.01": (mnist, 0.01),
    "mnist-1": (mnist, 1.0),
    "mnist-100": (mnist, 100.0),
    "digits": (digits, 1.0),
    "correlated": (correlated, 100.0),
    "clustered-100": (lambda: clustered(50_000, 512, 100), 1.0),
    "clustered-1000": (lambda: clustered(50_000, 768, 1000), 1.0),
    "probe-10": (lambda: probe(10), 1.0),
    "probe-100": (lambda: probe(100), 1.0),
    "probe-100-0.01": (lambda: probe(100), 0.01),
    "probe-100-unit": (lambda: probe(100, unit=True), 100.0),
    "hidden-layer": (hidden_layer, 1.0),
    "reviews": (reviews, 1.0),
    "tall": (tall, 1.0),
    "sparse": (sparse, 1.0),
}


def compare(name: str) -> dict[str, Any]:
    """Time one case."""
    make, C = CASES[name]
    X, y = make()
    SoftmaxRegression(C, tol=GAP, max_iter=MOST).fit(X, y)  # compiles what it needs
    floor = _floor(X, y, C)

    def ours() -> None:
        ours.model = SoftmaxRegression(C, tol=GAP, max_iter=MOST).fit(X, y)  # type: ignore[attr-defined]

    ours()
    gap = float(objective(ours.model, X, y, C) / floor - 1)  # type: ignore[attr-defined]
    # The search for its tol takes minutes; it starts where that of an earlier run ended.
    before = _recorded().get(name, {})
    found = _tolerance(X, y, C, floor, GAP, before.get("peer_tol", 1e-4))
    peer = LogisticRegression(C=C, tol=found.tol, max_iter=found.limit)
    calls: dict[str, Callable[[], object]] = {"ours": ours, "peer": lambda: peer.fit(X, y)}
    same = _tolerance(X, y, C, floor, gap, found.tol) if gap < found.gap <= GAP else found
    nearer = same.gap < 0.5 * found.gap  # or it was at its best already, and only went on
    if nearer:
        to_same = LogisticRegression(C=C, tol=same.tol, max_iter=same.limit)
        calls["same"] = lambda: to_same.fit(X, y)
    seconds = alternate(calls, repeats=_rounds(found.took), warmup=0, rest=REST)
    model = ours.model  # type: ignore[attr-defined]
    row = {
        "case": name,
        "shape": [*X.shape, len(model.classes_)],
        "C": C,
        "ours_seconds": seconds["ours"],
        "peer_seconds": seconds["peer"],
        **ratio(seconds["peer"], seconds["ours"]),
        "ours_gap": gap,
        "ours_certificate": model.duality_gap_,
        "ours_solver": model.solver_,
        "ours_iterations": int(model.n_iter_[0]),
        "peer_gap": found.gap,
        "peer_iterations": int(peer.n_iter_[0]),
        "peer_tol": found.tol,
        "peer_reached": found.gap <= GAP,
    }
    if nearer:
        row["same"] = {
            **ratio(seconds["same"], seconds["ours"]),
            "peer_seconds": seconds["same"],
            "peer_gap": same.gap,
            "peer_iterations": int(to_same.n_iter_[0]),
            "peer_tol": same.tol,
            "peer_reached": same.gap <= gap,
        }
    row["default"] = _default(X, y, C, floor, ours)
    if (intelex := _intelex()) is not None:
        stop, rounds = (found.tol, found.limit), min(3, _rounds(found.took))
        row["intelex"] = _second(intelex, X, y, C, stop, floor, ours, rounds)
    peaks = (_peak(name, who, found.tol) for who in ("ours", "peer"))
    row["ours_peak_MB"], row["peer_peak_MB"] = peaks
    return row


def _rounds(took: float) -> int:
    """Return how many rounds to time: up to five, as many as take 12 s; short fits vary most."""
    return max(1, min(5, int(12 / took)))


def _floor(X: Any, y: np.ndarray, C: float) -> float:
    """Return a proven lower bound of the objective, a hundred-millionth below its minimum."""
    best = SoftmaxRegression(C, tol=1e-8, max_iter=MOST).fit(X, y)
    if not best.converged_:
        raise RuntimeError(f"no optimum to measure gaps from (gap {best.duality_gap_:.1e})")
    return float(best.objective_ * (1 - best.duality_gap_))


def objective(model: Any, X: Any, y: np.ndarray, C: float) -> float:
    """Return scikit-learn's objective in float64, rows in blocks."""
    loss = 0.0
    coef, intercept = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    codes = np.searchsorted(model.classes_, y)
    for i in range(0, X.shape[0], 8192):
        part = X[i : i + 8192]
        Z = torch.from_numpy(part.astype(np.float64) @ coef.T + intercept)
        if Z.shape[1] == 1:  # two classes share a logit
            Z = torch.cat([torch.zeros_like(Z), Z], 1)
        loss += float(torch.nn.functional.cross_entropy(
            Z, torch.from_numpy(codes[i : i + 8192]), reduction="sum"))  # fmt: skip
    return loss + float((coef**2).sum()) / (2 * C)


class Found(NamedTuple):
    """Where a peer ends: its tol, its limit of iterations, its gap, and the seconds it took."""

    tol: float
    limit: int
    gap: float
    took: float


def _tolerance(
    X: Any, y: np.ndarray, C: float, floor: float, target: float, loosest: float = 1e-4
) -> Found:
    """Return the loosest tol that takes the peer to a gap of ``target``, else the last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        LogisticRegression(C=C, tol=0, max_iter=10).fit(X, y)
        each = (time.perf_counter() - start) / 10
        limit = max(20, int(PEER_SECONDS / each))
        for tol in (t for t in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8) if t <= loosest):
            start = time.perf_counter()
            peer = LogisticRegression(C=C, tol=tol, max_iter=limit).fit(X, y)
            took = time.perf_counter() - start
            gap = float(objective(peer, X, y, C) / floor - 1)
            if gap <= target or peer.n_iter_[0] >= limit:
                break
    return Found(tol, limit, gap, took)


@lru_cache(maxsize=1)
def _intelex() -> Any | None:
    """Return scikit-learn-intelex's LogisticRegression, or None and say why."""
    try:
        from sklearnex.linear_model import LogisticRegression as Intelex
    except ImportError as error:
        print(f"scikit-learn-intelex left out: {error}")
        return None
    return Intelex


def _second(
    peer: Any, X: Any, y: np.ndarray, C: float, stop: tuple[float, int], floor: float,
    ours: Callable[[], None], rounds: int,
) -> dict[str, Any]:  # fmt: skip
    """Time ours beside another peer, which stops by the same rule as scikit-learn did."""
    model = peer(C=C, tol=stop[0], max_iter=stop[1])
    seconds = alternate(
        {"ours": ours, "peer": lambda: model.fit(X, y)}, repeats=rounds, warmup=0, rest=REST
    )
    return {
        **ratio(seconds["peer"], seconds["ours"]),
        "ours_seconds": seconds["ours"],
        "peer_seconds": seconds["peer"],
        "peer_gap": objective(model, X, y, C) / floor - 1,
        "peer_iterations": int(np.max(model.n_iter_)),
    }


def _default(X: Any, y: np.ndarray, C: float, floor: float, ours: Callable[[], None]) -> Any:
    """Time ours beside the peer's defaults: to our proof, and to the objective where it ends."""
    peer = LogisticRegression(C=C)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        end = objective(peer.fit(X, y), X, y, C)
    took = time.perf_counter() - start
    after: list[float] = []

    def watched() -> None:
        ours()
        history = ours.model.history_  # type: ignore[attr-defined]
        at = next((h for h in history if h["objective"] <= end), history[-1])
        after.append(history[-1]["seconds"] - at["seconds"])  # what was not needed for it

    calls = {"ours": watched, "peer": lambda: peer.fit(X, y)}
    seconds = alternate(calls, repeats=_rounds(took), warmup=0, rest=REST)
    there = [all_ - more for all_, more in zip(seconds["ours"], after, strict=True)]
    return {
        **ratio(seconds["peer"], seconds["ours"]),
        "to_its_objective": ratio(seconds["peer"], there),
        "ours_seconds": seconds["ours"],
        "peer_seconds": seconds["peer"],
        "peer_gap": end / floor - 1,
        "peer_iterations": int(np.max(peer.n_iter_)),
    }


def path() -> dict[str, Any]:
    """Time the choice of C: 10 Cs × 5 folds on correlated 5,000 × 64, ten classes.

    The peer has the loosest tol with which a fit to all rows reaches the gap for every C; and,
    as a second figure, its default.
    """
    X, y = correlated(5000, 64, 10)
    found = [_tolerance(X, y, C, _floor(X, y, C), GAP) for C in np.logspace(-4, 4, 10)]
    tol, limit = min(f.tol for f in found), max(f.limit for f in found)
    ours = SoftmaxRegressionCV(cv=5)

    def peer(**options: float) -> LogisticRegressionCV:
        return LogisticRegressionCV(
            Cs=10,
            cv=5,
            scoring="neg_log_loss",
            l1_ratios=(0,),
            use_legacy_attributes=False,
            **options,
        )

    exact, default = peer(tol=tol, max_iter=limit), peer(max_iter=2000)
    calls = {"ours": ours, "peer": exact, "default": default}
    seconds = alternate(
        {k: lambda m=m: m.fit(X, y) for k, m in calls.items()}, repeats=3, warmup=0, rest=REST
    )

    def difference(model: Any) -> float:
        return float(np.abs(np.ravel(ours.scores_) - np.ravel(model.scores_)).max())

    gap = max(f.gap for f in found)
    return {
        "case": "path",
        "shape": [*X.shape, 10],
        "ours_seconds": seconds["ours"],
        "peer_seconds": seconds["peer"],
        **ratio(seconds["peer"], seconds["ours"]),
        "peer_gap": float(gap),
        "peer_tol": tol,
        "peer_reached": bool(gap <= GAP),
        "ours_C": ours.C_,
        "peer_C": float(np.ravel(exact.C_)[0]),
        "largest_score_difference": difference(exact),
        "default": {
            **ratio(seconds["default"], seconds["ours"]),
            "peer_seconds": seconds["default"],
            "largest_score_difference": difference(default),
        },
    }


def _peak(name: str, who: str, tol: float) -> float:
    """Return the peak memory of one fit beyond its data, in MB, from a process of its own."""
    return float(apart("regression", f"--peak={name}:{who}:{tol}"))


def _print_peak(name: str, who: str, tol: str) -> None:
    warnings.simplefilter("ignore")
    make, C = CASES[name]
    X, y = make()
    models = {"ours": SoftmaxRegression(C, tol=GAP, max_iter=30)}
    models["peer"] = LogisticRegression(C=C, tol=float(tol), max_iter=10)  # it peaks early
    n = max(3000, 2_000_000 // X.shape[1] + 1)  # enough rows for what the whole will run
    models[who].fit(X[:n], y[:n])  # imports, compilation, threads
    before = high_water(reset=True)
    models[who].fit(X, y)
    print((high_water() - before) / 1e6)


def high_water(*, reset: bool = False) -> float:
    """Return the most memory this process has held, after forgetting what came before."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(s.split()[1]) * 1024.0 for s in lines if s.startswith("VmHWM"))


def memmap(N: int = 4_000_000) -> dict[str, Any]:
    """Fit 12 GB of float32 from a file of which 40 stretches were written; the rest is holes.

    A row in two hundred has features, and its label is drawn from a softmax of them; the rows of
    zeros have labels at random.
    """
    D, K = 768, 10
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "X.npy"
        X = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(N, D))
        rng = np.random.default_rng(0)
        y = rng.integers(0, K, N)
        W = 3 * rng.normal(size=(K, D)) / np.sqrt(D)
        for i in range(0, N, N // 40):
            part = rng.normal(size=(N // 8000, D))
            X[i : i + len(part)] = part
            y[i : i + len(part)] = drawn(part, W, rng)
        X.flush()
        del X
        X = np.load(file, mmap_mode="r")
        SoftmaxRegression(max_iter=2).fit(rng.normal(size=(5000, D)), y[:5000])
        before = high_water(reset=True)
        start = time.perf_counter()
        model = SoftmaxRegression(tol=GAP).fit(X, y)
        return {
            "case": "memmap",
            "shape": [N, D, K],
            "ours_seconds": [time.perf_counter() - start],
            "ours_iterations": int(model.n_iter_[0]),
            "ours_certificate": model.duality_gap_,
            "converged": model.converged_,
            "resident_MB_at_most": high_water() / 1e6,
            "before_MB": before / 1e6,
        }


def scaling() -> dict[str, Any]:
    """Time ours as N, D and K double."""
    rows = []
    for what, sizes in {
        "N": [(n, 128, 20) for n in (25_000, 50_000, 100_000, 200_000, 400_000)],
        "D": [(50_000, d, 20) for d in (64, 128, 256, 512, 1024)],
        "K": [(50_000, 128, k) for k in (10, 20, 40, 80, 160, 320)],
    }.items():
        for N, D, K in sizes:
            size = json.loads(apart("regression", f"--size={N}:{D}:{K}"))
            rows.append({"doubling": what, "N": N, "D": D, "K": K, **size})
    return {"case": "scaling", "sizes": rows}


def _print_size(N: int, D: int, K: int) -> None:
    """Print time and peak memory beyond the data of a fit in a process of its own, as JSON."""
    X, y = clustered(N, D, K)
    n = max(3000, 2_000_000 // D + 1)
    SoftmaxRegression(tol=GAP).fit(X[:n], y[:n])  # imports, compilation, threads
    before = high_water(reset=True)
    model = SoftmaxRegression(tol=GAP).fit(X, y)
    peak = (high_water() - before) / 1e6
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model = SoftmaxRegression(tol=GAP).fit(X, y)
        seconds.append(time.perf_counter() - start)
    result = {
        "seconds": float(np.median(seconds)),
        "iterations": int(model.n_iter_[0]),
        "peak_MB": peak,
    }
    print(json.dumps(result))


def plot(sizes: list[dict[str, Any]], file: Path) -> None:
    """Draw time and memory against size."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    names = {"N": "rows", "D": "features", "K": "classes"}
    for axes, key, title in zip(
        figure.subplots(1, 2),
        ("seconds", "peak_MB"),
        ("Seconds to a proven 1e-6", "Peak memory beyond X, MB"),
        strict=True,
    ):
        for what, name in names.items():
            part = [s for s in sizes if s["doubling"] == what]
            first, last = (f"{s['N']:,} × {s['D']:,} × {s['K']}" for s in (part[0], part[-1]))
            label = f"{name}: {first} to {last}"
            times = [s[what] / part[0][what] for s in part]
            axes.plot(times, [s[key] for s in part], "o-", label=label)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(title=title, xlabel="times the smallest")
        if key == "seconds":
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:  # 0 where the fit found room in what the process had
            axes.set_ylim(0, None)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize="small")
    figure.savefig(file, metadata={"Date": None})


def show(row: dict[str, Any]) -> None:
    """Print one result."""
    if row["case"] == "scaling":
        for s in row["sizes"]:
            print(
                f"  {s['N']:>6} × {s['D']:>4} × {s['K']:>3}: {s['seconds']:6.2f} s, "
                f"{s['iterations']:>3} iterations, {s['peak_MB']:6.1f} MB"
            )
    elif row["case"] == "memmap":
        print(
            f"memmap: {row['ours_seconds'][0]:.0f} s, {row['ours_iterations']} iterations to a gap "
            f"of {row['ours_certificate']:.1e}, at most {row['resident_MB_at_most']:.0f} MB "
            f"resident ({row['before_MB']:.0f} before)"
        )
    else:
        median = {k: float(np.median(row[f"{k}_seconds"])) for k in ("ours", "peer")}
        print(
            f"{row['case']:>15}: ours {median['ours']:.3f} s, scikit-learn {median['peer']:.3f} s,"
            f" × {row['ratio']:.1f} ({row['low']:.1f}–{row['high']:.1f})"
        )
        if "ours_gap" in row:
            print(
                f"{'':>15}  gap {row['ours_gap']:.1e} ({row['ours_iterations']} iterations of "
                f"{row['ours_solver']}) and {row['peer_gap']:.1e} ({row['peer_iterations']}); peak "
                f"memory {row['ours_peak_MB']:.0f} and {row['peer_peak_MB']:.0f} MB"
            )
        if "same" in row:
            d = row["same"]
            print(
                f"{'':>15}  {'to' if d['peer_reached'] else 'as far as it gets to'} the objective "
                f"of ours ({np.median(d['peer_seconds']):.3f} s, gap {d['peer_gap']:.1e}): "
                f"× {d['ratio']:.1f} ({d['low']:.1f}–{d['high']:.1f})"
            )
        if "intelex" in row:
            d = row["intelex"]
            print(
                f"{'':>15}  beside scikit-learn-intelex ({np.median(d['peer_seconds']):.3f} s, gap "
                f"{d['peer_gap']:.1e}): × {d['ratio']:.1f} ({d['low']:.1f}–{d['high']:.1f})"
            )
        if row["case"] == "path":
            d = row["default"]
            print(
                f"{'':>15}  beside its default tol (scores off by "
                f"{d['largest_score_difference']:.0e} instead of "
                f"{row['largest_score_difference']:.0e}): × {d['ratio']:.1f} "
                f"({d['low']:.1f}–{d['high']:.1f})"
            )
        elif "default" in row:
            d = row["default"]
            there = d["to_its_objective"]
            print(
                f"{'':>15}  beside its defaults (gap {d['peer_gap']:.1e} after "
                f"{d['peer_iterations']}): × {d['ratio']:.1f} ({d['low']:.1f}–{d['high']:.1f}) to "
                f"our proof, × {there['ratio']:.1f} ({there['low']:.1f}–{there['high']:.1f}) to "
                "its objective"
            )


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all; results of earlier runs of others are kept."""
    if arguments and arguments[0].startswith("--peak="):
        _print_peak(*arguments[0].removeprefix("--peak=").split(":"))
        return
    if arguments and arguments[0].startswith("--size="):
        _print_size(*map(int, arguments[0].removeprefix("--size=").split(":")))
        return
    other = {"path": path, "memmap": memmap, "scaling": scaling}
    names = arguments or [*CASES, *other]
    if unknown := set(names) - set(CASES) - set(other):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; one of: {', '.join([*CASES, *other])}")
    if "OPENBLAS_CORETYPE" in os.environ:
        print("OPENBLAS_CORETYPE is set: the peers may multiply slower than they could. Unset it.")
    rows = _recorded()
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows[name] = other[name]() if name in other else compare(name)
        show(rows[name])
        if name == "scaling":
            RESULTS.mkdir(exist_ok=True)
            plot(rows[name]["sizes"], RESULTS.parents[1] / "docs" / "regression-scaling.svg")
        kept = [rows[n] for n in [*CASES, *other] if n in rows]
        compared = [r for r in kept if "ratio" in r]
        means = {
            "geometric_mean": _mean(compared),
            "geometric_mean_of_both_solved": _mean([r for r in compared if r["peer_reached"]]),
            "geometric_mean_to_the_same_objective": _mean([r.get("same", r) for r in compared]),
        }
        record("regression", kept, threads=torch.get_num_threads(), **means)
    if len(compared) > 1:
        print(
            f"geometric mean of {len(compared)} cases: × {means['geometric_mean']:.1f}, with the "
            "peer's time to its best gap where that is worse than ours; of those that both "
            f"solved: × {means['geometric_mean_of_both_solved']:.1f}; with the peer's time to the "
            "objective that ours reaches, or to its best: "
            f"× {means['geometric_mean_to_the_same_objective']:.1f}"
        )


def _recorded() -> dict[str, dict[str, Any]]:
    """Return the results of earlier runs, case by case."""
    file = results("regression")
    return {r["case"]: r for r in json.loads(file.read_text())["rows"]} if file.exists() else {}


def _mean(rows: list[dict[str, Any]]) -> float | None:
    return math.exp(sum(math.log(r["ratio"]) for r in rows) / len(rows)) if rows else None
