"""The algebra of cross-entropy, once: what an example's loss and gradient are made of.

With the probabilities p of an example's logits z and the coefficients a of docs/operators.md, the
loss is Σ a (lse − z / T) + z_loss · lse² and its gradient ((A + 2 z_loss · lse) p − a) / T.
The symbols in ``rows``, ``tiles`` and ``online``:

- ``top`` is the largest logit. ``exps`` is the sum of exp((z − top) / T), ``log_exps`` its log.
- ``kept`` is 1 − ε and ``uniform`` is ε / K, for a label smoothing of ε and K classes.
- ``w`` is the weight of a class. The coefficients are a = w (kept · probability + uniform).
- ``coefficient_sum`` is A = Σ a. ``gap`` is Σ a (top − z) / T, so the loss is gap + A · log_exps
  without z_loss. For a target that is a class, ``gap`` is Σ w (top − z) / T instead.
- The gradient is of_exps · exp((z − top) / T) / exps − of_weight · w, and ``of_target`` less at the
  target. ``of_exps``, ``of_target`` and ``of_weight`` are numbers of the example.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from luce.kernels.cpu.compile import part

__all__ = [
    "Geometry",
    "Inputs",
    "Outputs",
    "Terms",
    "at",
    "hard_terms",
    "log_sum_exp",
    "mixed",
    "shifted",
    "soft_terms",
]

Array = Any


class Inputs(NamedTuple):
    """What a loss is computed of: flat arrays, empty for what is absent.

    Attributes
    ----------
    logits
        Examples × classes, where ``Geometry`` says.
    target
        The examples' classes.
    probabilities
        In place of ``target``: probabilities, laid out like all the logits.
    weight
        Class weights.
    loss_scale, lse_scale
        What the gradients of each example's loss and log-sum-exp are multiplied by.
    """

    logits: Array
    target: Array
    probabilities: Array
    weight: Array
    loss_scale: Array
    lse_scale: Array


class Terms(NamedTuple):
    """The numbers that a loss is made of.

    Attributes
    ----------
    inverse
        1 / T, in the precision of the work.
    ignore_index
        The class index whose examples count for nothing.
    kept, uniform
        1 − ε and ε / K of the label smoothing ε.
    weight_sum
        The sum of the class weights; K without any.
    z_loss
        Factor of the squared log-sum-exp.
    scale
        What the gradient of every example's loss is multiplied by.
    """

    inverse: Any
    ignore_index: int
    kept: float
    uniform: float
    weight_sum: float
    z_loss: float
    scale: float


class Outputs(NamedTuple):
    """What a loss is written to: of each example, and the logits' gradient; empty if not wanted."""

    loss: Array
    lse: Array
    grad: Array


class Geometry(NamedTuple):
    """How the classes of a tensor lie in memory: outer × classes × span.

    Attributes
    ----------
    classes
        How many classes there are.
    span
        How many examples lie beside each other in an outer index.
    across, along
        How far apart neighbouring examples, and neighbouring classes, lie.
    columns
        How many examples make a tile.
    """

    classes: int
    span: int
    across: int
    along: int
    columns: int


@part
def shifted(z: Any, top: Any, inverse: Any) -> Any:
    """Return (z − top) / temperature; the difference first, so that nothing large is rounded."""
    return (z - top) * inverse


@part
def at(values: Array, i: int, absent: Any) -> Any:
    """Return an element of what may be absent."""
    return values[i] if values.size else absent


@part
def mixed(probability: Any, w: Any, kept: Any, uniform: Any) -> Any:
    """Return the coefficient of a class whose target is a probability."""
    return w * (probability * kept + uniform)


@part
def log_sum_exp(top: Any, log_exps: Any, inverse: Any) -> Any:
    """Return the log-sum-exp of a row; ±Inf where that is its largest element."""
    if np.isinf(top) and not np.isfinite(log_exps):
        return np.float64(top)
    return np.float64(top) * np.float64(inverse) + log_exps


@part
def hard_terms(
    terms: Terms,
    scale: float,
    lse_scale: float,
    w: float,
    log_p: Any,
    gap: Any,
    lse: float,
    log_exps: float,
) -> Any:
    """Return loss, of_exps, of_target and of_weight for a target that is a class of weight w."""
    at_target = terms.kept * w
    loss = -at_target * log_p
    coefficient_sum = at_target
    if terms.uniform != 0.0:
        loss += terms.uniform * (gap + terms.weight_sum * log_exps)
        coefficient_sum += terms.uniform * terms.weight_sum
    loss, of_exps = _with_z_loss(terms, scale, lse_scale, loss, coefficient_sum, lse)
    rate = scale * terms.inverse
    return loss, of_exps, rate * at_target, rate * terms.uniform


@part
def soft_terms(
    terms: Terms,
    scale: float,
    lse_scale: float,
    coefficient_sum: float,
    gap: float,
    lse: float,
    log_exps: float,
) -> Any:
    """Return loss, of_exps and what the coefficients are multiplied by in the gradient."""
    loss = gap + coefficient_sum * log_exps
    loss, of_exps = _with_z_loss(terms, scale, lse_scale, loss, coefficient_sum, lse)
    return loss, of_exps, scale * terms.inverse


@part
def _with_z_loss(
    terms: Terms, scale: float, lse_scale: float, loss: float, coefficient_sum: float, lse: float
) -> Any:
    """Return the whole loss and of_exps."""
    slope = coefficient_sum
    if terms.z_loss != 0.0:
        loss += terms.z_loss * lse * lse
        slope += 2.0 * terms.z_loss * lse
    return loss, (scale * slope + lse_scale) * terms.inverse
