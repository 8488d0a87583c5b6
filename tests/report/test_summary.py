"""The report's dict: figures against tiny cases done by hand, bad input, and its size."""

import json
import re

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from luce.errors import ArgumentError
from luce.report import Report
from luce.report.curves import curves
from luce.report.examples import _value

# Logits are the features themselves: log 3 gives three to one.
L3 = np.log(3.0)


def test_figures_of_four_rows(make_summary):
    """Accuracy, log-loss, baseline and matrix of four rows are those done by hand."""
    X = [[L3, 0], [L3, 0], [0, L3], [0, L3]]  # says a, a, b, b, each with 3/4
    summary = make_summary(X, ["a", "a", "b", "a"], ["a", "b"])
    figures = summary["figures"]["headline"]["figures"]
    assert figures["accuracy"]["value"] == 0.75
    assert figures["accuracy"]["interval"]["method"] == "Wilson"
    expected = -(3 * np.log(0.75) + np.log(0.25)) / 4
    assert figures["log_loss"]["value"] == pytest.approx(expected, rel=1e-6)
    assert summary["figures"]["baseline"] == {"class": "a", "accuracy": 0.75}
    assert summary["confusion"]["matrix"] == [[2, 1], [0, 1]]
    assert summary["confusion"]["pairs"] == [
        {"true": "a", "predicted": "b", "count": 1, "share": pytest.approx(1 / 3)}
    ]
    rows = {row["class"]: row for row in summary["classes"]["rows"]}
    assert rows["a"]["precision"] == 1.0
    assert rows["a"]["recall"] == pytest.approx(2 / 3)
    assert rows["b"]["precision"] == 0.5
    (wrong,) = summary["wrong"]["rows"]
    assert (wrong["row"], wrong["given"], wrong["predicted"]) == (3, "a", "b")
    assert wrong["probability"] == pytest.approx(0.75)


def test_calibration_before_and_after(make_summary):
    """The reliability diagram has both sides of the temperature, with their ECE."""
    # It says 0.9, and is right three times in four. T is held at 1 with a strength of 2: of what it
    # says too much, 80 rows with a margin of 2 ln 3 leave 2 / (80 · 2 ln 3).
    X, y = [[2 * L3, 0]] * 80, ["a", "a", "a", "b"] * 20
    left = 1 / (80 * L3)
    codes = [0, 0, 0, 1] * 20
    summary = make_summary(X, y, ["a", "b"], calibration_rows=(X, codes))
    calibration = summary["calibration"]
    said = 0.75 + left
    assert calibration["temperature"] == pytest.approx(2 * L3 / np.log(said / (1 - said)))
    assert calibration["before"]["ece"] == pytest.approx(0.15)
    assert calibration["after"]["ece"] == pytest.approx(left, abs=1e-7)
    assert sum(calibration["after"]["bins"]["counts"]) == 80


def test_four_rows_tell_no_temperature_and_promise_no_small_sets(make_summary):
    """The same on four rows: too few to leave 1, and every class is in every set."""
    X = [[2 * L3, 0]] * 4
    summary = make_summary(X, ["a", "a", "a", "b"], ["a", "b"], calibration_rows=(X, [0, 0, 0, 1]))
    assert summary["calibration"]["temperature"] == 1.0
    # It was not taken from them, so nothing of it is chance.
    assert not any("temperature was fitted" in each["text"] for each in summary["findings"])
    table = {each["asked"]: each for each in summary["sets"]["table"]}
    # Five in four: no threshold can promise 90% from four rows.
    assert (table[0.9]["coverage"], table[0.9]["mean_size"]) == (1.0, 2.0)


def test_without_calibration_the_report_says_so(make_summary):
    """No validation rows: no temperature and no sets, and a sentence for each."""
    summary = make_summary([[1, 0], [0, 1]], ["a", "b"], ["a", "b"])
    assert summary["calibration"]["before"] is None
    assert "validation" in summary["calibration"]["note"]
    assert "validation" in summary["sets"]["absent"]


def test_no_rows_at_all(make_summary):
    """A run without test and validation rows still has its curves, weights and architecture."""
    summary = make_summary(
        [[1, 0], [0, 1]],
        ["a", "b"],
        ["a", "b"],
        rows=False,
        history=[{"epoch": "1", "loss": "0.5"}],
    )
    for section in ("figures", "confusion", "classes", "calibration", "wrong", "labels"):
        assert "held none out" in summary[section]["absent"]
    assert summary["curves"]["series"] == {"loss": [0.5]}
    assert summary["weights"]["kind"] == "features"


