"""The data sets that have a name: digits (bundled), mnist and fashion-mnist (downloaded once).

A file is trusted for what it holds, not for how it was packed: the SHA-256 is of the decompressed
content, so a copy that somebody compressed again is as good as the original.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pooch
from sklearn.datasets import load_digits

from luce.data.idx import parse_idx
from luce.data.opening import found, reading
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["load_named"]

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
}

# Of the decompressed files, in the order of FILES.
SHA256 = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}

LARGEST = 64 * 2**20
"""Bytes that a decompressed file may have; the true largest has 47,040,016."""


def load_named(
    name: str, *, data_dir: str | Path | None = None, cache: Path | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Return a named data set as uint8 images and int64 labels, and its test split if it has one.

    Parameters
    ----------
    name : {"digits", "mnist", "fashion-mnist"}
    data_dir : path, optional
        Where ``<name>/`` may lie; ``$LUCE_DATA_DIR`` by default.
    cache : Path, optional
        Where downloads are kept; the user's cache by default.

    Returns
    -------
    images : ndarray, uint8
        (rows, 1, height, width). The digits' 17 levels are stretched to 0..255.
    labels : ndarray, int64
    test : (images, labels) or None
        None for digits, which come undivided.

    Raises
    ------
    luce.errors.DataError
        If a file is damaged, or can neither be found nor downloaded.
    """
    if name == "digits":
        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        return images[:, None], digits.target.astype(np.int64), None
    folder = data_dir or os.environ.get("LUCE_DATA_DIR")
    given = Path(folder) / name if folder else None
    kept = (cache or Path(pooch.os_cache("luce"))) / name
    arrays = [
        parse_idx(_content(name, file, sha, given, kept), f"{name}/{file}")
        for file, sha in zip(FILES, SHA256[name], strict=True)
    ]
    images, labels, test_images, test_labels = arrays
    return (
        images[:, None],
        labels.astype(np.int64),
        (test_images[:, None], test_labels.astype(np.int64)),
    )


def _content(name: str, file: str, sha: str, given: Path | None, cache: Path) -> bytes:
    """Return the file's content from the user's folder, the cache or a mirror, checked."""
    if given is not None:
        for path in (given / f"{file}.gz", given / file):
            if found(path):
                content = _checked(path, sha)
                if content is None:
                    raise DataError(
                        f"{path}: is damaged (its content has not the SHA-256 of {name}). Delete "
                        f"it or get it again."
                    )
                return content
    path = cache / f"{file}.gz"
    damaged = ""
    if found(path):
        content = _checked(path, sha)
        if content is not None:
            return content
        path.unlink()
        damaged = f" The cached {path} was damaged and has been removed."
    content, problems = _download(name, file, sha, path)
    if content is None:
        looked = [str(each) for each in (given, cache) if each is not None]
        raise DataError(
            f"{name}: {file} is not in {' or '.join(looked)}, and could not be downloaded "
            f"({'; '.join(problems)}).{damaged} Put the four IDX files (.gz or not) into a folder "
            f"{name!r} and name the folder above it in LUCE_DATA_DIR."
        )
    return content


def _checked(path: Path, sha: str) -> bytes | None:
    """Return the decompressed content, or None if it is not what it should be."""
    with reading(path):
        try:
            with path.open("rb") as plain:
                packed = plain.read(2) == b"\x1f\x8b"
            with gzip.open(path) if packed else path.open("rb") as file:
                content: bytes = file.read(LARGEST)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            return None
    return content if hashlib.sha256(content).hexdigest() == sha else None


def _download(name: str, file: str, sha: str, path: Path) -> tuple[bytes | None, list[str]]:
    """Return the content from the first mirror that has it whole, kept at `path`."""
    problems = []
    for mirror in MIRRORS[name]:
        host = urlsplit(mirror).hostname
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
                temporary = Path(folder) / path.name
                fetch(f"{mirror}{file}.gz", temporary)
                content = _checked(temporary, sha)
                if content is not None:
                    temporary.replace(path)
                    return content, []
                problems.append(f"{host}: the file is damaged")
        except OSError as error:  # requests' errors are OSErrors
            problems.append(f"{host}: {type(error).__name__}")
    return None, problems


def fetch(url: str, path: Path) -> None:
    """Download one file with pooch, saying how far it is on a terminal."""
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(progressbar=Progress(url), timeout=30)
    pooch.retrieve(url, None, fname=path.name, path=path.parent, downloader=downloader)


class Progress:
    """How much of a download is there, on stderr: what pooch asks of a progress bar."""

    def __init__(self, url: str, report: Callable[[str], object] | None = None) -> None:
        parts = urlsplit(url)
        self.what = f"Downloading {Path(parts.path).name} from {parts.hostname}"
        self.report = report or sys.stderr.write
        self.live = sys.stderr.isatty()
        self.total, self.done = 0, 0
        if not self.live:
            self.report(f"{self.what}\n")

    def update(self, size: int) -> None:
        """Add to what has arrived."""
        self.done += size
        if self.live:
            self.report(f"\r{self.what}: {self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB")

    def reset(self) -> None:
        """Begin again at nothing."""
        self.done = 0

    def close(self) -> None:
        """End the line."""
        if self.live:
            self.report("\n")
