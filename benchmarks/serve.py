"""`luce serve` beside MLflow's and BentoML's servers of the same kind of model.

``python -m benchmarks serve --peers PYTHON`` asks each server for one row of 64 numbers at a time,
on 64 connections that are kept: a softmax regression on the digits. Then, of Luce alone: one
connection, rows by Arrow, the time from the start to the first answer, and with ``--soak SECONDS``
its memory under load. PYTHON is an interpreter that has mlflow, bentoml and scikit-learn; whichever
it lacks is left out. Server and client share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import psutil

import luce
from benchmarks.timing import record

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS, SECONDS, ROUNDS = 64, 4.0, 3
ROW = [[0, 0, 5, 13, 9, 1, 0, 0] * 8]
BODIES = {
    "luce": ("/predict", {"rows": ROW}),
    "mlflow": ("/invocations", {"inputs": ROW}),
    "bentoml": ("/predict", {"rows": ROW}),
}


class Client(asyncio.Protocol):
    """A connection that asks again as soon as it is answered, and notes how long that took."""

    def __init__(self, content: bytes, seconds: list[float], until: float) -> None:
        self.content, self.seconds, self.until = content, seconds, until
        self.left, self.head = 0, b""
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask for the first time."""
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        self.since = time.perf_counter()
        self.transport.write(self.content)

    def data_received(self, data: bytes) -> None:
        """Count what comes; when all is there, ask again or stop."""
        if not self.left:
            self.head += data
            head, end, body = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(self.head[:300].decode(errors="replace"))
            length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
            self.left, self.head = int(length) - len(body), b""
        else:
            self.left -= len(data)
        if self.left:
            return
        self.seconds.append(time.perf_counter() - self.since)
        if time.perf_counter() < self.until:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        """Say that it is over."""
        self.gone.set_result(None)


def load(port: int, who: str, connections: int, seconds: float) -> list[float]:
    """Return how long each request took, in seconds."""
    path, body = BODIES[who]
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    content = f"{head}content-length: {len(text)}\r\n\r\n".encode() + text
    found: list[float] = []

    async def ask() -> None:
        loop, until = asyncio.get_running_loop(), time.perf_counter() + seconds
        clients = [
            (
                await loop.create_connection(
                    lambda: Client(content, found, until), "127.0.0.1", port
                )
            )[1]
            for _ in range(connections)
        ]
        await asyncio.gather(*(client.gone for client in clients))

    with suppress(ImportError):
        import uvloop

        uvloop.run(ask())
        return found
    asyncio.run(ask())
    return found


