"""The figures: drawn on matplotlib axes, and turned into SVG that follows the page's colours.

`luce.plots` draws with the same functions. The data are plain: what `luce.report.summarise` and
`luce.evaluation` return.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from luce.report.text import diverging, name

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "COLOURS",
    "curve_titles",
    "draw_bins",
    "draw_confusion",
    "draw_curve",
    "draw_precision_recall",
    "draw_reliability",
    "draw_roc",
    "draw_thresholds",
    "plain_numbers",
    "to_svg",
]

# Okabe and Ito's palette, told apart by every kind of colour vision; markers and dashes differ too.
# In SVG each becomes a property of the page, which has another value for dark screens.
COLOURS = {"blue": "#0072b2", "vermilion": "#d55e00", "green": "#009e73", "grey": "#767676"}
INK = "#111111"

# A picture on the page, and its margins, in inches.
WIDTH, LEFT, RIGHT, BOTTOM, TOP = 4.5, 0.8, 0.18, 0.52, 0.08

# How often a prediction is right says little in a bin of fewer rows than this.
FEW_ROWS = 10

STYLE: Any = {
    "font.size": 11,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    # A number that is added to all ticks would stand above the axes, where it is cut off.
    "axes.formatter.useoffset": False,
    "svg.hashsalt": "luce",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": COLOURS["grey"],
    "xtick.color": COLOURS["grey"],
    "ytick.color": COLOURS["grey"],
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

# How each series of a history is called and drawn.
SERIES = {
    "loss": ("training", "vermilion", "--"),
    "validation_loss": ("validation", "blue", "-"),
    "accuracy": ("training", "vermilion", "--"),
    "validation_accuracy": ("validation", "blue", "-"),
    "agreement": ("training", "vermilion", "--"),
    "objective": ("objective", "blue", "-"),
    "gap": ("duality gap", "blue", "-"),
}
CURVES = (
    ("Log-loss", ("loss", "validation_loss")),
    ("Accuracy", ("accuracy", "validation_accuracy")),
    ("Agreement", ("agreement",)),
    ("Objective", ("objective",)),
    ("Duality gap", ("gap",)),
)


def draw_reliability(
    ax: Any,
    bins: Mapping[str, Sequence[Any]],
    *,
    label: str = "the model",
    colour: str = COLOURS["blue"],
    line: str = "-",
    marker: str = "o",
    intervals: bool = True,
) -> None:
    """Draw how often the prediction is right over how probable it was said to be.

    Bins of fewer than ten rows are small and grey, and the curve passes them by.

    Parameters
    ----------
    ax : matplotlib Axes
    bins : dict
        As from `luce.evaluation.metrics.reliability_bins`.
    label, colour, line, marker : str
        Of the curve.
    intervals : bool, default=True
        Whether to draw the bins' 95% intervals.
    """
    if not any(each.get_label() == "perfect" for each in ax.get_lines()):
        ax.plot([0, 1], [0, 1], color=COLOURS["grey"], linestyle=":", linewidth=1, label="perfect")
    enough = [i for i, count in enumerate(bins["counts"]) if count >= FEW_ROWS]
    few = [i for i, count in enumerate(bins["counts"]) if 0 < count < FEW_ROWS]
    words = f"fewer than {FEW_ROWS} rows"
    shown = {each.get_label() for each in ax.get_lines()}
    for places, look, size, style, text in (
        (few, COLOURS["grey"], 2.5, "", "_" if words in shown else words),
        (enough, colour, 5, line, label),
    ):
        x, y, low, high = (
            np.array([bins[key][i] for i in places], dtype=float)
            for key in ("confidence", "accuracy", "low", "high")
        )
        if intervals:
            ax.vlines(x, low, high, color=look, linewidth=0.6 if places is few else 1.2, alpha=0.8)
        if len(places) or places is enough:
            ax.plot(x, y, color=look, linestyle=style, marker=marker, markersize=size, label=text)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.04), ylabel="how often right")
    ax.set_xlabel("probability of the predicted class")
    ax.legend(loc="best")


def draw_bins(ax: Any, bins: Mapping[str, Sequence[Any]], *, colour: str = COLOURS["blue"]) -> None:
    """Draw how many rows each bin holds, as bars; on a logarithmic scale, as counts differ so.

    Parameters
    ----------
    ax : matplotlib Axes
    bins : dict
        As from `luce.evaluation.metrics.reliability_bins`.
    colour : str
    """
    edges = np.asarray(bins["edges"], dtype=float)
    filled = [count for count in bins["counts"] if count]
    steep = max(filled) > 50 * min(filled)
    ax.bar(
        edges[:-1],
        bins["counts"],
        width=np.diff(edges) * 0.9,
        align="edge",
        color=colour,
        log=steep,
    )
    if steep:
        ax.set_ylim(bottom=0.5)
        plain_numbers(ax.yaxis)
    ax.set(xlim=(0, 1.02), xlabel="probability of the predicted class", ylabel="rows")


def draw_confusion(ax: Any, matrix: NDArray[Any], classes: Sequence[Any], *, numbers: bool) -> None:
    """Draw counts of true class (down) by predicted class (across), coloured by share of the line.

    Parameters
    ----------
    ax : matplotlib Axes
    matrix : ndarray of int, shape (classes, classes)
    classes : sequence
        Their names.
    numbers : bool
        Whether to write the counts, and the names at every line.
    """
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # Right answers and mistakes have different colours: the sign chooses.
    signed = np.where(np.eye(len(matrix), dtype=bool), fractions, -fractions)
    ax.imshow(diverging(signed, 1.0), interpolation="nearest")
    ax.set(xlabel="predicted", ylabel="true")
    if not numbers:
        return
    names = [name(label) for label in classes]
    ax.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    ax.set_yticks(range(len(names)), names, parse_math=False)
    for i, j in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if fractions[i, j] > 0.6 else "black"
        ax.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", color=colour, size="small")


def draw_curve(ax: Any, curves: Mapping[str, Any], title: str) -> None:
    """Draw one of a history's pictures: log-loss, accuracy, agreement, objective, gap.

    Parameters
    ----------
    ax : matplotlib Axes
    curves : dict
        As `luce.report.summarise` has it under ``curves``: ``step``, ``steps``, ``series``,
        ``best``.
    title : str
        One of those in ``CURVES``.
    """
    keys = dict(CURVES)[title]
    for key in keys:
        if key not in curves["series"]:
            continue
        label, colour, line = SERIES[key]
        values = [np.nan if value is None else value for value in curves["series"][key]]
        marker = "o" if len(values) == 1 else ""
        ax.plot(
            curves["steps"],
            values,
            color=COLOURS[colour],
            linestyle=line,
            label=label,
            marker=marker,
        )
    best = curves["best"]
    if best is not None:
        ax.axvline(
            best["step"],
            color=COLOURS["green"],
            linewidth=1,
            label=f"best: {curves['step']} {best['step']:g}",
        )
    if title == "Duality gap":
        ax.set_yscale("log")
        plain_numbers(ax.yaxis)
    if title in ("Accuracy", "Agreement"):
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set(xlabel=curves["step"], ylabel=title)
    ax.legend()


def draw_roc(ax: Any, curve: Mapping[str, Any], *, label: str = "the model") -> None:
    """Draw the ROC curve: how much of a class is found over how much of the rest is flagged too.

    Parameters
    ----------
    ax : matplotlib Axes
    curve : dict
        As from `luce.evaluation.metrics.threshold_curve`.
    label : str
        Of the curve.
    """
    ax.plot([0, 1], [0, 1], color=COLOURS["grey"], linestyle=":", linewidth=1, label="chance")
    ax.plot(curve["false_positive_rate"], curve["recall"], color=COLOURS["blue"], label=label)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.04), ylabel="recall", xlabel="of the rest, flagged too")
    ax.legend(loc="lower right")


def draw_precision_recall(
    ax: Any, curve: Mapping[str, Any], share: float, *, label: str = "the model"
) -> None:
    """Draw how many of the flagged rows are of a class over how much of the class is found.

    Parameters
    ----------
    ax : matplotlib Axes
    curve : dict
        As from `luce.evaluation.metrics.threshold_curve`.
    share : float
        The class's share of the rows: the precision of flagging by chance.
    label : str
        Of the curve.
    """
    grey = COLOURS["grey"]
    ax.plot([0, 1], [share, share], color=grey, linestyle=":", linewidth=1, label="chance")
    # Without its first point, where nothing is flagged and nothing is right or wrong.
    recall, precision = list(curve["recall"])[1:], list(curve["precision"])[1:]
    # A step to the left from each point: more is found at the precision of the next threshold.
    ax.plot([0, *recall], [precision[0], *precision], color=COLOURS["blue"], label=label,
            drawstyle="steps-pre")  # fmt: skip
    ax.set(xlim=(0, 1.02), ylim=(0, 1.04), ylabel="precision", xlabel="recall")
    ax.legend(loc="best")


def draw_thresholds(ax: Any, curve: Mapping[str, Any], *, log: bool = False) -> None:
    """Draw precision, recall, F1 and cost by the threshold on the probability of a class.

    Parameters
    ----------
    ax : matplotlib Axes
    curve : dict
        As from `luce.evaluation.metrics.threshold_curve`.
    log : bool, default=False
        Whether thresholds are on a logarithmic scale, as a rare class needs.
    """
    # First the point that flags nothing: it reaches from above the highest probability to 1.
    thresholds = np.array([1.0, *list(curve["threshold"])[1:]], dtype=float)
    recall, precision = (np.array(curve[key], dtype=float) for key in ("recall", "precision"))
    precision[0] = np.nan  # of no rows
    cost = np.array(curve["cost"], dtype=float)
    ax.axvline(0.5, color=COLOURS["grey"], linestyle=":", linewidth=1)
    for values, label, colour, line in (
        (precision, "precision", "blue", "-"),
        (recall, "recall", "vermilion", "--"),
        (np.array(curve["f1"], dtype=float), "F1", "green", "-."),
        (cost / cost[0], "cost", "grey", "-"),
    ):
        # A threshold flags what the next probability above it does.
        step = {"color": COLOURS[colour], "linestyle": line, "drawstyle": "steps-post"}
        ax.plot(thresholds, values, label=label, **step)
    if log:
        ax.set_xscale("log")
        plain_numbers(ax.xaxis)
    # Below where all of the class is found there is nothing to choose.
    lowest = thresholds[int((recall < 1).sum())] / 2 if log else 0.0
    ax.set_xlim(max(lowest, 1e-12) if log else 0.0, 1.0)
    ax.set(ylim=(0, 1.04), xlabel="threshold", ylabel="share; cost of flagging none: 1")
    ax.legend(loc="best")


def plain_numbers(axis: Any) -> None:
    """Write the numbers of a logarithmic axis as 0.01 or 1e-06: typeset powers take ten times.

    The more decades there are, the fewer numbers between powers of ten, so that they stand apart.
    """

    def between(value: float, _: int | None) -> str:
        low, high = axis.get_view_interval()
        decades = math.log10(high / low)
        digit = f"{value:e}"[0]
        written = decades < 0.4 or (decades < 2 and digit in "25")
        return f"{value:g}" if written else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(between))


def curve_titles(curves: Mapping[str, Any]) -> list[str]:
    """Return which pictures a history has something for."""
    series = curves.get("series", {})
    return [title for title, keys in CURVES if any(key in series for key in keys)]


def to_svg(own: str, description: str, draw: Callable[[Any], None], *, height: float = 2.9) -> str:
    """Return a picture as SVG for an HTML page.

    Parameters
    ----------
    own : str
        Makes the picture's ids unique on the page.
    description : str
        Said by screen readers in place of the picture.
    draw : callable
        Draws on the axes that it is given.
    height : float, default=2.9
        In inches; the width is 4.5.

    Returns
    -------
    str
        An ``<svg>`` element, without ids, fonts, colours or addresses that belong elsewhere.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        ax = figure.add_axes(_box(height, LEFT))
        draw(ax)
        # matplotlib's own layouts draw everything twice more to find the one margin that varies.
        labels: Any = ax.yaxis.get_tightbbox()
        ax.set_position(_box(height, LEFT + 0.04 - labels.x0 / figure.dpi))
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _for_page(file.getvalue(), own, description)


def _box(height: float, left: float) -> tuple[float, float, float, float]:
    """Return where the axes are, as shares of the picture."""
    return left / WIDTH, BOTTOM / height, 1 - (left + RIGHT) / WIDTH, 1 - (BOTTOM + TOP) / height


def _for_page(svg: str, own: str, description: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # HTML knows both namespaces; their addresses would look like something to fetch.
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'id="', f'id="{own}-', svg)
    svg = re.sub(r'href="#', f'href="#{own}-', svg)
    svg = re.sub(r"url\(#", f"url(#{own}-", svg)
    # The page's own font and colours.
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for colour, code in COLOURS.items():
        svg = svg.replace(code, f"var(--{colour})")
    svg = svg.replace(INK, "currentColor")
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()  # type: ignore[union-attr]
    head = (
        f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {width} {height}" '
        f'class="chart">'
    )
    return head + svg[svg.index(">") + 1 :].strip()
