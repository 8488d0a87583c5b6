"""The page: parsed with the standard library, it is whole, escaped and needs nothing else."""

import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from luce.report import Report

SECTIONS = (
    "figures",
    "curves",
    "confusion",
    "classes",
    "calibration",
    "sets",
    "wrong",
    "uncertain",
    "labels",
    "weights",
    "architecture",
    "repeat",
)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a page holds: elements with attributes, texts, and whether every element is closed."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module", params=["digits", "nasty", "hundred", "unlabelled", "nothing"])
def report(request, make_summary):
    """Reports of every kind."""
    match request.param:
        case "digits":
            return request.getfixturevalue("digits_report")
        case "nasty":
            return request.getfixturevalue("nasty_report")
        case "hundred":
            return request.getfixturevalue("hundred_report")
        case "unlabelled":
            return Report(make_summary([[1, 0], [0, 1]], None, ["a", "b"], role="source"))
        case _:
            return Report(make_summary([[1, 0]], ["a"], ["a", "b"], rows=False))


def test_the_page_is_well_formed_and_whole(report):
    """Every element is closed, ids are unique, every section and link target is there."""
    page = Page(report.html)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(SECTIONS) <= set(ids)
    links = [a["href"] for a in page.all("a")]
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    uses = [a["href"] for a in page.all("use")]
    assert all(use[1:] in ids for use in uses)


def test_headings_are_in_order(report):
    """One h1, and no level is skipped on the way down."""
    levels = [int(tag[1]) for tag, _ in Page(report.html).elements if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_pictures_and_tables_can_be_heard(report):
    """Every picture has a text, every table a caption and headers with scope."""
    page = Page(report.html)
    assert all(picture.get("alt") for picture in page.all("img"))
    for svg in page.all("svg"):
        assert svg["role"] == "img"
        assert svg["aria-label"]
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    scrolled = [div for div in page.all("div") if "scroll" in (div.get("class") or "")]
    assert all(div["tabindex"] == "0" and div["aria-label"] for div in scrolled)


def test_nothing_is_fetched(report):
    """No address of a network is in the page, nor anything that loads a file."""
    html = report.html
    assert "http://" not in html
    assert "https://" not in html
    page = Page(html)
    assert not page.all("link")
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in page.all("img"))
    assert not any("src" in script for script in page.all("script"))
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    policy = next(meta for meta in page.all("meta") if "http-equiv" in meta)
    assert policy["content"].startswith("default-src 'none'")


def test_names_are_escaped(nasty_report):
    """Classes, columns and values that look like markup come out as the text they are."""
    page = Page(nasty_report.html)
    text = " ".join(page.text)
    names = ["<script>alert(1)</script>", '"quoted" & co', "&amp;", "中文类别", "עברית", "🦊 fox"]
    for each in [*names, "<b>x</b>", 'a & "b"', "颜色", "<i>"]:
        assert each in text
    assert not page.all("script")
    assert not page.all("b")
    assert not page.all("i")


def test_names_in_the_zoomable_matrix_cannot_end_its_script(hundred_report):
    """The names are JSON inside a script element, and come back as they were."""
    html = hundred_report.html
    data = re.search(r'<script type="application/json" id="matrix-data">(.*?)</script>', html)
    names = json.loads(data.group(1))["names"]
    assert names == hundred_report.summary["confusion"]["names"]
    assert "species 00 <script>alert(1)</script>" in names
    assert "<" not in data.group(1)
    assert len(Page(html).all("script")) == 2


def test_a_page_without_matrix_picture_has_no_script(digits_report):
    """Up to thirty classes nothing on the page runs."""
    assert not Page(digits_report.html).all("script")


def test_thirty_classes_have_a_table_of_them_all(make_summary):
    """The largest table has a header for each line and column, and row percents."""
    names = [f"class {k:02d}" for k in range(30)]
    html = Report(make_summary(np.eye(30) * 3, names, names)).html
    table = html[html.index('<table class="matrix') :]
    table = Page(table[: table.index("</table>") + 8])
    assert len(table.all("th")) == 61
    assert len(table.all("td")) == 900


def test_the_same_run_gives_the_same_page(nasty_run, nasty_report):
    """Nothing in the page depends on the time or on chance."""
    assert nasty_run.report().html == nasty_report.html


def test_the_page_of_digits_is_small(digits_report):
    """A few hundred kilobytes: the issue allows three million bytes for MNIST."""
    assert len(digits_report.html.encode()) < 400_000


def test_a_notebook_shows_it_in_a_frame(nasty_report):
    """The whole page is the frame's source, escaped once."""
    frame = Page(nasty_report._repr_html_())
    (attributes,) = frame.all("iframe")
    assert attributes["srcdoc"] == nasty_report.html


def test_the_figures_follow_the_page(digits_report):
    """SVG colours are the page's properties, so that dark screens have others; fonts too."""
    svgs = re.findall(r"<svg.*?</svg>", digits_report.html, flags=re.DOTALL)
    assert len(svgs) == 4
    for svg in svgs:
        assert "var(--blue)" in svg
        assert "currentColor" in svg
        assert "font-family" not in svg
        assert not re.search(r"#(?:0072b2|d55e00|009e73|767676|111111)", svg)


def test_no_zero_has_a_minus(make_summary):
    """A column that is worth nothing costs +0.0 points of accuracy, not -0.0."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    labels = np.where(X[:, 0] > 0, "b", "a")
    coef = [[-4, 0], [4, 0]]
    page = Report(make_summary(X, labels, ["a", "b"], coef=coef, columns=["signal", "noise"])).html
    assert "+0.0 points" in page
    assert "-0.0 points" not in page
