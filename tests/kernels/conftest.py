"""Kernel sets that tests ask for by name."""

from tests.interpreter import fused, interpreted

__all__ = ["fused", "interpreted"]
