"""luce.tune: every candidate on every fold, the best trained, and nothing lost by a kill."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import luce
from luce.data import three_way
from luce.data.tables import TableSchema
from luce.errors import ArgumentError, DataError, MissingExtraError, RunError, TrainingStoppedError
from luce.manifest import JOURNAL
from luce.models import Candidate
from luce.progress import Display
from luce.training.tuning import folds as folding
from luce.training.tuning import search as searching
from luce.training.tuning import tune as tuning
from luce.training.tuning.space import cells, make_space, read_space
from luce.training.tuning.study import Study

MLP = {"model": "mlp", "members": 1, "bins": 0, "epochs": 2}


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """Draw no page: it takes longer than these searches, and has tests of its own."""

    def none(*_, **__):
        raise luce.LuceError("none in these tests.")

    monkeypatch.setattr(luce.Run, "report_of", none)


def figures(tuning):
    """Return what must not depend on how often a search was interrupted."""
    names = ("number", "model", "options", "state", "log_loss")
    return [
        {name: trial[name] for name in names}
        | {"folds": [(fold["log_loss"], fold["accuracy"]) for fold in trial["folds"]]}
        for trial in tuning["trials"]
    ]


# -------------------------------------------------------------------------------------------------
# What is tried
# -------------------------------------------------------------------------------------------------


def test_a_grid_runs_every_cell_on_every_fold(iris, tmp_path):
    """Each combination of the lists is one trial, and none is given up."""
    grid = {"hidden": [[4], [8]], "learning_rate": [0.001, 0.01], "l2": [0.0, 0.1]}
    tuning = luce.tune(iris, grid=grid, folds=3, out=tmp_path, **MLP).tuning
    tried = [tuple(json.dumps(t["options"][name]) for name in grid) for t in tuning["trials"]]
    assert len(tried) == len(set(tried)) == 8
    assert all(t["state"] == "complete" and len(t["folds"]) == 3 for t in tuning["trials"])


def test_a_folds_figures_are_those_of_a_fit_without_it(iris, tmp_path):
    """Log-loss and accuracy of each fold are scikit-learn's, of the same rows and penalty."""
    run = luce.tune(
        iris, grid={"C": [0.5]}, folds=4, validation_size=0, normalise="none", out=tmp_path
    )
    X, y = iris
    rows = three_way(y, **run.config["split"])[0]
    dealt = StratifiedKFold(4, shuffle=True, random_state=0).split(X[rows], y[rows].astype(str))
    for (kept, held), fold in zip(dealt, run.tuning["trials"][0]["folds"], strict=True):
        peer = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(
            X[rows[kept]], y[rows[kept]]
        )
        expected = log_loss(y[rows[held]], peer.predict_proba(X[rows[held]]))
        assert fold["log_loss"] == pytest.approx(expected, abs=1e-4)
        assert fold["accuracy"] == peer.score(X[rows[held]], y[rows[held]])


def test_the_test_rows_are_in_no_fold(iris, tmp_path, monkeypatch):
    """All rows but those of the test are dealt out, each to one fold."""
    made = []
    monkeypatch.setattr(
        searching.Folds,
        "score",
        lambda folds, *_: made.append(folds) or dict.fromkeys(("log_loss", "accuracy"), 0.5),
    )
    run = luce.tune(iris, grid={"C": [1]}, folds=3, out=tmp_path)
    training, validation, test = three_way(iris[1], **run.config["split"])
    held = np.concatenate([held for _, held in made[0]._parts])
    assert sorted(held) == sorted([*training, *validation])
    assert not set(held) & set(test)


def test_the_best_has_the_lowest_mean(iris, tmp_path):
    """The best is the trial whose folds' log-losses have the lowest mean, as they are recorded."""
    tuning = luce.tune(iris, grid={"C": [0.001, 10.0, 0.1]}, folds=3, out=tmp_path).tuning
    means = [np.mean([fold["log_loss"] for fold in t["folds"]]) for t in tuning["trials"]]
    assert tuning["best"] == np.argmin(means)
    assert [t["log_loss"] for t in tuning["trials"]] == pytest.approx(means)


