"""What is refused, with which status, and in which words."""

import io
import json
import struct
import zlib

import numpy as np
import polars as pl
import pytest

import luce
from luce.errors import ArgumentError
from luce.serving.limits import Limits
from luce.serving.served import load
from tests.serving.conftest import people

ROW = {"age": 40, "city": "Graz", "member": True, "day": "2024-05-01", "remark": "a letter"}
CSV = {"content-type": "text/csv"}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the body is empty."),
        (b'{"rows": [{"age": NaN}]}', "the body has NaN, which JSON has no number for. Write null"),
        (
            b'{"rows": [{"age": -Infinity}]}',
            "the body has -Infinity, which JSON has no number for.",
        ),
        (b'{"rows": [', "the body is no JSON: Input data was truncated."),
        (b"[" * 60_000, "the body is JSON that is nested too deep."),
        (b'{"rows": []}', "the body has no rows."),
        (b'{"rows": 3}', "rows must be a list, such as"),
        (b'{"row": []}', "the body must be JSON such as"),
        (b"[1]", "row 0 must be an object, such as"),
        (
            b'{"columns": {"age": [1, 2], "city": ["a"]}}',
            "column 'city' has 1 value, but 'age' has 2.",
        ),
        (b'{"columns": ["age", "age"], "rows": [[1, 2]]}', "columns names 'age' more than once."),
        (
            b'{"columns": ["age"], "rows": [[1, 2]]}',
            "row 0 must be a list of 1 value, one for each",
        ),
        (b'[{"weight": 3}]', "5 of the 5 columns that were learnt from are absent: 'age', 'city'"),
        (b'{"rows": [{"age": [1]}]}', "column 'age' holds a list; a value must be a number, text,"),
        (b'{"rows": [{"\\ud800": 1}]}', "the body is no JSON:"),
        (b'{"rows": [{"age": 1e999}]}', "the body is no JSON: Number out of range"),
        (b"\xff\xfe{\x00", "content-type"),
    ],
)
def test_a_bad_table_is_answered_with_a_sentence(client, runs, body, sentence):
    """Each mistake in JSON is a 4xx that names it."""
    answer = client(runs / "people").post("/predict", content=body)
    assert answer.status_code in (400, 415)
    assert answer.json()["error"].startswith(sentence)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[1, 2]], "an image must be 1 × 8 × 8 (channels × height × width) numbers"),
        ([[300] * 64], "rows at [0, 0]: must be a whole number from 0 to 255"),
        ([[0.5] * 64], "rows at [0, 0]: must be a whole number from 0 to 255"),
        ([[0] * 64, [0]], "rows must all be of the same length."),
        ([{"age": 1}], "rows at [0]: must be a whole number from 0 to 255"),
    ],
)
def test_a_bad_image_is_answered_with_a_sentence(client, runs, rows, sentence):
    """Each mistake in images as JSON is a 400 that names it."""
    answer = client(runs / "digits").post("/predict", json=rows)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(sentence)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[1, 2]], "X: must have 3 columns, as in training; got 2."),
        ([[1, None, 2]], "rows at [0, 1]: must be a number"),
        ([[1, "2", 2]], "rows at [0, 1]: must be a number"),
        ([[1e39, 1, 1]], "X: row 0, column 0 is 1e+39; every number must be finite"),
    ],
)
def test_a_bad_matrix_is_answered_with_a_sentence(client, runs, rows, sentence):
    """Each mistake in numbers is a 400 that names row and column."""
    answer = client(runs / "matrix").post("/predict", json=rows)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(sentence)


def test_the_sentence_is_that_of_the_command_line(client, runs, luce_command, tmp_path):
    """A ragged CSV is refused in the words of `luce predict`, with its line."""
    body = "age,city,member,day,remark\n1,Graz,true,2024-05-01\n"
    (tmp_path / "rows.csv").write_text(body)
    said = luce_command("predict", runs / "people", tmp_path / "rows.csv").err
    answer = client(runs / "people").post("/predict", content=body, headers=CSV).json()["error"]
    assert answer.startswith("the body: line 2 ")
    assert answer.removeprefix("the body") in said


