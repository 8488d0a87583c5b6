"""What a training is asked for: who wins, what comes back from JSON, and where paths lead."""

import dataclasses
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from luce.errors import ArgumentError, DataError, RunError
from luce.request import PRESETS, Request


def as_stored(request):
    """Return what config.json gives back of a request."""
    return json.loads(json.dumps(dataclasses.asdict(request)))


def test_arguments_win_over_the_preset_and_that_over_the_config(tmp_path):
    """Each is a layer on top of the one before; what none of them says is the default."""
    config = tmp_path / "config.json"
    before = Request(source="digits", seed=7, options={"epochs": 3, "momentum": 0.1})
    config.write_text(json.dumps({"request": as_stored(before)}))
    request = Request.make({"epochs": 2, "source": "mnist"}, preset="tutorial", config=config)
    assert (request.source, request.seed, request.test_size) == ("mnist", 7, 0.2)
    tutorial = {k: v for k, v in PRESETS["tutorial"].items() if k in before.options}
    assert tutorial == {"epochs": 10, "momentum": 0.5}
    assert request.options["epochs"] == 2
    assert request.options["momentum"] == 0.5


def test_a_request_comes_back_from_json_as_it_was():
    """Pairs and lists are tuples again, whatever else there is."""
    request = Request(
        source="x.csv",
        target="y",
        image_size=(8, 16),
        normalise=(0.5, 0.25),
        options={"hidden": (64, 32), "class_weight": {"a": 2.0}},
    )
    assert Request.from_json(as_stored(request)) == request


@pytest.mark.parametrize(
    "content", [None, [], {}, {"source": "digits"}, {**as_stored(Request()), "more": 1}], ids=str
)
def test_another_set_of_fields_is_refused(content):
    """What is no request, lacks a field or has one too many is said to be damaged."""
    with pytest.raises(RunError, match=r"config\.json is damaged: its request must have"):
        Request.from_json(content)


def test_options_that_are_no_object_are_refused():
    """The options must be an object."""
    with pytest.raises(RunError, match="its options are"):
        Request.from_json({**as_stored(Request()), "options": [1]})


def test_values_of_numpy_and_paths_are_plain():
    """What is stored is what JSON can hold: numbers, text and tuples."""
    given = {"source": Path("a.csv"), "seed": np.int64(3), "hidden": [8, 4], "C": np.float64(2)}
    request = Request.make(given, preset=None, config=None)
    assert request == Request(source="a.csv", seed=3, options={"hidden": (8, 4), "C": 2.0})
    assert Request.from_json(as_stored(request)) == request


def test_paths_lead_to_where_training_found_them(tmp_path, monkeypatch):
    """A relative path begins in the directory of the training; a name or absolute path stays."""
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    (there / "a.csv").touch()
    (here / "b.csv").touch()
    monkeypatch.chdir(here)
    request = Request(source="a.csv", test="b.csv")
    found = request.located(str(there))
    assert found.source == str(there / "a.csv")
    assert found.test == "b.csv"  # not there, but here
    for name in ("digits", str(there / "a.csv")):
        assert Request(source=name).located(str(there)).source == name
    with pytest.raises(DataError, match=r"there is no c\.csv in .*there.*--test"):
        Request(test="c.csv").located(str(there))
    assert Request(test="c.csv").located(str(there), but=["test"]).test == "c.csv"


def test_the_same_path_may_be_written_differently(tmp_path, monkeypatch):
    """--resume compares where paths lead, and all else as it is."""
    monkeypatch.chdir(tmp_path)
    request = Request(source="data/a.csv", options={"hidden": (8,)})
    request.agree({"source": str(tmp_path / "data" / "a.csv"), "hidden": [8]})
    with pytest.raises(ArgumentError, match=r"hidden was \(8,\), got \(9,\)"):
        request.agree({"hidden": (9,)})


@pytest.mark.parametrize("source", ["digits", "my data.csv", "a'b.csv"])
def test_the_command_that_goes_on_is_one_for_a_shell(source):
    """Names with spaces and quotes are quoted; the folder is named where it is not the usual."""
    words = shlex.split(Request(source=source).resume_command(Path("runs/x")))
    assert words == ["luce", "train", source, "--name", "x", "--resume"]
    words = shlex.split(Request(source=source).resume_command(Path("my runs/x")))
    assert words == ["luce", "train", source, "--name", "x", "--out", "my runs", "--resume"]
