"""The layers of our networks as steps; see `luce.models.steps`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from luce.models.steps import Step
from luce.neural.embedding import SCALE, EmbeddedRows
from luce.neural.networks import ACTIVATIONS, RandomShift
from luce.neural.tabular import Encoding, Mean, Members, Views

__all__ = ["steps_of"]


def steps_of(network: nn.Module, input_shape: Sequence[int]) -> list[Step]:
    """Return the steps of one of our networks in evaluation mode, for rows of this shape."""
    steps = []
    shape = tuple(input_shape)
    for layer in network.children():
        # In evaluation mode these are the identity.
        if isinstance(layer, nn.Dropout | RandomShift):
            continue
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            steps.append(_average(layer, shape))
        else:
            steps.append(_LAYERS[type(layer)](layer))
        shape = _shape_after(steps[-1], shape)
    return steps


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def _encoding_arrays(layer: Encoding) -> dict[str, NDArray[Any]]:
    return {name: _array(tensor) for name, tensor in layer.named_buffers()}


def _encoding(layer: Encoding) -> Step:
    return Step(kind="encoding", arrays=_encoding_arrays(layer))


def _embedding(layer: EmbeddedRows) -> Step:
    place, embedded = _array(layer.place), layer.embedding.num_embeddings
    order = np.argsort(place, kind="stable")
    order = order[place[order] >= 0]  # the columns that are read, in the order of their places
    return Step(
        kind="embedding",
        arrays={
            "columns": order[:embedded],
            "weight": _array(layer.embedding.weight) * np.float32(SCALE),
            "beside": order[embedded:],
        },
        encoding=_encoding_arrays(layer.others),
    )


def _norm(layer: nn.BatchNorm2d) -> Step:
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None  # noqa: S101 - for mypy: ours have statistics
    assert variance is not None  # noqa: S101
    factor = layer.weight.double() / (variance.double() + layer.eps).sqrt()
    summand = layer.bias.double() - mean.double() * factor
    arrays = {"factor": _array(factor.float()), "summand": _array(summand.float())}
    return Step(kind="norm", arrays=arrays)


def _members(layer: Members) -> Step:
    bias = _array(layer.bias).reshape(len(layer.weight), -1)
    return Step(kind="members", arrays={"weight": _array(layer.weight), "bias": bias})


def _conv(layer: nn.Conv2d) -> Step:
    numbers = {"stride": layer.stride[0], "padding": int(layer.padding[0])}
    return Step(kind="conv", arrays={"weight": _array(layer.weight)}, numbers=numbers)


def _linear(layer: nn.Linear) -> Step:
    return Step(kind="linear", arrays={"weight": _array(layer.weight), "bias": _array(layer.bias)})


def _average(layer: nn.AdaptiveAvgPool2d, shape: Sequence[int]) -> Step:
    """Return adaptive means over (channels, height, width), as two matrices."""
    size = layer.output_size
    assert isinstance(size, tuple)  # noqa: S101 - for mypy: ours have two sizes
    down, across = (
        _means(before, int(after or before)) for before, after in zip(shape[1:], size, strict=True)
    )
    return Step(kind="average", arrays={"down": down, "across": across})


def _means(before: int, after: int) -> NDArray[np.float32]:
    """Return the matrix (after, before) whose rows are the means that PyTorch takes."""
    matrix = np.zeros((after, before), np.float32)
    for i in range(after):
        start, stop = i * before // after, -(-(i + 1) * before // after)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


_LAYERS: dict[type[nn.Module], Callable[[Any], Step]] = {
    nn.Flatten: lambda _: Step(kind="flatten"),
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _norm,
    nn.MaxPool2d: lambda _: Step(kind="pool"),
    Encoding: _encoding,
    EmbeddedRows: _embedding,
    Views: lambda layer: Step(kind="views", arrays={"signs": _array(layer.signs)}),
    Members: _members,
    Mean: lambda layer: Step(kind="mean of labels" if layer.several else "mean"),
    **{
        # Bound here: a loop's variable would be the last of them.
        activation: lambda _, name=name: Step(kind="activation", name=name)  # type: ignore[misc]
        for name, activation in ACTIVATIONS.items()
    },
}


def _shape_after(step: Step, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of images behind a step; of other rows nobody asks."""
    if step.kind == "conv":
        maps, _, kernel, _ = step.arrays["weight"].shape
        padding, stride = step.numbers["padding"], step.numbers["stride"]
        return (maps, *((side + 2 * padding - kernel) // stride + 1 for side in shape[1:]))
    if step.kind == "pool":
        return (shape[0], *(side // 2 for side in shape[1:]))
    return shape
