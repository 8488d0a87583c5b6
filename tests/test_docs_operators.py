"""docs/operators.md: every example runs."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "operators.md"


def test_every_example_of_the_operators_page_runs():
    """The page's code blocks run from top to bottom, assertions included."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 7
    exec("\n".join(blocks), {"__name__": "operators"})
