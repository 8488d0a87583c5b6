"""luce distil: a run teaches a smaller model, which becomes a run folder."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luce import options
from luce.cli.arguments import (
    AsJson,
    Config,
    Debug,
    Download,
    Features,
    Out,
    Overwrite,
    ShowColumns,
    Test,
    Text,
    of_data,
    of_run,
    requested,
    sources,
    with_options,
)
from luce.cli.output import print_run, saved
from luce.importing import for_command
from luce.plan import INHERITED, make_plan, student_arguments

if TYPE_CHECKING:
    from luce.run import Run

__all__ = ["EXAMPLES", "distil"]

EXAMPLES = """\
Examples:
  luce distil runs/digits digits                        32 hidden units
  luce distil runs/adult more.csv --hidden 16           labels may be missing
  luce distil runs/mnist mnist --model cnn --alpha 0.5  half of it from the labels
  luce distil runs/news news.csv --model linear         softmax regression"""

# What help says of an option where a student has another default than `luce train`.
OWN_HELP = {
    "model": "linear, mlp or cnn: the student.  [default: mlp]",
    "temperature": "How far both softmaxes are softened.  [default: 2; linear takes 1 alone]",
    "hidden": "Widths of the hidden layers of mlp.  [default: 32]",
    "dropout": "Fraction of units dropped in training.  [default: 0]",
    "l2": "L2 penalty of the weights.  [default: 0.05 for cnn, 0.0003 for tables, else 0.0001]",
    "epochs": "Passes over the training rows.  [default: 40 for mlp on images, else auto]",
}


@with_options(
    *options.DISTIL,
    *(name for name in options.RUN if name not in INHERITED),
    *options.LINEAR,
    *options.NETWORK,
    "report_every",
    helps=OWN_HELP,
)
def distil(
    context: typer.Context,
    teacher: Annotated[
        Text, typer.Argument(metavar="TEACHER", help="A run folder: runs/digits.")
    ] = None,
    source: Annotated[
        Text,
        typer.Argument(
            metavar="SOURCE",
            help="As for train; with the columns that the teacher reads.",
            autocompletion=sources,
        ),
    ] = None,
    target: Annotated[
        Text,
        of_data(
            help="Where the labels are, if there are any.  [default: the teacher's]",
            metavar="NAME",
        ),
    ] = None,
    features: Features = None,
    test: Test = None,
    download: Download = False,
    show_columns: ShowColumns = False,
    name: Annotated[
        Text, of_run(help="The run's name.  [default: the source's, -student]", metavar="NAME")
    ] = None,
    out: Out = "runs",
    config: Config = None,
    resume: Annotated[bool, of_run("--resume", help="Go on with a stopped run.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
    **_: Text,
) -> None:
    """Let the run TEACHER teach a smaller model on SOURCE, labelled or not."""
    arguments = requested(context)
    asked: dict[str, Any] = {
        "config": config,
        "name": name,
        "out": out,
        "resume": resume,
        "overwrite": overwrite,
        "download": download,
    }
    # Before anything heavy is imported; `distil` looks again.
    anew = config is None and not resume
    wanted = student_arguments(teacher, arguments, anew=anew)
    make_plan(source, command="distil", **asked, arguments=wanted)
    with for_command():
        from luce.progress import Display
        from luce.training import distilling

    run = distilling.distil(
        teacher,
        source,
        **asked,
        display=Display(sys.stderr, show_columns=show_columns),
        announce=lambda run: _print_result(run, as_json=as_json),
        **arguments,
    )
    if not as_json:
        saved(run, "predict")


def _print_result(run: "Run", *, as_json: bool) -> None:
    """Print what the student became."""
    from luce import printing

    print_run(run, printing.distillation(run.metrics["distillation"]), as_json=as_json)
