"""The page of an exported run, in headless Chromium: it says what the run says, and can be used."""

import json
import re

import numpy as np
import polars as pl
import pytest

import luce
from luce.data.spelling import FALSE_WORDS, MISSING_WORDS, TRUE_WORDS
from luce.errors import ArgumentError
from tests.browser import needs_axe, needs_browser
from tests.export.conftest import features_of

pytestmark = needs_browser

PAGES = {
    "dense": ("dense", "linear", {}),
    "sparse": ("sparse", "mlp", {}),
    "text": ("text", "linear", {}),
    "embedded": ("text", "mlp", {}),
    "ovr": ("plain", "linear", {"link": "ovr", "C": 1.0}),
    "ecoc": ("plain", "linear", {"link": "ecoc", "C": 1.0}),
    "array": ("array", "mlp", {"activation": "gelu"}),
    "digits": ("digits", "auto", {"epochs": 1}),
    "colours": ("colours", "cnn", {"activation": "mish"}),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory, run_of):
    """Return each page with its run and some raw rows."""
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for name, (source, model, options) in PAGES.items():
        run = run_of(source, model, **options)
        given = None if source == "digits" else run_of.source(source)
        exported = run.export(folder / f"{name}.html", source=given)
        made[name] = (exported, run, features_of(run_of, source, 40))
    return made


READ = "const model = Luce.read(JSON.parse(document.getElementById('model').textContent));"


