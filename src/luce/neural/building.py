"""The network that an estimator's options describe: built, outlined, and seen to return logits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import scipy.sparse
import torch
from torch import Tensor, nn

from luce.errors import ArgumentError
from luce.neural import networks
from luce.neural.embedding import EmbeddedRows
from luce.neural.examples import Examples
from luce.neural.losses import BatchLoss
from luce.neural.options import PRECISIONS, resolve
from luce.neural.steps import forward
from luce.neural.stored import StoredRows
from luce.neural.tabular import Encoding, tabular
from luce.processor import free_memory

__all__ = ["build", "check_outputs", "is_tabular", "outline", "reads_no_sparse_rows"]


def is_tabular(options: Mapping[str, Any]) -> bool:
    """Say whether the network is that of `luce.neural.tabular`."""
    asked = options["members"] > 1 or options["bins"] != 0
    return bool(asked and options["module"] == "mlp")


def build(
    options: Mapping[str, Any],
    shape: tuple[int, ...],
    classes: int,
    device: torch.device,
    features: Any,
) -> nn.Module:
    """Return a new network with the seed's initial weights; the caller's is never touched.

    Parameters
    ----------
    options : mapping
        The estimator's parameters by name.
    shape : tuple of int
        Shape of one example.
    classes : int
        Number of classes.
    device : torch.device
        Where it is to be.
    features : array, sparse matrix or StoredRows
        The rows: an encoding of numbers is made from them.

    Raises
    ------
    ArgumentError
        If the options describe none, or one that needs more memory than is free.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(options["seed"])
        encoding: Encoding | EmbeddedRows | None = None
        if isinstance(features, StoredRows):
            encoding = _encoding_of(options, shape, features)
        elif scipy.sparse.issparse(features):
            encoding = EmbeddedRows.of(features, options["bins"])
        elif is_tabular(options) and features.ndim == 2:
            encoding = Encoding.of(features, options["bins"])
        if device.type == "cpu":
            _check_memory(options, shape, classes, encoding)
        network = _network(options, shape, classes, encoding)
    return network.to(device, PRECISIONS[options["precision"]])


def outline(
    options: Mapping[str, Any],
    shape: tuple[int, ...],
    classes: int,
    encoding: Encoding | EmbeddedRows | None = None,
) -> nn.Module:
    """Return the network on PyTorch's "meta" device, without memory for its weights."""
    resolve(options, rows=1)
    with torch.device("meta"):
        network = _network(options, shape, classes, encoding)
        return network.to("meta", PRECISIONS[options["precision"]])


def _encoding_of(
    options: Mapping[str, Any], shape: tuple[int, ...], rows: StoredRows
) -> Encoding | EmbeddedRows | None:
    """Return what a store's rows ask for: a pass over them, or two."""
    if rows.part.sparse:
        return EmbeddedRows.of_blocks(rows.blocks, len(rows), rows.part.shape[1], options["bins"])
    if is_tabular(options) and len(shape) == 1:
        return Encoding.of_blocks(rows.blocks(), len(rows), options["bins"])
    return None


def _check_memory(
    options: Mapping[str, Any],
    shape: tuple[int, ...],
    classes: int,
    encoding: Encoding | EmbeddedRows | None,
) -> None:
    """Refuse a network of ours that needs more than is free, and say how much."""
    if not isinstance(options["module"], str):
        return
    free = free_memory()
    # What is outlined loses its memory.
    network = outline(options, shape, classes, copy.deepcopy(encoding))
    need = 2 * sum(p.nbytes for p in network.parameters())
    if need > free:
        raise ArgumentError(
            f"NeuralClassifier: the parameters and their gradients alone need {need / 1e9:.1f} "
            f"GB, of which {free / 1e9:.1f} GB are free: use fewer or narrower layers."
        )


def _network(
    options: Mapping[str, Any],
    shape: tuple[int, ...],
    classes: int,
    encoding: Encoding | EmbeddedRows | None,
) -> nn.Module:
    module: Any = options["module"]
    if isinstance(module, nn.Module):
        return copy.deepcopy(module)
    if callable(module):
        made: nn.Module = module(shape, classes)
        return made
    if module == "linear":
        return networks.linear(shape, classes)
    own: dict[str, Any] = {name: options[name] for name in ("activation", "dropout")}
    if is_tabular(options) or encoding is not None:
        if len(shape) != 1:
            raise ArgumentError(
                f"NeuralClassifier: members={options['members']} and bins={options['bins']} are "
                f"for rows of numbers, got examples of shape {shape}. Use members=1 and bins=0."
            )
        encoding = encoding or Encoding.expected(shape[0], options["bins"])
        own |= {name: options[name] for name in ("hidden", "members")}
        return tabular(encoding, classes, **own)
    if module == "mlp":
        return networks.mlp(shape, classes, hidden=options["hidden"], **own)
    if module == "cnn":
        return networks.cnn(shape, classes, **own)
    raise ArgumentError(
        "NeuralClassifier: module must be 'mlp', 'cnn', 'linear', an nn.Module or a callable "
        f"of (input_shape, n_classes), got {module!r}."
    )


def reads_no_sparse_rows(module: Any, shape: tuple[int, ...]) -> ArgumentError:
    """Return the error for sparse rows of a network that reads dense ones."""
    own = isinstance(module, nn.Module)
    called = type(module).__name__ if own else f"module={module!r}"
    return ArgumentError(
        f"NeuralClassifier: X is a sparse matrix of shape {shape}, and of all "
        f"networks only module='mlp' reads sparse rows, got {called}. Use 'mlp', "
        "or give X.toarray() if that fits into memory."
    )


@torch.no_grad()
def check_outputs(
    network: nn.Module, some: Examples, loss: BatchLoss, classes: int, *, several: bool
) -> None:
    """See on a few rows that the module returns logits, and the loss a value for each.

    Raises
    ------
    ArgumentError
        If it does not. That it seems to return probabilities is a warning.
    """
    few = some.features
    logits = network.eval()(few)
    expected = (len(few), classes)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        received = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ArgumentError(
            "NeuralClassifier: module must return logits of shape (rows, classes) = "
            f"{expected}, got {received}."
        )
    beside = dict(some.beside)
    if loss.needs_features:
        with torch.enable_grad():
            _, hidden = forward(network, few, hidden=True)
        assert hidden is not None  # noqa: S101 - for mypy: it was asked for
        if not hidden.requires_grad:
            raise ArgumentError(
                "NeuralClassifier: this loss needs a hidden layer, and the module has none "
                "that is learnt. Use module='mlp' with at least one width in hidden, or 'cnn'."
            )
        beside["features"] = hidden
    losses = loss(logits, some.target, reduction="none", **beside)
    if losses.shape != (len(few),):
        raise ArgumentError(
            "NeuralClassifier: loss must return one value per example, shape "
            f"({len(few)},), got shape {tuple(losses.shape)}. Take no mean in it."
        )
    if several:
        return
    sums_to_one = (logits.sum(dim=1) - 1).abs().max() < 1e-3
    if bool(sums_to_one) and bool((logits >= 0).all()):
        warnings.warn(
            "NeuralClassifier: the module seems to end in a softmax: its outputs are "
            "probabilities. Luce applies the softmax itself; a second one makes training slow "
            "and the probabilities wrong. Remove the last layer.",
            UserWarning,
            stacklevel=5,
        )
