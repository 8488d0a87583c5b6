"""The plain dict → one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from luce.report.text import counted
from luce.storage import write_whole

__all__ = ["Report"]


class Report:
    """What a run learnt, where it is wrong, and whether its probabilities can be believed.

    Made by :meth:`luce.Run.report`. A notebook displays it as the last value of a cell.

    Parameters
    ----------
    summary : dict
        As `luce.report.summarise` returns it.

    Attributes
    ----------
    summary : dict
        Everything that the page shows; JSON can hold it.

    Examples
    --------
    >>> import luce, tempfile
    >>> run = luce.train("digits", model="linear", out=tempfile.mkdtemp())
    >>> report = run.report()
    >>> report.summary["confusion"]["kind"]
    'table'
    >>> report.save(run.path / "report.html").name
    'report.html'
    """

    def __init__(self, summary: Mapping[str, Any]) -> None:
        self.summary = dict(summary)

    @cached_property
    def html(self) -> str:
        """The whole page."""
        return _page(self.summary)

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all.

        Parameters
        ----------
        path : str or Path
            The file; replaced if it exists.

        Returns
        -------
        Path
            The same.

        Raises
        ------
        RunError
            If it cannot be written.
        """
        path = Path(path)
        write_whole(path, self.html.encode())
        return path

    def _repr_html_(self) -> str:
        # A frame of its own: the page's styles must not reach the notebook, nor the other way.
        source = Markup.escape(self.html)
        return (
            f'<iframe srcdoc="{source}" title="Luce report" style="width: 100%; height: 40rem; '
            'border: 1px solid #8888"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Report({self.summary['title']!r}, {self.summary['scored']['words']!r})"


def _page(summary: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "figure": _figure,
        "count": lambda value: f"{value:,}",
        "counted": counted,
        "share": _whole_percent,
        "signed": lambda value, digits: f"{value:+z.{digits}f}",  # +0.0, never -0.0
        "shade": _shade,
    }
    if summary.get("kind") == "labels":  # several at once: a page of its own, in the same style
        text = _text("page.html")
        style = Markup(text.partition("<style>")[2].partition("</style>")[0])  # noqa: S704 - ours
        charts: dict[str, Any] = {"curves": _curve_charts(summary["curves"])}
        if "absent" not in summary["tuning"]:
            charts |= _search_charts(summary["tuning"])
        if "absent" not in summary["path"]:
            charts["path"] = _path_chart(summary["path"])
        own = environment.get_template("labels.html")
        return own.render(**summary, charts=charts, style=style)
    template = environment.get_template("page.html")
    return template.render(**summary, charts=_charts(summary), matrix=_matrix(summary))


def _text(name: str) -> str:
    return files("luce.report").joinpath(name).read_text(encoding="utf-8")


def _charts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the pictures; the summary is what they show in words."""
    charts: dict[str, Any] = {"curves": _curve_charts(summary["curves"])}
    if "absent" not in summary["path"]:
        charts["path"] = _path_chart(summary["path"])
    if "absent" not in summary["tuning"]:
        charts |= _search_charts(summary["tuning"])
    calibration = summary["calibration"]
    if "absent" not in calibration:
        charts |= _calibration_charts(calibration)
    if "absent" not in summary["thresholds"]:
        charts |= _threshold_charts(summary["thresholds"])
    return charts


def _curve_charts(curves: Mapping[str, Any]) -> list[Markup]:
    from luce.report import figures  # matplotlib is slow to load

    charts = []
    for title in figures.curve_titles(curves):
        best = curves["best"]
        words = f"{title} by {curves['step']}, over {curves['total']} of them"
        if best is not None:
            words += f"; best {curves['step']} {best['step']:g}"
        svg = figures.to_svg(
            f"curve-{title.lower().replace(' ', '-')}",
            words,
            lambda ax, title=title: figures.draw_curve(ax, curves, title),  # type: ignore[misc]
        )
        charts.append(Markup(svg))  # noqa: S704 - drawn by us from numbers alone
    return charts


def _path_chart(path: Mapping[str, Any]) -> Markup:
    from luce.report import figures, paths

    Cs = [row["C"] for row in path["rows"]]
    left = [row["nonzero_coefficients"] for row in path["rows"]]
    svg = figures.to_svg(
        "path",
        f"How many coefficients are not zero at each C: {left[0]:.0f} at {Cs[0]:g}, {left[-1]:.0f} "
        f"at {Cs[-1]:g}",
        lambda ax: paths.draw_left(ax, Cs, left, chosen=path["C"]),
    )
    return Markup(svg)  # noqa: S704 - drawn by us from numbers alone


def _search_charts(tuning: Mapping[str, Any]) -> dict[str, Any]:
    from luce.report import figures, slices

    best = tuning["best"]
    search = figures.to_svg(
        "search",
        f"Log-loss of each candidate and the best so far, over time; best {best['log_loss']:.4f}",
        lambda ax: slices.draw_search(ax, tuning["progress"]),
    )
    drawn = [
        figures.to_svg(
            f"slice-{number}",
            f"Log-loss of each candidate against {each['option']} of {each['model']}",
            lambda ax, each=each: slices.draw_slice(ax, each),  # type: ignore[misc]
        )
        for number, each in enumerate(tuning["slices"])
    ]
    return {"search": Markup(search), "slices": [Markup(svg) for svg in drawn]}  # noqa: S704 - as above


def _threshold_charts(thresholds: Mapping[str, Any]) -> dict[str, Markup]:
    from luce.report import figures

    curve, name = thresholds["curve"], thresholds["class"]
    pictures = {
        "roc": figures.to_svg(
            "roc",
            f"ROC curve of {name}; area {thresholds['roc_auc']:.4f}",
            lambda ax: figures.draw_roc(ax, curve),
            height=3.4,
        ),
        "precision_recall": figures.to_svg(
            "precision-recall",
            f"Precision-recall curve of {name}; "
            f"average precision {thresholds['average_precision']:.4f}",
            lambda ax: figures.draw_precision_recall(ax, curve, thresholds["share"]),
            height=3.4,
        ),
        "thresholds": figures.to_svg(
            "thresholds",
            f"Precision, recall, F1 and cost by the threshold for {name}; "
            "the numbers are in the table",
            lambda ax: figures.draw_thresholds(ax, curve, log=thresholds["rare"]),
            height=3.4,
        ),
    }
    return {name: Markup(svg) for name, svg in pictures.items()}  # noqa: S704 - as above


def _calibration_charts(calibration: Mapping[str, Any]) -> dict[str, Markup]:
    from luce.report import figures

    after, before = calibration["after"], calibration["before"]

    def reliability(ax: Any) -> None:
        if before is not None:
            colour = figures.COLOURS["vermilion"]
            label = "before calibration"
            figures.draw_reliability(
                ax,
                before["bins"],
                label=label,
                colour=colour,
                line="--",
                marker="s",
                intervals=False,
            )
        label = "after calibration" if before is not None else "not calibrated"
        figures.draw_reliability(ax, after["bins"], label=label)

    words = f"Reliability diagram; ECE {after['ece']:.2%}"
    if before is not None:
        words += f", before calibration {before['ece']:.2%}"
    pictures = {
        "reliability": figures.to_svg("reliability", words, reliability, height=3.8),
        "bins": figures.to_svg(
            "bins",
            "How many rows have a prediction of which probability; the numbers are in the table.",
            lambda ax: figures.draw_bins(ax, after["bins"]),
            height=2.2,
        ),
    }
    return {name: Markup(svg) for name, svg in pictures.items()}  # noqa: S704 - as above


def _matrix(summary: Mapping[str, Any]) -> Markup | None:
    """Return what the zoomable matrix shows, as JSON that cannot end its script element."""
    confusion = summary["confusion"]
    if confusion.get("kind") != "picture":
        return None
    content = {"names": confusion["names"], "cells": confusion["cells"]}
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def _percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _figure(value: float | None, key: str = "") -> str:
    """Return a figure as the page writes it: shares in percent, losses with four digits."""
    if value is None:
        return "–"
    percent = key in ("accuracy", "balanced_accuracy", "ece", "macro_f1", "top_5_accuracy")
    return f"{value:.2%}" if percent else f"{value:.4f}"


def _whole_percent(fraction: float) -> str:
    """Return a fraction in whole percent, with more digits where it would look like none or all."""
    return f"{fraction:.{2 if 0 < fraction < 0.005 or 0.995 <= fraction < 1 else 0}%}"


def _shade(fraction: float) -> int:
    """Return which of five shades a cell with this fraction of its row has; 0 is none."""
    if fraction <= 0:
        return 0
    return 1 + sum(fraction >= step for step in (0.05, 0.2, 0.5, 0.8))
