"""Tables: ours beside scikit-learn's and LightGBM's defaults, by log-loss, accuracy and seconds.

``python -m benchmarks tables`` trains each on four fifths of each table's rows and scores it on the
others, on several splits, in turn. What rows a model holds out for itself is its own affair.

- Ours is ``luce.train`` with nothing but the model's name, from the frame in memory until the run
  can predict; its report is not counted.
- Peers have their defaults. Linear models and networks get imputed and scaled numbers and one-hot
  categories; trees get numbers and categories as such. Texts are tf-idf of words, for trees of the
  2,000 commonest.
- What cannot be trained counts as last, with its reason.

Ranks are of each table's mean log-loss. `adult` is its usual split, once, and not among the ranks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from scipy.stats import rankdata
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import luce
from benchmarks.timing import record
from luce.errors import LuceError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

try:
    from lightgbm import LGBMClassifier
except ImportError:  # a peer alone, so it is no dependency
    LGBMClassifier = None

# Small ones first. Each table's target; adult's two files are two tables.
TARGETS = {
    "penguins": "species",
    "german-credit": "risk",
    "soybean": "class",
    "movie-reviews": "sentiment",
    "segment": "class",
    "wine-white": "quality",
    "phoneme": "nasal",
    "mammography": "class",
    "adult-test": "income",
    "adult-train": "income",
}
USUAL = "adult"
OURS = ("linear", "mlp", "auto")
# Classes with fewer rows cannot be in every part of a split.
FEWEST = 8
TEXT = 100


def main(arguments: list[str]) -> None:
    """Run all on all tables; print them and write ``results/tables.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tables", description=__doc__)
    every = (*TARGETS, USUAL)
    parser.add_argument("--tables", help=f"some of {','.join(every)}, commas between")
    parser.add_argument("--models", help=f"some of {','.join(models())}, commas between")
    parser.add_argument("--splits", type=int, default=5, help="default 5")
    parser.add_argument("--quick", action="store_true", help="one split of the smaller tables")
    options = parser.parse_args(arguments)
    names = (options.tables or ",".join(every)).split(",")
    if options.quick and not options.tables:
        names = ["penguins", "german-credit", "segment", "phoneme"]
    chosen = (options.models or ",".join(models())).split(",")
    for name in {*names, *chosen} - {*every, *models()}:
        sys.exit(f"there is no {name!r}; see --help")
    if LGBMClassifier is None:
        print("LightGBM is left out: it is not installed (pip install lightgbm).")
    wanted = {name: fit for name, fit in models().items() if name in chosen}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fit in wanted.values():  # imports and kernels are no part of training
            fit(*halves("penguins", 0)[:2], "species")
        rows = [
            row
            for name in names
            for split in range(1 if options.quick or name == USUAL else options.splits)
            for row in score(name, split, wanted)
        ]
    summary = summarise(rows, list(wanted))
    path = record("tables", rows, summary=summary, threads=torch.get_num_threads())
    print(f"\nWritten to {path}")


def score(
    name: str, split: int, wanted: dict[str, Callable[..., tuple[NDArray[Any], NDArray[Any]]]]
) -> list[dict[str, Any]]:
    """Train each on one split of a table, print and return log-loss, accuracy and seconds."""
    target = TARGETS["adult-train" if name == USUAL else name]
    train, test = halves(name, split)
    truth = test[target].to_numpy()
    rows: list[dict[str, Any]] = []
    for model, fit in wanted.items():
        row: dict[str, Any] = {"table": name, "split": split, "model": model}
        try:
            classes, probabilities, seconds = fit(train, test, target)
        except (LuceError, ValueError) as error:
            rows.append(row | {"skipped": str(error).splitlines()[0]})
            print(f"{name:<14} {split}  {model:<20} {rows[-1]['skipped'][:80]}", flush=True)
            continue
        probabilities = np.clip(probabilities.astype(np.float64), 1e-15, 1)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        # Ours reads labels as what they are, such as whole numbers; the truth is text.
        codes = np.array([classes.astype(str).tolist().index(label) for label in truth])
        own = probabilities[np.arange(len(codes)), codes]
        row |= {
            "log_loss": float(-np.log(own).mean()),
            "accuracy": float((probabilities.argmax(axis=1) == codes).mean()),
            "seconds": seconds,
        }
        rows.append(row)
        print(
            f"{name:<14} {split}  {model:<20} {row['log_loss']:8.4f} {row['accuracy']:8.2%} "
            f"{seconds:7.2f} s",
            flush=True,
        )
    return rows


def summarise(rows: list[dict[str, Any]], models: list[str]) -> dict[str, Any]:
    """Print and return mean log-losses, mean ranks, and seconds against those of boosted trees."""
    tables = list(dict.fromkeys(row["table"] for row in rows))
    means: dict[str, dict[str, dict[str, float]]] = {}
    for figure in ("log_loss", "accuracy", "seconds"):
        means[figure] = {table: {} for table in tables}
        for table in tables:
            for model in models:
                own = [r for r in rows if (r["table"], r["model"]) == (table, model)]
                if all(figure in row for row in own):
                    # Of times the median: whatever else the machine did is no property of a model.
                    middle = statistics.median if figure == "seconds" else statistics.fmean
                    means[figure][table][model] = middle(row[figure] for row in own)
    ranked = [table for table in tables if table != USUAL]
    ranks = {
        table: rankdata([means["log_loss"][table].get(model, np.inf) for model in models])
        for table in ranked
    }
    mean_ranks = np.mean(list(ranks.values()), axis=0).tolist() if ranks else []
    reference, ratios = "gradient boosting", {}
    for model in models:
        seconds = [means["seconds"][table] for table in ranked]
        both = [each for each in seconds if model in each and reference in each]
        if both:
            ratios[model] = statistics.geometric_mean(e[model] / e[reference] for e in both)
    print("\nMean log-loss" + "".join(f"{model[:11]:>12}" for model in models))
    for table in tables:
        found = (means["log_loss"][table].get(model, np.nan) for model in models)
        print(f"{table:<13}" + "".join(f"{value:>12.4f}" for value in found))
    print(f"{'mean rank':<13}" + "".join(f"{rank:>12.2f}" for rank in mean_ranks))
    times = (ratios.get(model, np.nan) for model in models)
    print(f"{'time of trees':<13}" + "".join(f"{value:>12.2f}" for value in times))
    return {**means, "mean_rank": dict(zip(models, mean_ranks, strict=False)), "times": ratios}


