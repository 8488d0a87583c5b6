"""Searching models and their options by cross-validation: a space or a grid → trials → a run."""
