"""What the options become, of so many rows."""

import pytest

import luce
from luce.neural.options import resolve

AUTO = {"batch_size": "auto", "epochs": "auto", "schedule": "constant", "patience": 5}


def recipe(rows, **more):
    """Return how a network is trained on so many rows."""
    return resolve(luce.NeuralClassifier(**AUTO | more).get_params(), rows=rows)


@pytest.mark.parametrize(
    ("rows", "batch"),
    [
        (10, 32),
        (1_350, 32),
        (1_400, 64),
        (2_800, 128),
        (100_000, 128),
        (181_000, 128),
        (182_000, 256),
        (362_000, 256),
        (363_000, 512),
        (10**9, 512),
    ],
)
def test_batches_grow_with_the_rows(rows, batch):
    """The nearest power of two to a 30th, at most 128, or to a 1,000th, at most 512.

    1,358 / 30 and 2,715 / 30 are 32 and 64 times √2; 181,019 / 1,000 is 128 times √2.
    """
    assert recipe(rows).batch_size == batch


@pytest.mark.parametrize(
    ("more", "rows", "portions"),
    [
        ({}, 100_000, 1),
        ({}, 2**21 - 1, 1),
        ({}, 2**21, 2),
        ({}, 45_500_000, 43),
        ({"epochs": 1}, 45_500_000, 1),
        ({"schedule": "one_cycle"}, 45_500_000, 1),
        ({"patience": None}, 45_500_000, 1),
    ],
)
def test_only_passes_over_very_many_rows_are_cut_and_only_by_auto(more, rows, portions):
    """Below 2,097,152 rows, or where epochs or a schedule say how long, an epoch is a pass."""
    assert recipe(rows, **more).portions == portions
