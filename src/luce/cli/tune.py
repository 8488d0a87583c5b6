"""luce tune: models and their options compared by cross-validation → the best, as a run folder."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luce import options
from luce.cli.arguments import (
    A_SOURCE,
    AsJson,
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
from luce.importing import for_command

if TYPE_CHECKING:
    from luce.run import Run

__all__ = ["EXAMPLES", "tune"]


EXAMPLES = """\
Examples:
  luce tune digits --trials 30                     what each model proposes
  luce tune table.csv --target species --minutes 10
  luce tune mnist --model mlp --grid grid.json     {"hidden": [[64], [256]],
                                                    "learning_rate": [0.001, 0.01]}
  luce tune mnist --model mlp --space space.json   {"learning_rate":
                                                    {"low": 1e-4, "high": 0.1, "log": true}}"""


def _of_search(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=options.OF_SEARCH, **more)


@with_options(
    *("trials", "folds", "processes"),
    *options.RUN,
    *("class_weight", "precision", "device", "seed", "hidden", "batch_size", "epochs"),
    "report_every",
)
def tune(
    context: typer.Context,
    source: Annotated[Text, A_SOURCE] = None,
    target: Target = None,
    features: Features = None,
    test: Test = None,
    # What is searched.
    grid: Annotated[
        Text, _of_search(help="Try every cell: JSON or TOML of option → values.", metavar="FILE")
    ] = None,
    space: Annotated[
        Text,
        _of_search(
            help="Draw from these: JSON or TOML of option → values or range.", metavar="FILE"
        ),
    ] = None,
    minutes: Annotated[
        Text, _of_search(help="Try no more after so long.", metavar="NUMBER")
    ] = None,
    download: Download = False,
    text: TextColumns = None,
    show_columns: ShowColumns = False,
    name: Name = None,
    out: Out = "runs",
    preset: Annotated[
        Text,
        of_run(help="A whole recipe by name; what the file names is searched.", metavar="NAME"),
    ] = None,
    resume: Annotated[bool, of_run("--resume", help="Go on with a stopped search.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
    **_: Text,
) -> None:
    """Compare models and options by cross-validation; save the best as a run folder."""
    arguments = requested(context)
    asked: dict[str, Any] = {
        name: arguments.pop(name, None) for name in ("trials", "minutes", "folds")
    } | {
        "grid": None if grid is None else Path(grid),
        "space": None if space is None else Path(space),
        "processes": arguments.pop("processes", 1),
        "preset": preset,
        "name": name,
        "out": out,
        "resume": resume,
        "overwrite": overwrite,
        "download": download,
    }
    # Before anything heavy is imported; `tune` looks again.
    from luce.training.tuning.plan import plan_tuning

    plan_tuning(source, **asked, arguments=arguments)
    with for_command():
        from luce.progress import Display
        from luce.training.tuning import tune as tuning

    run = tuning.tune(
        source,
        **asked,
        display=Display(sys.stderr, show_columns=show_columns),
        announce=lambda run: _print_result(run, as_json=as_json),
        **arguments,
    )
    if not as_json:
        saved(run)


def _print_result(run: "Run", *, as_json: bool) -> None:
    """Print the best candidates, and what the run scored."""
    from luce import printing

    tuning = run.tuning or {}
    lines = [*printing.trials(tuning), *printing.tested(run.metrics)]
    print_run(run, lines, as_json=as_json, tuning=tuning)