def test_columns_that_are_absent_and_extra_are_named(client, runs):
    """What is missing or too much is answered all the same, and named in the notices."""
    row = {"age": 40, "city": "Graz", "member": True, "weight": 3}
    answer = client(runs / "people").post("/predict", json={"rows": [row]})
    assert answer.status_code == 200
    assert answer.json()["notices"] == [
        "extra column 'weight', ignored: 1",
        "absent column 'day', treated as missing: 1",
        "absent column 'remark', treated as missing: 1",
    ]


def test_values_of_wrong_types_are_named(client, runs):
    """A value that is nothing of its column's kind counts as missing, and is named."""
    row = {**ROW, "remark": None, "age": "old", "member": "perhaps", "day": "soon"}
    answer = client(runs / "people").post("/predict", json={"rows": [row]})
    assert answer.json()["notices"] == [
        "not a number in 'age', treated as missing: 1",
        "not true or false in 'member', treated as missing: 1",
        "not a date in 'day', treated as missing: 1",
    ]


def test_a_column_of_lists_is_refused(client, runs):
    """Parquet with a nested column is a 400 that names column and type."""
    frame = people(3, 0).drop("label").with_columns(age=pl.lit([[1]]))
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    answer = client(runs / "people").post("/predict", content=buffer.getvalue())
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("column 'age' holds values of type List(")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "sentence"),
    [
        (
            "POST",
            "/predict",
            {"content-type": "application/pdf"},
            415,
            "content-type 'application/pdf'",
        ),
        ("POST", "/predict", {"accept": "image/png"}, 406, "what is answered is application/json"),
        ("POST", "/predict?sets=2", {}, 400, "sets must be a number between 0 and 1"),
        ("POST", "/predict?set=0.9", {}, 400, "there is no parameter 'set'"),
        (
            "POST",
            "/v1/models/nobody/predict",
            {},
            404,
            "there is no run 'nobody'; there is 'people'",
        ),
        (
            "POST",
            "/predict",
            {"content-encoding": "gzip"},
            415,
            "content-encoding 'gzip' is not read. Send the body as it is.",
        ),
        ("GET", "/predict", {}, 405, "this needs POST."),
        ("GET", "/nothing", {}, 404, "there is nothing here."),
    ],
)
def test_requests_that_are_refused(client, runs, method, path, headers, status, sentence):
    """Each has the status that HTTP has for it, and a sentence."""
    answer = client(runs / "people").request(method, path, headers=headers, content=b"[{}]")
    assert answer.status_code == status
    assert answer.json()["error"].startswith(sentence)


def test_several_runs_are_asked_by_name(client, runs):
    """With several runs, /predict says how to ask one of them."""
    asked = client(runs / "people", runs / "digits")
    assert "several runs, 'people', 'digits'" in asked.post("/predict", json=[ROW]).json()["error"]
    assert asked.post("/v1/models/people/predict", json=[ROW]).status_code == 200


def test_a_body_that_is_too_long_is_refused_while_it_comes(client, runs):
    """Neither a declared length nor chunks without one get more than the limit in."""
    asked = client(runs / "people", limits=Limits(body=1_000))
    sent = 0

    def chunks():
        nonlocal sent
        for _ in range(1_000):
            sent += 500
            yield b" " * 500

    for content in (b" " * 1_001, chunks()):
        answer = asked.post("/predict", content=content)
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("the body is longer than 1,000 bytes.")
        assert answer.headers["connection"] == "close"


def test_rows_beyond_the_limit_are_refused(client, runs):
    """More rows than are answered at once are refused, in JSON and in Parquet."""
    asked = client(runs / "people", limits=Limits(rows=10))
    buffer = io.BytesIO()
    people(11, 0).drop("label").write_parquet(buffer)
    for content in (json.dumps([ROW] * 11).encode(), buffer.getvalue()):
        answer = asked.post("/predict", content=content)
        assert answer.status_code == 400
        assert "more rows than the 10 that are answered at once" in answer.json()["error"]


def test_rows_with_too_many_probabilities_are_refused(client, runs):
    """Rows of a few bytes may have thousands of classes each: the answer has a limit, too."""
    asked = client(runs / "digits", limits=Limits(numbers=100))
    assert asked.post("/predict", json=[[0] * 64] * 10).status_code == 200
    answer = asked.post("/predict", json=[[0] * 64] * 11)
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        "11 rows have 110 probabilities; at most 100 are answered at once. Send at most 10 rows."
    )


