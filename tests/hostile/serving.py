"""Requests that nobody should send, to a server: each is answered in a sentence or not at all.

Everything goes through a real socket to a real `luce serve`. What must hold: it never ends, never
hangs, never says 500, never writes a traceback, keeps to its memory, and goes on to answer good
requests rightly.
"""

import contextlib
import gzip
import io
import json
import random
import re
import socket
import struct
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import psutil
from PIL import Image

import luce
from tests.serving.conftest import Server, people

SECONDS = 25.0
"""That an answer may take: the time that reading has, and some."""

PATIENCE = 0.5
"""Seconds after which a bad request without an answer is over: many of them have no end."""

MEMORY = 1_500_000_000
"""Bytes that server and reader may have at the end, together."""

ROW = {"age": 40, "city": "Graz", "member": True, "day": "2024-05-01", "remark": "a letter"}


def request(body, kind="application/json", path="/v1/models/people/predict", method="POST", **more):
    """Return the bytes of a request that is well formed."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: x",
        "connection: close",
        f"content-length: {len(body)}",
    ]
    lines += [f"content-type: {kind}"] if kind else []
    lines += [f"{name}: {value}" for name, value in more.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def mutated(content, rng):
    """Return bytes with some of them changed, cut out, doubled, or cut off."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        if not content:
            break
        place, how = rng.randrange(len(content)), rng.random()
        if how < 0.5:
            content[place] = rng.randrange(256)
        elif how < 0.7:
            del content[place : place + rng.randrange(1, 20)]
        elif how < 0.85:
            content[place:place] = content[place : place + rng.randrange(1, 50)]
        else:
            del content[place:]
    return bytes(content)


def packed(frame, how):
    """Return a frame as Parquet or Arrow."""
    buffer = io.BytesIO()
    if how == "parquet":
        frame.write_parquet(buffer)
    elif how == "stream":
        frame.write_ipc_stream(buffer, compression="zstd")
    else:
        frame.write_ipc(buffer, compression="lz4")
    return buffer.getvalue()


