"""The command line: parse, make one library call, print. Nothing heavy is imported before that.

A command is a file with a function, and a line in program.py.
"""

from luce.cli.program import main

__all__ = ["main"]
