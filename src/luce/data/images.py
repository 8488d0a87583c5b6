"""Images: folders with a sub-folder per class, and the schema of images of one size."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_high
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar, Literal, NoReturn, Self

import msgspec
import numpy as np

# The two plug-ins by name: Pillow would load all that it has to find one that is missing.
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from luce.data.arrays import row_slices
from luce.data.opening import reading, reason
from luce.data.plain import FARTHEST, Finite, Positive, refuse
from luce.data.schema import (
    ImageSize,
    Normalise,
    Schema,
    check_normalise,
    check_pairs,
    scaling,
)
from luce.data.wording import counted
from luce.errors import ArgumentError, DataError
from luce.options import LARGEST_SIDE, MOST_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import polars as pl

    from luce.nodes import Parts, Var

__all__ = [
    "IMAGE_ENDINGS",
    "ImageSchema",
    "as_images",
    "decode",
    "list_images",
    "read_images",
    "survey",
]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
IN_CACHE = 1024
"""How much smaller than a block for reading a block for arithmetic is, to stay in cache."""

FORMATS = (PngImagePlugin.PngImageFile.format, JpegImagePlugin.JpegImageFile.format)
"""What Pillow may decode. Its others are as many ways in, and one of them runs Ghostscript."""

MOST_PIXELS = 100_000_000
"""A larger image is left out before it is decoded: a few bytes can claim any size."""

LONGEST_SIDE = 64
"""Images of a folder are scaled down to it unless `image_size` says otherwise: a network learns
to tell classes from so many pixels, and as photographs they would fill the memory."""

Side = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_SIDE)]


@dataclass(frozen=True, kw_only=True)
class ImageSchema(Schema):
    """Images of bytes, all of one size, as (rows, channels, height, width).

    Attributes
    ----------
    channels, height, width : int
    mean, scale : tuple of float, one per channel, or None before `fit`
        Encoded: ``(pixel / 255 - mean) / scale``.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.array([[[[0, 255]]]], np.uint8)
    >>> schema = ImageSchema(channels=1, height=1, width=2).fit(images)
    >>> schema.mean, schema.encode(images)[0].tolist()
    ((0.5,), [[[[-1.0, 1.0]]]])
    """

    kind: ClassVar[Literal["image"]] = "image"
    channels: Annotated[int, msgspec.Meta(ge=1, le=64)]
    height: Side
    width: Side
    mean: tuple[Finite, ...] | None = None
    scale: tuple[Positive, ...] | None = None

    def __post_init__(self) -> None:
        check_pairs(self.mean, self.scale, self.channels)

    def fit(self, features: Any, *, normalise: Normalise = "standard") -> Self:
        """Return the schema with each channel's mean and deviation; see `Schema.fit`."""
        check_normalise(normalise)
        images = self._checked(features)
        mean, deviation = np.zeros(self.channels), np.ones(self.channels)
        if normalise == "standard" and len(images):
            # Counting the 256 values is exact, and every statistic follows from the counts.
            counts = np.zeros((self.channels, 256), np.int64)
            for part in row_slices(len(images), IN_CACHE * math.prod(self.input_shape)):
                for channel in range(self.channels):
                    values = images[part, channel].ravel()
                    counts[channel] += np.bincount(values, minlength=256)
            levels, total = np.arange(256) / 255, counts.sum(axis=1)
            mean = counts @ levels / total
            deviation = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(axis=1) / total)
        subtract, divide = scaling(mean, deviation, normalise)
        return replace(self, mean=tuple(subtract), scale=tuple(divide))

    def encode(self, features: np.ndarray | pl.DataFrame) -> tuple[np.ndarray, dict[str, int]]:
        """Return the normalised float32 images; see `Schema.encode`."""
        if self.mean is None or self.scale is None:
            raise ArgumentError("ImageSchema.encode: the schema has no statistics; call fit first.")
        images = self._checked(features)
        out = np.empty(images.shape, np.float32)
        for channel, (mean, scale) in enumerate(zip(self.mean, self.scale, strict=True)):
            with np.errstate(over="ignore"):
                levels = np.clip((np.arange(256) / 255 - mean) / scale, -FARTHEST, FARTHEST)
            table = levels.astype(np.float32)
            for part in row_slices(len(images), IN_CACHE * math.prod(self.input_shape)):
                np.take(table, images[part, channel], out=out[part, channel], mode="clip")
        return out, {}

    @property
    def raw_inputs(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Images of bytes; see `Schema.raw_inputs`."""
        return {"X": (np.uint8, self.input_shape)}

    def made_up(self, rows: int, random: np.random.Generator) -> np.ndarray:
        """Return noise, black, white and stripes; see `Schema.made_up`."""
        images = random.integers(0, 256, (rows, *self.input_shape), dtype=np.uint8)
        images[:1], images[1:2] = 0, 255
        images[2:3] = 255 * (np.arange(self.width) % 2).astype(np.uint8)
        images[3 : rows // 2] //= 16
        return images

    def nodes(self, inputs: Mapping[str, Var]) -> Parts:
        """Return the normalised images; see `Schema.nodes`."""
        from luce.nodes import constant, op

        mean, scale = (
            np.reshape(np.array(each, np.float64), (1, -1, 1, 1))
            for each in (self.mean, self.scale)
        )
        pixels = op.div(op.cast(inputs["X"], to=np.float64), constant(255, np.float64))
        levels = op.div(op.sub(pixels, constant(mean)), constant(scale))
        limit = constant(FARTHEST, np.float64)
        levels = op.cast(op.clip(levels, op.neg(limit), limit), to=np.float32)
        return [(levels, np.arange(math.prod(self.input_shape)))]

    def _checked(self, features: Any) -> np.ndarray:
        images = as_images(np.asarray(features), channels=self.channels)
        if images.shape[1:] != self.input_shape:
            raise DataError(
                f"The images must be {_size(self.input_shape)} (channels × height × width), got "
                f"{_size(images.shape[1:])}."
            )
        return images

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Self:
        """Return the schema of images of (channels, height, width)."""
        channels, height, width = shape
        return cls(channels=channels, height=height, width=width)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(channels, height, width)``."""
        return (self.channels, self.height, self.width)

    @property
    def feature_names(self) -> list[str]:
        """``pixel channel,row,column`` for each number of a flattened image."""
        return [f"pixel {c},{y},{x}" for c, y, x in np.ndindex(self.input_shape)]

    def describe(self) -> list[str]:
        """Return the one line there is to say."""
        return [f"images  {_size(self.input_shape)} (channels × height × width)"]

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """Return the schema of what `to_json` gave; see `Schema.from_json`."""
        schema = super().from_json(body)
        if math.prod(schema.input_shape) > MOST_NUMBERS:
            refuse(f"an image may have at most {MOST_NUMBERS:,} numbers")
        return schema


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)


