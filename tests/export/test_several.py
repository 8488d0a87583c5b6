"""Exports of several labels at once, and of binary problems that are coupled row by row."""

import json

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch

import luce
from luce.errors import ArgumentError, ExportError
from luce.export import graph
from tests.browser import needs_browser

TOLERANCE = 1e-5
NAMES = ["comedy", "drama", "war"]


def films(rows, seed):
    """Return a table of a number, a category and a text, and the genres that they say."""
    random = np.random.default_rng(seed)
    on = random.random((rows, 3)) < [0.5, 0.4, 0.15]
    words = np.array(["laugh", "tears", "tank"])
    plots = [" ".join([*random.choice(["a", "man", "town", "life"], 5), *words[row]]) for row in on]
    return pl.DataFrame(
        {
            "year": random.integers(1950, 2020, rows) - 20 * on[:, 2],
            "colour": np.where(random.random(rows) < 0.7, np.where(on[:, 0], "yes", "no"), "blue"),
            "plot": plots,
            "genres": [";".join(np.array(NAMES)[row]) for row in on],
        }
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a function that trains on films with some of their columns."""

    def made(model, columns, **options):
        if model == "mlp":
            options = {"epochs": 2, **options}
        frame = films(300, 0).select(*columns, "genres")
        folder = tmp_path_factory.mktemp("several")
        return luce.train(frame, target="genres", several=";", model=model, out=folder, **options)

    return made


RUNS = {
    "linear": ("linear", ("year", "colour"), {}),
    "linear of texts": ("linear", ("year", "colour", "plot"), {}),
    "members": ("mlp", ("year", "colour"), {}),
    "one network": ("mlp", ("year", "colour"), {"members": 1, "bins": 0}),
    "embedded": ("mlp", ("year", "plot"), {}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_graph_says_which_labels_are_on(trained, tmp_path, name):
    """ONNX Runtime gives the run's probabilities, and of each label whether it is on."""
    model, columns, options = RUNS[name]
    run = trained(model, columns, **options)
    new = films(120, 1).select(columns)
    exported = run.export(
        tmp_path / "run.onnx", operators="onnxruntime", source=films(60, 2).select(columns)
    )
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    on, probabilities = session.run(["label", "probabilities"], run.schema.raw(new))
    wanted = run.predict_proba(new)
    np.testing.assert_allclose(probabilities, wanted, atol=TOLERANCE, rtol=0)
    sure = np.abs(wanted - run.thresholds) > TOLERANCE
    assert on.dtype == bool
    assert (on == run.predict(new))[sure].all()
    assert 0 < on.mean() < 1
    assert exported.outputs == {"label": "bool (rows, 3)", "probabilities": "float32 (rows, 3)"}
    notes = {each.key: each.value for each in onnx.load(exported.path).metadata_props}
    assert json.loads(notes["luce.thresholds"]) == run.thresholds.tolist()


@pytest.mark.parametrize("name", ["linear", "members"])
def test_a_program_gives_their_probabilities(trained, tmp_path, name):
    """And its notes have the thresholds."""
    model, columns, options = RUNS[name]
    run = trained(model, columns, **options)
    new = films(40, 1).select(columns)
    exported = run.export(tmp_path / "run.pt2", source=films(60, 2).select(columns))
    found = {"luce.json": ""}
    program = torch.export.load(exported.path, extra_files=found).module()
    encoded, _ = run.schema.encode(new)
    said = program(torch.from_numpy(encoded)).numpy()
    np.testing.assert_allclose(said, run.predict_proba(new), atol=TOLERANCE, rtol=0)
    assert json.loads(found["luce.json"])["thresholds"] == run.thresholds.tolist()


def test_a_graph_with_other_thresholds_is_not_written(trained, tmp_path, monkeypatch):
    """What is on is compared too, not only how probable it is."""
    run = trained("linear", ("year", "colour"))
    whole = graph.op.greater_or_equal
    monkeypatch.setattr(graph.op, "greater_or_equal", lambda p, t: whole(t, p))
    with pytest.raises(ExportError, match=r"its label is \[(True|False), .*No file was written"):
        run.export(tmp_path / "run.onnx")
    assert not (tmp_path / "run.onnx").exists()


def test_pmml_has_one_target(trained, tmp_path):
    """The message names a format that can say it."""
    with pytest.raises(ArgumentError, match=r"predicts one target.*to='onnx'"):
        trained("linear", ("year", "colour")).export(tmp_path / "run.pmml")


READ = "const model = Luce.read(JSON.parse(document.getElementById('model').textContent));"
ENCODED = "Luce.encode(model.schema, row)"


def plainly(run, frame):
    """Return rows of a table as JSON has them."""
    raw = run.schema.raw(frame)
    columns = {
        name: [v if isinstance(v, str) or np.isfinite(v) else None for v in values[:, 0].tolist()]
        for name, values in raw.items()
    }
    rows = zip(*columns.values(), strict=True)
    return json.dumps([dict(zip(columns, row, strict=True)) for row in rows])


@needs_browser
@pytest.mark.parametrize("name", RUNS)
def test_a_page_computes_them(browser, trained, tmp_path, name):
    """Probabilities, the labels that it names, and sets are the run's."""
    model, columns, options = RUNS[name]
    run = trained(model, columns, **options)
    exported = run.export(tmp_path / "run.html", source=films(60, 2).select(columns))
    browser.show(exported.path)
    new = films(50, 1).select(columns)
    rows = plainly(run, new)
    found = browser.run(
        READ + f"return {rows}.map((row) => [...Luce.probabilities(model, {ENCODED})])"
    )
    wanted = run.predict_proba(new)
    np.testing.assert_allclose(np.array(found), wanted, atol=TOLERANCE, rtol=0)
    for coverage in (0.5, 0.8, 0.9, 0.999):
        inside = browser.run(
            READ + f"return {rows}.map((row) => Luce.holding(Luce.probabilities(model, {ENCODED}),"
            f" model, {coverage}))"
        )
        assert inside == run.calibration.sets(coverage).predict_sets(wanted).tolist()
    assert browser.errors() == []


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_names_the_labels_that_are_on(browser, trained, tmp_path, width):
    """Those that `Run.predict` says of the row that it opens with, at any temperature."""
    columns = ("year", "colour", "plot")
    run = trained("linear", columns)
    held = films(60, 2).select(columns)
    exported = run.export(tmp_path / "run.html", source=held)
    browser.show(exported.path, width)
    (on,) = run.predict(held[:1])
    wanted = ", ".join(np.array(NAMES)[on == 1]) or "no label is on"
    shown = "return document.getElementById('said').textContent"
    assert browser.run(shown) == wanted
    slider = "const t = document.getElementById('temperature');"
    browser.run(slider + "t.value = t.max; t.dispatchEvent(new Event('input', { bubbles: true }));")
    assert browser.run(shown) == wanted
    assert browser.run("return document.querySelectorAll('#bars .limit').length") == 3
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    needed, there = browser.run(wide)
    assert needed <= there


# -------------------------------------------------------------------------------------------------
# Pairs, and codes with zeros
# -------------------------------------------------------------------------------------------------

ZEROS = [[1, 1, 0], [-1, 0, 1], [0, -1, -1]]


def classes(K, seed=0):
    """Return rows of numbers, some far away, and which of K classes each is."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(40 * K, 4))
    y = (X @ random.normal(size=(4, K)) + random.gumbel(size=(40 * K, K)) / 2).argmax(axis=1)
    return X * np.geomspace(0.1, 100, len(X))[:, None], y


COUPLED = {
    "pairs": (4, {"link": "ovo"}),
    "pairs of two": (2, {"link": "ovo"}),
    "pairs of many": (12, {"link": "ovo"}),
    "a code with zeros": (3, {"link": "ecoc", "code": ZEROS}),
}


@pytest.mark.parametrize("ending", ["onnx", "pt2", "html"])
@pytest.mark.parametrize("name", COUPLED)
def test_coupled_problems_are_exported(request, tmp_path, name, ending):
    """Their coupling is within the file: held-out, made-up and far rows agree with the run."""
    K, options = COUPLED[name]
    X, y = classes(K)
    run = luce.train((X, y), model="linear", out=tmp_path, C=1.0, **options)
    far, _ = classes(K, 1)
    exported = run.export(tmp_path / f"run.{ending}", source=(X, y))
    wanted = run.predict_proba(far)
    if ending == "onnx":
        session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
        label, found = session.run(None, run.schema.raw(far))
        best = np.sort(wanted, axis=1)
        sure = best[:, -1] - best[:, -2] > TOLERANCE
        assert (label == run.predict(far))[sure].all()
    elif ending == "pt2":
        found = torch.export.load(exported.path).module()(torch.from_numpy(far)).numpy()
    else:
        browser = request.getfixturevalue("browser")
        browser.show(exported.path)
        found = browser.run(
            READ + f"return {json.dumps(far.tolist())}.map((row) => "
            f"[...Luce.probabilities(model, {ENCODED})])"
        )
    np.testing.assert_allclose(np.array(found), wanted, atol=TOLERANCE, rtol=0)


def test_too_many_pairs_are_refused(tmp_path, monkeypatch):
    """A program has no loops: the message says which formats do."""
    monkeypatch.setattr("luce.export.subject.MOST_PAIRED", 3)
    run = luce.train(classes(4), model="linear", out=tmp_path, C=1.0, link="ovo")
    for ending in ("onnx", "pt2"):
        with pytest.raises(ArgumentError, match=r"pairs of 4 classes .* to='html'"):
            run.export(tmp_path / f"run.{ending}")
    run.export(tmp_path / "run.html")
