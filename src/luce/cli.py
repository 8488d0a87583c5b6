"""The command line: parse, make one library call, print. Nothing heavy is imported before that."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from luce.errors import ArgumentError, LuceError

if TYPE_CHECKING:
    from luce.run import Run

app = typer.Typer(
    name="luce",
    help="Softmax classification, solved: labelled data in, trustworthy probabilities out.",
    epilog="Start with: luce train digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Model(StrEnum):
    """The models by name; models.py makes them."""

    auto = "auto"
    linear = "linear"
    mlp = "mlp"
    cnn = "cnn"


class Preset(StrEnum):
    """The whole recipes by name; request.py spells them out."""

    tutorial = "tutorial"


Source = Annotated[
    str,
    typer.Argument(
        help="digits, mnist or fashion-mnist; a CSV, TSV, Parquet or Arrow file; NPZ, NPY or IDX; "
        "or a folder of images with one sub-folder per class."
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder: runs/digits.")]
Target = Annotated[
    str | None,
    typer.Option(help="Where the labels are: the column of a table, the array of an NPZ, a file."),
]
Features = Annotated[str | None, typer.Option(help="The features' array in an NPZ file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]


@app.command()
def train(
    source: Annotated[str | None, Source.__metadata__[0]] = None,
    target: Target = None,
    features: Features = None,
    test: Annotated[str | None, typer.Option(help="A source of separate test rows.")] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            help="Of a folder of images: pixels of the longer side, or HEIGHTxWIDTH.  "
            "[default: at most 64]"
        ),
    ] = None,
    drop_rare: Annotated[
        int | None, typer.Option(help="Leave out classes with fewer rows.  [default: 0]")
    ] = None,
    model: Annotated[Model | None, typer.Option(help="auto trains all that suit.")] = None,
    preset: Annotated[Preset | None, typer.Option(help="A whole recipe by name.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Repeat the run of this config.json; options override it.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The run's name.  [default: the source's]")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the run folders.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run.")] = False,
    validation_size: Annotated[
        float | None, typer.Option(help="Share of rows to choose by.  [default: 0.1]")
    ] = None,
    test_size: Annotated[
        float | None, typer.Option(help="Share of rows to score on at the end.  [default: 0.2]")
    ] = None,
    normalise: Annotated[
        str | None, typer.Option(help="standard, none, or MEAN,DEVIATION.  [default: standard]")
    ] = None,
    C: Annotated[
        float | None, typer.Option("--C", help="Of linear: 1/C weighs the penalty.  [default: 1]")
    ] = None,
    Cs: Annotated[
        str | None,
        typer.Option("--Cs", help="Of linear: choose C among these by cross-validation, or auto."),
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Widths of mlp's hidden layers: 256 or 512,256.")
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(help="sigmoid, tanh, relu, relu6, leaky_relu, elu, silu, mish or gelu."),
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of units dropped.")] = None,
    loss: Annotated[str | None, typer.Option(help="cross_entropy, hinge or squared_error.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="From 0 to below 1.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest rate.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Of sgd.")] = None,
    l2: Annotated[float | None, typer.Option(help="L2 regularisation of the weights.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="constant, exponential, cosine or one_cycle.")
    ] = None,
    decay: Annotated[float | None, typer.Option(help="Of exponential, per epoch.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training rows.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop early: epochs without a better validation log-loss.")
    ] = None,
    class_weight: Annotated[
        str | None, typer.Option(help='balanced, or JSON: {"yes": 2, "no": 1}.')
    ] = None,
    clip_norm: Annotated[float | None, typer.Option(help="The largest gradient norm.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, float64 or mixed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.  [default: 0]")] = None,
    report_every: Annotated[
        int | None, typer.Option(help="Also print the loss every so many batches.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a classifier on SOURCE and save it as a run folder."""
    from luce import fitting
    from luce.progress import Display

    arguments = {
        "target": target,
        "features": features,
        "test": test,
        "image_size": _image_size(image_size),
        "drop_rare": drop_rare,
        "model": model and model.value,
        "validation_size": validation_size,
        "test_size": test_size,
        "normalise": _normalise(normalise),
        "C": C,
        "Cs": _candidates(Cs),
        "hidden": _widths(hidden),
        "activation": activation,
        "dropout": dropout,
        "loss": loss,
        "label_smoothing": label_smoothing,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "momentum": momentum,
        "l2": l2,
        "schedule": schedule,
        "decay": decay,
        "batch_size": batch_size,
        "epochs": epochs,
        "patience": patience,
        "class_weight": _class_weight(class_weight),
        "clip_norm": clip_norm,
        "precision": precision,
        "device": device,
        "seed": seed,
        "report_every": report_every,
    }
    run = fitting.train(
        source,
        preset=preset and preset.value,
        config=config,
        name=name,
        out=out,
        resume=resume,
        overwrite=overwrite,
        display=Display(sys.stderr),
        announce=lambda run: _print_result(run, as_json=as_json),
        **{k: v for k, v in arguments.items() if v is not None},
    )
    if as_json:
        return
    asked = run.config["request"]
    scored = ("evaluate", run.path, asked["test"] or asked["source"])
    _next(
        f"{run.path} holds the run; open {run.path / 'report.html'} in a browser.",
        *(scored if run.metrics["test"] else ("info", run.path)),
    )


