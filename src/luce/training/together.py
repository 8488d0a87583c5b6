"""What the processes of a group settle before they train together: rank 0 looks, and tells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, TypeVar

from luce.errors import DataError
from luce.group import Group
from luce.plan import Plan
from luce.request import Request

__all__ = ["check_same", "in_turn", "told"]

T = TypeVar("T")


def told(plan: Plan, group: Group) -> Plan:
    """Return the plan that rank 0 has: it alone has looked into the run folder."""
    if group.size == 1:
        return plan
    request, resume, overwrite = group.told([asdict(plan.request), plan.resume, plan.overwrite])
    return replace(plan, request=Request.from_json(request), resume=resume, overwrite=overwrite)


def in_turn(prepare: Callable[[], T], group: Group, *, cached: bool) -> T:
    """Return prepared data; what one process of a machine puts into a cache the others find there.

    Parameters
    ----------
    prepare : callable
        Reads and prepares the data.
    group : Group
        The processes.
    cached : bool
        Whether the work is kept on the disk. If it is not, all prepare at once.
    """
    found: list[T] = []
    first = group.size == 1 or os.environ.get("LOCAL_RANK", str(group.rank)) == "0"
    for turn in (True, False):
        with group.agreed():
            if not found and (first is turn or not cached):
                found.append(prepare())
    return found[0]


def check_same(group: Group, data: Mapping[str, Any]) -> None:
    """See that all ranks have read the same data.

    Raises
    ------
    DataError
        On all ranks, if one has not.
    """
    said = group.each(dict(data))
    with group.agreed():
        for rank, each in enumerate(said):
            if each != said[0]:
                raise DataError(
                    f"rank {rank} of {group.size} found other data in {data['name']} than rank 0. "
                    "Give all of them the same source, whole: on every machine, or on a disk that "
                    "all share."
                )
