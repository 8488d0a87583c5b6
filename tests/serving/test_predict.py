"""POST /predict: every form of rows gives what the run itself predicts of them."""

import io
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

import luce
from tests.serving.conftest import people

ARROW = "application/vnd.apache.arrow.stream"


def arrow(frame):
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def parquet(frame):
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def as_json(frame):
    return json.dumps({"rows": json.loads(frame.write_json())}).encode()


def as_columns(frame):
    plain = frame.with_columns(pl.col("day").cast(pl.String))
    return json.dumps({"columns": plain.to_dict(as_series=False)}).encode()


def as_lists(frame):
    plain = frame.with_columns(pl.col("day").cast(pl.String))
    rows = [list(row) for row in plain.iter_rows()]
    return json.dumps({"columns": frame.columns, "rows": rows}).encode()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (as_json, "application/json"),
        (as_columns, "application/json"),
        (as_lists, "application/json"),
        (lambda frame: frame.write_csv().encode(), "text/csv"),
        (parquet, "application/vnd.apache.parquet"),
        (arrow, ARROW),
        (as_json, "application/x-www-form-urlencoded"),
    ],
)
def test_every_form_of_a_table_is_predicted_as_the_run_does(client, runs, body, kind):
    """Rows and columns of JSON, CSV, Parquet and Arrow give the run's own probabilities."""
    frame = people(40, seed=1).drop("label")
    answer = client(runs / "people").post(
        "/predict", content=body(frame), headers={"content-type": kind}
    )
    assert answer.status_code == 200, answer.text
    run = luce.load_run(runs / "people")
    expected = run.predict_proba(frame)
    np.testing.assert_allclose(answer.json()["probabilities"], expected, rtol=1e-6)
    assert answer.json()["labels"] == run.predict(frame).tolist()
    # What `luce predict` would say of rare words is not said: training had such, too.
    assert set(run.schema.encode(frame)[1]) == {
        "rare or unseen category in 'remark', treated as other"
    }
    assert answer.json()["notices"] == []


def test_long_json_is_read_in_the_other_process(client, runs):
    """Rows beyond 64 KiB of JSON give what the run predicts, too."""
    frame = people(1_000, seed=2).drop("label")
    body = as_json(frame)
    assert len(body) > 65_536
    answer = client(runs / "people").post("/predict", content=body)
    expected = luce.load_run(runs / "people").predict_proba(frame)
    np.testing.assert_allclose(answer.json()["probabilities"], expected, rtol=1e-6)


def test_more_rows_than_are_predicted_at_once(client, runs):
    """Of rows that are predicted piece by piece, the answers come in order."""
    frame = pl.concat([people(10_000, seed).drop("label") for seed in (3, 4)])
    answer = client(runs / "people").post(
        "/predict", content=arrow(frame), headers={"content-type": ARROW, "accept": ARROW}
    )
    expected = luce.load_run(runs / "people").predict_proba(frame)
    said = pl.read_ipc_stream(io.BytesIO(answer.content))
    assert said.columns[0] == "prediction"
    np.testing.assert_allclose(said.drop("prediction").to_numpy(), expected, rtol=1e-6)


