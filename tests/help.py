"""Write what each command's ``--help`` says into docs/command-line.md: ``python -m tests.help``.

tests/test_docs.py runs the same commands and compares.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"
BLOCK = re.compile(r"(```console\n\$ luce (.*)--help\n)(?:.*\n)*?(```\n)")


def said(command):
    """Return what ``luce COMMAND --help`` writes in 80 columns."""
    return subprocess.run(
        [sys.executable, "-m", "luce", *command.split(), "--help"],
        env={**os.environ, "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def commands():
    """Return the names of all commands, from the list in the help."""
    return re.findall(r"^  ([a-z][a-z-]*)  ", said("").split("Commands:")[1], re.MULTILINE)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        BLOCK.sub(lambda found: f"{found[1]}{said(found[2])}{found[3]}", page), encoding="utf-8"
    )