def test_no_labels(make_summary):
    """Without labels: what needs none is shown, the rest says why not."""
    summary = make_summary([[1, 0], [0, 1]], None, ["a", "b"], role="source")
    assert summary["scored"]["labelled"] is False
    for section in ("confusion", "classes", "calibration", "wrong", "labels", "importance"):
        assert "labels" in summary[section]["absent"]
    assert len(summary["uncertain"]["rows"]) == 2
    assert any("cannot show" in each["text"] for each in summary["findings"])


def test_classes_that_differ(make_summary):
    """Rows of unknown classes are counted, named and not scored; absent classes are named."""
    summary = make_summary(
        [[5, 0, 0], [0, 5, 0], [0, 5, 0]], ["a", "new", "new"], ["a", "b", "c"], role="source"
    )
    scored = summary["scored"]
    assert scored["new_classes"] == [{"class": "new", "rows": 2}]
    assert scored["missing_classes"] == ["b", "c"]
    assert scored["rows"] == 1
    assert summary["figures"]["headline"]["figures"]["accuracy"]["value"] == 1.0


def test_only_unknown_classes(make_summary):
    """If no label is known, the rows are as good as unlabelled, and the page names what is new."""
    summary = make_summary([[5, 0], [0, 5]], ["x", "y"], ["a", "b"], role="source")
    assert summary["scored"]["labelled"] is False
    assert summary["scored"]["new_classes_total"] == 2
    assert "absent" in summary["confusion"]


def test_row_numbers_are_those_of_the_source(make_summary):
    """Rows that are left out do not shift the numbers of those that are shown."""
    X = [[9, 0], [9, 0], [9, 0]]
    summary = make_summary(X, ["new", "a", "b"], ["a", "b"], role="source")
    assert [row["row"] for row in summary["wrong"]["rows"]] == [2]


def test_one_example(make_summary):
    """A single row gives a page, and a warning that it says little."""
    summary = make_summary([[3, 0]], ["a"], ["a", "b"])
    assert summary["figures"]["headline"]["rows"] == 1
    assert any("Only 1 row" in each["text"] for each in summary["findings"])


def test_certain_probabilities(make_summary):
    """Probabilities of exactly 0 and 1 stay finite, also where they are wrong, and are counted."""
    summary = make_summary([[2000, 0], [2000, 0]], ["a", "b"], ["a", "b"])
    figures = summary["figures"]
    assert figures["clipped"] == 1
    assert np.isfinite(figures["headline"]["figures"]["log_loss"]["value"])
    json.dumps(summary, allow_nan=False)


def test_a_class_that_is_never_predicted(make_summary):
    """It is named, in the matrix section and in the findings."""
    summary = make_summary([[3, 0], [3, 0]], ["a", "b"], ["a", "b"])
    assert summary["confusion"]["never_predicted"] == ["b"]
    assert any("never predicted" in each["text"] for each in summary["findings"])


def test_a_class_that_calibration_has_not_seen(make_summary):
    """A class absent from the calibration rows changes nothing but the guarantee."""
    summary = make_summary(
        [[3, 0, 0], [0, 3, 0], [0, 0, 3]],
        ["a", "b", "c"],
        ["a", "b", "c"],
        calibration_rows=([[3, 0, 0], [0, 3, 0]], [0, 1]),
    )
    assert summary["calibration"]["temperature"] > 0
    assert summary["sets"]["table"][0]["rows"] == 3


def test_curves_keep_ends_and_best():
    """Ten thousand epochs become a few hundred points, with the first, the last and the best."""
    history = [
        {"model": "mlp", "epoch": str(i), "loss": str(1 / i), "validation_loss": str(abs(i - 777))}
        for i in range(1, 10_001)
    ]
    found = curves(history, "mlp", {})
    assert len(found["steps"]) <= 201
    assert found["steps"][0] == 1
    assert found["steps"][-1] == 10_000
    assert found["best"] == {"step": 777.0, "by": "validation_loss", "value": 0.0}
    assert 777.0 in found["steps"]
    assert found["total"] == 10_000


def test_curves_of_another_candidate_are_left_out():
    """history.csv holds every candidate; only the chosen one is drawn."""
    history = [{"model": "mlp", "epoch": "1", "loss": "1"}, {"model": "cnn", "epoch": "1"}]
    assert curves(history, "mlp", {})["total"] == 1


def test_nan_in_the_history(make_summary):
    """What is not finite becomes a gap and is counted; the best is of the finite ones."""
    history = [
        {"epoch": "1", "loss": "2.0"},
        {"epoch": "2", "loss": "nan"},
        {"epoch": "3", "loss": "inf"},
        {"epoch": "4", "loss": "1.0"},
    ]
    summary = make_summary([[1, 0]], ["a"], ["a", "b"], history=history)
    assert summary["curves"]["series"]["loss"] == [2.0, None, None, 1.0]
    assert summary["curves"]["best"]["step"] == 4
    assert summary["curves"]["not_finite"] == 2
    assert any("not finite" in each["text"] for each in summary["findings"])
    json.dumps(summary, allow_nan=False)


