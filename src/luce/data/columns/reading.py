"""Texts as ONNX nodes: what is missing, and the numbers and dates that texts stand for.

ONNX has few operators on texts: whole texts match a regular expression (of RE2) or not, are cut at
a mark, are put together, and become numbers if they are written plainly. So a text that matches is
cut, and one that does not is replaced by one that can be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from luce.data.spelling import MISSING_WORDS
from luce.nodes import BLANK, Var, constant, either, matches, ml, parts, without
from luce.nodes import strings as op

if TYPE_CHECKING:
    from luce.data.numerals import Numerals

__all__ = ["cycle_nodes", "date_nodes", "missing", "number_nodes"]

SPACES = " *"
"""Blanks around a number or a date: of others ONNX cannot rid it."""

MOST_GROUPS = 14
"""Separators between thousands in a number that float32 can hold."""

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)

DAYS_BEFORE = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
"""Days of a year before each month, and of the whole year."""


def missing(text: Var) -> Var:
    """Return whether texts are one of the ways to say "missing"."""
    # Written out: what RE2 takes for the same letter in another case goes beyond ASCII.
    words = "|".join(
        "".join(f"[{each}{each.upper()}]" if each.isalpha() else re.escape(each) for each in word)
        for word in MISSING_WORDS
    )
    return matches(text, f"{BLANK}(?:{words}){BLANK}")


def plain(text: Var) -> Var:
    """Return the numbers of texts that are written as programs write them."""
    return op.cast(text, to=np.float64)


# -------------------------------------------------------------------------------------------------
# Numbers
# -------------------------------------------------------------------------------------------------


def number_nodes(text: Var, numerals: Numerals) -> Var:
    """Return texts as numbers, as `luce.data.numerals.plainly` reads them, NaN for no number."""
    point, unit = re.escape(numerals.decimal), re.escape(numerals.unit)
    # Numbers beyond float64, which a cast would stop at, count as missing in any case.
    exponent = r"[eE](?:\+?0*\d{1,2}|-\d+)"
    shapes = [rf"(?:\d{{1,200}}(?:{point}\d*)?|{point}\d+)(?:{exponent})?"]
    group, gap = "," if numerals.decimal == "." else ".", r"[ \x{a0}\x{202f}]*"
    if numerals.thousands:
        for mark in (re.escape(group), gap[:-1], "'"):
            groups = rf"(?:{mark}\d{{2,3}}){{0,{MOST_GROUPS - 1}}}"
            shapes.append(rf"\d{{1,3}}{groups}{mark}\d{{3}}(?:{point}\d*)?")
    number = f"(?:{'|'.join(shapes)})"
    sign = r"[+\-\x{2212}]?"
    ways = [f"{sign}{number}", rf"\({number}\)"]
    if unit:
        ways += [
            f"{sign}{gap}{number}",
            f"{unit}{gap}{sign}{gap}{number}",
            f"{sign}{gap}{unit}{gap}{number}",
            f"{sign}{gap}{number}{gap}{unit}",
            rf"{unit}{gap}\({number}\)",
            rf"\({unit}{number}\)",
            rf"\({number}{unit}\)",
            rf"\({number}\){gap}{unit}",
        ]
    fine = matches(text, f"{SPACES}(?:{'|'.join(ways)}){SPACES}")
    text = op.where(fine, text, constant("0"))
    if unit:
        text = without(text, numerals.unit, 1)
    negative = matches(text, r"[^0-9.,]*[\-\x{2212}(].*")
    most = MOST_GROUPS if numerals.thousands else 3
    for mark in (" ", "\u00a0", "\u202f", *(["'", group] * numerals.thousands)):
        text = without(text, mark, most)
    for mark in ("\u2212", "(", ")"):
        text = without(text, mark, 1)
    for mark in "+-":  # that it begins with, not that of an exponent
        begun = op.where(matches(text, rf"\{mark}.*"), text, op.string_concat(constant(mark), text))
        text = op.reshape(
            op.slice(
                op.string_split(begun, delimiter=mark, maxsplit=1)[0],
                constant([1]),
                constant([2]),
                constant([-1]),
            ),
            op.shape(text),
        )
    if numerals.decimal == ",":
        whole, fraction = parts(op.string_concat(text, constant(",")), ",", 2)
        pointed = op.string_concat(op.string_concat(whole, constant(".")), fraction)
        text = op.where(matches(text, ".*,.*"), pointed, text)
    tiny = matches(text, r".*[eE]-0*[1-9]\d{2,}")
    numbers = plain(op.where(tiny, constant("0"), text))
    numbers = op.where(negative, op.neg(numbers), numbers)
    return op.where(fine, numbers, constant(np.nan, np.float64))


# -------------------------------------------------------------------------------------------------
# Dates
# -------------------------------------------------------------------------------------------------

PATTERNS = {
    "%Y": r"\d{1,4}",
    "%y": r"\d{1,2}",
    "%m": r"(?:0?[1-9]|1[0-2])",
    "%d": r"(?:0?[1-9]|[12]\d|3[01])",
    "%B": "(?:"
    + "|".join(
        f"{name[0]}{rest}(?:{tail})?|{name[0].lower()}{rest}(?:{tail})?"
        f"|{(name[0] + rest).upper()}(?:{tail.upper()})?"
        for name in MONTHS
        for rest, tail in [(name[1:3], name[3:])]
    )
    + ")",
    "%H": r"(?:[01]?\d|2[0-3])",
    "%I": r"(?:0?[1-9]|1[0-2])",
    "%M": r"[0-5]?\d",
    "%S": r"(?:[0-5]?\d|60)",
    "%.f": r"(?:\.\d+)?",
    "%p": "[aApP][mM]",
    "%#z": r"(?:[+\-](?:[01]\d|2[0-3])(?::?[0-5]\d)?|[zZ])",
}

COMPACT = {"%Y": r"\d{4}", "%m": r"(?:0[1-9]|1[0-2])", "%d": r"(?:0[1-9]|[12]\d|3[01])"}

EXAMPLES = {"%Y": "1970", "%y": "70", "%m": "1", "%d": "1", "%B": "Jan", "%H": "0", "%I": "12"}
EXAMPLES |= {"%M": "0", "%S": "0", "%.f": "", "%p": "AM", "%#z": "Z"}

DIRECTIVE = re.compile("%[.#]?[a-zA-Z]")


def date_nodes(text: Var, formats: Sequence[str]) -> Var:
    """Return days since 1970 of texts in one of the formats, NaN for no such date.

    Formats that come together must all begin with ``%Y-%m-%d``.
    """
    compact = formats[0] == "%Y%m%d"
    patterns = [
        "".join(
            (COMPACT if compact else PATTERNS)[part] if part.startswith("%") else re.escape(part)
            for part in re.findall("%[.#]?[a-zA-Z]|[^%]", each)
        )
        for each in formats
    ]
    fine = matches(text, f"{SPACES}(?:{'|'.join(patterns)}){SPACES}")
    example = DIRECTIVE.sub(lambda part: EXAMPLES[part[0]], formats[0])
    text = op.where(fine, text, constant("19700101" if compact else example))
    if compact:
        number = plain(text)
        year, rest = _divided(number, 10_000)
        month, day = _divided(rest, 100)
        fields = {"%Y": year, "%m": month, "%d": day}
    else:
        fields = _fields(text, formats)
    year = fields["%Y"] if "%Y" in fields else _century(fields["%y"])
    month, day = fields["%m"], fields["%d"]
    days, last = _days(year, month, day)
    fine = op.and_(fine, op.less_or_equal(day, last))
    seconds = fields.get("seconds")
    if seconds is not None:
        days = op.add(days, op.div(seconds, constant(86_400, np.float64)))
    return op.where(fine, days, constant(np.nan, np.float64))


def _fields(text: Var, formats: Sequence[str]) -> dict[str, Var]:
    """Return the parts of dates: year, month, day, and seconds since midnight, UTC."""
    if any("T" in each for each in formats):
        text = _first_as_space(text, "T")
    longest = max(formats, key=len).replace("T", " ").split(" ")
    if len(formats) > 1:  # some have no time of day
        text = op.string_concat(text, constant(" 0:0"))
    pieces = parts(text, "", len(longest))
    fields: dict[str, Var] = {}
    for piece, written in zip(pieces, longest, strict=True):
        directives = DIRECTIVE.findall(written)
        if "%M" in directives:
            fields["seconds"] = _seconds(piece, "%#z" in written or len(formats) > 1)
        elif directives == ["%p"]:
            twelve = constant(43_200, np.float64)
            seconds = _divided(fields["seconds"], 43_200)[1]  # 12:30 AM is half past midnight
            afternoon = matches(piece, "[pP][mM]")
            fields["seconds"] = op.where(afternoon, op.add(seconds, twelve), seconds)
        else:
            mark = DIRECTIVE.sub("", written)[:1]
            own = parts(piece, mark, len(directives)) if mark else [piece]
            for directive, value in zip(directives, own, strict=True):
                fields[directive.replace("B", "m")] = (
                    _month(value) if directive == "%B" else plain(value)
                )
    return fields


def _first_as_space(text: Var, mark: str) -> Var:
    """Return texts with a space for a mark that may be there once."""
    before, after = parts(op.string_concat(text, constant(mark)), mark, 2)
    return op.string_concat(op.string_concat(before, constant(" ")), after)


def _month(name: Var) -> Var:
    """Return the numbers of months' names, whole or cut to three letters."""
    numbers: dict[str, int] = {}
    for number, month in enumerate(MONTHS, 1):
        for each in (month, month[:3]):
            numbers |= dict.fromkeys((each, each.lower(), each.upper()), number)
    found = ml.label_encoder(
        name,
        keys_strings=list(numbers),
        values_int64s=list(numbers.values()),
        default_int64=1,
    )
    return op.cast(found, to=np.float64)


