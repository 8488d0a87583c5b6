"""The GPU's benchmark: what it times, what it holds against it, and that it runs; on the CPU."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import ahead, cuda, timing
from benchmarks.cuda import Case, Machine, bound

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
    heads = {(c.shape, c.options["memory_budget"]): c.milliseconds for c in cuda.cases("linear")}
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
    seconds, failed = cuda.alternated(calls, torch.device("cpu"), 3)
    assert order == ["ours", "fails", *["ours"] * 4]
    assert len(seconds["ours"]) == 3
    assert failed == {"fails": "RuntimeError: out of memory"}
    assert set(seconds) == {"ours"}


@pytest.mark.parametrize("part", cuda.PARTS)
def test_every_part_runs_on_a_small_scale(part, monkeypatch, tmp_path, capsys):
    """On the CPU, ours beside PyTorch's; results are JSON with shares of what is possible."""
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    cuda.run([part], cuda.measured(torch.device("cpu"), tiny=True), tiny=True)
    found = json.loads((tmp_path / f"cuda-{part}.json").read_text())
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
        if part != "regression":
            assert {"ours", "eager"} <= row["seconds"].keys()
            assert row["case"] in said


def test_a_case_that_fails_stops_no_other(monkeypatch, tmp_path, capsys):
    """For want of memory, say: it is named with the reason, here and in the results."""
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    first, timed = [], cuda.timed

    def failing(case, machine, *, tiny):
        if not first:
            first.append(case)
            raise torch.cuda.OutOfMemoryError("out of memory\nmore")
        return timed(case, machine, tiny=tiny)

    monkeypatch.setattr(cuda, "timed", failing)
    cuda.run(["linear"], MACHINE, tiny=True)
    rows = json.loads((tmp_path / "cuda-linear.json").read_text())["rows"]
    assert rows[0]["failed"] == "OutOfMemoryError: out of memory"
    assert "share" in rows[1]
    assert "OutOfMemoryError: out of memory" in capsys.readouterr().out


def test_when_there_is_no_time_left_it_says_for_what(monkeypatch, tmp_path, capsys):
    """And ends: results of what was begun are written."""
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    cuda.run(["linear", "top_k"], MACHINE, tiny=True, end=0.0)
    found = json.loads((tmp_path / "cuda-linear.json").read_text())
    assert found["rows"] == []
    assert len(found["left"]) == 2
    assert "no time was left for: linear_cross_entropy" in capsys.readouterr().out


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
    seen = {"kernel": "k", "warps": 4, "spilled": 0, "atomic": [], "wide": False}
    programs = [
        seen | {"call": "softmax few", "registers": 40, "shared": 2_048},
        seen | {"call": "softmax aligned rows", "registers": 32, "shared": 512, "wide": True},
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
