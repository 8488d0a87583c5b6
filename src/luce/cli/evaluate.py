"""luce evaluate: how good a run is on labelled data."""

from typing import Annotated

import typer

from luce.cli.arguments import (
    HERE,
    Address,
    AsJson,
    Debug,
    Features,
    RunFolder,
    Source,
    Target,
    TaskTimeout,
    Text,
    Timeout,
    flag,
    values,
)
from luce.cli.output import next_step, print_json, print_lines, report_handled
from luce.importing import for_command
from luce.plan import check_engine, check_use

__all__ = ["evaluate"]


def evaluate(
    context: typer.Context,
    run: RunFolder,
    source: Source,
    target: Target = None,
    features: Features = None,
    engine: Annotated[Text, flag("engine", help=f"Who scores tables in files.{HERE}")] = None,
    address: Address = None,
    timeout: Timeout = None,
    task_timeout: TaskTimeout = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score RUN on SOURCE, as a whole and class by class."""
    asked = values(context)
    check_engine(asked)
    check_use(run, source)
    with for_command():
        from luce import printing
        from luce.run import load_run

    figures = load_run(run).evaluate(source, target=target, features=features, **asked)
    if as_json:
        print_json(figures)
        return
    print_lines([f"{run} on {figures['scored_on']}:", "", *printing.evaluation(figures)])
    report_handled(figures["handled"], figures["useless"])
    next_step("", "predict", run, source)
