"""What other servers' clients send is answered as they expect, with the run's own figures."""

import json
import math

import numpy as np
import polars as pl
import pytest

import luce
from tests.serving.conftest import people

ROW = {"age": 40.0, "city": "Graz", "member": True, "day": "2024-05-01", "remark": "a letter"}


def expected(runs, name, features):
    return luce.load_run(runs / name).predict_proba(features)


def test_open_inference_of_a_table(client, runs):
    """A tensor for each column gives label and probabilities of each row."""
    asked = client(runs / "people")
    frame = people(3, 1).drop("label").with_columns(pl.col("day").cast(pl.String))
    kinds = {"age": "FP64", "member": "BOOL"}
    inputs = [
        {"name": n, "shape": [3], "datatype": kinds.get(n, "BYTES"), "data": frame[n].to_list()}
        for n in frame.columns
    ]
    answer = asked.post("/v2/models/people/infer", json={"id": "7", "inputs": inputs}).json()
    outputs = {each["name"]: each for each in answer["outputs"]}
    assert (answer["id"], answer["model_name"]) == ("7", "people")
    assert outputs["probabilities"]["shape"] == [3, 3]
    np.testing.assert_allclose(
        np.reshape(outputs["probabilities"]["data"], (3, 3)),
        expected(runs, "people", frame),
        rtol=1e-6,
    )
    labels = luce.load_run(runs / "people").predict(frame).tolist()
    assert outputs["label"] == {"name": "label", "shape": [3], "datatype": "BYTES", "data": labels}


@pytest.mark.parametrize("shape", [[2, 1, 8, 8], [2, 8, 8], [2, 64]])
def test_open_inference_of_images(client, runs, shape):
    """One tensor of all images, nested or flat, with an output asked for by name."""
    images = luce.load_dataset("digits").test.features[:2]
    tensor = {"name": "rows", "shape": shape, "datatype": "UINT8", "data": images.ravel().tolist()}
    asked = {"inputs": [tensor], "outputs": [{"name": "probabilities"}]}
    answer = client(runs / "digits").post("/v2/models/digits/infer", json=asked).json()
    (output,) = answer["outputs"]
    np.testing.assert_allclose(
        np.reshape(output["data"], (2, 10)), expected(runs, "digits", images), rtol=1e-6
    )


def test_pixels_may_come_as_floats(client, runs):
    """A tensor of FP32 whose numbers are whole has pixels; others are named."""
    tensor = {"name": "rows", "shape": [1, 64], "datatype": "FP32", "data": [3.0] * 64}
    asked = client(runs / "digits")
    answer = asked.post("/v2/models/digits/infer", json={"inputs": [tensor]})
    label = luce.load_run(runs / "digits").predict(np.full((1, 1, 8, 8), 3, np.uint8)).tolist()
    assert answer.json()["outputs"][0]["data"] == label
    tensor["data"][5] = 3.5
    refused = asked.post("/v2/models/digits/infer", json={"inputs": [tensor]})
    assert "at [0, 5]: must be a whole number" in refused.json()["error"]


def test_binary_tensors_are_refused_in_words(client, runs):
    """An extension of the protocol that /v2 does not list, as its header says."""
    headers = {"inference-header-content-length": "20"}
    answer = client(runs / "digits").post("/v2/models/digits/infer", content=b"{", headers=headers)
    assert answer.status_code == 415
    assert "binary_data=False" in answer.json()["error"]


def test_metadata_and_readiness(client, runs):
    """The protocol's metadata names inputs and outputs; a version is the hash's beginning."""
    asked = client(runs / "people")
    said = asked.get("/v2/models/people").json()
    assert [each["name"] for each in said["inputs"]] == list(ROW)
    assert [each["datatype"] for each in said["inputs"]] == [
        "FP64",
        "BYTES",
        "BOOL",
        "BYTES",
        "BYTES",
    ]
    version = said["versions"][0]
    assert asked.get(f"/v2/models/people/versions/{version}/ready").json() == {
        "name": "people",
        "ready": True,
    }
    assert asked.get("/v2/models/people/versions/1/ready").status_code == 404
    assert asked.get("/v2/models/nobody/ready").status_code == 404
    assert asked.get("/v2/health/live").json() == {"live": True}
    assert asked.get("/v2").json()["name"] == "luce"


