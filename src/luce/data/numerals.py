"""How numbers are written in text: decimal comma or point, thousands separators, units.

What is found out about a column of a training source is stored in its schema entry, and any other
source is read so.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PLAIN", "Numerals", "guess", "plainly"]

CURRENCIES = ("usd", "eur", "gbp", "chf", "jpy", "cny", "inr", "us$", "a$", "c$", "r$", "kr", "zł")

LONGEST_UNIT = 16

ENOUGH = 0.95

# A number with whatever stands before and after; spaces and minus signs are made plain before.
_PARTS = re.compile(
    r"(?P<before>[^\d.,]*?)(?P<number>[+-]?(?:\d[\d.,' ]*\d|\d|[.,]\d+)[.,]?(?:[eE][+-]?\d+)?)"
    r"(?P<after>|[^\d.,' ].*| [^\d.,' ].*)"
)

# The rest of a date or of a time, which many rows may share.
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_NO_UNIT = re.compile(rf":\d|[-/].*[-/].*\d|.*\d{{4}}|(?i:{_MONTHS})[^\W\d_]* \d{{2}}\b")


class Numerals(NamedTuple):
    """How the numbers of a column are written.

    Attributes
    ----------
    decimal : {".", ","}
        What comes before the fraction.
    thousands : bool
        Whether digits may stand in groups of three, with a comma (a point, if the decimal is a
        comma), a blank or an apostrophe between them.
    unit : str
        What stands before or after the number, and is the same in all: ``$``, ``%``, ``kg``.
    """

    decimal: str = "."
    thousands: bool = False
    unit: str = ""


PLAIN = Numerals()


def plainly(texts: pl.Series, numerals: Numerals) -> pl.Series:
    """Return texts with the numbers as Polars reads them, null where there is none.

    Examples
    --------
    >>> plainly(pl.Series(["$1,234.50", "-$3", "4"]), Numerals(".", True, "$")).to_list()
    ['1234.50', '-3', '4']
    >>> plainly(pl.Series(["1.234,5", "0,13", "1.5"]), Numerals(",", True)).to_list()
    ['1234.5', '0.13', None]
    """
    text = pl.col("x").str.replace_all("[\u00a0\u202f]", " ").str.replace("\u2212", "-")
    if numerals.unit:
        text = text.str.replace(numerals.unit, "", literal=True).str.strip_chars()
        text = text.str.replace(r"^([+-])\s+", "$1")
    text = text.str.replace(r"^\((.*)\)$", "-$1")
    point = "\\" + numerals.decimal
    shapes = [rf"\d*(?:{point}\d*)?(?:[eE][+-]?\d+)?", r"(?i:inf|infinity|nan)"]
    if numerals.thousands:
        groups = ([","] if numerals.decimal == "." else [r"\."]) + [" ", "'"]
        shapes += [rf"\d{{1,3}}(?:{g}\d{{2,3}})*{g}\d{{3}}(?:{point}\d*)?" for g in groups]
    fine = text.str.contains(rf"^[+-]?(?:{'|'.join(shapes)})$")
    plain = text
    if numerals.thousands:
        plain = plain.str.replace_all("[ ']" if numerals.decimal == "," else "[ ',]", "")
    if numerals.decimal == ",":
        plain = plain.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    return texts.alias("x").to_frame().select(pl.when(fine).then(plain))["x"].alias(texts.name)


def guess(texts: Iterable[str]) -> tuple[Numerals, bool] | None:
    """Return how numbers are written in texts that Polars does not read, and whether that is sure.

    It is not sure of ``1,234``, which may be a thousand or one and a fraction. None says that these
    are no numbers.

    Examples
    --------
    >>> guess(["0,13", "12,5"])
    (Numerals(decimal=',', thousands=True, unit=''), True)
    >>> guess(["1,234 kg", "2,500 kg"])
    (Numerals(decimal='.', thousands=True, unit='kg'), False)
    >>> guess(["zone 3", "zone 4"])
    """
    units, votes, read, total, grouped = Counter[str](), Counter[str](), 0, 0, False
    for raw in texts:
        total += 1
        text = re.sub("[\u00a0\u202f]", " ", raw).replace("\u2212", "-").strip()
        if text.startswith("(") and text.endswith(")"):
            text = text[1:-1]
        found = _PARTS.fullmatch(text)
        if found is None:
            continue
        before, after = found["before"].strip(" +-"), found["after"].strip()
        if before and not (_is_currency(before) and not after):
            continue
        if len(after) > LONGEST_UNIT or _NO_UNIT.match(after):
            continue
        read += 1
        units[before or after] += 1
        number = re.sub("[eE].*", "", found["number"]).lstrip("+-")
        decimal, groups = _decimal(number)
        grouped = grouped or groups
        votes[decimal] += 1
    if not read or read < ENOUGH * total:
        return None
    units.pop("", None)
    unit, most = units.most_common(1)[0] if units else ("", 0)
    if most < ENOUGH * units.total():
        return None
    commas, points = votes[","], votes["."]
    if min(commas, points) > (1 - ENOUGH) * read:
        return None
    decimal = "," if commas > points else "."
    unsure = not commas and not points and bool(votes["?,"] or votes["?."])
    # Where a comma comes before the fraction, nothing else than thousands is before a point.
    thousands = grouped or decimal == "," or bool(votes["?,"])
    return Numerals(decimal, thousands, unit), not unsure


def _is_currency(text: str) -> bool:
    return text.lower() in CURRENCIES or all(unicodedata.category(c) == "Sc" for c in text)


def _decimal(number: str) -> tuple[str, bool]:
    """Return what a number says of the decimal, and whether it surely has groups of digits.

    A comma or a point says that it is the decimal; "" says nothing; "?," is a single comma before
    three digits, "?." a single point.
    """
    grouped = " " in number or "'" in number
    number = re.sub("[ ']", "", number)
    if "," in number and "." in number:
        return (",", True) if number.rfind(",") > number.rfind(".") else (".", True)
    for mark, other in ((",", "."), (".", ",")):
        if number.count(mark) > 1:
            return other, True
        if mark in number:
            whole, fraction = number.split(mark)
            if len(fraction) != 3 or len(whole) > 3 or whole in ("", "0") or grouped:
                return mark, grouped
            return f"?{mark}", False
    return "", grouped
