"""Texts: from a CSV to a classifier and to predictions, beside scikit-learn doing the same.

``python -m benchmarks texts`` cuts the bundled movie reviews into 120,000 short documents, each
with its review's label, and times, in turn:

- the whole job: read the CSV, terms, fit, until it can predict. Ours is ``luce.train`` with its
  defaults, validation and calibration included; the peer is pandas, `TfidfVectorizer` of words and
  pairs and `LogisticRegression`, with their defaults and no validation;
- predictions, in documents a second, from a frame in memory;
- the terms alone, on one thread: the whole reviews to tf-idf rows, fitted and applied.

Then each whole review is predicted in five-fold cross-validation, by the linear model.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline

import luce
from benchmarks.timing import alternate, ratio, record
from luce.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from luce.run import Run

DOCUMENTS = 120_000


def main(arguments: list[str]) -> None:
    """Time all parts, print them and write ``results/texts.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks texts", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each (default 3)")
    options = parser.parse_args(arguments)
    path = Path(os.environ.get("LUCE_DATA_DIR", "data")) / "tables" / "movie-reviews.csv"
    if not path.is_file():
        sys.exit(f"no {path}: set LUCE_DATA_DIR to the folder that has tables/")
    reviews = pl.read_csv(path)
    rows = [
        *jobs(fragments(reviews), options.repeats),
        terms(reviews["review"], options.repeats),
        accuracy(reviews),
    ]
    print(f"\nWritten to {record('texts', rows, threads=torch.get_num_threads())}")


def fragments(reviews: pl.DataFrame) -> pl.DataFrame:
    """Return the reviews cut into 120,000 pieces of about as many words, in random order."""
    words = [text.split() for text in reviews["review"]]
    size = sum(map(len, words)) / DOCUMENTS
    texts: list[str] = []
    labels: list[str] = []
    for own, label in zip(words, reviews["sentiment"], strict=True):
        pieces = np.array_split(np.array(own, dtype=object), max(1, round(len(own) / size)))
        texts += [" ".join(piece) for piece in pieces]
        labels += [label] * len(pieces)
    order = np.random.default_rng(0).permutation(len(texts))
    return pl.DataFrame({"sentiment": labels, "review": texts})[order]


def jobs(documents: pl.DataFrame, repeats: int) -> list[dict[str, Any]]:
    """Time training from a file, and prediction from a frame."""
    made: dict[str, Any] = {}
    asked = documents.drop("sentiment")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "documents.csv"
        documents.write_csv(file)

        def ours() -> None:
            """Stop the clock when the run can predict: the report is for people who read it."""
            ends: list[float] = []
            made["ours"] = luce.train(
                file,
                target="sentiment",
                test_size=0.0,
                out=Path(folder) / "runs",
                overwrite=True,
                announce=lambda _: ends.append(time.perf_counter()),
            )
            made["after"].append(time.perf_counter() - ends[0])

        def theirs() -> None:
            frame = pd.read_csv(file)
            pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
            made["theirs"] = pipeline.fit(frame["review"], frame["sentiment"])

        made["after"] = []
        trained = alternate({"ours": ours, "theirs": theirs}, repeats=repeats, warmup=1)
        after = made["after"][-repeats:]
        trained["ours"] = [a - b for a, b in zip(trained["ours"], after, strict=True)]
        run: Run = made["ours"]
        texts = asked["review"].to_pandas()
        predicted = alternate(
            {
                "ours": lambda: run.predict_proba(asked),
                "theirs": lambda: made["theirs"].predict_proba(texts),
            },
            repeats=repeats,
            warmup=1,
        )
    rows = []
    for what, seconds in (("training", trained), ("prediction", predicted)):
        own = statistics.median(seconds["ours"])
        row = {"what": what, "documents": len(documents), "seconds": seconds}
        rows.append(row | ratio(seconds["theirs"], seconds["ours"]))
        print(
            f"{what}: {own:.2f} s for {len(documents):,} documents ({len(documents) / own:,.0f} a "
            f"second), {rows[-1]['ratio']:.1f} times as fast as scikit-learn "
            f"({rows[-1]['low']:.1f} to {rows[-1]['high']:.1f})",
            flush=True,
        )
    rows[0]["model"] = run.config["model"]
    return rows


def terms(reviews: pl.Series, repeats: int) -> dict[str, Any]:
    """Time texts to rows of tf-idf, learnt and made, with the same terms on both sides."""
    texts = reviews.to_list()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def theirs() -> Any:
        # As ours: terms of two texts or more, logarithms of counts, words of any length.
        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=2**20
        )
        return vectorizer.fit_transform(texts)

    seconds = alternate(
        {"ours": lambda: Vocabulary.learn(reviews).encode(reviews), "theirs": theirs},
        repeats=repeats,
    )
    torch.set_num_threads(threads)
    row = {"what": "terms", "documents": len(texts), "seconds": seconds}
    row |= ratio(seconds["theirs"], seconds["ours"])
    print(
        f"terms of {len(texts):,} reviews: {row['ratio']:.1f} times as fast as TfidfVectorizer "
        f"({row['low']:.1f} to {row['high']:.1f})",
        flush=True,
    )
    return row


def accuracy(reviews: pl.DataFrame) -> dict[str, Any]:
    """Return the accuracy of the linear model on reviews, in five folds."""
    labels = reviews["sentiment"].to_numpy()
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (train, test) in enumerate(folds):
            run = luce.train(
                reviews[train],
                target="sentiment",
                model="linear",
                test_size=0.0,
                out=folder,
                name=str(number),
            )
            said = run.predict(reviews[test].drop("sentiment"))
            found.append(float((said == labels[test]).mean()))
    print(
        f"accuracy of five folds: {statistics.fmean(found):.2%} ({min(found):.2%} to "
        f"{max(found):.2%})"
    )
    return {"what": "accuracy", "folds": found, "mean": statistics.fmean(found)}
