"""Plans of linear heads: the scheme that the model finds fastest, and what it takes."""

import itertools
import re
from pathlib import Path

import pytest
import torch

from tests.interpreter import CUDA

pytestmark = pytest.mark.parametrize("backend", [CUDA])
MIB = 2**20
BF16 = torch.bfloat16


def planned(N, D, K, budget, dtype=BF16, wants=(True, True, False)):
    from luce.kernels.cuda.plans import Problem, plan

    return plan(Problem(N, K, (D,), dtype, wants, 4), budget)


@pytest.mark.parametrize(
    ("N", "D", "K", "budget", "scheme", "most"),
    [
        (8192, 4096, 128_256, 2_240 * MIB, "rows", 37),  # all logits at once
        (8192, 4096, 128_256, 1024 * MIB, "classes", 45),
        (8192, 4096, 128_256, 256 * MIB, "classes", 49),
        (8192, 4096, 128_256, 64 * MIB, "both", 61),
        (65_536, 4096, 128_256, 4_300 * MIB, "rows", 300),
        (60_000, 784, 10, 64 * MIB, "rows", 1),
        (1_000_000, 1024, 1000, 256 * MIB, "rows", 20),
    ],
)
def test_the_scheme_for_a_shape_and_a_budget(N, D, K, budget, scheme, most, backend):
    """What the model says, in milliseconds of an H200, and that it fits."""
    found = planned(N, D, K, budget)
    assert found.scheme == scheme
    assert found.bytes <= budget
    assert found.seconds * 1e3 <= most


def test_a_larger_budget_is_never_slower(backend):
    """By the model, over budgets from kilobytes to gigabytes."""
    for shape in ((8192, 4096, 128_256), (512, 64, 1_000_000), (60_000, 784, 10)):
        seconds = [planned(*shape, budget=2**i).seconds for i in range(22, 36)]
        for before, after in itertools.pairwise(seconds):
            assert after <= before * 1.02


def test_tiles_have_a_row_and_a_class_at_least(backend):
    """However few bytes there are."""
    for wants in ((True, True, True), (False, False, False), (True, False, False)):
        found = planned(100, 8, 50, 1, wants=wants)
        assert found.tile_rows >= 1
        assert found.tile_classes >= 1
        assert found.place >= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_million_classes_fit(dtype, backend):
    """In 64 MiB, with any of the gradients."""
    for wants in ((True, True, True), (True, True, False), (False, False, False)):
        found = planned(256, 128, 1_000_000, 64 * MIB, dtype, wants)
        assert found.bytes <= 64 * MIB


def test_the_docs_table_of_memory_is_what_plans_say(backend):
    """By shape: what is given, the budget by default, the scheme, and what is held."""
    from luce.kernels.checks import bytes_allowed

    page = (Path(__file__).parents[3] / "docs/gpus.md").read_text(encoding="utf-8")
    shapes = re.findall(r"^\| ([\d,]+) × ([\d,]+) × ([\d,]+) \| (.*) \|$", page, re.MULTILINE)
    assert len(shapes) == 6
    for *shape, rest in shapes:
        N, D, K = (int(n.replace(",", "")) for n in shape)
        x, w = (torch.empty(n, D, device="meta", dtype=BF16) for n in (N, K))
        budget = bytes_allowed("linear_cross_entropy", None, x, w)
        found = planned(N, D, K, budget)
        tile = found.tile_rows if found.scheme == "rows" else found.tile_classes
        sizes = [x.nbytes + w.nbytes, 2 * N * K, budget, found.bytes]
        given, logits, most, held = (f"{size / MIB:,.0f}" for size in sizes)
        assert rest == f"{given} | {logits} | {most} | {found.scheme} | {tile:,} | {held}"
