"""Every kernel under a sanitizer: ``python -m tests.kernels.cuda.sanitize [unguarded|native]``.

With ``native`` the kernels are only run, on a GPU: that is for NVIDIA's compute-sanitizer, which
watches the process. Else they are interpreted under Triton-viz's. It proves for each access, over
all programs at once, that its offsets lie within the tensor. An access that does not is an error
with its place.
"""

import sys

import numpy as np
import torch


def to_the_end(x):
    """Return the memory of a tensor from its first element to the end of what it is cut out of.

    The sanitizer takes tensors for contiguous.
    """
    if x.is_contiguous():
        return x
    length = x.untyped_storage().nbytes() // x.element_size() - x.storage_offset()
    return x.as_strided((length,), (1,))


def sanitized():
    """Let each kernel be looked at when it is started; return the names of those that were."""
    import triton_viz
    from triton_viz.clients import Sanitizer

    from luce.kernels.cuda import blocks, heads, scaling

    names = set()

    def launch(function, programs, _like, *arguments, warps, **constants):
        names.add(f"{function.fn.__module__.rpartition('.')[2]}.{function.fn.__name__}")
        arguments = [to_the_end(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        traced = triton_viz.trace(client=Sanitizer(abort_on_error=True))(function)
        traced[(programs,)](*arguments, num_warps=warps, **constants)

    for module in (blocks, heads, scaling):
        module.launch = launch
    return names


def main(arguments):
    """Call what starts every kernel; or, with "unguarded", a kernel without a mask instead."""
    from tests.kernels.cuda.calls import SHAPES, calls

    # One block and a rest, several blocks with a rest, few classes, maps: small, as it is slow.
    SHAPES.clear()
    SHAPES.update({"rows": (2, 130), "long rows": (2, 9_000), "few": (70, 10), "maps": (2, 33, 70)})
    if arguments == ["native"]:
        if torch.cuda.is_available():
            torch.set_default_device("cuda")
        for call in calls(thorough=False).values():
            call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return
    names = sanitized()
    if arguments == ["unguarded"]:
        from luce.kernels.cuda.scaling import scale_kernel

        x = torch.zeros(100)
        sys.modules["luce.kernels.cuda.scaling"].launch(
            scale_kernel, 1, x, x, x[:1], 101, BLOCK=128, warps=1
        )
        return
    with np.errstate(all="ignore"):
        for call in calls(thorough=False).values():
            call()
    sys.stdout.write(" ".join([str(len(names)), *sorted(names)]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
