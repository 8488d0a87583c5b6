"""Files of a run: written whole or not at all, and not believed when read."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from luce import storage
from luce.errors import RunError


def test_json_round_trips(tmp_path):
    """What is written as JSON comes back."""
    content = {"a": [1, 2.5, None, True], "名": "ü"}
    storage.write_json(tmp_path / "x.json", content)
    assert storage.read_json(tmp_path / "x.json") == content


def test_tensors_and_their_note_round_trip(tmp_path):
    """Tensors of any dtype that NumPy has, and the note, come back to the bit."""
    tensors = {
        "w": torch.randn(3, 2),
        "n": torch.tensor(7),
        "h": torch.randn(2).half(),
        "d": np.random.default_rng(0).normal(size=(2, 3))[:, ::2],
        "b": np.array([True, False]),
    }
    storage.write_tensors(tmp_path / "x.safetensors", tensors, {"epoch": 3})
    back, note = storage.read_tensors(tmp_path / "x.safetensors")
    assert note == {"epoch": 3}
    for name, tensor in tensors.items():
        wanted = np.asarray(tensor)
        assert back[name].dtype == wanted.dtype
        np.testing.assert_array_equal(back[name], wanted)


def test_a_dtype_that_numpy_lacks_is_refused(tmp_path):
    """No run has bfloat16 weights; a file that does is a RunError, not a traceback."""
    content = save({"w": torch.ones(2).bfloat16()}, metadata={"format": str(storage.FORMAT)})
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"x\.safetensors is damaged"):
        storage.read_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"a": ',
        "[1, 2]",
        '{"a": NaN}',
        '{"a": Infinity}',
        "[" * 100_000 + "]" * 100_000,
        "\xff",
    ],
    ids=["empty", "truncated", "array", "nan", "infinity", "deep", "not utf-8"],
)
def test_damaged_json_is_refused(tmp_path, text):
    """Anything but a finite JSON object is a RunError that names the file."""
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"x\.json"):
        storage.read_json(path)


def test_an_enormous_json_is_refused_before_it_is_parsed(tmp_path):
    """A file beyond the limit is not read into memory as a whole."""
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(storage.LARGEST_JSON + 10)
    with pytest.raises(RunError, match="is larger than"):
        storage.read_json(path)


def test_nan_is_not_written(tmp_path):
    """JSON has no NaN, so none is written."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "x.json", {"a": float("nan")})


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "nan", "foreign", "missing"])
def test_damaged_tensors_are_refused(tmp_path, damage):
    """A safetensors file that is cut, forged, not finite or not ours is a RunError."""
    path = tmp_path / "x.safetensors"
    weights = torch.ones(100)
    if damage == "nan":
        weights[3] = float("nan")
    if damage == "foreign":
        save_file({"w": weights}, path)
    else:
        storage.write_tensors(path, {"w": weights})
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-7])
    if damage == "header":
        path.write_bytes(b"\xff" * 8 + content[8:])
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "missing":
        path.unlink()
    with pytest.raises(RunError, match=r"x\.safetensors"):
        storage.read_tensors(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """When the disk is full the old content stands, and nothing lies beside it."""
    path = tmp_path / "x.json"
    storage.write_json(path, {"old": 1})

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        storage.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_write_that_the_system_refuses_half_way_leaves_nothing(tmp_path):
    """A real refusal in the middle of a file (a size limit of the process) leaves no part of it."""
    import resource

    code = (
        "import torch\n"
        "from luce.errors import RunError\n"
        "from luce.storage import write_tensors\n"
        "from pathlib import Path\n"
        "try: write_tensors(Path('x.safetensors'), {'w': torch.zeros(100_000)})\n"
        "except RunError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert "cannot write x.safetensors: File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []
