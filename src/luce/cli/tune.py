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


def tune(
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
    normalise: Annotated[Text, flag("normalise")] = None,
    image_size: Annotated[Text, flag("image_size")] = None,
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
    trials: Annotated[Text, flag("trials")] = None,
    minutes: Annotated[
        Text, _of_search(help="Try no more after so long.", metavar="NUMBER")
    ] = None,
    folds: Annotated[Text, flag("folds")] = None,
    processes: Annotated[Text, flag("processes")] = None,
    # What is not.
    model: Annotated[Text, flag("model")] = None,
    class_weight: Annotated[Text, flag("class_weight")] = None,
    precision: Annotated[Text, flag("precision")] = None,
    device: Annotated[Text, flag("device")] = None,
    seed: Annotated[Text, flag("seed")] = None,
    hidden: Annotated[Text, flag("hidden")] = None,
    batch_size: Annotated[Text, flag("batch_size")] = None,
    epochs: Annotated[Text, flag("epochs")] = None,
    # Where it is kept.
    name: Annotated[
        Text, of_run(help="The run's name.  [default: the source's]", metavar="NAME")
    ] = None,
    out: Annotated[str, of_run(help="The folder of the run folders.", metavar="FOLDER")] = "runs",
    preset: Annotated[
        Text,
        of_run(help="A whole recipe by name; what the file names is searched.", metavar="NAME"),
    ] = None,
    resume: Annotated[bool, of_run("--resume", help="Go on with a stopped search.")] = False,
    overwrite: Annotated[bool, of_run("--overwrite", help="Replace a run.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare models and options by cross-validation; save the best as a run folder."""
    arguments: dict[str, Any] = {"target": target, "features": features, "test": test}
    arguments |= values(context)
    arguments = {k: v for k, v in arguments.items() if v is not None}
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
    }
    # Before anything heavy is imported; `tune` looks again.
    from luce.training.tuning.plan import plan_tuning

    plan_tuning(source, **asked, arguments=arguments)
    with quickly():
        from luce.progress import Display
        from luce.training.tuning import tune as tuning

    run = tuning.tune(
        source,
        **asked,
        display=Display(sys.stderr),
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
    """Print the best candidates and what the run scored, while its report is yet to be written."""
    from luce import printing

    tuning = run.tuning or {}
    if as_json:
        print_json({"run": str(run.path), **run.metrics, "tuning": tuning})
    else:
        lines = ["", *printing.trials(tuning)]
        if run.metrics["test"]:
            lines += ["", f"on {run.metrics['test']['rows']:,} test rows, touched once:"]
            lines += printing.headline(run.metrics["test"])
        print_lines(lines)
    sys.stdout.flush()
