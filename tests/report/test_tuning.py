"""The search on the page: the best so far, slices, importance, and the table of folds."""

import itertools
import re

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

import luce
from luce.report import figures, slices
from luce.report.tuning import tuning


def trial(number, options, losses, *, state="complete", model="mlp"):
    """Return a trial as tuning.json has it."""
    whole = state == "complete"
    return {
        "number": number,
        "model": model,
        "options": options,
        "state": state,
        "folds": [{"log_loss": loss, "accuracy": 0.5, "seconds": 2.0} for loss in losses],
        "log_loss": float(np.mean(losses)) if whole else None,
        "accuracy": 0.5 if whole else None,
        "seconds": 2.0 * len(losses),
        "error": None,
    }


@pytest.fixture
def content():
    return {
        "folds": 2,
        "grid": False,
        "space": {"mlp": {"l2": {"low": 1e-4, "high": 1, "log": True}, "hidden": [[4], [8, 4]]}},
        "seed": 0,
        "chosen_by": "the lowest mean log-loss of the folds",
        "best": 2,
        "trials": [
            trial(0, {"l2": 0.1, "hidden": [4]}, [0.6, 0.8]),
            trial(1, {"l2": 0.5, "hidden": [4]}, [0.9], state="pruned"),
            trial(2, {"l2": 0.01, "hidden": [8, 4]}, [0.2, 0.4]),
            trial(3, {"l2": 0.02, "hidden": [8, 4]}, [0.3, 0.5]),
        ],
        "importance": {"mlp": {"hidden": 0.25, "l2": 0.75}},
    }


def test_the_best_so_far_counts_all_seconds(content):
    """Seconds add up over all trials; the best falls as better ones come."""
    progress = tuning(content)["progress"]
    assert progress["seconds"] == [4.0, 10.0, 14.0]
    assert progress["best"] == pytest.approx([0.7, 0.3, 0.3])


@pytest.mark.parametrize(
    ("searched", "log"),
    [
        ({"low": 0.0, "high": 0.5}, False),
        ({"low": 1e-4, "high": 0.5, "log": False}, False),
        ({"low": 1e-4, "high": 0.5, "log": True}, True),
        ([1e-4, 0.1, 0.5], True),
        ([0.3, 0.4, 0.5], False),
    ],
)
def test_a_range_is_drawn_as_it_was_searched(content, searched, log):
    """Only what is drawn on a logarithmic scale is shown on one, however near zero a value is."""
    content["space"] = {"mlp": {"l2": searched}}
    values = searched if isinstance(searched, list) else [1e-4, 0.1, 0.5]
    content["trials"] = [trial(i, {"l2": value}, [0.5, 0.6]) for i, value in enumerate(values)]
    assert [each["log"] for each in tuning(content)["slices"]] == [log]


def test_slices_are_of_complete_trials(content):
    """Each option that had several values has one, numbers as numbers and others as words."""
    first, second = tuning(content)["slices"]
    assert (first["option"], first["log"], first["values"]) == ("l2", True, [0.1, 0.01, 0.02])
    assert second["values"] == ["4", "8,4", "8,4"]
    assert second["log_loss"] == pytest.approx([0.7, 0.3, 0.4])


def test_values_of_a_list_stand_as_the_list_has_them(content):
    """On the axis of a slice, values are in the space's order, not in the order of trials."""
    content["space"]["mlp"]["hidden"] = [[8, 4], [4]]
    second = tuning(content)["slices"][1]
    assert second["values"] == ["8,4", "8,4", "4"]
    assert second["log_loss"] == pytest.approx([0.3, 0.4, 0.7])


@pytest.mark.parametrize(
    "ends",
    [(0.00121, 0.0498), (1e-4, 0.02), (0.02, 0.09), (0.5, 4.0), (1e-6, 100.0), (0.031, 0.07)],
)
def test_numbers_of_a_logarithmic_axis_stand_apart(ends):
    """Over few decades and many, at least two numbers are written, and none on another."""
    values = {"values": list(ends), "log": True, "log_loss": [0.5, 0.6]}
    with rc_context(figures.STYLE):
        axes = Figure(figsize=(figures.WIDTH, 2.9)).add_subplot()
        slices.draw_slice(axes, {"model": "mlp", "option": "learning_rate", **values})
        axes.figure.canvas.draw()
    low, high = axes.get_xlim()
    labels = [
        label
        for minor in (False, True)
        for place, label in zip(
            axes.get_xticks(minor=minor), axes.get_xticklabels(minor=minor), strict=True
        )
        if low <= place <= high and label.get_text()
    ]
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
    assert len(boxes) >= 2
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_candidates_are_ranked_with_their_folds(content):
    """The best first, those without all folds last; the most important option first."""
    found = tuning(content)
    assert [each["number"] for each in found["trials"]] == [2, 3, 0, 1]
    assert found["trials"][0]["folds"] == [0.2, 0.4]
    assert [each["option"] for each in found["importance"]] == ["l2", "hidden"]


def test_the_page_grows_no_longer_than_some_trials(content):
    """Of thousands of trials, the table has twenty and each picture a few hundred points."""
    content["trials"] += [
        trial(number, {"l2": 1 / number, "hidden": [4]}, [0.9, 0.9]) for number in range(4, 3000)
    ]
    found = tuning(content)
    assert (found["total"], len(found["trials"])) == (3000, 20)
    assert len(found["progress"]["seconds"]) <= 500
    assert len(found["slices"][0]["values"]) <= 500


def test_a_run_that_was_searched_for_shows_it(tmp_path):
    """The page has the section, in the contents too, a picture for each option; others have not."""
    X = np.random.default_rng(0).normal(size=(120, 3))
    data = (X, (X[:, 0] > 0).astype(int))
    run = luce.tune(data, grid={"C": [0.01, 1.0]}, folds=2, out=tmp_path)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert '<a href="#tuning">' in page
    section = re.search(r'<section id="tuning".*?</section>', page, re.DOTALL)[0]
    assert section.count("<svg") == 2
    assert "2 candidates, every cell of a grid" in section
    plain = luce.train(data, model="linear", name="plain", out=tmp_path)
    assert "#tuning" not in (plain.path / "report.html").read_text(encoding="utf-8")


def test_names_on_the_page_are_text(tmp_path, content, make_summary):
    """Whatever a tuning.json says is shown as text, never as markup."""
    from luce.report import Report

    nasty = "<script>alert(1)</script>"
    for each in content["trials"]:
        each["options"] = {nasty: nasty, "hidden": [nasty]}
    content["space"] = {nasty: {"hidden": [[4]]}}
    content["importance"] = {nasty: {nasty: 1.0}}
    summary = make_summary(np.eye(3), [0, 1, 2], ["a", "b", "c"])
    assert nasty not in Report({**summary, "tuning": tuning(content)}).html
