"""luce distil: a run teaches a smaller network, which becomes a run folder."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luce import options
from luce.cli.arguments import (
    AsJson,
    Debug,
    Features,
    Text,
    flag,
    of_data,
    of_run,
    sources,
    values,
)
from luce.cli.output import next_step, print_json, print_lines
from luce.importing import quickly
from luce.plan import INHERITED, make_plan, student_arguments

if TYPE_CHECKING:
    from luce.run import Run

__all__ = ["EXAMPLES", "distil"]

EXAMPLES = """\
Examples:
  luce distil runs/digits digits                        32 hidden units
  luce distil runs/adult more.csv --hidden 16           labels may be missing
  luce distil runs/mnist mnist --model cnn --alpha 0.5  half of it from the labels"""

# What help says of an option where a student has another default than `luce train`.
OWN_HELP = {
    "model": "mlp or cnn: the student.  [default: mlp]",
    "hidden": "Widths of the hidden layers of mlp.  [default: 32]",
    "dropout": "Fraction of units dropped in training.  [default: 0.1 for tables, else 0]",
    "l2": "L2 penalty of the weights.  [default: 0.05 for cnn, 0.0003 for tables, else 0.0001]",
    "precision": "float32, float64 or mixed. Number format.  [default: float32]",
    "epochs": "Passes over the training rows.  [default: 40 for mlp on images, else auto]",
}


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function with every option of networks and teaching in its signature.

    They are described in `luce.options`; the function finds their values in the context.
    """
    added = {
        name: Annotated[Text, flag(name, help=OWN_HELP.get(name))]
        for described in (options.DISTIL, options.RUN, options.NETWORK)
        for name, option in described.items()
        if option.does and name not in INHERITED
    }
    own = inspect.signature(function)
    kept = {
        each.name: each.replace(kind=each.KEYWORD_ONLY)
        for each in own.parameters.values()
        if each.kind is not each.VAR_KEYWORD
    }
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in added.items()
    ]
    # After the data, before the run: the order of the headings in help.
    at = list(kept).index("name")
    parameters = [*list(kept.values())[:at], *more, *list(kept.values())[at:]]
    function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    function.__annotations__.update(added)
    return function


@_with_options
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
    test: Annotated[
        Text,
        of_data(help="A source of separate test rows.", metavar="SOURCE", autocompletion=sources),
    ] = None,
    name: Annotated[
        Text, of_run(help="The run's name.  [default: the source's, -student]", metavar="NAME")
    ] = None,
    out: Annotated[str, of_run(help="The folder of the run folders.", metavar="FOLDER")] = "runs",
    config: Annotated[
        Path | None,
        of_run(help="Repeat the run of this config.json; options override it.", metavar="FILE"),
    ] = None,
    resume: Annotated[bool, of_run("--resume", help="Go on with a stopped run.")] = False,
    overwrite: Annotated[bool, of_run("--overwrite", help="Replace a run.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
    **_: Text,
) -> None:
    """Let the run TEACHER teach a smaller network on SOURCE, labelled or not."""
    arguments: dict[str, Any] = {"target": target, "features": features, "test": test}
    arguments |= values(context)
    arguments = {k: v for k, v in arguments.items() if v is not None}
    asked: dict[str, Any] = {
        "config": config,
        "name": name,
        "out": out,
        "resume": resume,
        "overwrite": overwrite,
    }
    # Before anything heavy is imported; `distil` looks again.
    anew = config is None and not resume
    wanted = student_arguments(teacher, arguments, anew=anew)
    make_plan(source, command="distil", **asked, arguments=wanted)
    with quickly():
        from luce.progress import Display
        from luce.training import distilling

    run = distilling.distil(
        teacher,
        source,
        **asked,
        display=Display(sys.stderr),
        announce=lambda run: _print_result(run, as_json=as_json),
        **arguments,
    )
    if as_json:
        return
    next_step(
        f"{run.path} holds the run; open {run.path / 'report.html'} in a browser.",
        *("predict", run.path, run.config["request"]["source"]),
    )


def _print_result(run: "Run", *, as_json: bool) -> None:
    """Print what the student became, while its report is yet to be written."""
    from luce import printing

    if as_json:
        print_json({"run": str(run.path), **run.metrics})
    else:
        print_lines(["", *printing.distillation(run.metrics["distillation"])])
    sys.stdout.flush()