def test_the_best_is_trained_as_luce_train_would(iris, tmp_path):
    """The run that a search ends with is, to the bit, the one that training gives."""
    tuned = luce.tune(iris, grid={"hidden": [[4], [16]]}, folds=2, out=tmp_path, **MLP)
    hidden = tuned.tuning["trials"][tuned.tuning["best"]]["options"]["hidden"]
    plain = luce.train(iris, hidden=tuple(hidden), name="plain", out=tmp_path, **MLP)
    assert np.array_equal(tuned.predict_proba(iris[0]), plain.predict_proba(iris[0]))
    assert tuned.config["request"] == plain.config["request"]


def test_the_best_linear_of_few_rows_is_judged_in_folds(iris, tmp_path):
    """It is trained as by its name: on all rows, with a temperature of rows out of fold."""
    tuned = luce.tune(iris, grid={"C": [0.1, 1.0]}, folds=2, out=tmp_path)
    best = tuned.tuning["trials"][tuned.tuning["best"]]["options"]
    plain = luce.train(iris, model="linear", **best, name="plain", out=tmp_path)
    keys = ("request", "data", "split", "folds")
    assert [tuned.config[key] for key in keys] == [plain.config[key] for key in keys]
    assert tuned.config["folds"] == 5
    assert np.array_equal(tuned.predict_proba(iris[0]), plain.predict_proba(iris[0]))
    assert luce.tune(iris, resume=True, out=tmp_path).path == tuned.path


def test_a_space_is_searched_within_its_bounds(iris, tmp_path):
    """Whole numbers stay whole, and all stay between low and high; choices come as they are."""
    space = {
        "epochs": {"low": 1, "high": 3},
        "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
        "hidden": [[4], [6, 4]],
    }
    arguments = {"model": "mlp", "members": 1, "bins": 0}
    tuning = luce.tune(iris, space=space, trials=6, folds=2, out=tmp_path, **arguments).tuning
    for options in (t["options"] for t in tuning["trials"]):
        assert options["epochs"] in {1, 2, 3}
        assert 1e-3 <= options["learning_rate"] <= 1e-2
        assert options["hidden"] in space["hidden"]
    assert len({t["options"]["learning_rate"] for t in tuning["trials"]}) == 6
    assert abs(sum(tuning["importance"]["mlp"].values()) - 1) < 1e-6


def test_models_propose_a_space(iris, tmp_path):
    """Without grid and space each model that suits the data is tried; what is given stays."""
    tuning = luce.tune(
        iris, trials=6, folds=2, out=tmp_path, members=1, bins=0, epochs=1, dropout=0.2
    ).tuning
    assert {t["model"] for t in tuning["trials"]} == {"linear", "mlp"}
    assert "dropout" not in tuning["space"]["mlp"]


def test_hopeless_candidates_are_given_up(iris, tmp_path):
    """What is worse than the best in each of three folds is not scored on the others."""
    space = {"C": {"low": 1e-8, "high": 1e4, "log": True}}
    tuning = luce.tune(iris, space=space, model="linear", trials=12, out=tmp_path).tuning
    pruned = [t for t in tuning["trials"] if t["state"] == "pruned"]
    assert pruned
    best = tuning["trials"][tuning["best"]]
    for trial in pruned:
        assert 3 <= len(trial["folds"]) < 5
        assert trial["log_loss"] is None
        mean = np.mean([fold["log_loss"] for fold in trial["folds"]])
        assert mean > np.mean([f["log_loss"] for f in best["folds"][: len(trial["folds"])]])


def test_a_candidate_that_diverges_is_said_and_passed_over(iris, tmp_path):
    """A learning rate far too high ends its trial, with the reason, and not the search."""
    grid = {"learning_rate": [1e30, 0.01]}
    tuning = luce.tune(iris, grid=grid, folds=2, out=tmp_path, optimizer="sgd", **MLP).tuning
    assert [t["state"] for t in tuning["trials"]] == ["failed", "complete"]
    assert "learning_rate" in tuning["trials"][0]["error"]


def test_options_of_a_preset_are_searched(iris, tmp_path):
    """A grid replaces what a preset says; the rest of the preset stays."""
    run = luce.tune(
        iris, preset="tutorial", grid={"hidden": [[4]]}, epochs=1, folds=2, out=tmp_path
    )
    assert run.config["options"]["hidden"] == [4]
    assert run.config["options"]["momentum"] == 0.5


