"""The steps of a model as ONNX nodes; see `luce.models.steps`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from luce.export.rows import Rows
from luce.nodes import Var, constant, op

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.models.steps import Step

__all__ = ["run_steps", "sigmoid", "softmax"]

Value: TypeAlias = Rows | Var


def run_steps(steps: Sequence[Step], rows: Rows) -> Var:
    """Return the logits of encoded rows, (rows, classes)."""
    value: Value = rows
    for step in steps:
        value = _STEPS[step.kind](value, step)
    assert not isinstance(value, Rows)  # noqa: S101 - for mypy: no model has no steps
    return value


def softmax(scores: Var, temperature: float = 1.0) -> Var:
    """Return the probabilities of logits, over the last axis."""
    if temperature != 1:
        # Large logits over a small temperature are infinite; their distances may be.
        scores = op.div(op.log_softmax(scores, axis=-1), constant(temperature, _dtype(scores)))
    return op.softmax(scores, axis=-1)


def sigmoid(scores: Var, temperature: float = 1.0) -> Var:
    """Return the probabilities of the logits of labels, each by itself."""
    if temperature != 1:
        scores = op.div(scores, constant(temperature, _dtype(scores)))
    return op.sigmoid(scores)


def _log_mean(logits: Sequence[Var], weights: Sequence[float]) -> Var:
    """Return the logarithms of weighted means of probabilities, exact where these underflow."""
    logarithms = [
        op.add(op.log_softmax(op.cast(each, to=np.float32), axis=-1), _one(np.log(weight)))
        for each, weight in zip(logits, weights, strict=True)
    ]
    most = logarithms[0] if len(logarithms) == 1 else op.max(logarithms)
    powers = [op.exp(op.sub(each, most)) for each in logarithms]
    total = powers[0] if len(powers) == 1 else op.sum(powers)
    return op.add(most, op.log(total))


def _dtype(var: Var) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(var.unwrap_tensor().dtype)
    return dtype


def _matrix(value: Value) -> Var:
    return value.matrix() if isinstance(value, Rows) else value


def _linear(value: Value, step: Step) -> Var:
    weight, bias = step.arrays["weight"], step.arrays["bias"]
    if isinstance(value, Rows):
        return op.add(value.product(weight.T), constant(bias, weight.dtype))
    if _dtype(value) != weight.dtype:
        value = op.cast(value, to=weight.dtype)
    return op.add(op.matmul(value, constant(weight.T)), constant(bias, weight.dtype))


def _flatten(value: Value, _: Step) -> Value:
    if isinstance(value, Rows) and not value.is_image:
        return value
    return op.flatten(_matrix(value), axis=1)


def _one(value: float) -> Var:
    return constant(value, np.float32)


_ACTIVATIONS: Mapping[str, Callable[[Var], Var]] = {
    "sigmoid": op.sigmoid,
    "tanh": op.tanh,
    "relu": op.relu,
    "relu6": lambda x: op.clip(x, _one(0), _one(6)),
    "leaky_relu": lambda x: op.leaky_relu(x, alpha=0.01),
    "elu": op.elu,
    "silu": lambda x: op.mul(x, op.sigmoid(x)),
    "mish": lambda x: op.mul(x, op.tanh(op.softplus(x))),
    # Gelu itself is of opset 20.
    "gelu": lambda x: op.mul(
        op.mul(x, _one(0.5)), op.add(op.erf(op.mul(x, _one(0.5**0.5))), _one(1))
    ),
}


def _activation(value: Value, step: Step) -> Var:
    return _ACTIVATIONS[step.name](_matrix(value))


def _gathered(value: Value, columns: NDArray[Any]) -> Var:
    if isinstance(value, Rows):
        return value.columns(columns)
    return op.gather(value, constant(columns), axis=1)


def _encoded(value: Value, arrays: Mapping[str, NDArray[Any]]) -> list[Var]:
    parts = []
    if len(binned := arrays["binned"]):
        # Each column once, and from there into its bins: sparse rows are asked for few.
        own = op.sub(_gathered(value, binned), constant(arrays["low"]))
        parts.append(op.clip(op.div(own, constant(arrays["width"])), _one(0), _one(1)))
    if len(numbers := arrays["numbers"]):
        own = op.sub(_gathered(value, numbers), constant(arrays["centre"]))
        scaled = op.clip(op.div(own, constant(arrays["spread"])), _one(-1e6), _one(1e6))
        third = op.div(scaled, _one(3))
        root = op.sqrt(op.add(op.mul(third, third), _one(1)))
        parts.append(op.div(scaled, root))
    if len(others := arrays["others"]):
        parts.append(_gathered(value, others))
    return parts


def _encoding(value: Value, step: Step) -> Var:
    return op.concat(_encoded(value, step.arrays), axis=1)


def _embedding(value: Value, step: Step) -> Var:
    assert isinstance(value, Rows)  # noqa: S101 - for mypy: embeddings are of rows as they come
    columns, weight, beside = (step.arrays[name] for name in ("columns", "weight", "beside"))
    parts = []
    if len(columns):
        whole = np.zeros((value.width, weight.shape[1]), np.float32)
        whole[columns] = weight
        parts.append(value.product(whole))
    if len(beside):
        parts += _encoded(value.columns(beside), step.encoding)
    return op.concat(parts, axis=1)


def _views(value: Value, step: Step) -> Var:
    return op.mul(op.unsqueeze(_matrix(value), constant([1])), constant(step.arrays["signs"]))


def _members(value: Value, step: Step) -> Var:
    weight, bias = step.arrays["weight"], step.arrays["bias"]
    by_member = op.matmul(op.transpose(_matrix(value), perm=[1, 0, 2]), constant(weight))
    return op.add(op.transpose(by_member, perm=[1, 0, 2]), constant(bias))


def _mean(value: Value, step: Step) -> Var:  # noqa: ARG001
    return _log_of_mean(op.log_softmax(_matrix(value), axis=2))


def _mean_of_labels(value: Value, step: Step) -> Var:  # noqa: ARG001
    # Of two large probabilities the difference to 1 is what has digits.
    logits = _matrix(value)
    on, off = (_log_of_mean(_log_sigmoid(each)) for each in (logits, op.neg(logits)))
    return op.sub(on, off)


def _log_of_mean(single: Var) -> Var:
    """Return the logarithms of the means over the members of what has these logarithms."""
    # Operators that did not change since: another opset may be needed for other nodes.
    most = op.top_k(single, constant([1]), axis=1)[0]
    total = op.reduce_sum(op.exp(op.sub(single, most)), constant([1]), keepdims=False)
    members = op.cast(op.shape(single, start=1, end=2), to=np.float32)
    return op.add(op.squeeze(most, constant([1])), op.log(op.div(total, members)))


def _mixture(value: Value, step: Step) -> Var:
    assert isinstance(value, Rows)  # noqa: S101 - for mypy: members read rows as they come

    logits = [
        op.div(
            op.log_softmax(op.cast(run_steps(branch.steps, value), to=np.float32), axis=-1),
            _one(branch.temperature),
        )
        for branch in step.branches
    ]
    return _log_mean(logits, [branch.weight for branch in step.branches])


def _log_sigmoid(logits: Var) -> Var:
    return op.neg(op.softplus(op.neg(logits)))


def _sigmoids(value: Value, _: Step) -> Var:
    return _log_sigmoid(_matrix(value))


def _code(value: Value, step: Step) -> Var:
    logits = op.cast(_matrix(value), to=np.float32)
    halves = step.arrays["halves"].T
    both = op.add(_log_sigmoid(logits), _log_sigmoid(op.neg(logits)))
    sums = op.add(op.matmul(logits, constant(halves)), op.matmul(both, constant(np.abs(halves))))
    return op.sub(sums, constant(step.arrays["none"]))


def _pairs(value: Value, step: Step) -> Var:
    """Return log p of all pairs' log-odds, as `luce.linear.coupling` has it.

    In float64, where the smallest is still right. A square of two classes k > j is at [k, j] of
    two matrices: `one` before x_j, `other` before x_k. Above the diagonal stands what is not used.
    """
    places, farthest = step.arrays["places"], float(step.numbers["farthest"])
    K = len(places)
    z = op.clip(op.cast(_matrix(value), to=np.float64), _wide(-farthest), _wide(farthest))
    # ONNX Runtime's own sigmoid is 0 where this is still 1e-26.
    odds = (op.add(op.exp(each), _wide(1)) for each in (op.neg(z), z))
    one, other = (op.gather(op.div(_wide(1), each), constant(places), axis=1) for each in odds)
    below = np.tril(np.ones((K, K)), -1)
    alone = op.mul(op.slice(z, *_span(0, 1)), _wide(np.zeros((1, K))))
    side = op.add(alone, _wide(1))
    rows = []
    for t in range(K - 1, 0, -1):
        a, b = (
            op.slice(op.squeeze(op.slice(each, *_span(t, t + 1)), constant([1])), *_span(0, t))
            for each in (other, one)
        )
        alone_t, side_t = (op.slice(each, *_span(t, t + 1)) for each in (alone, side))
        s = op.add(op.reduce_sum(op.mul(a, a), constant([1])), alone_t)
        w = op.div(a, op.sqrt(s))
        tied = op.div(op.mul(a, b), s)
        rows.append((tied, op.div(side_t, s)))
        side = op.add(op.slice(side, *_span(0, t)), op.mul(tied, side_t))
        alone = op.add(op.slice(alone, *_span(0, t)), op.mul(op.mul(b, b), op.div(alone_t, s)))
        if t == 1:
            break
        one, other = (
            op.slice(each, constant([0, 0]), constant([t, t]), constant([1, 2]))
            for each in (one, other)
        )
        down, along = constant([2]), constant([1])
        more = op.mul(op.unsqueeze(w, down), op.unsqueeze(b, along))
        less = op.mul(op.unsqueeze(b, down), op.unsqueeze(w, along))
        both = op.add(op.mul(one, one), op.mul(more, more))
        off = op.sub(op.mul(one, less), op.mul(other, more))
        apart = op.mul(op.div(op.mul(off, off), both), _wide(below[:t, :t]))
        alone = op.add(alone, op.reduce_sum(apart, constant([2]), keepdims=False))
        root = op.sqrt(both)
        one, other = root, op.div(op.add(op.mul(one, other), op.mul(more, less)), root)
    c = op.div(op.slice(alone, *_span(0, 1)), op.slice(side, *_span(0, 1)))
    x = op.add(op.mul(c, _wide(0)), _wide(1))
    for tied, right in reversed(rows):
        own = op.reduce_sum(op.mul(tied, x), constant([1]))
        x = op.concat([x, op.add(own, op.mul(c, right))], axis=1)
    return op.sub(op.log(x), op.log(op.reduce_sum(x, constant([1]))))


def _wide(value: Any) -> Var:
    return constant(value, np.float64)


def _span(start: int, stop: int) -> tuple[Var, Var, Var]:
    """Return what a slice of the second axis takes."""
    return constant([start]), constant([stop]), constant([1])


def _conv(value: Value, step: Step) -> Var:
    stride, padding = step.numbers["stride"], step.numbers["padding"]
    weight = constant(step.arrays["weight"])
    return op.conv(_matrix(value), weight, strides=[stride] * 2, pads=[padding] * 4)


def _norm(value: Value, step: Step) -> Var:
    factor, summand = (
        constant(step.arrays[name].reshape(1, -1, 1, 1)) for name in ("factor", "summand")
    )
    return op.add(op.mul(_matrix(value), factor), summand)


def _pool(value: Value, _: Step) -> Var:
    return op.max_pool(_matrix(value), kernel_shape=[2, 2], strides=[2, 2])[0]


def _average(value: Value, step: Step) -> Var:
    down, across = constant(step.arrays["down"]), constant(step.arrays["across"].T)
    return op.matmul(op.matmul(down, _matrix(value)), across)


_STEPS: Mapping[str, Callable[[Value, Step], Value]] = {
    "linear": _linear,
    "activation": _activation,
    "flatten": _flatten,
    "encoding": _encoding,
    "embedding": _embedding,
    "views": _views,
    "members": _members,
    "mean": _mean,
    "mean of labels": _mean_of_labels,
    "mixture": _mixture,
    "sigmoids": _sigmoids,
    "code": _code,
    "pairs": _pairs,
    "conv": _conv,
    "norm": _norm,
    "pool": _pool,
    "average": _average,
}
