"""The GPU's benchmark: what it times, what it holds against it, and that it runs; on the CPU."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import ahead, cuda, cuda_fits, cuda_timing, timing
from benchmarks.cuda import Case, bound
from benchmarks.cuda_timing import Machine

MACHINE = Machine(torch.device("cpu"), 4.3e12, {"bf16": 7.8e14, "fp32": 5e13})


def case(operator, dtype, *shape):
    return Case(operator, dtype, shape, {}, math.inf, math.inf)


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        # One read and one write of the logits, at 4.3 TB/s; three products, at 780 TFLOP/s: what
        # is said of an H200 in the issue.
        (case("cross_entropy", "bf16", 8_192, 32_000), 0.244),
        (case("cross_entropy", "bf16", 65_536, 128_256), 7.82),
        (case("linear_cross_entropy", "bf16", 8_192, 4_096, 128_256), 33.1),
        (case("softmax", "fp32", 1_000, 1_000), 5 * 4e6 / 4.3e12 * 1e3),
        (case("linear_distillation_loss", "bf16", 8_192, 4_096, 128_256), 44.1),
        # Of few rows, reading the head is what takes time.
        (case("linear_top_k", "bf16", 1, 4_096, 128_256), 0.2443),
    ],
)
def test_what_is_possible_is_what_must_be_moved_or_multiplied(given, milliseconds):
    """By the machine's own figures, whichever takes longer."""
    assert 1e3 * bound(given, MACHINE) == pytest.approx(milliseconds, rel=2e-3)


def test_what_the_issue_asked_for_is_asked_for():
    """Every shape and budget of it, in both dtypes."""
    rows = cuda.cases("rows")
    assert {(c.operator, c.dtype) for c in rows} == {
        (o, d) for o in ("softmax", "log_softmax", "cross_entropy") for d in ("bf16", "fp32")
    }
    of_one = [c for c in rows if (c.operator, c.dtype) == ("softmax", "fp32")]
    assert {c.shape: c.most for c in of_one} == {
        **{(n, 1_000): 1.15 for n in (8_192, 65_536)},
        **{(n, k): 1.5 for n in (8_192, 65_536) for k in (32_000, 128_256)},
        (102_400, 10): 1.15,
        (16, 20, 512, 512): 1.15,
    }
    linear = cuda.cases("linear")
    heads = {(c.shape, c.options.get("memory_budget")): c.milliseconds for c in linear[::-1]}
    assert [c.options for c in linear if "weight" in c.options] == cuda.FULL
    large = 8_192, 4_096, 128_256
    assert [heads[large, b] for b in (None, 1 << 30, 1 << 28, 1 << 26)] == [36, 44, 48, 61]
    assert heads[(16_384, 2_048, 248_320), None] == math.inf


def test_a_peer_that_fails_is_named_and_the_others_are_timed():
    """In turn, as often each; the reason is the error's first line."""
    order = []

    def fails():
        order.append("fails")
        raise RuntimeError("out of memory\nmore")

    calls = {"ours": lambda: order.append("ours"), "fails": fails}
    seconds, failed = cuda_timing.alternated(calls, torch.device("cpu"), 3)
    assert order == ["ours", "fails", *["ours"] * 4]
    assert len(seconds["ours"]) == 3
    assert failed == {"fails": "RuntimeError: out of memory"}
    assert set(seconds) == {"ours"}


