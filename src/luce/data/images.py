"""Images: folders with a sub-folder per class, and the schema of images of one size."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from PIL import Image, ImageOps

from luce.data.arrays import row_slices
from luce.data.schema import (
    Normalise,
    Schema,
    check_normalise,
    counted,
    json_keys,
    json_numbers,
    json_whole,
    refuse,
    scaling,
)
from luce.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

__all__ = ["IMAGE_ENDINGS", "ImageSchema", "as_images", "list_images", "read_images", "survey"]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
IN_CACHE = 1024
"""How much smaller than a block for reading a block for arithmetic is, to stay in cache."""

LONGEST_SIDE = 256
"""Images of a folder whose commonest size is larger are scaled down to it: photographs would not
fit in memory as they are."""


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
    channels: int
    height: int
    width: int
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

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
        limit = float(np.finfo(np.float32).max)
        for channel, (mean, scale) in enumerate(zip(self.mean, self.scale, strict=True)):
            with np.errstate(over="ignore"):
                levels = np.clip((np.arange(256) / 255 - mean) / scale, -limit, limit)
            table = levels.astype(np.float32)
            for part in row_slices(len(images), IN_CACHE * math.prod(self.input_shape)):
                np.take(table, images[part, channel], out=out[part, channel], mode="clip")
        return out, {}

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

    def body(self) -> dict[str, Any]:
        """Return what is particular to the kind; see `Schema.body`."""
        return {
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "mean": None if self.mean is None else list(self.mean),
            "scale": None if self.scale is None else list(self.scale),
        }

    @classmethod
    def from_body(cls, body: dict[str, Any], common: dict[str, Any]) -> Self:
        """Return the schema of a checked `body`; see `Schema.from_body`."""
        json_keys(body, {"channels", "height", "width", "mean", "scale"}, "an image schema")
        empty = cls(
            channels=json_whole(body["channels"], "channels", 1, 64),
            height=json_whole(body["height"], "height", 1, 2**14),
            width=json_whole(body["width"], "width", 1, 2**14),
            **common,
        )
        if math.prod(empty.input_shape) > 2**26:
            refuse("an image may have at most 2^26 numbers")
        if body["mean"] is None and body["scale"] is None:
            return empty
        mean = json_numbers(body["mean"], "mean")
        scale = json_numbers(body["scale"], "scale", positive=True)
        if not len(mean) == len(scale) == empty.channels:
            refuse("mean and scale must have one number per channel")
        return replace(empty, mean=tuple(mean), scale=tuple(scale))


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
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            inside = _images_in(child)
            files += inside
            labels += [child.name] * len(inside)
    if files:
        return files, labels
    files = [file for file in sorted(folder.iterdir()) if _is_image(file)]
    if files:
        return files, None
    raise DataError(
        f"{folder}: no images in it. Give a folder with one sub-folder per class that holds "
        f"{', '.join(IMAGE_ENDINGS)} files."
    )


def _images_in(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if _is_image(file)]


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".") and file.is_file()


def survey(files: list[Path]) -> tuple[tuple[int, int, int], str | None]:
    """Return the (channels, height, width) that images of different sizes are brought to.

    One channel if every image is grey, else three; the commonest size, the larger of two that are
    as common, scaled down to 256 pixels on its longer side. The second value is a notice of what
    has to be changed, or None.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    grey = True
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with Image.open(file) as image:
                    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                    width, height = image.size[::-1] if turned else image.size
                    grey = grey and _is_grey(image)
                    sizes[height, width] += 1
        except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
            continue  # read_images names the file
    if not sizes:
        raise DataError(f"None of the {len(files)} images can be read, the first is {files[0]}.")
    height, width = max(sizes, key=lambda size: (sizes[size], size))
    shrink = min(1.0, LONGEST_SIDE / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    other = sum(sizes.values()) - sizes[height, width]
    resized = f"{counted(other, 'image')} of another size resized to {height} × {width}."
    notice = resized if other else None
    return (1 if grey else 3, height, width), notice


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def decode(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the image as uint8 of (channels, height, width), or raise OSError."""
    try:
        with warnings.catch_warnings():
            # A decompression bomb is a warning to Pillow and an unreadable file to us.
            warnings.simplefilter("error")
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)
                if image.mode.startswith("I"):  # 16 bits of grey; convert would clip them
                    values = np.asarray(image).astype(np.int64)
                    image = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
                image = image.convert("L" if shape[0] == 1 else "RGB")
                if image.size != (shape[2], shape[1]):
                    image = image.resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
                pixels = np.asarray(image)
    except (ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from error
    return pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1)


def read_images(
    files: list[Path], shape: tuple[int, ...]
) -> tuple[np.ndarray, list[int], list[Path]]:
    """Return the images as one uint8 array, the positions of those read, and the other files."""
    out = np.empty((len(files), *shape), np.uint8)
    kept: list[int] = []
    unreadable: list[Path] = []
    for i, file in enumerate(files):
        try:
            out[len(kept)] = decode(file, shape)
        except OSError:
            unreadable.append(file)
        else:
            kept.append(i)
    return out[: len(kept)], kept, unreadable
