"""The documents name what there is: links, commands, the files and fields of a run folder."""

import csv
import datetime as dt
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

import luce
from tests.help import PAGE, commands

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
# Objects whose keys are names that the page does not list one by one.
OPEN = re.compile(
    r"^(files|bytes|leaderboard\[\]\.weights|space|importance|trials\[\]\.options)\..*"
)
SEARCHED = {"C": {"low": 0.01, "high": 1}, "fit_intercept": [True, False]}
PART = re.compile(r"^(train|validation|test)(?=\.)")


def prose(page):
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and Python-Markdown both make them."""
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", each) for each in HEADING.findall(prose(page)))
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", each.lower()).strip()) for each in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Each relative link of a page is to a file that is there (in the site too), and a heading."""
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert page.parent in (ROOT, target.parent), f"{link} is not in the site"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_each_page_is_in_the_site_and_in_its_index():
    """mkdocs.yml and docs/index.md name each page, so that none is found by chance alone."""
    site, index = (ROOT / "mkdocs.yml").read_text(), (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in site
        assert page.name == "index.md" or f"({page.name})" in index


def test_each_command_has_its_help_on_the_page():
    """Each is there; test_docs.py compares what stands below, `python -m tests.help` writes it."""
    page = PAGE.read_text(encoding="utf-8")
    for command in commands():
        assert f"## luce {command}\n" in page
        assert f"$ luce {command} --help\n" in page


def test_each_addition_from_outside_is_on_the_page():
    """docs/extending.md names each file of tests/extension/."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for path in (ROOT / "tests" / "extension").glob("test_*.py"):
        assert f"`tests/extension/{path.name}`" in page


def paths(content, at=""):
    """Yield the path of each field of plain data, as the page writes it."""
    if isinstance(content, dict):
        for name, value in content.items():
            path = f"{at}.{name}" if at else name
            yield path
            yield from paths(value, path)
    elif isinstance(content, list):
        for value in content:
            yield from paths(value, f"{at}[]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train on images, on tables with a column of each kind and a rare class, and on arrays."""
    folder = tmp_path_factory.mktemp("runs")
    draw, rows = np.random.default_rng(0), 400
    size = draw.normal(size=rows)
    days = [
        dt.date(2026, 1, 1) + dt.timedelta(days=int(day)) for day in draw.integers(0, 300, rows)
    ]
    table = pl.DataFrame(
        {
            "id": range(rows),
            "size": [None if i % 50 == 0 else f"{value:.3f}" for i, value in enumerate(size)],
            "colour": draw.choice(["red", "blue"], rows),
            "sold": draw.choice(["yes", "no"], rows),
            "day": [day.isoformat() for day in days],
            "label": np.where(size + 0.3 * draw.normal(size=rows) > 1.9, "rare", "usual"),
        }
    )
    table.write_csv(folder / "table.csv")
    words = ["red", "dry", "sour", "thin", "full", "rich", "soft", "light"]
    spoken = np.random.default_rng(1)
    texts = [" ".join(spoken.choice(words, 6)) for _ in range(rows)]
    texts = pl.DataFrame({"remark": texts, "label": spoken.choice(["a", "b"], rows)})
    array = (draw.normal(size=(300, 5)), draw.integers(3, size=300))
    weights = {"class_weight": {0: 1, 1: 2, 2: 1}}
    # Half linear, so that an average is the best.
    X = draw.normal(size=(300, 10)).astype(np.float32)
    y = 0.8 * X[:, :8].sum(axis=1) + 1.5 * np.sin(3 * X[:, 8]) + draw.logistic(size=300) > 0
    return [
        luce.train("digits", epochs=1, out=folder).path,
        luce.train("digits", model="mlp", epochs=1, name="mlp", out=folder).path,
        luce.train(
            folder / "table.csv", target="label", model="linear", Cs=(0.1, 1.0), out=folder
        ).path,
        luce.train(texts, target="label", model="linear", name="texts", out=folder).path,
        luce.train(array, model="linear", name="array", out=folder, **weights).path,
        luce.train(array, model="linear", name="sparse", l1_ratio=1.0, out=folder).path,
        luce.train(array, model="linear", name="pairs", link="ovo", out=folder).path,
        luce.train((X, (X[:, :3] > 0).astype(int)), model="linear", name="labels", out=folder).path,
        luce.tune(array, space=SEARCHED, trials=4, folds=2, name="tuned", out=folder).path,
        luce.train((X, y.astype(int)), name="average", out=folder).path,
        luce.distil(folder / "mlp", "digits", epochs=1, name="student", out=folder).path,
    ]


def section(name):
    """Return a section of docs/run-folder.md, with those below it."""
    page = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    return page.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_run_folders_have_the_files_that_the_page_names(runs):
    """Each file of real runs stands in the first table of docs/run-folder.md, and no other."""
    page = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    found = {str(f.relative_to(run).as_posix()) for run in runs for f in run.rglob("*.*")}
    found = {re.sub(r"(?<=checkpoints/)[\w-]+", "LABEL", name) for name in found}
    assert found == set(ROW.findall(page.split("\n## ")[0]))


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "schema.json",
        "calibration.json",
        "reference.json",
        "metrics.json",
        "tuning.json",
        "environment.json",
    ],
)
def test_json_files_have_the_fields_that_the_page_names(runs, name):
    """Each field of real runs stands in the file's table of docs/run-folder.md, and no other."""
    found = set()
    for run in runs:
        if (run / name).exists():
            found |= set(paths(json.loads((run / name).read_text(encoding="utf-8"))))
    found = {OPEN.sub(r"\1.NAME", PART.sub("PART", path)) for path in found}
    found = {path for path in found if not re.match(r"(request\.)?options\.", path)}
    assert found == set(ROW.findall(section(name)))


def test_options_of_the_models_are_those_that_the_page_names(runs):
    """config.json of each kind of model resolves the options that docs/run-folder.md lists."""
    text = section("config.json").split("### Options of the models")[1]
    linear, networks, average = (
        set(re.findall(r"`(\w+)`", part)) for part in text.split("- Of ")[1:]
    )
    configs = [json.loads((run / "config.json").read_text()) for run in runs]
    of_linear = set().union(*(c["options"] for c in configs if c["model"] == "linear"))
    assert of_linear == linear - {"linear"}
    (parts,) = (c["options"]["parts"] for c in configs if c["model"] == "average")
    assert set().union({"parts"}, *parts) == average - {"average"}
    network = luce.models.MODELS["mlp"]
    assert set(network.resolved(network.make({}))) == networks - {"mlp", "cnn"}


def test_history_has_the_columns_that_the_page_names(runs):
    """The first line of history.csv is the table of docs/run-folder.md."""
    for run in runs:
        with (run / "history.csv").open(encoding="utf-8", newline="") as file:
            assert next(csv.reader(file)) == ROW.findall(section("history.csv"))


def test_tensors_have_the_names_that_the_page_has(runs):
    """Those of model.safetensors are there, up to their number; so are the parts of checkpoints."""
    for run in runs:
        for file in run.rglob("*.safetensors"):
            with safe_open(file, "numpy") as tensors:
                names, metadata = list(tensors.keys()), tensors.metadata()
            if file.name == "model.safetensors":
                text = section("model.safetensors")
                # The parts of an average are named by their labels.
                names = [re.sub(r"\d+", "1", name.split("/")[-1]) for name in names]
            elif file.name == "schema.safetensors":
                text = section("schema.safetensors") + section("model.safetensors")
            else:
                text = section("checkpoints")
                names = [f"{name.split('.')[0]}.…" for name in names]
            for name in (*names, *metadata):
                assert f"`{name}`" in text