def png(rng, *, claim=None, text=b""):
    """Return a PNG, perhaps with another size in its head, or a text that unpacks to a lot."""
    buffer = io.BytesIO()
    pixels = np.frombuffer(rng.randbytes(64), np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(buffer, rng.choice(["PNG", "JPEG"]) if claim is None else "PNG")
    content = buffer.getvalue()

    def chunk(kind, inside):
        return (
            struct.pack(">I", len(inside))
            + kind
            + inside
            + struct.pack(">I", zlib.crc32(kind + inside))
        )

    if claim is not None:
        head = struct.pack(">IIBBBBB", *claim, 8, 0, 0, 0, 0)
        content = content[:8] + chunk(b"IHDR", head) + content[33:]
        if text:
            content = content[:-12] + chunk(b"zTXt", b"a\0\0" + text) + content[-12:]
    return content


def json_body(rng):
    """Return JSON that is odd, or nearly JSON."""
    deep = rng.randrange(1, 40_000)
    odd = [
        None,
        [],
        {},
        -0.0,
        1e308,
        -(10**400),
        "\x00",
        "💥" * 50,
        "x" * 10_000,
        True,
        [[]],
        10**25,
    ]
    name = rng.choice([*ROW, "", "age ", "__proto__", "$ref", "\u202e"])
    content = rng.choice(
        [
            lambda: json.dumps([{**ROW, name: rng.choice(odd)}]),
            lambda: json.dumps({"rows": [ROW] * rng.randrange(3), name: rng.choice(odd)}),
            lambda: json.dumps({"columns": {key: [rng.choice(odd)] for key in ROW}}),
            lambda: json.dumps({"columns": rng.choice(odd), "rows": rng.choice(odd)}),
            lambda: "[" * deep + "]" * rng.choice([0, deep]),
            lambda: '{"a":' * deep,
            lambda: "[" + ",".join(["{}"] * rng.randrange(20_000)) + "]",
            lambda: (
                '[{"age": '
                + rng.choice(["NaN", "Infinity", "-Infinity", "0x1", "01", "1e9999"])
                + "}]"
            ),
            lambda: "[" + "9" * rng.randrange(10_000) + "]",
            lambda: '[{"age": "\\ud800"}]',
            lambda: json.dumps([ROW, *[{f"c{i}": i} for i in range(rng.randrange(2_000))]]),
        ]
    )()
    coding = rng.choice(["utf-8", "utf-8", "utf-8", "utf-16", "utf-32", "cp1252"])
    body = content.encode(coding, "replace")
    return mutated(body, rng) if rng.random() < 0.3 else body


def hostile(rng, samples):
    """Return a request that is bad in some way, and what kind it is."""
    kinds = {
        "json": lambda: request(json_body(rng)),
        "mutated json": lambda: request(mutated(samples["json"], rng)),
        "mutated csv": lambda: request(mutated(samples["csv"], rng), "text/csv"),
        "commas": lambda: request(b"," * rng.randrange(1, 30_000) + b"\n1", "text/csv"),
        "quotes": lambda: request(b'"' * rng.randrange(1, 3_000), "text/csv"),
        "mutated parquet": lambda: request(
            mutated(samples["parquet"], rng), "application/x-parquet"
        ),
        "mutated stream": lambda: request(
            mutated(samples["stream"], rng), "application/vnd.apache.arrow.stream"
        ),
        "mutated arrow": lambda: request(
            mutated(samples["file"], rng), "application/vnd.apache.arrow.file"
        ),
        "bomb": lambda: request(samples["bomb"], "application/x-parquet"),
        "arrow bomb": lambda: request(samples["arrow bomb"], "application/vnd.apache.arrow.stream"),
        "mutated image": lambda: request(
            mutated(png(rng), rng), "image/png", "/v1/models/digits/predict"
        ),
        "image bomb": lambda: request(
            png(rng, claim=(rng.randrange(2**31), rng.randrange(2**31)), text=samples["text bomb"]),
            rng.choice(["image/png", "image/jpeg"]),
            "/v1/models/digits/predict",
        ),
        "large image": lambda: request(
            png(rng, claim=(4_096, 4_096)), "image/png", "/v1/models/digits/predict"
        ),
        "other type": lambda: request(
            samples[rng.choice(["json", "csv", "parquet"])],
            rng.choice(
                [
                    "",
                    "text/csv",
                    "image/png",
                    "application/json",
                    "a/b",
                    "💥",
                    "multipart/form-data",
                ]
            ),
            rng.choice(["/v1/models/people/predict", "/v1/models/digits/predict"]),
        ),
        "packed": lambda: request(gzip.compress(samples["json"]), **{"content-encoding": "gzip"}),
        "tensors": lambda: request(
            mutated(samples["tensors"], rng), path="/v2/models/people/infer"
        ),
        "invocations": lambda: request(mutated(samples["split"], rng), path="/invocations"),
        "path": lambda: request(
            b"",
            path=rng.choice(["/", "/v1/models/", "/v2/models/", "/v1/models/people/", "//", "*"])
            + rng.choice(
                [
                    "../../etc/passwd",
                    "%00",
                    "%2e%2e%2f",
                    "x" * 5_000,
                    "%ff",
                    "nobody/report",
                    "a/b/c",
                ]
            ),
            method=rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"]),
        ),
        "query": lambda: request(
            samples["json"],
            path="/v1/models/people/predict?sets="
            + rng.choice(["", "nan", "1e400", "0.9&sets=2", "%00", "x" * 900]),
        ),
        "accept": lambda: request(
            samples["json"],
            accept=rng.choice(["", ";;;", "text/csv;q=x", ",", "*/*;q=-1", "a" * 9_000]),
        ),
        "length": lambda: (
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: "
            + rng.choice([b"-1", b"99999999999999999999", b"1e3", b"", b"20000000", b"5, 5"])
            + b"\r\nconnection: close\r\n\r\n[{}]"
        ),
        "chunks": lambda: (
            b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: "
            + rng.choice([b"chunked", b"chunked, chunked", b"gzip", b"CHUNKED"])
            + rng.choice([b"", b"\r\ncontent-length: 4"])
            + b"\r\nconnection: close\r\n\r\n"
            + rng.choice(
                [
                    b"ffffffffffffffff\r\nx",
                    b"-1\r\n",
                    b"4\r\n[{}]\r\n0\r\n\r\n",
                    b"z\r\n",
                    b"4;a=b\r\n[{}]",
                ]
            )
        ),
        "no http": lambda: rng.choice(
            [
                rng.randbytes(rng.randrange(1, 400)),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET /\r\n\r\n",
            ]
        ),
        "headers": lambda: (
            b"GET /health HTTP/1.1\r\n"
            + b"".join(
                b"h%d: %s\r\n" % (i, b"v" * rng.randrange(200)) for i in range(rng.randrange(900))
            )
            + b"\r\n"
        ),
        "mutated request": lambda: mutated(request(samples["json"]), rng),
    }
    weights = {"bomb": 0.02, "arrow bomb": 0.02, "large image": 0.05}
    kind = rng.choices(list(kinds), [weights.get(name, 1.0) for name in kinds])[0]
    return kind, kinds[kind]()


def made():
    """Return good bodies to start from, and bombs."""
    frame = people(20, 3).drop("label")
    # A dictionary of one text: a gigabyte in less than a thousand bytes.
    bomb = pl.DataFrame({"remark": pl.repeat("x" * 1_000_000, 1_000, eager=True)})
    bomb = bomb.with_columns(age=1.5, city=pl.lit("Graz"))
    buffer = io.BytesIO()
    bomb.write_parquet(buffer, compression="zstd", statistics=False)
    wide = io.BytesIO()
    pl.DataFrame({"age": np.zeros(40_000_000)}).write_ipc_stream(wide, compression="zstd")
    tensors = [
        {"name": "age", "shape": [2], "datatype": "FP64", "data": [40.0, 50.0]},
        {"name": "city", "shape": [2, 1], "datatype": "BYTES", "data": [["Graz"], ["Wien"]]},
        {"name": "member", "shape": [2], "datatype": "BOOL", "data": [True, False]},
    ]
    return {
        "json": json.dumps({"rows": [ROW] * 3}).encode(),
        "csv": frame.write_csv().encode(),
        "parquet": packed(frame, "parquet"),
        "stream": packed(frame, "stream"),
        "file": packed(frame, "file"),
        "bomb": buffer.getvalue(),
        "arrow bomb": wide.getvalue(),
        "text bomb": zlib.compress(b"\0" * 50_000_000, 9),
        "tensors": json.dumps({"inputs": tensors}).encode(),
        "split": json.dumps(
            {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())]}}
        ).encode(),
    }