# -------------------------------------------------------------------------------------------------
# Data
# -------------------------------------------------------------------------------------------------


def halves(name: str, split: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows to train on and those to score."""
    if name == USUAL:
        return read("adult-train"), read("adult-test")
    frame, target = read(name), TARGETS[name]
    counts = frame[target].value_counts()
    common = counts.filter(pl.col("count") >= FEWEST)[target]
    frame = frame.filter(pl.col(target).is_in(common.implode()))
    train, test = train_test_split(
        np.arange(len(frame)), test_size=0.2, random_state=split, stratify=frame[target].to_list()
    )
    return frame[np.sort(train)], frame[np.sort(test)]


def read(name: str) -> pl.DataFrame:
    """Return a table, with its target as text."""
    data = Path(os.environ.get("LUCE_DATA_DIR", "data"))
    places = [data / f"{name}.csv", data / "tables" / f"{name}.csv"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        sys.exit(f"no {name}.csv under {data}: set LUCE_DATA_DIR to the folder that has tables/")
    frame = pl.read_csv(path, infer_schema_length=None, null_values=["", "NA"])
    target = TARGETS[name]
    return frame.with_columns(pl.col(target).cast(pl.String)).drop_nulls(target)


# -------------------------------------------------------------------------------------------------
# Models: frames and the target's name → classes, probabilities of the test rows, seconds
# -------------------------------------------------------------------------------------------------


def models() -> dict[str, Callable[..., Any]]:
    """Return each by its name: (train, test, target) → (classes, probabilities, seconds)."""
    found: dict[str, Callable[..., Any]] = {name: ours(name) for name in OURS}
    found["logistic regression"] = peer(LogisticRegression(), matrix)
    found["MLPClassifier"] = peer(MLPClassifier(random_state=0), matrix)
    trees = HistGradientBoostingClassifier(random_state=0)
    found["gradient boosting"] = peer(trees, categories)
    if LGBMClassifier is not None:
        boosted = LGBMClassifier(random_state=0, verbose=-1)
        found["LightGBM"] = peer(boosted, categories)
    return found


def ours(model: str) -> Callable[..., Any]:
    """Return how a model of ours is trained."""

    def fit(train: pl.DataFrame, test: pl.DataFrame, target: str) -> Any:
        ends: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            since = time.perf_counter()
            run = luce.train(
                train,
                target=target,
                model=model,
                test_size=0.0,
                out=folder,
                announce=lambda _: ends.append(time.perf_counter()),
            )
            probabilities = run.predict_proba(test.drop(target))
        return np.array(run.classes), probabilities, ends[0] - since

    return fit


def peer(estimator: Any, prepare: Callable[[pd.DataFrame], Any]) -> Callable[..., Any]:
    """Return how a peer is trained."""

    def fit(train: pl.DataFrame, test: pl.DataFrame, target: str) -> Any:
        X, unseen = (frame.drop(target).to_pandas() for frame in (train, test))
        pipeline = make_pipeline(prepare(X), estimator)
        since = time.perf_counter()
        pipeline.fit(X, train[target].to_numpy())
        seconds = time.perf_counter() - since
        return pipeline.classes_, pipeline.predict_proba(unseen), seconds

    return fit


def matrix(frame: pd.DataFrame) -> ColumnTransformer:
    """Return what makes numbers of a frame for linear models and networks."""
    numbers, words, texts = kinds(frame)
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    hot = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    return ColumnTransformer(
        [("numbers", scaled, numbers), ("words", hot, words)]
        + [(name, TfidfVectorizer(), name) for name in texts]
    )


def categories(frame: pd.DataFrame) -> Categories:
    """Return what trees are given: categories by name, numbers with what is missing, few words."""
    return Categories(kinds(frame))


class Categories:
    """Frames whose texts are the tf-idf of their commonest words; categories are typed as such."""

    def __init__(self, kinds: tuple[list[str], list[str], list[str]]) -> None:
        _, self.words, self.texts = kinds

    def fit(self, frame: pd.DataFrame, labels: Any = None) -> Categories:  # noqa: ARG002
        """Learn categories and words."""
        self.types = {name: frame[name].astype("category").dtype for name in self.words}
        self.vectorizers = {
            name: TfidfVectorizer(max_features=2_000).fit(frame[name]) for name in self.texts
        }
        return self

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame as trees read it."""
        import pandas as pd

        parts = [frame.drop(columns=list(self.vectorizers)).astype(self.types)]
        for name, vectorizer in self.vectorizers.items():
            found = vectorizer.transform(frame[name]).toarray()
            columns = [f"{name}{i}" for i in range(found.shape[1])]
            parts.append(pd.DataFrame(found, columns=columns, index=frame.index))
        return pd.concat(parts, axis=1)


def kinds(frame: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the columns that are numbers, categories and texts."""
    numbers = list(frame.select_dtypes("number").columns)
    others = [name for name in frame.columns if name not in numbers]
    long = [name for name in others if frame[name].str.len().mean() > TEXT]
    return numbers, [name for name in others if name not in long], long


__all__ = ["main"]
