"""The life of a run folder: locked, made whole, replaced whole, and mended after a kill."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import luce
from luce import folders, storage
from luce.errors import ArgumentError, DataError, DivergenceError, RunError, TrainingStoppedError
from luce.folders import locked
from luce.progress import Display
from luce.run import loading

SMALL = {"model": "mlp", "hidden": (4,), "epochs": 2}


class StopAfterAnEpoch(Display):
    """Presses Ctrl-C when the first epoch has ended."""

    def batch(self, progress):
        if progress.record:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def data():
    """Forty rows in two classes."""
    y = np.arange(40) % 2
    return np.random.default_rng(0).normal(size=(40, 3)) + y[:, None], y


@pytest.fixture
def train(data, tmp_path, monkeypatch):
    """Return a function that trains a tiny network to the name "run", without a page."""

    def no_page(*_, **__):
        raise DataError("not here")

    monkeypatch.setattr(luce.Run, "report_of", no_page)

    def run(**options):
        if not options.get("resume"):
            options = {**SMALL, **options}
        return luce.train(data, out=tmp_path, name="run", **options)

    return run


def contents(folder):
    """Return every file of a folder, hidden ones too."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def is_alone(path):
    """Say whether nothing else is beside a run, and nothing unfinished in it."""
    return list(path.parent.iterdir()) == [path] and not list(path.rglob(".*"))


def test_overwriting_with_a_training_that_diverges_leaves_the_run_as_it_was(train):
    """The good run is there to the last byte, and nothing beside it."""
    path = train().path
    before = contents(path)
    bad = {"optimizer": "sgd", "learning_rate": 1e30, "schedule": "constant", "epochs": 9}
    with pytest.raises(DivergenceError):
        train(**bad, overwrite=True)
    assert contents(path) == before
    assert is_alone(path)


@pytest.mark.parametrize(
    "file", ["config.json", "environment.json", "mlp.safetensors", "model.safetensors"]
)
def test_overwriting_on_a_full_disk_leaves_the_run_as_it_was(train, monkeypatch, file):
    """Whichever file of the new run cannot be written; with room again it can be gone on from."""
    path = train().path
    before, real = contents(path), storage.write_whole

    def full(target, content, **options):
        if target.name == file:
            raise RunError(f"cannot write {target}: No space left on device.")
        real(target, content, **options)

    monkeypatch.setattr(storage, "write_whole", full)
    monkeypatch.setattr("luce.training.history.write_whole", full)
    with pytest.raises(RunError, match="No space left"):
        train(hidden=(5,), overwrite=True)
    assert contents(path) == before
    luce.load_run(path)
    monkeypatch.undo()
    resumable = file == "model.safetensors"
    train(resume=True) if resumable else train(hidden=(5,), overwrite=True)
    assert luce.load_run(path).config["options"]["hidden"] == [5]
    assert is_alone(path)


def test_a_run_that_is_being_replaced_stays_until_the_new_one_is_finished(train):
    """After Ctrl-C the old run still predicts; --resume finishes the new one and puts it there."""
    old = train()
    before = contents(old.path)
    with pytest.raises(TrainingStoppedError):
        train(hidden=(5,), overwrite=True, display=StopAfterAnEpoch())
    assert contents(old.path) == before
    with pytest.raises(ArgumentError, match="go on with a stopped training that is to replace it"):
        train()
    new = train(resume=True)
    assert new.path == old.path
    assert luce.load_run(new.path).config["options"]["hidden"] == [5]
    assert is_alone(new.path)


def test_resuming_what_has_finished_changes_nothing(train):
    """There is nothing left to train, so no file of a good run is written again."""
    path = train().path
    before = contents(path)
    train(resume=True)
    assert contents(path) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to kill what is warm already")
