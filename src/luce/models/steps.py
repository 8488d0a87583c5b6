"""What a fitted model computes, step by step, as plain data: for who computes it elsewhere.

A model is exported from this description alone: ONNX nodes, PyTorch modules and the JavaScript of
a page are each written once for each kind of step, and know no estimator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Branch", "Step", "product"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step; the first reads encoded rows, the last gives logits.

    Attributes
    ----------
    kind : str
        ``linear``: weight · x + bias over the last axis. ``activation``: a function of `name`.
        ``flatten``. ``encoding``: of numbers, as `luce.neural.tabular.Encoding`. ``embedding``: a
        sum of embeddings, and the `encoding` of the columns `beside`. ``views``: (width) to
        (members, width), by signs. ``members``: a linear layer for each. ``mean``: logits of the
        mean of the members' probabilities; ``mean of labels`` where these are sigmoids.
        ``mixture``: logits of a weighted mean of `branches`. ``sigmoids``: one class against the
        rest each. ``code``: z · halvesᵀ + (log σ(z) + log σ(−z)) · |halves|ᵀ − none, the
        likelihoods of a code with zeros. ``pairs``: `pairwise` of `luce.linear.coupling`, step
        for step; ``places`` [k, j] is where the log-odds of k against j < k are. ``conv``:
        without bias. ``norm``: a factor and a summand for each channel. ``pool``: the largest of
        2 × 2 pixels. ``average``: down · image · acrossᵀ.
    arrays : mapping of str to ndarray
        Weights, float32, and places, int64.
    numbers : mapping of str to int
        ``stride`` and ``padding`` of a convolution. ``farthest`` of log-odds.
    name : str
        Of an activation.
    encoding : mapping of str to ndarray
        The arrays of an encoding within an embedding.
    branches : sequence of Branch
        The models of a mixture.
    """

    kind: str
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)
    name: str = ""
    encoding: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    branches: Sequence[Branch] = ()


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A model of a mixture: weight · softmax(logits / temperature)."""

    weight: float
    temperature: float
    steps: Sequence[Step]


def product(steps: Sequence[Step]) -> Step | None:
    """Return the step that gives the logits, where a model is one product; else None."""
    return steps[-1] if [step.kind for step in steps] == ["flatten", "linear"] else None
