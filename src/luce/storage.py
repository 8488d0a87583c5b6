"""The run folder on disk: safetensors and JSON, each file written whole or not at all.

::

    runs/<name>/
      config.json          what was asked, and the directory where its relative paths begin; every
                           option resolved, versions; the SHA-256 of all that; and once training has
                           finished, size and SHA-256 of each file below, down to the environment
      schema.json          columns, categories, classes, normalisation
      schema.safetensors   what of the schema is too large for JSON: the terms of texts
      model.safetensors    the weights
      calibration.json     the temperature, and the scores that prediction sets follow from;
                           absent where there were no validation rows
      reference.json       what the rows were like that it was judged by, for comparison with new
                           ones; absent where calibration.json is
      metrics.json         what the model scored
      history.csv          a line per epoch
      tuning.json          what a search tried, and tuning.jsonl, its journal; of runs of `luce
                           tune` alone
      environment.json     the machine and the versions that trained it
      report.html          the page for people; nothing reads it back
      checkpoints/         where training stood after its last epoch, one file per candidate

Nothing here is ever executed, unpickled or imported: a run folder is data. What is read is a
regular file, of a size that an honest run could have, and the very bytes that were written. A run
of an earlier version has fewer digests; what it has none of is checked field by field.

folders.py says what else can lie beside a run folder while it is made or replaced.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

from luce.errors import ArgumentError, LuceError, RunError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FORMAT",
    "TEMPORARY",
    "Digest",
    "check_on_disk",
    "digest_of",
    "open_whole",
    "read_bytes",
    "read_json",
    "read_tensors",
    "sealed",
    "size_of",
    "unsealed",
    "write_json",
    "write_tensors",
    "write_whole",
]

# The version of the layout above. A reader refuses any other.
FORMAT = 1

# No honest JSON file of a run comes near this; a hostile one must not fill the memory, nor be so
# deep that whatever walks through it later runs out of stack.
LARGEST_JSON = 256 * 2**20
DEEPEST_JSON = 100

# What a kill leaves of a file that was being written by `open_whole`.
TEMPORARY = re.compile(r"\.[\w-]+\.(json|csv|safetensors|html)\.[a-z0-9_]{8}")

# What reading a file that was made to look like tensors can raise, by version.
NOT_TENSORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


class Digest(NamedTuple):
    """What a file must be: its SHA-256 in hexadecimal, and its bytes (None: not recorded)."""

    sha256: str
    size: int | None = None


def check_on_disk(path: Path) -> None:
    """Raise ArgumentError for an address such as ``s3://bucket/out.csv``: it would be a folder.

    A folder that is called so may be written to.
    """
    first = path.parts[0] if len(path.parts) > 1 else ""
    if re.fullmatch(r"[A-Za-z][\w+.-]+:", first) and not os.path.lexists(first):
        raise ArgumentError(
            f"out must be a path on a disk, got {first}//{'/'.join(path.parts[1:])}: nothing is "
            "written to addresses. Write to a disk, and copy it from there."
        )


def write_whole(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that at any moment it holds all of the old content or all of the new.

    Also after a power cut, unless `sync` is False: the disk is not waited for then.

    Raises
    ------
    RunError
        If it cannot be written (no space, no permission); the old content still stands then.
    """
    with open_whole(path, sync=sync) as file:
        file.write(content)


