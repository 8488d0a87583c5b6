"""What compilers make of every kernel for each kind of GPU: ``python -m benchmarks ahead``.

``python -m benchmarks ahead [--bfloat16] [TARGET …]``: sm_75, sm_80, sm_90, sm_100, sm_120, gfx942,
gfx90a, gfx1100; all without one. No GPU is needed, and nothing is timed. A target takes some
minutes, with --bfloat16, that dtype alone, a fifth of them; what is known of other targets is kept.
``tests/kernels/cuda/ahead.py`` compiles and looks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.timing import record, results

NAMES = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120", "gfx942", "gfx90a", "gfx1100"]
ROOT = Path(__file__).parents[1]


def of_target(target: str, flags: list[str]) -> list[dict[str, Any]]:
    """Return a row for each kernel: of all its programs, the most of each figure."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-m", "tests.kernels.cuda.ahead", *flags, target]
    out = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return rows_of(target, json.loads(out.stdout)[target])


def rows_of(target: str, programs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what ``tests.kernels.cuda.ahead`` saw of a target, by kernel."""
    rows = []
    for kernel in sorted({p["kernel"] for p in programs}):
        own = [p for p in programs if p["kernel"] == kernel]
        aligned = [p["wide"] > 0 for p in own if "aligned" in p["call"]]
        rows.append(
            {
                "target": target,
                "kernel": kernel,
                "programs": len(own),
                **{k: max(p[k] for p in own) for k in ("registers", "shared", "spilled")},
                "atomic": sorted({name for p in own for name in p["atomic"]}),
                # Of those whose rows start at 16 bytes, how many read them so.
                "wide": [sum(aligned), len(aligned)],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return registers, shared memory and spills by kernel and target, as Markdown."""
    found = {(r["kernel"], r["target"]): r for r in rows}
    targets = [t for t in NAMES if any(r["target"] == t for r in rows)]
    lines = [["kernel", *targets], ["---"] * (1 + len(targets))]
    for kernel in sorted({r["kernel"] for r in rows}):
        cells = []
        for target in targets:
            row = found[kernel, target]
            spilled = f", {row['spilled']} spilled" if row["spilled"] else ""
            cells.append(f"{row['registers']}, {row['shared'] / 1024:.3g}{spilled}")
        lines.append([f"`{kernel}`", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(given: list[str]) -> None:
    """Compile, write the results and print the table."""
    flags = [each for each in given if each == "--bfloat16"]
    targets = [each for each in given if each not in flags] or NAMES
    unknown = sorted(set(targets) - set(NAMES))
    if unknown:
        sys.exit(f"unknown target {unknown[0]!r}; there are {', '.join(NAMES)}")
    rows = json.loads(results("ahead").read_text())["rows"] if results("ahead").is_file() else []
    for target in targets:
        print(f"{target} …", file=sys.stderr)
        rows = [row for row in rows if row["target"] != target] + of_target(target, flags)
        record("ahead", rows, triton=version("triton"))
    print(table(rows))
