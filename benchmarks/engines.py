"""Engines: softmax regression from a block store, on one and two workers of each, beside the peers.

``python -m benchmarks engines`` writes random rows (``--rows``, ``--columns``, ``--classes``;
``--folder`` keeps them for the next call) and times, for each of ``--engines``:

- whole fits on one worker and on two, after one to warm up, and without the engine's start (asked:
  two are 1.7 times as fast);
- with ``local``: a pass over the blocks beside the same pass over the rows in memory (asked: at
  most 1.3 times).

``--peers`` times others on the same cluster of two workers and the same rows, held in its memory,
and ours to the objective where they ended (asked: 5 times as fast):

- with ``spark``: MLlib's ``LogisticRegression``; then ours on the other engines to the same;
- with ``dask``: dask-ml's ``LogisticRegression``, of ``--classes 2``, with its solver "lbfgs",
  which is faster than its default; and what it makes of more classes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import alternate, record
from luce import SoftmaxRegression
from luce.data.blocks import BlockStore, BlockWriter
from luce.engines.local import Local
from luce.linear.objective import Objective
from luce.linear.parts.objective import PartObjective
from luce.linear.parts.rows import Weighing
from luce.linear.rows import as_rows

BLOCK = 250_000


def main(arguments: list[str]) -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks engines", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", nargs="*", default=list(_STARTS), choices=list(_STARTS))
    parser.add_argument("--peers", action="store_true", help="time others, instead of workers")
    parser.add_argument("--folder", type=Path, help="where to write; kept, and used again")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="luce-engines-"))
    try:
        part = _written(asked, folder)
        found: dict[str, Any] = {}
        if asked.peers:
            found |= {"mllib": _mllib(part, folder)} if "spark" in asked.engines else {}
            found |= {"dask-ml": _dask_ml(part)} if "dask" in asked.engines else {}
        else:
            found |= {"passes": _passes(part, asked)} if "local" in asked.engines else {}
            found["workers"] = {name: _workers(name, part, asked) for name in asked.engines}
        # One file for each set of engines, so that these can be run one after another.
        name = "-".join(["engines", *asked.engines, *["peers"] * asked.peers])
        record(name, [found], asked={**vars(asked), "folder": None})
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def _written(asked: argparse.Namespace, folder: Path) -> Any:
    """Write labelled rows to a block store, unless they are there."""
    N, D, K = asked.rows, asked.columns, asked.classes
    store = folder / f"{N}x{D}x{K}"
    if not store.exists():
        rng = np.random.default_rng(0)
        mix = (rng.standard_normal((D, D)) / D**0.5 + np.eye(D)).astype(np.float32)
        W = rng.standard_normal((D, K)).astype(np.float32)
        with BlockWriter(store, features=D, dtype="float32", classes=list(range(K))) as writer:
            for i in range(0, N, BLOCK):
                X = rng.standard_normal((min(BLOCK, N - i), D), np.float32) @ mix
                writer.add("train", X, (X @ W + 2 * rng.gumbel(size=(len(X), K))).argmax(1))
    return BlockStore.open(store).part("train")


def _passes(part: Any, asked: argparse.Namespace) -> dict[str, Any]:
    """Time value and gradient over the rows in memory, and over the blocks."""
    options: dict[str, Any] = {
        "n_logits": asked.classes,
        "link": "softmax",
        "C": 1.0,
        "fit_intercept": True,
        "dtype": torch.float32,
    }
    X = np.concatenate([part.open(k)[0] for k in range(len(part.blocks))])
    y = np.concatenate([part.open(k)[1] for k in range(len(part.blocks))]).astype(np.int64)
    weight = torch.ones(len(y), dtype=torch.float64)
    own = Objective(as_rows(X), torch.from_numpy(y), weight, **options)
    mine = PartObjective(part, Local().map, Weighing(), **options)
    theta = own.start()
    theta[:, :-1] = 0.01
    seconds = alternate(
        {"memory": lambda: own.evaluate(theta), "blocks": lambda: mine.evaluate(theta)},
        repeats=2 * asked.repeats + 1,
    )
    ratio = statistics.median(seconds["blocks"]) / statistics.median(seconds["memory"])
    print(
        f"a pass: {1e3 * statistics.median(seconds['memory']):.0f} ms in memory, "
        f"{1e3 * statistics.median(seconds['blocks']):.0f} ms over blocks: {ratio:.2f} times",
        flush=True,
    )
    return {"seconds": seconds, "ratio": ratio}


def _workers(name: str, part: Any, asked: argparse.Namespace) -> dict[str, Any]:
    """Time fits on one worker and on two, each after one to warm up."""
    found: dict[str, Any] = {}
    for n in (1, 2):
        try:
            engine, close = _STARTS[name](n)
        except ImportError as error:
            print(f"{name}: not installed ({error})")
            return {"missing": str(error)}
        seconds = []
        try:
            for _ in range(asked.repeats + 1):
                start = time.perf_counter()
                model = SoftmaxRegression().fit(part, engine=engine)
                seconds.append(time.perf_counter() - start)
        finally:
            close()
        found[str(n)] = {"first": seconds[0], "seconds": seconds[1:]}
        found["iterations"], found["gap"] = int(model.n_iter_[0]), model.duality_gap_
        found.setdefault("bits", []).append(hash(model.coef_.tobytes()))
    one, two = (statistics.median(found[n]["seconds"]) for n in ("1", "2"))
    same = len(set(found.pop("bits"))) == 1
    found |= {"ratio": one / two, "same bits": same}
    print(
        f"{name}: a fit of {found['iterations']} iterations takes {one:.2f} s on one worker, "
        f"{two:.2f} s on two: {one / two:.2f} times; the same bits: {same}",
        flush=True,
    )
    return found


def _local(n: int) -> tuple[Any, Any]:
    engine = Local(n)
    return engine, engine.close


def _dask(n: int) -> tuple[Any, Any]:
    import distributed

    client = distributed.Client(n_workers=n, threads_per_worker=1, dashboard_address=None)
    return client, client.shutdown


def _spark(n: int) -> tuple[Any, Any]:
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master(f"local[{n}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.memory", "8g")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    return session, session.stop


def _ray(n: int) -> tuple[Any, Any]:
    import ray

    ray.init(num_cpus=n, include_dashboard=False, logging_level="error", log_to_driver=False)
    return "ray", ray.shutdown


_STARTS = {"local": _local, "dask": _dask, "spark": _spark, "ray": _ray}


def _mllib(part: Any, folder: Path) -> dict[str, Any]:
    """Time MLlib's softmax regression, and ours on each engine to where it ended."""
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.functions import array_to_vector

    N = part.shape[0]
    session, close = _spark(2)
    try:
        rows = session.read.parquet(str(_parquet(part, folder)))
        rows = rows.select("label", array_to_vector("x").alias("features")).cache()
        rows.count()
        peer = LogisticRegression(
            family="multinomial", regParam=1 / N, standardization=False, maxIter=200, tol=1e-8
        )
        peer.setMaxIter(1).fit(rows)  # Java compiles what it runs often
        peer.setMaxIter(200)
        start = time.perf_counter()
        fitted = peer.fit(rows)
        theirs = time.perf_counter() - start
        goal = fitted.summary.objectiveHistory[-1] * N
        iterations = fitted.summary.totalIterations
        rows.unpersist()
        ours = {"spark": _reached(part, session, goal, theirs)}
    finally:
        close()
    print(f"MLlib: {theirs:.1f} s, {iterations} iterations, objective {goal:.9g}", flush=True)
    for name in ("dask", "ray"):
        engine, close = _STARTS[name](2)
        try:
            ours[name] = _reached(part, engine, goal, theirs)
        finally:
            close()
    for name, own in ours.items():
        print(f"ours on {name}: {_in_words(own)}", flush=True)
    return {
        "theirs": {"seconds": theirs, "objective": goal, "iterations": iterations},
        "ours": ours,
    }