@app.command()
def evaluate(
    run: RunFolder,
    source: Source,
    target: Target = None,
    features: Features = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score RUN on SOURCE: accuracy, log-loss, Brier score, calibration, every class."""
    from luce import printing
    from luce.run import load_run

    figures = load_run(run).evaluate(source, target=target, features=features)
    if as_json:
        _print_json(figures)
        return
    _print([f"{run} on {figures['scored_on']}:", "", *printing.evaluation(figures)])
    _report_handled(figures["handled"])
    _next("", "predict", run, source)


@app.command()
def predict(
    run: RunFolder,
    source: Annotated[str, typer.Argument(help="As for train; - is a CSV on standard input.")],
    out: Annotated[
        Path | None, typer.Option(help="Write there instead of to standard output.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="Only the K most probable classes.")] = None,
    sets: Annotated[
        float | None,
        typer.Option(help="Add the classes that cannot be ruled out, | between; 0.95 for 95%."),
    ] = None,
    no_calibration: Annotated[
        bool, typer.Option("--no-calibration", help="The probabilities as they were learnt.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write RUN's prediction and probabilities for every row of SOURCE as CSV."""
    from luce.predicting import write_predictions
    from luce.run import load_run

    written = write_predictions(
        load_run(run), source, out=out, top=top, sets=sets, calibrated=not no_calibration
    )
    _report_handled(written.handled, written.notices)
    _next(f"{written.rows:,} rows predicted.", "info", run)


@app.command()
def report(
    run: RunFolder,
    source: Annotated[
        str | None,
        typer.Argument(help="As for train.  [default: what the run was trained on]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    target: Target = None,
    features: Features = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a page that says what RUN learnt, where it is wrong and whether to believe it."""
    from luce.run import load_run

    made = load_run(run).report(source, target=target, features=features)
    if as_json:
        _print_json(made.summary)
        return
    _next(f"{made.save(out)} holds the report; open it in a browser.", "predict", run, "SOURCE")


@app.command()
def info(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run folder.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what RUN is; without one, what this installation can do."""
    from luce import printing

    if run is None:
        from luce.compiling import compiled
        from luce.fitting import environment
        from luce.kernels import available

        kernels = compiled()
        content = {**environment(), "backends": available(), "compiled": asdict(kernels)}
        _print_json(content) if as_json else _print(printing.environment(content))
        return
    from luce.run import load_run

    content = load_run(run).info()
    _print_json(content) if as_json else _print(printing.information(content))


@app.command("warm-up")
def warm_up(as_json: AsJson = False, debug: Debug = False) -> None:
    """Compile the kernels that most fits and losses need, once: for images of containers."""
    from luce import compiling, printing

    def told(name: str, seconds: float) -> None:
        typer.echo(f"{name}: {seconds:.1f} s", err=True)

    found = compiling.warm_up(told)
    _print_json(asdict(found)) if as_json else _print(printing.kernels(asdict(found)))


def _version(wanted: bool) -> None:
    if wanted:
        from luce import __version__

        _print([f"luce {__version__}"])
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Softmax classification, solved: labelled data in, trustworthy probabilities out."""


# -------------------------------------------------------------------------------------------------


def _widths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ArgumentError(
            f"--hidden takes widths such as 256 or 512,256; got {text!r}."
        ) from error


def _image_size(text: str | None) -> int | tuple[int, ...] | None:
    if text is None:
        return None
    try:
        sides = tuple(int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise ArgumentError(
            f"--image-size takes pixels, such as 96, or HEIGHTxWIDTH, 48x96; got {text!r}."
        ) from error
    return sides[0] if len(sides) == 1 else sides


def _candidates(text: str | None) -> tuple[float, ...] | str | None:
    if text is None or text == "auto":
        return text
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ArgumentError(f"--Cs takes auto, or numbers: 0.1,1,10; got {text!r}.") from error


def _normalise(text: str | None) -> str | tuple[float, float] | None:
    if text is None or "," not in text:
        return text
    try:
        mean, deviation = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ArgumentError(
            f"--normalise takes standard, none or MEAN,DEVIATION; got {text!r}."
        ) from error
    return mean, deviation


def _class_weight(text: str | None) -> Any:
    if text is None or text == "balanced":
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ArgumentError(
            f'--class-weight takes balanced or JSON such as {{"yes": 2, "no": 1}}; got {text!r}.'
        ) from error


def _print_result(run: "Run", *, as_json: bool) -> None:
    """Print what a training gave, while its report is yet to be written."""
    from luce import printing

    if as_json:
        _print_json({"run": str(run.path), **run.metrics})
    else:
        lines = ["", *printing.leaderboard(run.metrics["leaderboard"])]
        if run.metrics["test"]:
            lines += ["", f"on {run.metrics['test']['rows']:,} test rows, touched once:"]
            lines += printing.headline(run.metrics["test"])
        _print(lines)
    sys.stdout.flush()


def _print(lines: list[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _report_handled(counts: dict[str, int], notices: Sequence[str] = ()) -> None:
    for notice in notices:
        sys.stderr.write(f"note: {notice}\n")
    for what, count in counts.items():
        sys.stderr.write(f"note: {what}: {count:,}\n")


def _next(result: str, command: str, *arguments: object) -> None:
    words = ["luce", command, *map(str, arguments)]
    if any(word.startswith("-") for word in words):
        words.insert(2, "--")
    sys.stderr.write(f"{result} Next: {shlex.join(words)}\n".lstrip())


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on standard error and an exit code."""
    debug = "--debug" in sys.argv
    if sys.stderr is None:  # closed; there is nobody to say anything to
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    if sys.stdout is None:
        # The next file that is opened would take its place.
        sys.exit(_fail("standard output is closed; give it a file or /dev/null.", 1))
    # GNU OpenMP's idle threads spin for milliseconds by default. On a machine that others use too,
    # that made training 10 to 50 times slower; docs/log.md has the measurement.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except LuceError as error:
        if debug:
            raise
        status = _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        status = _fail("interrupted.", 130)
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does: there is nobody to say anything to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # As typer itself ends when a write, not the last flush, finds the pipe closed.
        status = 1
    except OSError as error:
        # Standard output cannot be written: a full disk.
        if debug:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _fail(f"{error.strerror or error}.", 1)
    except Exception as error:
        # Typer's own: a wrong option or argument. Newer versions no longer derive them from click.
        if debug or not hasattr(error, "format_message"):
            raise
        status = _fail(error.format_message(), 2)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"luce: {' '.join(message.split())}\n")
    return status
