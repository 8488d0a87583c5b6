"""luce export: a run as a file that works without Luce."""

from pathlib import Path
from typing import Annotated

import typer

from luce.cli.arguments import AsJson, Debug, RunFolder, Text, flag, sources, values
from luce.cli.output import print_json, print_lines, report_handled
from luce.plan import check_use

__all__ = ["export"]


def export(
    context: typer.Context,
    run: RunFolder,
    to: Annotated[Text, flag("to")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write.  [default: RUN's name, here]"),
    ] = None,
    operators: Annotated[Text, flag("operators")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Rows to compare file and run on.  [default: those that training held out]",
            autocompletion=sources,
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write RUN as a file that works without Luce: ONNX, HTML, PyTorch, PMML."""
    asked = values(context)
    check_use(run, source)
    from luce import printing
    from luce.run import load_run

    exported = load_run(run).export(out, source=source, **asked)
    if as_json:
        print_json(exported.to_json())
        return
    print_lines(printing.exported(exported.to_json()))
    report_handled({}, exported.notes)
