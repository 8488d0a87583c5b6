"""What a page can show, as text: names made safe to read, and pictures as PNG in a data URI."""

from __future__ import annotations

import base64
import io
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["counted", "diverging", "name", "photograph", "picture"]

# A page shows names, not essays.
LONGEST_NAME = 60

# Examples are shown this small: the longer side in pixels.
LONGEST_SIDE = 96

# From one end of the scale over its middle to the other; the ends differ for every kind of colour
# vision, and in lightness from the middle (ColorBrewer's PuOr, darkened at the ends).
NEGATIVE, MIDDLE, POSITIVE = (0xB3, 0x58, 0x06), (0xF7, 0xF7, 0xF7), (0x3A, 0x2A, 0x8A)


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a count and what is counted; the second noun is for counts other than 1.

    Examples
    --------
    >>> counted(1, "row"), counted(2_000, "row"), counted(0, "class is", "classes are")
    ('1 row', '2,000 rows', '0 classes are')
    """
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def name(value: Any) -> str:
    r"""Return a name's text: cut, and without characters that hide or turn what follows.

    Examples
    --------
    >>> name("a\x00b")
    'a\\x00b'
    >>> len(name("x" * 100))
    60
    """
    text = str(value)
    if len(text) > LONGEST_NAME:
        text = text[: LONGEST_NAME - 1] + "…"
    return "".join(_visible(c) for c in text)


def _visible(character: str) -> str:
    # Controls, halves of pairs, and what turns the direction of everything after it.
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn")
    turning = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return character.encode("unicode_escape").decode() if hidden or turning else character


def diverging(values: NDArray[Any], limit: float) -> NDArray[np.uint8]:
    """Return colours for numbers from −limit to limit: orange, white at 0, violet.

    Parameters
    ----------
    values : ndarray
    limit : float
        Above 0; what is beyond has the colour of the end.

    Returns
    -------
    ndarray of uint8, shape values.shape + (3,)
    """
    signed = np.clip(np.asarray(values, dtype=np.float64) / limit, -1, 1)[..., None]
    end = np.where(signed < 0, np.array(NEGATIVE), np.array(POSITIVE))
    colours = np.array(MIDDLE) + np.abs(signed) * (end - np.array(MIDDLE))
    rounded: NDArray[np.uint8] = colours.round().astype(np.uint8)
    return rounded


def picture(values: NDArray[Any], *, limit: float) -> str:
    """Return a matrix of signed numbers as a PNG in a data URI."""
    return _png(diverging(values, limit))


def photograph(image: NDArray[np.uint8]) -> str:
    """Return an image of (channels, height, width) as a PNG in a data URI, small."""
    pixels = np.asarray(image)
    pixels = pixels[0] if len(pixels) in (1, 2) else pixels[:4].transpose(1, 2, 0)
    return _png(np.ascontiguousarray(pixels))


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
