"""The command line: parse, make one library call, print. Nothing heavy is imported before that."""

import io
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from luce import options
from luce.errors import LuceError
from luce.importing import quickly
from luce.plan import check_use, make_plan


class Command(TyperCommand):
    """A command whose help has its options under headings, and its examples as they were written.

    The headings are typer's help panels, in plain text: Rich would take longer than help may.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                group = getattr(parameter, "rich_help_panel", None) or "Options"
                sections.setdefault("Arguments" if is_argument else group, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the examples."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")


if TYPE_CHECKING:
    from luce.run import Run

app = typer.Typer(
    name="luce",
    help="Softmax classification, solved: labelled data in, trustworthy probabilities out.",
    epilog="Start with: luce train digits",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXAMPLES = """\
Examples, one for each kind of source:
  luce train digits                                by name; also mnist, fashion-mnist
  luce train table.csv --target species            CSV, TSV, Parquet, Arrow
  luce train data.npz --features X --target y      two arrays of an NPZ file
  luce train rows.npy --target labels.npy          two NPY files
  luce train train-images-idx3-ubyte.gz            IDX, with its labels beside it
  luce train photos                                a folder, a sub-folder per class"""


def flag(name: str) -> Any:
    """Return the command-line option of a name in `options`: its value is text, read later."""
    option = options.named(name)[0]
    return typer.Option(
        _flag(name),
        help=option.help,
        metavar=option.kind.form,
        rich_help_panel=option.group or None,
        autocompletion=lambda incomplete: [
            choice for choice in option.kind.choices if choice.startswith(incomplete)
        ],
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _of_data(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=options.DATA, **more)


def _of_run(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Run", **more)


def _sources(incomplete: str) -> list[str]:
    """Complete the names of data sets; where there is none, the shell completes files."""
    from luce.data.kinds import NAMES

    return [name for name in NAMES if incomplete and name.startswith(incomplete)]


def _presets(incomplete: str) -> list[str]:
    from luce.request import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


Text = str | None
A_SOURCE = typer.Argument(
    metavar="SOURCE",
    help="digits, mnist or fashion-mnist; a CSV, TSV, Parquet or Arrow file; NPZ, NPY or IDX; "
    "or a folder of images with one sub-folder per class.",
    autocompletion=_sources,
)
Source = Annotated[str, A_SOURCE]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder: runs/digits.")]
Target = Annotated[
    Text,
    _of_data(
        help="Where the labels are: the column of a table, the array of an NPZ, a file.",
        metavar="NAME",
    ),
]
Features = Annotated[
    Text, _of_data(help="The features' array in an NPZ file.  [default: X]", metavar="NAME")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]


@app.command(cls=Command, epilog=EXAMPLES)
def train(
    context: typer.Context,
    source: Annotated[Text, A_SOURCE] = None,
    # What is learnt from.
    target: Target = None,
    features: Features = None,
    test: Annotated[
        Text,
        _of_data(help="A source of separate test rows.", metavar="SOURCE", autocompletion=_sources),
    ] = None,
    validation_size: Annotated[Text, flag("validation_size")] = None,
    test_size: Annotated[Text, flag("test_size")] = None,
    drop_rare: Annotated[Text, flag("drop_rare")] = None,
    normalise: Annotated[Text, flag("normalise")] = None,
    image_size: Annotated[Text, flag("image_size")] = None,
    show_columns: Annotated[
        bool,
        typer.Option(
            "--show-columns",
            help="Say of every column what it is taken for.",
            rich_help_panel=options.COLUMNS,
        ),
    ] = False,
    # What is trained, and how.
    model: Annotated[Text, flag("model")] = None,
    class_weight: Annotated[Text, flag("class_weight")] = None,
    precision: Annotated[Text, flag("precision")] = None,
    device: Annotated[Text, flag("device")] = None,
    seed: Annotated[Text, flag("seed")] = None,
    C: Annotated[Text, flag("C")] = None,
    Cs: Annotated[Text, flag("Cs")] = None,
    hidden: Annotated[Text, flag("hidden")] = None,
    members: Annotated[Text, flag("members")] = None,
    bins: Annotated[Text, flag("bins")] = None,
    activation: Annotated[Text, flag("activation")] = None,
    dropout: Annotated[Text, flag("dropout")] = None,
    loss: Annotated[Text, flag("loss")] = None,
    label_smoothing: Annotated[Text, flag("label_smoothing")] = None,
    optimizer: Annotated[Text, flag("optimizer")] = None,
    learning_rate: Annotated[Text, flag("learning_rate")] = None,
    momentum: Annotated[Text, flag("momentum")] = None,
    l2: Annotated[Text, flag("l2")] = None,
    schedule: Annotated[Text, flag("schedule")] = None,
    decay: Annotated[Text, flag("decay")] = None,
    batch_size: Annotated[Text, flag("batch_size")] = None,
    epochs: Annotated[Text, flag("epochs")] = None,
    patience: Annotated[Text, flag("patience")] = None,
    minutes: Annotated[Text, flag("minutes")] = None,
    averaging: Annotated[Text, flag("averaging")] = None,
    clip_norm: Annotated[Text, flag("clip_norm")] = None,
    report_every: Annotated[Text, flag("report_every")] = None,
    # Where it is kept.
    name: Annotated[
        Text, _of_run(help="The run's name.  [default: the source's]", metavar="NAME")
    ] = None,
    out: Annotated[str, _of_run(help="The folder of the run folders.", metavar="FOLDER")] = "runs",
    preset: Annotated[
        Text,
        _of_run(
            help="A whole recipe by name: tutorial, the classic PyTorch tutorial's.",
            metavar="NAME",
            autocompletion=_presets,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        _of_run(help="Repeat the run of this config.json; options override it.", metavar="FILE"),
    ] = None,
    resume: Annotated[bool, _of_run("--resume", help="Go on with a stopped run.")] = False,
    overwrite: Annotated[bool, _of_run("--overwrite", help="Replace a run.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a classifier on SOURCE and save it as a run folder."""
    arguments: dict[str, Any] = {"target": target, "features": features, "test": test}
    arguments |= _values(context)
    arguments = {k: v for k, v in arguments.items() if v is not None}
    asked: dict[str, Any] = {
        "preset": preset,
        "config": config,
        "name": name,
        "out": out,
        "resume": resume,
        "overwrite": overwrite,
    }
    # Before anything heavy is imported; `fitting.train` looks again.
    make_plan(source, **asked, arguments=arguments)
    with quickly():
        from luce import fitting
        from luce.progress import Display

    display = Display(sys.stderr, show_columns=show_columns)
    run = fitting.train(
        source,
        **asked,
        display=display,
        announce=lambda run: _print_result(run, as_json=as_json),
        **arguments,
    )
    if as_json:
        return
    wanted = run.config["request"]
    scored = ("evaluate", run.path, wanted["test"] or wanted["source"])
    _next(
        f"{run.path} holds the run; open {run.path / 'report.html'} in a browser.",
        *(scored if run.metrics["test"] else ("info", run.path)),
    )


