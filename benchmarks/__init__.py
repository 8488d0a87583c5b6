"""Ours beside the peers, in one run: ``python -m benchmarks NAME``."""

import os

# The cores of this process before OpenMP binds its main thread to one of them, which every process
# that is started from it would inherit.
CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
