"""luce tune: what it prints, where, and how it refuses."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def luce(tmp_path):
    """Return a function that runs a command in an empty folder."""

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "luce", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )

    return run


def test_a_grid_from_a_file(luce, tmp_path):
    """A line for each trial on standard error; the best and its test figures on standard output."""
    (tmp_path / "grid.json").write_text('{"C": [0.001, 1]}')
    done = luce("tune", "digits", "--grid", "grid.json", "--folds", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\nmean of 2 folds:\ntrial  log-loss  accuracy  candidate\n1 ")
    assert "test rows, touched once" in done.stdout
    assert "2 trials of 2 folds each" in done.stderr
    assert done.stderr.count("linear C ") == 3  # two trials, and the best
    assert done.stderr.rstrip().endswith("Next: luce evaluate runs/digits digits")


def test_json_has_every_trial(luce, tmp_path):
    """--json prints run, figures and the search."""
    (tmp_path / "grid.toml").write_text("C = [0.001, 1]\n")
    done = luce("tune", "digits", "--grid", "grid.toml", "--folds", 2, "--json")
    content = json.loads(done.stdout)
    assert [each["options"]["C"] for each in content["tuning"]["trials"]] == [0.001, 1]
    assert content["test"]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "nowhere.json"], "grid: cannot read nowhere.json"),
        (["--grid", "a.json", "--space", "a.json"], "exclude each other"),
        (["--folds", "1"], "--folds must be a whole number from 2 to 1,000, got '1'"),
        (["--trials", "0"], "--trials must be a whole number above 0, got '0'"),
        (["--space", "a.json"], "Did you mean 'hidden'?"),
        (["--resume", "--overwrite"], "exclude each other"),
    ],
)
def test_mistakes_are_a_line_and_exit_code_2(luce, tmp_path, words, message):
    """Nothing is read before, and no folder is left."""
    (tmp_path / "a.json").write_text('{"hiddn": [[4]]}')
    done = luce("tune", "digits", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_search_is_told_how_a_table_is_written(luce, tmp_path):
    """Whatever a message asks for can be given: separator, decimal, kinds of columns, --text."""
    rows = [f"{i % 7},5;{i};a {['good', 'bad'][i % 2]} story {i};{i % 2}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["number;code;words;y", *rows]), encoding="utf-16")
    (tmp_path / "grid.json").write_text('{"C": [1]}')
    told = ["--encoding", "utf-16", "--separator", ";", "--decimal", ",", "--type", "code=category"]
    told += ["--text", "words", "--show-columns", "--target", "y", "--model", "linear"]
    done = luce("tune", "t.csv", "--grid", "grid.json", "--folds", 2, *told)
    assert done.returncode == 0, done.stderr
    schema = json.loads((tmp_path / "runs" / "t" / "schema.json").read_text())
    assert {each["name"]: each["kind"] for each in schema["columns"]} == {
        "number": "number",
        "code": "category",
        "words": "text",
    }


@pytest.mark.parametrize("command", [["tune"], ["distil", "runs/teacher"]])
def test_an_address_can_be_fetched_by_each_command(luce, command):
    """With --download the address is asked for, which here is no safe one."""
    done = luce(*command, "http://example.com/t.csv", "--download")
    assert done.returncode == 2
    assert "addresses that begin with https://" in done.stderr
