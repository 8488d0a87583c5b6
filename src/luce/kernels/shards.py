"""Classes split over the ranks of a process group: what the ranks tell each other, and when.

Each rank holds some of the classes, in the order of the ranks. A loss costs three exchanges: a few
numbers that say how the classes are split and that all ranks were asked the same; the largest logit
of each row; and sums of each row, relative to that. They are float64. A fourth adds up the gradient
of the features, which are the same on every rank.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from luce.errors import ArgumentError, BackendError, ShapeError
from luce.kernels.arrays import has_tangent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import ShardedLinearCrossEntropy

__all__ = [
    "Shard",
    "agreed",
    "broadcast",
    "copied",
    "each_rank",
    "group_name",
    "highest",
    "owned",
    "place",
    "summed",
    "total",
]

_REDUCTIONS = ("none", "sum", "mean")
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Checksums are kept exact in float64.
_EXACT = 2**52 - 1


class Shard(NamedTuple):
    """Where a rank's classes are among all of them.

    Attributes
    ----------
    start
        How many classes the ranks before have.
    all_classes
        How many all ranks have.
    weight_sum
        The sum of all their class weights; ``all_classes`` without any.
    """

    start: int
    all_classes: int
    weight_sum: float


def group_name(operator: str, group: Any, tensors: Sequence[Tensor | None]) -> str:
    """Return the name that PyTorch knows a process group by.

    Raises
    ------
    ArgumentError
        If it is no process group that this process is in.
    BackendError
        If one of the tensors takes part in what exchanges between processes cannot follow.
    """
    if not dist.is_available():
        raise BackendError(
            f"{operator}: process_group needs torch.distributed, which this build of PyTorch lacks."
        )
    if not isinstance(group, dist.ProcessGroup):
        raise ArgumentError(
            f"{operator}: process_group must be a torch.distributed.ProcessGroup that this process "
            f"is in, got {group!r}. After init_process_group(), torch.distributed.group.WORLD is "
            "that of all processes; mesh.get_group(name) that of a DeviceMesh."
        )
    compiling = torch.compiler.is_compiling()
    transformed = not compiling and torch._C._are_functorch_transforms_active()  # noqa: SLF001
    if transformed or any(t is not None and has_tangent(t) for t in tensors):
        raise BackendError(
            f"{operator}: process_group has no forward-mode derivative and takes part in no "
            "transform of torch.func. Use autograd, or leave process_group out."
        )
    return str(group.group_name)


def _group(name: str) -> Any:
    resolve: Any = dist.distributed_c10d._resolve_process_group  # type: ignore[attr-defined]  # noqa: SLF001
    return resolve(name)


def place(group: str) -> tuple[int, int]:
    """Return this process's rank in a group, and how many ranks there are."""
    return dist.get_rank(_group(group)), dist.get_world_size(_group(group))


def each_rank(values: Tensor, group: str) -> Tensor:
    """Return what each rank has, stacked in the order of the ranks."""
    found = [torch.empty_like(values) for _ in range(dist.get_world_size(_group(group)))]
    dist.all_gather(found, values, group=_group(group))
    return torch.stack(found)


def broadcast(values: Tensor, group: str) -> None:
    """Put rank 0's numbers in the place of a tensor's."""
    here = values.contiguous()
    dist.broadcast(here, group_src=0, group=_group(group))
    if here is not values:
        values.copy_(here)