def _values(context: typer.Context) -> dict[str, Any]:
    """Return the values of the options that were given and that `options` describes."""
    return {
        name: options.read(name, text, called=_flag(name))
        for name, text in context.params.items()
        if text is not None and options.named(name)
    }


@app.command(cls=Command)
def evaluate(
    run: RunFolder,
    source: Source,
    target: Target = None,
    features: Features = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score RUN on SOURCE, as a whole and class by class."""
    check_use(run, source)
    from luce import printing
    from luce.run import load_run

    figures = load_run(run).evaluate(source, target=target, features=features)
    if as_json:
        _print_json(figures)
        return
    _print([f"{run} on {figures['scored_on']}:", "", *printing.evaluation(figures)])
    _report_handled(figures["handled"])
    _next("", "predict", run, source)


@app.command(cls=Command)
def predict(
    context: typer.Context,
    run: RunFolder,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="As for train; - is a CSV on standard input.",
            autocompletion=_sources,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write there instead of to standard output."),
    ] = None,
    top: Annotated[Text, flag("top")] = None,
    sets: Annotated[Text, flag("sets")] = None,
    no_calibration: Annotated[
        bool, typer.Option("--no-calibration", help="The probabilities as they were learnt.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Predict every row of SOURCE, with probabilities, as CSV."""
    asked = _values(context)
    check_use(run, None if source == "-" else source)
    from luce.predicting import write_predictions
    from luce.run import load_run

    written = write_predictions(
        load_run(run), source, out=out, calibrated=not no_calibration, **asked
    )
    _report_handled(written.handled, written.notices)
    _next(f"{written.rows:,} rows predicted.", "info", run)


@app.command(cls=Command)
def report(
    run: RunFolder,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="As for train.  [default: what the run was trained on]",
            autocompletion=_sources,
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
    from luce.run import load_run

    made = load_run(run).report(source, target=target, features=features)
    if as_json:
        _print_json(made.summary)
        return
    _next(f"{made.save(out)} holds the report; open it in a browser.", "predict", run, "SOURCE")


@app.command(cls=Command)
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
    check_use(run)
    from luce.run import load_run

    content = load_run(run).info()
    _print_json(content) if as_json else _print(printing.information(content))


@app.command("warm-up", cls=Command)
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


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Softmax classification, solved: labelled data in, trustworthy probabilities out."""
    if context.invoked_subcommand is None:
        _print([context.get_help()])


# -------------------------------------------------------------------------------------------------


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
    _see_to_streams()
    if sys.argv[1:2] == ["--show-completion"] and len(sys.argv) == 3:
        # Alone, the option is typer's, which finds out what shell it runs in.
        os.environ["_LUCE_COMPLETE"] = f"source_{sys.argv[2]}"
    # GNU OpenMP's idle threads spin for milliseconds by default. On a machine that others use too,
    # that made training 10 to 50 times slower; docs/log.md has the measurement.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        status = app(prog_name="luce", standalone_mode=False)
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
        where = f"{error.filename}: " if error.filename else ""
        status = _fail(f"{where}{error.strerror or error}.", 1)
    except Exception as error:
        # Typer's own: a wrong option or argument. Newer versions no longer derive them from click.
        if debug or not hasattr(error, "format_message"):
            raise
        where = getattr(getattr(error, "ctx", None), "command_path", "luce")
        said = error.format_message().rstrip()
        end = "" if said.endswith((".", "?")) else "."
        status = _fail(f"{said}{end} See: {where} --help", 2)
    sys.exit(status if isinstance(status, int) else 0)


def _see_to_streams() -> None:
    """Give messages somewhere to go where they have not, and end if the result has not."""
    if sys.stderr is None:  # closed; there is nobody to say anything to
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    if sys.stdout is None:
        # The next file that is opened would take its place.
        sys.exit(_fail("standard output is closed; give it a file or /dev/null.", 1))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What an old terminal's encoding lacks, or a file's name cannot say, is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"luce: {' '.join(message.split())}\n")
    return status
