"""luce serve: runs behind HTTP."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luce.cli.arguments import Debug, Text, flag, values
from luce.cli.output import print_lines
from luce.errors import ArgumentError, MissingExtraError
from luce.plan import check_use

if TYPE_CHECKING:
    from luce.serving.application import Application

__all__ = ["EXAMPLES", "serve"]

EXAMPLES = """Examples:
  luce serve runs/digits
  luce serve runs/digits runs/penguins --port 8080 --sets 0.9
  LUCE_TOKEN=secret luce serve runs/penguins --host 0.0.0.0 --log asked
"""

TOKEN = "LUCE_TOKEN"  # noqa: S105 - the variable's name


def serve(
    context: typer.Context,
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, such as runs/digits.")
    ],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="0.0.0.0 is every address of this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="0 is any that is free.")
    ] = 8000,
    sets: Annotated[
        Text, flag("sets", help="Answer sets that hold the true class this often, such as 0.95.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Clients must send what is in FILE as bearer token.  [default: ${TOKEN}]",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let pages of ORIGIN ask; can be given again."),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep inputs and predictions there, as Parquet."),
    ] = None,
    body_limit: Annotated[
        float, typer.Option(metavar="MB", min=0.001, max=10_000, help="The longest body.")
    ] = 10.0,
    debug: Debug = False,
) -> None:
    """Answer predictions over HTTP, and on a page to play with."""
    asked = values(context)
    for run in runs:
        check_use(run, None)
    token = _token(token_file)
    # One thread predicts: to hand a few rows to others costs more than they do.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    try:
        from luce.serving.limits import Limits
        from luce.serving.server import serve as start
    except ModuleNotFoundError as error:
        if error.name not in {"starlette", "uvicorn", "httptools", "anyio"}:
            raise
        raise MissingExtraError(
            f'luce serve needs {error.name}. Install it: pip install "luce[serve]".'
        ) from error
    start(
        runs,
        host=host,
        port=port,
        coverage=asked.get("sets"),
        token=token,
        origins=cors or (),
        log=log,
        limits=Limits.of_bodies(round(body_limit * 1e6)),
        announce=_announce,
    )
    sys.stderr.write("stopped.\n")


def _announce(address: str, application: "Application") -> None:
    """Say where the server is, and what it has."""
    print_lines([address])
    sys.stdout.flush()
    for served in application.runs.all:
        name = served.name
        sys.stderr.write(f"serving {name} ({served.sha256[:12]}) at {address}/v1/models/{name}\n")
        if served.run.reference is None:
            sys.stderr.write(f"note: {name} has no reference.json, so /metrics has no drift.\n")
    sys.stderr.write(
        f"Open {address}/ in a browser, or see {address}/openapi.json. Ctrl-C stops it.\n"
    )


def _token(file: Path | None) -> str | None:
    """Return what clients must show: never from the command line, which everybody can read."""
    if file is None:
        token = os.environ.get(TOKEN)
        if token is not None and not token.strip():
            raise ArgumentError(f"{TOKEN} is empty. Give it a token, or unset it.")
        return None if token is None else token.strip()
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ArgumentError(f"--token-file {file} cannot be read: {why}.") from error
    if not token:
        raise ArgumentError(f"--token-file {file} is empty. Write the token into it.")
    return token
