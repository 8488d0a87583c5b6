"""The page that `luce serve` opens to, in headless Chromium."""

import math

import pytest

import luce
from tests.browser import needs_axe, needs_browser
from tests.serving.conftest import Server

pytestmark = needs_browser


def circle(x, y, wide, high, start=-90, turn=360):
    """Return points on an ellipse, from an angle on."""
    angles = [math.radians(start + turn * i / 16) for i in range(17)]
    return [(x + wide * math.cos(a), y + high * math.sin(a)) for a in angles]


# How a hand writes the digits: strokes, each a list of points between 0 and 1.
STROKES = {
    0: [circle(0.5, 0.5, 0.22, 0.33)],
    1: [[(0.42, 0.28), (0.54, 0.15), (0.52, 0.85)]],
    2: [[*circle(0.48, 0.33, 0.2, 0.17, 190, 190), (0.3, 0.82), (0.42, 0.78), (0.74, 0.82)]],
    3: [[*circle(0.47, 0.32, 0.18, 0.17, 200, 250), *circle(0.47, 0.66, 0.21, 0.18, -90, 240)]],
    4: [[(0.4, 0.15), (0.28, 0.55), (0.72, 0.55)], [(0.64, 0.2), (0.6, 0.88)]],
    5: [[(0.7, 0.17), (0.38, 0.17), (0.35, 0.45), *circle(0.48, 0.63, 0.2, 0.2, -110, 250)]],
    6: [[(0.6, 0.14), (0.42, 0.35), (0.34, 0.62), *circle(0.5, 0.66, 0.17, 0.17, 180, -360)]],
    7: [[(0.28, 0.2), (0.7, 0.2), (0.56, 0.5), (0.46, 0.86)]],
    8: [[*circle(0.5, 0.32, 0.15, 0.15, 90, -360), *circle(0.5, 0.66, 0.19, 0.18, -90, 360)]],
    9: [[*circle(0.48, 0.34, 0.17, 0.18, 0, -360), (0.65, 0.34), (0.6, 0.6), (0.52, 0.86)]],
}


@pytest.fixture(scope="module")
def served(runs):
    """A server of runs on a table, on images and on a matrix."""
    started = Server(runs / "people", runs / "digits", runs / "matrix", "--sets", "0.9")
    yield started
    started.stop()


def open_page(browser, served, name=None, width=1280, *, dark=False):
    browser.show(f"{served.address}/", width, dark=dark)
    browser.pause("!document.getElementById('all').hidden")
    if name is not None:
        browser.run(
            f"const m = document.getElementById('models'); m.value = '{name}';"
            "m.dispatchEvent(new Event('change'));"
        )
        browser.pause(f"document.getElementById('title').textContent === '{name}'")


def draw(browser, strokes):
    """Draw with the mouse; return what the page says."""
    browser.run("document.getElementById('clear').click()")
    left, top, size = browser.run(
        "const pad = document.getElementById('pad'); pad.scrollIntoView({block: 'center'});"
        "const box = pad.getBoundingClientRect(); return [box.left, box.top, box.width];"
    )
    moves = []
    for stroke in strokes:
        for i, (x, y) in enumerate(stroke):
            place = {"x": round(left + x * size), "y": round(top + y * size)}
            moves.append({"type": "pointerMove", "duration": 0 if i == 0 else 5, **place})
            if i == 0:
                moves.append({"type": "pointerDown", "button": 0})
        moves.append({"type": "pointerUp", "button": 0})
    mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}}
    browser.call("/actions", {"actions": [{**mouse, "actions": moves}]})
    # The last request is sent 30 ms after the last move; then the page is quiet.
    browser.pause("performance.now() - (window.moved ??= performance.now()) > 300 && said !== null")
    browser.run("delete window.moved")
    return browser.run("return document.getElementById('answer').textContent")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["people", "digits", "matrix"])
def test_the_page_opens_without_an_error(browser, served, name, width, dark):
    """No console message, nothing sticks out sideways, and the right colours."""
    open_page(browser, served, name, width, dark=dark)
    if name == "digits":
        draw(browser, STROKES[3])
    browser.pause("document.getElementById('bars').children.length > 1")
    assert browser.errors() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert (sum(browser.picture().getpixel((2, 2))) < 150) == dark