def free() -> int:
    """Return a port that nobody has."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def serving(command: list[str], port: int, who: str, folder: Path) -> Iterator[tuple[float, int]]:
    """Start a server; give the seconds until it answered a prediction, and its process."""
    source = str(Path(luce.__path__[0]).parent)
    environment = {**os.environ, "PYTHONPATH": source} if who == "luce" else dict(os.environ)
    since = time.perf_counter()
    with (folder / f"{who}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            while not answers(port, who):
                if process.poll() is not None or time.perf_counter() - since > 120:
                    raise OSError((folder / f"{who}.log").read_text()[-500:])
                time.sleep(0.01)
            yield time.perf_counter() - since, process.pid
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def answers(port: int, who: str) -> bool:
    """Say whether a server predicts."""
    path, body = BODIES[who]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def measured(port: int, who: str, connections: int) -> dict[str, float]:
    """Return requests a second and percentiles of their time: medians of the rounds."""
    load(port, who, connections, 2.0)
    rounds = [load(port, who, connections, SECONDS) for _ in range(ROUNDS)]
    return {
        "requests_per_second": statistics.median(len(each) / SECONDS for each in rounds),
        "p50_ms": statistics.median(1e3 * float(np.quantile(each, 0.5)) for each in rounds),
        "p99_ms": statistics.median(1e3 * float(np.quantile(each, 0.99)) for each in rounds),
    }


def arrow_rows(port: int) -> float:
    """Return rows a second of a table with ten numbers, by Arrow both ways, on one connection."""
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    pl.DataFrame({f"c{i}": random.normal(size=50_000) for i in range(10)}).write_ipc_stream(buffer)
    kind = "application/vnd.apache.arrow.stream"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = []
    for _ in range(12):
        since = time.perf_counter()
        headers = {"content-type": kind, "accept": kind}
        connection.request("POST", "/v1/models/numbers/predict", buffer.getvalue(), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(answer.read().decode())
        answer.read()
        taken.append(time.perf_counter() - since)
    connection.close()
    return 50_000 / statistics.median(taken[2:])


def table_row(port: int) -> float:
    """Return the milliseconds of one row of a table, at the median."""
    body = json.dumps({"rows": [{f"c{i}": i / 3 for i in range(10)}]})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = []
    for _ in range(500):
        since = time.perf_counter()
        connection.request("POST", "/v1/models/numbers/predict", body)
        connection.getresponse().read()
        taken.append(time.perf_counter() - since)
    connection.close()
    return 1e3 * statistics.median(taken[100:])


def soak(port: int, process: int, seconds: float) -> dict[str, Any]:
    """Return the megabytes of the server and its reader while it is asked for so long."""
    family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    since, found = time.monotonic(), []
    while time.monotonic() - since < seconds:
        load(port, "luce", CONNECTIONS, min(10.0, seconds / 10))
        found.append(sum(each.memory_info().rss for each in family) / 1e6)
    half = found[len(found) // 2 :]
    growth = (
        float(np.polyfit(np.arange(len(half)), half, 1)[0]) * len(half) if len(half) > 1 else 0.0
    )
    return {"seconds": seconds, "megabytes": found, "growth_of_second_half": growth}


def main(arguments: list[str]) -> None:
    """Measure each server, print the table and write ``results/serve.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks serve", description=__doc__)
    parser.add_argument("--peers", default=sys.executable, help="an interpreter that has them")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds under load (default 0)")
    asked = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = np.random.default_rng(0)
        table = pl.DataFrame({f"c{i}": random.normal(size=3_000) for i in range(10)})
        table.with_columns(y=pl.col("c0") > 0).write_csv(folder / "numbers.csv")
        luce.train(folder / "numbers.csv", target="y", model="linear", out=folder, name="numbers")
        luce.train("digits", model="linear", out=folder, name="digits")
        for who in BODIES:
            port = free()
            ours = [sys.executable, "-m", "luce", "serve", "digits", "--port", str(port)]
            script = str(Path(__file__).parent / "peers" / "served_peers.py")
            command = ours if who == "luce" else [asked.peers, script, who, str(port)]
            try:
                with serving(command, port, who, folder) as (start, process):
                    results[who] = {"start_s": start, **measured(port, who, CONNECTIONS)}
                    if who == "luce":
                        alone = measured(port, who, 1)
                        results[who]["one_row_ms"] = alone["p50_ms"]
                        if asked.soak:
                            results[who]["soak"] = soak(port, process, asked.soak)
            except OSError as error:
                print(f"{who}: left out: {error}")
        port = free()
        ours = [sys.executable, "-m", "luce", "serve", "digits", "numbers", "--port", str(port)]
        BODIES["luce"] = ("/v1/models/digits/predict", {"rows": ROW})
        with serving(ours, port, "luce", folder):
            results["luce"]["arrow_rows_per_second"] = arrow_rows(port)
            results["luce"]["table_row_ms"] = table_row(port)
    show(results)
    record("serve", [{"server": who, **found} for who, found in results.items()])


def show(results: dict[str, Any]) -> None:
    """Print the figures and the ratios."""
    print(f"{'':<8} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'start s':>8}")
    for who, found in results.items():
        rate, half, most, start = (
            found[key] for key in ("requests_per_second", "p50_ms", "p99_ms", "start_s")
        )
        print(f"{who:<8} {rate:>10,.0f} {half:>8.1f} {most:>8.1f} {start:>8.1f}")
    ours = results["luce"]
    peers = [found for who, found in results.items() if who != "luce"]
    if peers:
        most = max(each["requests_per_second"] for each in peers)
        least = min(each["p99_ms"] for each in peers)
        print(
            f"luce answers {ours['requests_per_second'] / most:.1f} times the requests of the "
            f"better peer, with a p99 of {ours['p99_ms'] / least:.2f} of the better one's."
        )
    print(
        f"one row at a time: {ours['one_row_ms']:.2f} ms of numbers, {ours['table_row_ms']:.2f} ms "
        f"of a table; by Arrow {ours['arrow_rows_per_second']:,.0f} rows/s"
    )
    if "soak" in ours:
        found = ours["soak"]["megabytes"]
        print(
            f"soak: {found[0]:.0f} MB at first, {found[-1]:.0f} at the end; the second half grew "
            f"by {ours['soak']['growth_of_second_half']:.1f} MB"
        )
