"""luce train: labelled data → a run folder."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luce import options
from luce.cli.arguments import (
    A_SOURCE,
    AsJson,
    Config,
    Debug,
    Download,
    Features,
    Name,
    Out,
    Overwrite,
    ShowColumns,
    Target,
    Test,
    Text,
    TextColumns,
    of_run,
    requested,
    with_options,
)
from luce.cli.output import print_run, saved
from luce.group import known
from luce.importing import for_command
from luce.plan import check_engine, make_plan

if TYPE_CHECKING:
    from luce.run import Run

__all__ = ["EXAMPLES", "train"]


EXAMPLES = """\
Examples, one for each kind of source:
  luce train digits                                by name; also mnist, fashion-mnist
  luce train table.csv --target species            CSV, TSV, JSON Lines, Parquet, ...
  luce train 'parts/*.parquet' --target y          many files, more than memory holds
  luce train data.npz --features X --target y      two arrays of an NPZ file
  luce train rows.npy --target labels.npy          two NPY files
  luce train train-images-idx3-ubyte.gz            IDX, with its labels beside it
  luce train photos                                a folder, a sub-folder per class"""


def _presets(incomplete: str) -> list[str]:
    from luce.request import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


@with_options(*options.RUN, *options.STREAM, *options.LINEAR, *options.NETWORK, "report_every")
def train(
    context: typer.Context,
    source: Annotated[Text, A_SOURCE] = None,
    target: Target = None,
    features: Features = None,
    test: Test = None,
    download: Download = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Read tables block by block, also where memory would hold them.",
            rich_help_panel=options.STREAMS,
        ),
    ] = False,
    text: TextColumns = None,
    show_columns: ShowColumns = False,
    name: Name = None,
    out: Out = "runs",
    preset: Annotated[
        Text,
        of_run(
            help="A whole recipe by name: tutorial, the classic PyTorch tutorial's.",
            metavar="NAME",
            autocompletion=_presets,
        ),
    ] = None,
    config: Config = None,
    resume: Annotated[bool, of_run("--resume", help="Go on with a stopped run.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
    **_: Text,
) -> None:
    """Train a classifier on SOURCE and save it as a run folder."""
    arguments = requested(context) | ({"stream": True} if stream else {})
    # What is of reading streams alone, and not of the run.
    of_streams = {name: arguments.pop(name) for name in options.STREAM if name in arguments}
    check_engine(of_streams)
    asked: dict[str, Any] = {
        "preset": preset,
        "config": config,
        "name": name,
        "out": out,
        "resume": resume,
        "overwrite": overwrite,
        "download": download,
    }
    if known().size == 1:  # else all processes of the group look at once
        # Before anything heavy is imported; `train` looks again.
        make_plan(source, command="train", **asked, arguments=arguments)
    with for_command():
        from luce.progress import Display
        from luce.training import train as training

    run = training.train(
        source,
        **asked,
        **of_streams,
        display=Display(sys.stderr, show_columns=show_columns),
        announce=lambda run: _print_result(run, as_json=as_json),
        **arguments,
    )
    if not as_json and known().rank == 0:
        saved(run)


def _print_result(run: "Run", *, as_json: bool) -> None:
    """Print the candidates, and what the best of them scored."""
    from luce import printing

    lines = [*printing.leaderboard(run.metrics["leaderboard"]), *printing.tested(run.metrics)]
    print_run(run, lines, as_json=as_json)
