"""More than 2³¹ elements: indices do not wrap.

Memory that is asked for and never touched costs nothing: each operator gets a tensor of that size,
and its kernel is run over the last of its work alone.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import luce
from luce.kernels.cpu import layout

ROWS, TILES = 1_000, 50


@pytest.fixture
def only_the_end(monkeypatch):
    """Let a kernel run over the last two units of its work alone."""

    def split(work, units, _size):
        work(units - 2, units)

    monkeypatch.setattr(layout, "split", split)


def untouched(*shape):
    """Return a bfloat16 tensor of zeros whose pages are not there yet."""
    zeros = torch.from_numpy(np.zeros(shape, np.int16)).view(torch.bfloat16)
    assert zeros.numel() > 2**31
    return zeros


def rows_of(K):
    """Return that many rows of K classes, with numbers in the last two."""
    torch.manual_seed(0)
    x = untouched(2**31 // K + 100, K)
    x[-2:] = torch.randn(2, K)
    return x


@pytest.mark.parametrize("K", [ROWS, TILES])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_softmax(name, K, only_the_end):
    """Softmax and its relatives read and write the last rows where these are."""
    x = rows_of(K)
    ours = getattr(luce, name)(x, 1)[-2:]
    peer = getattr(torch, name)(x[-2:].float(), 1)
    torch.testing.assert_close(ours.float(), peer, rtol=1e-2, atol=1e-6)


def test_softmax_of_maps(only_the_end):
    """Classes that are not the last dimension are found beyond 2³¹ too."""
    torch.manual_seed(0)
    x = untouched(2, 500, 2_200_000)
    x[1, :, -10:] = torch.randn(500, 10)
    ours = luce.softmax(x, 1)[1, :, -10:]
    torch.testing.assert_close(ours.float(), x[1, :, -10:].float().softmax(0), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("K", [ROWS, TILES])
def test_cross_entropy(K, only_the_end):
    """Loss and gradient of the last rows are theirs."""
    x = rows_of(K).requires_grad_()
    y = torch.from_numpy(np.zeros(len(x), np.int64))
    y[-2:] = torch.tensor([3, K - 1])
    loss = luce.cross_entropy(x, y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    last = x[-2:].detach().float().requires_grad_()
    peer = F.cross_entropy(last, y[-2:], reduction="none")
    rows = luce.cross_entropy(x.detach(), y, reduction="none")[-2:]
    torch.testing.assert_close(rows.float(), peer.detach(), rtol=1e-2, atol=0)
    (expected,) = torch.autograd.grad(peer.sum(), last)
    torch.testing.assert_close(gradient[-2:].float(), expected, rtol=1e-2, atol=1e-6)


def test_nll_loss():
    """The log-probability of the last row's target is the one that counts."""
    x = rows_of(ROWS)
    y = torch.full((len(x),), -100)
    y[-1] = 7
    assert luce.nll_loss(x, y) == -x[-1, 7]
