"""The server as a process: how it starts, what a bad connection may do, and how it ends."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time

import psutil
import pytest

import luce

DIGIT = json.dumps({"rows": [[0] * 64]}).encode()
JSON = {"content-type": "application/json"}


def ask(connection, path="/predict"):
    """Return status and content of a request on a connection that is kept."""
    connection.request("POST", path, DIGIT, JSON)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def connected(server):
    """Return a connection that a `with` closes."""
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30))


def asked(server):
    with connected(server) as connection:
        return ask(connection)


def test_it_says_where_it_is_and_stops_without_an_error(server, runs):
    """The address comes on standard output, all else on standard error; SIGTERM ends it with 0."""
    started = server(runs / "digits")
    assert started.address.startswith("http://127.0.0.1:")
    assert asked(started)[0] == 200
    code, said = started.stop()
    assert code == 0
    assert "serving digits (" in said


def test_ctrl_c_is_no_error(server, runs):
    """Ctrl-C ends it as SIGTERM does."""
    assert server(runs / "digits").stop(signal.SIGINT)[0] == 0


def test_a_stop_under_load_loses_no_request(server, runs):
    """Each request that is sent before a connection says that it closes is answered."""
    started = server(runs / "digits")
    lost, answered, go = [], [], threading.Event()

    def load():
        with connected(started) as connection:
            connection.connect()
            while True:
                try:
                    connection.request("POST", "/predict", DIGIT, JSON)
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException) as error:
                    lost.append(repr(error))
                    return
                answered.append(answer.status)
                if len(answered) > 400:
                    go.set()
                if answer.getheader("connection") == "close":
                    return  # what comes now is no longer accepted

    clients = [threading.Thread(target=load) for _ in range(16)]
    for each in clients:
        each.start()
    assert go.wait(60)
    code, _ = started.stop()
    for each in clients:
        each.join(60)
    assert (code, lost, set(answered)) == (0, [], {200})


def test_signals_to_all_processes_are_for_the_server(server, runs):
    """A service's manager tells every process to end: what reads bodies goes on until the last."""
    started = server(runs / "matrix")
    with connected(started) as connection:
        for how in (None, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            (reader,) = psutil.Process(started.process.pid).children()
            if how is not None:
                reader.send_signal(how)
            connection.request("POST", "/predict", "1,2,3\n", {"content-type": "text/csv"})
            assert json.loads(connection.getresponse().read())["labels"] == [1]
            assert reader.is_running()
    assert started.stop()[0] == 0


def test_a_signal_reads_the_runs_again_without_a_lost_request(server, runs, tmp_path):
    """After SIGHUP a run that was trained again answers; every request meanwhile was answered."""
    shutil.copytree(runs / "digits", tmp_path / "digits")
    started = server(tmp_path / "digits")
    first = asked(started)[1]["sha256"]
    luce.train("digits", model="linear", C=0.01, out=tmp_path, name="digits", overwrite=True)
    started.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 60
    with connected(started) as connection:
        while time.monotonic() < until:
            status, content = ask(connection)
            assert status == 200
            if content["sha256"] != first:
                break
    assert content["sha256"] == json.loads((tmp_path / "digits/config.json").read_text())["sha256"]


def test_a_run_that_cannot_be_read_again_stays_as_it_was(server, runs, tmp_path):
    """A damaged folder at SIGHUP changes nothing but a line on standard error."""
    shutil.copytree(runs / "digits", tmp_path / "digits")
    started = server(tmp_path / "digits")
    first = asked(started)[1]
    (tmp_path / "digits" / "schema.json").write_text("{}")
    started.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 60
    with connected(started) as connection:
        while time.monotonic() < until:
            connection.request("GET", "/metrics")
            if 'luce_reloads_total{result="failed"} 1' in connection.getresponse().read().decode():
                break
    assert asked(started)[1] == first
    assert "note: not reloaded: " in started.stop()[1]


def test_a_run_that_cannot_be_trusted_is_not_served(server, runs, tmp_path):
    """As elsewhere: exit code 4 and a sentence."""
    shutil.copytree(runs / "digits", tmp_path / "digits")
    (tmp_path / "digits" / "model.safetensors").write_bytes(b"")
    started = server(tmp_path / "digits")
    _, said = started.process.communicate(timeout=60)
    assert started.process.returncode == 4
    assert "is not the file that this run wrote" in said


def test_a_port_in_use_is_a_usage_error(luce_command, runs):
    """The sentence names the port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finished = luce_command("serve", runs / "digits", "--port", port)
    assert finished.code == 2
    assert finished.err == (
        f"luce: --port {port} of 127.0.0.1 cannot be had (Address already in use). Give another "
        "--port; 0 is any that is free.\n"
    )


def test_a_host_that_is_none_is_a_usage_error(luce_command, runs):
    """An address of another machine is refused in a sentence."""
    finished = luce_command("serve", runs / "digits", "--host", "203.0.113.7", "--port", "0")
    assert finished.code == 2
    assert "203.0.113.7" in finished.err


@pytest.mark.parametrize("variable", [True, False], ids=["variable", "file"])
def test_the_token_comes_from_the_environment_or_a_file(server, runs, tmp_path, variable):
    """Neither is seen in the list of processes; without it there is a 401."""
    (tmp_path / "token").write_text("secret\n")
    if variable:
        started = server(runs / "digits", environment={"LUCE_TOKEN": "secret"})
    else:
        started = server(runs / "digits", "--token-file", tmp_path / "token")
    with connected(started) as connection:
        connection.request("POST", "/predict", DIGIT, {**JSON, "authorization": "Bearer secret"})
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        assert ask(connection)[0] == 401


def test_an_empty_token_is_a_usage_error(luce_command, runs, tmp_path):
    """A token file without a token would let everybody in."""
    (tmp_path / "token").write_text("\n")
    finished = luce_command("serve", runs / "digits", "--token-file", tmp_path / "token")
    assert finished.code == 2
    assert "is empty. Write the token into it." in finished.err


def raw(server, content, *, until_closed=True):
    """Send bytes and return what comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(content)
        if not until_closed:
            return b""
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_bad_connections_harm_nobody(server, runs):
    """No HTTP, endless headers, a client that disappears: each ends alone."""
    started = server(runs / "digits")
    assert b"400 Bad Request" in raw(
        started, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"
    )
    endless = b"GET /health HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % i for i in range(20_000))
    whole = b"GET /health HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"
    for content in (endless, whole):
        assert b"431 Request Header Fields Too Large" in raw(started, content)
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    for part in (head, head + DIGIT, b"POST /pre"):
        raw(started, part, until_closed=False)
    assert asked(started)[0] == 200
    code, said = started.stop()
    assert code == 0
    assert "Traceback" not in said


POST = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(DIGIT)


def test_an_offer_of_http_2_is_passed_over(server, runs):
    """Java's clients offer it with their first request: body and connection are as of any other."""
    started = server(runs / "digits")
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAE\r\n"
    last = POST + b"connection: close\r\n\r\n" + DIGIT
    for parts in ([POST + offer + b"\r\n" + DIGIT + last], [POST + offer + b"\r\n", DIGIT + last]):
        with socket.create_connection(("127.0.0.1", started.port), timeout=30) as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.2)  # so that they do not arrive as one
            answers = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert answers.count(b"HTTP/1.1 200 OK") == 2
        assert answers.count(b"HTTP/1.1 ") == 2


