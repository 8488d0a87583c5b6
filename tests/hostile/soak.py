"""An hour of good and bad requests: ``python -m tests.hostile.soak [SECONDS [SEED]]``.

One server with its log on is asked some thirty times a second: good requests of every kind, bad
ones of the hostile corpus, clients that disappear, and SIGHUP every five minutes. What must hold is
what :mod:`tests.hostile.serving` says of ten thousand, for as long as this goes on, and that memory
does not grow. A line a minute says what the server has.
"""

import contextlib
import json
import random
import signal
import socket
import statistics
import sys
import time

import numpy as np
import psutil

from tests.hostile.serving import (
    PATIENCE,
    hostile,
    is_failure,
    made,
    request,
    sent,
    served,
    status,
    stopped,
)

RATE = 30.0
"""Requests a second, one after another."""

GROWTH = 20.0
"""Megabytes an hour that the server itself may grow by, by regression over the second half."""


def good(samples):
    """Return requests that must be answered by 200, by what they are."""
    rows, csv = samples["json"], samples["csv"]
    stream = "application/vnd.apache.arrow.stream"
    return {
        "rows": request(rows),
        "rows, answered as CSV": request(rows, accept="text/csv"),
        "rows, answered by Arrow": request(rows, accept=stream),
        "sets": request(rows, path="/v1/models/people/predict?sets=0.8"),
        "CSV": request(csv, "text/csv"),
        "Parquet": request(samples["parquet"], "application/x-parquet"),
        "Arrow": request(samples["stream"], stream),
        "tensors": request(samples["tensors"], path="/v2/models/people/infer"),
        "digits": request(
            json.dumps({"rows": [[0] * 64]}).encode(), path="/v1/models/digits/predict"
        ),
        "health": request(b"", "", "/health", "GET"),
        "metrics": request(b"", "", "/metrics", "GET"),
        "the page": request(b"", "", "/", "GET"),
    }


def say(*lines):
    """Print lines, at once."""
    for line in lines:
        print(line, flush=True)  # noqa: T201


def leave(server, content, rng):
    """Send a part of a request and disappear."""
    with contextlib.suppress(OSError):
        gone = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        gone.sendall(content[: rng.randrange(1, len(content))])
        gone.close()


def main(seconds, seed):
    """Ask for so long; print what did not hold, and return how often."""
    rng, failed, answered, refused = random.Random(seed), [], 0, 0
    with served() as server:
        samples = made()
        kinds = good(samples)
        since = time.monotonic()
        process, minutes, reloads = psutil.Process(server.process.pid), [], 0
        while (now := time.monotonic() - since) < seconds and server.process.poll() is None:
            if now >= 60 * len(minutes):
                family = process.children(recursive=True)
                others = sum(each.memory_info().rss for each in family) / 1e6
                minutes.append(process.memory_info().rss / 1e6)
                say(
                    f"{now / 60:5.1f} min: {minutes[-1]:.0f} MB, its reader {others:.0f} MB; "
                    f"{answered:,} good answers, {refused:,} bad requests"
                )
            if now >= 300 * (reloads + 1):
                reloads += 1
                server.process.send_signal(signal.SIGHUP)
            what, lot = rng.choice(list(kinds)), rng.random()
            try:
                if lot < 0.6:
                    answer = sent(server, kinds[what])
                    answered += 1
                    if status(answer) != 200:
                        failed.append(f"after {now:.0f} s, {what}: {answer[:300]!r}")
                elif lot < 0.9:
                    what, content = hostile(rng, samples)
                    answer = sent(server, content, PATIENCE)
                    refused += 1
                    if is_failure(status(answer)):
                        failed.append(f"after {now:.0f} s, {what}: {answer[:300]!r}")
                else:
                    leave(server, kinds[what], rng)
            except OSError as error:
                failed.append(f"after {now:.0f} s, {what}: {error!r}")
            time.sleep(max(0.0, 1 / RATE - (time.monotonic() - since - now)))
        failed += stopped(server)
    half = minutes[len(minutes) // 2 :]
    growth = float(np.polyfit(np.arange(len(half)) / 60, half, 1)[0]) if len(half) > 1 else 0.0
    if growth > GROWTH:
        failed.append(f"it grows by {growth:.0f} MB an hour")
    say(*failed)
    say(
        f"{answered:,} good answers, {refused:,} bad requests, {reloads} reloads; memory "
        f"{minutes[0]:.0f} MB at first, {statistics.median(half):.0f} in the second half, which "
        f"grew by {growth:.1f} MB an hour"
    )
    return len(failed)


if __name__ == "__main__":
    asked = [float(each) for each in sys.argv[1:]]
    sys.exit(min(main(asked[0] if asked else 3_600.0, int(asked[1]) if asked[1:] else 0), 1))