def agreed(given: ShardedLinearCrossEntropy, kernels: str, *, want_x: bool) -> Shard:
    """Return where this rank's classes are, once all ranks are known to be asked the same.

    Where they are not, each of them raises: otherwise they would wait for each other, or compute
    something that nobody asked for.

    Parameters
    ----------
    given
        What the loss is computed of.
    kernels
        Which kernel set computes.
    want_x
        Whether the features' gradient is computed too.
    """
    name, group, x = "linear_cross_entropy", _group(given.group), given.input
    weight = given.weight
    weight_sum = float(len(given.linear_weight) if weight is None else weight.double().sum())
    told = {"classes": float(len(given.linear_weight)), "weight_sum": weight_sum}
    told |= _described(given, kernels, want_x)
    mine = torch.tensor(list(told.values()), dtype=torch.float64, device=x.device)
    found = each_rank(mine, given.group)
    columns = dict(zip(told, found.t().tolist(), strict=True))
    counts, sums = columns.pop("classes"), columns.pop("weight_sum")
    for what, values in columns.items():
        odd = next((rank for rank, value in enumerate(values) if value != values[0]), None)
        if odd is not None:
            raise ArgumentError(
                f"{name}: {what} must be the same on every rank of process_group; on rank {odd} it "
                "is another than on rank 0. Only linear_weight, linear_bias, weight and target "
                "probabilities are split, by classes."
            )
    if not sum(counts):
        raise ShapeError(
            f"{name}: there must be at least one class, got linear_weight of shape "
            f"{tuple(given.linear_weight.shape)} on every rank of process_group."
        )
    before = counts[: dist.get_rank(group)]
    return Shard(int(sum(before)), int(sum(counts)), float(sum(sums)))


def _described(given: ShardedLinearCrossEntropy, kernels: str, want_x: bool) -> dict[str, float]:
    """Return what has to be the same on every rank, in numbers."""
    x, target, o = given.input, given.target, given.options
    checksum = 0
    if not target.is_floating_point():
        places = torch.arange(1, target.numel() + 1, device=target.device)
        checksum = int(((target + 1) * places).sum()) & _EXACT
    return {
        "the number of examples": len(x),
        "the number of features": x.shape[1],
        "the dtype of input": _DTYPES.index(x.dtype) if x.dtype in _DTYPES else len(_DTYPES),
        "whether input has a gradient": want_x,
        "whether there is a class weight": given.weight is not None,
        "whether there is a sample_weight": given.sample_weight is not None,
        "whether target holds probabilities": target.is_floating_point(),
        "target": checksum,
        "reduction": _REDUCTIONS.index(o.reduction),
        "ignore_index": o.ignore_index & _EXACT,
        "label_smoothing": o.label_smoothing,
        "temperature": o.temperature,
        "z_loss": o.z_loss,
        "softcap": o.softcap,
        "the backend": zlib.crc32(kernels.encode()),
    }


def owned(target: Tensor, shard: Shard, classes: int, ignore_index: int) -> Tensor:
    """Return class indices as a shard of so many classes sees them.

    −1 are the ignored, and ``classes`` those that another rank has.
    """
    here = target - shard.start
    here = here.where((here >= 0) & (here < classes), classes)
    return here.where(target != ignore_index, -1)


def highest(values: Tensor, group: str) -> Tensor:
    """Return the largest of each row over the ranks; NaN counts as −Inf."""
    result = values.detach().double().nan_to_num(-torch.inf, torch.inf, -torch.inf)
    dist.all_reduce(result, dist.ReduceOp.MAX, group=_group(group))
    return result


def total(values: Tensor, group: str) -> Tensor:
    """Return the sums over the ranks, of values that are overwritten with them."""
    dist.all_reduce(values, dist.ReduceOp.SUM, group=_group(group))
    return values


class _Summed(torch.autograd.Function):
    """A sum over the ranks. Each rank's part has the sum's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        ctx.group = group
        return total(x.clone(memory_format=torch.contiguous_format), group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return copied(grad, ctx.group), None


class _Copied(torch.autograd.Function):
    """What is the same on every rank. Its gradient is the sum of what the ranks make of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return summed(grad, ctx.group), None


def summed(x: Tensor, group: str) -> Tensor:
    """Return the sum over the ranks, differentiable as often as asked for."""
    result: Tensor = _Summed.apply(x, group)  # type: ignore[no-untyped-call]
    return result


def copied(x: Tensor, group: str) -> Tensor:
    """Return a tensor that is the same on every rank, for each to go on with its own classes."""
    result: Tensor = _Copied.apply(x, group)  # type: ignore[no-untyped-call]
    return result
