"""Passages of a long text, with the words marked that made the model choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from luce.report.text import name

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["excerpt"]

# How many terms are marked, how many passages they are shown in, and the letters around each.
MARKED, PASSAGES, AROUND = 6, 3, 45


def excerpt(text: str, scored: Sequence[tuple[int, int, float]]) -> list[dict[str, Any]]:
    """Return the passages around the terms that say the most, in order; else the beginning.

    Parameters
    ----------
    text : str
        The whole text.
    scored : sequence of (int, int, float)
        Where a term begins and ends, and how much it speaks for what the model chose.

    Returns
    -------
    list of dict
        Pieces of the text, ``text`` and whether it is ``marked``.

    Examples
    --------
    >>> [(each["text"], each["marked"]) for each in excerpt("a good film", [(2, 6, 1.5)])]
    [('a ', False), ('good', True), (' film', False)]
    """
    firsts: dict[str, tuple[int, int, float]] = {}
    for each in sorted((each for each in scored if each[2] > 0), key=lambda each: -each[2]):
        firsts.setdefault(text[each[0] : each[1]].lower(), each)
    chosen = dict(list(firsts.items())[:MARKED])
    places = _together(
        sorted((start, stop) for start, stop, _ in scored if text[start:stop].lower() in chosen)
    )
    windows: list[tuple[int, int]] = []
    for start, _, _ in chosen.values():
        around = _window(text, start, max(stop for first, stop in places if first <= start))
        if len(_together(sorted([*windows, around]))) <= PASSAGES:
            windows.append(around)
    shown = _together(sorted(windows)) or [_window(text, 0, 2 * AROUND)]
    pieces: list[dict[str, Any]] = []

    def add(start: int, stop: int, *, marked: bool) -> None:
        if start < stop:
            # Cut in pieces no longer than a name may be.
            cuts = range(start, stop, 50)
            parts = (name(text[at : min(at + 50, stop)]) for at in cuts)
            pieces.extend({"text": part, "marked": marked} for part in parts)

    for number, (first, last) in enumerate(shown):
        if number or first:
            pieces.append({"text": "… " if not number else " … ", "marked": False})
        at = first
        for start, stop in places:
            if first <= start and stop <= last:
                add(at, start, marked=False)
                add(start, stop, marked=True)
                at = stop
        add(at, last, marked=False)
    if shown[-1][1] < len(text):
        pieces.append({"text": " …", "marked": False})
    return pieces


def _window(text: str, start: int, stop: int) -> tuple[int, int]:
    """Return the range with some letters around, from and to a blank where there is one."""
    first, last = max(0, start - AROUND), min(len(text), stop + AROUND)
    if first:
        blank = text.find(" ", first, start)
        first = blank + 1 if blank >= 0 else first
    if last < len(text):
        blank = text.rfind(" ", stop, last)
        last = blank if blank >= 0 else last
    return first, last


def _together(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return sorted ranges with those made one that overlap."""
    merged: list[tuple[int, int]] = []
    for start, stop in ranges:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
