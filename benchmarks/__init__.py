"""Ours beside the peers, in one run: ``python -m benchmarks NAME``."""

import os

# OpenMP binds the main thread to one core, which every process that is started from it inherits.
# It gets back those that the first one had, by name: a call between fork and exec would have
# OpenBLAS stop its threads for the fork and start them again, on the one core, here.
_CORES = "LUCE_BENCH_CORES"
if hasattr(os, "sched_setaffinity"):
    if _CORES in os.environ:
        os.sched_setaffinity(0, map(int, os.environ[_CORES].split(",")))
    os.environ[_CORES] = ",".join(map(str, os.sched_getaffinity(0)))