@contextmanager
def open_whole(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its place only once it is whole; see `write_whole`."""
    check_on_disk(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError) or isinstance(error, LuceError):
            raise
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. What was saved before still stands; "
            "make room or choose another folder with --out."
        ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain data as JSON; NaN and infinities are refused, since JSON has none."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, (text + "\n").encode())


def read_bytes(path: Path, expected: Digest | None = None) -> bytes:
    """Return a file's content, after checking that it is the expected one.

    Raises
    ------
    RunError
        If the file is missing, no regular file, too large, or another than the expected one.
    """
    size = size_of(path, expected)
    if size > LARGEST_JSON:
        raise RunError(f"{path} is larger than {LARGEST_JSON:,} bytes: no run writes such.")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_JSON + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if expected is not None and hashlib.sha256(content).hexdigest() != expected.sha256:
        raise _other(path)
    return content


def read_json(path: Path, expected: Digest | None = None) -> dict[str, Any]:
    """Return a JSON object whose numbers a float can hold and whose text UTF-8 can.

    Raises
    ------
    RunError
        If the file is missing, too large, damaged, another than the expected one, or holds
        something else than such an object.
    """
    text = read_bytes(path, expected)
    try:
        content = json.loads(
            text, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite
        )
        if not isinstance(content, dict):
            raise RunError(f"{path} must hold a JSON object, got a {type(content).__name__}.")
        _check_depth(content)
        if b"\\u" in text:
            # A lone half of a surrogate pair could be neither printed nor written again.
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _whole(text: str) -> int:
    # float() gives infinity where int() would give what no float can hold.
    _finite(text)
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"it has a number of {len(text):,} digits, {text[:20]}…, beyond any float")
    return number


def _check_depth(content: object) -> None:
    level = [content]
    for _ in range(DEEPEST_JSON):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)  # type: ignore[attr-defined]
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {DEEPEST_JSON} levels")


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data with the SHA-256 of all of it as one more field, ``"sha256"``."""
    return {**content, "sha256": _seal(content)}


def unsealed(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what `sealed` was given; data without a seal, from before there was one, as they are.

    Raises
    ------
    RunError
        If the data have been changed since.
    """
    plain = {name: value for name, value in content.items() if name != "sha256"}
    if content.get("sha256", _seal(plain)) != _seal(plain):
        raise RunError(
            f"{path} is not as this run wrote it: its SHA-256 differs from the one in it. "
            "Restore it, or train again; luce train --config reads a changed one."
        )
    return plain


def _seal(content: Mapping[str, Any]) -> str:
    # As JSON gives it back: lists for tuples, text for keys.
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def write_tensors(
    path: Path,
    tensors: Mapping[str, ArrayLike],
    note: Mapping[str, Any] | None = None,
    *,
    sync: bool = True,
) -> None:
    """Write tensors, and a note of plain data in the same file, as safetensors.

    NumPy's arrays, or PyTorch's tensors on the CPU that need no gradient. A file with a note has
    the SHA-256 of both in it. One without is the same bytes for the same tensors, which it would
    not be with two fields of metadata: safetensors shuffles those.
    """
    import numpy as np
    from safetensors.numpy import save

    own = {name: np.require(tensor, requirements="C") for name, tensor in tensors.items()}
    metadata = {"format": str(FORMAT)}
    if note is not None:
        text = json.dumps(note)
        metadata |= {"note": text, "sha256": _tensors_digest(own, text)}
    write_whole(path, save(own, metadata=metadata), sync=sync)


def read_tensors(
    path: Path, expected: Digest | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the tensors and the note that :func:`write_tensors` wrote.

    Raises
    ------
    RunError
        If the file is missing, damaged, another than the expected one, of another format, or holds
        numbers that are not finite.
    """
    from safetensors import SafetensorError

    size_of(path, expected)
    if expected is not None and digest_of(path).sha256 != expected.sha256:
        raise _other(path)
    try:
        return _tensors(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (*NOT_TENSORS, SafetensorError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error


def _tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    import numpy as np
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get("format") != str(FORMAT):
        raise ValueError(f"it is of format {metadata.get('format')}, this version reads {FORMAT}")
    text = metadata.get("note", "{}")
    if "sha256" in metadata and metadata["sha256"] != _tensors_digest(tensors, text):
        raise ValueError("its SHA-256 differs from the one in it")
    for name, tensor in tensors.items():
        if tensor.dtype.kind not in "biuf":
            raise TypeError(f"tensor {name!r} is of {tensor.dtype}")
        if not np.isfinite(tensor).all():
            raise ValueError(f"it holds NaN or infinity in tensor {name!r}")
    note = json.loads(text)
    if not isinstance(note, dict):
        raise TypeError(f"its note must be a JSON object, got a {type(note).__name__}")
    return tensors, note


def _tensors_digest(tensors: Mapping[str, NDArray[Any]], note: str) -> str:
    """Return the SHA-256 of tensors and note, whatever the order in which a file has them."""
    import numpy as np

    digest = hashlib.sha256(note.encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"\0{name}\0{tensor.dtype}\0{tensors[name].shape}\0".encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def digest_of(path: Path) -> Digest:
    """Return size and SHA-256 of a file."""
    size = size_of(path)
    try:
        with path.open("rb") as file:
            return Digest(hashlib.file_digest(file, "sha256").hexdigest(), size)
    except OSError as error:
        raise _unreadable(path, error) from error


def size_of(path: Path, expected: Digest | None = None) -> int:
    """Return a file's size; refuse a pipe or a device, whose reading might never end."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise RunError(f"cannot read {path}: it is no regular file.")
    if expected is not None and expected.size not in (None, status.st_size):
        raise _other(path)
    return status.st_size


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.")


def _other(path: Path) -> RunError:
    return RunError(
        f"{path} is not the file that this run wrote: its SHA-256 differs from the one in "
        "config.json. Restore it, or train again."
    )
