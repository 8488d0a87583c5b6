"""luce report: a page on a run."""

from pathlib import Path
from typing import Annotated

import typer

from luce.cli.arguments import AsJson, Debug, Features, RunFolder, Target, sources
from luce.cli.output import next_step, print_json
from luce.importing import for_command
from luce.plan import check_use

__all__ = ["report"]


def report(
    run: RunFolder,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="As for train.  [default: what the run was trained on]",
            autocompletion=sources,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path(
        "report.html"
    ),
    target: Target = None,
    features: Features = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a page on what RUN learnt and where it is wrong."""
    check_use(run, source)
    with for_command():
        from luce.run import load_run

    made = load_run(run).report(source, target=target, features=features)
    if as_json:
        print_json(made.summary)
        return
    next_step(f"{made.save(out)} holds the report; open it in a browser.", "predict", run, "SOURCE")