def test_what_is_timed_begins_when_the_host_has_asked_for_it(monkeypatch):
    """A device sleeps meanwhile, as long as the host took last time and again, but not for ever."""
    order = []

    class Event:
        def __init__(self, **_):
            pass

        def record(self):
            order.append("event")

        def synchronize(self):
            order.append("wait")

        def elapsed_time(self, _):
            return 1.0

    now = iter(range(100))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", order.append, raising=False)
    monkeypatch.setattr(cuda_timing.time, "perf_counter", lambda: 1e-3 * next(now))
    monkeypatch.setattr(torch, "empty", lambda *_, **__: torch.zeros(1))
    calls = {"call": lambda: order.append("call")}
    seconds, _ = cuda_timing.alternated(calls, torch.device("cuda"), 1)
    assert seconds == {"call": [1e-3]}
    first = cuda_timing.FIRST_SLEEP * cuda_timing.CYCLES
    timed = ["event", "call", "event", "wait"]
    assert order == [first, *timed, 4e6, *timed, 4e6, *timed]
    assert cuda_timing.LONGEST_SLEEP * cuda_timing.CYCLES > 4e6
    order.clear()
    cuda_timing.alternated(calls, torch.device("cuda"), 1, with_host=True)
    assert order == [0, *timed] * 3


def test_gradients_are_taken_of_tensors_that_are_there(monkeypatch):
    """What is timed makes no tensor for a peer: the incoming gradient is made before."""
    for case in cuda.cases("rows", tiny=True):
        given, leaves, incoming = cuda.arguments(case, torch.device("cpu"))
        call = cuda.step(lambda z, *_: z.softmax(1), given, leaves, torch.ones_like(given[0]))
        assert (incoming is None) == (case.operator == "cross_entropy")
        with monkeypatch.context() as patched:
            patched.setattr(torch, "ones_like", None)
            call()


def test_peers_are_timed_once_for_all_budgets_and_options(monkeypatch):
    """Of the same tensors: `torch.compile`, say, compiles once."""
    asked = []
    peers_of = cuda.peers_of
    monkeypatch.setattr(cuda, "peers_of", lambda name: asked.append(name) or peers_of(name))
    rows = [row for _, job in cuda.jobs("linear", MACHINE, tiny=True) for row in job(math.inf)]
    assert asked == ["linear_cross_entropy"]
    assert len(rows) == 2 + len(cuda.FULL)
    assert len({tuple(row["seconds"]["eager"]) for row in rows}) == 1
    assert all("of plain" in row for row in rows[2:])


@pytest.mark.parametrize("part", cuda.PARTS)
def test_every_part_runs_on_a_small_scale(part, monkeypatch, tmp_path, capsys):
    """On the CPU, ours beside PyTorch's; results are JSON, in the folder that OUT names too."""
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("OUT", str(tmp_path / "a" / "b"))
    monkeypatch.delenv("LUCE_DATA_DIR", raising=False)
    cuda.run([part], cuda_timing.measured(torch.device("cpu"), tiny=True), tiny=True)
    found = json.loads((tmp_path / "a" / "b" / f"cuda-{part}.json").read_text())
    assert found == json.loads((tmp_path / "results" / f"cuda-{part}.json").read_text())
    assert found["measured"]["bytes"] > 0
    said = capsys.readouterr().out
    if part == "networks":
        assert "LUCE_DATA_DIR" in said
        return
    assert found["rows"]
    assert found["left"] == []
    for row in found["rows"]:
        assert "failed" not in row
        if part == "graphs":
            assert set(row["seconds"]) >= {"plain"}
            continue
        assert row["share"] > 0
        if part == "regression":
            assert row["case"].startswith("a pass") or "torch L-BFGS" in row["peers"]
        else:
            assert {"ours", "eager"} <= row["seconds"].keys()
            assert row["case"] in said


def test_a_case_that_fails_stops_no_other(monkeypatch, tmp_path, capsys):
    """For want of memory, say: it is named with the reason, here and in the results."""
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    first, timed = [], cuda.timed

    def failing(group, machine, *, tiny):
        if not first:
            first.append(group)
            raise torch.cuda.OutOfMemoryError("out of memory\nmore")
        return timed(group, machine, tiny=tiny)

    monkeypatch.setattr(cuda, "timed", failing)
    cuda.run(["rows"], MACHINE, tiny=True)
    rows = json.loads((tmp_path / "cuda-rows.json").read_text())["rows"]
    assert rows[0]["failed"] == "OutOfMemoryError: out of memory"
    assert "share" in rows[1]
    assert "OutOfMemoryError: out of memory" in capsys.readouterr().out


