"""The kernels in Triton where there is no GPU: interpreted, with tensors on the CPU."""

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
MISSING = None if find_spec("triton") else "Triton is not installed (pip install triton==3.7.1)"

# The backend "cuda" as a parameter of tests.
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(MISSING is not None, reason=str(MISSING)))


def interpret():
    """Have kernels interpreted from now on, unless a GPU can run them.

    Triton looks at this when functions are decorated, its own too: before it is first imported.
    """
    if not GPU:
        os.environ.setdefault("TRITON_INTERPRET", "1")


def into_wide(a, b, out, *, add):
    """Do what ``out_dtype`` does, which PyTorch has for CUDA alone, with the CPU's products."""
    product = torch.mm(a.to(out.dtype), b.to(out.dtype))
    out.add_(product) if add else out.copy_(product)


@pytest.fixture(autouse=True)
def interpreted(request, monkeypatch):
    """Where a test has the backend "cuda", let that take the tensors that tests have."""
    asked = getattr(getattr(request.node, "callspec", None), "params", {}).get("backend") == "cuda"
    if GPU or not asked:
        yield
        return
    from luce.kernels import SETS, KernelSet, cuda
    from luce.kernels.cuda import products

    monkeypatch.setitem(SETS, "cuda", KernelSet(lambda: cuda, device="cpu"))
    monkeypatch.setattr(products, "_into_wide", into_wide)
    with np.errstate(all="ignore"):  # where GPUs say nothing, NumPy warns
        yield
