"""Study: the trials of a search, by Optuna, in a journal that any number of processes share.

What is suggested follows from the seed, the trial's number and the trials before it alone. So a
search that was killed goes on as if it had not been, and no two processes try the same for having
the same seed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import MissingExtraError, RunError
from luce.manifest import JOURNAL
from luce.training.tuning.space import Space, cells, value_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

__all__ = ["Study", "check_optuna", "mend"]

# A candidate is given up as soon as it is worse than the best in so many folds that chance would do
# so with less than this probability (Wilcoxon's signed-rank test): at the earliest after three.
HOPELESS = 0.15

# So many are drawn at random before what is known decides.
RANDOM_TRIALS = 10

# Of fewer trials, nothing is said of what made the difference.
FEWEST_TRIALS = 4


def check_optuna() -> None:
    """Raise MissingExtraError where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "tune needs Optuna, which is not installed. Install it with: pip install 'luce[tune]'"
        ) from error


class Study:
    """The trials in a journal.

    Parameters
    ----------
    folder : Path
        Where the journal is, or will be.
    space : Space
        What is searched.
    grid : bool
        Whether each cell is a trial, all folds of it; else trials are drawn, and given up when they
        are hopeless.
    seed : int
        Of what is drawn.
    """

    def __init__(self, folder: Path, space: Space, *, grid: bool, seed: int) -> None:
        import optuna
        from optuna.storages.journal import (
            JournalFileBackend,
            JournalFileOpenLock,
            JournalStorage,
        )

        self.space, self.grid, self.seed = space, grid, seed
        self.cells = list(cells(space)) if grid else []
        file = str(folder / JOURNAL)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with _readable(file):
            backend = JournalFileBackend(file, JournalFileOpenLock(file))
            with _quiet():
                pruner = optuna.pruners.WilcoxonPruner(p_threshold=HOPELESS)
            self._study = optuna.create_study(
                storage=JournalStorage(backend),
                study_name="tuning",
                direction="minimize",
                pruner=optuna.pruners.NopPruner() if grid else pruner,
                load_if_exists=True,
            )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials that know what they try, in their order."""
        found = self._study.get_trials(deepcopy=False)
        return [trial for trial in found if "model" in trial.user_attrs]

    @property
    def any_complete(self) -> bool:
        """Whether there is a trial with all of its folds."""
        return any(trial.state.name == "COMPLETE" for trial in self.trials)

    def interrupted(self) -> list[Trial]:
        """Return the trials that were under way when their process ended; nobody else has them."""
        from optuna.trial import Trial, TrialState

        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [Trial(self._study, trial._trial_id) for trial in waiting]  # noqa: SLF001

    def ask(self, limit: int | None) -> Trial | None:
        """Return a new trial; None if there are as many as there may be."""
        limit = min(limit or len(self.cells), len(self.cells)) if self.grid else limit
        if limit is not None and len(self._study.get_trials(deepcopy=False)) >= limit:
            return None
        trial = self._study.ask()
        if limit is not None and trial.number >= limit:  # another process was faster
            self.fail(trial)
            return None
        return trial

    def suggest(self, trial: Trial) -> tuple[str, dict[str, Any]]:
        """Return the model and the options that a trial tries, the same whenever it is asked."""
        if self.grid:
            model, options = self.cells[trial.number]
        else:
            models = list(self.space)
            model = models[0] if len(models) == 1 else self._draw(trial, "model", models)
            options = {
                name: self._draw(trial, f"{model}.{name}", values)
                for name, values in self.space[model].items()
            }
        trial.set_user_attr("model", model)
        trial.set_user_attr("options", {name: _plain(value) for name, value in options.items()})
        return model, options

    def suggested(self, trial: FrozenTrial) -> tuple[str, dict[str, Any]]:
        """Return the model and the options that an earlier trial tried."""
        options = {name: value_of(value) for name, value in trial.user_attrs["options"].items()}
        return trial.user_attrs["model"], options

    def keep(self, trial: Trial, folds: list[dict[str, float]]) -> None:
        """Keep the figures of the folds that a trial has been scored on."""
        trial.set_user_attr("folds", folds)

    def hopeless(self, trial: Trial, folds: list[dict[str, float]]) -> bool:
        """Say whether more folds of a trial would be a waste."""
        self._report(trial, folds)
        return bool(trial.should_prune())

    def complete(self, trial: Trial, folds: list[dict[str, float]]) -> None:
        """End a trial that has all of its folds."""
        self._report(trial, folds)
        self._study.tell(trial, float(np.mean([fold["log_loss"] for fold in folds])))

    def _report(self, trial: Trial, folds: list[dict[str, float]]) -> None:
        known = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for number, fold in enumerate(folds):
            if number not in known:
                trial.report(fold["log_loss"], number)

    def prune(self, trial: Trial) -> None:
        """End a trial that is hopeless."""
        from optuna.trial import TrialState

        self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, error: str = "") -> None:
        """End a trial whose candidate could not be trained."""
        from optuna.trial import TrialState

        trial.set_user_attr("error", error)
        self._study.tell(trial, state=TrialState.FAIL)

    def importance(self) -> dict[str, dict[str, float]]:
        """Return how much of the differences in log-loss each option explains, by model.

        By functional analysis of variance (Hutter et al. 2014) over the trials with all folds; of
        models with at least two options that were tried at several values.
        """
        import optuna

        found: dict[str, dict[str, float]] = {}
        complete = [trial for trial in self.trials if trial.state.name == "COMPLETE"]
        for model, searched in self.space.items():
            own = [trial for trial in complete if trial.user_attrs["model"] == model]
            tried = {
                name: [_stored(trial.user_attrs["options"][name], searched[name]) for trial in own]
                for name in searched
            }
            tried = {name: values for name, values in tried.items() if len(set(values)) > 1}
            if len(own) < FEWEST_TRIALS or len(tried) < 2:
                continue
            study = optuna.create_study()
            kinds = {name: _distribution(searched[name]) for name in tried}
            for place, trial in enumerate(own):
                params = {name: values[place] for name, values in tried.items()}
                study.add_trial(
                    optuna.create_trial(params=params, distributions=kinds, value=trial.value)
                )
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.seed)
            with _quiet():
                shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
            found[model] = {name: float(share) for name, share in shares.items()}
        return found

    def _draw(self, trial: Trial, name: str, values: Any) -> Any:
        """Return a value of a list or a range, the same however often a trial draws it."""
        from optuna.samplers import TPESampler

        seeds = np.random.SeedSequence([self.seed, trial.number, len(trial.params)])
        with _quiet():
            self._study.sampler = TPESampler(
                seed=int(seeds.generate_state(1)[0]),
                n_startup_trials=RANDOM_TRIALS,
                multivariate=False,
                constant_liar=True,
            )
        kind = _distribution(values)
        drawn = trial._suggest(name, kind)  # noqa: SLF001 - what each suggest_... calls
        return value_of(json.loads(drawn)) if isinstance(values, list) else drawn


def _distribution(values: Any) -> BaseDistribution:
    """Return a list or a range as Optuna has it; its choices are texts."""
    from optuna import distributions

    if isinstance(values, list):
        return distributions.CategoricalDistribution([json.dumps(value) for value in values])
    low, high, log = values["low"], values["high"], values.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return distributions.IntDistribution(low, high, log=log)
    return distributions.FloatDistribution(low, high, log=log)


def _stored(value: Any, values: Any) -> Any:
    return json.dumps(value) if isinstance(values, list) else value


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Optuna not warn that what we use of it is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _readable(file: str) -> Iterator[None]:
    """Say that a journal is damaged, however Optuna says it."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise RunError(f"{file} is damaged: {error}. Search anew with --overwrite.") from error


def mend(folder: Path) -> None:
    """Take away what a kill left of a journal: a lock, and half a line at its end."""
    file = folder / JOURNAL
    for lock in folder.glob(f"{JOURNAL}.lock*"):
        lock.unlink(missing_ok=True)
    if not file.is_file():
        return
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with file.open("r+b") as opened:
            opened.truncate(whole)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