def test_rows_count_as_held_until_they_are_answered(client, runs):
    """Bodies that are short and unpack to much do not add up in memory."""
    asked = client(runs / "people", limits=Limits(held=100_000))
    buffer = io.BytesIO()
    frame = people(1, 0).drop("label", "remark")
    pl.concat([frame] * 10_000).write_parquet(buffer, compression="zstd")
    assert len(buffer.getvalue()) < 20_000
    answer = asked.post("/predict", content=buffer.getvalue())
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("too much is being sent at once.")
    assert asked.application.bodies.held == 0
    assert asked.post("/predict", json=[ROW]).status_code == 200


def test_nothing_is_taken_while_answers_wait_to_be_taken(client, runs):
    """What clients do not read of their answers counts as held."""
    asked = client(runs / "people", limits=Limits(held=1_000))
    asked.application.bodies.unsent = lambda: 2_000
    assert asked.post("/predict", json=[ROW]).status_code == 503


def test_a_longer_body_may_take_more_memory():
    """With --body-limit all limits grow that such a body would exceed."""
    limits, usual = Limits.of_bodies(500_000_000), Limits()
    assert limits.body == 500_000_000
    assert limits.held / limits.body == usual.held / usual.body
    assert limits.memory == 50 * usual.memory
    assert Limits.of_bodies(1_000) == Limits(body=1_000)


def bomb(width, height):
    """Return a PNG that claims a size."""

    def chunk(kind, content):
        code = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", code)

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    row = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def test_an_image_of_too_many_pixels_is_not_decoded(client, runs):
    """A PNG of a few bytes that claims a hundred megapixels is refused by its size."""
    answer = client(runs / "digits").post("/predict", content=bomb(10_000, 10_000))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the body: has 10,000 × 10,000 pixels; at most")


def test_parquet_that_unpacks_to_gigabytes_ends_one_request(client, runs):
    """What takes more memory than there is for it is refused, and the next request answered."""
    wide = pl.DataFrame({"age": pl.repeat(1.5, 60_000_000, eager=True)})
    buffer = io.BytesIO()
    wide.write_parquet(buffer, compression="zstd", use_pyarrow=False, statistics=False)
    assert len(buffer.getvalue()) < 1_000_000
    limits = Limits(memory=400_000_000, rows=100_000_000)
    asked = client(runs / "people", limits=limits)
    answer = asked.post("/predict", content=buffer.getvalue())
    assert answer.status_code == 400
    assert "memory" in answer.json()["error"]
    again = asked.post("/predict", content=people(3, 0).drop("label").write_csv(), headers=CSV)
    assert again.status_code == 200


def test_parquet_whose_texts_unpack_to_gigabytes_is_refused(client, runs):
    """A dictionary of one long text is short in the file, and does not come further than there."""
    frame = pl.DataFrame({"remark": pl.repeat("x" * 100_000, 1_000, eager=True)})
    frame = frame.with_columns(age=1.5, city=pl.lit("Graz"))
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    limits = Limits(unpacked=20_000_000)
    answer = client(runs / "people", limits=limits).post("/predict", content=buffer.getvalue())
    assert answer.status_code == 400
    assert "at most 20,000,000 are answered at once" in answer.json()["error"]


@pytest.mark.parametrize("name", ["city", "day"])
@pytest.mark.parametrize(
    ("kind", "physical"),
    [(pl.Date, 2**31 - 1), (pl.Datetime("ms"), 2**62)],
    ids=str,
)
def test_dates_beyond_all_years_are_refused(client, runs, name, kind, physical):
    """Polars panics where it writes them as text; the server is not where that may be."""
    asked = client(runs / "people")
    far = pl.Series(name, [physical, 0]).cast(pl.Int32 if kind == pl.Date else pl.Int64).cast(kind)
    frame = people(2, 0).drop("label").with_columns(far)
    frame.write_ipc_stream(buffer := io.BytesIO())
    answer = asked.post("/predict", content=buffer.getvalue())
    assert answer.status_code == 400
    assert "is not within the years 1 to 9999" in answer.json()["error"]
    assert asked.post("/predict", json=[ROW]).status_code == 200


