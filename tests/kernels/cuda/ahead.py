"""Every kernel as machine code, on a machine without a GPU: what ptxas and AMD's LLVM make of it.

``python -m tests.kernels.cuda.ahead [--few|--bfloat16] TARGET [TARGET…]`` in a process without
TRITON_INTERPRET; with --few, kernels that stand for the others; with --bfloat16, that alone. The
operators themselves are called, with tensors on the CPU and a driver that only knows a target. So
each kernel is compiled for the arguments that it would be started with, and none is started.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TARGETS = {
    **{f"sm_{arch}": GPUTarget("cuda", arch, 32) for arch in (75, 80, 90, 100, 120)},
    "gfx942": GPUTarget("hip", "gfx942", 64),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
    "gfx1100": GPUTarget("hip", "gfx1100", 32),
}
# Of AMD's instructions those that read what tensors hold.
LOADS = ("global_load", "buffer_load", "flat_load")
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


class Driver:
    """A driver of a GPU that is not there; one for each target, as kernels are kept by device."""

    def __init__(self, target):
        device = list(TARGETS.values()).index(target)
        self.get_current_target = lambda: target
        self.get_current_device = lambda: device
        self.get_current_stream = lambda _device: 0


def compiled_for(target, calls):
    """Call functions of no arguments; return each kernel compiled for it, by name and constants."""
    found = {}
    original = JITFunction.run

    def only_compile(function, *arguments, grid, warmup, **options):
        del warmup
        compiled = original(function, *arguments, grid=grid, warmup=True, **options)
        found.setdefault(compiled.hash, compiled)
        return compiled

    driver.set_active(Driver(target))
    JITFunction.run = only_compile
    try:
        for name, call in calls.items():
            before = set(found)
            call()
            for key in set(found) - before:
                found[key] = (name, found[key])
    finally:
        JITFunction.run = original
    return list(found.values())


def looked_at(name, compiled):
    """Return what there is to see in a kernel's machine code."""
    seen = {
        "call": name,
        "kernel": compiled.metadata.name,
        "target": str(compiled.metadata.target.arch),
        "warps": compiled.metadata.num_warps,
        "shared": compiled.metadata.shared,
    }
    if "amdgcn" in compiled.asm:
        text = compiled.asm["amdgcn"]
        counts = {k: int(v) for k, v in re.findall(r"\.(\w+):\s+(\d+)\n", text)}
        lines = re.findall(r"^\s+(\w+)", text, re.MULTILINE)
        return seen | {
            "registers": counts["vgpr_count"],
            "spilled": counts["vgpr_spill_count"] + counts["sgpr_spill_count"],
            "atomic": sorted({line for line in lines if "atomic" in line}),
            **loads([s for s in lines if s.startswith(LOADS)], ("x2", "x4", "b64", "b128")),
        }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(compiled.asm["cubin"])
        usage, code = (
            subprocess.run(
                [TOOLS / tool, *flags, path], capture_output=True, text=True, check=True
            ).stdout
            for tool, flags in (("cuobjdump", ["--dump-resource-usage"]), ("nvdisasm", ["-c"]))
        )
    registers, stack = re.search(r"REG:(\d+)\s+STACK:(\d+)", usage).groups()
    instructions = re.findall(
        r"\b((?:LDG|STG|LDL|STL|ATOM|ATOMG|ATOMS|RED|REDG)(?:\.\w+)*)\b", code
    )
    return seen | {
        "registers": int(registers),
        "spilled": int(stack) + sum(i.startswith(("LDL", "STL")) for i in instructions),
        "atomic": sorted({i for i in instructions if i.startswith(("ATOM", "RED"))}),
        **loads([i for i in instructions if i.startswith("LDG")], (".128", ".128.CONSTANT")),
    }


def loads(found, wide):
    """Return how many loads from memory are wide, of 16 bytes, or 8 on AMD's, and how many not."""
    many = sum(load.endswith(wide) for load in found)
    return {"wide": many, "narrow": len(found) - many}


def main(arguments):
    """Write what is seen in each kernel for each target, as JSON."""
    from tests.kernels.cuda.calls import FEW, calls

    which = arguments[0] if arguments[0].startswith("--") else ""
    found = {}
    for name in arguments[bool(which) :]:
        given = calls(thorough=not which)
        if which == "--few":
            given = {call: given[call] for call in FEW}
        found[name] = [looked_at(*each) for each in compiled_for(TARGETS[name], given)]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
