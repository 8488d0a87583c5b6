"""What a value may be: each kind in words, with its check and with how a text is read as one."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from luce.errors import ArgumentError


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Values of a kind.

    Attributes
    ----------
    words : str
        What is allowed: ends the sentence "epochs must be …".
    allows : callable
        Whether a value is allowed; it takes any object.
    read : callable
        The value that a text of the command line stands for; ValueError where it is none.
    text : str
        `words` for the command line, where they differ.
    form : str
        How help shows the value.
    choices : tuple of str
        The names that it may be, where it must be one of them.
    """

    words: str
    allows: Callable[[Any], bool]
    read: Callable[[str], Any] = str
    text: str = ""
    form: str = "TEXT"
    choices: tuple[str, ...] = ()


def check(called: str, value: object, kind: Kind) -> None:
    """Raise ArgumentError unless the kind allows the value; `called` is the option's name."""
    if not kind.allows(value):
        raise ArgumentError(f"{called} must be {kind.words}, got {received(value)}.")


def received(value: object) -> str:
    """Return a value as a message shows it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _real(value: object) -> float:
    """Return a real number as a float; NaN, which fails every comparison, for anything else."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def number(
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    or_infinite: bool = False,
) -> Kind:
    """Return the kind of numbers within bounds, finite unless `or_infinite`."""
    bounds = {"above": above, "of at least": at_least, "below": below}
    words = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if abs(bound) < 1e9)
    return Kind(
        words=f"a number {words}",
        allows=lambda value: (
            above < (real := _real(value))
            and real >= at_least
            and (real < below or (or_infinite and real == math.inf))
        ),
        read=float,
        form="NUMBER",
    )


def whole(low: int, high: int | None = None) -> Kind:
    """Return the kind of whole numbers from `low` on; none is beyond what 64 bits hold."""
    last = 2**63 - 1 if high is None else high
    words = "a whole number above 0" if low == 1 else f"a whole number of at least {low}"
    return Kind(
        words=words if high is None else f"a whole number from {low:,} to {high:,}",
        allows=lambda value: (
            isinstance(value, Integral)
            and not isinstance(value, bool)
            and low <= int(value) <= last
        ),
        read=int,
        form="N",
    )


def count(low: int) -> Kind:
    """Return the kind of whole numbers from `low` on that may be written as 1e9."""

    def read(text: str) -> int:
        try:
            return int(text)
        except ValueError:
            real = float(text)
            return int(real) if real.is_integer() else low - 1

    kind = whole(low)
    return replace(kind, words=f"{kind.words}, such as 64 or 1e9", read=read)


def one_of(*names: str | None) -> Kind:
    """Return the kind of values that are one of a few names."""
    return Kind(
        words=f"one of {', '.join(map(str, names))}",
        allows=lambda value: isinstance(value, str | None) and value in names,
        form="NAME",
        choices=tuple(name for name in names if name is not None),
    )


def either(kind: Kind, name: str | None) -> Kind:
    """Return a kind that allows one word, or None, beside its own values."""
    text = kind.text or kind.words
    return Kind(
        words=f"{kind.words}, or {name!r}",
        allows=lambda value: (
            (isinstance(value, str | None) and value == name) or kind.allows(value)
        ),
        read=lambda given: given if given == name else kind.read(given),
        text=text if name is None else f"{text}, or {name}",
        form=kind.form if name is None else f"{kind.form}|{name}",
    )


def _are_widths(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(WIDTH.allows(width) for width in value)
    )


def _are_weights(value: object) -> bool:
    return isinstance(value, Mapping) and all(_real(weight) >= 0 for weight in value.values())


def _are_candidates(value: object) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return len(value) > 0 and all(PENALTY.allows(C) and math.isfinite(C) for C in value)
    return whole(1).allows(value)


def _are_shares(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(SHARE.allows(share) for share in value)
    )


def _is_scaling(value: object) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and math.isfinite(_real(value[0]))
        and POSITIVE.allows(value[1])
    )