def test_objective_and_gap():
    """Softmax regression's history gives the objective and the duality gap."""
    found = curves([{"objective": 2.0, "gap": 0.1}, {"objective": 1.0, "gap": 0.0}], None, {})
    assert found["series"] == {"objective": [2.0, 1.0], "gap": [0.1, 0.0]}
    assert found["best"]["by"] == "objective"


def test_no_history():
    """A missing history is said, not guessed."""
    assert "history.csv" in curves([], "mlp", {})["absent"]


def test_permutation_importance_finds_the_column_that_decides(make_summary):
    """A column without weight is worth exactly nothing; the one with all weight is first."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 3))
    summary = make_summary(
        X,
        np.where(X[:, 1] > 0, "b", "a"),
        ["a", "b"],
        coef=[[0, -4, 0], [0, 4, 0]],
        columns=["noise", "signal", "more noise"],
    )
    first, *others = summary["importance"]["columns"]
    assert first["name"] == "signal"
    assert first["log_loss"] > 1
    assert first["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert [each["log_loss"] for each in others] == [0.0, 0.0]


def test_too_many_columns_to_shuffle(make_summary):
    """Columns × classes beyond the budget are said to be too many, not worked on for minutes."""
    names = [f"c{k:04d}" for k in range(600)]
    summary = make_summary(np.eye(600), names, names)
    assert "too many" in summary["importance"]["absent"]


def test_weights_are_centred_and_ordered(make_summary):
    """The top features are those of the largest weight, less the mean over the classes."""
    summary = make_summary(
        [[1, 0, 0], [2, 1, 1]],
        ["a", "a"],
        ["a", "b"],
        coef=[[1, 5, 2], [1, 1, 4]],
        columns=["x", "y", "z"],
    )
    first = summary["weights"]["per_class"][0]["features"]
    assert [(each["name"], each["weight"]) for each in first] == [
        ("y", 2.0),
        ("z", -1.0),
        ("x", 0.0),
    ]


def test_binary_weights_are_split_between_the_classes(make_summary):
    """scikit-learn's single row of weights is half for the second class, half against the first."""
    from luce import models

    class Binary:
        coef_ = np.array([[2.0, -4.0]])

    assert models.explain(Binary()).array.tolist() == [[-1.0, 2.0], [1.0, -2.0]]


@pytest.mark.parametrize("classes", [31, 100, 1_500])
def test_many_classes_become_cells(make_summary, classes):
    """Above thirty classes the matrix is its largest cells, of at most a thousand classes."""
    codes = np.arange(3_000) % classes
    X = np.eye(classes)[codes]
    X[:50] = np.roll(X[:50], 1, axis=1)
    names = [f"c{k:04d}" for k in range(classes)]
    confusion = make_summary(X, np.array(names)[codes], names)["confusion"]
    assert confusion["kind"] == "picture"
    assert len(confusion["names"]) == min(classes, 1_000)
    assert len(confusion["cells"]) <= 10_000
    wrong = sum(count for i, j, count in confusion["cells"] if i != j)
    assert wrong == 50
    assert "matrix" not in confusion


def test_size_does_not_follow_the_rows(make_summary):
    """A hundred times the rows give a summary of about the same size."""
    generator = np.random.default_rng(0)
    sizes = []
    for rows in (1_000, 100_000):
        X = generator.normal(size=(rows, 4)) * 2
        codes = (X + generator.normal(size=X.shape)).argmax(axis=1)
        summary = make_summary(
            X, np.array(list("abcd"))[codes], list("abcd"), columns=["p", "q", "r", "s"]
        )
        assert len(summary["wrong"]["rows"]) == 12
        sizes.append(len(json.dumps(summary, allow_nan=False)))
    assert sizes[1] < 1.1 * sizes[0]


def test_names_are_cut_and_shown():
    """A name cannot fill the page, hide characters, or turn the direction of what follows."""
    from luce.report.text import name

    assert len(name("x" * 1_000_000)) == 60
    assert name("a\x00b\n") == "a\\x00b\\n"
    assert name("a\u202eb") == "a\\u202eb"
    assert name("👩‍👩‍👧 עברית 中文") == "👩‍👩‍👧 עברית 中文"


def test_in_memory_data_need_a_source(tmp_path):
    """A run on arrays cannot load them again: the error says what to give, and giving it works."""
    import luce

    X = np.random.default_rng(0).normal(size=(60, 2))
    y = (X[:, 0] > 0).astype(int)
    run = luce.train((X, y), model="linear", out=tmp_path)
    with pytest.raises(ArgumentError, match="give the data to report on"):
        run.report()
    assert run.report((X, y)).summary["scored"]["role"] == "test"
    assert (run.path / "report.html").exists()


