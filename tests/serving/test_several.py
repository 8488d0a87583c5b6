"""Several labels at once behind HTTP: lists of labels, thresholds, figures and drift of each."""

import numpy as np
import polars as pl
import pytest

import luce
from luce.predicting import write_predictions
from luce.reference import Reference

NAMES = ["comedy", "drama", "war"]


def films(rows, seed):
    """Return numbers, and the genres that they say."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(rows, 3)).round(3)
    on = random.random((rows, 3)) < 1 / (1 + np.exp(-(3 * X + [0, 0.5, -1.5])))
    cells = [";".join(np.array(NAMES)[row]) for row in on]
    return pl.DataFrame({**{f"x{i}": X[:, i] for i in range(3)}, "genres": cells})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on them."""
    folder = tmp_path_factory.mktemp("several")
    return luce.train(
        films(500, 0), target="genres", several=";", model="linear", out=folder, name="films"
    )


def rows_of(frame):
    return frame.drop("genres").to_dicts()


def test_each_row_is_answered_with_its_labels(client, run):
    """Those whose probability is at least their threshold, and the thresholds beside them."""
    new = films(40, 1)
    said = client(run.path).post("/predict", json={"rows": rows_of(new)}).json()
    on = run.predict(new.drop("genres"))
    assert said["labels"] == [
        [n for n, is_on in zip(NAMES, row, strict=True) if is_on] for row in on
    ]
    assert {len(labels) for labels in said["labels"]} >= {0, 1, 2}
    assert said["thresholds"] == run.thresholds.tolist()
    assert said["classes"] == NAMES
    np.testing.assert_allclose(said["probabilities"], run.predict_proba(new.drop("genres")))


def test_sets_hold_the_share_that_is_asked_for(client, run):
    """They are those of `luce predict --sets`."""
    new = films(30, 1).drop("genres")
    said = client(run.path).post("/predict?sets=0.8", json={"rows": new.to_dicts()}).json()
    inside = run.calibration.sets(0.8).predict_sets(run.predict_proba(new))
    assert [set(each) for each in said["sets"]] == [set(np.array(NAMES)[row]) for row in inside]
    assert said["coverage"] == 0.8


def test_csv_is_as_the_command_writes_it(client, run, tmp_path):
    """The same bytes."""
    films(20, 1).drop("genres").write_csv(tmp_path / "new.csv")
    write_predictions(run, tmp_path / "new.csv", out=tmp_path / "said.csv")
    answer = client(run.path).post(
        "/predict",
        content=(tmp_path / "new.csv").read_bytes(),
        headers={"content-type": "text/csv", "accept": "text/csv"},
    )
    assert answer.content == (tmp_path / "said.csv").read_bytes()


def test_the_open_inference_protocol_has_a_matrix_of_booleans(client, run):
    """Tensors have as many values in each row; what metadata says of them is what comes."""
    new = films(5, 1).drop("genres")
    inputs = [
        {"name": name, "shape": [5], "datatype": "FP64", "data": new[name].to_list()}
        for name in new.columns
    ]
    asked = client(run.path)
    said = asked.post("/v2/models/films/infer", json={"inputs": inputs}).json()
    label, probabilities = said["outputs"]
    assert label["datatype"] == "BOOL"
    assert label["shape"] == probabilities["shape"] == [5, 3]
    assert label["data"] == (run.predict(new) == 1).ravel().tolist()
    described = asked.get("/v2/models/films").json()["outputs"]
    assert [(each["name"], each["datatype"], each["shape"]) for each in described] == [
        ("label", "BOOL", [-1, 3]),
        ("probabilities", "FP32", [-1, 3]),
    ]
    assert described[0]["parameters"]["classes"] == NAMES


def test_other_clients_get_lists(client, run):
    """MLflow's predictions are a list for each row."""
    new = films(6, 1).drop("genres")
    said = client(run.path).post("/invocations", json={"dataframe_records": new.to_dicts()}).json()
    on = run.predict(new)
    assert said["predictions"] == [list(np.array(NAMES)[row == 1]) for row in on]


def test_answers_are_as_openapi_describes_them(client, run):
    """What is required is there, nothing is that is not described, and labels are lists."""
    asked = client(run.path)
    described = asked.get("/openapi.json").json()
    schema = described["components"]["schemas"]["films"]
    said = asked.post("/predict?sets=0.9", json={"rows": rows_of(films(9, 1))}).json()
    assert "thresholds" in schema["required"]
    assert set(schema["required"]) <= set(said) <= set(schema["properties"])
    row = schema["properties"]["labels"]["items"]
    assert row["type"] == "array"
    assert {label for labels in said["labels"] for label in labels} <= set(row["items"]["enum"])
    path = described["paths"]["/v1/models/films/predict"]["post"]
    example = path["responses"]["200"]["content"]["application/json"]["example"]
    assert isinstance(example["labels"][0], list)


def test_figures_count_each_label(client, run):
    """A row counts for all of its labels."""
    new = films(60, 1)
    asked = client(run.path)
    said = asked.post("/predict", json={"rows": rows_of(new)}).json()
    lines = asked.get("/metrics").text.splitlines()
    for name in NAMES:
        count = sum(name in labels for labels in said["labels"])
        assert f'luce_predictions_total{{model="films",class="{name}"}} {count}' in lines


def test_drift_is_of_each_label(client, run):
    """Rows of which one label is on are far from what the run was judged by, in that label."""
    asked = client(run.path)
    odd = [{"x0": -9.0, "x1": -9.0, "x2": 9.0}] * 40
    asked.post("/predict", json={"rows": odd})
    far = {}
    for line in asked.get("/metrics").text.splitlines():
        if line.startswith("luce_drift_distance") and 'of="label' in line:
            far[line.split('column="')[1].split('"')[0]] = float(line.rpartition(" ")[2])
    counts = {each.name: each.counts for each in run.reference.measures if each.how == "label"}
    share = {name: on / (off + on) for name, (off, on) in counts.items()}
    assert set(far) == {*NAMES, "labels"}
    assert far["war"] == pytest.approx(1 - share["war"])
    assert far["comedy"] == pytest.approx(share["comedy"])


def test_a_reference_of_other_labels_is_refused(run):
    """A measure of a label must be one of the run's."""
    record = run.reference.to_json()
    assert Reference.from_json(record, run.schema) == run.reference
    record["measures"][-2]["name"] = "western"
    with pytest.raises(luce.errors.RunError, match="'western' fits no column"):
        Reference.from_json(record, run.schema)


def test_the_log_has_the_labels_and_their_probabilities(client, run, tmp_path):
    """As `luce predict` writes them, with all probabilities: they do not exclude each other."""
    new = films(12, 1)
    asked = client(run.path, log=tmp_path)
    asked.post("/predict", json={"rows": rows_of(new)})
    asked.application.watching.stop()
    kept = pl.read_parquet(tmp_path / "films")
    said = run.predict(new.drop("genres"))
    assert kept["luce_prediction"].to_list() == [
        "|".join(np.array(NAMES)[row == 1]) for row in said
    ]
    np.testing.assert_allclose(
        kept["luce_probabilities"].to_list(), run.predict_proba(new.drop("genres"))
    )


def test_what_a_page_asks_says_the_thresholds(client, run):
    """None where classes exclude each other."""
    assert client(run.path).get("/v1/models/films").json()["thresholds"] == run.thresholds.tolist()
