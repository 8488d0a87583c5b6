"""Arguments and options that several commands share."""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from luce import options

__all__ = [
    "A_SOURCE",
    "AsJson",
    "Config",
    "Debug",
    "Download",
    "Features",
    "Name",
    "Out",
    "Overwrite",
    "RunFolder",
    "ShowColumns",
    "Source",
    "Target",
    "Test",
    "Text",
    "TextColumns",
    "as_typed",
    "flag",
    "of_data",
    "of_run",
    "requested",
    "sources",
    "values",
    "with_options",
]


def flag(name: str, *, help: str | None = None) -> Any:
    """Return the command-line option of a name in `options`: its value is text, read later.

    A command whose default is another says so in its own `help`.
    """
    option = options.named(name)[0]
    return typer.Option(
        _flag(name),
        help=option.help if help is None else help,
        metavar=option.kind.form,
        rich_help_panel=option.group or None,
        autocompletion=lambda incomplete: [
            choice for choice in option.kind.choices if choice.startswith(incomplete)
        ],
    )


def _flag(name: str) -> str:
    name = {"types": "type"}.get(name, name)
    return f"--{name.replace('_', '-')}"


# An option and its value as Python writes them, a word of its own. What stands in quotes or is part
# of a path are a user's own words: quotes are found first, and left.
_GIVEN = re.compile(r"""(?<!\w)'[^']*'|(?<![^\s(])(\w+)=('[^']*'|[\w.+-]*\w)(?=[\s,.:;)]|$)""")


def as_typed(message: str) -> str:
    """Return a library's message with options as they are typed here.

    Examples
    --------
    >>> from luce.cli.arguments import as_typed
    >>> as_typed("focal_gamma=1.0 needs loss='focal', got loss='hinge'.")
    '--focal-gamma 1.0 needs --loss focal, got --loss hinge.'
    """

    def typed(found: re.Match[str]) -> str:
        name, value = found.groups()
        known = name is not None and any(option.does for option in options.named(name))
        return f"{_flag(name)} {value.strip(chr(39))}" if known else found.group()

    return _GIVEN.sub(typed, message)


def of_data(*names: str, help: str, **more: Any) -> Any:
    """Return an option that help lists under the data."""
    return typer.Option(*names, help=help, rich_help_panel=options.DATA, **more)


def of_run(*names: str, help: str, **more: Any) -> Any:
    """Return an option that help lists under the run."""
    return typer.Option(*names, help=help, rich_help_panel="Run", **more)


def sources(incomplete: str) -> list[str]:
    """Complete the names of data sets; where there is none, the shell completes files."""
    from luce.data.kinds import NAMES

    return [name for name in NAMES if incomplete and name.startswith(incomplete)]


Text = str | None
A_SOURCE = typer.Argument(
    metavar="SOURCE",
    help="digits, mnist or fashion-mnist; a CSV, TSV, JSON Lines, Parquet, Arrow or Excel file, or "
    "a folder or pattern of them, also at an address such as s3://bucket/rows/*.parquet; NPZ, NPY "
    "or IDX; or a folder of images with one sub-folder per class.",
    autocompletion=sources,
)
Source = Annotated[str, A_SOURCE]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder: runs/digits.")]
Target = Annotated[
    Text,
    of_data(
        help="Where the labels are: the column of a table, the array of an NPZ, a file.",
        metavar="NAME",
    ),
]
Test = Annotated[
    Text,
    of_data(help="A source of separate test rows.", metavar="SOURCE", autocompletion=sources),
]
Download = Annotated[
    bool, of_data("--download", help="Fetch a SOURCE of the web (https://), once.")
]
TextColumns = Annotated[
    Text,
    typer.Option(
        "--text",
        help="Columns of text: short for --type COLUMN=text.",
        metavar=options.NAMES.form,
        rich_help_panel=options.COLUMNS,
    ),
]
ShowColumns = Annotated[
    bool,
    typer.Option(
        "--show-columns",
        help="Say of every column what it is taken for.",
        rich_help_panel=options.COLUMNS,
    ),
]
Name = Annotated[Text, of_run(help="The run's name.  [default: the source's]", metavar="NAME")]
Out = Annotated[str, of_run(help="The folder of the run folders.", metavar="FOLDER")]
Config = Annotated[
    Path | None,
    of_run(help="Repeat the run of this config.json; options override it.", metavar="FILE"),
]
Overwrite = Annotated[bool, of_run("--overwrite", help="Replace a run.")]
Features = Annotated[
    Text, of_data(help="The features' array in an NPZ file.  [default: X]", metavar="NAME")
]
HERE = "  [default: this process]"
Address = Annotated[Text, flag("address")]
Timeout = Annotated[Text, flag("timeout")]
TaskTimeout = Annotated[Text, flag("task_timeout")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]


def with_options(
    *names: str, helps: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options that `luce.options` describes to a command, behind its --download.

    Parameters
    ----------
    *names : str
        In the order of the help; of a name that comes twice, the last place counts. Those that are
        Python's alone are left out.
    helps : mapping of str to str, optional
        What help says of some, where the command has other defaults.

    The function finds their values in the context.
    """
    last = [name for place, name in enumerate(names) if name not in names[place + 1 :]]
    hints = {
        name: Annotated[Text, flag(name, help=(helps or {}).get(name))]
        for name in last
        if options.named(name)[0].does
    }

    def added(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function)
        parameters = [
            each.replace(kind=each.KEYWORD_ONLY)
            for each in own.parameters.values()
            if each.kind is not each.VAR_KEYWORD
        ]
        at = [each.name for each in parameters].index("download") + 1
        parameters[at:at] = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
            for name, hint in hints.items()
        ]
        function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        function.__annotations__.update(hints)
        return function

    return added


def requested(context: typer.Context) -> dict[str, Any]:
    """Return what of a training's arguments was given: where the data are, and `values`."""
    found: dict[str, Any] = {
        name: context.params.get(name) for name in ("target", "features", "test")
    }
    found |= values(context)
    text = context.params.get("text")
    if text is not None:
        kinds = dict.fromkeys(options.read("drop", text, called="--text"), "text")
        found["types"] = {**kinds, **found.get("types", {})}
    return {name: value for name, value in found.items() if value is not None}


def values(context: typer.Context) -> dict[str, Any]:
    """Return the values of the options that were given and that `options` describes."""
    return {
        name: options.read(name, text, called=_flag(name))
        for name, text in context.params.items()
        if isinstance(text, str) and options.named(name)
    }
