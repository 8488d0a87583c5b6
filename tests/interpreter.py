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


def converting(of_triton):
    """Return how the interpreter converts floats, with float32 rounded to bfloat16 as GPUs do.

    It cuts them off.
    """

    def convert(given, from_, to, mode):
        if (from_.name, to.name) != ("fp32", "bf16"):
            return of_triton(given, from_, to, mode)
        rounded = torch.from_numpy(np.array(given, dtype=np.float32)).to(torch.bfloat16)
        return rounded.view(torch.int16).numpy().view(np.uint16)

    return convert


@pytest.fixture
def fused(monkeypatch):
    """Fuse each product with the sum or difference that it goes into, as GPUs' compilers may.

    The product is then not rounded. In the interpreter it is, always.
    """
    if GPU:
        return
    from triton.runtime.interpreter import InterpreterBuilder

    def multiply(builder, a, b):
        product = builder.binary_op(a, b, np.multiply)
        if product.data.dtype == np.float32:
            product.set_attr("exact", np.multiply(a.data, b.data, dtype=np.float64))
        return product

    def into(operation):
        def of(builder, a, b):
            x, y = (t.attr.get("exact") for t in (a, b))
            if x is None and y is None:
                return builder.binary_op(a, b, operation)
            left, right = (x, b.data) if x is not None else (a.data, y)
            found = builder.binary_op(a, b, operation)
            found.data = operation(left, right, dtype=np.float64).astype(np.float32)
            return found

        return of

    monkeypatch.setattr(InterpreterBuilder, "create_fmul", multiply)
    monkeypatch.setattr(InterpreterBuilder, "create_fadd", into(np.add))
    monkeypatch.setattr(InterpreterBuilder, "create_fsub", into(np.subtract))


@pytest.fixture(autouse=True)
def interpreted(request, monkeypatch):
    """Where a test has the backend "cuda", let that take the tensors that tests have."""
    asked = getattr(getattr(request.node, "callspec", None), "params", {}).get("backend") == "cuda"
    if GPU or not asked:
        yield
        return
    from triton.runtime import interpreter

    from luce.kernels import SETS, KernelSet, cuda
    from luce.kernels.cuda import products

    monkeypatch.setattr(interpreter, "_convert_float", converting(interpreter._convert_float))
    monkeypatch.setitem(SETS, "cuda", KernelSet(lambda: cuda, device="cpu"))
    monkeypatch.setattr(products, "_into_wide", into_wide)
    with np.errstate(all="ignore"):  # where GPUs say nothing, NumPy warns
        yield
