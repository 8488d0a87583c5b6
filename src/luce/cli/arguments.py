"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from luce import options

__all__ = [
    "A_SOURCE",
    "AsJson",
    "Debug",
    "Features",
    "RunFolder",
    "Source",
    "Target",
    "Text",
    "flag",
    "of_data",
    "of_run",
    "sources",
    "values",
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
    "a folder or pattern of them; NPZ, NPY or IDX; or a folder of images with one sub-folder per "
    "class.",
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
Features = Annotated[
    Text, of_data(help="The features' array in an NPZ file.  [default: X]", metavar="NAME")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]


def values(context: typer.Context) -> dict[str, Any]:
    """Return the values of the options that were given and that `options` describes."""
    return {
        name: options.read(name, text, called=_flag(name))
        for name, text in context.params.items()
        if text is not None and options.named(name)
    }
