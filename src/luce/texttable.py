"""Rows of text → aligned lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["table"]


def table(rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return a line for each row; all columns but the first `left` are aligned to the right.

    Examples
    --------
    >>> from luce.texttable import table
    >>> table([["class", "rows"], ["a", "1,000"], ["other", "5"]])
    ['class   rows', 'a      1,000', 'other      5']
    """
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