def _is_image_size(value: object) -> bool:
    both = isinstance(value, tuple | list)
    sides: Sequence[Any] = value if isinstance(value, tuple | list) else (value,)
    side = whole(1, LARGEST_SIDE)
    return (
        len(sides) == 1 + both
        and all(side.allows(each) for each in sides)
        and 3 * math.prod(sides if both else (*sides, *sides)) <= MOST_NUMBERS
    )


def _read_image_size(text: str) -> int | tuple[int, ...]:
    sides = tuple(int(side) for side in text.lower().split("x"))
    return sides[0] if len(sides) == 1 else sides


def _read_bytes(text: str) -> int:
    """Return the bytes that ``50GB`` stands for, a thousand of one unit making one of the next."""
    found = re.fullmatch(r"(?i)\s*([\d.]+)\s*([kmgt]?)b?\s*", text)
    if found is None:
        raise ValueError(text)
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2].lower() or " "))


def _read_scaling(text: str) -> str | tuple[float, ...]:
    return tuple(float(part) for part in text.split(",")) if "," in text else text


def _is_encoding(value: object) -> bool:
    try:
        return isinstance(value, str) and "a".encode(value).decode(value) == "a"
    except (LookupError, ValueError):
        return False


def _are_names(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(each, str) and each for each in value)
    )


def _read_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in next(csv.reader([text], skipinitialspace=True)))


def _read_types(text: str) -> dict[str, str]:
    pairs = [name.rpartition("=") for name in _read_names(text)]
    return {name.strip(): kind.strip() for name, _, kind in pairs}


def _are_types(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(each, str) and each for pair in value.items() for each in pair
    )


