"""tune(): a source → candidates compared by cross-validation → the best, trained as a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from luce.errors import ArgumentError, DataError, RunError, TrainingStoppedError
from luce.folders import check_free, locked, resumable
from luce.manifest import JOURNAL, TUNING, read_config
from luce.models import MODELS, candidates, check_reads
from luce.progress import Display
from luce.request import PRESETS, Request
from luce.run import Run
from luce.storage import sealed, write_json
from luce.training.folder import RunFolder
from luce.training.interrupt import interruptible
from luce.training.prepare import Prepared, divide, prepare
from luce.training.resume import check_data, ready
from luce.training.train import begun, compare, complete
from luce.training.tuning.folds import Folds
from luce.training.tuning.plan import plan_tuning
from luce.training.tuning.record import Watch, best_of, record
from luce.training.tuning.search import Search, search, search_in_processes
from luce.training.tuning.space import Space, make_space
from luce.training.tuning.study import Study, check_optuna, mend

__all__ = ["tune"]

FOLDS, TRIALS = 5, 50


def tune(
    source: Any = None,
    *,
    grid: str | Path | Mapping[str, Any] | None = None,
    space: str | Path | Mapping[str, Any] | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    folds: int | None = None,
    processes: int = 1,
    preset: str | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    display: Display | None = None,
    announce: Callable[[Run], None] | None = None,
    **arguments: Any,
) -> Run:
    """Search models and their options by cross-validation; train the best and save it as a run.

    Each candidate is scored on every fold of the rows that are not test rows; the one with the
    lowest mean log-loss is trained as :func:`luce.train` would train it. The test rows are touched
    once, by that run. It needs Optuna: ``pip install 'luce[tune]'``.

    Parameters
    ----------
    source : str, Path, array, DataFrame or tuple
        What to learn from, as for :func:`luce.train`.
    grid : path or dict, optional
        Option → list of values; every cell is tried. Of several models: model → option → values.
    space : path or dict, optional
        Option → list of values, or range ``{"low": 1e-4, "high": 0.1, "log": True}``. Candidates
        are drawn where earlier ones were good, and given up when they are hopeless. By default
        each model proposes a space.
    trials : int, optional
        How many candidates to try; by default every cell of a grid; else 50, or as many as there is
        time for.
    minutes : float, optional
        Try no more after so long. One candidate is tried in any case.
    folds : int, default=5
        How many folds.
    processes : int, default=1
        How many candidates to try at once, each in a process of its own.
    preset, name, out, overwrite, download, display, announce
        As for :func:`luce.train`.
    resume : bool, default=False
        Go on with a search that was stopped or killed, to the same result as without. `trials`,
        `minutes` and `processes` may be others than before.
    **arguments
        As for :func:`luce.train`: those of the data, the ``model`` ("auto": all that suit the
        data), and options that are not searched.

    Returns
    -------
    Run
        The trained run; ``run.tuning`` has every trial.

    Raises
    ------
    ArgumentError
        If an argument is not allowed, or the run folder exists already.
    DataError
        If the data cannot be used, or a class has fewer rows than there are folds.
    MissingExtraError
        If Optuna is not installed.
    RunError
        If the folder cannot be written, or does not fit what is to be resumed.
    TrainingStoppedError
        After Ctrl-C: what is known is kept, and can be gone on from.

    Examples
    --------
    >>> import luce, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> run = luce.tune("digits", grid={"C": [0.01, 1]}, folds=3, out=folder)
    >>> run.tuning["trials"][run.tuning["best"]]["options"]
    {'C': 1}
    """
    display = display or Display()
    asked: dict[str, Any] = {"trials": trials, "minutes": minutes, "folds": folds}
    plan, wanted = plan_tuning(
        source,
        grid=grid,
        space=space,
        processes=processes,
        preset=preset,
        name=name,
        out=out,
        resume=resume,
        overwrite=overwrite,
        download=download,
        arguments=arguments,
        **asked,
    )
    check_optuna()
    request, source, path = plan.request, plan.source, plan.path
    with locked(path):
        settings = {
            "space": wanted,
            "grid": grid is not None,
            "folds": folds or FOLDS,
            **{key: asked[key] for key in ("trials", "minutes")},
        }
        under_way = True
        if resume:
            given = {**PRESETS.get(preset or "", {}), **plan.given}
            request, found = _resumed(path, given, settings, grid or space, folds)
            under_way = found is not None
            settings = found or settings
        else:
            check_free(path, overwrite=overwrite)
        source = ready(source, request, "tune")
        # A search deals its own folds.
        data = prepare(source, request, display, in_folds=not under_way)
        first = begun(request, data)
        if resume:
            check_data(path, first["data"], request.test)
        if under_way:
            first["search"] = settings
            # Without the encoded rows: the search encodes its folds, and would keep them as well.
            data = replace(data)
            folder = RunFolder(path, first, resume=resume, overwrite=overwrite)
            with folder.worked_in(display, request.resume_command(path, "tune")):
                request = _searched(folder, settings, request, data, processes, display)
            # From here on it is an ordinary training, of one model.
            data = divide(data.dataset, request, Display())
            first = begun(request, data)
            write_json(folder.files / "config.json", sealed(first))
        folder = RunFolder(path, first, resume=True, overwrite=overwrite)
        best = candidates(request.model, request.options, data.schema.input_shape)
        trained = partial(compare, best, data, folder, request, display)
        return complete(trained, data, folder, display, announce)


def _resumed(
    path: Path, given: Mapping[str, Any], settings: dict[str, Any], content: Any, folds: int | None
) -> tuple[Request, dict[str, Any] | None]:
    """Return request and settings of the search to go on with; no settings where it is over."""
    config = read_config(resumable(path))
    request = Request.from_json(config["request"]).located(config.get("directory"))
    if "search" not in config:
        if not (resumable(path) / TUNING).exists():
            again = "train" if request.teacher is None else "distil"
            raise ArgumentError(f"{path} is no search: go on with luce {again}.")
        return request, None
    request.agree(given)
    before = dict(config["search"])
    same = {"folds": folds is not None, "space": content is not None, "grid": content is not None}
    for key, was_given in same.items():
        if was_given and before[key] != _plain(settings[key]):
            differs = (
                f"folds was {before[key]}, got {settings[key]}"
                if key == "folds"
                else f"{key} was not what it is now"
            )
            raise ArgumentError(
                f"--resume goes on with what the search was asked for: {differs}. Leave it out, or "
                "search anew with --overwrite instead of --resume."
            )
    # These may change; what is not given stays.
    for key in ("trials", "minutes"):
        before[key] = before[key] if settings[key] is None else settings[key]
    before["space"] = make_space(
        before["space"], grid=bool(before["grid"]), model=request.model, options={}
    )
    return request, before


def _plain(value: Any) -> Any:
    """Return lists for tuples, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _searched(
    folder: RunFolder,
    settings: dict[str, Any],
    request: Request,
    data: Prepared,
    processes: int,
    display: Display,
) -> Request:
    """Search, write tuning.json, and return what is asked of the best."""
    space = _read_space(settings["space"], request.model, data, display)
    folds = Folds.of(data, request.normalise, settings["folds"])
    trials, minutes = settings["trials"], settings["minutes"]
    if trials is None and minutes is None and not settings["grid"]:
        trials = TRIALS
    folder.open()
    if folder.resume and not (folder.files / JOURNAL).exists():
        raise RunError(
            f"{folder.files} has no {JOURNAL}, the journal of its search: what was tried is lost. "
            "Search anew with --overwrite instead of --resume."
        )
    mend(folder.files)
    asked = Search(
        folder=folder.files,
        space=space,
        grid=settings["grid"],
        folds=folds,
        fixed=request.options,
        shape=tuple(data.schema.input_shape),
        trials=trials,
        until=None if minutes is None else time.time() + 60 * minutes,
    )
    study = asked.study()
    unfinished = [trial.number for trial in study.interrupted()]
    watch = Watch(display, study, total=len(study.cells) if settings["grid"] else trials)
    watch.begin(folds.count)
    with interruptible() as stop:
        if processes == 1:
            search(asked, unfinished, stop=stop.is_set, told=watch.look)
        else:
            search_in_processes(asked, unfinished, processes, stop=stop.is_set, told=watch.look)
    again = request.resume_command(folder.path, "tune")
    if stop.is_set():
        raise TrainingStoppedError(_stopped(study, again))
    best = best_of(study)
    if best is None:
        errors = [each.user_attrs["error"] for each in study.trials if "error" in each.user_attrs]
        raise DataError(
            "no candidate could be trained."
            if not errors
            else f"no candidate could be trained; the last one: {errors[-1]}"
        )
    write_json(folder.files / TUNING, record(study, folds=folds.count, best=best.number))
    model, options = study.suggested(best)
    watch.end(best)
    return replace(request, model=model, options=asked.asked_of(model, options))


def _read_space(space: Space, asked: str, data: Prepared, display: Display) -> Space:
    """Return what is searched of the models that can read the data."""
    shape = data.schema.input_shape
    wanted = [model for model in space if asked != "auto" or MODELS[model].suits(shape)]
    if not wanted:
        raise ArgumentError(f"none of {', '.join(space)} suits rows of shape {shape}.")
    sparse = data.schema.sparse
    able = [model for model in wanted if MODELS[model].takes_sparse or not sparse]
    if asked != "auto" or not able:
        check_reads(wanted, sparse=sparse)
    for model in wanted:
        if model not in able:
            display.say(f"note: {model} is not searched: it cannot read sparse rows.")
    return {model: space[model] for model in able}


def _stopped(study: Study, again: str) -> str:
    """Say what is known, and how to go on."""
    best, count = best_of(study), sum(trial.state.is_finished() for trial in study.trials)
    known = f"stopped after {count:,} trial{'s' * (count != 1)}, which are kept"
    if best is None:
        return f"{known}. Go on with: {again}"
    return (
        f"{known}; the best has a log-loss of {best.value:.4f}. Go on with: {again}; "
        f"or train the best of these now: {again} --trials {count}"
    )
