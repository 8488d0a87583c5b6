"""How examples × classes lie in memory, and how they are cut into blocks, one for a program.

Where the classes of an example are neighbours and many, a program takes one example: all of its
classes at once, in registers, or blocks of them in a loop. Where they are few, or lie apart, it
takes several examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from luce.kernels.cuda.arithmetic import WORKING, wide
from luce.kernels.cuda.compile import launch, part

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Blocks", "along", "blocks_of", "examples", "strides"]

# Up to so many classes are held in registers at once. More spill: seen in what ptxas makes of them.
_WHOLE = {torch.float32: 16_384, torch.float64: 2_048}
# Longer rows are read twice, in blocks of so many classes. Where more than a logit is kept of each,
# half as many are a block, of as many warps, and no more are held at once.
_BLOCK = {torch.float32: 8_192, torch.float64: 1_024}
# With at most so many classes, a program takes several examples.
_FEW = 128
# Where neighbouring examples are neighbours in memory, a program takes so many: 128 bytes in half
# precision, which is what memory hands out at once.
_BESIDE = 64
_ELEMENTS = {torch.float32: 2_048, torch.float64: 1_024}  # of a block of several examples
# Elements of a block for each warp: of one example, of several.
_OF_WARP = {torch.float32: (512, 256), torch.float64: (128, 128)}
_WARPS = 16  # AMD's wavefronts of 64 allow no more


@dataclass(frozen=True)
class Blocks:
    """How work is cut.

    Attributes
    ----------
    outer, classes, span
        Examples are outer × span.
    examples, at_once
        How many examples and classes a block has.
    warps
        How many warps a program has.
    dtype
        What is computed in.
    """

    outer: int
    classes: int
    span: int
    examples: int
    at_once: int
    warps: int
    dtype: torch.dtype

    @property
    def whole(self) -> bool:
        """Whether a block has all classes."""
        return self.at_once >= self.classes

    def start(self, kernel: Any, like: Tensor, *arguments: Any, **constants: Any) -> None:
        """Start a kernel: its arguments, then sizes, then constants."""
        launch(
            kernel,
            self.outer * -(-self.span // self.examples),
            like,
            *arguments,
            self.classes,
            self.span,
            EXAMPLES=self.examples,
            BLOCK=self.at_once,
            WIDE=WORKING[self.dtype],
            warps=self.warps,
            **constants,
        )


def along(x: Tensor, dim: int) -> Tensor:
    """Return x as outer × classes × span; a copy only where its strides ask for one."""
    if dim == x.ndim - 1:
        rows = x.flatten(0, -2) if x.ndim > 1 else x.unsqueeze(0)
        return rows.t().unsqueeze(0)
    x = x.flatten(dim + 1)
    return x.flatten(0, dim - 1) if dim else x.unsqueeze(0)


def strides(x: Tensor) -> tuple[int, int, int]:
    """Return how far apart outer indices, neighbouring examples and neighbouring classes lie."""
    outer, classes, span = (
        n if size > 1 else 0 for n, size in zip(x.stride(), x.shape, strict=True)
    )
    return outer, span, classes if x.shape[1] > 1 else 1


def blocks_of(x: Tensor, *, heavy: bool = False) -> Blocks:
    """Return blocks of what ``along`` returned; ``heavy`` if more than a logit is kept of each."""
    (outer, classes, span), dtype = x.shape, wide(x.dtype)
    few = _ELEMENTS[dtype]
    padded = triton.next_power_of_2(classes)
    beside = strides(x)[2] != 1
    if beside:
        examples = min(_BESIDE, triton.next_power_of_2(max(1, span)))
        at_once = min(padded, few // examples)
    elif classes <= _FEW:
        at_once = padded
        examples = min(few // padded, triton.next_power_of_2(max(1, span)))
    else:
        examples = 1
        most, block = _WHOLE[dtype], _BLOCK[dtype]
        if heavy:
            most = block = block // 2
        at_once = padded if padded <= most else block
    of_warp = _OF_WARP[dtype][examples > 1] // (1 + (heavy and examples == 1))
    warps = max(1, min(_WARPS, examples * at_once // of_warp))
    return Blocks(outer, classes, span, examples, at_once, warps, dtype)


@part
def examples(span, EXAMPLES: tl.constexpr):
    """Return a program's outer index, its examples in the span, and which of these there are."""
    program = tl.program_id(0)
    # There are fewer than 2³¹. ptxas divides 64 bits by a call, for which it puts registers aside.
    units = tl.cdiv(span, EXAMPLES)
    outer = program // units
    inner = (program - outer * units).to(tl.int64) * EXAMPLES + tl.arange(0, EXAMPLES)
    return outer.to(tl.int64), inner, inner < span
