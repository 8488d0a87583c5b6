"""distil(): a run teaches a smaller model, which is saved as a run and compared with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luce import models
from luce.errors import ArgumentError, RunError
from luce.folders import check_free, locked, resumable
from luce.manifest import read_config
from luce.models import Candidate
from luce.neural.teaching import Lessons, prepare
from luce.plan import make_plan, student_arguments
from luce.progress import Display
from luce.run import Run, load_run
from luce.storage import digest_of
from luce.training.candidates import unfitted
from luce.training.comparing import compared
from luce.training.folder import RunFolder
from luce.training.material import Material, gather
from luce.training.resume import check_data, ready, resumed
from luce.training.train import begun, complete, fit_and_save, scored

if TYPE_CHECKING:
    from luce.data.dataset import Features
    from luce.request import Request

__all__ = ["distil"]


def distil(
    teacher: Run | str | Path | None = None,
    source: Any = None,
    *,
    config: str | Path | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    display: Display | None = None,
    announce: Callable[[Run], None] | None = None,
    **arguments: Any,
) -> Run:
    """Let a trained run teach a smaller model, and save that as a run of its own.

    The teacher says once how probable each class is, for each training row. The student learns
    from that and from the labels. Then the same model learns from the labels alone, and the
    three are compared: ``run.metrics["distillation"]``.

    Parameters
    ----------
    teacher : Run, str or Path
        A run, or its folder. It is read, and not changed; the student does not need it afterwards.
    source : str, Path, array, DataFrame or tuple
        What to learn from, as for :func:`luce.load_dataset`. It has the columns that the teacher
        reads. Labels may be missing: in some rows of a table or of a pair in memory (None or
        NaN), or in all rows.
    config, name, out, resume, overwrite, download, display, announce
        As for :func:`luce.train`. By default the name is the source's with ``-student``.
    **arguments
        ``temperature`` (2.0), how far both softmaxes are softened; ``alpha`` (0.9), the teacher's
        share in what is learnt; ``model`` ("linear", "mlp" or "cnn"; by default an mlp with one
        hidden layer of 32 units). "linear" takes a temperature of 1 alone, its default. And those
        of :func:`luce.train`, but for ``image_size`` and ``drop_rare``: the student reads images
        and classes as the teacher does.

    Returns
    -------
    Run
        The student.

    Raises
    ------
    ArgumentError
        If an argument is not allowed, or the run folder exists already.
    DataError
        If the teacher does not know the classes of the labels, or lacks columns; or the data
        cannot be used.
    RunError
        If the teacher is no run, or the student's folder cannot be written or resumed.
    TrainingStoppedError
        After Ctrl-C: training stopped after a batch, was saved, and can be resumed.

    References
    ----------
    Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.

    Examples
    --------
    >>> import luce, tempfile
    >>> out = tempfile.mkdtemp()
    >>> teacher = luce.train("digits", model="linear", out=out)
    >>> student = luce.distil(teacher, "digits", hidden=(16,), epochs=5, out=out)
    >>> [each["who"] for each in student.metrics["distillation"]["models"]]
    ['teacher', 'student', 'alone']
    """
    display = display or Display()
    given = None if teacher is None else teacher.path if isinstance(teacher, Run) else teacher
    arguments = student_arguments(given, arguments, anew=config is None and not resume)
    plan = make_plan(
        source,
        command="distil",
        config=config,
        name=name,
        out=out,
        resume=resume,
        overwrite=overwrite,
        download=download,
        arguments=arguments,
    )
    request, source, path = plan.request, plan.source, plan.path
    with locked(path):
        if resume:
            request = resumed(path, plan.given, request if config is not None else None)
        else:
            check_free(path, overwrite=overwrite)
        source = ready(source, request, "distil")
        run = _teacher(request, path)
        display.say(f"teacher: {run.path}, {run.config['model']}")
        data = gather(source, request, run, display)
        candidate = _candidate(request, data)
        digest = digest_of(run.path / "config.json").sha256  # which has those of its files
        first = begun(request, data)
        first["teacher"] = {"model": run.config["model"], "sha256": digest}
        if resume:
            check_data(path, first["data"], request.test)
            _check_teacher(path, first["teacher"], request)
        folder = RunFolder(path, first, resume=resume, overwrite=overwrite)
        taught = partial(_teach, run, candidate, data, folder, request, display)
        return complete(taught, data, folder, display, announce)


def _teacher(request: Request, path: Path) -> Run:
    """Return the run that the student at `path` is to learn from."""
    if request.teacher is None:
        raise ArgumentError(
            f"distil: {path} is asked for without a teacher. Give one, or use luce train."
        )
    if path.resolve() == Path(request.teacher).resolve():
        raise ArgumentError(f"distil: {path} is the teacher. Give the student another --name.")
    run = load_run(request.teacher)
    if run.schema.several is not None:
        raise ArgumentError(
            f"distil: {run.path} says several labels at once, and a student learns the "
            "probabilities of classes that exclude each other. Train a smaller model with luce "
            "train --several."
        )
    return run


def _check_teacher(path: Path, teacher: Mapping[str, Any], request: Request) -> None:
    """Raise RunError if the training to resume had another teacher."""
    if read_config(resumable(path)).get("teacher") != teacher:
        raise RunError(
            f"{request.teacher} is not the teacher that {path} learnt from until now. "
            "Restore it, or begin again with --overwrite."
        )


@dataclass(frozen=True)
class _Answering:
    """A run as a teacher of raw rows, which are asked for by their positions."""

    run: Run
    rows: Features

    @property
    def classes_(self) -> NDArray[Any]:
        """The run's classes; text as objects, as labels are everywhere."""
        classes = self.run.classes
        return np.array(classes, dtype=object if isinstance(classes[0], str) else None)

    def predict_proba(self, positions: NDArray[np.intp]) -> NDArray[np.floating[Any]]:
        """Return the calibrated probabilities of the rows at these positions."""
        return self.run.predict_proba(self.rows[positions])


