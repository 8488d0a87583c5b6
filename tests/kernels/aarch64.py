"""Kernels compiled for aarch64 with NEON on any machine: assembly to look at, objects to link.

``python -m tests.kernels.aarch64 FOLDER`` in a process whose Numba is told to know no features
(``ENVIRONMENT``). Kernels are then written for registers of 16 bytes, as on ARM. LLVM optimises
them with the costs and registers of an aarch64 processor, and emits its code.
"""

import re
import sys
from pathlib import Path

ENVIRONMENT = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
TRIPLE = "aarch64-unknown-linux-gnu"


def machine():
    """Return LLVM's aarch64 processor with NEON."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(TRIPLE)
    return target.create_target_machine(
        cpu="neoverse-n1", features="+neon", opt=3, reloc="pic", codemodel="default"
    )


def take_over(processor, modules):
    """Let Numba optimise for the processor, and put the texts of its modules into a list.

    They are neither emitted for nor loaded on the processor that this runs on.

    Emitting would also change the module: LLVM writes out for x86 what aarch64 does otherwise.
    """
    from numba.core.caching import FunctionCache
    from numba.core.codegen import JITCodeLibrary
    from numba.core.registry import cpu_target

    codegen = cpu_target.target_context.codegen()
    codegen._tm = processor
    codegen._add_module = lambda module: modules.append(str(module))
    codegen.set_env = lambda _name, _environment: None
    FunctionCache.load_overload = FunctionCache.save_overload = lambda *_: None
    JITCodeLibrary.get_pointer_to_function = lambda library, _name: library._ensure_finalized() or 0


def retargeted(text, processor):
    """Return a module of LLVM's for aarch64, from the text of one that Numba made."""
    import llvmlite.binding as llvm

    text = re.sub(
        r'^target triple = ".*"$', f'target triple = "{TRIPLE}"', text, flags=re.MULTILINE
    )
    layout = f'target datalayout = "{processor.target_data}"'
    text = re.sub(r'^target datalayout = ".*"$', layout, text, flags=re.MULTILINE)
    text = re.sub(r'"(target-cpu|target-features|tune-cpu)"="[^"]*"', "", text)
    return llvm.parse_assembly(text)


def parts():
    """Yield parts of kernels that go over elements: name, dispatcher and signature."""
    from numba import boolean, float32, float64, int16, int64, types, uint16

    from luce.kernels.cpu import examples, rows, tiles
    from luce.kernels.cpu.terms import Geometry, Terms

    geometry = types.NamedUniTuple(int64, 5, Geometry)
    for name, stored, working in (
        ("float32", float32, float32),
        ("float64", float64, float64),
        ("bfloat16", uint16, float32),
        ("float16", int16, float32),
    ):
        line, result, wide = stored[::1], working[::1], float64[::1]
        tile = working[:, ::1]
        terms = types.NamedTuple(
            (working, int64, float64, float64, float64, float64, float64), Terms
        )
        yield f"maximum {name}", rows.maximum, (line,)
        yield f"exp_sum_into {name}", rows.exp_sum_into, (result, line, working, working, int64)
        yield (
            f"write_scaled {name}",
            rows.write_scaled,
            (line, result, working, working, result),
        )
        yield (
            f"write_log_probabilities {name}",
            rows.write_log_probabilities,
            (line, line, working, working, working),
        )
        yield f"mix {name}", rows.mix, (line, result, terms, result)
        yield f"load_tile {name}", tiles.load_tile, (line, int64, geometry, int64, tile)
        yield f"store_tile {name}", tiles.store_tile, (line, int64, geometry, int64, tile)
        if stored != working:
            continue
        yield f"column_maxima {name}", tiles.column_maxima, (tile, int64, result)
        yield (
            f"column_exps {name}",
            tiles.column_exps,
            (tile, int64, result, working, boolean, wide, line, int64, geometry),
        )
        yield (
            f"scale_columns {name}",
            tiles.scale_columns,
            (tile, int64, result, result, result, boolean),
        )
    yield "logs", examples.logs, (float64[::1], int64, float64[::1])


def entries():
    """Return functions that C can call: row and tile kernels over plain memory, by name."""
    import numpy as np
    from numba import carray, cfunc, float32, int64, types

    from luce.kernels.cpu import rows, tiles
    from luce.kernels.cpu.terms import Geometry, Inputs, Outputs, Terms

    floats, classes = map(types.CPointer, (float32, int64))

    def softmax(kernel_of_rows, kernel_of_tiles):
        def entry(x, out, lse, N, K, mode, columns):
            a, b = carray(x, (N * K,)), carray(out, (N * K,))
            of_rows = carray(lse, (N,))
            one = np.float32(1)
            if columns == 0:
                kernel_of_rows(a, b, of_rows, one, mode, Geometry(K, 1, K, 1, 1), 0, N)
            else:
                tiled = Geometry(K, N, K, 1, columns)
                units = (N + columns - 1) // columns
                kernel_of_tiles(a, b, of_rows, one, mode, tiled, 0, units)

        return entry

    def cross_entropy(kernel_of_rows, kernel_of_tiles):
        def entry(x, grad, lse, target, loss, N, K, columns):
            nothing = np.empty(0, np.float64)
            a = carray(x, (N * K,))
            no_weight = a[:0]
            inputs = Inputs(a, carray(target, (N,)), no_weight, no_weight, nothing, nothing)
            terms = Terms(np.float32(1), -100, 0.9, 0.1 / K, float(K), 0.01, 1.0 / N)
            outputs = Outputs(carray(loss, (N,)), carray(lse, (N,)), carray(grad, (N * K,)))
            if columns == 0:
                kernel_of_rows(inputs, terms, outputs, Geometry(K, 1, K, 1, 1), 0, N)
            else:
                tiled = Geometry(K, N, K, 1, columns)
                kernel_of_tiles(inputs, terms, outputs, tiled, 0, (N + columns - 1) // columns)

        return entry

    of_softmax = types.void(floats, floats, floats, int64, int64, int64, int64)
    of_loss = types.void(floats, floats, floats, classes, floats, int64, int64, int64)
    return {
        "softmax": cfunc(of_softmax)(softmax(rows.softmax_rows, tiles.softmax_tiles)),
        "cross_entropy": cfunc(of_loss)(
            cross_entropy(rows.cross_entropy_rows, tiles.cross_entropy_tiles)
        ),
    }


def main(folder):
    """Write the assembly of each part, and objects with the entries."""
    processor, modules = machine(), []
    take_over(processor, modules)
    names = {entry.native_name: f"luce_{name}" for name, entry in entries().items()}
    for i, text in enumerate(modules):
        named = re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)
        (folder / f"{i}.o").write_bytes(processor.emit_object(retargeted(named, processor)))
    for name, part, signature in parts():
        part.compile(signature)
        text = part.inspect_llvm(signature)
        (folder / f"{name}.s").write_text(processor.emit_assembly(retargeted(text, processor)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