def test_a_table_is_encoded_by_its_folds_own_rows(tmp_path):
    """Means and categories come from a fold's training rows, so a value seen once is unknown."""
    lines = [f"{i % 7},{'ab'[i % 2]},{'yes' if i % 3 else 'no'}" for i in range(60)]
    table = tmp_path / "t.csv"
    table.write_text("x,kind,y\n" + "\n".join(lines) + "\n")
    run = luce.tune(table, target="y", model="linear", trials=2, folds=3, out=tmp_path)
    assert len(run.tuning["trials"]) == 2


# -------------------------------------------------------------------------------------------------
# Stopped, killed, resumed; several processes
# -------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import luce
from luce.training.tuning import folds
from sklearn.datasets import load_iris

score, count = folds.Folds.score, 0

def counted(*arguments):
    global count
    if count == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    return score(*arguments)

folds.Folds.score = counted
luce.tune(load_iris(return_X_y=True), out=sys.argv[1], **{arguments})
"""

ASKED = {
    "grid": {"grid": {"C": [0.01, 1.0, 100.0]}, "folds": 3},
    "space": {"model": "linear", "trials": 14, "folds": 4},
}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(("kind", "after"), [("grid", 4), ("space", 41)])
def test_a_killed_search_goes_on_as_if_it_had_not_been(kind, after, iris, tmp_path):
    """After SIGKILL within a trial, --resume tries the same and every fold has the same figures."""
    asked = ASKED[kind]
    whole = luce.tune(iris, out=tmp_path / "whole", **asked)
    code = KILLED.format(after=after, arguments=asked)
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "killed"], check=False)
    assert killed.returncode == -signal.SIGKILL
    journal = tmp_path / "killed" / "array" / JOURNAL
    with journal.open("ab") as file:  # what a kill may leave besides
        file.write(b'{"op_code": 5, "half a li')
    journal.with_name(JOURNAL + ".lock").touch()
    with pytest.raises(RunError, match=r"luce tune SOURCE --name array --out .* --resume"):
        luce.load_run(tmp_path / "killed" / "array")
    resumed = luce.tune(iris, out=tmp_path / "killed", resume=True)
    assert figures(resumed.tuning) == figures(whole.tuning)
    assert resumed.tuning["best"] == whole.tuning["best"]
    assert np.array_equal(resumed.predict_proba(iris[0]), whole.predict_proba(iris[0]))


def test_ctrl_c_keeps_what_is_known(iris, tmp_path, monkeypatch, capsys):
    """It stops after a fold, says the best and how to go on; then fewer trials end the search."""
    score, left = searching.Folds.score, [5]

    def interrupting(*arguments):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return score(*arguments)

    monkeypatch.setattr(searching.Folds, "score", interrupting)
    grid = {"C": [0.01, 1.0, 100.0]}
    with pytest.raises(TrainingStoppedError, match=r"stopped after 2 trials.*--resume --trials 2"):
        luce.tune(iris, grid=grid, folds=2, out=tmp_path)
    with pytest.raises(ArgumentError, match=r"asked for: folds was 2, got 3\. Leave it out"):
        luce.tune(iris, folds=3, out=tmp_path, resume=True)
    with pytest.raises(ArgumentError, match="asked for: space was not what it is now"):
        luce.tune(iris, grid={"C": [0.01]}, out=tmp_path, resume=True)
    run = luce.tune(iris, out=tmp_path, resume=True, trials=2)
    assert [t["state"] for t in run.tuning["trials"]] == ["complete", "complete", "stopped"]
    assert run.tuning["best"] == 1


def test_the_training_of_the_best_can_be_resumed(iris, tmp_path, monkeypatch):
    """After the search the run is an ordinary one, which train and tune both go on with."""
    from luce.training.tuning import tune as tuning

    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "complete", fails)
        with pytest.raises(KeyboardInterrupt):
            luce.tune(iris, grid={"C": [1.0]}, folds=2, out=tmp_path)
    assert luce.train(iris, out=tmp_path, resume=True).tuning["best"] == 0
    assert luce.tune(iris, out=tmp_path, resume=True).tuning["best"] == 0


def test_processes_share_the_search(iris, tmp_path):
    """Two processes try each cell once, with the figures that one process finds."""
    alone = luce.tune(iris, out=tmp_path / "alone", **ASKED["grid"])
    shared = luce.tune(iris, out=tmp_path / "shared", processes=2, **ASKED["grid"])
    assert figures(shared.tuning) == figures(alone.tuning)


def test_minutes_end_a_search(iris, tmp_path):
    """Once the time is over no trial begins; one is complete in any case."""
    tuning = luce.tune(iris, model="linear", minutes=1e-6, folds=2, out=tmp_path).tuning
    assert [t["state"] for t in tuning["trials"]] == ["complete"]


def test_two_trials_of_one_seed_draw_differently_and_again_the_same(tmp_path):
    """What a trial draws follows from the seed and its number, whoever draws it."""
    space = {"linear": {"C": {"low": 1e-3, "high": 1e3, "log": True}}}
    (tmp_path / "other").mkdir()
    first = Study(tmp_path, space, grid=False, seed=3)
    second = Study(tmp_path, space, grid=False, seed=3)
    again = Study(tmp_path / "other", space, grid=False, seed=3)
    trials = [study.ask(None) for study in (first, second)]
    drawn = [study.suggest(trial) for study, trial in zip((first, second), trials, strict=True)]
    assert drawn[0] != drawn[1]
    assert drawn == [again.suggest(again.ask(None)) for _ in range(2)]


# -------------------------------------------------------------------------------------------------
# Mistakes
# -------------------------------------------------------------------------------------------------

MISTAKES = [
    ({"hiden": [[4]]}, "auto", "no option 'hiden'. Did you mean 'hidden'"),
    ({"C": [1]}, "mlp", "mlp has no option 'C': it is one of linear"),
    ({"C": [1], "hidden": [[4]]}, "auto", "no model has all of its options"),
    ({"learning_rate": 0.1}, "mlp", "learning_rate has no range"),
    ({"learning_rate": {}}, "mlp", "learning_rate has no range"),
    ({"learning_rate": {"low": 0.1}}, "mlp", "learning_rate: high is missing: a range is"),
    ({"learning_rate": {"high": 0.1}}, "mlp", "learning_rate: low is missing: a range is"),
    ({"activation": {"low": 1, "high": 2}}, "mlp", "activation has no ranges, .* a list of values"),
    ({"hidden": {"low": 16, "high": 64}}, "mlp", "hidden has no ranges, .* a list of values"),
    ({"learning_rate": {"low": 0.2, "high": 0.1}}, "mlp", "low must not be above high"),
    ({"l2": {"low": 0, "high": 0.1, "log": True}}, "mlp", "low must be above 0, got 0"),
    ({"l2": {"low": "a", "high": 0.1}}, "mlp", "low and high must be numbers"),
    ({"l2": {"low": -1, "high": 0.1}}, "mlp", "l2: low must be a number of at least 0, got -1"),
    ({"l2": {"low": 0, "high": 1, "step": 1}}, "mlp", "a range has low, high and log, got step"),
    ({"hidden": []}, "mlp", "hidden has an empty list"),
    ({"hidden": [[0]]}, "mlp", "hidden must be a sequence of whole numbers above 0"),
    ({}, "mlp", "it names no option"),
    ({"linear": {"C": [1]}}, "mlp", "'linear' is none that is trained"),
    ({"linear": {"C": [1]}, "C": [1]}, "auto", "'C' is no model"),
    ({"linear": [1]}, "auto", "linear must hold option → values"),
    ({"linear": {"hidden": [[4]]}}, "auto", "linear has no option 'hidden'"),
]


@pytest.mark.parametrize(("content", "model", "message"), MISTAKES)
def test_a_wrong_space_is_refused_in_a_sentence(content, model, message, tmp_path):
    """It names the option, what was received and what is allowed, before any data are read."""
    with pytest.raises(ArgumentError, match=message):
        luce.tune("digits", space=content, model=model, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_grid_has_no_ranges(tmp_path):
    """Every cell of a grid is run, so each option has a list."""
    with pytest.raises(ArgumentError, match="must be a list of values"):
        luce.tune("digits", grid={"C": {"low": 1, "high": 2}}, out=tmp_path)


def test_options_that_do_not_go_together_are_found_in_a_grid(tmp_path):
    """A cell that no network can be made of is refused before the first is trained."""
    grid = {"loss": ["focal", "hinge"], "focal_gamma": [1.0]}
    with pytest.raises(ArgumentError, match="needs loss='focal'"):
        luce.tune("digits", grid=grid, model="mlp", out=tmp_path)


def test_an_option_is_not_given_and_searched(tmp_path):
    """What is asked for beside the grid must not be in it."""
    with pytest.raises(ArgumentError, match=r"hidden is also given as \w+\. "):
        luce.tune("digits", grid={"hidden": [[4]]}, hidden=(8,), model="mlp", out=tmp_path)


def test_files_are_json_or_toml(tmp_path):
    """Both say the same; what is neither, or no object, is refused with its name."""
    (tmp_path / "a.json").write_text('{"l2": {"low": 0.1, "high": 1}, "hidden": [[4]]}')
    (tmp_path / "a.toml").write_text("hidden = [[4]]\n[l2]\nlow = 0.1\nhigh = 1\n")
    (tmp_path / "b.json").write_text("[1]")
    (tmp_path / "c.json").write_text("{")
    a, b = (read_space(tmp_path / name, called="space") for name in ("a.json", "a.toml"))
    assert a == b
    for name in ("b.json", "c.json", "d.json"):
        with pytest.raises(ArgumentError, match=name):
            read_space(tmp_path / name, called="space")


def test_cells_are_the_product():
    """The last option changes first, and lists become tuples, as options are."""
    space = make_space({"hidden": [[4], [8]], "l2": [0, 1]}, grid=True, model="mlp", options={})
    assert list(cells(space)) == [
        ("mlp", {"hidden": (width,), "l2": l2}) for width in (4, 8) for l2 in (0, 1)
    ]


def test_folds_need_rows_of_each_class(tmp_path):
    """More folds than the rarest class has rows are refused; no folder is left."""
    X = np.random.default_rng(0).normal(size=(53, 2))
    y = np.array(["usual"] * 50 + ["rare"] * 3)
    with pytest.raises(DataError, match=r"5 folds need .* class 'rare' has 2"):
        luce.tune((X, y), model="linear", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_resume_needs_a_search(iris, tmp_path):
    """There must be a journal, of the same search; an ordinary run is gone on with by train."""
    with pytest.raises(RunError, match=r"no run to go on with\. Leave out --resume"):
        luce.tune(iris, resume=True, out=tmp_path)
    luce.train(iris, model="linear", out=tmp_path)
    with pytest.raises(ArgumentError, match="is no search: go on with luce train"):
        luce.tune(iris, resume=True, out=tmp_path)


@pytest.fixture
def stopped(iris, tmp_path, monkeypatch):
    """Return the folder of a search that was stopped in its second trial."""
    with monkeypatch.context() as patch:
        score, left = searching.Folds.score, [3]

        def interrupting(*arguments):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return score(*arguments)

        patch.setattr(searching.Folds, "score", interrupting)
        with pytest.raises(TrainingStoppedError):
            luce.tune(iris, grid={"C": [0.1, 1.0]}, folds=2, out=tmp_path)
    return tmp_path


def test_resume_refuses_another_search(iris, stopped):
    """Another grid, other folds, other data or another training than the search are refused."""
    for other, error in (
        ({"grid": {"C": [0.1, 2.0]}}, ArgumentError),
        ({"folds": 3}, ArgumentError),
        ({"seed": 4}, ArgumentError),
    ):
        with pytest.raises(error):
            luce.tune(iris, resume=True, out=stopped, **other)
    with pytest.raises(RunError, match="other data"):
        luce.tune((iris[0] + 1, iris[1]), resume=True, out=stopped)
    with pytest.raises(ArgumentError, match="go on with luce tune"):
        luce.train(iris, resume=True, out=stopped)
    (stopped / "array" / JOURNAL).unlink()
    with pytest.raises(RunError, match=r"has no tuning\.jsonl"):
        luce.tune(iris, resume=True, out=stopped)


def test_a_damaged_journal_is_said(iris, stopped):
    """What Optuna cannot read is one sentence, and the folder stays."""
    journal = stopped / "array" / JOURNAL
    journal.write_bytes(b"no json\n" + journal.read_bytes())
    with pytest.raises(RunError, match=r"tuning\.jsonl is damaged"):
        luce.tune(iris, resume=True, out=stopped)
    assert journal.exists()


def test_a_changed_record_is_refused(iris, tmp_path):
    """config.json has the digest of tuning.json, so nobody else's figures are believed."""
    run = luce.tune(iris, grid={"C": [1.0]}, folds=2, out=tmp_path)
    path = run.path / "tuning.json"
    path.write_text(path.read_text().replace('"best": 0', '"best": 7'))
    with pytest.raises(RunError, match=r"tuning\.json is not the file"):
        _ = luce.load_run(run.path).tuning


