"""The page in headless Chromium: no errors, every section, nothing wider than a phone."""

import pytest

from tests.browser import needs_browser

pytestmark = needs_browser

SECTIONS = 12


@pytest.fixture(scope="module")
def pages(tmp_path_factory, digits_report, nasty_report, hundred_report):
    """The pages on disk, by name."""
    folder = tmp_path_factory.mktemp("pages")
    reports = {"digits": digits_report, "nasty": nasty_report, "hundred": hundred_report}
    return {name: report.save(folder / f"{name}.html") for name, report in reports.items()}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["digits", "nasty", "hundred"])
def test_the_page_opens_without_an_error(browser, pages, name, width, dark):
    """No console message, all sections visible, nothing sticks out sideways, the right colours."""
    browser.show(pages[name], width, dark=dark)
    assert browser.errors() == []
    heights = browser.run(
        "return [...document.querySelectorAll('main > section')]"
        ".map((s) => s.getBoundingClientRect().height)"
    )
    assert len(heights) == SECTIONS
    assert min(heights) > 50
    assert browser.run("return document.documentElement.scrollWidth") <= width
    red, green, blue = browser.picture().getpixel((3, 3))
    assert (red + green + blue < 150) == dark
    broken = "[...document.images].filter((i) => !i.naturalWidth).length"
    assert browser.run(f"return {broken}") == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_table_that_is_cut_shows_that_it_scrolls(browser, pages, dark):
    """On a phone a shadow lies at the edge behind which a table goes on, and goes with its end."""
    browser.show(pages["digits"], 390, dark=dark)
    edges = """
        window.wide = window.wide ?? [...document.querySelectorAll('.scroll')]
            .find((e) => e.scrollWidth > e.clientWidth + 50 && !e.querySelector('.matrix'));
        wide.scrollLeft = %s;
        window.scrollTo({top: 0, behavior: 'instant'});
        window.scrollTo({top: wide.getBoundingClientRect().bottom - 400, behavior: 'instant'});
        const box = wide.getBoundingClientRect();
        const below = box.top + wide.clientHeight - 4;  // the table, above a scroll bar
        return [box.left + 1, box.right - 2, below, box.bottom + 3].map(Math.round);
    """

    def shades(scrolled):
        left, right, inside, outside = browser.run(edges % scrolled)
        picture = browser.picture()
        paper = picture.getpixel((right, outside))
        return [picture.getpixel((x, inside)) != paper for x in (left, right)]

    assert shades("0") == [False, True]
    assert shades("wide.scrollWidth") == [True, False]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["digits", "nasty"])
def test_text_stands_out(browser, pages, name, dark):
    """Text and background differ as WCAG 2 AA asks: 4.5 to 1, in every element."""
    browser.show(pages[name], dark=dark)
    worst = browser.faintest("main *, header *")
    assert worst[0] >= 4.5, worst


def test_nothing_of_the_names_runs(browser, pages):
    """Names that are markup make no element, and no dialogue opens."""
    browser.show(pages["nasty"])
    assert browser.run("return document.querySelectorAll('script, b, i').length") == 0
    assert browser.run("return document.body.innerText.includes('<script>alert(1)</script>')")


def test_the_matrix_can_be_read(browser, pages):
    """Every number of the table is inside its cell, and large enough to read."""
    browser.show(pages["digits"], 390)
    cells = browser.run("""return [...document.querySelectorAll('.matrix td')].map((c) =>
        [c.scrollWidth <= c.clientWidth + 1, parseFloat(getComputedStyle(c).fontSize)])""")
    assert len(cells) == 100
    assert all(fits and size >= 11 for fits, size in cells)


def test_the_large_matrix_is_drawn_and_zooms(browser, pages):
    """The picture has colours, says the marked cell, follows the keys, and zooms to the names."""
    browser.show(pages["hundred"])
    browser.run("document.getElementById('matrix').focus()")
    colours = "new Set(new Uint32Array(document.getElementById('matrix').getContext('2d')"
    colours += ".getImageData(0, 0, 400, 400).data.buffer)).size"
    assert browser.run(f"return {colours}") > 3
    key = (
        "document.getElementById('matrix').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    )
    for name in ("ArrowDown", "ArrowRight"):
        browser.run(key % name)
    said = browser.run("return document.getElementById('matrix-cell').textContent")
    assert "species 01" in said
    assert "is taken for itself" in said
    before = browser.run("return document.getElementById('matrix').toDataURL()")
    for _ in range(4):
        browser.run("document.getElementById('zoom-in').click()")
    assert browser.run("return document.getElementById('matrix').toDataURL()") != before
    browser.run("document.getElementById('zoom-all').click()")
    assert browser.run("return document.getElementById('matrix').toDataURL()") == before
    assert browser.errors() == []


def test_the_page_prints_every_detail(browser, pages):
    """Printing opens what is folded on the screen and leaves out what only a screen can do."""
    browser.show(pages["digits"])
    visible = "return document.querySelector('details table').checkVisibility()"
    assert not browser.run(visible)
    browser.chrome("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.run(visible)
    assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