def plainly(run, features):
    """Return raw rows as JSON has them."""
    if run.schema.kind != "table":
        return [row.ravel().tolist() for row in features]
    raw = run.schema.raw(features)
    columns = {
        name: [v if isinstance(v, str) or np.isfinite(v) else None for v in values[:, 0].tolist()]
        for name, values in raw.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_computes_what_the_run_does(browser, pages, name):
    """Probabilities agree to 1e-5, of held-out rows and of made-up ones."""
    exported, run, features = pages[name]
    browser.show(exported.path)
    made_up = run.schema.made_up(60, np.random.default_rng(0))
    for rows in (features, made_up):
        found = browser.run(
            READ + f"return {json.dumps(plainly(run, rows))}.map((row) => [...Luce.softmax("
            "Luce.logits(model, Luce.encode(model.schema, row)), model.temperature)])"
        )
        np.testing.assert_allclose(np.array(found), run.predict_proba(rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["dense", "text", "array", "digits", "colours"])
def test_the_page_opens_without_an_error(browser, pages, name, width, dark):
    """Nothing on the console, nothing fetched, nothing wider than the screen."""
    browser.show(pages[name][0].path, width, dark=dark)
    assert browser.errors() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.run("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", ["dense", "text", "array", "digits"])
@needs_axe
def test_the_page_is_accessible(browser, pages, name):
    """axe-core finds no violation, light or dark: labels, roles, contrast."""
    for dark in (False, True):
        browser.show(pages[name][0].path, dark=dark)
        assert browser.violations() == []


def test_tables_and_small_images_are_under_a_megabyte(pages):
    """What makes a page larger is said where it is."""
    sizes = {name: exported.bytes for name, (exported, _, _) in pages.items()}
    assert max(sizes.values()) < 1_000_000, sizes
    assert not any(exported.notes for exported, _, _ in pages.values())


def test_a_large_page_says_so(run_of, tmp_path, monkeypatch):
    """Its weights are named, and what makes them fewer."""
    monkeypatch.setattr("luce.export.html_file.LARGE", 10_000)
    (note,) = run_of("array", "mlp").export(tmp_path / "page.html").notes
    assert re.search(r"0\.\d MB, 0\.\d MB of them weights and terms.*luce distil", note)


def test_a_page_that_no_browser_opens_is_refused(run_of, tmp_path, monkeypatch):
    """The message names the format that has no such limit."""
    monkeypatch.setattr("luce.export.html_file.LARGEST", 10_000)
    with pytest.raises(ArgumentError, match=r"may have 10,000\. .* to='onnx'"):
        run_of("array", "mlp").export(tmp_path / "page.html")


SHOWN = "return document.getElementById('said').textContent"


def test_the_form_answers(browser, pages):
    """What is chosen changes the answer; temperature flattens it, a button takes that back."""
    exported, _, _ = pages["dense"]
    browser.show(exported.path)
    before = browser.run(SHOWN)
    browser.run("""
        const labels = [...document.querySelectorAll('label')];
        const field = labels.find((each) => each.textContent === 'age').control;
        field.value = field.valueAsNumber > 40 ? 5 : 90;
        field.dispatchEvent(new Event('input', { bubbles: true }));
    """)
    after = browser.run(SHOWN)
    assert after != before
    slider = "const t = document.getElementById('temperature');"
    browser.run(slider + "t.value = t.max; t.dispatchEvent(new Event('input', { bubbles: true }));")
    hot = [float(each) for each in re.findall(r"[\d.]+", browser.run(SHOWN))]
    assert 33.3 <= hot[0] < float(re.findall(r"[\d.]+", after)[0])
    browser.run("document.getElementById('reset').click()")
    assert browser.run(SHOWN) == after


def test_what_columns_add_is_the_logit(browser, pages):
    """Over all columns, what each adds and the intercept are the logits less their mean."""
    exported, run, features = pages["dense"]
    browser.show(exported.path)
    row = json.dumps(plainly(run, features[:1])[0])
    added = browser.run(
        READ + f"return Luce.contributions(model, Luce.encode(model.schema, {row}))"
        ".map(({ name, adds }) => [name, [...adds]])"
    )
    assert [name for name, _ in added] == [column.name for column in run.schema.used]
    total = np.sum([adds for _, adds in added], axis=0) + run.estimator.intercept_
    encoded, _ = run.schema.encode(features[:1])
    logits = run.classifier.log_probabilities(encoded)[0]
    np.testing.assert_allclose(total - total.mean(), logits - logits.mean(), atol=1e-4)


def test_the_set_is_the_conformal_one(browser, pages):
    """The classes that a page marks are those of `luce predict --sets`."""
    exported, run, features = pages["dense"]
    browser.show(exported.path)
    for coverage in (0.5, 0.8, 0.95):
        found = browser.run(
            READ + f"return {json.dumps(plainly(run, features))}.map((row) => Luce.conformal("
            "Luce.softmax(Luce.logits(model, Luce.encode(model.schema, row)), model.temperature), "
            f"model.scores, {coverage}))"
        )
        wanted = run.calibration.sets(coverage).predict_sets(run.predict_proba(features))
        assert found == wanted.tolist()


DRAW = """
    const canvas = document.getElementById('canvas');
    canvas.setPointerCapture = () => {};  // which only a pointer that is there can be given
    const box = canvas.getBoundingClientRect();
    const send = (type, [x, y]) => canvas.dispatchEvent(new PointerEvent(type, {
      clientX: box.left + x * box.width, clientY: box.top + y * box.height,
      buttons: 1, bubbles: true,
    }));
    const points = %s;
    send('pointerdown', points[0]);
    points.slice(1).forEach((point) => send('pointermove', point));
"""


def test_a_drawn_digit_is_seen(browser, pages):
    """A ring is a 0; what the model sees fills its picture; clearing asks to draw again."""
    browser.show(pages["digits"][0].path)
    assert browser.run("return document.getElementById('answer').hidden")
    turns = np.linspace(0, 2 * np.pi, 40)
    ring = np.stack([0.45 + 0.12 * np.cos(turns), 0.55 + 0.2 * np.sin(turns)], axis=1)
    browser.run(DRAW % json.dumps(ring.tolist()))
    assert browser.run(SHOWN).startswith("0,")
    seen = browser.run(
        "const seen = document.querySelector('.seen');"
        "return [...seen.getContext('2d').getImageData(0, 0, 8, 8).data]"
    )
    pixels = np.array(seen).reshape(8, 8, 4)[:, :, 0]
    assert min(pixels[0].max(), pixels[-1].max()) > 60
    assert pixels[3:5, 3:5].max() < 60
    browser.run("document.querySelector('button').click()")
    assert browser.run("return document.getElementById('answer').hidden")


def test_the_canvas_can_be_drawn_on_by_keyboard(browser, pages):
    """Arrows move the pen, the space bar puts it down."""
    browser.show(pages["digits"][0].path)
    keys = [" ", *["ArrowDown"] * 6, " "]
    browser.run(
        "const canvas = document.getElementById('canvas');"
        f"{json.dumps(keys)}.forEach((key) => canvas.dispatchEvent("
        "new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true })))"
    )
    assert not browser.run("return document.getElementById('answer').hidden")


def test_names_cannot_end_the_script(browser, tmp_path):
    """What a table calls its columns and classes is text, not markup."""
    hostile = "</script><img src=x onerror=alert(1)>"
    frame = pl.DataFrame({hostile: [1.0, 2.0, 3.0, 4.0] * 20, "y": [hostile, "<b>"] * 40})
    frame = frame.with_columns(b=pl.Series([f"{hostile}{i % 2}" for i in range(80)]))
    run = luce.train(frame, target="y", model="linear", out=tmp_path)
    path = run.export(tmp_path / "page.html", source=frame).path
    browser.show(path)
    assert browser.errors() == []
    assert browser.run("return document.querySelectorAll('img, b').length") == 0
    assert hostile in browser.run("return document.getElementById('bars').textContent")


def test_the_page_knows_all_spellings(browser, pages):
    """The words for missing, true and false are Python's."""
    browser.show(pages["dense"][0].path)
    column = {"kind": "boolean", "name": "x", "fill": 0, "indicator": True, "mean": 0, "scale": 1}
    words = [*MISSING_WORDS, *TRUE_WORDS, *FALSE_WORDS]
    words += [word.upper() for word in words]
    found = browser.run(
        f"const schema = {{ kind: 'table', columns: [{json.dumps(column)}] }};"
        f"return {json.dumps(words)}.map((x) => [...Luce.encode(schema, {{ x }})])"
    )
    wanted = [[0, 1]] * len(MISSING_WORDS) + [[1, 0]] * len(TRUE_WORDS)
    assert found == (wanted + [[0, 0]] * len(FALSE_WORDS)) * 2
