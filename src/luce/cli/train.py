"""luce train: labelled data → a run folder."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luce import options
from luce.cli.arguments import (
    A_SOURCE,
    AsJson,
    Debug,
    Features,
    Target,
    Text,
    flag,
    of_data,
    of_run,
    sources,
    values,
)
from luce.cli.output import next_step, print_json, print_lines
from luce.importing import quickly
from luce.plan import make_plan

if TYPE_CHECKING:
    from luce.run import Run

__all__ = ["EXAMPLES", "train"]


EXAMPLES = """\
Examples, one for each kind of source:
  luce train digits                                by name; also mnist, fashion-mnist
  luce train table.csv --target species            CSV, TSV, JSON Lines, Parquet, ...
  luce train data.npz --features X --target y      two arrays of an NPZ file
  luce train rows.npy --target labels.npy          two NPY files
  luce train train-images-idx3-ubyte.gz            IDX, with its labels beside it
  luce train photos                                a folder, a sub-folder per class"""


def _presets(incomplete: str) -> list[str]:
    from luce.request import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def train(
    context: typer.Context,
    source: Annotated[Text, A_SOURCE] = None,
    # What is learnt from.
    target: Target = None,
    features: Features = None,
    test: Annotated[
        Text,
        of_data(help="A source of separate test rows.", metavar="SOURCE", autocompletion=sources),
    ] = None,
    validation_size: Annotated[Text, flag("validation_size")] = None,
    test_size: Annotated[Text, flag("test_size")] = None,
    drop_rare: Annotated[Text, flag("drop_rare")] = None,
    download: Annotated[
        bool, of_data("--download", help="Fetch a SOURCE that is an address, once.")
    ] = False,
    encoding: Annotated[Text, flag("encoding")] = None,
    separator: Annotated[Text, flag("separator")] = None,
    decimal: Annotated[Text, flag("decimal")] = None,
    drop: Annotated[Text, flag("drop")] = None,
    keep: Annotated[Text, flag("keep")] = None,
    types: Annotated[Text, flag("types")] = None,
    text: Annotated[
        Text,
        typer.Option(
            "--text",
            help="Columns of text: short for --type COLUMN=text.",
            metavar=options.NAMES.form,
            rich_help_panel=options.COLUMNS,
        ),
    ] = None,
    normalise: Annotated[Text, flag("normalise")] = None,
    image_size: Annotated[Text, flag("image_size")] = None,
    show_columns: Annotated[
        bool,
        typer.Option(
            "--show-columns",
            help="Say of every column what it is taken for.",
            rich_help_panel=options.COLUMNS,
        ),
    ] = False,
    # What is trained, and how.
    model: Annotated[Text, flag("model")] = None,
    class_weight: Annotated[Text, flag("class_weight")] = None,
    precision: Annotated[Text, flag("precision")] = None,
    device: Annotated[Text, flag("device")] = None,
    seed: Annotated[Text, flag("seed")] = None,
    C: Annotated[Text, flag("C")] = None,
    Cs: Annotated[Text, flag("Cs")] = None,
    hidden: Annotated[Text, flag("hidden")] = None,
    members: Annotated[Text, flag("members")] = None,
    bins: Annotated[Text, flag("bins")] = None,
    activation: Annotated[Text, flag("activation")] = None,
    dropout: Annotated[Text, flag("dropout")] = None,
    loss: Annotated[Text, flag("loss")] = None,
    label_smoothing: Annotated[Text, flag("label_smoothing")] = None,
    huber_delta: Annotated[Text, flag("huber_delta")] = None,
    focal_gamma: Annotated[Text, flag("focal_gamma")] = None,
    generalised_q: Annotated[Text, flag("generalised_q")] = None,
    adjusted_tau: Annotated[Text, flag("adjusted_tau")] = None,
    contrastive_temperature: Annotated[Text, flag("contrastive_temperature")] = None,
    contrastive_weight: Annotated[Text, flag("contrastive_weight")] = None,
    optimizer: Annotated[Text, flag("optimizer")] = None,
    learning_rate: Annotated[Text, flag("learning_rate")] = None,
    momentum: Annotated[Text, flag("momentum")] = None,
    l2: Annotated[Text, flag("l2")] = None,
    schedule: Annotated[Text, flag("schedule")] = None,
    decay: Annotated[Text, flag("decay")] = None,
    batch_size: Annotated[Text, flag("batch_size")] = None,
    epochs: Annotated[Text, flag("epochs")] = None,
    patience: Annotated[Text, flag("patience")] = None,
    minutes: Annotated[Text, flag("minutes")] = None,
    averaging: Annotated[Text, flag("averaging")] = None,
    clip_norm: Annotated[Text, flag("clip_norm")] = None,
    report_every: Annotated[Text, flag("report_every")] = None,
    # Where it is kept.
    name: Annotated[
        Text, of_run(help="The run's name.  [default: the source's]", metavar="NAME")
    ] = None,
    out: Annotated[str, of_run(help="The folder of the run folders.", metavar="FOLDER")] = "runs",
    preset: Annotated[
        Text,
        of_run(
            help="A whole recipe by name: tutorial, the classic PyTorch tutorial's.",
            metavar="NAME",
            autocompletion=_presets,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        of_run(help="Repeat the run of this config.json; options override it.", metavar="FILE"),
    ] = None,
    resume: Annotated[bool, of_run("--resume", help="Go on with a stopped run.")] = False,
    overwrite: Annotated[bool, of_run("--overwrite", help="Replace a run.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a classifier on SOURCE and save it as a run folder."""
    arguments: dict[str, Any] = {"target": target, "features": features, "test": test}
    arguments |= values(context)
    if text is not None:
        named = dict.fromkeys(options.read("drop", text, called="--text"), "text")
        arguments["types"] = named | arguments.get("types", {})
    arguments = {k: v for k, v in arguments.items() if v is not None}
    asked: dict[str, Any] = {
        "preset": preset,
        "config": config,
        "name": name,
        "out": out,
        "resume": resume,
        "overwrite": overwrite,
        "download": download,
    }
    # Before anything heavy is imported; `train` looks again.
    make_plan(source, command="train", **asked, arguments=arguments)
    with quickly():
        from luce.progress import Display
        from luce.training import train as training

    display = Display(sys.stderr, show_columns=show_columns)
    run = training.train(
        source,
        **asked,
        display=display,
        announce=lambda run: _print_result(run, as_json=as_json),
        **arguments,
    )
    if as_json:
        return
    wanted = run.config["request"]
    scored = ("evaluate", run.path, wanted["test"] or wanted["source"])
    next_step(
        f"{run.path} holds the run; open {run.path / 'report.html'} in a browser.",
        *(scored if run.metrics["test"] else ("info", run.path)),
    )


def _print_result(run: "Run", *, as_json: bool) -> None:
    """Print what a training gave, while its report is yet to be written."""
    from luce import printing

    if as_json:
        print_json({"run": str(run.path), **run.metrics})
    else:
        lines = ["", *printing.leaderboard(run.metrics["leaderboard"])]
        if run.metrics["test"]:
            lines += ["", f"on {run.metrics['test']['rows']:,} test rows, touched once:"]
            lines += printing.headline(run.metrics["test"])
        print_lines(lines)
    sys.stdout.flush()
