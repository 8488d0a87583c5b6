"""Runs of every kind, as small as they may be, trained once for all tests of exports."""

import datetime as dt
import functools

import numpy as np
import polars as pl
import pytest

import luce

ROWS = 260


def with_gaps(values, random, share=0.06):
    """Return the values with some of them missing."""
    return [None if random.random() < share else value for value in values]


@functools.cache
def table():
    """Return a table with each kind of column, each written in several ways, and its labels."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, ROWS)
    days = [
        dt.date(2019, 12, 20) + dt.timedelta(days=int(d)) for d in random.integers(0, 1500, ROWS)
    ]
    amounts = random.uniform(-1e6, 1e6, ROWS)
    euros = [f"{x:,.2f}".translate({44: 46, 46: 44}) + " €" for x in amounts]
    hours = random.integers(0, 24, ROWS)
    words = ["good", "très", "über_x", "night", "DAY", "the", "a", "of", "Straße", "GREAT", "plot"]
    columns = {
        "age": with_gaps(random.normal(40 + 5 * y, 10).round(1).tolist(), random),
        "income": with_gaps(np.exp(random.normal(8 + y / 3, 2)).tolist(), random),
        "price": euros,
        "dollars": with_gaps([f"-${-x:,.0f}" if x < 0 else f"${x:,.2f}" for x in amounts], random),
        "member": with_gaps(random.choice(["Yes", "no"], ROWS).tolist(), random),
        "active": random.choice(["true", "false"], ROWS).tolist(),
        "day": [str(day) for day in days],
        "german": with_gaps([day.strftime("%d.%m.%Y") for day in days], random),
        "short": [day.strftime("%m/%d/%y 1:05 PM") for day in days],
        "long": [day.strftime("%B %d, %Y") for day in days],
        "month first": [day.strftime("%d-%B-%Y") for day in days],
        "stamp": [f"{d}T{h:02}:30:15.25+02:00" for d, h in zip(days, hours, strict=True)],
        "typed": with_gaps(days, random),
        "moment": [
            dt.datetime.combine(d, dt.time(h)) for d, h in zip(days, hours.tolist(), strict=True)
        ],
        "island": with_gaps(random.choice(["Dream", "New York", "Île"], ROWS).tolist(), random),
        "town": with_gaps([f"town {int(k)}" for k in random.zipf(1.3, ROWS) % 200], random),
        "code": [f"c{i % 128}" for i in random.permutation(ROWS)],
        "remark": with_gaps(
            [
                " ".join(random.choice(words, 9)) + ("; great" * k) + random.choice([".", " 😀"])
                for k in y
            ],
            random,
        ),
        "y": ["abc"[k] for k in y],
    }
    return pl.DataFrame(columns)


SPARSE = ["code", "remark"]


def trained(source, folder, model, **options):
    """Return a run of a source that is trained next to not at all."""
    if model in ("mlp", "cnn"):
        options = {"epochs": 1, **options}
    return luce.train(source, model=model, out=folder, name="run", **options)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """Return a function that trains a run, once for the same arguments."""
    sources = {
        "dense": lambda: table().drop(SPARSE),
        "sparse": lambda: table().drop("remark"),
        "text": table,
        "plain": lambda: table().select("age", "income", "member", "island", "town", "y"),
        "said in PMML": lambda: table().select(
            "age", "income", "price", "member", "active", "island", "town", "y"
        ),
        "words": lambda: table().select("remark", "y"),
        "array": array,
        "colours": colours,
        "digits": lambda: "digits",
    }

    @functools.cache
    def made(source, model, **options):
        data = sources[source]()
        if isinstance(data, pl.DataFrame):
            options = {"target": "y", **options}
        return trained(data, tmp_path_factory.mktemp("runs"), model, **options)

    made.source = lambda name: sources[name]()
    return made


@functools.cache
def array():
    """Return embeddings far from 0, and their labels: two booleans."""
    random = np.random.default_rng(1)
    y = random.random(200) < 0.5
    return random.normal(1000 + y[:, None], 2, (200, 12)), y


@functools.cache
def colours():
    """Return pictures of 3 × 22 × 19 pixels, and their labels."""
    random = np.random.default_rng(2)
    y = random.integers(0, 4, 120)
    return (random.integers(0, 200, (120, 3, 22, 19)) + 10 * y[:, None, None, None]).astype(
        np.uint8
    ), y


def features_of(run_of, source, count=60):
    """Return some raw rows of a source."""
    data = run_of.source(source)
    if isinstance(data, pl.DataFrame):
        return data.drop("y")[:count]
    return (luce.load_dataset("digits").features if isinstance(data, str) else data[0])[:count]
