"""What is compiled, and compiling it beforehand."""

import importlib
import sys

import numpy as np
import pytest
import torch

import luce
from luce import compiling
from luce.linear.regression import SoftmaxRegression


def signatures():
    """Return the dtypes that each kernel has been called with in this process."""
    return {name: set(kernel.signatures) for name, kernel in compiling._kernels()}


def use(classes, dtype):
    """Fit a regression that is large enough for kernels, and go through the losses."""
    random = np.random.default_rng(0)
    X = random.normal(size=(12_000, 20)).astype(dtype)
    y = random.integers(0, classes, len(X))
    X[:, 0] += y
    SoftmaxRegression(max_iter=3).fit(X, y)
    x = torch.from_numpy(np.ones((8_000, classes), dtype)).requires_grad_()
    target = torch.from_numpy(y[:8_000])
    luce.cross_entropy(x, target, backend="cpu").backward()
    luce.softmax(x, 1, backend="cpu").sum().backward()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classes", [2, 3, 10, 70])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_warmed_up_is_what_is_used(classes, dtype):
    """After the first calls of warm_up, neither a fit nor a loss compiles anything."""
    for group in compiling._GROUPS:
        compiling._compile(group)
    before = signatures()
    use(classes, dtype)
    new = {name: found - before[name] for name, found in signatures().items()}
    assert not any(new.values()), {name: found for name, found in new.items() if found}


def test_what_is_compiled_is_counted(monkeypatch):
    """Each kernel of the warmed-up groups is on disk, in a folder that is named."""
    monkeypatch.setattr(compiling, "_GROUPS", {"sparse rows": compiling._GROUPS["sparse rows"]})
    told = []
    found = compiling.warm_up(lambda name, seconds: told.append((name, seconds > 0)), processes=1)
    assert told == [("sparse rows", True)]
    assert found == compiling.compiled()
    assert found.kernels["sparse._sparse_rows"] >= 2
    assert found.folder


def test_no_two_groups_compile_the_same_kernel(monkeypatch):
    """Groups compile side by side, and two processes must not write one kernel's index."""
    owners = {}
    for group, calls in compiling._GROUPS.items():
        called = set()
        for name, kernel in compiling._kernels():
            home = importlib.import_module(kernel.py_func.__module__)

            def noted(*arguments, name=name, kernel=kernel, called=called):
                called.add(name)
                return kernel(*arguments)

            for module in list(sys.modules.values()):
                if getattr(module, kernel.py_func.__name__, None) is kernel and module is not home:
                    monkeypatch.setattr(module, kernel.py_func.__name__, noted)
            monkeypatch.setattr(home, kernel.py_func.__name__, noted)
        calls()
        monkeypatch.undo()
        assert called
        for name in called:
            assert name not in owners, f"{name}: {owners[name]}, {group}"
            owners[name] = group