def _reached(part: Any, engine: Any, goal: float, theirs: float) -> dict[str, Any]:
    """Time a fit, and when it was at an objective that took a peer some seconds."""
    SoftmaxRegression(max_iter=1).fit(part, engine=engine)  # workers start, and load
    start = time.perf_counter()
    model = SoftmaxRegression().fit(part, engine=engine)
    whole = time.perf_counter() - start
    before = whole - model.history_[-1]["seconds"]
    reached = [e["seconds"] for e in model.history_ if e["objective"] <= goal * (1 + 1e-9)]
    seconds = before + reached[0] if reached else None
    return {
        "seconds": whole,
        "objective": float(model.objective_),
        "iterations": int(model.n_iter_[0]),
        "gap": float(model.duality_gap_),
        "seconds to their objective": seconds,
        "ratio": None if seconds is None else theirs / seconds,
    }


def _in_words(own: dict[str, Any]) -> str:
    there = own["seconds to their objective"]
    words = "their objective not reached" if there is None else f"to theirs {there:.1f} s"
    times = "" if there is None else f", {own['ratio']:.1f} times as fast"
    return (
        f"{words}{times}; to a gap of {own['gap']:.0e} {own['seconds']:.1f} s, "
        f"objective {own['objective']:.9g}"
    )


