"""ONNX: what ONNX Runtime says of rows is what the run says, for every kind of run there is."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest

import luce
from luce.data.columns import KINDS
from luce.data.columns.date import FORMATS, ISO_FORMATS, as_moments, example
from luce.data.columns.number import as_numbers
from luce.data.numerals import Numerals
from luce.errors import ArgumentError, ExportError, MissingExtraError
from luce.export import graph
from luce.neural.networks import ACTIVATIONS
from luce.options import NETWORK
from tests.export.conftest import features_of

TOLERANCE = 1e-5


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def answers(path, run, features):
    """Return label and probabilities of raw features, as ONNX Runtime has them."""
    return session_of(path).run(None, run.schema.raw(features))


def agree(path, run, features):
    """Check that both say the same."""
    label, probabilities = answers(path, run, features)
    np.testing.assert_allclose(probabilities, run.predict_proba(features), atol=TOLERANCE, rtol=0)
    assert label.tolist() == run.predict(features).tolist()


RUNS = [
    *((source, model, {}) for source in ("dense", "sparse", "text") for model in ("linear", "mlp")),
    ("plain", "auto", {"epochs": 2}),
    ("plain", "linear", {"link": "ovr", "C": 1.0}),
    ("plain", "linear", {"link": "ecoc", "C": 1.0}),
    ("plain", "mlp", {"members": 1, "bins": 0}),
    ("array", "linear", {}),
    ("array", "mlp", {}),
    ("digits", "linear", {}),
    ("digits", "auto", {"epochs": 1}),
    ("colours", "cnn", {"hidden": (8, 8, 8)} if "hidden" not in NETWORK else {}),
    ("colours", "linear", {"normalise": (0.5, 0.25)}),
    ("colours", "mlp", {"hidden": (8,)}),
]


@pytest.mark.parametrize(("source", "model", "options"), RUNS)
def test_a_run_and_its_graph_say_the_same(run_of, tmp_path, source, model, options):
    """Probabilities agree to 1e-5 and labels are the same, for each kind of column and model."""
    run = run_of(source, model, **options)
    features = features_of(run_of, source)
    exported = run.export(
        tmp_path / "run.onnx", operators="onnxruntime", source=_again(run_of, source)
    )
    agree(exported.path, run, features)
    assert max(each.difference for each in exported.compared) <= TOLERANCE
    assert [each.rows for each in exported.compared][-2:] == [1, 0]


def _again(run_of, source):
    """Return a source in memory once more, to compare on; digits are found by the run itself."""
    return None if source == "digits" else run_of.source(source)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize(("source", "model"), [("array", "mlp"), ("colours", "cnn")])
def test_each_activation_is_exported(run_of, tmp_path, source, model, activation):
    """A network with it and its graph agree."""
    run = run_of(source, model, activation=activation)
    run.export(tmp_path / "run.onnx")
    agree(tmp_path / "run.onnx", run, features_of(run_of, source))


def test_it_is_as_old_as_it_may_be(run_of, tmp_path):
    """A graph of numbers needs opset 14, one of texts opset 20; each has the oldest IR for it."""
    run_of("digits", "linear").export(tmp_path / "digits.onnx")
    run_of("dense", "linear").export(tmp_path / "dense.onnx")
    found = {}
    for name in ("digits", "dense"):
        model = onnx.load(tmp_path / f"{name}.onnx")
        opsets = {each.domain: each.version for each in model.opset_import}
        found[name] = (opsets, model.ir_version)
    assert found == {"digits": ({"": 14}, 7), "dense": ({"": 20, "ai.onnx.ml": 2}, 9)}


def test_it_says_what_it_is_of(run_of, tmp_path):
    """The metadata hold classes, schema and the hash of the run; inputs are called as columns."""
    run = run_of("plain", "linear")
    exported = run.export(tmp_path / "run.onnx")
    model = onnx.load(exported.path)
    notes = {each.key: each.value for each in model.metadata_props}
    assert json.loads(notes["luce.classes"]) == ["a", "b", "c"]
    assert json.loads(notes["luce.schema"]) == run.schema.to_json()
    recorded = json.loads((run.path / "config.json").read_text())
    assert notes["luce.run"] == recorded["sha256"] == run.sha256
    session = session_of(exported.path)
    given = {each.name: (each.type, each.shape) for each in session.get_inputs()}
    assert given["age"] == ("tensor(double)", ["rows", 1])
    assert given["island"] == ("tensor(string)", ["rows", 1])
    assert [each.name for each in session.get_outputs()] == ["label", "probabilities"]
    assert [each.type for each in session.get_outputs()] == ["tensor(string)", "tensor(float)"]


def test_columns_may_be_called_as_the_outputs(tmp_path):
    """Inputs keep the columns' names, and the outputs get others."""
    random = np.random.default_rng(0)
    frame = pl.DataFrame({"label": random.normal(size=60), "probabilities": random.normal(size=60)})
    frame = frame.with_columns(y=pl.Series(random.integers(0, 2, 60)))
    run = luce.train(frame, target="y", model="linear", out=tmp_path)
    run.export(tmp_path / "run.onnx")
    outputs = [each.name for each in session_of(tmp_path / "run.onnx").get_outputs()]
    assert outputs == ["output_label", "output_probabilities"]
    agree(tmp_path / "run.onnx", run, frame.drop("y"))


