"""luce plan: what a fit will take, before it is begun."""

from typing import Annotated

import typer

from luce.cli import arguments
from luce.cli.arguments import A_SOURCE, AsJson, Debug, Features, Target, Text, flag
from luce.cli.output import print_json, print_lines
from luce.costs.planning import check_plan
from luce.importing import for_command

__all__ = ["EXAMPLES", "plan"]

EXAMPLES = """\
Examples:
  luce plan 'data/*.parquet' --target y --workers 8
  luce plan --rows 1e9 --columns 784 --classes 1000 --workers 64"""


def plan(
    context: typer.Context,
    source: Annotated[Text, A_SOURCE] = None,
    target: Target = None,
    features: Features = None,
    rows: Annotated[Text, flag("rows")] = None,
    columns: Annotated[Text, flag("columns")] = None,
    classes: Annotated[Text, flag("classes")] = None,
    values: Annotated[Text, flag("values")] = None,
    dtype: Annotated[Text, flag("dtype")] = None,
    workers: Annotated[Text, flag("workers")] = None,
    passes: Annotated[Text, flag("passes")] = None,
    memory: Annotated[Text, flag("memory")] = None,
    disk: Annotated[Text, flag("disk")] = None,
    network: Annotated[Text, flag("network")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a fit of softmax regression will take: bytes, passes, memory, time."""
    asked = arguments.values(context)
    check_plan(source, **asked)
    with for_command():
        from luce import printing
        from luce.costs import planning

    planned = planning.plan(source, target=target, features=features, **asked).to_json()
    print_json(planned) if as_json else print_lines(printing.plan(planned))
