"""What can be said of a search before any data are read. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luce.errors import ArgumentError
from luce.options import TUNE, check, named
from luce.plan import Plan, make_plan
from luce.training.tuning.space import Space, make_space, read_space

__all__ = ["plan_tuning"]


def plan_tuning(
    source: Any,
    *,
    grid: Any = None,
    space: Any = None,
    trials: int | None = None,
    minutes: float | None = None,
    folds: int | None = None,
    processes: int = 1,
    preset: str | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    arguments: Mapping[str, Any],
) -> tuple[Plan, Space]:
    """Check what `tune` was given, and return what is to be done and what is searched.

    Raises
    ------
    ArgumentError
        If an argument is not allowed.
    """
    if grid is not None and space is not None:
        raise ArgumentError("grid and space exclude each other: a grid is searched whole.")
    given = {"trials": trials, "folds": folds, "processes": processes}
    for key, value in given.items():
        if value is not None:
            check(key, value, TUNE[key].kind)
    check("minutes", minutes, named("minutes")[0].kind)
    plan = make_plan(
        source,
        command="tune",
        preset=preset,
        name=name,
        out=out,
        resume=resume,
        overwrite=overwrite,
        download=download,
        arguments=arguments,
    )
    request = plan.request
    content = grid if grid is not None else space
    if content is not None:
        content = read_space(content, called="space" if grid is None else "grid")
    # What only a preset says may be searched; what is said by itself may not.
    fixed = {
        key: value for key, value in request.options.items() if content is None or key in plan.given
    }
    searched = make_space(content, grid=grid is not None, model=request.model, options=fixed)
    return plan, searched