def test_what_comes_whole_before_no_http_is_answered(server, runs):
    """Requests may be sent one behind the other; nonsense behind them ends the connection."""
    answers = raw(server(runs / "digits"), 3 * (POST + b"\r\n" + DIGIT) + b"\0nonsense\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b"HTTP/1.1 ") == 3


def test_a_body_that_comes_too_slowly_is_a_408():
    """The time for head and body ends a connection on which nothing comes."""
    import asyncio

    from starlette.testclient import TestClient  # noqa: F401 - the extra is there

    from luce.serving.bodies import Bodies, Held
    from luce.serving.limits import Limits
    from luce.serving.refusals import RefusedError

    class Slow:
        headers = {}  # noqa: RUF012

        async def stream(self):
            yield b"{"
            await asyncio.sleep(60)

    bodies = Bodies(Limits(seconds=0.05))
    with pytest.raises(RefusedError, match="took more than") as refused, Held(bodies) as held:
        asyncio.run(held.body(Slow()))
    assert refused.value.status == 408
    assert bodies.held == 0


def test_a_head_that_does_not_come_ends_its_connection(monkeypatch):
    """A connection on which no request comes is told so, and closed."""
    import asyncio

    from uvicorn import Config
    from uvicorn.server import ServerState

    from luce.serving.connections import connections
    from luce.serving.limits import Limits

    class Transport:
        written = b""
        closed = False

        def write(self, data):
            self.written += data

        def close(self):
            self.closed = True

        def is_closing(self):
            return self.closed

        def can_write_eof(self):
            return False

        def get_write_buffer_size(self):
            return 0

        def resume_reading(self):
            pass

        def get_extra_info(self, _):
            return None

    async def wait():
        config = Config(lambda *_: None, lifespan="off")
        kind = connections(Limits(head_seconds=0.05))
        connection = kind(config=config, server_state=ServerState(), app_state={})
        transport = Transport()
        connection.connection_made(transport)
        while not transport.closed:
            await asyncio.sleep(0.01)
        return transport.written

    written = asyncio.run(asyncio.wait_for(wait(), 30))
    assert written.startswith(b"HTTP/1.1 408 Request Timeout")


def test_an_answer_that_is_not_taken_ends_its_connection():
    """Of a client that does not read, nothing is kept for ever; meanwhile it counts."""
    import asyncio

    from uvicorn import Config
    from uvicorn.server import ServerState

    from luce.serving.connections import connections
    from luce.serving.limits import Limits

    class Transport(asyncio.Transport):
        aborted = False

        def abort(self):
            self.aborted = True

        def is_closing(self):
            return False

        def get_write_buffer_size(self):
            return 1_000

    async def wait():
        kind = connections(Limits(seconds=0.05))
        found = []
        for taken in (True, False):
            config = Config(lambda *_: None, lifespan="off")
            connection = kind(config=config, server_state=ServerState(), app_state={})
            transport = Transport()
            connection.connection_made(transport)
            connection.pause_writing()
            held = kind.unsent()
            if taken:
                connection.resume_writing()
            await asyncio.sleep(0.2)
            found.append((held, transport.aborted))
            connection.connection_lost(OSError())
        return [*found, kind.unsent()]

    assert asyncio.run(wait()) == [(1_000, False), (1_000, True), 0]


def test_the_help_names_the_extra_where_it_is_not_installed(tmp_path, runs):
    """Without Starlette the command says how to install it."""
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['starlette'] = None; sys.modules['uvicorn'] = None;"
        f"sys.argv = ['luce', 'serve', {str(runs / 'digits')!r}];"
        "from luce.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(luce.__path__[0] + "/..")},
    )
    assert done.returncode == 2
    assert 'pip install "luce[serve]"' in done.stderr