@pytest.mark.parametrize(
    ("source", "model"), [("text", "linear"), ("sparse", "mlp"), ("array", "mlp")]
)
def test_any_number_of_rows_goes_in(run_of, tmp_path, source, model):
    """Also none, of which there are no answers."""
    run = run_of(source, model)
    run.export(tmp_path / "run.onnx", operators="onnxruntime")
    for rows in (0, 1, 7):
        some = features_of(run_of, source, rows)
        label, probabilities = answers(tmp_path / "run.onnx", run, some)
        assert label.shape == (rows,)
        assert probabilities.shape == (rows, len(run.classes))


def test_a_text_of_which_no_word_is_known_is_exported(tmp_path):
    """Beside another column, its words being different in every row."""
    random = np.random.default_rng(0)
    words = [" ".join(f"w{5 * i + j}" for j in range(5)) for i in range(80)]
    frame = pl.DataFrame({"x": random.normal(size=80), "remark": words, "y": ["a", "b"] * 40})
    run = luce.train(frame, target="y", model="linear", types={"remark": "text"}, out=tmp_path)
    run.export(tmp_path / "run.onnx", operators="onnxruntime", source=frame)
    agree(tmp_path / "run.onnx", run, frame.drop("y"))


def test_what_is_not_finite_in_an_array_gives_no_probability(run_of, tmp_path):
    """Luce refuses such rows; a graph cannot, and answers NaN for these alone."""
    run = run_of("array", "mlp")
    run.export(tmp_path / "run.onnx")
    rows = features_of(run_of, "array", 4).copy()
    rows[1, 3], rows[2, 0] = np.nan, np.inf
    _, probabilities = session_of(tmp_path / "run.onnx").run(None, {"X": rows})
    assert np.isnan(probabilities).all(axis=1).tolist() == [False, True, True, False]


def test_a_graph_that_says_something_else_is_not_written(run_of, tmp_path, monkeypatch):
    """What is there stays, and the message says what differs."""
    path = tmp_path / "run.onnx"
    path.write_bytes(b"before")
    softmax = graph.softmax
    monkeypatch.setattr(graph, "softmax", lambda logits, _: softmax(logits, 0.7))
    with pytest.raises(
        ExportError, match=r"of '\w' is 0\.\d+, and by the run 0\.\d+.* The row: \{'age': "
    ):
        run_of("plain", "linear").export(path)
    assert path.read_bytes() == b"before"


def test_labels_that_differ_are_not_written(run_of, tmp_path, monkeypatch):
    """Where the margin is above the tolerance, also if the probabilities are the same."""
    monkeypatch.setattr(graph.op, "arg_max", graph.op.arg_min)
    with pytest.raises(ExportError, match=r"its label is \S+, and by the run"):
        run_of("plain", "linear").export(tmp_path / "run.onnx")
    assert not (tmp_path / "run.onnx").exists()


def test_texts_need_the_operators_of_onnx_runtime(run_of, tmp_path):
    """Without the option that allows them the message names it."""
    with pytest.raises(ArgumentError, match=r"'remark'.*operators='onnxruntime'"):
        run_of("words", "linear").export(tmp_path / "run.onnx")
    assert not (tmp_path / "run.onnx").exists()


def test_a_column_that_brings_no_nodes_is_named(run_of, tmp_path, monkeypatch):
    """A kind of column from outside may have none."""
    monkeypatch.delattr(KINDS["boolean"], "read_nodes")
    with pytest.raises(ArgumentError, match=r"kind boolean, such as 'member', does not say"):
        run_of("plain", "linear").export(tmp_path / "run.onnx")


def test_a_model_that_does_not_say_what_it_computes_is_refused(run_of, tmp_path, monkeypatch):
    """A kind of model from outside may have no steps."""
    run = run_of("plain", "linear")
    monkeypatch.setattr(type(run.classifier.model), "steps", lambda *_: None)
    with pytest.raises(ArgumentError, match=r"kind linear does not say what it computes"):
        run.export(tmp_path / "run.onnx")


def test_without_spox_the_extra_is_named(run_of, tmp_path, monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "spox", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'luce\[export\]'"):
        run_of("plain", "linear").export(tmp_path / "run.onnx")


# -------------------------------------------------------------------------------------------------
# Texts that stand for numbers and dates
# -------------------------------------------------------------------------------------------------


def computed(make, texts):
    """Return what nodes make of a column of texts."""
    from spox import Tensor, argument, build

    text = argument(Tensor(np.str_, ("rows", 1)))
    model = build({"text": text}, {"out": make(text)})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"text": np.array(texts, dtype=object)[:, None]})[0][:, 0]


