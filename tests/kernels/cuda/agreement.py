"""A loss of the kernels beside the reference's in float64: values and gradients, both ways."""

import torch

from luce.kernels import reference
from tests.interpreter import DEVICE
from tests.kernels.cuda.guard import Guard, guarded


def wide(value):
    """Return tensors in float64 on the CPU."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.cpu().double() if value.is_floating_point() else value.cpu()


def compare(found, truth, dtype, rounded=False):
    """Whether errors are a few roundings of what is largest; the truth is float64 itself.

    ``rounded`` says that logits have the dtype, so whatever comes of them is as exact as that.
    """
    roundings = 40 if dtype == torch.float64 else 16 if rounded else 6
    for result, expected in zip(found, truth, strict=True):
        assert (result is None) == (expected is None)
        if result is None:
            continue
        of = dtype if rounded else result.dtype
        ours, exact = result.cpu().double(), expected.detach()
        odd = ~exact.isfinite()
        assert torch.equal(ours[odd].nan_to_num(7.0), exact[odd].nan_to_num(7.0))
        if odd.all():
            continue
        size = max(float(exact[~odd].abs().max()), 1e-3)
        assert float((ours - exact)[~odd].abs().max()) <= roundings * torch.finfo(of).eps * size


def agree(name, given, wants=(True,), lse=True):
    """Compare a loss, log-sum-exps and gradients, forwards and backwards, with the reference's.

    All buffers, those that kernels make too, have bands around them.
    """
    from luce.kernels import cuda

    dtype, rounded = given[0].dtype, name.startswith("linear")
    ours = given._replace(
        **{
            n: guarded(t.to(DEVICE))
            for n, t in given._asdict().items()
            if isinstance(t, torch.Tensor)
        }
    )
    exact = type(given)(*(wide(v) for v in given))
    wants = wants if given.options.reduction != "none" else (False,) * len(wants)
    with Guard() as guard:
        loss, sums, gradients = getattr(cuda, name)(ours, lse, wants)
    guard.check()
    truth = getattr(reference, name)(exact, lse, wants)
    compare([loss, sums, *gradients], [*truth[:2], *truth[2]], dtype, rounded)
    grads = [
        torch.rand_like(truth[0]) - 0.3,
        None if truth[1] is None else torch.rand_like(truth[1]),
    ]
    for incoming in (grads, [None, grads[1]] if lse else [grads[0], None]):
        on_device = [None if g is None else g.to(loss.dtype).to(DEVICE) for g in incoming]
        all_wanted = tuple(t is not None for t in given[: len(wants)])
        with Guard() as guard:
            back = getattr(cuda, f"{name}_backward")(ours, all_wanted, *on_device)
        guard.check()
        exactly = [None if g is None else g.cpu().double() for g in on_device]
        expected = getattr(reference, f"{name}_backward")(exact, all_wanted, *exactly)
        compare(back, expected, dtype, rounded)