def test_a_server_that_is_to_stop_is_not_ready(client, runs):
    """While what was accepted is answered, nothing new is asked for."""
    asked = client(runs / "people")
    asked.application.about.stopping = True
    for path in ("/ping", "/v2/health/ready", "/health"):
        assert asked.get(path).status_code == 503


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        ({"datatype": "FP99"}, "input 'rows': datatype must be BYTES, or one of"),
        ({"shape": [3, 64]}, "input 'rows': shape [3, 64] has 192 values, data 64."),
        ({"shape": []}, "input 'rows': shape [] is none."),
        (
            {"shape": [1, 4, 4, 4]},
            "input 'rows': an image must be of shape [1, 8, 8], got [4, 4, 4].",
        ),
        ({"datatype": "BYTES"}, "input 'rows': the run needs numbers, got BYTES."),
        ({"data": [[0] * 63, 0]}, "input 'rows': data is nested here and flat there."),
        ({"shape": [3, 0], "data": []}, "input 'rows': shape [3, 0] has no rows of numbers."),
        ({"data": 3}, "the body is no inference request: Expected `array`, got `int`"),
    ],
)
def test_bad_tensors_are_named(client, runs, tensor, sentence):
    """Each mistake in a tensor is a 400 that names it."""
    good = {"name": "rows", "shape": [1, 64], "datatype": "UINT8", "data": [0] * 64}
    answer = client(runs / "digits").post(
        "/v2/models/digits/infer", json={"inputs": [{**good, **tensor}]}
    )
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(sentence)


FORMS = {
    "dataframe_split": lambda: {"columns": list(ROW), "data": [list(ROW.values())]},
    "dataframe_records": lambda: [ROW],
    "instances": lambda: [ROW],
    "inputs": lambda: {name: [value] for name, value in ROW.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_invocations_take_what_mlflow_sends(client, runs, form):
    """Each of MLflow's forms gives the label, under predictions."""
    answer = client(runs / "people").post("/invocations", json={form: FORMS[form]()})
    label = luce.load_run(runs / "people").predict(pl.DataFrame([ROW])).tolist()
    assert answer.json() == {"predictions": label}


def test_invocations_take_nan_as_missing(client, runs):
    """MLflow's client writes pandas' missing values so; Infinity is none of them."""
    asked = client(runs / "people")
    label = luce.load_run(runs / "people").predict(pl.DataFrame([{**ROW, "age": None}])).tolist()
    sent = json.dumps({"dataframe_records": [{**ROW, "age": math.nan}]})
    assert "NaN" in sent
    assert asked.post("/invocations", content=sent).json() == {"predictions": label}
    for worse in (sent.replace("NaN", "[NaN, -Infinity]"), sent.replace("Graz", "\\ud800")):
        assert asked.post("/invocations", content=worse).status_code == 400
    assert asked.post("/predict", content=json.dumps([{**ROW, "age": math.nan}])).status_code == 400


def test_invocations_take_csv_as_sagemaker_sends_it(client, runs):
    """Rows of numbers as CSV without names."""
    answer = client(runs / "matrix").post(
        "/invocations", content="3,0,0\n-3,0,0", headers={"content-type": "text/csv"}
    )
    assert answer.json() == {"predictions": [1, 0]}


def test_invocations_refuse_in_words(client, runs):
    """Another form is a 400 that names those that there are."""
    answer = client(runs / "people").post("/invocations", json={"rows": [ROW]})
    assert answer.status_code == 400
    assert "must have dataframe_split, dataframe_records, instances or inputs" in answer.text


def test_sagemakers_runtime_names_a_run_in_its_path(client, runs):
    """Its clients ask /endpoints/NAME/invocations, so several runs can be served."""
    asked = client(runs / "people", runs / "digits")
    answer = asked.post("/endpoints/digits/invocations", json=[[0] * 64])
    assert len(answer.json()["predictions"]) == 1
    assert answer.headers["luce-run-sha256"] == luce.load_run(runs / "digits").sha256
    assert asked.post("/endpoints/nobody/invocations", json=[[0] * 64]).status_code == 404


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/invocations", {"instances": [ROW] * 2_000}),
        (
            "/v2/models/people/infer",
            {
                "id": "long",
                "inputs": [
                    {"name": "age", "shape": [20_000], "datatype": "FP64", "data": [40] * 20_000},
                    {
                        "name": "city",
                        "shape": [20_000],
                        "datatype": "BYTES",
                        "data": ["Graz"] * 20_000,
                    },
                    {
                        "name": "member",
                        "shape": [20_000],
                        "datatype": "BOOL",
                        "data": [True] * 20_000,
                    },
                ],
            },
        ),
    ],
)
def test_long_json_of_other_clients_is_read_in_the_other_process(
    client, runs, monkeypatch, path, content
):
    """Beyond 64 KiB nothing of it is read where others wait."""
    monkeypatch.setattr("luce.serving.bodies.read", lambda *_: 1 / 0)
    answer = client(runs / "people").post(path, json=content)
    assert answer.status_code == 200
    assert answer.json().get("id", "long") == "long"