NUMBERS = [
    "0",
    "7",
    "-7",
    "+7",
    "−7",
    "12.5",
    "-0.5",
    ".5",
    "5.",
    "1e3",
    "2.5E-3",
    "1e400",
    "-1e400",
    "1e-400",
    "1,234",
    "1,234,567.89",
    "12,34,567",
    "1,23",
    "1,2345",
    "1.234,5",
    "0,13",
    "1'234",
    "1'234.5",
    "(12)",
    "(1,234)",
    "-(5)",
    "(-5)",
    "--",
    "+-5",
    "1.2.3",
    "12a",
    "NaN",
    "inf",
    "-Infinity",
    "١٢",
    "1_000",
    "0x10",
    "1e",
    "1e+",
    "e5",
    ".",
    ",",
    "-",
    "99999999999999999999999999999999999999999",
]
NUMBERS += ["1 234", "1\u00a0234", "1\u202f234,5", "12 34", " 5", "5  ", "- 5", "", "9" * 400]


@pytest.mark.parametrize("thousands", [False, True])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("unit", ["", "$", "kg", "US$"])
def test_numbers_in_text_are_read_as_in_python(unit, decimal, thousands):
    """With a decimal comma, separators, units, signs and brackets, and what is no number."""
    from luce.data.columns.reading import number_nodes

    numerals = Numerals(decimal, thousands, unit)
    if numerals == Numerals():
        numerals = Numerals(unit="%")
    ways = [
        "{}",
        "{u}{}",
        "{u} {}",
        "{} {u}",
        "{}{u}",
        "-{u}{}",
        "-{u} {}",
        "({u}{})",
        "{u}({})",
        "({}) {u}",
        "{u}-{}",
    ]
    texts = [way.format(each, u=numerals.unit) for each in NUMBERS for way in ways]
    wanted = as_numbers(pl.Series([text.strip(" ") for text in texts]), numerals).to_numpy()
    wanted = np.where(np.isinf(wanted), np.nan, wanted)
    found = computed(lambda text: number_nodes(text, numerals), texts)
    found = np.where(np.abs(found) > np.finfo(np.float32).max, np.nan, found)
    same = np.isclose(found, wanted, rtol=1e-12, equal_nan=True)
    assert not [each for each in zip(texts, found, wanted, same, strict=True) if not each[-1]]


@pytest.mark.parametrize("written", [None, *FORMATS])
def test_dates_in_text_are_read_as_in_python(written):
    """In each format, with short and long parts, months' names, offsets, and days that are none."""
    from luce.data.columns.reading import date_nodes

    formats = ISO_FORMATS if written is None else (written,)
    years = [(1970, 1, 1), (2000, 2, 29), (1900, 3, 1), (2024, 12, 31), (1999, 5, 9), (2069, 7, 4)]
    texts = [example(each) for each in ISO_FORMATS]
    for each in formats:
        for year, month, day in years:
            for pad in ("02", ""):
                parts = {"%Y": f"{year:04}", "%y": f"{year % 100:02}", "%m": f"{month:{pad}}"}
                parts |= {
                    "%d": f"{day:{pad}}",
                    "%H": f"{day % 24:{pad}}",
                    "%I": f"{1 + day % 12:{pad}}",
                }
                parts |= {
                    "%M": "05",
                    "%S": f"{day:{pad}}",
                    "%.f": ".125",
                    "%p": "pm",
                    "%#z": "-03:30",
                }
                months = ["January", "Feb", "mar", "APR", "may", "June", "JULY", "Aug", "September"]
                parts["%B"] = [*months, "Oct", "november", "December"][month - 1]
                text = each
                for part, value in parts.items():
                    text = text.replace(part, value)
                texts += [text, text.replace(".125", ""), text.replace("-03:30", "Z")]
        some = example(each)
        texts += [some, f" {some} ", some.replace("05", "32"), some.replace("03", "13")]
        texts += [some.replace("05", "30").replace("03", "02").replace("Mar", "Feb")]
        texts += [some.replace("13:30", "24:00"), some.replace("30", "60"), f"{some}x", "", "x"]
    moments = as_moments(pl.Series([text.strip() for text in texts]), written).to_physical()
    wanted = (moments.cast(pl.Float64) / 86_400e6).fill_null(np.nan).to_numpy()
    found = computed(lambda text: date_nodes(text, formats), texts)
    same = np.isclose(found, wanted, rtol=0, atol=1e-10, equal_nan=True)
    assert not [each for each in zip(texts, found, wanted, same, strict=True) if not each[-1]]
    assert np.isfinite(wanted).sum() > 20
