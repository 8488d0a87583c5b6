"""luce info and luce warm-up: a run in a page of text; what is installed, and compiled."""

from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from luce.cli.arguments import AsJson, Debug
from luce.cli.output import print_json, print_lines
from luce.importing import for_command
from luce.plan import check_use

__all__ = ["info", "warm_up"]


def info(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run folder.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what RUN is; without one, what this installation can do."""
    from luce import printing

    if run is None:
        from luce.compiling import compiled
        from luce.kernels import available
        from luce.training.environment import environment

        kernels = compiled()
        content = {**environment(), "backends": available(), "compiled": asdict(kernels)}
        if find_spec("triton"):
            content["packages"]["triton"] = version("triton")
        print_json(content) if as_json else print_lines(printing.environment(content))
        return
    check_use(run)
    with for_command():
        from luce.run import load_run

    content = load_run(run).info()
    print_json(content) if as_json else print_lines(printing.information(content))


def warm_up(as_json: AsJson = False, debug: Debug = False) -> None:
    """Compile the kernels that most fits and losses need, once: for images of containers."""
    from luce import compiling, printing

    def told(name: str, seconds: float) -> None:
        typer.echo(f"{name}: {seconds:.1f} s", err=True)

    found = compiling.warm_up(told)
    print_json(asdict(found)) if as_json else print_lines(printing.kernels(asdict(found)))
