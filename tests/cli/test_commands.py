"""The options of commands beside the functions that these call: none missing, none invented."""

import dataclasses
import inspect

import pytest
import typer

import luce
import luce.cli
from luce import options
from luce.cli.app import app
from luce.cli.arguments import as_typed
from luce.data.kinds import NAMES
from luce.plan import INHERITED
from luce.predicting import write_predictions
from luce.request import PRESETS, Request
from luce.run import Run

COMMANDS = typer.main.get_command(app).commands

# The command line's alone: how results are printed, and how much is said meanwhile.
OWN = {"run", "as_json", "debug", "show_columns"}


def parameters(function):
    return set(inspect.signature(function).parameters)


def test_every_option_of_training_can_be_given():
    """What `options` describes in words is an option of `luce train`, and so is each argument."""
    described = (options.RUN, options.NETWORK, options.LINEAR)
    wanted = {name for each in described for name, option in each.items() if option.does}
    taught = {"teacher", *options.DISTIL}
    arguments = {field.name for field in dataclasses.fields(Request)} - {"options"}
    given = {parameter.name for parameter in COMMANDS["train"].params}
    assert wanted | (arguments - taught) <= given
    of_student = {name for name in wanted if name in options.RUN or name in options.NETWORK}
    given = {parameter.name for parameter in COMMANDS["distil"].params}
    assert (of_student | arguments) - {*INHERITED, "stream"} <= given


@pytest.mark.parametrize("command", ["tune", "distil"])
def test_what_is_said_of_the_data_is_said_to_each_command(command):
    """A table that `luce train` can be told how to read, others can; a student reads as taught."""
    about = {options.DATA, options.COLUMNS}
    wanted = {
        each.name
        for each in COMMANDS["train"].params
        if getattr(each, "rich_help_panel", 0) in about
    }
    assert {"encoding", "types", "text", "download", "show_columns"} <= wanted
    if command == "distil":
        wanted -= {*INHERITED, "text"}
    assert wanted <= {parameter.name for parameter in COMMANDS[command].params}


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("train", luce.train),
        ("distil", luce.distil),
        ("tune", luce.tune),
        ("evaluate", Run.evaluate),
        ("predict", write_predictions),
        ("report", Run.report),
        ("export", Run.export),
    ],
)
def test_every_option_is_known_to_the_library(command, function):
    """No option of a command is one that the function behind it does not take."""
    known = parameters(function) | OWN
    known |= {"out"} if command in ("report", "export") else set()  # of Report.save; path
    known |= {"no_calibration"} if command == "predict" else set()  # calibrated=False
    known |= {"text"} if command in ("train", "tune") else set()  # types={COLUMN: "text"}
    if command in ("train", "distil", "tune"):
        known |= {field.name for field in dataclasses.fields(Request)}
    given = {parameter.name for parameter in COMMANDS[command].params}
    assert {name for name in given - known if not options.named(name)} == set()


def test_help_names_what_there_is():
    """The data sets and the presets that help lists are all, and the ones that exist."""
    helps = {parameter.name: parameter.help for parameter in COMMANDS["train"].params}
    assert helps["source"].split(";")[0] == f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
    assert all(name in helps["preset"] for name in PRESETS)


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("focal_gamma=1.0 needs loss='focal', got loss='hinge'.",
         "--focal-gamma 1.0 needs --loss focal, got --loss hinge."),
        ("device='cuda:1' cannot be used here.", "--device cuda:1 cannot be used here."),
        ("drop_rare=3 leaves 1 of 2 classes", "--drop-rare 3 leaves 1 of 2 classes"),
        # No option, one of Python's alone, and a user's own words.
        ("a=1, tol=2: column 'loss=focal'", "a=1, tol=2: column 'loss=focal'"),
        ("runs/mlp-seed=3 exists, 'my C=3.csv' too", "runs/mlp-seed=3 exists, 'my C=3.csv' too"),
        ("the data's seed=3 isn't C=2", "the data's --seed 3 isn't --C 2"),
    ],
)  # fmt: skip
def test_messages_have_options_as_they_are_typed(said, typed):
    """What the library says of an option and its value names the option of the command line."""
    assert as_typed(said) == typed


def test_an_option_of_another_loss_is_refused_as_it_was_typed(monkeypatch, capsys):
    """The one line on standard error has --loss, and no Python."""
    monkeypatch.setattr(
        "sys.argv", ["luce", "train", "digits", "--loss", "hinge", "--focal-gamma", "1"]
    )
    with pytest.raises(SystemExit) as ended:
        luce.cli.main()
    assert ended.value.code == 2
    line = "luce: --focal-gamma 1.0 needs --loss focal, got --loss hinge.\n"
    assert capsys.readouterr().err == line