def test_without_optuna_the_extra_is_named(iris, tmp_path, monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"luce\[tune\]"):
        luce.tune(iris, out=tmp_path)


# -------------------------------------------------------------------------------------------------
# scikit-learn's own searches
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (luce.SoftmaxRegression(), {"C": [0.01, 1.0]}),
        (
            luce.NeuralClassifier("mlp", epochs=2),
            {"hidden": [(4,), (8,)], "learning_rate": [1e-3, 1e-2]},
        ),
    ],
    ids=["linear", "mlp"],
)
def test_estimators_work_in_scikit_learns_searches(estimator, grid, iris):
    """GridSearchCV fits every cell, and refits the best."""
    found = GridSearchCV(estimator, grid, scoring="neg_log_loss", cv=2).fit(*iris)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    assert len(found.cv_results_["params"]) == np.prod([len(values) for values in grid.values()])
    assert found.predict(iris[0]).shape == iris[1].shape


def test_models_of_one_encoding_share_a_folds_rows(tmp_path, monkeypatch):
    """A table of numbers is encoded once for each fold, whatever models are tried."""
    encoded = []
    encode = TableSchema.encode
    monkeypatch.setattr(
        TableSchema, "encode", lambda *given: encoded.append(len(given[1])) or encode(*given)
    )
    draw = np.random.default_rng(0)
    table = pl.DataFrame({"a": draw.normal(size=200), "y": draw.integers(2, size=200)})
    data = folding.Folds(
        luce.load_dataset(table, target="y"),
        {"validation_size": 0.1, "test_size": 0.2, "seed": 0},
        "standard",
        2,
        0,
    )
    for model in ("linear", "mlp", "linear"):
        options = {"hidden": (2,), "epochs": 1} if model == "mlp" else {}
        data.score(Candidate(model, model, options), 0)
    assert len(encoded) == 3  # training, validation and held-out rows
    assert sum(encoded) == 160


