"""How values and counts are written in messages: quoted, cut, safe to print. Light."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["closest", "counted", "in_bytes", "listed", "shown"]


def shown(value: object, limit: int = 40) -> str:
    """Return `value` in quotes, cut to `limit` and safe to print on a terminal."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    quoted = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"'{quoted}'" if isinstance(value, str) else quoted


def counted(count: int, noun: str) -> str:
    """Return the count and the noun, in the plural where it is one.

    Examples
    --------
    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}" + "s" * (count != 1)


def listed(values: Sequence[Any], limit: int = 5, width: int = 40, total: int | None = None) -> str:
    """Return the first few values in a row, and how many more there are of `total`."""
    hidden = (len(values) if total is None else total) - min(limit, len(values))
    more = f" and {hidden:,} more" if hidden else ""
    return ", ".join(shown(value, width) for value in values[:limit]) + more


def in_bytes(size: float) -> str:
    """Return a number of bytes in the unit that suits it.

    Examples
    --------
    >>> in_bytes(512), in_bytes(3.14e12)
    ('512 B', '3.1 TB')
    """
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    place = min(len(units) - 1, max(0, math.floor(math.log10(max(1, size)) / 3)))
    return f"{size:.0f} B" if place == 0 else f"{size / 1000**place:,.1f} {units[place]}"


def closest(name: str, names: list[str]) -> str:
    """Return a sentence with the names most like `name`, or with all of them."""
    folded = {each.lower(): each for each in names}
    like = [folded[f] for f in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    return (
        f"Did you mean {' or '.join(map(shown, like))}?" if like else f"It has {listed(names, 10)}."
    )
