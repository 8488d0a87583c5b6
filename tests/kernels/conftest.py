"""Kernel sets that tests ask for by name."""

from tests.interpreter import interpreted

__all__ = ["interpreted"]
