"""What computes: one kernel set for each kind of device, the same function names in each.

``operators`` has each operator once: what it takes, what its results look like, where its
gradients come from. ``reference`` is plain PyTorch, the specification. ``cpu`` is Numba, and
``cuda`` is Triton.
"""

from luce.kernels.sets import SETS, KernelSet, available

__all__ = ["SETS", "KernelSet", "available"]
