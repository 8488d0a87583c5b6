"""The arithmetic of a fit of softmax regression over many rows, on one machine or on several.

A fit goes over all rows again and again. In each pass the driver sends the coefficients, each
worker reads its rows from the cache, and the sums of each lane come back: sums move, data stay. So
bytes and traffic follow from a few numbers alone. Time also takes what a machine can do (`Speeds`),
and how many passes there will be, which nobody knows before.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["BYTES", "MOST_LANES", "PASSES", "Plan", "Problem", "Speeds", "estimate"]

# The bytes of a value in the cache.
BYTES: Final = {"uint8": 1, "float16": 2, "float32": 4, "float64": 8}
# Rows are dealt into at most so many lanes, each of at least so many rows; the gradients of all
# lanes take at most so many bytes, unless these are of the fewest lanes.
MOST_LANES: Final = 256
_LANE_ROWS: Final = 1024
_SUMS_BYTES: Final = 64 << 20
_FEWEST_LANES: Final = 16
# An engine hands out about so many tasks, of some lanes each, for each core.
_TASKS_OF_A_CORE: Final = 3
# A lane takes so many seconds in each pass, however few its rows are; and a fit over lanes has so
# many passes more: looks at the weights, and the fetching of a sample.
_LANE: Final = 5e-5
_MORE_OF_LANES: Final = 1
# Of a row, beside its values: its class as int32; of a sparse row also where it begins, int32.
_CODE: Final = 4
_POINTER: Final = 4
# The place of a value in a sparse row, int32.
_PLACE: Final = 4
# L-BFGS keeps so many vectors of the coefficients' size, in float64.
_VECTORS: Final = 28
# The logits of so many rows are made at a time, and their residuals.
_BLOCK_BYTES: Final = 8 << 20
# Iterations where nothing says how many there will be: most fits of the log take 15 to 100.
PASSES: Final = 40


@dataclass(frozen=True)
class Problem:
    """What is fitted.

    Attributes
    ----------
    rows : int
        N.
    features : int
        D: encoded columns.
    classes : int
        K, at least 2.
    dtype : {"uint8", "float16", "float32", "float64"}
        Of the features as they are cached.
    values : float or None
        Of sparse rows, how many values a row has that are not zero; None for dense rows.
    source_bytes : float or None
        What a row takes in the files that it comes from; None if that is not known.
    """

    rows: int
    features: int
    classes: int
    dtype: str = "float32"
    values: float | None = None
    source_bytes: float | None = None

    @property
    def logits(self) -> int:
        """How many logits a row has: two classes share one."""
        return 1 if self.classes == 2 else self.classes

    @property
    def row_bytes(self) -> float:
        """What a row takes in the cache."""
        if self.values is None:
            return self.features * BYTES[self.dtype] + _CODE
        return self.values * (BYTES[self.dtype] + _PLACE) + _POINTER + _CODE

    @property
    def vector_bytes(self) -> int:
        """The coefficients and intercepts, float64."""
        return 8 * self.logits * (self.features + 1)

    @property
    def sent_bytes(self) -> int:
        """The coefficients and intercepts as products take them, float32."""
        return self.vector_bytes // 2

    @property
    def sums_bytes(self) -> int:
        """The sums of a lane: the loss and its gradient, float64."""
        return 8 + self.vector_bytes

    @property
    def lanes(self) -> int:
        """Into how many lanes the rows are dealt. It does not depend on the workers."""
        room = max(_FEWEST_LANES, _SUMS_BYTES // (8 * self.logits * self.features))
        return max(1, min(MOST_LANES, self.rows // _LANE_ROWS, room))


@dataclass(frozen=True)
class Speeds:
    """What one worker, its memory and its network can do.

    Attributes
    ----------
    rows : float
        Rows of the problem that a pass goes over in a second: both products and what lies between.
    cores : int
        How many of them that took. A lane is summed up by one.
    setup : float
        Seconds of a fit that do not grow with the rows.
    more : float
        Passes' worth of time that a fit takes beside its iterations: moments, and the proof in
        float64.
    encoded : float or None
        Rows that are read twice, for the schema and to be encoded, and encoded in a second, by one
        process; None if that is not known.
    looked : float
        Seconds of it that do not grow with the rows: the first look, statistics of samples.
    copied : float
        Bytes of memory that are copied in a second.
    disk : float
        Bytes that a worker reads from its disk in a second, where its rows are larger than memory.
    network : float
        Bytes that the driver sends or receives in a second.
    task : float
        Seconds that an engine takes to hand out a task and to take its sums back.
    base : float
        Bytes of a process that has loaded what it needs.
    memory : float
        Bytes of memory that a worker has.
    """

    rows: float
    cores: int
    setup: float
    more: float
    encoded: float | None
    looked: float
    copied: float
    disk: float
    network: float
    task: float
    base: float
    memory: float


@dataclass(frozen=True)
class Plan:
    """What a fit will take; every figure in bytes or seconds.

    Attributes
    ----------
    problem : Problem
    workers, passes : int
    lanes : int
    source_bytes : float or None
        All files together.
    cache_bytes : float
        All encoded rows together.
    worker_rows_bytes : float
        A worker's share of them.
    sums_bytes : int
        The sums of one lane.
    up_bytes, down_bytes : int
        To the driver and from it, in each pass.
    traffic_bytes : int
        All passes together.
    worker_bytes, driver_bytes : float
        The memory that each needs; a worker that is to keep its rows needs its share beside.
    rows_fit : bool
        Whether a worker has memory for its rows.
    pass_seconds, fit_seconds : float
    encode_seconds : float or None
        None if nothing is known of the files.
    """

    problem: Problem
    workers: int
    passes: int
    lanes: int
    source_bytes: float | None
    cache_bytes: float
    worker_rows_bytes: float
    sums_bytes: int
    up_bytes: int
    down_bytes: int
    traffic_bytes: int
    worker_bytes: float
    driver_bytes: float
    rows_fit: bool
    pass_seconds: float
    fit_seconds: float
    encode_seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def estimate(
    problem: Problem,
    speeds: Speeds,
    *,
    workers: int = 1,
    passes: int = PASSES,
    over_lanes: bool | None = None,
) -> Plan:
    """Return what a fit will take.

    Parameters
    ----------
    problem : Problem
    speeds : Speeds
        Of a worker; all are taken to be alike.
    workers : int
        How many there are. One is the driver itself, and sends nothing.
    passes : int
        Over the rows, an iteration each.
    over_lanes : bool, optional
        Whether the rows are read from a cache, by lanes; by default where there are several workers
        or memory does not hold the rows.

    Examples
    --------
    >>> from luce.costs.model import Problem, Speeds, estimate
    >>> speeds = Speeds(
    ...     rows=1e6, cores=2, setup=1, more=4, encoded=None, looked=0,
    ...     copied=1e10, disk=5e8, network=1e9, task=1e-3, base=4e8, memory=16e9,
    ... )
    >>> plan = estimate(Problem(10**9, 99, 1000), speeds, workers=64, passes=30)
    >>> plan.cache_bytes, plan.lanes, plan.sums_bytes
    (400000000000, 84, 800008)
    >>> plan.up_bytes, plan.down_bytes, plan.traffic_bytes
    (67200672, 25600000, 2784020160)
    """
    alone = workers == 1
    lanes = problem.lanes
    cache = problem.rows * problem.row_bytes
    share = cache / workers
    up = 0 if alone else lanes * problem.sums_bytes
    down = 0 if alone else workers * problem.sent_bytes
    # A worker holds the coefficients twice, once for its products; the sums of the lane that it
    # is at; and the logits of a block.
    worker = speeds.base + 2 * problem.vector_bytes + problem.sums_bytes + _BLOCK_BYTES
    driver = speeds.base + _VECTORS * problem.vector_bytes + lanes * problem.sums_bytes
    fits = worker + share <= speeds.memory
    by_lanes = not (alone and fits) if over_lanes is None else over_lanes
    reading = 0 if fits else share / speeds.disk
    if by_lanes:
        seconds = reading + _over_lanes(problem, speeds, workers, up + down)
    else:
        seconds = problem.rows / speeds.rows
    more = speeds.more + (_MORE_OF_LANES if by_lanes else 0)
    encoded = None if speeds.encoded is None else speeds.looked + problem.rows / speeds.encoded
    source = problem.source_bytes
    return Plan(
        problem=problem,
        workers=workers,
        passes=passes,
        lanes=lanes,
        source_bytes=None if source is None else problem.rows * source,
        cache_bytes=cache,
        worker_rows_bytes=share,
        sums_bytes=problem.sums_bytes,
        up_bytes=up,
        down_bytes=down,
        traffic_bytes=passes * (up + down),
        worker_bytes=worker + driver - speeds.base if alone else worker,
        driver_bytes=worker + driver - speeds.base if alone else driver,
        rows_fit=fits,
        pass_seconds=seconds,
        fit_seconds=speeds.setup + (passes + more) * seconds,
        encode_seconds=encoded,
    )


def _over_lanes(problem: Problem, speeds: Speeds, workers: int, traffic: int) -> float:
    """Return how long a pass takes: the core with the most lanes, then what the driver does."""
    lanes, cores = problem.lanes, workers * speeds.cores
    # Lanes are whole: where they are not a multiple of the cores, some cores have one more.
    most = math.ceil(lanes / cores)
    rows = problem.rows * most / lanes * speeds.cores / speeds.rows
    if workers == 1:
        return rows + most * _LANE
    tasks = min(lanes, _TASKS_OF_A_CORE * cores) * speeds.task
    added = lanes * problem.sums_bytes / speeds.copied
    return rows + most * _LANE + traffic / speeds.network + tasks + added
