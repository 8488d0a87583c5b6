"""train(): a source → prepared rows → every candidate fitted → the best, saved and scored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luce import __version__, models
from luce.data.streams.scan import Scan
from luce.engines import TASK_TIMEOUT, TIMEOUT, using
from luce.errors import ArgumentError, DivergenceError, LuceError, TrainingStoppedError
from luce.folders import check_free, locked
from luce.group import join
from luce.models import MODELS, Candidate, Estimator, Model
from luce.plan import Plan, check_no_teacher, check_together, make_plan
from luce.progress import Display
from luce.request import PRESETS, Request
from luce.run import Run
from luce.storage import FORMAT
from luce.training.averaging import average, in_words
from luce.training.candidates import Examples, Trained, fit, unfitted
from luce.training.crossvalidation import cross_validated
from luce.training.folder import RunFolder
from luce.training.interrupt import interruptible
from luce.training.prepare import FOLDS, Prepared, prepare
from luce.training.resume import check_data, ready, resumed
from luce.training.streaming import Stream, prepare_stream, streamed_request
from luce.training.together import check_same, in_turn, told

if TYPE_CHECKING:
    from luce.data.blocks import Part
    from luce.data.schema import Schema
    from luce.neural.teaching import Lessons
    from luce.neural.training import Progress

__all__ = [
    "begun",
    "compare",
    "complete",
    "fit_and_save",
    "scored",
    "train",
]

Data = Prepared | Stream
"""Rows to train on, in memory or on the disk."""

# Of the training rows, at most this many are scored.
SCORED_TRAINING_ROWS = 10_000

# An epoch that takes longer is saved within, so often in seconds of training.
SAVE_EVERY = 60.0

# How often, in seconds, processes that train together ask each other whether one is to stop.
ASK_EVERY = 0.3


def train(
    source: Any = None,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    cache_size: int | None = None,
    engine: Any = None,
    address: str | None = None,
    timeout: float = TIMEOUT,
    task_timeout: float = TASK_TIMEOUT,
    display: Display | None = None,
    announce: Callable[[Run], None] | None = None,
    **arguments: Any,
) -> Run:
    """Train a classifier on labelled data, score it on rows it has not seen, and save it.

    Parameters
    ----------
    source : str, Path, array, DataFrame or tuple
        What to learn from, as for :func:`luce.load_dataset`; or what :func:`luce.scan` gives.
    preset : {"tutorial"}, optional
        A whole recipe by name; single arguments override it.
    config : path, optional
        The ``config.json`` of an earlier run: do the same again, with `arguments` on top. Its
        relative paths begin where that run was trained.
    name : str, optional
        The run's name; by default the source's.
    out : path, default="runs"
        The folder of the run folders.
    resume : bool, default=False
        Go on with an interrupted run of this name, to the same bits as without interruption.
    overwrite : bool, default=False
        Replace a run of this name; it stays as it is until the new one is finished and saved.
    download : bool, default=False
        Whether a source that is an address may be downloaded. It is kept, and found again by its
        address.
    cache_size : int, optional
        How many bytes encoded rows of streams may take on the disk, those of other runs included;
        by default as many as there is room for.
    engine : {"local", "dask", "spark", "ray"}, address, dask Client or SparkSession, optional
        Who sums up the rows of a stream for a softmax regression; by default this process. With
        one, `stream` is True.
    address : str, optional
        Where a named engine runs; without, one is started on this machine.
    timeout : float, default=30
        Seconds that a host and port has to answer.
    task_timeout : float, default=120
        Seconds without a result after which an engine's tasks are given to other workers, as those
        that have them may hang. Twice as long the next time; after the third, training ends.
    display : Display, optional
        Where to show progress; by default nowhere.
    announce : callable, optional
        Called with the run as soon as it is saved and can predict. Its ``report.html`` follows.
    **arguments
        ``target``, ``features``, ``test`` (where the labels, the features and separate test rows
        are); ``encoding``, ``separator``, ``decimal``, ``drop``, ``keep`` and ``types`` (tables:
        how they are written, which columns count, of what kind they are); ``image_size`` (folders
        of images are resized to it); ``stream`` (True: tables are read block by block and encoded
        on the disk, as is done otherwise with what would not fit into memory); ``drop_rare`` (0:
        classes with fewer rows are left out); ``model`` ("auto", "linear", "mlp", "cnn");
        ``validation_size`` (0.1) and ``test_size`` (0.2), fractions of the rows held out, in the
        classes' proportions; ``normalise`` ("standard", "none", or a mean and deviation);
        ``seed`` (0); ``report_every`` (batches); and every option of
        :class:`luce.NeuralClassifier`.

    Returns
    -------
    Run
        The trained run, as :func:`luce.load_run` gives it.

    Notes
    -----
    Started by a launcher of several processes (torchrun, or another that gives a process group),
    a network is trained by all of them: each takes a share of every batch. Rank 0 alone writes and
    shows progress; every rank returns the run. A process that torchrun has started again goes on
    from what was saved, as with `resume`.

    Raises
    ------
    ArgumentError
        If an argument is not allowed, or the run folder exists already.
    DataError
        If the data cannot be used; no run folder is made then.
    RunError
        If the folder cannot be written, does not fit what is to be resumed, or is being trained by
        somebody else.
    TrainingStoppedError
        After Ctrl-C: training stopped after a batch, was saved, and can be resumed.
    """
    group = join()
    display = display or Display()
    if group.rank:
        display, announce = Display(), None
    if isinstance(source, Scan):
        source, arguments = source.source, {**source.arguments, **arguments}
    asks_engine = engine is not None or address is not None
    if asks_engine and not resume:  # else the run knows
        arguments.setdefault("stream", True)
    with ExitStack() as held:
        with group.agreed():
            plan = make_plan(
                source,
                command="train",
                preset=preset,
                config=config,
                name=name,
                out=out,
                resume=resume,
                overwrite=overwrite,
                download=download,
                arguments=arguments,
            )
            if group.rank == 0:
                held.enter_context(locked(plan.path))
                plan = _claimed(plan, preset, display, anew=config is None)
        plan = told(plan, group)
        request, path = plan.request, plan.path
        if asks_engine:
            _check_engine(request)
            held.enter_context(using(engine, address, timeout, task_timeout))
        data = in_turn(partial(_prepared, plan, display, cache_size), group, cached=request.stream)
        first = begun(request, data)
        check_same(group, first["data"])
        with group.agreed():
            candidates = _candidates(request, data, display)
            if plan.resume and group.rank == 0:
                check_data(path, first["data"], request.test)
        folder = RunFolder(path, first, resume=plan.resume, overwrite=plan.overwrite, group=group)
        trained = partial(compare, candidates, data, folder, request, display)
        return complete(trained, data, folder, display, announce)


def _check_engine(request: Request) -> None:
    """Raise ArgumentError unless this is a training that an engine has a part in."""
    if request.model == "auto" or MODELS[request.model].in_steps:
        raise ArgumentError(
            f"engine is for model='linear', got model={request.model!r}: processes that torchrun "
            "starts train a network together. Leave engine out, or choose linear."
        )
    if not request.stream:
        raise ArgumentError(
            "engine sums up rows that are encoded on the disk, and this run reads them into "
            "memory: leave engine out, or begin another run, with an engine and without "
            "stream=False."
        )


def _claimed(plan: Plan, preset: str | None, display: Display, *, anew: bool) -> Plan:
    """Return the plan with what the run to resume was asked for, or see that there is room.

    And whether the source is read as a stream.
    """
    request = plan.request
    if plan.resume:
        wanted = {**PRESETS.get(preset or "", {}), **plan.given}
        request = resumed(plan.path, wanted, None if anew else plan.request)
        check_no_teacher(request, "train")
        check_together("train", request)
    else:
        check_free(plan.path, overwrite=plan.overwrite)
    source = ready(plan.source, request, "train")
    return replace(plan, request=streamed_request(source, request, display))


def _prepared(plan: Plan, display: Display, cache_size: int | None) -> Data:
    """Return the rows to train on."""
    source = ready(plan.source, plan.request, "train")
    if plan.request.stream:
        return prepare_stream(source, plan.request, display, cache_size)
    return prepare(source, plan.request, display)


def begun(request: Request, data: Data) -> dict[str, Any]:
    """Return the first config.json of a run: what is asked for, of which data."""
    return {
        "luce": __version__,
        "format": FORMAT,
        "request": asdict(request),
        "data": data.summary(),
        "split": data.split,
        "folds": 0 if data.folds is None else FOLDS,
        "directory": str(Path.cwd()),
    }


def complete(
    train: Callable[[], None],
    data: Data,
    folder: RunFolder,
    display: Display,
    announce: Callable[[Run], None] | None,
) -> Run:
    """Train, unless that is done already, and return the run in its place, reported."""
    if folder.is_finished():
        display.say("note: this training has finished already; nothing is left to do.")
    else:
        train()
    run = folder.load()
    if not folder.writes:
        return run
    if announce is not None:
        announce(run)
    try:
        data.save_report(run, folder.path / "report.html")
    except LuceError as error:  # the run is whole without it
        display.say(f"note: no report.html: {error}")
    return run


def _candidates(request: Request, data: Data, display: Display) -> list[Candidate]:
    """Return what is to be trained; refuse now what would fail after hours of training."""
    shape = data.schema.input_shape
    rows = {"sparse": data.schema.sparse, "text": data.schema.only_text}
    if request.model == "auto":
        display.say_all(f"note: {reason}" for reason in models.not_tried(shape, **rows))
    found = models.candidates(request.model, request.options, shape, **rows)
    if data.schema.several is not None:
        able = [each for each in found if MODELS[each.model].takes_labels]
        if not able:
            names = ", ".join(name for name, kind in MODELS.items() if kind.takes_labels)
            raise ArgumentError(
                f"several labels at once are learnt by {names}: got model={request.model!r}. "
                "Choose one of these."
            )
        found = able
    for candidate in found:
        estimator = unfitted(candidate, data.schema, seed=request.seed)
        MODELS[candidate.model].check_rows(estimator, shape, len(data.classes))
    if len(found) > 1 and "validation" not in data.parts and data.folds is None:
        raise ArgumentError(
            "model='auto' compares candidates on validation rows: give a validation_size above "
            f"0, or name one model: {', '.join(each.label for each in found)}."
        )
    return found


def compare(
    found: Sequence[Candidate],
    data: Data,
    folder: RunFolder,
    request: Request,
    display: Display,
) -> None:
    """Train every candidate; score the best and write the run."""
    display.report_every = request.report_every
    with folder.worked_in(display, request.resume_command(folder.path)):
        board = _leaderboard(found, data, folder, request, display)
        best = board[0]
        with folder.group.agreed():
            # Before scoring lets go of what was encoded.
            judged = data.judged_rows if folder.writes else None
            scores = scored(best, data, request.seed) if folder.writes else {}
            folder.finish(best, scores, [trained.entry for trained in board], judged)


def scored(trained: Trained, data: Data, seed: int) -> dict[str, Any]:
    """Return the figures of each part of the data; None of a part without rows.

    Of the training rows, some that the seed draws stand for all where there are many. No encoded
    rows are kept: nobody needs those that were learnt from afterwards.
    """
    found: dict[str, Any] = {"train": None, "validation": trained.scored, "test": None}
    if "train" in data.encoded:
        rows = data.training_sample(SCORED_TRAINING_ROWS, seed)
        found["train"] = trained.classifier.score(*rows)
        del rows
    data.forget()
    if "test" in data.parts:
        found["test"] = trained.classifier.score(*data.test())
    return found


def _leaderboard(
    found: Sequence[Candidate],
    data: Data,
    folder: RunFolder,
    request: Request,
    display: Display,
) -> list[Trained]:
    """Train every candidate; return them, best first."""
    board: list[Trained] = []
    if data.folds is not None:
        several = len(found) > 1
        what = "the models are compared" if several else f"{found[0].label} is judged"
        display.say(f"note: few rows, so {what} by cross-validation in {FOLDS} folds.")
    for candidate in found:
        try:
            if data.folds is None:
                trained = fit_and_save(candidate, data, folder, request, display)
            else:
                folder.open()
                fitted = partial(
                    _fit,
                    schema=data.schema,
                    folder=folder,
                    request=request,
                    display=display,
                    brief=True,
                )
                trained = cross_validated(
                    candidate, data.encoded["train"], data.folds, fitted, seed=request.seed
                )
                entry = trained.entry
                judged = (
                    f"log-loss {entry['log_loss']:.4f} of rows that were not learnt from, in "
                    f"{entry['seconds']:.1f} s"
                )
                display.say(f"{candidate.label}: {'; '.join([judged, *_remarks(trained)])}")
                display.say_all(f"note: {warning}" for warning in trained.warnings)
        except DivergenceError as error:
            if len(found) == 1:
                raise
            display.stop()
            display.say(f"note: {candidate.label} is out: {error}")
            continue
        folder.add(trained)
        board.append(trained)
    if not board:
        raise DivergenceError("no candidate could be trained. Lower learning_rate.")
    if len(board) > 1 and data.schema.several is None:
        together = average(board, seed=request.seed)
        if together is None:
            display.say("\nno average of them is clearly better than the best.")
        else:
            board.append(together)
            least = min(trained.entry["log_loss"] for trained in board[:-1])
            display.say(
                f"\naverage: {in_words(together.entry['weights'])} gains "
                f"{least - together.entry['log_loss']:.4f} of log-loss"
            )
    return sorted(board, key=lambda trained: trained.entry.get("log_loss", 0.0))


def fit_and_save(
    candidate: Candidate,
    data: Data,
    folder: RunFolder,
    request: Request,
    display: Display,
    *,
    lessons: Lessons | None = None,
) -> Trained:
    """Train one candidate on the training rows, and say how that ended."""
    trained = _fit(
        candidate,
        data.encoded["train"],
        data.encoded.get("validation"),
        held_out=data.held_out if isinstance(data, Stream) else None,
        schema=data.schema,
        folder=folder,
        request=request,
        display=display,
        lessons=lessons,
    )
    classifier = trained.classifier
    display.say_all(f"\n{candidate.label}: {remark}" for remark in _remarks(trained))
    folder.open()
    display.say_all(f"note: {warning}" for warning in trained.warnings)
    if classifier.calibration is None:
        display.say("note: no validation rows, so the probabilities are not calibrated.")
    return trained


def _remarks(trained: Trained) -> list[str]:
    """Return how a training ended, where its steps did not say it."""
    remark = trained.classifier.model.remark(trained.classifier.estimator)
    return [] if remark is None else [remark]


def _fit(
    candidate: Candidate,
    train: Examples,
    validation: Examples | None,
    *,
    held_out: Part | None = None,
    schema: Schema,
    folder: RunFolder,
    request: Request,
    display: Display,
    brief: bool = False,
    lessons: Lessons | None = None,
) -> Trained:
    """Train one candidate; after every step that ends an epoch, save where it stands."""
    label, started, asked, saved = candidate.label, False, 0.0, 0.0
    group = folder.group
    hits = "accuracy" if lessons is None else lessons.hits
    figures = {"loss", hits, "learning_rate", "seconds"}
    if validation is not None:
        figures |= {"validation_loss", "validation_accuracy"}

    def on_step(model: Model[Any], estimator: Estimator, progress: Progress) -> None:
        nonlocal started, asked, saved
        if not started:
            folder.open()
            if not brief:
                display.start(label, model.parameters(estimator), figures, progress.portions)
            started, saved = True, progress.seconds
        stopping = stop.is_set()
        if group.size > 1:
            # All or none stop, after the same batch: their clock is the same.
            due = progress.record is not None or progress.seconds >= asked + ASK_EVERY
            stopping = due and group.any(stopping)
            asked = progress.seconds if due else asked
        if progress.record or stopping or progress.seconds >= saved + SAVE_EVERY:
            saved = progress.seconds
            with group.agreed():
                if folder.writes:
                    now = model.checkpoint(estimator)
                    folder.save_checkpoint(label, now, rarely=brief and not stopping)
        # Shown only now: an epoch that was seen to end is safe from any kill.
        if not brief:
            display.batch(progress)
        # Ctrl-C while the end of an epoch was saved and shown: no other epoch has to end first.
        if stopping or (group.size == 1 and progress.record and stop.is_set()):
            raise TrainingStoppedError(
                f"stopped in epoch {progress.epoch} of {progress.epochs} and saved. "
                f"Go on with: {request.resume_command(folder.path)}"
            )

    in_steps = MODELS[candidate.model].in_steps
    interrupts = interruptible(together=group.size > 1)
    with interrupts if in_steps else nullcontext(threading.Event()) as stop:
        trained = fit(
            candidate,
            schema,
            train,
            validation,
            held_out=held_out,
            seed=request.seed,
            resume=folder.checkpoint(label),
            on_step=on_step,
            lessons=lessons,
            verbose=display.live and not brief,
            judge=not brief,
        )
    if group.any(stop.is_set()):  # while it was calibrated, after its last step
        raise TrainingStoppedError(
            f"stopped after {label} was trained and saved. "
            f"Go on with: {request.resume_command(folder.path)}"
        )
    display.stop()
    return trained
