"""Runs to serve, an application without a network, and a server as a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient

import luce
from luce.serving.application import Application
from luce.serving.limits import Limits
from luce.serving.watching import Watching

SOURCE = Path(luce.__file__).parents[1]


def people(rows, seed):
    """Return a table of every kind of column, and a target that depends on each."""
    random = np.random.default_rng(seed)
    age, city = random.uniform(18, 90, rows).round(1), random.choice(["Graz", "Linz", "Wien"], rows)
    member = random.random(rows) < 0.5
    day = np.datetime64("2024-01-01") + random.integers(0, 366, rows)
    text = np.where(
        random.random(rows) < 0.5,
        "a long letter of thanks and much praise",
        "a short note which is full of anger",
    )
    score = age / 30 + (city == "Wien") + member + (np.char.find(text, "praise") > 0)
    noise = random.normal(0, 0.5, rows)
    label = np.array(["low", "mid", "high"])[np.digitize(score + noise, [2.5, 4.0])]
    remark = [
        f"{each} {number}" for each, number in zip(text, random.integers(0, 99, rows), strict=True)
    ]
    return pl.DataFrame(
        {"age": age, "city": city, "member": member, "day": day, "remark": remark, "label": label}
    )


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A run on a table of all kinds, one on images, one on a matrix."""
    folder = tmp_path_factory.mktemp("runs")
    people(1_500, 0).write_csv(folder / "people.csv")
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 3))
    y = (X[:, 0] > 0).astype(int)
    luce.train(folder / "people.csv", target="label", model="linear", out=folder, name="people")
    luce.train("digits", model="linear", out=folder, name="digits")
    luce.train((X, y), model="linear", out=folder, name="matrix")
    return folder


@pytest.fixture
def client():
    """Return a function that gives a client of an application with some runs."""
    with contextlib.ExitStack() as stack:

        def of(*paths, limits=None, log=None, **options):
            application = Application(
                list(paths), limits or Limits(), watching=Watching(log), **options
            )
            client = TestClient(application, raise_server_exceptions=False)
            client.application = application
            return stack.enter_context(client)

        yield of


class Server:
    """`luce serve` as a process; `address` is what it says on standard output."""

    def __init__(self, *arguments, environment=None):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "luce", "serve", *map(str, arguments), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE), **(environment or {})},
        )
        self.address = self.process.stdout.readline().strip()

    @property
    def port(self):
        return int(self.address.rpartition(":")[2])

    def stop(self, how=signal.SIGTERM):
        """End it; return its exit code and what it wrote to standard error."""
        self.process.send_signal(how)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture
def server():
    """Return a function that starts a server."""
    started = []

    def start(*arguments, **options):
        started.append(Server(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()
