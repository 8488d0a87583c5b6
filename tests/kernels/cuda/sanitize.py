"""Every kernel under Triton-viz's sanitizer: ``python -m tests.kernels.cuda.sanitize``.

It proves for each access, over all programs at once, that its offsets lie within the tensor. An
access that does not is an error with its place.
"""

import sys

import numpy as np
import torch
import triton_viz
from triton_viz.clients import Sanitizer


def sanitized():
    """Let each kernel be looked at when it is started; return the names of those that were."""
    from luce.kernels.cuda import blocks, compile, heads, scaling

    names = set()

    def launch(function, programs, _like, *arguments, warps, **constants):
        names.add(f"{function.fn.__module__.rpartition('.')[2]}.{function.fn.__name__}")
        traced = triton_viz.trace(client=Sanitizer(abort_on_error=True))(function)
        traced[(programs,)](*arguments, num_warps=warps, **constants)

    for module in (blocks, compile, heads, scaling):
        module.launch = launch
    return names


def main(unguarded):
    """Call what starts every kernel; with an argument, a kernel without a mask instead."""
    from tests.kernels.cuda.calls import SHAPES, calls

    names = sanitized()
    # One block and a rest, several blocks with a rest, few classes, maps: small, as it is slow.
    SHAPES.clear()
    SHAPES.update({"rows": (2, 130), "long rows": (2, 9_000), "few": (70, 10), "maps": (2, 33, 70)})
    if unguarded:
        from luce.kernels.cuda.scaling import scale_kernel

        x = torch.zeros(100)
        sys.modules["luce.kernels.cuda.scaling"].launch(
            scale_kernel, 1, x, x, x[:1], 101, BLOCK=128, warps=1
        )
        return
    with np.errstate(all="ignore"):
        for name, call in calls(thorough=False).items():
            print(name, flush=True)
            call()
    print(len(names), *sorted(names))


if __name__ == "__main__":
    main(sys.argv[1:])
