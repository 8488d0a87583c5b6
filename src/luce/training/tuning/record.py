"""What a search has found: a line for each trial while it runs, and tuning.json in the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from luce.data.wording import counted
from luce.models.candidates import options_in_words

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from luce.progress import Display
    from luce.training.tuning.study import Study

__all__ = ["Watch", "best_of", "record"]

STATES = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "stopped",
    "WAITING": "stopped",
}


def best_of(study: Study) -> FrozenTrial | None:
    """Return the trial with the lowest mean log-loss, the earliest of several."""
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return min(complete, key=lambda trial: (trial.value, trial.number), default=None)


def record(study: Study, *, folds: int, best: int) -> dict[str, Any]:
    """Return what tuning.json has: every trial, and which is the best."""
    return {
        "folds": folds,
        "grid": study.grid,
        "space": study.space,
        "seed": study.seed,
        "chosen_by": "the lowest mean log-loss of the folds",
        "best": best,
        "trials": [_trial(trial) for trial in study.trials],
        "importance": study.importance(),
    }


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    folds = trial.user_attrs.get("folds", [])
    whole = trial.state.name == "COMPLETE"
    means = {
        name: float(np.mean([fold[name] for fold in folds])) if whole else None
        for name in ("log_loss", "accuracy")
    }
    return {
        "number": trial.number,
        "model": trial.user_attrs["model"],
        "options": trial.user_attrs["options"],
        "state": STATES[trial.state.name],
        "folds": folds,
        **means,
        "seconds": sum(fold["seconds"] for fold in folds),
        "error": trial.user_attrs.get("error"),
    }


class Watch:
    """Says of each trial, once, how it ended.

    Parameters
    ----------
    display : Display
        Where to.
    study : Study
        The trials; those that are known by now are not told.
    total : int or None
        How many there will be.
    """

    def __init__(self, display: Display, study: Study, *, total: int | None) -> None:
        self._display = display
        self._total = total
        self._told = {each.number for each in study.trials if each.state.is_finished()}
        best = best_of(study)
        self._best = None if best is None else best.value

    def begin(self, folds: int) -> None:
        """Say what is searched."""
        count = "trials" if self._total is None else counted(self._total, "trial")
        known = f"; {len(self._told):,} are known" if self._told else ""
        self._display.say(f"\n{count} of {folds} folds each{known}")
        self._display.say("trial  log-loss  accuracy  seconds  candidate")

    def look(self, study: Study) -> None:
        """Say how those trials ended that have ended meanwhile."""
        for trial in study.trials:
            if trial.number not in self._told and trial.state.is_finished():
                self._told.add(trial.number)
                self._display.say(self._line(_trial(trial)))

    def end(self, best: FrozenTrial) -> None:
        """Say which is trained now."""
        options = options_in_words(best.user_attrs["options"])
        self._display.say(
            f"\nbest: trial {best.number}, {best.user_attrs['model']} {options}: "
            f"log-loss {best.value:.4f}. It is trained on all training rows."
        )

    def _line(self, trial: Mapping[str, Any]) -> str:
        what = f"{trial['model']} {options_in_words(trial['options'])}".rstrip()
        seconds = f"{trial['seconds']:7.1f}"
        if trial["log_loss"] is None:
            after = f" after {len(trial['folds'])} folds" if trial["state"] == "pruned" else ""
            why = f": {trial['error']}" if trial["error"] else ""
            return f"{trial['number']:5d}  {'–':>8}  {'–':>8}  {seconds}  {what}: " + (
                f"given up{after}" if trial["state"] == "pruned" else f"failed{why}"
            )
        best = self._best is None or trial["log_loss"] < self._best
        self._best = trial["log_loss"] if best else self._best
        return (
            f"{trial['number']:5d}  {trial['log_loss']:8.4f}  {trial['accuracy']:8.2%}  {seconds}  "
            f"{what}{'  best so far' if best else ''}"
        )
