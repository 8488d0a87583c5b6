"""PMML: jpmml's evaluator gives the run's probabilities."""

import importlib.util
import shutil
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from luce.data.columns.number import as_numbers
from luce.errors import ArgumentError
from tests.export.conftest import features_of

SPACE = {"p": "http://www.dmg.org/PMML-4_4"}

needs_jpmml = pytest.mark.skipif(
    importlib.util.find_spec("jpmml_evaluator") is None or shutil.which("java") is None,
    reason="jpmml_evaluator or Java is not installed",
)


def numbers_of(run, features):
    """Yield rows as PMML takes them: numbers as such, what is missing as None."""
    import polars as pl

    raw = run.schema.raw(features)
    columns = {}
    for column in run.schema.used:
        values = raw[column.name][:, 0].tolist()
        if column.kind == "number":
            read = as_numbers(pl.Series(values), column.numerals)
            values = [None if v is None or not np.isfinite(v) else v for v in read.to_list()]
        columns[column.name] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@needs_jpmml
@pytest.mark.filterwarnings("ignore")  # of the bridge to Java
def test_an_engine_says_what_the_run_does(run_of, tmp_path):
    """Numbers, bent and in text, booleans and categories; missing, unseen and extreme."""
    from jpmml_evaluator import make_evaluator

    run = run_of("said in PMML", "linear")
    run.export(tmp_path / "run.pmml")
    evaluator = make_evaluator(str(tmp_path / "run.pmml"))
    held = features_of(run_of, "said in PMML", 40)
    made_up = run.schema.made_up(120, np.random.default_rng(0))
    for features in (held, made_up):
        said = [evaluator.evaluate(row) for row in numbers_of(run, features)]
        found = [[each[f"probability({label})"] for label in run.classes] for each in said]
        np.testing.assert_allclose(found, run.predict_proba(features), atol=1e-5, rtol=0)
        assert [each["y"] for each in said] == run.predict(features).tolist()


def test_the_file_is_a_regression_model(run_of, tmp_path):
    """Softmax normalisation, a table for each class, the temperature within the coefficients."""
    run = run_of("said in PMML", "linear")
    exported = run.export(tmp_path / "run.pmml")
    model = ET.parse(exported.path).find("p:RegressionModel", SPACE)
    assert model.get("normalizationMethod") == "softmax"
    tables = model.findall("p:RegressionTable", SPACE)
    assert [each.get("targetCategory") for each in tables] == ["a", "b", "c"]
    coefficients = [
        [float(each.get("coefficient")) for each in table.findall("p:NumericPredictor", SPACE)]
        for table in tables
    ]
    temperature = run.calibration.temperature
    np.testing.assert_allclose(coefficients, run.estimator.coef_ / temperature, rtol=1e-6)
    assert exported.notes == ["'price': PMML takes numbers as programs write them, such as 1234.5."]


@pytest.mark.parametrize(
    ("source", "model", "words"),
    [
        ("array", "linear", "this run reads arrays"),
        ("plain", "mlp", "this run's model is mlp"),
        ("dense", "linear", "columns of kind date, such as 'day'"),
        ("words", "linear", "columns of kind text, such as 'remark'"),
    ],
)
def test_what_pmml_cannot_say_is_refused(run_of, tmp_path, source, model, words):
    """The message names what can."""
    with pytest.raises(ArgumentError, match=f"{words}.*to='onnx'"):
        run_of(source, model).export(tmp_path / "run.pmml")
    assert not list(tmp_path.iterdir())
