"""The run folder on disk: safetensors and JSON, each file written whole or not at all.

::

    runs/<name>/
      config.json          what was asked, every option resolved, versions; once training has
                           finished, the SHA-256 of the files that a prediction depends on
      schema.json          columns, categories, classes, normalisation
      model.safetensors    the weights
      calibration.json     the temperature, and the scores that prediction sets follow from;
                           absent where there were no validation rows
      metrics.json         what the model scored
      history.csv          a line per epoch
      environment.json     the machine and the versions that trained it
      report.html          the page for people; nothing reads it back
      checkpoints/         where training stood after its last epoch, one file per candidate

Nothing here is ever executed, unpickled or imported: a run folder is data.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from luce.errors import LuceError, RunError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FORMAT",
    "open_whole",
    "read_json",
    "read_tensors",
    "sha256",
    "write_json",
    "write_tensors",
    "write_whole",
]

# The version of the layout above. A reader refuses any other.
FORMAT = 1

# No honest JSON file of a run comes near this; a hostile one must not fill the memory.
LARGEST_JSON = 256 * 2**20


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


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    RunError
        If the file is missing, too large, damaged, or holds something else than an object.
    """
    _check_file(path)
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_JSON + 1)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}.") from error
    if len(text) > LARGEST_JSON:
        raise RunError(f"{path} is larger than {LARGEST_JSON:,} bytes: no run writes such.")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} must hold a JSON object, got a {type(content).__name__}.")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def write_tensors(
    path: Path,
    tensors: Mapping[str, ArrayLike],
    note: Mapping[str, Any] | None = None,
    *,
    sync: bool = True,
) -> None:
    """Write tensors, and a note of plain data in the same file, as safetensors.

    NumPy's arrays, or PyTorch's tensors on the CPU that need no gradient.
    """
    import numpy as np
    from safetensors.numpy import save

    metadata = {"format": str(FORMAT)}
    if note is not None:
        metadata["note"] = json.dumps(note)
    own = {name: np.require(tensor, requirements="C") for name, tensor in tensors.items()}
    write_whole(path, save(own, metadata=metadata), sync=sync)


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the tensors and the note that :func:`write_tensors` wrote.

    Raises
    ------
    RunError
        If the file is missing, damaged, of another format, or holds numbers that are not finite.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        note = json.loads(metadata.get("note", "{}"))
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The two in the middle: a dtype that NumPy does not have.
        raise RunError(f"{path} is damaged: {error}.") from error
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}.") from error
    if metadata.get("format") != str(FORMAT):
        raise RunError(f"{path} was not written by this version of Luce: format {metadata}.")
    for name, tensor in tensors.items():
        if tensor.dtype.kind not in "biuf":
            raise RunError(f"{path} is damaged: tensor {name!r} is of {tensor.dtype}.")
        if not np.isfinite(tensor).all():
            raise RunError(f"{path} holds NaN or infinity in tensor {name!r}.")
    return tensors, note


def _check_file(path: Path) -> None:
    """Refuse a pipe or a device: reading one might never end."""
    if path.exists() and not path.is_file():
        raise RunError(f"cannot read {path}: it is no regular file.")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    _check_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}.") from error