def _candidate(request: Request, data: Material) -> Candidate:
    """Return the student that is asked for; refuse now what would fail once it is trained."""
    kind = models.student_kind(request.model)
    kind.check_taught(request.options, request.temperature)
    options = {**kind.as_student(data.schema.input_shape), **request.options}
    schema = data.schema
    shape, sparse = schema.input_shape, schema.sparse
    candidate = models.candidates(request.model, options, shape, sparse=sparse)[0]
    estimator = unfitted(candidate, schema, seed=request.seed)
    kind.check_rows(estimator, shape, len(schema.classes or []))
    return candidate


def _teach(
    teacher: Run,
    candidate: Candidate,
    data: Material,
    folder: RunFolder,
    request: Request,
    display: Display,
) -> None:
    """Train the student with and without the teacher; compare all three and write the run."""
    display.report_every = request.report_every
    with folder.worked_in(display, request.resume_command(folder.path)):
        lessons = _lessons(teacher, candidate, data, request)
        rows = replace(data.rows, labels=lessons.labels)
        taught = replace(data, parts={**data.parts, "train": rows})
        display.say_all(f"note: {line}" for line in taught.unread())
        student = fit_and_save(candidate, taught, folder, request, display, lessons=lessons)
        folder.add(student)
        sides = {
            "teacher": (str(teacher.config["model"]), teacher.classifier),
            "student": (candidate.model, student.classifier),
        }
        known = data.known
        labels = np.array([]) if known is None else known
        if set(labels.tolist()) == set(teacher.classes):
            same = Candidate(f"{candidate.label}-alone", candidate.model, candidate.options)
            alone = fit_and_save(same, data, folder, request, display)
            folder.add(alone)
            sides["alone"] = (candidate.model, alone.classifier)
        else:
            why = "not every class has rows" if len(labels) else "no row is there"
            display.say(
                "note: the student is not compared with one that has no teacher: "
                f"{why} with a label to learn from."
            )
        judged = data.judged_rows  # before scoring lets go of what was encoded
        scores = {
            **scored(student, data, request.seed),
            "distillation": compared(sides, data.held),
        }
        folder.finish(student, scores, [student.entry], judged)


def _lessons(teacher: Run, candidate: Candidate, data: Material, request: Request) -> Lessons:
    """Ask the teacher about all training rows, once."""
    wide = candidate.options.get("precision") == "float64"
    return prepare(
        _Answering(teacher, data.rows.features),
        np.arange(len(data.rows)),
        data.labels,
        request.temperature,
        request.alpha,
        np.float64 if wide else np.float32,
    )
