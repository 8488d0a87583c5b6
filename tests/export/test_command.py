"""luce export: what it prints, where it writes, and what it says of bad input."""

import json

import pytest

import luce


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run of the digits, on disk."""
    return luce.train("digits", model="linear", out=tmp_path_factory.mktemp("runs")).path


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_prints_what_was_compared(luce_command, digits, tmp_path):
    """The file, what it needs, what goes in and out, and each set of rows with the difference."""
    done = luce_command("export", digits, "--to", "onnx")
    assert (done.code, done.err) == (0, "")
    lines = [line.split(maxsplit=1) for line in done.out.splitlines()]
    assert [line[0] for line in lines[:4]] == ["file", "needs", "inputs", "outputs"]
    size = (tmp_path / "digits.onnx").stat().st_size
    assert lines[0][1] == f"digits.onnx, {size:,} bytes"
    assert lines[1][1] == "ONNX opset 14; IR version 7"
    assert "the 359 test rows of digits: within" in done.out
    assert "400 made-up rows" in done.out
    assert "one row" in done.out
    assert "no row" in done.out


@pytest.mark.parametrize("ending", ["onnx", "pt2", "html"])
def test_the_ending_of_the_file_says_the_format(luce_command, digits, tmp_path, ending):
    """Without --to; and --json prints the same as data."""
    done = luce_command("export", digits, "--out", f"deep/er/model.{ending}", "--json")
    content = json.loads(done.out)
    assert content["path"] == f"deep/er/model.{ending}"
    assert (tmp_path / content["path"]).stat().st_size == content["bytes"]
    assert content["to"] == {"pt2": "torch"}.get(ending, ending)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "export needs a format, onnx, torch, html, pmml: --to onnx."),
        (["--to", "tflite"], 2, "--to must be one of onnx, torch, html, pmml, got 'tflite'."),
        (["--out", "m.joblib"], 2, "'m.joblib' ends in none of .onnx, .pt2, .html, .pmml."),
        (["--to", "onnx", "--out", "."], 2, ". is a folder. Give the name of a file."),
        (["--to", "html", "--operators", "onnxruntime"], 2, "and html has none. Leave it out."),
        (["--to", "onnx", "--operators", "all"], 2, "--operators must be one of onnx, onnxrunt"),
        (["--to", "pmml"], 2, "PMML is of tables, and this run reads images. Export"),
        (["--to", "onnx", "--source", "nowhere.csv"], 3, "nowhere.csv: there is no such file"),
    ],
)
def test_bad_input_is_one_line(luce_command, digits, tmp_path, arguments, code, words):
    """It says what was received, what is allowed and what to do; nothing is written."""
    done = luce_command("export", digits, *arguments)
    assert done.code == code
    assert words in done.err
    assert done.err.count("\n") == 1
    assert (done.out, list(tmp_path.iterdir())) == ("", [])


def test_a_folder_that_is_no_run_is_refused(luce_command, tmp_path):
    """With the code of a run folder that cannot be trusted."""
    done = luce_command("export", tmp_path, "--to", "onnx")
    assert done.code == 4
    assert "is not a run folder" in done.err


def test_what_was_not_compared_is_said(luce_command, tmp_path):
    """A run of data that are gone is compared on made-up rows; the note says what can be done."""
    source = tmp_path / "table.csv"
    source.write_text("x,y\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(60)))
    run = luce.train("table.csv", target="y", model="linear", out="runs").path
    source.unlink()
    done = luce_command("export", run, "--to", "onnx")
    assert done.code == 0
    assert "table.csv" in done.err
    assert done.err.endswith("Give a source to compare on.\n")
    assert "made-up rows" in done.out