def _seconds(time: Var, offsets: bool) -> Var:
    """Return the seconds since midnight of a time of day; UTC where there are offsets."""
    shift = None
    if offsets:
        time = without(without(time, "Z", 1), "z", 1)
        for mark, sign in (("+", -60.0), ("-", 60.0)):
            time, offset = parts(op.string_concat(time, constant(mark)), mark, 2)
            offset = without(offset, ":", 1)
            short = matches(offset, r"\d\d")
            digits = op.where(short, op.string_concat(offset, constant("00")), offset)
            digits = op.where(matches(digits, ""), constant("0"), digits)
            hours, minutes = _divided(plain(digits), 100)
            own = op.mul(
                op.add(op.mul(hours, constant(60, np.float64)), minutes),
                constant(sign, np.float64),
            )
            shift = own if shift is None else op.add(shift, own)
    clock = parts(op.string_concat(time, constant(":0")), ":", 3)
    hour, minute, second = map(plain, clock)
    total = op.add(
        op.add(op.mul(hour, constant(3600, np.float64)), op.mul(minute, constant(60, np.float64))),
        second,
    )
    return total if shift is None else op.add(total, shift)


def _divided(number: Var, by: float) -> tuple[Var, Var]:
    """Return quotients and remainders, which are not below 0."""
    divisor = constant(by, np.float64)
    quotient = op.floor(op.div(number, divisor))
    return quotient, op.sub(number, op.mul(quotient, divisor))


