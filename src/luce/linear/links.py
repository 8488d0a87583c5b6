"""Links: from blocks of logits (n, K) to probabilities, losses and what a fit needs of them.

A softmax couples the classes of a row. Sigmoids are K two-class problems, a class against the rest
each; the binary case is one of them. Other problems are told by ``signs``, a table (classes, K)
with the side that the rows of a class are on in each column: +1, -1, or 0 where they are no part of
it; or by the target itself, where that is several labels at once.
"""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor

__all__ = ["Link", "curve", "log_softmax", "margins", "probabilities", "residual", "seen", "sides"]

Link = Literal["softmax", "sigmoid"]

# Exponents are not taken below this: exp(-60) is nothing beside 1 even in float64, and far below it
# are denormal numbers, with which processors are slow.
LOWEST: Final = -60.0


# Along rows of so few logits, PyTorch's softmax takes some twenty times as long as across them.
FEW: Final = 16


def probabilities(Z: Tensor, link: Link) -> Tensor:
    """Return the probabilities of logits."""
    if link != "softmax":
        return torch.sigmoid(Z)
    return torch.softmax(Z.T, 0).T if _goes_across(Z) else torch.softmax(Z, 1)


def log_softmax(Z: Tensor) -> Tensor:
    """Return the logarithms of the softmax of logits."""
    return torch.log_softmax(Z.T, 0).T if _goes_across(Z) else torch.log_softmax(Z, 1)


def _goes_across(Z: Tensor) -> bool:
    """Say whether a softmax goes across rows: where they lie so, or where there are few classes."""
    return Z.shape[1] > 1 and (Z.stride(0) == 1 or Z.shape[1] <= FEW)


def curve(U: Tensor, P: Tensor, link: Link) -> Tensor:
    """Turn changes U of the logits in place into those of the probabilities P, and return them."""
    if link == "softmax":
        U -= (P * U).sum(1, keepdim=True)
        U *= P
    else:
        U *= P * (1 - P)
    return U


def sides(Z: Tensor, target: Tensor, signs: Tensor | None = None) -> Tensor:
    """Return the side that each row is on in each column of sigmoids, in the dtype of Z (n, K).

    +1 or -1, or 0 where it is no part of the column's problem. The target is class codes (n,), or
    of several labels at once which are on, (n, K) of booleans.
    """
    if target.ndim == 2:
        return torch.where(target, 1.0, -1.0).to(Z.dtype)
    if signs is not None:
        return signs[target].to(Z.dtype)
    if Z.shape[1] == 1:
        return (2 * target[:, None] - 1).to(Z.dtype)
    return torch.full_like(Z, -1).scatter_(1, target[:, None], 1)


def seen(P: Tensor, target: Tensor, signs: Tensor | None) -> Tensor:
    """Return probabilities, set to 0 in place where a row is no part of a column's problem.

    There it has no curvature, and no share in the mean.
    """
    return P if signs is None else P.mul_(signs[target] != 0)


def margins(Z: Tensor, target: Tensor, link: Link, signs: Tensor | None = None) -> Tensor:
    """Return how far each row is on the right side of each boundary, (n, 1) or (n, K).

    Where it is no part of a problem, it is infinitely far.
    """
    if link == "softmax":
        y = target[:, None]
        return Z.gather(1, y) - Z.scatter(1, y, -torch.inf).amax(1, keepdim=True)
    side = sides(Z, target, signs)
    return Z * side if signs is None else torch.where(side == 0, torch.inf, Z * side)


def residual(
    Z: Tensor,
    target: Tensor,
    weight: Tensor,
    link: Link,
    logs: Tensor | None = None,
    signs: Tensor | None = None,
) -> Tensor:
    """Turn logits in place into w (p - onehot(y)) and return the weighted loss, float64.

    The loss is where the logits are: nothing waits for a device.

    The target is class codes (n,), or of several labels at once which are on, (n, K) of booleans.
    What is small is computed as such (the other classes' share, not 1 - p_y), so a well-classified
    row keeps its digits in float32. Where ``logs`` (2, K) is given, Σ w log p is added to its first
    row and, for sigmoids, Σ w log(1 - p) to its second. A row that is no part of a column's problem
    has the residual and the loss 0 in it.
    """
    if link == "softmax":
        return _softmax(Z, target[:, None], weight, logs)
    return _sigmoids(Z, sides(Z, target, signs), weight, logs, partial=signs is not None)


def _softmax(Z: Tensor, y: Tensor, weight: Tensor, logs: Tensor | None) -> Tensor:
    if logs is not None:  # log p is z - z_y minus the loss, of which the sum comes last
        logs[0] += weight @ Z.double() - weight @ Z.gather(1, y).double()
    Z -= Z.amax(1, keepdim=True)
    picked = Z.gather(1, y)
    Z.clamp_(min=LOWEST).exp_()
    chosen = Z.gather(1, y)
    Z.scatter_(1, y, 0)
    other = Z.sum(1, keepdim=True)
    total = other + chosen
    losses = torch.where(picked == 0, torch.log1p(other), torch.log(total) - picked)
    scale = weight.to(Z.dtype)[:, None] / total
    Z *= scale
    Z.scatter_(1, y, -other * scale)
    loss = losses[:, 0].double() @ weight
    if logs is not None:
        logs[0] -= loss
    return loss


def _sigmoids(
    Z: Tensor, sign: Tensor, weight: Tensor, logs: Tensor | None, *, partial: bool
) -> Tensor:
    part = sign.abs() if partial else None
    if logs is not None:
        up, down = torch.nn.functional.logsigmoid(Z), torch.nn.functional.logsigmoid(-Z)
        if part is not None:
            up, down = up.mul_(part), down.mul_(part)
        logs[0] += weight @ up.double()
        logs[1] += weight @ down.double()
    margin = Z * sign
    each = torch.nn.functional.softplus(-margin, threshold=60)
    losses = (each if part is None else each.mul_(part)).sum(1, dtype=torch.float64)
    torch.sigmoid(margin.clamp_(max=-LOWEST).neg_(), out=Z)
    Z *= sign.mul_(-weight.to(Z.dtype)[:, None])
    return losses @ weight
