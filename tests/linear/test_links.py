"""What the links say of logits: how far a row is on its side of each boundary."""

import numpy as np
import pytest
import torch

from luce.linear.links import margins


@pytest.mark.parametrize(("link", "K"), [("softmax", 4), ("sigmoid", 1), ("sigmoid", 3)])
def test_margins_are_those_of_a_loop(link, K):
    """Of a softmax the own logit over the largest other; of a sigmoid each logit, with its sign."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(50, K))
    y = rng.integers(0, max(K, 2), 50)
    wanted = []
    for z, own in zip(Z, y, strict=True):
        if link == "softmax":
            wanted.append([z[own] - max(np.delete(z, own))])
        elif K == 1:
            wanted.append([z[0] if own == 1 else -z[0]])
        else:
            wanted.append([z[k] if k == own else -z[k] for k in range(K)])
    found = margins(torch.from_numpy(Z), torch.from_numpy(y), link)
    np.testing.assert_array_equal(found.numpy(), wanted)
