"""The pictures of a search: the best so far by time, and the log-loss against each option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luce.report.figures import COLOURS, plain_numbers

__all__ = ["draw_search", "draw_slice"]


def draw_search(ax: Any, progress: Mapping[str, Sequence[float]]) -> None:
    """Draw the log-loss of each trial, and the best until then, over the seconds of training.

    Parameters
    ----------
    ax : matplotlib Axes
    progress : dict
        As `luce.report.summarise` has it under ``tuning``.
    """
    seconds = progress["seconds"]
    dots = {"linestyle": "", "marker": "o", "markersize": 3}
    ax.plot(seconds, progress["log_loss"], color=COLOURS["grey"], label="a candidate", **dots)
    ax.plot(
        seconds,
        progress["best"],
        color=COLOURS["blue"],
        drawstyle="steps-post",
        label="the best so far",
    )
    ax.set(xlabel="seconds of training", ylabel="log-loss, mean of the folds")
    _near_the_best(ax, progress["log_loss"])
    ax.legend(loc="best")


def draw_slice(ax: Any, content: Mapping[str, Any]) -> None:
    """Draw the log-loss of each trial against the value that it had of an option.

    Parameters
    ----------
    ax : matplotlib Axes
    content : dict
        One of ``slices``, as `luce.report.summarise` has it under ``tuning``.
    """
    values, losses = content["values"], content["log_loss"]
    names = list(dict.fromkeys(values)) if isinstance(values[0], str) else []
    places = [names.index(value) for value in values] if names else values
    ax.plot(places, losses, color=COLOURS["blue"], linestyle="", marker="o", markersize=4)
    best = losses.index(min(losses))
    ring = {"linestyle": "", "marker": "o", "markersize": 9, "fillstyle": "none"}
    ax.plot([places[best]], [losses[best]], color=COLOURS["vermilion"], label="best", **ring)
    if names:
        ax.set_xticks(range(len(names)), names, parse_math=False)
        ax.set_xlim(-0.5, len(names) - 0.5)
    elif content["log"]:
        ax.set_xscale("log")
        plain_numbers(ax.xaxis)
    ax.set_xlabel(f"{content['option']} of {content['model']}", parse_math=False)
    ax.set_ylabel("log-loss")
    _near_the_best(ax, losses)
    ax.legend(loc="best")


def _near_the_best(ax: Any, losses: Sequence[float]) -> None:
    """Use a logarithmic scale where a few bad candidates would flatten all others."""
    if min(losses) > 0 and max(losses) > 5 * min(losses):
        ax.set_yscale("log")
        plain_numbers(ax.yaxis)
