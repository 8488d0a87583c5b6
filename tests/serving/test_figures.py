"""Metrics, drift, the log of inputs, and what programs are told of the server."""

import io
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2_contingency

import luce
from luce.errors import RunError
from luce.reference import Reference, compare
from luce.serving.metrics import Metrics
from tests.serving.conftest import people

CSV = {"content-type": "text/csv"}


def figures(client):
    """Return all samples of /metrics by name and labels; every line must be one or a comment."""
    samples = {}
    for line in client.get("/metrics").text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(\{.*\})? (\S+)", line).groups()
            samples[name, labels or ""] = float(value)
    return samples


def send(client, frame):
    assert client.post("/predict", content=frame.write_csv(), headers=CSV).status_code == 200


def test_requests_rows_and_classes_are_counted(client, runs):
    """What was asked and predicted is counted by status and by class."""
    asked = client(runs / "people")
    frame = people(50, 1).drop("label")
    send(asked, frame)
    asked.post("/predict", content=b"[{}]")
    found = figures(asked)
    assert found["luce_requests_total", '{endpoint="predict",status="200"}'] == 1
    assert found["luce_requests_total", '{endpoint="predict",status="400"}'] == 1
    assert found["luce_rows_total", '{model="people"}'] == 50
    labels = luce.load_run(runs / "people").predict(frame).tolist()
    for label in ("low", "mid", "high"):
        key = "luce_predictions_total", f'{{model="people",class="{label}"}}'
        assert found[key] == labels.count(label)
    assert found["luce_request_seconds_count", '{endpoint="predict"}'] == 2


def p_values(client):
    return {
        re.search('column="(.*?)",of="(.*?)"', labels).groups(): value
        for (name, labels), value in figures(client).items()
        if name == "luce_drift_p_value"
    }


def test_drift_is_found_in_the_column_that_has_it(client, runs):
    """Rows like the training's have no small p-value; of older people, age and the classes have."""
    asked = client(runs / "people")
    send(asked, people(400, 1).drop("label"))
    before = p_values(asked)
    assert len(before) == 7
    assert min(before.values()) > 0.001
    other = client(runs / "people")
    send(other, people(400, 1).drop("label").with_columns(age=pl.col("age") / 2 + 45))
    after = p_values(other)
    assert after["age", "value"] < 1e-10
    assert after["class", "class"] < 1e-6
    for column in (("city", "code"), ("day", "value"), ("member", "value")):
        assert after[column] == pytest.approx(before[column])


def test_p_values_are_uniform_where_nothing_has_changed(runs):
    """Of windows drawn from the reference's own distribution, a tenth have p below 0.1."""
    random = np.random.default_rng(0)
    shares = np.full(10, 0.1)
    reference = [random.multinomial(300, shares) for _ in range(600)]
    window = [random.multinomial(200, shares) for _ in range(600)]
    found = [compare(a, b)[1] for a, b in zip(reference, window, strict=True)]
    assert 0.07 < np.mean(np.array(found) < 0.1) < 0.13


def test_the_test_is_scipys():
    """Where no bin is rare, p is that of SciPy's chi-squared test, and the distance by hand."""
    a, b = np.array([30, 50, 20]), np.array([60, 30, 10])
    far, p = compare(a, b)
    assert far == pytest.approx(0.3)
    assert p == pytest.approx(chi2_contingency([a, b], correction=False).pvalue)


def test_the_reference_is_of_the_rows_that_the_run_was_judged_by(runs):
    """reference.json counts the validation rows, column by column, once each."""
    run = luce.load_run(runs / "people")
    reference = run.reference
    assert reference.rows == run.config["data"]["rows"]["validation"]
    assert {sum(measure.counts) for measure in reference.measures} == {reference.rows}
    names = [measure.name for measure in reference.measures]
    assert names == ["age", "city", "member", "day", "remark", "class", "certainty"]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(rows=0),
        lambda record: record["measures"][0].update(counts=[1]),
        lambda record: record["measures"][0].update(edges=[2.0, 1.0]),
        lambda record: record["measures"][0].update(name="weight"),
        lambda record: record["measures"][1].update(counts=[1, 2]),
        lambda record: record["measures"][0].update(how="eval"),
        lambda record: record.pop("measures"),
    ],
)
def test_a_reference_that_fits_no_run_is_refused(runs, change):
    """What anybody may have written is believed only as far as it is checked."""
    run = luce.load_run(runs / "people")
    record = json.loads((runs / "people" / "reference.json").read_text())
    Reference.from_json(record, run.schema)
    change(record)
    with pytest.raises(RunError, match=r"reference\.json is damaged"):
        Reference.from_json(record, run.schema)


