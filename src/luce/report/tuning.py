"""The search that a run came from: best so far, which options mattered, slices, the folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luce.models.candidates import options_in_words
from luce.report.text import name

__all__ = ["tuning"]

# So many trials are listed, the best first; so many are drawn; so many options have a picture.
SHOWN_TRIALS, DRAWN_TRIALS, SHOWN_SLICES = 20, 500, 12

# A list of numbers that spans more than this factor is drawn on a logarithmic scale.
WIDE = 20


def tuning(content: Mapping[str, Any] | None) -> dict[str, Any]:
    """Summarise a tuning.json.

    Parameters
    ----------
    content : dict or None
        As `luce.Run.tuning` gives it.
    """
    if content is None:
        return {"absent": "No search was made: luce tune makes one."}
    trials = content["trials"]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    ranked = sorted(complete, key=lambda trial: (trial["log_loss"], trial["number"]))
    others = [trial for trial in trials if trial["state"] != "complete"]
    best = next(trial for trial in complete if trial["number"] == content["best"])
    importance = [
        {"model": name(model), "option": name(option), "share": share}
        for model, shares in content["importance"].items()
        for option, share in sorted(shares.items(), key=lambda each: -each[1])
    ]
    return {
        "folds": content["folds"],
        "grid": content["grid"],
        "chosen_by": name(content["chosen_by"]),
        "total": len(trials),
        "states": {
            state: sum(trial["state"] == state for trial in trials)
            for state in ("complete", "pruned", "failed", "stopped")
        },
        "seconds": sum(trial["seconds"] for trial in trials),
        "best": _line(best),
        "progress": _progress(trials),
        "importance": importance,
        "slices": _slices(content["space"], complete)[:SHOWN_SLICES],
        "trials": [_line(trial) for trial in [*ranked, *others][:SHOWN_TRIALS]],
    }


def _line(trial: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": trial["number"],
        "model": name(trial["model"]),
        "options": name(options_in_words(trial["options"])),
        "state": trial["state"],
        "log_loss": trial["log_loss"],
        "accuracy": trial["accuracy"],
        "seconds": trial["seconds"],
        "folds": [fold["log_loss"] for fold in trial["folds"]],
    }


def _progress(trials: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return each complete trial's log-loss and the best until then, by the time it had taken."""
    spent, best = 0.0, float("inf")
    found: dict[str, list[float]] = {"seconds": [], "log_loss": [], "best": []}
    for trial in trials:
        spent += trial["seconds"]
        if trial["log_loss"] is not None:
            better = trial["log_loss"] < best
            best = min(best, trial["log_loss"])
            if better or len(found["seconds"]) < DRAWN_TRIALS:
                found["seconds"].append(spent)
                found["log_loss"].append(trial["log_loss"])
                found["best"].append(best)
    return found


def _slices(
    space: Mapping[str, Mapping[str, Any]], complete: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the log-loss of each trial against the value of each option that was searched."""
    found = []
    for model, searched in space.items():
        own = [trial for trial in complete if trial["model"] == model][:DRAWN_TRIALS]
        for option, values in searched.items():
            tried = [(trial["options"].get(option), trial["log_loss"]) for trial in own]
            tried = [(value, loss) for value, loss in tried if value is not None]
            if len({str(value) for value, _ in tried}) < 2:
                continue
            if isinstance(values, list):  # as the space names them, not as they were drawn
                tried.sort(key=lambda each: values.index(each[0]))
            numbers = all(_is_number(value) for value, _ in tried)
            found.append(
                {
                    "model": name(model),
                    "option": name(option),
                    "log": numbers and _is_wide([value for value, _ in tried], values),
                    "values": [
                        float(value) if numbers else name(options_in_words({"": value}).strip())
                        for value, _ in tried
                    ],
                    "log_loss": [loss for _, loss in tried],
                }
            )
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_wide(tried: Sequence[float], values: Any) -> bool:
    if min(tried) <= 0:
        return False
    if not isinstance(values, dict):
        return max(tried) > WIDE * min(tried)
    # As they were drawn: a number near zero is chance where all of the range was alike. Within a
    # factor of 2 there is next to no difference, and numbers stand more evenly without.
    return bool(values.get("log")) and max(tried) > 2 * min(tried)