FRAUD = np.array(["fine", "fraud"])
ABC = np.array(["a", "b", "c"])


def rare_rows(rows=2_000, members=20, seed=0):
    """Two features, of which the first tells the few rows of the second class from the others."""
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, 2))
    y = np.zeros(rows, int)
    y[:members] = 1
    X[:members, 0] += 3
    return X, y


def test_a_rare_class_has_its_thresholds(make_summary):
    """Of 1% of the rows the page says that accuracy is not the figure, and what is, as computed."""
    X, y = rare_rows()
    coef = [[0.0, 0.0], [2.0, 0.0]]
    content = make_summary(X, FRAUD[y], FRAUD.tolist(), coef)
    section = content["thresholds"]
    score = X @ np.array([2.0, 0.0])
    assert (section["class"], section["rows"], section["rare"]) == ("fraud", 20, True)
    assert section["average_precision"] == pytest.approx(average_precision_score(y, score))
    assert section["roc_auc"] == pytest.approx(roc_auc_score(y, score))
    words = " ".join(each["text"] for each in content["findings"])
    assert "Accuracy is not the figure to look at: “fraud” has 20 rows of 2,000 (1.00%)" in words
    assert "It ranks “fraud” above the rest: average precision" in words
    keys = [row["key"] for row in content["figures"]["rows"]]
    assert {"balanced_accuracy", "roc_auc", "average_precision"} <= set(keys)
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_a_rare_class_that_is_not_found(make_summary):
    """A model that ranks the rare class as chance would is called bad, however accurate it is."""
    X, y = rare_rows()
    content = make_summary(X[:, ::-1], FRAUD[y], FRAUD.tolist(), [[1.0, 0.0], [-1.0, 0.0]])
    texts = {each["text"]: each["level"] for each in content["findings"]}
    (found,) = [text for text in texts if "hardly ranks “fraud” above the rest" in text]
    assert texts[found] == "bad"


def test_the_curve_is_bounded_and_keeps_its_corners(make_summary):
    """Twenty thousand rows leave a few hundred points, with the area under them as computed."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(20_000, 2))
    y = (X[:, 0] + 2 * generator.normal(size=20_000) > 2).astype(int)
    section = make_summary(X, ABC[y], ["a", "b"], [[0.0, 0.0], [1.0, 0.0]])["thresholds"]
    curve = section["curve"]
    assert len(curve["recall"]) <= 302
    area = np.trapezoid(curve["recall"], curve["false_positive_rate"])
    assert area == pytest.approx(section["roc_auc"], abs=2e-3)
    assert not section["rare"]


def test_many_even_classes_have_no_thresholds(make_summary):
    """Three classes alike have no class to watch, and the page has no such section."""
    content = make_summary(np.eye(3), ["a", "b", "c"], ["a", "b", "c"])
    assert "rare class" in content["thresholds"]["absent"]
    assert 'id="thresholds"' not in Report(content).html


@pytest.mark.parametrize(("rows", "words"), [(1, "1 label looks wrong"), (2, "2 labels look")])
def test_counts_have_their_plural(make_summary, rows, words):
    """One label looks wrong, two look wrong."""
    X = np.repeat(np.eye(3), 20, axis=0) * 5
    y = np.repeat([0, 1, 2], 20)
    y[:rows] = 1
    content = make_summary(X, ABC[y], ABC.tolist())
    assert content["labels"]["total"] == rows
    assert any(each["text"].startswith(words) for each in content["findings"])


def test_one_of_anything_is_singular(make_summary):
    """A page about one row has no "1 rows" and the like."""
    content = make_summary([[1.0]], ["a"], ["a", "b"], calibration_rows=([[1.0]], [0]))
    text = re.sub(r"<[^>]*>", " ", Report(content).html)
    assert (
        re.findall(r"\b1 (?:\w+ )?(?:rows|columns|numbers|labels|values|parameters)\b", text) == []
    )


def test_a_temperature_of_one_is_not_shown_twice(make_summary):
    """Where the rows tell no temperature, there is one curve and one column of figures."""
    content = make_summary(np.eye(2), ["a", "b"], ["a", "b"], calibration_rows=(np.eye(2), [0, 1]))
    assert content["calibration"]["temperature"] == 1
    assert content["calibration"]["before"] is None
    assert "before calibration" not in Report(content).html


def test_long_numbers_of_a_csv_are_rounded():
    """A CSV's numbers are text; those of seventeen digits are shown with six."""
    assert _value("0.6370004148694834") == "0.637"
    assert _value("-1234.5678901234") == "-1234.57"
    assert _value("12345678901") == "12345678901"
    assert _value("a long piece of text") == "a long piece of text"