def _century(year: Var) -> Var:
    """Return years of two digits as those from 1970 to 2069."""
    late = op.greater_or_equal(year, constant(70, np.float64))
    return op.add(year, op.where(late, *(constant(each, np.float64) for each in (1900, 2000))))


def _multiple(year: Var, of: float) -> Var:
    return op.equal(_divided(year, of)[1], constant(0, np.float64))


def _days(year: Var, month: Var, day: Var) -> tuple[Var, Var]:
    """Return days since 1970 of Gregorian dates, and the last day of their months."""
    leap = op.and_(
        _multiple(year, 4), either([op.not_(_multiple(year, 100)), _multiple(year, 400)])
    )
    one, zero = constant(1, np.float64), constant(0, np.float64)
    place = op.cast(month, to=np.int64)
    before = op.gather(constant([0, *DAYS_BEFORE], np.float64), place)
    length = op.gather(constant([0, *np.diff(DAYS_BEFORE)], np.float64), place)
    extra = op.where(leap, one, zero)
    late = op.greater(month, constant(2, np.float64))
    last = op.add(length, op.where(op.equal(month, constant(2, np.float64)), extra, zero))
    # Leap days of all years before this one, counted from year 0, which is one.
    years = op.sub(year, one)
    leaps = op.add(op.sub(_divided(years, 4)[0], _divided(years, 100)[0]), _divided(years, 400)[0])
    begun = op.add(op.mul(years, constant(365, np.float64)), leaps)
    within = op.add(op.add(before, op.where(late, extra, zero)), day)
    # 719,163 days are from 1 January of the year 1 to the same of 1970, both counted.
    return op.sub(op.add(begun, within), constant(719_163, np.float64)), last


def cycle_nodes(days: Var, column: int, *, time: bool) -> Var:
    """Return sine and cosine of month, weekday and perhaps hour of one column of days, float32."""
    own = op.gather(days, constant([column]), axis=1)
    # Moments are whole microseconds.
    microsecond = constant(86_400_000_000, np.float64)
    whole = op.floor(op.div(op.round(op.mul(own, microsecond)), microsecond))
    turns = [_month_of(whole), _divided(op.floor(own), 7)[1]]
    waves = [
        op.gather(constant(_waves(np.arange(turn) / turn)), op.cast(at, to=np.int64))
        for turn, at in zip((12, 7), turns, strict=True)
    ]
    waves = [op.reshape(each, constant([-1, 2])) for each in waves]
    if time:
        turn = op.mul(op.sub(own, op.floor(own)), constant(2 * np.pi, np.float64))
        angle = op.cast(turn, to=np.float32)
        waves += [op.sin(angle), op.cos(angle)]
    return op.concat(waves, axis=1)


def _waves(turns: np.ndarray) -> np.ndarray:
    angles = 2 * np.pi * turns
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _month_of(days: Var) -> Var:
    """Return the months of days since 1970, 0 to 11 (Howard Hinnant's civil_from_days)."""
    shifted = op.add(days, constant(719_468, np.float64))  # since 1 March of the year 0
    day = _divided(shifted, 146_097)[1]  # of an era of 400 years
    minus = op.sub(
        op.add(op.sub(day, _divided(day, 1_460)[0]), _divided(day, 36_524)[0]),
        _divided(day, 146_096)[0],
    )
    year = _divided(minus, 365)[0]
    begun = op.sub(
        op.add(op.mul(year, constant(365, np.float64)), _divided(year, 4)[0]),
        _divided(year, 100)[0],
    )
    of_year = op.sub(day, begun)
    five = op.add(op.mul(of_year, constant(5, np.float64)), constant(2, np.float64))
    march = _divided(five, 153)[0]
    return _divided(op.add(march, constant(2, np.float64)), 12)[1]