def test_a_kill_before_any_change_on_the_disk_can_be_gone_on_from(tmp_path):
    """After each of them the old or the new run predicts, and every way on works and tidies up.

    Thinned to every ninth change; ``python -m tests.hostile`` has all of them.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.kills", str(tmp_path), "9"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["failed"] == [], done.stderr
    assert result["kills"] > 10


@pytest.mark.parametrize("left", [(), (".config.json.a1b2c3d4",)], ids=["empty", "unfinished file"])
@pytest.mark.parametrize("options", [{}, {"overwrite": True}], ids=["plain", "overwrite"])
def test_a_folder_without_anything_whole_in_it_is_as_good_as_none(train, tmp_path, left, options):
    """What earlier versions left when they were killed at the very beginning blocks no name."""
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).write_text("{")
    assert is_alone(train(**options).path)


def test_a_kill_between_the_two_renames_loses_no_run(train, data, tmp_path):
    """Whoever looks for the run next, a reader too, finds the new one in its place."""
    path = train().path
    new = luce.train(data, **SMALL, out=tmp_path / "b", name="run")
    new.path.rename(tmp_path / ".run.training")
    path.rename(tmp_path / ".run.replaced")
    (tmp_path / "b").rmdir()
    luce.load_run(path)
    assert is_alone(path)


def test_only_one_training_works_on_a_name(train, tmp_path):
    """The second one says at once who the first is, and does not touch what that has made."""
    with locked(tmp_path / "run"), pytest.raises(RunError) as refused:
        train()
    assert f"is being trained by process {os.getpid()} since 20" in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    assert is_alone(train().path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_lock_of_a_killed_training_blocks_nobody(train, tmp_path):
    """The system frees it, and its file goes with the next training."""
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom luce.folders import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / ".run.lock").exists()
    assert is_alone(train().path)


def test_a_lock_names_another_host(tmp_path, monkeypatch):
    """On a shared disk the process number alone would say nothing."""
    monkeypatch.setattr("socket.gethostname", lambda: "far")
    with locked(tmp_path / "run"):
        monkeypatch.setattr("socket.gethostname", lambda: "near")
        with (
            pytest.raises(RunError, match=rf"process {os.getpid()} on far since"),
            locked(tmp_path / "run"),
        ):
            pytest.fail("two at once")


def test_a_lock_that_was_deleted_while_we_waited_is_not_enough(tmp_path, monkeypatch):
    """A lock on a file that has no name any more would keep nobody out: it is taken anew."""
    real, calls = folders._try_lock, []

    def slow(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / ".run.lock").unlink()
        return real(descriptor)

    monkeypatch.setattr(folders, "_try_lock", slow)
    with locked(tmp_path / "run"):
        assert (tmp_path / ".run.lock").exists()
    assert len(calls) == 2


def test_a_folder_that_must_not_be_written_to_is_said_in_words(train, monkeypatch):
    """Without permission there is a RunError that names the run, and says what to do."""

    def denied(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(folders, "_acquire", denied)
    with pytest.raises(RunError, match=r"cannot make .*run: Permission denied. Choose another"):
        train()


def test_a_folder_that_cannot_be_replaced_stays(train, tmp_path, monkeypatch):
    """If the exchange fails half way the old run is put back, and --resume tries again."""
    path = train().path
    before, real = contents(path), Path.rename

    def busy(self, target):
        if self.name == ".run.training" and Path(target).name == "run":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(RunError, match=r"cannot replace .*run: Permission denied. It stays"):
        train(hidden=(5,), overwrite=True)
    assert contents(path) == before
    monkeypatch.undo()
    train(resume=True)
    assert luce.load_run(path).config["options"]["hidden"] == [5]
    assert is_alone(path)


def test_a_reader_never_gets_half_of_each_of_two_runs(train, tmp_path, monkeypatch, data):
    """A run that is replaced while it is loaded is loaded again, whole."""
    path = train().path
    real, calls = loading.read_tensors, []

    def meanwhile(*arguments):
        monkeypatch.setattr(loading, "read_tensors", real)
        calls.append(train(hidden=(5,), overwrite=True))
        return real(*arguments)

    monkeypatch.setattr(loading, "read_tensors", meanwhile)
    run = luce.load_run(path)
    assert run.config["options"]["hidden"] == [5]
    np.testing.assert_array_equal(run.predict_proba(data[0]), calls[0].predict_proba(data[0]))


def test_the_report_of_a_replaced_run_is_in_its_place(data, tmp_path):
    """report.html is written where the run lies in the end."""
    for hidden in (4, 5):
        options = {**SMALL, "hidden": (hidden,)}
        run = luce.train(data, out=tmp_path, name="run", **options, overwrite=True)
    assert (run.path / "report.html").exists()
    assert is_alone(run.path)
