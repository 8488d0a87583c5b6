"""The command without a sub-command, and what the help of all of them looks like."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from luce.cli.output import print_lines
from luce.options import HEADINGS

__all__ = ["Command", "app"]


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
                if is_argument:  # of several values, typer adds what Python calls their type
                    record = (record[0].partition(" <")[0], record[1])
                group = getattr(parameter, "rich_help_panel", None) or "Options"
                sections.setdefault("Arguments" if is_argument else group, []).append(record)
        order = ["Arguments", *HEADINGS]
        known = sorted((each for each in sections if each in order), key=order.index)
        for heading in [*known, *(each for each in sections if each not in order)]:
            with formatter.section(heading):
                formatter.write_dl(sections[heading])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the examples."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")


app = typer.Typer(
    name="luce",
    help="Softmax classification, solved: labelled data in, trustworthy probabilities out.",
    epilog="Start with: luce train digits",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from luce import __version__

        print_lines([f"luce {__version__}"])
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
        print_lines([context.get_help()])