def as_images(array: np.ndarray, *, name: str = "X", channels: int | None = None) -> np.ndarray:
    """Return bytes as (rows, channels, height, width).

    (rows, height, width) gets its one channel; (rows, height, width, channels) is turned around
    where only the last size can be the channels (1, 3 or 4, or `channels` where that is known).

    Raises
    ------
    luce.errors.DataError
        If the array is not of uint8 or has another number of dimensions.
    """
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise DataError(
            f"{name}: images must be uint8 of shape (rows, height, width) or (rows, channels, "
            f"height, width), got {array.dtype} of shape {array.shape}. Other numbers: give a "
            f"matrix, {name}.reshape(len({name}), -1)."
        )
    if array.ndim == 3:
        return array[:, None]
    likely = (1, 3, 4) if channels is None else (channels,)
    if array.shape[1] not in likely and array.shape[3] in likely:
        return array.transpose(0, 3, 1, 2)
    return array


def list_images(folder: Path) -> tuple[list[Path], list[str] | None]:
    """Return a folder's images in order of name, and the sub-folder of each as its label.

    A folder that has its images directly in it has no labels (None). Other files, and names that
    begin with a dot, are passed over.

    Raises
    ------
    luce.errors.DataError
        If there is no image in it.
    """
    files, labels = [], []
    with reading(folder):
        children = sorted(folder.iterdir())
        for child in children:
            if child.is_dir() and not child.name.startswith("."):
                inside = sorted(filter(_is_image, _walk(child)))
                files += inside
                labels += [child.name] * len(inside)
        if files:
            return files, labels
        files = list(filter(_is_image, children))
    if files:
        return files, None
    raise DataError(
        f"{folder}: no images in it. Give a folder with one sub-folder per class that holds "
        f"{', '.join(IMAGE_ENDINGS)} files."
    )


