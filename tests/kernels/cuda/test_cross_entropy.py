"""Cross-entropy and distillation of logits in Triton, against the reference in float64."""

import itertools

import pytest
import torch

from luce.kernels.arguments import CrossEntropy, Distillation, LinearDistillation
from luce.kernels.options import DistillationOptions, LossOptions
from tests.interpreter import CUDA, DEVICE
from tests.kernels.cuda.agreement import agree

pytestmark = pytest.mark.parametrize("backend", [CUDA])
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# Logits' shapes: one class, few, a row of one block and one class more or less, several blocks,
# maps, and many classes that are not the last dimension.
SHAPES = [(3, 1), (9, 7), (2, 255), (2, 256), (2, 257), (2, 17_000), (2, 5, 3, 4), (2, 70, 5)]


def example(shape, dtype, soft, weighted, sampled, options):
    """Return logits and what goes with them."""
    torch.manual_seed(sum(shape))
    x = (torch.randn(shape, dtype=torch.float64) * 3).to(dtype)
    examples = shape[:1] + shape[2:]
    full = torch.promote_types(dtype, torch.float32)
    y = torch.randint(0, shape[1], examples)
    y.view(-1)[0] = options.ignore_index
    target = torch.rand(shape).softmax(1).to(dtype) if soft else y
    w = torch.rand(shape[1]).to(full) + 0.5 if weighted else None
    s = torch.rand(examples).to(full) + 0.5 if sampled else None
    return CrossEntropy(x, target, w, s, options)


NUMBERS = list(itertools.product((0.0, 0.1), (1.0, 2.5), (0.0, 0.02), (0.0, 5.0)))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("numbers", NUMBERS)
def test_every_option(numbers, soft, backend):
    """Each combination of options, weights and reductions, in float32 and few classes."""
    for i, (weighted, sampled) in enumerate(itertools.product((False, True), repeat=2)):
        options = LossOptions(("mean", "sum", "none", "mean")[i], -100, *numbers)
        agree("cross_entropy", example((4, 7), torch.float32, soft, weighted, sampled, options))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape, dtype, backend):
    """Each kind of block, with no option and with all, for class indices and probabilities."""
    plain, full = LossOptions(), LossOptions("sum", 1, 0.1, 2.5, 0.02, 5.0)
    agree("cross_entropy", example(shape, dtype, False, False, False, plain))
    if shape[1] > 1:
        agree("cross_entropy", example(shape, dtype, False, True, True, full))
    agree(
        "cross_entropy", example(shape, dtype, True, True, True, full._replace(ignore_index=-100))
    )


def test_any_order_in_memory(backend):
    """Channels-last maps, transposed and cut matrices, targets and weights in steps."""
    given = example((2, 6, 3, 4), torch.float32, False, True, True, LossOptions())
    x = given.input
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    agree("cross_entropy", given._replace(input=last))
    given = example((6, 300), torch.bfloat16, True, True, True, LossOptions("sum"))
    x, target = given.input, given.target
    agree("cross_entropy", given._replace(input=x.t().contiguous().t()))
    agree("cross_entropy", given._replace(target=target.t().contiguous().t()))
    cut = torch.stack([x, x], -1).flatten(1)[:, :300]
    agree("cross_entropy", given._replace(input=cut))
    agree("cross_entropy", given._replace(input=x[:1].expand(6, 300)))


def distillation(shape, dtype, hard, options):
    torch.manual_seed(sum(shape))
    z, t = ((torch.randn(shape, dtype=torch.float64) * 3).to(dtype) for _ in range(2))
    y = torch.randint(0, shape[1], shape[:1])
    y[0] = -100
    return Distillation(z, t, y if hard else None, options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) == 2])
def test_distillation(shape, dtype, backend):
    """Loss and gradient are the reference's, with a target and without."""
    for hard, T, reduction in ((True, 2.0, "mean"), (False, 1.0, "sum"), (True, 0.7, "none")):
        options = DistillationOptions(T, 0.3 if hard else 1.0, reduction, -100)
        agree("distillation_loss", distillation(shape, dtype, hard, options), lse=False)


@pytest.mark.parametrize("classes", [8_192, 8_193, 12_288, 16_384, 16_385, 24_576])
def test_where_rows_are_held_at_once_no_more(classes, backend):
    """The last rows that are, the first that are not, and whole blocks of what is gone through."""
    shape, full = (2, classes), LossOptions("mean", 1, 0.1, 2.5, 0.02, 5.0)
    agree("cross_entropy", example(shape, torch.float32, False, False, False, LossOptions()))
    agree("cross_entropy", example(shape, torch.bfloat16, False, True, True, full))
    options = DistillationOptions(2.0, 0.3, "mean", -100)
    agree("distillation_loss", distillation(shape, torch.float32, True, options), lse=False)


def test_an_impossible_class_of_the_teacher_is_left_out(backend):
    """Where the teacher has no probability, the student may have any."""
    given = distillation((3, 300), torch.float32, True, DistillationOptions(2.0, 0.5, "sum", -100))
    given.teacher[:, 7:90] = -torch.inf
    given.student[1, 8] = -torch.inf
    given.target.fill_(2)
    agree("distillation_loss", given, lse=False)


@pytest.mark.parametrize("T", [1.0, 3.0])
@pytest.mark.parametrize("classes", [7, 300, 20_000])
def test_equal_logits_have_no_divergence(classes, T, fused, backend):
    """It is 0 to the bit, and so is its gradient, though compilers fuse products with sums."""
    from luce.kernels import cuda

    torch.manual_seed(0)
    z = 3 * torch.randn(3, classes, device=DEVICE)
    o = DistillationOptions(T, 1.0, "sum", -100)
    loss, _, (gradient,) = cuda.distillation_loss(
        Distillation(z, z.clone(), None, o), False, (True,)
    )
    assert loss == 0
    assert not gradient.any()
    x, w = torch.randn(3, 8, device=DEVICE), torch.randn(classes, 8, device=DEVICE)
    for budget in (1 << 30, 3_000):
        given = LinearDistillation(x, w, None, x.clone(), w.clone(), None, None, o, budget)
        loss, _, gradients = cuda.linear_distillation_loss(given, False, (True, True, False))
        assert loss == 0
        assert not any(g.any() for g in gradients[:2])