def digits():
    return luce.load_dataset("digits").test.features[:5]


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 8, 8), (5, 64)])
def test_images_may_be_nested_or_flat(client, runs, shape):
    """Images as JSON, with and without the channel, give the run's own probabilities."""
    images = digits()
    answer = client(runs / "digits").post("/predict", json=images.reshape(shape).tolist())
    expected = luce.load_run(runs / "digits").predict_proba(images)
    np.testing.assert_allclose(answer.json()["probabilities"], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_an_image_is_sent_as_it_is(client, runs, kind):
    """A PNG gives what the run predicts of its pixels, whatever the client calls it."""
    buffer = io.BytesIO()
    Image.fromarray(digits()[0, 0]).save(buffer, "PNG")
    answer = client(runs / "digits").post(
        "/predict", content=buffer.getvalue(), headers={"content-type": kind}
    )
    expected = luce.load_run(runs / "digits").predict_proba(digits()[:1])
    np.testing.assert_allclose(answer.json()["probabilities"], expected, rtol=1e-6)


@pytest.mark.parametrize("names", [True, False], ids=["names", "no names"])
def test_a_matrix_is_sent_as_csv_with_and_without_names(client, runs, names):
    """A CSV of numbers needs no line of names."""
    X = np.random.default_rng(1).normal(size=(4, 3))
    body = pl.DataFrame(X, schema=["a", "b", "c"]).write_csv(include_header=names)
    answer = client(runs / "matrix").post(
        "/predict", content=body, headers={"content-type": "text/csv"}
    )
    expected = luce.load_run(runs / "matrix").predict_proba(X)
    np.testing.assert_allclose(answer.json()["probabilities"], expected, rtol=1e-6)


def test_sets_are_those_of_the_command_line(client, runs, luce_command, tmp_path):
    """`sets` answers the sets that `luce predict --sets` writes, and CSV is the same file."""
    frame = people(60, seed=5).drop("label")
    frame.write_csv(tmp_path / "rows.csv")
    written = luce_command("predict", runs / "people", tmp_path / "rows.csv", "--sets", "0.9").out
    asked = client(runs / "people")
    body = (tmp_path / "rows.csv").read_bytes()
    answer = asked.post("/predict?sets=0.9", content=body, headers={"content-type": "text/csv"})
    by_comma = pl.read_csv(io.StringIO(written), schema_overrides={"set": pl.String})
    assert ["|".join(each) for each in answer.json()["sets"]] == by_comma["set"].fill_null(
        ""
    ).to_list()
    same = asked.post(
        "/predict?sets=0.9",
        content=body,
        headers={"content-type": "text/csv", "accept": "text/csv"},
    )
    assert same.text == written


def test_sets_can_be_asked_of_every_answer(client, runs):
    """With a coverage of the server's own, every answer has sets, and says which."""
    answer = client(runs / "digits", coverage=0.95).post("/predict", json=digits().tolist())
    assert answer.json()["coverage"] == 0.95
    assert len(answer.json()["sets"]) == 5


def test_the_answer_names_run_and_hash(client, runs):
    """Every answer says which run gave it: its name and the SHA-256 of its config.json."""
    answer = client(runs / "digits").post("/predict", json=digits().tolist()).json()
    assert answer["model"] == "digits"
    assert answer["sha256"] == json.loads((runs / "digits" / "config.json").read_text())["sha256"]


def test_requests_that_wait_are_predicted_together_and_keep_their_notices(client, runs):
    """Of rows predicted together, each request is told of its own values that are of no use."""
    import asyncio

    application = client(runs / "people").application
    served = application.runs.asked({"name": "people"})
    from luce.serving.json_rows import from_rows

    known = luce.load_run(runs / "people").schema.used[-1].categories[0]
    rows = [{"age": 40, "city": "Graz", "member": True, "day": "2024-05-01", "remark": known}]
    odd = {7: ("city", "Mars"), 20: ("age", "old")}
    wanted = [[rows[0] | dict([odd[i]])] if i in odd else rows for i in range(40)]

    async def ask():
        found = [from_rows(each, served.wanted) for each in wanted]
        return await asyncio.gather(*(application.inference.predict(served, r) for r in found))

    told = [each.notices for each in asyncio.run(ask())]
    assert told[7] == ["unseen category in 'city', treated as none: 1"]
    assert told[20] == ["not a number in 'age', treated as missing: 1"]
    assert not any(told[i] for i in range(40) if i not in odd)
    assert application.metrics.batched.total / sum(application.metrics.batched.counts) > 1


@pytest.mark.parametrize("kind", [ZeroDivisionError, BaseException])
def test_a_request_that_fails_harms_none_that_is_predicted_with_it(client, runs, monkeypatch, kind):
    """Of rows predicted together, an error that nobody foresaw is told to its own request alone.

    Polars' panics are BaseExceptions.
    """
    import asyncio

    from luce.serving import inference
    from luce.serving.json_rows import from_rows

    application = client(runs / "people").application
    served = application.runs.asked({"name": "people"})
    predicted = inference._predicted

    def breaks(served, features):
        if 13 in features["age"].to_list():
            raise kind
        return predicted(served, features)

    monkeypatch.setattr(inference, "_predicted", breaks)
    row = {"city": "Graz", "member": True, "day": "2024-05-01", "remark": "a letter"}

    async def ask():
        found = [from_rows([{"age": age, **row}], served.wanted) for age in range(30)]
        asked = (application.inference.predict(served, rows) for rows in found)
        return await asyncio.gather(*asked, return_exceptions=True)

    wrong = [age for age, said in enumerate(asyncio.run(ask())) if isinstance(said, Exception)]
    assert wrong == [13]


def test_who_no_longer_waits_is_not_predicted(runs):
    """After a time-out nothing is computed for a request: others wait behind it."""
    import asyncio

    from luce.serving.inference import Inference
    from luce.serving.json_rows import from_rows
    from luce.serving.limits import Limits
    from luce.serving.served import Runs

    served = Runs([runs / "matrix"], Limits()).asked({})
    seen = []
    inference = Inference(10, lambda *watched: seen.append(watched[3].shape[0]))

    async def ask():
        rows = [from_rows([[0, 0, 0]] * n, served.wanted) for n in (1, 2)]
        gone, waits = (asyncio.create_task(inference.predict(served, each)) for each in rows)
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        inference.start()
        await waits

    asyncio.run(ask())
    inference.stop()
    assert seen == [2]