def test_inputs_and_predictions_are_kept_as_parquet(client, runs, tmp_path):
    """--log keeps what came and what was said, and Luce reads the folder as a table."""
    asked = client(runs / "people", runs / "digits", log=tmp_path / "log")
    frame = people(30, 1).drop("label")
    for part in frame.iter_slices(10):
        asked.post("/v1/models/people/predict", content=part.write_csv(), headers=CSV)
    asked.post("/v1/models/digits/predict", json=[[7] * 64])
    asked.application.watching.stop()
    kept = pl.read_parquet(tmp_path / "log" / "people" / "*.parquet")
    assert kept.height == 30
    run = luce.load_run(runs / "people")
    np.testing.assert_allclose(run.predict_proba(kept), run.predict_proba(frame), rtol=1e-6)
    assert kept["luce_prediction"].to_list() == run.predict(frame).tolist()
    image = pl.read_parquet(tmp_path / "log" / "digits" / "*.parquet")["pixels"][0]
    assert image == bytes([7] * 64)


def test_the_log_takes_columns_of_its_own_names_and_of_several_types(client, runs, tmp_path):
    """A run may be trained on a log; a date comes as text here and as a date there."""
    frame = people(300, 0).rename({"city": "luce_prediction"})
    frame.write_csv(tmp_path / "again.csv")
    source = tmp_path / "again.csv"
    luce.train(source, target="label", model="linear", out=tmp_path, name="again")
    asked = client(tmp_path / "again", log=tmp_path / "log")
    rows = frame[:10].drop("label")
    buffer = io.BytesIO()
    rows.with_columns(pl.col("day").cast(pl.Datetime("us", "UTC"))).write_parquet(buffer)
    for content in (rows.write_csv().encode(), buffer.getvalue()):
        answer = asked.post("/predict", content=content, headers={} if b"PAR1" in content else CSV)
        assert answer.status_code == 200, answer.text
    rows.with_columns(member=pl.lit(1.5)).write_parquet(buffer := io.BytesIO())
    asked.post("/predict", content=buffer.getvalue())
    asked.application.watching.stop()
    kept = pl.read_parquet(tmp_path / "log" / "again" / "*.parquet")
    assert kept["luce_prediction"].to_list() == 3 * rows["luce_prediction"].to_list()
    assert set(kept["luce_prediction_"]) <= {"low", "mid", "high"}
    assert kept["luce_time"].null_count() == 0


def test_what_goes_wrong_beside_a_prediction_leaves_nobody_without_one(
    client, runs, monkeypatch, capsys
):
    """Of drift or log that fail, standard error has it once; every request is answered."""
    asked = client(runs / "people")
    monkeypatch.setattr(asked.application.watching, "saw", lambda *_: 1 / 0)
    for _ in range(3):
        assert asked.post("/predict", json=[{"age": 3, "city": "Graz", "member": True}]).is_success
    assert capsys.readouterr().err.count("ZeroDivisionError") == 1


def test_other_classes_of_a_run_that_is_read_again_are_counted_anew():
    """Predictions are counted by label, not by place."""
    metrics = Metrics()
    for labels in (["a", "b"], ["a", "b"], ["b", "c"]):
        metrics.batch(1, "run", labels, 1, np.array([1, 0]))
    found = [each for each in metrics.lines(0) if each.startswith("luce_predictions_total")]
    assert found == [
        'luce_predictions_total{model="run",class="b"} 1',
        'luce_predictions_total{model="run",class="c"} 0',
    ]


def test_every_example_of_the_openapi_document_works(client, runs):
    """Each example of a request is answered, and the example of an answer is the answer."""
    asked = client(runs / "people", runs / "digits", runs / "matrix", coverage=0.9)
    document = asked.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    tried = 0
    for path, item in document["paths"].items():
        body = item.get("post", {}).get("requestBody", {}).get("content", {})
        for example in body.get("application/json", {}).get("examples", {}).values():
            answer = asked.post(path, json=example["value"])
            assert answer.status_code == 200, answer.text
            shown = item["post"]["responses"]["200"]["content"]["application/json"]["example"]
            np.testing.assert_allclose(
                answer.json().pop("probabilities"), shown["probabilities"], rtol=1e-5
            )
            same = {key: value for key, value in answer.json().items() if key != "probabilities"}
            assert same == {k: v for k, v in shown.items() if k != "probabilities"}
            tried += 1
    assert tried == 4


def test_every_reference_of_the_openapi_document_leads_somewhere(client, runs, tmp_path):
    """Each $ref names a schema that the document has, however runs are called; so do paths."""
    odd = tmp_path / "größe {1}"
    shutil.copytree(runs / "digits", odd)
    document = client(runs / "people", odd).get("/openapi.json").json()
    found = re.findall(
        r'"\$ref":"#/components/schemas/([^"]+)"', json.dumps(document, separators=(",", ":"))
    )
    assert set(found) == set(document["components"]["schemas"])
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in found)
    assert "/v1/models/gr%C3%B6%C3%9Fe%20%7B1%7D/predict" in document["paths"]


def test_the_report_is_served_and_may_do_nothing(client, runs):
    """The run's report comes with a policy that lets it ask nobody."""
    answer = client(runs / "people").get("/v1/models/people/report")
    assert answer.text == (runs / "people" / "report.html").read_text()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "sandbox" in answer.headers["content-security-policy"]
