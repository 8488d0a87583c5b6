"""What can be said of a training before any data are read: options first, then source, then folder.

Nothing heavy is imported here, so that a typing error is answered at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from luce.data import downloads
from luce.data.checking import check_source
from luce.data.directions import Directions
from luce.data.downloads import is_address, kept
from luce.data.kinds import NAMES, brings_test_rows, existing, is_pattern
from luce.data.remote import RemotePath, answering, is_remote
from luce.errors import ArgumentError, RunError
from luce.folders import check_free, mended, resumable
from luce.group import COMMON, known, restarted
from luce.manifest import read_config
from luce.models import MODELS, student_kind
from luce.options import DISTIL, check_sizes
from luce.request import DIRECTIONS, Request
from luce.storage import check_on_disk

__all__ = [
    "INHERITED",
    "Plan",
    "check_engine",
    "check_no_teacher",
    "check_together",
    "check_use",
    "make_plan",
    "no_source",
    "student_arguments",
]

# The kind of model that is taught where none is named.
STUDENT = "mlp"

# How a student reads its data is how its teacher does.
INHERITED = ("image_size", "drop_rare", *DIRECTIONS)


@dataclass(frozen=True)
class Plan:
    """A training that nothing is known to speak against.

    Attributes
    ----------
    request : Request
        What is asked for.
    source : object
        What to learn from: a name, a path, or what is in memory.
    path : Path
        The run folder.
    given : dict
        The arguments by name, the source among them if it is a name or a path.
    resume, overwrite : bool
        What is to be done with what is there already. A process that a launcher began anew goes on
        with what the one before it has begun. Of a process group, rank 0 alone knows.
    """

    request: Request
    source: Any
    path: Path
    given: dict[str, Any]
    resume: bool
    overwrite: bool


def make_plan(
    source: Any,
    *,
    command: str,
    preset: str | None = None,
    config: str | Path | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    arguments: Mapping[str, Any],
) -> Plan:
    """Check what `luce.train` was given, as it takes it, and return what is to be done.

    `command` is what was given it: "train", "tune" or "distil".

    Raises
    ------
    ArgumentError
        If an argument is not allowed, or the run folder is taken.
    DataError
        If the source is not there, or of a kind that nothing can be learnt from.
    RunError
        If there is no run to resume, or the run folder cannot be made.
    """
    if resume and overwrite:
        raise ArgumentError(
            "resume and overwrite exclude each other: --resume goes on with a run, --overwrite "
            "replaces it. Give one of them."
        )
    given = dict(arguments)
    if isinstance(source, str | Path):
        given["source"] = str(source)
    request = Request.make(given, preset=preset, config=config)
    if command != "distil":
        check_no_teacher(request, command, given)
    request.check()
    if not resume:  # else the run knows the model
        check_together(command, request)
    if request.stream and command != "train":
        raise ArgumentError(
            f"{command} does not read streams: stream is an option of train. Leave it out."
        )
    if request.teacher is not None and not resume:  # else the run knows the model
        student_kind(request.model).check_taught(request.options, request.temperature)
    source = request.source if source is None else source
    if source is None and not (resume and name):
        raise no_source(command)
    if download:
        _fetch(source, request.test)
    if not resume:  # else the run knows the target
        _check_sources(source, request)
    if name is None:
        # A student is not named as its teacher, which is often of the same data.
        name = _name_of(source) + ("-student" if request.teacher is not None else "")
    path = run_folder(out, name)
    if known().rank == 0:  # others would see what this one has made meanwhile
        resume, overwrite = _checked(path, resume=resume, overwrite=overwrite)
    return Plan(request, source, path, given, resume, overwrite)


def _checked(path: Path, *, resume: bool, overwrite: bool) -> tuple[bool, bool]:
    """Look at what is in the run folder; return whether to resume, and whether to overwrite."""
    if restarted() and not resume and _has_begun(path, overwrite=overwrite):
        resume, overwrite = True, False
    if resume:
        _check_resumable(path)
    elif not overwrite and (path / "config.json").exists():
        check_free(path, overwrite=False)
    return resume, overwrite


def check_together(command: str, request: Request) -> None:
    """Raise ArgumentError for what the processes of a group, if this is one, cannot do."""
    size = known().size
    if size == 1:
        return
    if command != "train":
        error = ArgumentError(
            f"luce {command} is no work for a process group, and this is one of {size} processes. "
            "Start it once; luce train can be started by torchrun."
        )
        error.add_note(COMMON)
        raise error
    able = [name for name, model in MODELS.items() if model.together]
    if request.model not in able:
        raise ArgumentError(
            f"model must be one of {', '.join(able)} where a group of {size} processes trains it "
            f"together, got {request.model!r}. Name one, or start luce train once."
        )


def _has_begun(path: Path, *, overwrite: bool) -> bool:
    """Say whether there is a training that the process before this one may have begun.

    One of the same request and data ends with the same bits, whoever has begun it.
    """
    begun = resumable(mended(path))
    return (begun / "config.json").exists() and (not overwrite or begun != path)


def _check_resumable(path: Path) -> None:
    """Raise RunError unless there is a run to go on with."""
    try:
        read_config(resumable(mended(path)))
    except RunError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise RunError(
                f"{path} holds no run to go on with. Leave out --resume to begin it, or give the "
                "--name of the run that was stopped."
            ) from error
        raise


def _fetch(*sources: Any) -> None:
    for source in filter(is_address, sources):
        downloads.download(source)


def _check_sources(source: Any, request: Request) -> None:
    if request.teacher is not None:
        check_use(Path(request.teacher))
    if isinstance(source, str | Path):
        if request.teacher is None:
            told = Directions(**request.directions)
            check_source(source, target=request.target, features=request.features, told=told)
        elif source not in NAMES:  # a target is not needed: the teacher has one, or no row a label
            existing(source)
        if request.test is None and not brings_test_rows(source):
            check_sizes(request.validation_size, request.test_size)
    if request.test is not None:
        told = Directions(several=request.several)
        given = {"target": request.target, "features": request.features}
        check_source(request.test, **given, told=told if request.several else None)


def run_folder(out: str | Path, name: str) -> Path:
    """Return where a run of this name lives: directly in `out`, never above or beside it."""
    path = Path(out) / name
    check_on_disk(path)
    if out == "":
        raise ArgumentError(
            "out must be a folder, got ''. Leave it out for runs, or give . for here."
        )
    if name in ("", ".", "..") or Path(name).name != name or not name.isprintable():
        raise ArgumentError(
            f"name must be that of one folder, got {name!r}. Choose where it lies with --out."
        )
    try:
        path.exists()
    except OSError as error:
        raise ArgumentError(f"{path} cannot be a folder: {error.strerror or error}.") from error
    for above in path.parents:
        if above.exists() and not above.is_dir():
            raise RunError(
                f"cannot make {path}: {above} is a file. Choose another folder with --out."
            )
    return path


def no_source(command: str) -> ArgumentError:
    """Return the error of a training that nobody said what to learn from."""
    return ArgumentError(
        f"{command} needs a source: a name such as digits, a file or a folder. "
        "`luce train --help` has an example of each."
    )


def check_no_teacher(request: Request, command: str, given: Collection[str] = ()) -> None:
    """Raise ArgumentError for what `luce distil` was or is to be asked for, by name `given`."""
    for option in DISTIL:
        if option in given:
            raise ArgumentError(
                f"{command} has no option {option!r}: it says how a teacher is learnt from. "
                "Use luce distil, or luce.distil in Python."
            )
    if request.teacher is not None:
        raise ArgumentError(
            f"{command}: this is to learn from the teacher {request.teacher}. "
            "Use luce distil, or luce.distil in Python, with the same options."
        )


def student_arguments(
    teacher: str | Path | None, arguments: Mapping[str, Any], *, anew: bool
) -> dict[str, Any]:
    """Return what `luce.distil` was given as arguments of a request.

    Parameters
    ----------
    teacher : str or Path, optional
        The teacher's run folder.
    arguments : mapping
        All other arguments by name.
    anew : bool
        Whether there is no request yet, to repeat or to go on with, that names teacher and model.
    """
    found = dict(arguments)
    for option in INHERITED:
        if option in found:
            raise ArgumentError(f"distil has no option {option!r}: it is the teacher's.")
    if teacher is not None:
        found["teacher"] = str(teacher)
    elif anew:
        raise ArgumentError(
            "distil needs a teacher, a run folder such as runs/digits, and a source: "
            "luce distil TEACHER SOURCE."
        )
    if not anew:
        return found
    found = {"model": STUDENT, **found}
    return {**student_kind(found["model"]).taught_with, **found}


def _name_of(source: Any) -> str:
    """Return a run's name from its source: a file's without its ending."""
    if not isinstance(source, str | Path):
        return "array"
    path: Path | RemotePath
    if is_remote(source):
        path = RemotePath(source)
        if set("*?[") & set(path.name):  # else nothing has to be asked there
            path = path.parent if answering(path, partial(is_pattern, path)) else path
    else:
        path = kept(source) if is_address(source) else Path(source)
        path = path.parent if is_pattern(path) else path
    # Resolved: "." and ".." are named as the folder that they are.
    name = path.resolve().name.removesuffix(".gz").removesuffix(".zst")
    return Path(name).stem or "run"


def check_engine(asked: Mapping[str, Any]) -> None:
    """Raise ArgumentError for what is said of an engine where none is asked for."""
    if asked.get("engine") is None and asked.get("address") is None:
        for name in ("timeout", "task_timeout"):
            if asked.get(name) is not None:
                raise ArgumentError(
                    f"{name} says how long an engine is waited for, and none is asked for. Give "
                    "an engine or an address, or leave it out."
                )


def check_use(path: Path, source: str | None = None) -> None:
    """Raise RunError for what is no run folder, DataError for a source that is not there."""
    read_config(mended(path))
    if source is not None and source not in NAMES:
        existing(source)
