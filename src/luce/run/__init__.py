"""Runs: trained classifiers with everything that prediction needs, from their folders on disk."""

from luce.run.loading import load_run
from luce.run.run import Run

__all__ = ["Run", "load_run"]
