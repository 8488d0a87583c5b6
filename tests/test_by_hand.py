"""docs/softmax-by-hand.html in headless Chromium: its numbers are right, and it shows no error."""

from pathlib import Path

import pytest

import luce
from tests.browser import needs_axe, needs_browser

PAGE = Path(__file__).parents[1] / "docs" / "softmax-by-hand.html"

pytestmark = needs_browser


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_without_an_error(browser, width, dark):
    """No console message, nothing sticks out sideways, and the right colours."""
    browser.show(PAGE, width, dark=dark)
    assert browser.errors() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert (sum(browser.picture().getpixel((2, 2))) < 150) == dark


@needs_axe
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_accessible(browser, width, dark):
    """axe-core finds no violation: labels, roles, contrast."""
    browser.show(PAGE, width, dark=dark)
    assert browser.violations() == []


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_its_softmax_is_ours(browser, temperature):
    """The page's probabilities are `luce.softmax` of the same scores."""
    browser.show(PAGE)
    z = [3.5, -2.25, 800.0, 799.0]
    found = browser.run(f"return softmax({z}, {temperature})")
    assert found == pytest.approx(luce.softmax(z, dim=0, temperature=temperature).tolist())


@pytest.mark.parametrize("name", ["softmax", "logistic", "hinge", "squared"])
def test_each_gradient_is_that_of_its_loss(browser, name):
    """The arrows are the loss's central differences, for each score and each true class."""
    browser.show(PAGE)
    pairs = browser.run(f"""
        const {{ loss, gradient }} = LOSSES["{name}"], h = 1e-5, found = [];
        for (const z of [[2.5, 1, -1], [-6, 6, 5.5], [0.3, 0.1, 0.2]]) for (const y of K) {{
          const g = gradient(z, y);
          for (const i of K) {{
            const to = (d) => z.map((v, j) => j === i ? v + d : v);
            found.push([g[i], (loss(to(h), y) - loss(to(-h), y)) / (2 * h)]);
          }}
        }}
        return found;""")
    assert len(pairs) == 27
    for analytic, numeric in pairs:
        assert analytic == pytest.approx(numeric, abs=1e-8, rel=1e-6)


@pytest.mark.parametrize(
    ("constant", "said"), [(0, "agree"), (900, "overflows"), (-900, "underflows")]
)
def test_a_constant_breaks_the_naive_formula_alone(browser, constant, said):
    """Added to all scores it changes no probability; the formula as it is written breaks."""
    browser.show(PAGE)
    right = (
        "return [...document.querySelectorAll('#naive td:last-child')].map((c) => c.textContent)"
    )
    before = browser.run(right)
    browser.run(
        f"const c = document.getElementById('c'); c.value = {constant};"
        "c.dispatchEvent(new Event('input', {bubbles: true}));"
    )
    assert browser.run(right) == before
    assert said in browser.run("return document.getElementById('verdict').textContent")


def test_steps_against_the_gradient_lower_the_loss(browser):
    """The button moves the scores so that the loss falls."""
    browser.show(PAGE)
    loss = "const {z, y} = state(); return LOSSES.softmax.loss(z, y)"
    before = browser.run(loss)
    browser.run("for (let i = 0; i < 5; i++) document.getElementById('step').click()")
    assert browser.run(loss) < before