def sent(server, content, patience=SECONDS):
    """Send bytes and return what comes back until the connection is closed.

    After `patience` seconds without an answer the server hears that nothing more will come. It
    then hangs up, so a request that is whole must not be cut short so.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=patience) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(content)
        with contextlib.suppress(ConnectionError):
            while True:
                try:
                    part = connection.recv(65_536)
                except TimeoutError:
                    if connection.gettimeout() == SECONDS:
                        raise
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(SECONDS)
                    continue
                if not part:
                    return answer
                answer += part
    return answer


def memory(server):
    """Return what server and reader have, in bytes."""
    process = psutil.Process(server.process.pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])


def tally(kinds):
    """Return how often which status was answered, from how often by kind of request."""
    codes = sorted({code for _, code in kinds})
    sums = [sum(n for (_, c), n in kinds.items() if c == code) for code in codes]
    return ", ".join(f"{n} × {code or 'no answer'}" for n, code in zip(sums, codes, strict=True))


@contextlib.contextmanager
def served(*options):
    """Give a server of a run on a table and one on images."""
    with tempfile.TemporaryDirectory() as folder:
        people(1_500, 0).write_csv(Path(folder) / "people.csv")
        source = f"{folder}/people.csv"
        luce.train(source, target="label", model="linear", out=folder, name="people")
        luce.train("digits", model="linear", out=folder, name="digits")
        yield Server(f"{folder}/people", f"{folder}/digits", "--log", f"{folder}/asked", *options)


def status(answer):
    """Return the status of an answer, 0 where there is none."""
    found = re.match(rb"HTTP/1\.1 (\d+)", answer)
    return int(found[1]) if found else 0


def is_failure(code):
    """Say whether a status is one that no request may get; 503 asks to come again."""
    return code >= 500 and code != 503


def stopped(server):
    """End a server; return what it should not have done."""
    code, said = server.stop()
    return [f"it ended with {code}: {said[-2000:]}"] if code or "Traceback" in said else []


def main(count, seed):
    """Send so many; print what did not hold, and return how often."""
    rng, failed, kinds = random.Random(seed), [], {}
    with served("--sets", "0.9") as server:
        samples = made()
        good = request(samples["json"])
        right = sent(server, good).partition(b"\r\n\r\n")[2]
        if b'"labels"' not in right:
            failed.append(f"a good request is answered by {right!r}")
        half = []  # connections on which a request has begun, and nothing more comes
        for number in range(count):
            kind, content = hostile(rng, samples)
            what, since = f"request {number} ({kind})", time.monotonic()
            try:
                answer = sent(server, content, PATIENCE)
            except OSError as error:
                failed.append(f"{what}: {error!r}")
                if server.process.poll() is not None:
                    break
                continue
            code = status(answer)
            kinds[kind, code] = kinds.get((kind, code), 0) + 1
            if is_failure(code):
                failed.append(f"{what}: {answer[:300]!r}")
            if time.monotonic() - since > SECONDS:
                failed.append(f"{what} took {time.monotonic() - since:.0f} s")
            if number % 50 == 0:
                if sent(server, good).partition(b"\r\n\r\n")[2] != right:
                    failed.append(f"after {what} a good one is answered wrongly")
                half.append(socket.create_connection(("127.0.0.1", server.port)))
                half[-1].sendall(good[: rng.randrange(len(good))])
        used = memory(server) if server.process.poll() is None else 0
        for each in half:
            each.close()
        failed += stopped(server)
        if used > MEMORY:
            failed.append(f"it has {used:,} bytes of memory at the end")
    answers = tally(kinds)
    if "× 400" not in answers or "× 200" not in answers:
        failed.append("hardly a request was answered")
    print("\n".join([*failed, f"{answers}; {used / 1e6:.0f} MB at the end"]))  # noqa: T201
    return len(failed)
