"""Networks: the shape of one example and the number of classes → a module that returns logits.

All three are plain ``nn.Sequential`` s whose parts are named, so that the keys of a ``state_dict``
(which are the names in ``model.safetensors``) say what they are: ``hidden1.weight``,
``conv2.weight``, ``output.bias``. Initial weights are drawn from PyTorch's global random state:
seed it first.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor, nn

from luce.errors import ArgumentError
from luce.options import NETWORK, check

__all__ = ["ACTIVATIONS", "cnn", "linear", "mlp"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
}

# What is dropped is decided by random numbers below this.
LEVELS = 2**16


def linear(input_shape: Sequence[int], n_classes: int) -> nn.Sequential:
    """Return softmax regression as a network: one linear layer.

    Parameters
    ----------
    input_shape : sequence of int
        Shape of one example: (features,) or (channels, height, width), which is flattened.
    n_classes : int
        Number of classes, at least 2.

    Returns
    -------
    nn.Sequential
        (rows, *input_shape) → logits of (rows, n_classes). Keys: ``output.*``.

    Raises
    ------
    ArgumentError
        If the shape or the number of classes is not allowed.

    Examples
    --------
    >>> from luce.neural.networks import linear
    >>> [tuple(p.shape) for p in linear((1, 8, 8), 10).parameters()]
    [(10, 64), (10,)]
    """
    features = _size(input_shape, n_classes, "linear")
    return _named([("flatten", nn.Flatten()), ("output", nn.Linear(features, n_classes))])


def mlp(
    input_shape: Sequence[int],
    n_classes: int,
    *,
    hidden: Sequence[int] = (256,),
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return a multilayer perceptron: linear layers with an activation between them.

    Parameters
    ----------
    input_shape : sequence of int
        Shape of one example: (features,) or (channels, height, width), which is flattened.
    n_classes : int
        Number of classes, at least 2.
    hidden : sequence of int, default=(256,)
        Width of each hidden layer, from the input on.
    activation : str, default="relu"
        A key of ``ACTIVATIONS``.
    dropout : float, default=0.0
        Chance that a hidden unit is dropped in a training step, in [0, 1).

    Returns
    -------
    nn.Sequential
        (rows, *input_shape) → logits of (rows, n_classes). Keys: ``hidden1.*``, ``hidden2.*``, …,
        ``output.*``.

    Raises
    ------
    ArgumentError
        If an argument has a value that is not allowed.

    Examples
    --------
    >>> from luce.neural.networks import mlp
    >>> list(mlp((4,), 3, hidden=(16,)).state_dict())
    ['hidden1.weight', 'hidden1.bias', 'output.weight', 'output.bias']
    """
    width = _size(input_shape, n_classes, "mlp")
    check("mlp: hidden", hidden, NETWORK["hidden"].kind)
    check("mlp: activation", activation, NETWORK["activation"].kind)
    check("mlp: dropout", dropout, NETWORK["dropout"].kind)
    new_activation = ACTIVATIONS[activation]
    parts: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
    for i, units in enumerate(hidden, start=1):
        parts += [(f"hidden{i}", nn.Linear(width, units)), (f"activation{i}", new_activation())]
        if dropout:
            parts.append((f"dropout{i}", Dropout(dropout)))
        width = units
    return _named([*parts, ("output", nn.Linear(width, n_classes))])