def test_when_there_is_no_time_left_it_says_for_what(monkeypatch, tmp_path, capsys):
    """And ends: results of what was begun are written."""
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    cuda.run(["linear", "top_k"], MACHINE, tiny=True, end=0.0)
    found = json.loads((tmp_path / "cuda-linear.json").read_text())
    assert found["rows"] == []
    assert len(found["left"]) == 1
    assert "no time was left for: linear_cross_entropy" in capsys.readouterr().out


def test_a_fit_is_not_begun_when_there_is_no_time_left(capsys):
    """After ours the peers are left out, with that as the reason."""
    (row,) = cuda_fits.probe(cuda_timing.measured(torch.device("cpu"), tiny=True), 0.0, tiny=True)
    assert row["peers"] == {}
    assert row["absent"] == dict.fromkeys(("cuML", "torch L-BFGS"), "no time was left")
    assert "torch L-BFGS: no time was left" in capsys.readouterr().out


def test_fits_are_compared_at_one_objective():
    """PyTorch's L-BFGS ends no lower than the optimum that ours proves, and near it."""
    machine = cuda_timing.measured(torch.device("cpu"), tiny=True)
    (row,) = cuda_fits.mnist_regression(machine, math.inf, tiny=True)
    assert row["gap"] <= 1e-6
    assert -1e-6 < row["peers"]["torch L-BFGS"]["above ours"] < 1e-4
    assert "cuML" in row["absent"]


def test_a_peer_that_breaks_as_it_is_imported_is_absent(monkeypatch):
    """With the reason, whatever it raises."""
    from benchmarks.peers import gpu

    def broken(*_):
        raise RuntimeError("needs another Triton\nmore")

    monkeypatch.setattr(gpu, "import_module", broken)
    found, absent = gpu.peers_of("cross_entropy")
    assert {"ours", "eager", "compile"} == set(found)
    assert absent == dict.fromkeys(("liger", "quack"), "RuntimeError: needs another Triton")


def test_what_compilers_make_of_a_kernel_is_the_most_over_its_programs():
    """Registers, shared memory and spills; whether rows that start at 16 bytes are read so."""
    seen = {"kernel": "k", "warps": 4, "spilled": 0, "atomic": [], "wide": 0}
    programs = [
        seen | {"call": "softmax few", "registers": 40, "shared": 2_048},
        seen | {"call": "softmax aligned rows", "registers": 32, "shared": 512, "wide": 3},
        seen | {"call": "other", "kernel": "l", "registers": 255, "shared": 0, "spilled": 7},
    ]
    rows = ahead.rows_of("sm_90", programs)
    assert rows[0] == {
        "target": "sm_90", "kernel": "k", "programs": 2, "registers": 40, "shared": 2_048,
        "spilled": 0, "atomic": [], "wide": [1, 1],
    }  # fmt: skip
    assert ahead.table(rows).splitlines()[2:] == ["| `k` | 40, 2 |", "| `l` | 255, 0, 7 spilled |"]


def test_the_docs_show_what_compilers_made_of_each_kernel():
    """The table is that of the results, in which nothing is atomic and every target has all."""
    rows = json.loads(timing.results("ahead").read_text())["rows"]
    page = (Path(__file__).parents[1] / "docs/gpus.md").read_text(encoding="utf-8")
    assert ahead.table(rows) in page
    kernels = {row["kernel"] for row in rows}
    assert len(rows) == len(kernels) * len(ahead.NAMES)
    assert not any(row["atomic"] for row in rows)


def test_without_a_gpu_it_says_so_in_one_sentence():
    """On stderr, and ends with 2."""
    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, "-m", "benchmarks", "cuda"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "There is no GPU that PyTorch can use here: run this where one is.\n"