def _parquet(part: Any, folder: Path) -> Path:
    """Write the rows for Spark, unless they are there."""
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / f"{Path(part.folder).name}.parquet"
    if not path.exists():
        path.mkdir()
        for k in range(len(part.blocks)):
            X, y, _ = part.open(k)
            flat = pa.array(np.ascontiguousarray(X).reshape(-1))
            x = pa.FixedSizeListArray.from_arrays(flat, X.shape[1]).cast(pa.list_(pa.float32()))
            table = pa.table({"label": pa.array(np.asarray(y), pa.int32()), "x": x})
            parquet.write_table(table, path / f"{k:05d}.parquet")
    return path


def _dask_ml(part: Any) -> dict[str, Any]:
    """Time dask-ml's regression of two classes, and ours; and see what it makes of five."""
    try:
        import dask
        import dask.array as da
        import distributed
        from dask_ml.linear_model import LogisticRegression
    except ImportError as error:
        print(f"dask-ml: not installed ({error})")
        return {"missing": str(error)}

    rng = np.random.default_rng(0)
    few = rng.standard_normal((10_000, 20), np.float32)
    labels = (few @ rng.standard_normal((20, 5)) + rng.gumbel(size=(10_000, 5))).argmax(1)
    client, close = _dask(2)
    try:
        X = da.concatenate(
            [
                da.from_delayed(dask.delayed(_opened)(part, k, 0), (n, part.shape[1]), np.float32)
                for k, n in enumerate(part.blocks)
            ]
        )
        y = da.concatenate(
            [
                da.from_delayed(dask.delayed(_opened)(part, k, 1), (n,), np.int64)
                for k, n in enumerate(part.blocks)
            ]
        )
        X, y = dask.persist(X, y)
        distributed.wait([X, y])
        found: dict[str, Any] = {}
        if len(part.classes) == 2:
            start = time.perf_counter()
            peer = LogisticRegression(C=1.0, solver="lbfgs").fit(X, y)
            theirs = time.perf_counter() - start
            goal = _binary_objective(part, np.asarray(peer.coef_), float(peer.intercept_))
            del X, y
            own = _reached(part, client, goal, theirs)
            found |= {"theirs": {"seconds": theirs, "objective": goal}, "ours": own}
            print(f"dask-ml: {theirs:.1f} s, objective {goal:.9g}; ours {_in_words(own)}")
        wrong = LogisticRegression(C=1.0, solver="lbfgs").fit(
            da.from_array(few, (5_000, 20)), da.from_array(labels, 5_000)
        )
        said = np.asarray(wrong.predict(da.from_array(few, (25_000, 20))))
        shape = np.asarray(wrong.predict_proba(da.from_array(few[:5], (5, 20)))).shape
    finally:
        close()
    model = SoftmaxRegression().fit(few, labels)
    found["five classes"] = {
        "theirs": {
            "coef": list(wrong.coef_.shape),
            "probabilities": list(shape),
            "accuracy": float(np.mean(said == labels)),
        },
        "ours": {"coef": list(model.coef_.shape), "accuracy": float(model.score(few, labels))},
    }
    print(f"five classes: {found['five classes']}", flush=True)
    return found


def _opened(part: Any, k: int, i: int) -> np.ndarray:
    """Return features or codes of a block, in memory."""
    found = np.array(part.open(k)[i])
    return found.astype(np.int64) if i else found


def _binary_objective(part: Any, coef: np.ndarray, intercept: float) -> float:
    """Return what ours minimises: the log-losses' sum, and half the coefficients' squares."""
    total = 0.5 * float(coef @ coef)
    for k in range(len(part.blocks)):
        X, y, _ = part.open(k)
        score = np.asarray(X, np.float64) @ coef + intercept
        total += float(np.logaddexp(0, np.where(y == 1, -score, score)).sum())
    return total