def cnn(
    input_shape: Sequence[int],
    n_classes: int,
    *,
    channels: Sequence[int] = (16, 32, 64),
    activation: str = "relu",
    dropout: float = 0.0,
    shift: int | None = None,
) -> nn.Sequential:
    """Return a small convolutional network for small images.

    Each layer is convolution, batch normalisation (Ioffe and Szegedy, 2015), activation. The first
    halves the image by a stride of 2 where the shorter side is 16 pixels or more; those between
    the first and the last halve it by max-pooling while the shorter side is 8 or more. What is
    left, averaged to 8 × 8 where it is larger, goes to one linear layer. In training mode every
    image is shifted by a few pixels first; in evaluation mode nothing is random.

    Parameters
    ----------
    input_shape : sequence of int
        Shape of one example: (channels, height, width).
    n_classes : int
        Number of classes, at least 2.
    channels : sequence of int, default=(16, 32, 64)
        Channels that each convolution gives, from the input on.
    activation : str, default="relu"
        A key of ``ACTIVATIONS``.
    dropout : float, default=0.0
        Chance that an input of the last layer is dropped in a training step, in [0, 1).
    shift : int, optional
        Largest shift of a training image in each direction, in pixels; 0 for none. By default a
        fourteenth of the shorter side: 2 for 28 × 28, 1 for 8 × 8.

    Returns
    -------
    nn.Sequential
        (rows, *input_shape) → logits of (rows, n_classes). Keys: ``conv1.*``, ``norm1.*``,
        ``conv2.*``, …, ``output.*``.

    Raises
    ------
    ArgumentError
        If an argument has a value that is not allowed, or the examples are not images.

    Examples
    --------
    >>> import torch
    >>> from luce.neural.networks import cnn
    >>> cnn((3, 32, 32), 10)(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 10])
    """
    _size(input_shape, n_classes, "cnn")
    if len(input_shape) != 3:
        raise ArgumentError(
            "cnn: input_shape must be that of an image, (channels, height, width), "
            f"got {tuple(input_shape)}. Use 'mlp' for rows of features, or reshape X to "
            "(rows, channels, height, width) if they are pixels."
        )
    check("cnn: channels", channels, NETWORK["hidden"].kind)
    if not channels:
        raise ArgumentError("cnn: channels must name at least one convolution, got none.")
    check("cnn: activation", activation, NETWORK["activation"].kind)
    check("cnn: dropout", dropout, NETWORK["dropout"].kind)
    new_activation = ACTIVATIONS[activation]
    width, height, breadth = input_shape
    if shift is None:
        shift = round(min(height, breadth) / 14)
    elif not _is_whole(shift) or shift < 0:
        raise ArgumentError(f"cnn: shift must be a whole number of at least 0, got {shift!r}.")

    parts: list[tuple[str, nn.Module]] = [("shift", RandomShift(shift))]
    for i, maps in enumerate(channels, start=1):
        halve = i == 1 and min(height, breadth) >= 16
        kernel, stride = (5, 2) if halve else (3, 1)
        parts.append((f"conv{i}", nn.Conv2d(width, maps, kernel, stride, kernel // 2, bias=False)))
        if halve:
            height, breadth = (height + 1) // 2, (breadth + 1) // 2
        if 1 < i < len(channels) and min(height, breadth) >= 8:
            # Before the norm and the activation, which then have a quarter of the work.
            parts.append((f"pool{i}", nn.MaxPool2d(2)))
            height, breadth = height // 2, breadth // 2
        parts += [(f"norm{i}", nn.BatchNorm2d(maps)), (f"activation{i}", new_activation())]
        width = maps
    if max(height, breadth) > 8:
        height, breadth = min(height, 8), min(breadth, 8)
        parts.append(("average", nn.AdaptiveAvgPool2d((height, breadth))))
    parts.append(("flatten", nn.Flatten()))
    if dropout:
        parts.append(("dropout", Dropout(dropout)))
    return _named([*parts, ("output", nn.Linear(width * height * breadth, n_classes))])


class Dropout(nn.Dropout):
    """PyTorch's dropout, in about a third of the time on a CPU.

    PyTorch draws each Bernoulli number by itself there. This compares numbers of 16 bits, which a
    faster generator draws at once; its seed comes from PyTorch's. The distribution is the same to a
    rounding of `p` in 16 bits.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with a share `p` of its numbers 0, and the others over 1 - p."""
        ours = input.device.type == "cpu" and input.is_floating_point() and not self.inplace
        least = round(self.p * LEVELS)
        if not (ours and self.training and 0 < least < LEVELS):
            return super().forward(input)
        generator = np.random.SFC64(int(torch.randint(2**62, ())))
        drawn = generator.random_raw(-(-input.numel() // 4)).view(np.uint16)[: input.numel()]
        # One pass over the numbers instead of three; bfloat16 is no dtype of NumPy's.
        wide = np.float64 if input.dtype == torch.float64 else np.float32
        kept = np.multiply(drawn >= least, wide(1 / (1 - self.p)), dtype=wide)
        return input * torch.from_numpy(kept).view(input.shape).to(input.dtype)


class RandomShift(nn.Module):
    """Shift each training image by up to `pixels` in both directions, repeating its edge.

    Every shift is as likely as any other, and each image has its own. In evaluation mode images
    stay where they are. The result has channels last in memory, where convolutions and pooling on
    a CPU are fastest.

    Parameters
    ----------
    pixels : int
        Largest shift.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, images: Tensor) -> Tensor:
        """Return the images, (rows, channels, height, width), shifted."""
        if not self.training or not self.pixels:
            return images.to(memory_format=torch.channels_last)
        rows, _, height, width = images.shape
        device = images.device
        down, right = torch.randint(
            -self.pixels, self.pixels + 1, (2, rows, 1, 1), device=device
        ).unbind()
        row = (torch.arange(height, device=device)[:, None] + down).clamp_(0, height - 1)
        column = (torch.arange(width, device=device) + right).clamp_(0, width - 1)
        each = torch.arange(rows, device=device)[:, None, None]
        return images.permute(0, 2, 3, 1)[each, row, column].permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        """Return the largest shift, for ``print(network)``."""
        return f"pixels={self.pixels}"


def _named(parts: Sequence[tuple[str, nn.Module]]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _size(input_shape: Sequence[int], n_classes: int, network: str) -> int:
    """Check what all networks are given; return the numbers in one example."""
    if len(input_shape) not in (1, 3) or not all(_is_whole(n) and n > 0 for n in input_shape):
        raise ArgumentError(
            f"{network}: input_shape must be (features,) or (channels, height, width), each a "
            f"whole number above 0, got {tuple(input_shape)}."
        )
    if not _is_whole(n_classes) or n_classes < 2:
        raise ArgumentError(
            f"{network}: n_classes must be a whole number of at least 2, got {n_classes!r}."
        )
    return math.prod(input_shape)
