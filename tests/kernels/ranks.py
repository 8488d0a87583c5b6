"""Processes that wait for tasks, each a rank of gloo: one set of them for many tests."""

import datetime as dt
import multiprocessing
import os
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

import luce
import luce.nn


class Ranks:
    """So many processes; what one of them raised is raised here."""

    def __init__(self, count, folder):
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for rank in range(count):
            ours, theirs = context.Pipe()
            arguments = (theirs, rank, count, str(folder / "store"))
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __call__(self, function, *arguments):
        """Return what `function(rank, groups, *arguments)` gives, or what it raised, on each."""
        for pipe in self._pipes:
            pipe.send((function.__name__, arguments))
        results = []
        for pipe in self._pipes:
            assert pipe.poll(300), "a rank does not answer"
            results.append(pipe.recv())
        raised = [result for result in results if isinstance(result, str)]
        # The others waited for the one that failed.
        assert not raised, min(raised, key=lambda text: "Timed out" in text)
        return results

    def close(self):
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(20)
            process.kill()


def _serve(pipe, rank, count, store):
    """Do one task after another."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=count,
        timeout=dt.timedelta(seconds=120),
    )
    groups = {n: dist.new_group(list(range(n))) for n in range(1, count)}
    groups[count] = dist.group.WORLD
    while (task := pipe.recv()) is not None:
        name, arguments = task
        try:
            pipe.send(globals()[name](rank, groups, *arguments))
        except Exception:  # noqa: BLE001 - whatever it is, the test shows it
            pipe.send(traceback.format_exc())
    dist.destroy_process_group()


def part_of(rank, sizes, values):
    """Return a rank's part of what has the classes first."""
    if values is None:
        return None
    start = sum(sizes[:rank])
    return values[start : start + sizes[rank]]


def losses(rank, groups, sizes, given, dtype, options):
    """Return a rank's loss, log-sum-exps and gradients; None for one that takes no part.

    `given` holds arrays of all classes; `options` go on to linear_cross_entropy.
    """
    if rank >= len(sizes):
        return None
    x, w, b, y, weight = (given[name] for name in ("x", "w", "b", "y", "weight"))
    soft = y.dtype.kind == "f"
    y = part_of(rank, sizes, y.T).T if soft else y
    mine = (x, part_of(rank, sizes, w), part_of(rank, sizes, b))
    options = dict(options, process_group=groups[len(sizes)])
    return computed(mine, y, part_of(rank, sizes, weight), given["s"], dtype, options)


def computed(tensors, y, weight, s, dtype, options):
    """Return loss, log-sum-exps, and the gradients of features, head and bias, as float64."""
    kind = getattr(torch, dtype)
    x, w, b = (None if t is None else torch.tensor(t).to(kind).requires_grad_() for t in tensors)
    y = torch.tensor(y)
    loss, lse = luce.linear_cross_entropy(
        x,
        w,
        y.to(kind) if y.is_floating_point() else y,
        linear_bias=b,
        weight=None if weight is None else torch.tensor(weight).to(kind),
        sample_weight=None if s is None else torch.tensor(s).to(kind),
        return_lse=True,
        **options,
    )
    total = (loss * torch.arange(1, loss.numel() + 1)).sum() if loss.ndim else 3 * loss
    leaves = [t for t in (x, w, b) if t is not None]
    grads = torch.autograd.grad(total, leaves, retain_graph=True)
    # Another loss of the same graph, of the log-sum-exps alone.
    more = torch.autograd.grad(lse.square().sum(), leaves)
    return [t.detach().double().numpy() for t in (loss, lse, *grads, *more)]


def second_derivatives(rank, groups, sizes, given, backend):
    """Return the gradient of Σ (dL/dx)² v in features and head, which takes two passes."""
    group = groups[len(sizes)]
    x = torch.tensor(given["x"]).requires_grad_()
    w = torch.tensor(part_of(rank, sizes, given["w"])).requires_grad_()
    loss = luce.linear_cross_entropy(
        x, w, torch.tensor(given["y"]), process_group=group, backend=backend
    )
    (g,) = torch.autograd.grad(loss, x, create_graph=True)
    found = torch.autograd.grad(g.square().sum(), (x, w))
    return [t.numpy() for t in found]


def refused(rank, groups, what):
    """Return the sentence that each rank raises for a call that its group cannot make."""
    x, w, y = torch.zeros(3, 2), torch.zeros(2, 2), torch.tensor([0, 1, 5])
    options = {"process_group": groups[max(groups)]}
    if what == "other targets":
        y = y - int(rank == 1)
    elif what == "other smoothing":
        options["label_smoothing"] = 0.1 * (rank == 2)
    elif what == "no such class":
        y[1] = 6
    elif what == "no class at all":
        w = w[:0]
    elif what == "a head for each position":
        w = torch.zeros(2, 4, 2)
    elif what == "no group":
        options["process_group"] = "world"
    try:
        luce.linear_cross_entropy(x, w, y, **options)
    except luce.LuceError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def of_module(rank, groups, given):
    """Return the loss of the module, with the classes split evenly."""
    group = groups[max(groups)]
    sizes = [len(given["w"]) // len(groups)] * len(groups)
    loss = luce.nn.LinearCrossEntropyLoss(
        given["x"].shape[1], sizes[rank], dtype=torch.float64, process_group=group
    )
    with torch.no_grad():
        loss.linear.weight.copy_(torch.tensor(part_of(rank, sizes, given["w"])))
    return float(loss(torch.tensor(given["x"]), torch.tensor(given["y"])))


def regression(rank, groups, size, rows, options, weight=None):
    """Return what softmax regression with its classes split over so many ranks ends with.

    `rows` are X and y, or those of each rank.
    """
    if rank >= size:
        return None
    X, y = rows[rank] if isinstance(rows, list) else rows
    model = luce.SoftmaxRegression(**options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that stop early
            model.fit(X, y, weight, process_group=groups[size])
    except luce.LuceError as error:
        return [type(error).__name__, str(error)]
    names = ("coef_", "intercept_", "objective_", "duality_gap_", "converged_", "n_iter_")
    return {name: getattr(model, name) for name in names}


def memory_taken(rank, groups, N, D, classes, budget):
    """Return the bytes by which a forward and backward pass raised this process's peak."""
    group = groups[max(groups)]
    x, w = torch.zeros(N, D, requires_grad=True), torch.zeros(classes, D, requires_grad=True)
    y = torch.zeros(N, dtype=torch.int64)

    def step(rows):
        luce.linear_cross_entropy(
            x[:rows], w, y[:rows], memory_budget=budget, process_group=group
        ).backward()

    step(8)  # compiles
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    step(N)
    return _resident("VmHWM") - before


def _resident(which):
    """Return a figure of this process's memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))
