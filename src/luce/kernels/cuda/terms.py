"""The algebra of cross-entropy, once: what an example's loss and gradient are made of.

Blocks are examples × classes; an example's numbers are vectors over examples. With the coefficients
a = w ((1 − ε) t + ε / K) of docs/operators.md, and exponentials relative to the largest logit:

- ``top`` is the largest logit so far, ``exps`` the sum of exp((z − top) / T);
- ``mass`` is Σ a and ``gap`` is Σ a (z − top) / T, so the loss is mass · log exps − gap;
- the gradient is of_exps · exp((z − top) / T) − of_amounts · a.

Logits are read as they are stored. Bias and softcap are added here, in the precision of the work,
and what lies beyond the last class becomes −Inf after the cap, which would make −cap of it.
"""

from __future__ import annotations

import triton.language as tl

from luce.kernels.cuda.arithmetic import fading, finite, tanh
from luce.kernels.cuda.compile import part

__all__ = ["aims", "gradient", "logits", "losses", "merge", "slopes", "tile"]


@part
def logits(
    x,
    offsets,
    mask,
    bias,
    classes,
    K,
    cap,
    BIAS: tl.constexpr,
    CAP: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return logits, and the slope of their cap (anything without one)."""
    z = tl.load(x + offsets, mask=mask, other=0.0).to(WIDE)
    if BIAS:
        z += tl.load(bias + classes, mask=classes < K, other=0.0).to(WIDE)[None, :]
    slope = z
    if CAP:
        t, slope = tanh(z / cap)
        z = cap * t
    return tl.where(mask, z, float("-inf")), slope


@part
def amounts(
    target,
    offsets,
    y,
    mask,
    weight,
    classes,
    K,
    retained,
    spread,
    INDEX: tl.constexpr,
    WEIGHT: tl.constexpr,
    SPREAD: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return the coefficients a, and where these count in the loss.

    A class index alone counts at its class only; a product with 0 would make NaN of an infinite
    logit elsewhere. Probabilities of 0 do that in PyTorch too.
    """
    if INDEX:
        own = mask & (classes[None, :] == y[:, None])
        a = tl.where(own, retained, 0.0).to(WIDE)
    else:
        a = tl.load(target + offsets, mask=mask, other=0.0).to(WIDE) * retained
    counting = mask
    if SPREAD:
        a += spread
    elif INDEX:
        counting = own
    if WEIGHT:
        a *= tl.load(weight + classes, mask=classes < K, other=0.0).to(WIDE)[None, :]
    return tl.where(mask, a, 0.0), counting


@part
def aims(target, example, there, ignored, total, INDEX: tl.constexpr):
    """Return examples' targets if these are classes, which count, and which are no class."""
    y = example
    counts = there
    bad = there & False
    if INDEX:
        y = tl.load(target + example, mask=there, other=0)
        counts = y != ignored
        bad = counts & ((y < 0) | (y >= total))
    return y, counts, bad


@part
def tile(
    x,
    target,
    bias,
    weight,
    of_x,
    x_along,
    of_target,
    t_along,
    classes,
    there,
    y,
    K,
    retained,
    spread,
    cap,
    INDEX: tl.constexpr,
    WEIGHT: tl.constexpr,
    SPREAD: tl.constexpr,
    BIAS: tl.constexpr,
    CAP: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return which of some classes there are, their logits, slopes and coefficients, what counts.

    ``of_x`` and ``of_target`` say where each example begins.
    """
    mask = there[:, None] & (classes < K)[None, :]
    at = of_x[:, None] + classes[None, :] * x_along
    z, slope = logits(x, at, mask, bias, classes, K, cap, BIAS, CAP, WIDE)
    at = of_target[:, None] + classes[None, :] * t_along
    a, counting = amounts(
        target, at, y, mask, weight, classes, K, retained, spread, INDEX, WEIGHT, SPREAD, WIDE
    )
    return mask, z, slope, a, counting


@part
def merge(top, exps, mass, gap, z, a, counting, inverse):
    """Return an example's numbers with some more classes."""
    now = tl.maximum(top, tl.max(z, 1))
    origin = finite(now)
    way = (z - origin[:, None]) * inverse
    exps = exps * fading(top, now, inverse) + tl.sum(tl.exp(way), 1)
    gap += mass * ((finite(top) - origin) * inverse)
    gap += tl.sum(tl.where(counting, a * way, 0.0), 1)
    mass += tl.sum(a, 1)
    return now, exps, mass, gap


@part
def losses(
    top,
    exps,
    mass,
    gap,
    counts,
    bad,
    inverse,
    z_loss,
    Z: tl.constexpr,
):
    """Return losses, log-sum-exps, and the sums of exponentials as the gradient takes them.

    These are NaN where the largest logit is infinite: so are all probabilities then.
    """
    lse = finite(top) * inverse + tl.log(exps)
    exps = tl.where(tl.abs(top) == float("inf"), float("nan"), exps)
    loss = mass * tl.log(exps) - gap
    if Z:
        loss += z_loss * lse * lse
    loss = tl.where(counts, loss, 0.0)
    return tl.where(bad, float("nan"), loss), lse, exps


@part
def slopes(
    exps,
    mass,
    lse,
    counts,
    bad,
    scale,
    lse_scale,
    inverse,
    z_loss,
    Z: tl.constexpr,
):
    """Return of_exps, of_amounts, and which examples have no gradient whatever they hold."""
    scale = tl.where(counts, scale, 0.0)
    scale = tl.where(bad, float("nan"), scale)
    slope = mass
    if Z:
        slope += 2.0 * z_loss * lse
    of_exps = (scale * slope + lse_scale) * inverse / exps
    return of_exps, scale * inverse, (counts == 0) & (lse_scale == 0)


@part
def gradient(
    z,
    slope,
    a,
    top,
    of_exps,
    of_amounts,
    none,
    inverse,
    CAP: tl.constexpr,
):
    """Return the gradient of a block of logits, in the precision of the work."""
    e = tl.exp((z - finite(top)[:, None]) * inverse)
    d = of_exps[:, None] * e - of_amounts[:, None] * a
    if CAP:
        d *= slope
    return tl.where(none[:, None], 0.0, d)