POSITIVE = number(above=0)
ENCODING = either(
    Kind(
        words="an encoding that Python knows, such as 'utf-8', 'latin-1', 'cp1252' or 'utf-16'",
        allows=_is_encoding,
        text="an encoding such as utf-8, latin-1, cp1252 or utf-16",
    ),
    None,
)
SEPARATOR = either(
    Kind(
        words="a single ASCII character that is no letter, digit, quote or line break",
        allows=lambda value: (
            isinstance(value, str) and re.fullmatch(r"(?a:[^\w\"\r\n\0])", value) is not None
        ),
        read=lambda text: {"tab": "\t", "\\t": "\t", "space": " "}.get(text, text),
        text="a single character, tab or space",
        form="CHARACTER",
    ),
    None,
)
SEVERAL = either(
    Kind(
        words="a text that separates labels, such as ';', or 'columns'",
        allows=lambda value: isinstance(value, str) and value != "" and len(value) < 20,
        text="what separates labels, such as ;, or columns",
        form="TEXT|columns",
    ),
    None,
)
NAMES = Kind(
    words="a sequence of names of columns",
    allows=_are_names,
    read=_read_names,
    text="names of columns, such as age,zip",
    form="COLUMN,...",
)
TYPES = Kind(
    words="a dict of kinds by column, such as {'zip': 'category'}",
    allows=_are_types,
    read=_read_types,
    text="kinds by column, such as age=number,zip=category",
    form="COLUMN=KIND,...",
)
# C is infinite for no penalty. Of the smallest numbers, 1 / C is more than a float can hold.
PENALTY = Kind(
    words="a number above 0",
    allows=lambda value: (real := _real(value)) > 0 and 1 / real < math.inf,
    read=float,
    form="NUMBER",
)
BYTES = Kind(
    words="a number of bytes above 0",
    allows=lambda value: 0 < _real(value) < 2**63,
    read=_read_bytes,
    text="a size such as 800MB, 50GB or 2TB",
    form="SIZE",
)
ADDRESS = Kind(
    words="an address such as tcp://host:8786, spark://host:7077 or ray://host:10001",
    allows=lambda value: isinstance(value, str) and value != "",
    form="ADDRESS",
)
# A wider layer is a typing error.
WIDTH = whole(1, 1 << 24)
FRACTION = number(at_least=0, below=1)
SHARE = Kind(
    words="a number from 0 to 1",
    allows=lambda value: 0 <= _real(value) <= 1,
    read=float,
    form="FRACTION",
)
# Of an option that has a sister for several.
L1_SHARE = replace(SHARE, text=f"{SHARE.words} (--l1-ratios takes several)")
SHARES = either(
    Kind(
        words="a sequence of numbers from 0 to 1",
        allows=_are_shares,
        read=lambda text: tuple(float(share) for share in text.split(",")),
        text="numbers from 0 to 1, such as 0,0.5,1",
        form="FRACTION,...",
    ),
    None,
)
ANYTHING = Kind(words="anything", allows=lambda _: True)
# Which there are `luce.linear.penalties` knows: others are added to them.
PENALTIES = replace(ANYTHING, form="NAME", choices=("l2", "group"))
# Compared by name, so that NumPy's bool passes too, and NumPy is not imported.
FLAG = Kind(words="True or False", allows=lambda value: type(value).__name__ == "bool")
WIDTHS = Kind(
    words="a sequence of whole numbers above 0, up to 16,777,216, such as (256, 128)",
    allows=_are_widths,
    read=lambda text: tuple(int(width) for width in text.split(",")),
    text="whole numbers above 0, up to 16,777,216, such as 256 or 512,256",
    form="N,...",
)
CANDIDATES = Kind(
    words="a count above 0 or a sequence of numbers above 0",
    allows=_are_candidates,
    read=lambda text: tuple(float(C) for C in text.split(",")),
    text="numbers above 0, such as 0.1,1,10",
    form="NUMBER,...",
)
FOLDS = Kind(
    words="a number of folds from 2 up, 'loo', a splitter or splits",
    allows=lambda value: (
        value == "loo"
        if isinstance(value, str)
        else type(value) is not bool and (not isinstance(value, int) or value >= 2)
    ),
    read=lambda text: text if text == "loo" else int(text),
    text="a number of folds from 2 up, or loo",
    form="N|loo",
)
CLASS_WEIGHT = either(
    Kind(
        words="'balanced', a dict of weights of at least 0 by class",
        allows=lambda value: (
            (isinstance(value, str) and value == "balanced") or _are_weights(value)
        ),
        read=lambda text: text if text == "balanced" else json.loads(text),
        text='balanced or JSON of weights of at least 0 by class, such as {"yes": 2, "no": 1}',
        form="balanced|JSON",
    ),
    None,
)
SCALING = Kind(
    words="'standard', 'none' or a pair (mean, standard deviation above 0)",
    allows=lambda value: (
        (isinstance(value, str) and value in ("standard", "none")) or _is_scaling(value)
    ),
    read=_read_scaling,
    text="standard, none or MEAN,DEVIATION with a deviation above 0",
    form="HOW",
)
# The most pixels that a side of an image may have, and the most numbers that an image may have.
LARGEST_SIDE = 2**14
MOST_NUMBERS = 2**26
IMAGE_SIZE = either(
    Kind(
        words="the longer side in pixels or (height, width), at most "
        f"{MOST_NUMBERS // 3:,} pixels in all",
        allows=_is_image_size,
        read=_read_image_size,
        text="pixels, such as 96, or HEIGHTxWIDTH, such as 48x96, at most "
        f"{MOST_NUMBERS // 3:,} in all",
        form="N|HxW",
    ),
    None,
)
# PyTorch says later whether the device exists. Tensors on "meta" hold no numbers.
DEVICE = Kind(
    words="the name of a PyTorch device that computes, such as auto, cpu, cuda or cuda:1",
    allows=lambda value: (
        isinstance(value, str) and re.fullmatch(r"(?!meta\b)[a-z]+(:\d{1,3})?", value) is not None
    ),
    form="auto|cpu|cuda|...",
)
