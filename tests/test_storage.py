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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1%s}' % ("0" * 400), "a number of 401 digits"),
        ('{"a": -1%s}' % ("0" * 400), "a number of 402 digits"),
        ('{"a": 1%s}' % ("0" * 9000), "a number of 9,001 digits"),
        ('{"a": 1e999}', "beyond any float"),
        ('{"a": %s}' % ("[" * 150 + "]" * 150), "nested deeper than 100"),
        (r'{"a": "\ud800"}', "surrogates not allowed"),
        (r'{"\udfff": 1}', "surrogates not allowed"),
    ],
    ids=["400 digits", "negative", "9,000 digits", "float", "deep", "text", "key"],
)  # fmt: skip
def test_json_that_nothing_else_could_hold_is_refused(tmp_path, text, words):
    """Numbers beyond a float, depths beyond the stack and halves of characters end here."""
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(RunError, match=rf"x\.json is damaged: .*{words}"):
        storage.read_json(path)


def test_large_whole_numbers_and_any_character_are_json(tmp_path):
    """What a float can hold is read as it is written, and so is every whole character."""
    content = {"a": 2**70, "b": 10**300, "c": 1e308, "d": "🦊\u2028"}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    assert storage.read_json(path) == content


def test_a_file_of_another_size_is_not_read_at_all(tmp_path, monkeypatch):
    """Five gigabytes in place of a file are refused by their size, without hashing any of them."""
    path = tmp_path / "x.safetensors"
    storage.write_tensors(path, {"w": np.ones(3)})
    expected = storage.digest_of(path)
    with path.open("r+b") as file:
        file.truncate(5 * 2**30)

    def never(*_):
        pytest.fail("it was read")

    monkeypatch.setattr("hashlib.file_digest", never)
    with pytest.raises(RunError, match="is not the file that this run wrote"):
        storage.read_tensors(path, expected)
    with pytest.raises(RunError, match="is larger than"):
        storage.read_json(path)


@pytest.mark.parametrize("place", ["weights", "note"])
def test_a_checkpoint_with_one_flipped_bit_is_refused(tmp_path, place):
    """A checkpoint has no digest in config.json, so it has its own."""
    path = tmp_path / "x.safetensors"
    storage.write_tensors(path, {"w": np.ones(100)}, {"epoch": 3})
    content = bytearray(path.read_bytes())
    at = len(content) - 5 if place == "weights" else content.index(b"epoch") + 9
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"x\.safetensors is damaged"):
        storage.read_tensors(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("read", [storage.read_json, storage.read_tensors, storage.read_bytes])
def test_a_pipe_is_never_opened(tmp_path, read):
    """Whatever is read is a regular file."""
    os.mkfifo(tmp_path / "x")
    with pytest.raises(RunError, match="no regular file"):
        read(tmp_path / "x")


@pytest.mark.parametrize("read", [storage.read_json, storage.read_tensors, storage.digest_of])
def test_a_file_that_must_not_be_read_is_said_in_words(tmp_path, monkeypatch, read):
    """Without permission for the folder there is a RunError that names the file."""

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.stat", denied)
    with pytest.raises(RunError, match=r"cannot read .*x: Permission denied"):
        read(tmp_path / "x")
