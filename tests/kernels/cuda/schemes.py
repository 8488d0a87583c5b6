"""How linear heads are cut into tiles, settled by a test instead of by the model of costs."""

from luce.kernels.cuda import linear, linear_distillation
from luce.kernels.cuda.plans import Plan


def settle(monkeypatch, name, rows, classes, N, K):
    """Settle a scheme for N rows of K classes, and how many rows or classes a tile has."""
    place = {"rows": rows * K, "classes": N * classes, "both": max(rows * K, N * classes)}[name]
    tiles = Plan(name, rows, classes, place, 0, 0.0)
    for module in (linear, linear_distillation):
        monkeypatch.setattr(module, "plan", lambda _problem, _budget: tiles)
