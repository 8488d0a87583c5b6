"""A loss of the kernels beside the reference's in float64: values and gradients, both ways."""

import torch
import torch.nn.functional as F

from luce.kernels import reference
from luce.kernels.arguments import CrossEntropy, Distillation, LinearCrossEntropy
from tests.interpreter import DEVICE
from tests.kernels.cuda.guard import Guard, guarded

# Half precision is rounded once, from float32; exponentials in float64 are the interpreter's own.
ROUNDINGS = {torch.float64: 40, torch.float32: 6, torch.bfloat16: 2, torch.float16: 2}


def wide(value):
    """Return tensors in float64 on the CPU."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.cpu().double() if value.is_floating_point() else value.cpu()


def compare(found, truth, dtype, peers=None, logits=0.0, again=0.0):
    """Whether errors are a few roundings of what is largest; the truth is float64 itself.

    A head's logits are rounded, and so is what follows from them; how much that matters depends on
    how large they are. So PyTorch's own errors, of the same logits in the same dtype, are the
    measure there. Errors of a row are about one draw, and there are few rows, so beside those
    roundings ours may be four times as large by chance. A loss may be small where ``logits`` are
    large, and is no more exact than they are: roundings are those of the larger, in their dtype.
    ``again`` is the largest of logits that are made again for gradients, by products of other
    shapes: the log-sum-exp is of others, so a probability near 1 is off by their roundings.
    """
    for result, expected, peer in zip(found, truth, peers or [None] * len(truth), strict=True):
        assert (result is None) == (expected is None)
        if result is None:
            continue
        ours, exact = result.cpu().double(), expected.detach()
        odd = ~exact.isfinite()
        assert torch.equal(ours[odd].nan_to_num(7.0), exact[odd].nan_to_num(7.0))
        if odd.all():
            continue
        roundings, of = ROUNDINGS[result.dtype], result.dtype
        size = max(float(exact[~odd].abs().max()), logits, 1e-3)
        if peer is not None and result.dtype != dtype:
            roundings, of = 1, dtype
        most = roundings * torch.finfo(of).eps * size
        if peer is not None:
            most += 4 * float((peer.detach().double() - exact)[~odd].abs().max())
            if dtype in (torch.float32, torch.float64):  # where PyTorch's few errors are small
                most = max(most, 16 * torch.finfo(of).eps * size)
        most += 2 * torch.finfo(dtype).eps * again * size
        assert float((ours - exact)[~odd].abs().max()) <= most


def of_logits(given):
    """Return a head's loss as one of logits that are there, and the name of that.

    As PyTorch's users compute it, with logits of the features' dtype.
    """
    if isinstance(given, LinearCrossEntropy):
        z = F.linear(given.input, given.linear_weight, given.linear_bias)
        rest = given.target, given.weight, given.sample_weight, given.options
        return "cross_entropy", CrossEntropy(z, *rest)
    z = F.linear(given.student, given.student_weight, given.student_bias)
    t = F.linear(given.teacher, given.teacher_weight, given.teacher_bias)
    return "distillation_loss", Distillation(z, t, given.target, given.options)


def of_head(given, g, wants):
    """Return the gradients of a head from its logits', in their dtype."""
    x, weight = given[:2]
    if g is None:
        return [None] * len(wants)
    found = g @ weight, g.t() @ x, g.sum(0)
    return [f if want else None for f, want in zip(found, wants, strict=True)]


def agree(name, given, wants=(True,), lse=True, twice=False):
    """Compare a loss, log-sum-exps and gradients, forwards and backwards, with the reference's.

    ``twice`` says that a head's logits are made again for its gradients.
    All buffers, those that kernels make too, have bands around them.
    """
    from luce.kernels import cuda

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
    value, total, slopes = getattr(reference, name)(exact, lse, wants)
    heads = name.startswith("linear")
    peers, largest = None, 0.0
    if heads:
        plain, logits = of_logits(given)
        largest = float(logits[0].abs().max()) if logits[0].numel() else 0.0
        one, two, (g,) = getattr(reference, plain)(logits, lse, (any(wants),))
        peers = [one, two, *of_head(given, g, wants)]
    compare([loss, sums], [value, total], given[0].dtype, peers and peers[:2], largest)
    again = largest if twice else 0.0
    compare(gradients, slopes, given[0].dtype, peers and peers[2:], again=again)
    grads = [
        torch.rand_like(value) - 0.3,
        None if total is None else torch.rand_like(total),
    ]
    all_wanted = tuple(t is not None for t in given[: len(wants)])
    for incoming in (grads, [None, grads[1]] if lse else [grads[0], None]):
        own = [None if g is None else g.to(loss.dtype) for g in incoming]
        with Guard() as guard:
            back = getattr(cuda, f"{name}_backward")(
                ours, all_wanted, *(None if g is None else g.to(DEVICE) for g in own)
            )
        guard.check()
        exactly = [None if g is None else g.double() for g in own]
        expected = getattr(reference, f"{name}_backward")(exact, all_wanted, *exactly)
        if heads:
            (g,) = getattr(reference, f"{plain}_backward")(logits, (True,), *own)
            peers = of_head(given, g, all_wanted)
        compare(back, expected, given[0].dtype, peers, again=again)
