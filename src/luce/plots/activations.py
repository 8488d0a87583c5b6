"""Activations of networks, and the softmax at several temperatures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from luce import functional as F
from luce.errors import ArgumentError
from luce.report import figures

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ActivationsDisplay:
    """Activation functions and their derivatives; softmax as its temperature falls.

    Parameters
    ----------
    x : ndarray
        Where the functions are drawn.
    values, derivatives : dict of str to ndarray
        Of each activation.
    softmax : dict of float to ndarray
        For each temperature T, the first probability of softmax((x, 0) / T); at 0 the hard
        maximum, which it tends to.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Functions, derivatives, softmax.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import ActivationsDisplay
    >>> display = ActivationsDisplay.from_names(["relu"])
    >>> float(display.values["relu"].min()), float(display.derivatives["relu"].max())
    (0.0, 1.0)
    """

    def __init__(
        self,
        x: NDArray[np.floating[Any]],
        values: Mapping[str, NDArray[np.floating[Any]]],
        derivatives: Mapping[str, NDArray[np.floating[Any]]],
        softmax: Mapping[float, NDArray[np.floating[Any]]],
    ) -> None:
        self.x, self.values, self.derivatives, self.softmax = x, values, derivatives, softmax

    @classmethod
    def from_names(
        cls,
        names: Iterable[str] | None = None,
        *,
        temperatures: Sequence[float] = (4.0, 1.0, 0.25, 0.0),
    ) -> Self:
        """Compute and draw.

        Parameters
        ----------
        names : iterable of str, optional
            Keys of ``luce.neural.networks.ACTIVATIONS``; by default all.
        temperatures : sequence of float
            Of the softmax, at least 0; 0 is the hard maximum.

        Raises
        ------
        ArgumentError
            If a name is unknown or a temperature negative.
        """
        import torch

        from luce.neural.networks import ACTIVATIONS

        chosen = list(ACTIVATIONS if names is None else names)
        for name in chosen:
            if name not in ACTIVATIONS:
                raise ArgumentError(
                    f"ActivationsDisplay: names must be of {', '.join(ACTIVATIONS)}, got {name!r}."
                )
        if min(temperatures, default=0) < 0:
            raise ArgumentError(
                f"ActivationsDisplay: temperatures must be at least 0, got {min(temperatures)}."
            )
        x = torch.arange(-250, 251, dtype=torch.float64) / 50
        values, derivatives = {}, {}
        for name in chosen:
            here = x.clone().requires_grad_()
            y = ACTIVATIONS[name]()(here)
            y.sum().backward()
            assert here.grad is not None  # noqa: S101 - for mypy: backward has filled it
            values[name], derivatives[name] = y.detach().numpy(), here.grad.numpy()
        both = torch.stack([x, torch.zeros_like(x)], dim=1)
        softmax = {
            t: (
                F.softmax(both, dim=1, temperature=t)[:, 0]
                if t
                else (x > 0).double() + (x == 0) / 2
            )
            for t in temperatures
        }
        return cls(
            x.numpy(), values, derivatives, {t: p.numpy() for t, p in softmax.items()}
        ).plot()

    def plot(self) -> Self:
        """Draw on a new figure."""
        from matplotlib import pyplot as plt

        self.figure_, axes = plt.subplots(1, 3, figsize=(13, 3.5), layout="constrained")
        self.axes_ = axes
        colours, lines = list(figures.COLOURS.values()), ("-", "--", ":", "-.")
        for ax, title, curves_ in (
            (axes[0], "activation", self.values),
            (axes[1], "derivative", self.derivatives),
            (axes[2], "softmax of (x, 0) / T", self.softmax),
        ):
            for i, (key, y) in enumerate(curves_.items()):
                label = key if isinstance(key, str) else (f"T = {key:g}" if key else "hard maximum")
                line = lines[(i // len(colours) + i) % len(lines)]
                ax.plot(self.x, y, color=colours[i % len(colours)], linestyle=line, label=label)
            ax.set(title=title, xlabel="x")
            ax.legend(fontsize="small")
        return self
