"""Measure as a processor with fewer instructions would: ``python -m benchmarks --isa avx2 NAME``.

What a processor can do decides how fast everything is, ours and the peers. A level takes the same
away from all of them: from Numba's compiler, PyTorch's kernels, oneDNN, MKL, and the OpenBLAS of
NumPy and SciPy. It must be set before any of them is loaded.
"""

from __future__ import annotations

import os
import sys

__all__ = ["CHOSEN", "LEVELS", "check", "choose"]

LEVELS: dict[str, dict[str, str]] = {
    # As on most desktops, laptops and many cloud machines: AVX2 and FMA, 256 bits.
    "avx2": {
        "NUMBA_CPU_NAME": "haswell",
        # Without these Numba takes the features of the processor that it is on.
        "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+f16c,+lzcnt,+popcnt",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    # AVX-512 as on servers since 2017, without its bfloat16 and without AMX.
    "avx512": {
        "NUMBA_CPU_NAME": "skylake-avx512",
        "NUMBA_CPU_FEATURES": "+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,+avx2,+fma",
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "OPENBLAS_CORETYPE": "SkylakeX",
    },
    "native": {},
}

# Processes that a benchmark starts find their level here.
CHOSEN = "LUCE_BENCH_ISA"
LOADED_TOO_EARLY = ("numpy", "torch", "numba", "sklearn")


def choose(level: str) -> None:
    """Set the level for this process and those that it starts."""
    if level not in LEVELS:
        sys.exit(f"--isa must be one of {', '.join(LEVELS)}, got {level!r}.")
    early = [name for name in LOADED_TOO_EARLY if name in sys.modules]
    if early:
        raise RuntimeError(f"{', '.join(early)} would not see the level: it is loaded already")
    os.environ[CHOSEN] = level
    os.environ.update(LEVELS[level])
    if LEVELS[level]:
        # The processor itself still has it; who asks the processor is to hear of the level.
        import luce.processor

        luce.processor.has_bfloat16 = lambda: False


def check() -> dict[str, object]:
    """Return what the level came to, and stop if ours or PyTorch's code is of another one.

    Ours is looked at as compiled, in a part of kernels that is never taken from disk: with
    registers of 512 bits it is no AVX2.
    """
    import numpy as np
    import torch

    from luce.kernels.cpu import rows

    rows.maximum(np.ones(64, np.float32))
    wide = any("zmm" in text for text in rows.maximum.inspect_asm().values())
    level = os.environ.get(CHOSEN, "native")
    pytorch = torch.backends.cpu.get_cpu_capability()
    wanted = {"avx2": ("AVX2", False), "avx512": ("AVX512", True)}.get(level, (pytorch, wide))
    if (pytorch, wide) != wanted:
        sys.exit(f"--isa {level} did not hold: PyTorch says {pytorch}, 512-bit registers: {wide}")
    processor = os.environ.get("NUMBA_CPU_NAME", "this one")
    return {"level": level, "pytorch": pytorch, "compiled for": processor, "512 bits": wide}
