"""`luce train` as two processes of a group: one run, one message, the same bits after a kill.

Commands are run once, by `commands_script.py` in two processes; each test looks at one of them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import luce
from tests.ranks import environment, outside, together

pytestmark = pytest.mark.xdist_group("ranks of commands")

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the ranks run."""
    found = tmp_path_factory.mktemp("together")
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(400, 3)).round(3)
    lines = [",".join(map(str, row)) + f",{'ab'[int(row[0] > 0)]}" for row in numbers.tolist()]
    (found / "rows.csv").write_text("p,q,r,y\n" + "\n".join(lines) + "\n")
    return found


@pytest.fixture(scope="module")
def ended(folder):
    """What each rank's commands ended with, by name: status, output, messages."""
    kept = os.environ.get("LUCE_CACHE_DIR")
    os.environ["LUCE_CACHE_DIR"] = str(folder / "cache")
    try:
        found = together([str(HERE / "commands_script.py"), str(folder)], 2, cwd=folder)
    finally:
        os.environ.pop("LUCE_CACHE_DIR")
        if kept is not None:
            os.environ["LUCE_CACHE_DIR"] = kept
    assert [status for status, *_ in found] == [0, 0], "\n".join(err for *_, err in found)
    return [json.loads((folder / f"facts-{rank}.json").read_text()) for rank in range(2)]


def weights(folder, name):
    return (folder / "runs" / name / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["whole", "resumed", "again", "cnn", "stream"])
def test_rank_0_alone_prints(ended, name):
    """Both end with success; the result and the epochs are on rank 0's streams alone."""
    first, second = (facts[name] for facts in ended)
    assert first[0] == second[0] == 0
    assert "accuracy" in first[1]
    assert "epoch" in first[2]
    assert second[1:] == ["", ""]


@pytest.mark.parametrize("name", ["whole", "again", "stream", "python"])
def test_the_run_is_whole(ended, folder, name):
    """What rank 0 writes is a run like any other: it loads, predicts and has a report."""
    run = luce.load_run(folder / "runs" / name)
    assert (run.path / "report.html").exists()
    assert run.metrics["test"]["accuracy"] > 0.4
    assert not list(run.path.parent.glob(".*")), "nothing is left behind"


def test_a_run_of_two_is_as_good_as_a_run_of_one(ended, folder, tmp_path):
    """The accuracy of two processes' digits is that of one's, within seeds' spread."""
    options = {"model": "mlp", "hidden": (16,), "epochs": 4, "name": "one"}
    found = [luce.train("digits", **options, seed=s, out=tmp_path / str(s)) for s in range(4)]
    scores = [run.metrics["test"]["accuracy"] for run in found]
    ours = luce.load_run(folder / "runs" / "whole").metrics["test"]["accuracy"]
    assert abs(ours - np.mean(scores)) < max(4 * np.std(scores, ddof=1), 0.02)


def test_ctrl_c_on_one_rank_stops_both_with_one_message(ended):
    """After the same batch both are saved; rank 0 says how to go on, the other says nothing."""
    first, second = (facts["stopped"] for facts in ended)
    assert first[0] == second[0] == 130
    assert "stopped in epoch 2 of 4 and saved. Go on with: luce train digits" in first[2]
    assert second[1:] == ["", ""]


def test_a_stopped_training_goes_on_to_the_same_bits(ended, folder):
    """Stopped and resumed, the weights are those of a training that was never stopped."""
    assert weights(folder, "stopped") == weights(folder, "whole") == weights(folder, "again")


def test_what_has_finished_is_said_once(ended):
    """Resuming a finished training does nothing, on all ranks, and rank 0 says so."""
    first, second = (facts["done"] for facts in ended)
    assert first[0] == second[0] == 0
    assert "finished already" in first[2]
    assert second[1:] == ["", ""]


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("taken", 2, "exists already"),
        ("auto", 2, "model must be one of mlp, cnn where a group of 2 processes trains it"),
        ("tune", 2, "luce tune is no work for a process group"),
        ("typo", 2, "--epoch"),
        ("other", 3, "rank 1 of 2 found other data in rows"),
    ],
)
def test_a_mistake_ends_both_with_one_message(ended, name, status, message):
    """Both ranks end with the status of the mistake, whichever found it; rank 0 names it."""
    first, second = (facts[name] for facts in ended)
    assert first[0] == second[0] == status
    assert message in first[2]
    assert second[1:] == ["", ""]


def test_what_is_wrong_on_one_rank_alone_is_said_by_that_rank(ended):
    """Rank 1, whose disk is gone within training, names it; rank 0 says that a rank is lost."""
    first, second = (facts["gone"] for facts in ended)
    assert "luce: rank 1: cannot read 00000.X.npy" in second[2]
    assert second[0] == 3
    assert "luce: the process group lost one of its ranks" in first[2]
    assert first[0] == 1


def test_luce_train_returns_the_run_on_every_rank(ended):
    """In Python each rank has the run: path, metrics and the same predictions."""
    first, second = (facts["python"] for facts in ended)
    assert first == second


@pytest.fixture(scope="module")
def killed(folder, ended):
    """The end of a training under torchrun whose rank 1 is killed once."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--monitor-interval", "0.1"]
    command += [str(HERE / "killed_script.py"), "train", "digits", "--model=mlp", "--hidden=16"]
    variables = outside(environment(0, 1, 0))
    command += ["--epochs=4", "--name=killed"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=variables,
    ) as launcher:
        try:
            out, err = launcher.communicate(timeout=180)
        finally:
            launcher.terminate()  # which ends the workers too
    return launcher.returncode, out, err


def test_a_killed_worker_is_restarted_to_the_same_bits(killed, folder):
    """kill -9 under --max-restarts 1: the run ends right, its weights those without the kill."""
    status, _, err = killed
    assert status == 0, err
    assert "-9" in err, "it was not killed"
    assert weights(folder, "killed") == weights(folder, "whole")
    history = (folder / "runs" / "killed" / "history.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in history[1:]] == ["1", "2", "3", "4"]


def test_the_result_of_a_restarted_training_is_printed_once(killed):
    """Also after a restart rank 0 alone prints, and what was saved is not trained again."""
    _, out, err = killed
    assert out.count("accuracy    ") == 1
    assert err.count("\n    1   ") == 1, "the first epoch was trained once"
