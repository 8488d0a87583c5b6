"""luce predict: a run's predictions of every row, as CSV or Parquet."""

from pathlib import Path
from typing import Annotated

import typer

from luce.cli.arguments import (
    HERE,
    Address,
    Debug,
    RunFolder,
    TaskTimeout,
    Text,
    Timeout,
    flag,
    sources,
    values,
)
from luce.cli.output import next_step, report_handled
from luce.importing import for_command
from luce.plan import check_engine, check_use

__all__ = ["predict"]


def predict(
    context: typer.Context,
    run: RunFolder,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="As for train; - is a CSV on standard input.",
            autocompletion=sources,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write there, not to standard output; Parquet if it ends in .parquet.",
        ),
    ] = None,
    top: Annotated[Text, flag("top")] = None,
    sets: Annotated[Text, flag("sets")] = None,
    no_calibration: Annotated[
        bool, typer.Option("--no-calibration", help="The probabilities as they were learnt.")
    ] = False,
    engine: Annotated[Text, flag("engine", help=f"Who predicts tables in files.{HERE}")] = None,
    address: Address = None,
    timeout: Timeout = None,
    task_timeout: TaskTimeout = None,
    debug: Debug = False,
) -> None:
    """Predict every row of SOURCE, with probabilities, as CSV or Parquet."""
    asked = values(context)
    check_engine(asked)
    check_use(run, None if source == "-" else source)
    with for_command():
        from luce.predicting import write_predictions
        from luce.run import load_run

    written = write_predictions(
        load_run(run), source, out=out, calibrated=not no_calibration, **asked
    )
    report_handled(written.handled, written.notices)
    where = "" if out is None else f" into {out}"
    next_step(f"{written.rows:,} rows predicted{where}.", "info", run)