def test_what_takes_too_long_to_read_ends_one_request(client, runs):
    """Reading has a time, too."""
    asked = client(runs / "people", limits=Limits(reading=0.001))
    answer = asked.post("/predict", content=people(2_000, 0).write_csv(), headers=CSV)
    assert answer.status_code == 400
    assert "to read. Send less at once." in answer.json()["error"]


def test_a_full_queue_is_a_503_that_says_when_to_come_back(client, runs):
    """Back pressure: 503 with Retry-After."""
    answer = client(runs / "people", limits=Limits(waiting=0)).post("/predict", json=[ROW])
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def test_a_token_is_needed_where_there_is_one(client, runs):
    """Without the token everything but health and the empty page is a 401."""
    asked = client(runs / "people", token="secret")
    good = {"authorization": "Bearer secret"}
    assert asked.post("/predict", json=[ROW]).status_code == 401
    wrong = {"authorization": "Bearer secreT"}
    assert asked.post("/predict", json=[ROW], headers=wrong).status_code == 401
    assert asked.get("/metrics").status_code == 401
    assert asked.get("/v1/models").status_code == 401
    assert asked.get("/v1/models", headers=good).status_code == 200
    assert asked.post("/predict", json=[ROW], headers=good).status_code == 200
    for path in ("/", "/health", "/ping", "/v2/health/ready"):
        assert asked.get(path).status_code == 200
    assert "people" not in asked.get("/").text


def test_a_token_may_have_any_letters(client, runs):
    """It is compared byte by byte, in UTF-8 as the environment has it."""
    asked = client(runs / "people", token="schlüssel")
    given = {b"authorization": b"bearer " + "schlüssel".encode()}
    assert asked.get("/v1/models", headers=given).status_code == 200


def test_other_origins_may_not_ask_unless_they_are_named(client, runs):
    """There is no CORS header, but for an origin that is asked for."""
    origin = {"origin": "https://example.org"}
    header = "access-control-allow-origin"
    assert (
        header not in client(runs / "people").post("/predict", json=[ROW], headers=origin).headers
    )
    allowed = client(runs / "people", origins=["https://example.org"])
    assert allowed.post("/predict", json=[ROW], headers=origin).headers[header] == origin["origin"]
    # Without the token the page reads the sentence, not a mistake of the network.
    closed = client(runs / "people", origins=["https://example.org"], token="secret")
    refused = closed.post("/predict", json=[ROW], headers=origin)
    assert (refused.status_code, refused.headers[header]) == (401, origin["origin"])
    other = {"origin": "https://example.com"}
    assert header not in allowed.post("/predict", json=[ROW], headers=other).headers


def test_what_is_our_fault_says_nothing_of_it(client, runs, monkeypatch, capsys):
    """An error that nobody foresaw is a 500 without a traceback; standard error has it."""
    application = client(runs / "people").application
    monkeypatch.setattr(
        type(application.runs.asked({"name": "people"})), "misnamed", lambda *_: 1 / 0
    )
    asked = client(runs / "people")
    answer = asked.post("/predict", json=[ROW])
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server failed to answer this. Its log says why."}
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_two_runs_of_one_name_are_refused(runs, tmp_path):
    """The sentence names both folders."""
    luce.train(
        (np.eye(8), np.arange(8) % 2),
        model="linear",
        out=tmp_path,
        name="people",
        validation_size=0.0,
        test_size=0.0,
    )
    with pytest.raises(ArgumentError, match="two runs are called people"):
        load([runs / "people", tmp_path / "people"], Limits())


def test_sets_need_a_run_that_has_them(runs, tmp_path):
    """A server that is to answer sets refuses a run without validation rows at its start."""
    X = np.random.default_rng(0).normal(size=(1_500, 2))
    luce.train(
        (X, (X[:, 0] > 0).astype(int)),
        model="linear",
        out=tmp_path,
        name="bare",
        validation_size=0.0,
    )
    with pytest.raises(ArgumentError, match="validation rows"):
        load([tmp_path / "bare"], Limits(), coverage=0.9)
