"""The figures of a path of penalties: what is left of the coefficients at each C."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from luce.report.figures import COLOURS, plain_numbers
from luce.report.text import name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["draw_coefficients", "draw_left"]

# Lines that have a name; told apart by colour and dashes, as many as there are of both.
NAMED = 8
LINES = ("-", "--", ":")


def draw_left(ax: Any, Cs: Sequence[float], left: Sequence[float], *, chosen: float) -> None:
    """Draw how many are left at each C.

    Parameters
    ----------
    ax : matplotlib Axes
    Cs, left : sequence of float
        The penalties' inverse strengths, and the numbers.
    chosen : float
        C of the model.
    """
    ax.plot(Cs, left, color=COLOURS["blue"], marker="o", markersize=3)
    _along(ax, chosen)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    ax.set_ylim(bottom=0)
    ax.set(ylabel="coefficients that are not zero")
    ax.legend()


def draw_coefficients(
    ax: Any,
    Cs: Sequence[float],
    values: NDArray[np.floating[Any]],
    names: Sequence[Any],
    *,
    chosen: float,
) -> None:
    """Draw a line for each feature, those that are largest in the model with a name.

    Parameters
    ----------
    ax : matplotlib Axes
    Cs : sequence of float
    values : ndarray, shape (n_Cs, D)
    names : sequence
        Of the features.
    chosen : float
        C of the model.
    """
    at = min(range(len(Cs)), key=lambda c: abs(Cs[c] - chosen))
    order = abs(values[at]).argsort(kind="stable")[::-1]
    if len(order) > NAMED:
        ax.plot(Cs, values[:, order[NAMED:]], color=COLOURS["grey"], linewidth=0.6, alpha=0.5)
    colours = [COLOURS[key] for key in ("blue", "vermilion", "green")]
    for place, j in enumerate(order[:NAMED]):
        ax.plot(
            Cs,
            values[:, j],
            color=colours[place % len(colours)],
            linestyle=LINES[place // len(colours)],
            label=name(names[j]),
        )
    _along(ax, chosen)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles, labels, fontsize="small")


def _along(ax: Any, chosen: float) -> None:
    ax.axvline(chosen, color=COLOURS["green"], linewidth=1, label=f"chosen: C = {chosen:.3g}")
    ax.set_xscale("log")
    plain_numbers(ax.xaxis)
    ax.set(xlabel="C (weaker penalty →)")
