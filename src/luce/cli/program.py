"""The program: which commands there are, and how it ends."""

import ctypes
import io
import os
import sys
from contextlib import suppress
from typing import NoReturn

from luce.cli.app import Command, app
from luce.cli.arguments import as_typed
from luce.cli.distil import EXAMPLES as DISTILLATIONS
from luce.cli.distil import distil
from luce.cli.evaluate import evaluate
from luce.cli.export import export
from luce.cli.info import info, warm_up
from luce.cli.predict import predict
from luce.cli.report import report
from luce.cli.serve import EXAMPLES as OF_SERVING
from luce.cli.serve import serve
from luce.cli.train import EXAMPLES, train
from luce.cli.tune import EXAMPLES as OF_TUNING
from luce.cli.tune import tune
from luce.errors import ArgumentError, LuceError
from luce.group import is_silent, known

__all__ = ["main"]

# In the order of `luce --help`.
app.command("train", cls=Command, epilog=EXAMPLES)(train)
app.command("distil", cls=Command, epilog=DISTILLATIONS)(distil)
app.command("tune", cls=Command, epilog=OF_TUNING)(tune)
app.command("evaluate", cls=Command)(evaluate)
app.command("predict", cls=Command)(predict)
app.command("report", cls=Command)(report)
app.command("serve", cls=Command, epilog=OF_SERVING)(serve)
app.command("export", cls=Command)(export)
app.command("info", cls=Command)(info)
app.command("warm-up", cls=Command)(warm_up)


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
    _share_memory()
    try:
        status = app(prog_name="luce", standalone_mode=False)
        sys.stdout.flush()
    except LuceError as error:
        if debug:
            raise
        said = as_typed(str(error)) if isinstance(error, ArgumentError) else str(error)
        rank = known().rank
        said = f"rank {rank}: {said}" if rank else said
        status = error.exit_code if is_silent(error) else _fail(said, error.exit_code)
    except KeyboardInterrupt as error:
        status = 130 if is_silent(error) else _fail("interrupted.", 130)
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
        status = 2 if is_silent(error) else _fail(f"{said}{end} See: {where} --help", 2)
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


def _share_memory() -> None:
    """Have all threads allocate from one pool, where the C library is glibc.

    By default each has one of its own, which keeps tens of megabytes of what was freed.
    """
    arena_max = -8  # M_ARENA_MAX in malloc.h
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(arena_max, 1)


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"luce: {' '.join(message.split())}\n")
    return status