def test_a_search_that_lost_a_process_keeps_what_is_known(iris, tmp_path, monkeypatch):
    """As the message says, --resume goes on with the trials that there were."""
    grid = {"C": [0.01, 1]}

    def killed(asked, unfinished, processes, *, stop, told):
        searching.search(replace(asked, trials=1), unfinished, stop=stop)
        raise RunError("a process of the search was killed")

    with monkeypatch.context() as patched:
        patched.setattr(tuning, "search_in_processes", killed)
        with pytest.raises(RunError, match="was killed"):
            luce.tune(iris, grid=grid, folds=2, processes=2, out=tmp_path)
    assert (tmp_path / "array" / JOURNAL).is_file()
    run = luce.tune(iris, grid=grid, folds=2, resume=True, out=tmp_path)
    assert len(run.tuning["trials"]) == 2


def test_only_models_that_are_searched_are_named(tmp_path, capsys):
    """Of columns that some models cannot read, nothing is said for models that nobody tries."""
    words = ["good fine", "bad poor"]
    y = np.arange(120) % 2
    table = pl.DataFrame(
        {
            "text": [f"a {words[each]} story {i} of many" for i, each in enumerate(y)],
            "number": np.random.default_rng(0).normal(size=120),
            "y": y,
        }
    )
    asked = {"target": "y", "types": {"text": "text"}, "folds": 2, "out": tmp_path}
    luce.tune(table, grid={"linear": {"C": [1]}}, display=Display(sys.stderr), **asked)
    assert "cannot read" not in capsys.readouterr().err
