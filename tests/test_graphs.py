"""CUDA graphs on a device that is not there: each call does the work once, captured or not."""

import gc

import pytest
import torch

from luce import graphs
from luce.graphs import Captured
from tests.gpu import without_waits
from tests.pretend import DEVICE, Pretend, Recording


@pytest.fixture
def device(monkeypatch):
    """Return a device that is not there, and captures."""
    monkeypatch.setattr(graphs, "captures", lambda device: device == DEVICE)
    monkeypatch.setattr(graphs, "Recording", Recording)
    with Pretend() as device:
        yield device


def numbers(device, *values):
    return device.put(torch.tensor(values))


def test_each_call_has_its_effects_once_and_its_own_result(device):
    """Plain, captured or replayed; Python runs no more once it is captured."""
    total, runs = numbers(device, 0.0), []

    def add(x):
        runs.append(1)
        total.add_(x)
        return total * 2

    captured = Captured(add)
    for n in range(1, 7):
        result = captured(numbers(device, float(n)))
        assert device.take(total).item() == n * (n + 1) / 2
        assert device.take(result).item() == n * (n + 1)
        assert len(runs) == min(n, 3)


def test_each_shape_has_a_graph_of_its_own(device):
    """In whatever order they come."""
    captured = Captured(lambda x: x.sum())
    for n in [3, 3, 5, 3, 3, 5, 5, 3, 5]:
        x = torch.rand(n)
        assert device.take(captured(device.put(x))) == x.sum()


def test_a_result_holds_until_the_next_call(device):
    """And is then written over: who wants to keep it makes a copy."""
    captured = Captured(lambda x: x * 2)
    results = [captured(numbers(device, float(n))) for n in range(6)]
    assert results[3] is results[5]
    assert device.take(results[3]).item() == 10


def test_random_numbers_go_on(device):
    """They are those of plain calls."""
    plain = torch.Generator().manual_seed(0)
    wanted = [torch.rand(2, generator=plain) for _ in range(5)]
    captured = Captured(torch.rand_like)
    torch.manual_seed(0)
    for each in wanted:
        assert torch.equal(device.take(captured(numbers(device, 0.0, 0.0))), each)


def test_what_waits_is_no_graph(device):
    """The stand-in finds what CUDA would refuse."""
    captured = Captured(lambda x: x * float(x.sum()))
    for _ in range(2):
        captured(numbers(device, 1.0))
    with pytest.raises(AssertionError, match="captured waits"):
        captured(numbers(device, 1.0))


def test_a_copy_from_the_host_is_no_graph(device):
    """Where the host's memory is not pinned, CUDA refuses that too; and it would be what it was."""
    captured = Captured(lambda x: x + torch.ones(1).to(DEVICE, non_blocking=True))
    for _ in range(2):
        captured(numbers(device, 1.0))
    with pytest.raises(AssertionError, match="between the host and the device"):
        captured(numbers(device, 1.0))


def test_what_is_gone_is_found(device):
    """So does it what a graph would read after it has been freed."""
    other = [numbers(device, 1.0)]
    captured = Captured(lambda x: x + other[0])
    for _ in range(4):
        captured(numbers(device, 1.0))
    other.clear()
    gc.collect()
    with pytest.raises(AssertionError, match="is gone"):
        captured(numbers(device, 1.0))


def test_the_cpu_captures_nothing():
    """A call is a call."""
    captured = Captured(lambda x: x * 2)
    results = [captured(torch.tensor([float(n)])) for n in range(6)]
    assert [r.item() for r in results] == [0, 2, 4, 6, 8, 10]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make gpu")
def test_cuda_graphs_do_what_calls_do():
    """Effects once, random numbers, shapes by turns; and nothing waits for the device."""
    device = torch.device("cuda")
    places = [torch.zeros(3, device=device), torch.zeros(3, device=device)]

    def function(place):
        def step(x):
            place.add_(torch.nn.functional.dropout(x, 0.5).sum())
            return place * 2

        return step

    rows = [torch.rand(n, 4, device=device) for n in (8, 8, 5, 8, 8, 5, 5, 8, 5)]
    found = []
    for call in (function(places[0]), Captured(function(places[1]))):
        torch.manual_seed(0)
        for x in rows:
            call(x)
        before = torch.cuda.get_rng_state()
        with without_waits():
            last = call(rows[0]).clone()
        found.append((last, before))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
