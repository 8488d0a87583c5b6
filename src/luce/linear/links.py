"""Links: from blocks of logits (n, K) to probabilities, losses and what a fit needs of them.

A softmax couples the classes of a row. Sigmoids are K two-class problems, a class against the rest
each; the binary case is one of them.
"""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor

__all__ = ["Link", "curve", "log_softmax", "margins", "probabilities", "residual"]

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


def margins(Z: Tensor, target: Tensor, link: Link) -> Tensor:
    """Return how far each row is on the right side of each boundary, (n, 1) or (n, K)."""
    if target.ndim == 2:  # several labels at once
        return torch.where(target, Z, -Z)
    y = target[:, None]
    if link == "softmax":
        chosen = Z.gather(1, y)
        return chosen - Z.scatter(1, y, -torch.inf).amax(1, keepdim=True)
    if Z.shape[1] == 1:
        return Z * (2 * y - 1)
    return -Z.scatter(1, y, -Z.gather(1, y))


def residual(
    Z: Tensor, target: Tensor, weight: Tensor, link: Link, logs: Tensor | None = None
) -> float:
    """Turn logits in place into w (p - onehot(y)) and return the weighted loss.

    The target is class codes (n,), or of several labels at once which are on, (n, K) of booleans.
    What is small is computed as such (the other classes' share, not 1 - p_y), so a well-classified
    row keeps its digits in float32. Where ``logs`` (2, K) is given, Σ w log p is added to its first
    row and, for sigmoids, Σ w log(1 - p) to its second.
    """
    y = target if target.ndim == 2 else target[:, None]
    return (_softmax if link == "softmax" else _sigmoids)(Z, y, weight, logs)


def _softmax(Z: Tensor, y: Tensor, weight: Tensor, logs: Tensor | None) -> float:
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
    loss = float(losses[:, 0].double() @ weight)
    if logs is not None:
        logs[0] -= loss
    return loss


def _sigmoids(Z: Tensor, y: Tensor, weight: Tensor, logs: Tensor | None) -> float:
    if logs is not None:
        logs[0] += weight @ torch.nn.functional.logsigmoid(Z).double()
        logs[1] += weight @ torch.nn.functional.logsigmoid(-Z).double()
    binary = Z.shape[1] == 1
    if y.dtype == torch.bool:
        sign = torch.where(y, 1.0, -1.0).to(Z.dtype)
    else:
        sign = (2 * y - 1).to(Z.dtype) if binary else torch.full_like(Z, -1).scatter_(1, y, 1)
    margin = Z * sign
    losses = torch.nn.functional.softplus(-margin, threshold=60).sum(1, dtype=torch.float64)
    torch.sigmoid(margin.clamp_(max=-LOWEST).neg_(), out=Z)
    Z *= sign.mul_(-weight.to(Z.dtype)[:, None])
    return float(losses @ weight)