def _walk(folder: Path) -> Iterable[Path]:
    """Yield every file below a folder; a folder that may not be read is an error, not empty."""

    def fail(error: OSError) -> NoReturn:
        raise DataError(
            f"{error.filename}: cannot be read ({reason(error)}). Its images would be missing: "
            f"make it readable, or move it away."
        ) from error

    for inside, _, names in os.walk(folder, onerror=fail):
        yield from (Path(inside, name) for name in names)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".") and file.is_file()


def survey(
    files: list[Path], image_size: ImageSize | None = None
) -> tuple[tuple[int, int, int], str | None]:
    """Return the (channels, height, width) that images of different sizes are brought to.

    One channel if every image is grey, else three; the median height and the median width, scaled
    down to 64 pixels on the longer side, or as `image_size` says. The second value is a notice of
    what has to be changed, or None.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    grey = True
    for file in files:
        try:
            with reading(file), _opened(file) as image:
                turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                width, height = image.size[::-1] if turned else image.size
                grey = grey and _is_grey(image)
                sizes[height, width] += 1
        except DataError as error:
            problem = error  # read_images names the others
    if not sizes:
        raise DataError(f"None of the {len(files)} images can be read. {problem}")
    height, width, limited = _common(sizes, image_size)
    other = sum(sizes.values()) - sizes[height, width]
    if not other:
        return (1 if grey else 3, height, width), None
    notice = f"{counted(other, 'image')} of another size resized to {height} × {width}"
    if limited:
        notice += f" (height × width: at most {LONGEST_SIDE} unless image_size says otherwise)"
    return (1 if grey else 3, height, width), f"{notice}."


def _common(sizes: Counter[tuple[int, int]], image_size: ImageSize | None) -> tuple[int, int, bool]:
    """Return the height and width to bring all sizes to, and whether `LONGEST_SIDE` ruled."""
    if isinstance(image_size, tuple | list):
        return image_size[0], image_size[1], False
    height, width = (median_high(size[axis] for size in sizes.elements()) for axis in (0, 1))
    longest = max(height, width)
    wanted = min(longest, LONGEST_SIDE) if image_size is None else image_size
    height, width = (max(1, round(side * wanted / longest)) for side in (height, width))
    return height, width, image_size is None and longest > LONGEST_SIDE


def _opened(
    file: Path | BinaryIO, called: str | None = None, most: int = MOST_PIXELS
) -> Image.Image:
    """Return an image that is a PNG or a JPEG of a sane size, not decoded yet."""
    called = str(file) if called is None else called
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise DataError(f"{called}: is neither a PNG nor a JPEG image, or is damaged.") from error
    if math.prod(image.size) > most:
        image.close()
        raise DataError(
            f"{called}: has {image.size[0]:,} × {image.size[1]:,} pixels; at most {most:,} are "
            f"read."
        )
    return image


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def decode(
    file: Path | BinaryIO,
    shape: tuple[int, ...],
    *,
    called: str | None = None,
    most: int = MOST_PIXELS,
) -> np.ndarray:
    """Return the image as uint8 of (channels, height, width), or raise DataError.

    `called` is what messages call an open file; of more than `most` pixels, nothing is decoded.
    """
    with reading(called or file, "image"), _opened(file, called, most) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits of grey; convert would clip them
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        image = image.convert("L" if shape[0] == 1 else "RGB")
        if image.size != (shape[2], shape[1]):
            image = image.resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1)


def read_images(
    files: list[Path], shape: tuple[int, ...]
) -> tuple[np.ndarray, list[int], list[str]]:
    """Return the images as one uint8 array, the positions of those read, and what was not."""
    try:
        out = np.empty((len(files), *shape), np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{len(files):,} images of {_size(shape)} do not fit into memory. Choose a smaller "
            f"image_size."
        ) from error
    kept: list[int] = []
    unreadable: list[str] = []
    for i, file in enumerate(files):
        try:
            out[len(kept)] = decode(file, shape)
        except DataError as error:
            unreadable.append(str(error).rstrip("."))
        else:
            kept.append(i)
    return out[: len(kept)], kept, unreadable