def test_every_control_has_a_name(browser, served):
    """What can be operated has a name for a screen reader, and no two have one id."""
    for name in ("people", "digits", "matrix"):
        open_page(browser, served, name)
        nameless = browser.run("""
            return [...document.querySelectorAll('input, select, textarea, button, canvas, a')]
              .filter((e) => e.checkVisibility() && !(e.labels?.length || e.ariaLabel
                || e.textContent.trim())).map((e) => e.outerHTML);""")
        assert nameless == []
        ids = browser.run("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(set(ids)) == len(ids)


@needs_axe
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["people", "digits", "matrix"])
def test_the_page_is_accessible(browser, served, name, width, dark):
    """axe-core finds no violation: labels, roles, contrast."""
    open_page(browser, served, name, width, dark=dark)
    if name == "digits":
        draw(browser, STROKES[3])
    browser.pause("document.getElementById('bars').children.length > 1")
    assert browser.violations() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out(browser, served, dark):
    """Text and background differ as WCAG 2 AA asks: 4.5 to 1."""
    open_page(browser, served, "people", dark=dark)
    browser.pause("document.getElementById('bars').children.length > 1")
    worst = browser.faintest("body *")
    assert worst[0] >= 4.5, worst


def test_the_form_gives_what_the_run_predicts(browser, served, runs):
    """The page shows the probabilities of the row in its form, and follows a change."""
    open_page(browser, served, "people")
    browser.run(
        "const age = document.querySelector('[name=age]'); age.value = '88';"
        "age.dispatchEvent(new Event('input', {bubbles: true}));"
    )
    browser.pause("content.age === 88 && said !== null")
    browser.pause("(window.moved ??= performance.now()) + 300 < performance.now()")
    row, shown = browser.run("return [content, said.probabilities[0]]")
    import polars as pl

    run = luce.load_run(runs / "people")
    assert shown == pytest.approx(run.predict_proba(pl.DataFrame([row]))[0].tolist(), rel=1e-5)
    best = run.predict(pl.DataFrame([row]))[0]
    assert browser.run("return document.getElementById('answer').textContent").startswith(best)


def test_the_temperature_rescales_the_logits(browser, served):
    """At temperature t the bars are softmax(log p / t)."""
    open_page(browser, served, "people")
    browser.pause("said !== null")
    before, after = browser.run(
        "return [said.probabilities[0], tempered(said.probabilities[0], 2)]"
    )
    raised = [p**0.5 for p in before]
    assert after == pytest.approx([p / sum(raised) for p in raised])


def test_it_is_drawn_on_with_keys(browser, served):
    """Space lowers the pen, arrows draw, and the pen's place is said."""
    open_page(browser, served, "digits")
    key = "document.getElementById('pad').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}));"
    browser.run(key % " " + key % "ArrowDown" * 6)
    browser.pause("said !== null")
    assert "Pen down" in browser.run("return document.getElementById('pen').textContent")
    browser.run(key % "Delete")
    assert browser.run("return document.getElementById('bars').children.length") == 0


def test_a_token_is_asked_for(browser, runs):
    """With a token the page shows nothing of the run before it is given."""
    started = Server(runs / "people", environment={"LUCE_TOKEN": "secret"})
    try:
        browser.show(f"{started.address}/")
        browser.pause("!document.getElementById('login').hidden")
        assert "people" not in browser.run("return document.body.innerText")
        browser.run(
            "document.getElementById('token').value = 'secret';"
            "document.getElementById('login').requestSubmit();"
        )
        browser.pause("document.getElementById('bars').children.length > 1")
        browser.errors()  # the first 401 is one
    finally:
        started.stop()


def test_drawn_digits_are_recognised(browser, data_dir, tmp_path):
    """Of ten digits that a mouse draws, at least eight are what they are."""
    luce.train(str(data_dir / "mnist"), model="mlp", epochs=2, out=tmp_path, name="mnist")
    started = Server(tmp_path / "mnist")
    try:
        open_page(browser, started)
        found = {digit: draw(browser, strokes)[:1] for digit, strokes in STROKES.items()}
    finally:
        started.stop()
    right = [digit for digit, said in found.items() if said == str(digit)]
    assert len(right) >= 8, found
