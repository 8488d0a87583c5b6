"""What a fit will take, from a source or from its size alone, and what that rests on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from luce import options
from luce.costs.model import Plan, Problem, Speeds, estimate
from luce.errors import ArgumentError

if TYPE_CHECKING:
    from luce.costs.sources import Slice
    from luce.costs.speeds import Measured

__all__ = ["Planned", "check_plan", "plan"]


@dataclass(frozen=True)
class Planned:
    """A plan, and what it rests on.

    Attributes
    ----------
    plan : Plan
    speeds : Speeds
    assumptions : list of str
        A sentence each.
    """

    plan: Plan
    speeds: Speeds
    assumptions: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            **self.plan.to_json(),
            "speeds": asdict(self.speeds),
            "assumptions": self.assumptions,
        }


def check_plan(source: Any = None, **given: Any) -> None:
    """Raise ArgumentError unless `plan` can be called so; nothing heavy is imported."""
    for name, value in given.items():
        if name in options.PLAN and value is not None:
            options.check(name, value, options.PLAN[name].kind)
    values, columns = given.get("values"), given.get("columns")
    if values is not None and columns is not None and values > columns:
        raise ArgumentError(
            f"values must be at most the {columns:,} columns of a row, got {values:g}."
        )
    if source is None:
        lacks = [name for name in ("rows", "columns", "classes") if given.get(name) is None]
        if lacks:
            raise ArgumentError(
                f"A plan needs a source, or rows, columns and classes: {lacks[0]} is not given. "
                "Name a file, or say how many there are."
            )
        return
    for name in ("columns", "values", "dtype"):
        if given.get(name) is not None:
            raise ArgumentError(
                f"{name} is what the source's own first rows say: leave it out, or the source."
            )


def plan(
    source: str | None = None,
    *,
    target: str | None = None,
    features: str | None = None,
    rows: int | None = None,
    columns: int | None = None,
    classes: int | None = None,
    values: float | None = None,
    dtype: str | None = None,
    workers: int = 1,
    passes: int | None = None,
    memory: float | None = None,
    disk: float | None = None,
    network: float | None = None,
) -> Planned:
    """Return what a fit of softmax regression will take.

    A second or two of products and copies are made here to see how fast they are.

    Parameters
    ----------
    source : str, optional
        Where the rows are; the first of them are read.
    target, features : str, optional
        As for `luce.load_dataset`.
    rows, columns, classes : int, optional
        N, D (encoded columns) and K, where the source does not say or there will be more.
    values : float, optional
        Of sparse rows, how many values a row has that are not zero.
    dtype : {"float32", "float16", "uint8", "float64"}, optional
        Of the features in the cache.
    workers : int
        How many, each like this machine.
    passes : int, optional
        Iterations; by default as many as a fit of the first rows takes.
    memory, disk, network : float, optional
        A worker's memory in GB, and its disk's and the driver's network's speed in MB/s.

    Returns
    -------
    Planned

    Raises
    ------
    luce.errors.ArgumentError
        If a number is not allowed, or one is missing.
    luce.errors.DataError
        If the source cannot be read.
    """
    numbers = {"rows": rows, "columns": columns, "classes": classes, "values": values}
    speeds = {"memory": memory, "disk": disk, "network": network}
    check_plan(source, **numbers, dtype=dtype, workers=workers, passes=passes, **speeds)
    from luce.costs.speeds import measure

    sample: Slice | None = None
    said: list[str] = []
    if source is not None:
        from luce.costs.sources import first_slice

        sample = first_slice(source, target=target, features=features)
        problem = _problem(source, sample, rows, classes, said)
    else:  # check_plan saw to these
        problem = Problem(rows or 0, columns or 0, classes or 0, dtype or "float32", values)
    units = {"memory": 1e9, "disk": 1e6, "network": 1e6}
    known = {name: value * units[name] for name, value in speeds.items() if value is not None}
    found = measure(problem, sample, **known)
    planned = estimate(
        problem, found.speeds, workers=workers, passes=found.passes if passes is None else passes
    )
    return Planned(planned, found.speeds, [*said, *_assumed(planned, found, passes)])


def _problem(
    source: str, sample: Slice, rows: int | None, classes: int | None, said: list[str]
) -> Problem:
    """Return the problem of a source, scaled to so many rows and classes."""
    there = sample.rows
    if there is None and rows is None:
        raise ArgumentError(
            f"{source}: how many rows a packed file has is not seen without unpacking all of it. "
            "Give rows."
        )
    n = sample.X.shape[0]
    K = max(classes or 0, sample.classes)
    if classes is not None and classes < sample.classes:
        raise ArgumentError(
            f"classes must be at least the {sample.classes:,} that the first {n:,} rows have, got "
            f"{classes:,}."
        )
    if there is not None and not sample.exact:
        said.append(f"The source has about {there:,} rows, as long as the first ones are.")
    if classes is None and there != n:
        said.append(f"The first {n:,} rows have {K:,} classes; there may be more in the others.")
    each = None if there is None or not sample.source_bytes else sample.source_bytes / there
    return Problem(rows or there or n, sample.X.shape[1], K, sample.dtype, sample.values, each)


def _assumed(plan: Plan, found: Measured, passes: int | None) -> list[str]:
    """Return what figures rest on, a sentence each."""
    speeds: Speeds = found.speeds
    said = []
    if passes is None:
        where = (
            f"A fit of the first {found.fitted:,} rows, with the same penalty for a row, took "
            f"{found.passes:,} passes; all rows are taken to need as many."
            if found.fitted
            else f"{found.passes:,} passes are a guess: fits take 15 to 100. A source's first rows "
            "would say more, or --passes."
        )
        said.append(where)
    said.append(
        f"A worker goes over {speeds.rows:,.0f} rows in a second, as this machine did just now "
        f"with {speeds.cores:,} thread{'s' if speeds.cores > 1 else ''}."
    )
    if plan.encode_seconds is not None:
        said.append(
            "Files are read twice, for the schema and to encode them, by one process; only then "
            "do workers begin."
        )
    if plan.workers > 1:
        said.append(
            f"Coefficients go to each worker and each lane's sums to the driver, over a network of "
            f"{speeds.network / 1e6:,.0f} MB/s; a task of some lanes takes an "
            f"engine {1e3 * speeds.task:g} ms."
        )
        if plan.workers * speeds.cores > plan.lanes:
            said.append(
                f"There are {plan.lanes:,} lanes, so that no more than {plan.lanes:,} of "
                f"{plan.workers * speeds.cores:,} cores have anything to do: the sums of more "
                "lanes would be too large."
            )
    if not plan.rows_fit:
        said.append(
            f"A worker's rows do not fit in its {speeds.memory / 1e9:,.1f} GB of memory, and are "
            f"read anew in each pass, {speeds.disk / 1e6:,.0f} MB/s."
        )
    if not found.tried:
        said.append("What a fit takes beside its passes is not in the time: no fit was tried.")
    return said
