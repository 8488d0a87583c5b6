"""Influence: how the loss of a row changes when a row of the fit is left out.

To first order, with u_t = X_t H⁻¹ (Koh and Liang 2017, with the exact Hessian), leaving out row i
moves Θ by the Newton step of `luce.linear.leave_one_out` and so the loss of row t by

    ⟨∇ℓ_t, X_t (Θ_i - Θ)⟩ = r_tᵀ X_t H⁻¹ X_iᵀ (r_i + S_i d_i),

where r_t is the gradient of its loss over its logits. With H_i left in, as the original has it, r_i
stands alone, and rows that hold a boundary count for too little. Where the Hessian is too large to
form, H⁻¹ of the gradients that are asked about is found by conjugate gradients, and d_i from its
Kronecker form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import DataError
from luce.linear.conjugate import solve
from luce.linear.curvature import MOST, Exact, reduced, size_of
from luce.linear.factored import Factored, check_factors
from luce.linear.leave_one_out import factored_steps, newton_steps
from luce.linear.questions import ask, check_given, check_penalised, codes_of, onehot, probabilities

if TYPE_CHECKING:
    from luce.linear.model import SoftmaxModel

__all__ = ["influence"]


def influence(
    model: SoftmaxModel,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any = None,
    sample_weight: Any = None,
) -> np.ndarray:
    """Return by how much leaving out each row of the fit changes the loss of each test row.

    The parameters are those of `SoftmaxRegression.influence`.
    """
    what = "influence"
    check_given(model, y, what)
    question = ask(model, X, y, sample_weight, what)
    check_penalised(model, what)
    question.check_rows(what)
    q = reduced(question)
    large = size_of(q) > MOST
    if large:
        check_factors(q, what)
    rows = q.centred(model._check_rows(X_test))  # noqa: SLF001 - of our own class
    if not np.isfinite(rows).all():
        raise DataError(f"{question.name}: X_test must be finite, got NaN or infinity.")
    Z = rows @ q.theta.T
    if y_test is None:
        codes = q.log_probabilities(Z).argmax(1)
    else:
        codes = codes_of(question.name, "y_test", y_test, model.classes_, len(rows))
    K = q.free
    P = probabilities(Z, q.link)
    if q.link == "sigmoid" and q.K > 1:  # the loss of what is predicted: sigmoids over their sum
        gradients = (1 - P) * (P / P.sum(1, keepdims=True) - onehot(codes, q.K))
    else:
        gradients = (P - onehot(codes, q.K))[:, :K]
    asked = gradients[:, :, None] * rows[:, None, :]
    if large:
        inverse = Factored(q)
        u, pulls = solve(q, inverse, asked), factored_steps(q, inverse).pulls
    else:
        curvature = Exact(q)
        u, pulls = curvature.solve(asked), newton_steps(q, curvature).pulls
    out = np.empty((len(rows), len(q.codes)))
    flat = u.reshape(len(rows) * K, q.width)
    for at, block in q.blocks(max(q.width, len(flat))):
        reached = (block @ flat.T).reshape(len(block), len(rows), K)
        out[:, at] = np.einsum("ntk,nk->tn", reached, pulls[at])
    # A row of weight 0 has no part in the fit: rounding is not to say otherwise.
    out[:, q.weight == 0] = 0.0
    return out
