"""What a command loads: heavy libraries only where their work is needed.

Each claim is about one process, asked at its end (or when the result is there) what it has loaded.
"""

import gc
import os
import subprocess
import sys

import pytest

from luce.importing import quickly

HEAVY = ("torch", "torch._dynamo", "numba", "sklearn", "scipy", "polars", "matplotlib")


def loaded_by(code, cwd):
    """Run code in a process of its own; return which of the heavy libraries it has loaded."""
    code += f"\nimport sys; print('loaded', *sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("operator", ["softmax(x, dim=1)", "cross_entropy(x, x.argmax(1))"])
def test_an_operator_on_a_tensor_loads_pytorch_alone(operator, tmp_path):
    """Few elements are PyTorch's own work: no Numba, no SciPy."""
    code = f"import luce, torch; x = torch.zeros(3, 4); luce.{operator}"
    assert loaded_by(code, tmp_path) == {"torch"}


TRAIN = """
import luce
from luce.training.train import train
early = []
def announce(run):
    import sys
    early.extend(sorted(set(sys.modules)))
run = train("digits", model={model!r}, epochs={epochs}, out="runs", announce=announce)
assert "matplotlib" not in early, "the figures come after the result"
assert (run.path / "report.html").exists()
"""


def test_softmax_regression_is_trained_and_reported_without_pytorch(tmp_path):
    """`luce train digits --model linear`, its report included, loads neither PyTorch nor Numba."""
    code = TRAIN.replace(", epochs={epochs}", "").format(model="linear")
    assert not loaded_by(code, tmp_path) & {"torch", "numba"}


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_small_network_is_trained_without_compilers(model, tmp_path):
    """Neither PyTorch's compiler nor Numba is loaded, nor matplotlib before the result is there."""
    code = TRAIN.format(model=model, epochs=1)
    assert not loaded_by(code, tmp_path) & {"torch._dynamo", "numba"}


def test_a_run_of_softmax_regression_is_used_without_pytorch(tmp_path):
    """Loading a run, predicting, evaluating and `info` load neither PyTorch nor Numba."""
    code = (
        "import luce; luce.train('digits', model='linear', out='runs')\n"
        "run = luce.load_run('runs/digits'); run.evaluate('digits'); run.info()\n"
        "run.predict_proba(luce.load_dataset('digits').features)"
    )
    assert not loaded_by(code, tmp_path) & {"torch", "numba"}


def test_softmax_regression_predicts_many_rows_without_pytorch(tmp_path):
    """Of any number of rows NumPy multiplies some at a time, to what all at once are.

    PyTorch, which the estimator itself would multiply so many with, is the truth here.
    """
    code = (
        "import luce, numpy as np, sys; run = luce.train('digits', model='linear', out='runs')\n"
        "many = np.tile(luce.load_dataset('digits').features, (8, 1, 1, 1))\n"
        "found = run.classifier.log_probabilities(rows := run.schema.encode(many)[0])\n"
        "assert 'torch' not in sys.modules\n"
        "rows = rows.reshape(len(rows), -1)\n"
        "np.testing.assert_allclose(found, run.estimator.predict_log_proba(rows), atol=1e-5)\n"
        "assert 'torch' in sys.modules"
    )
    assert "torch" in loaded_by(code, tmp_path)


def test_a_command_leaves_pandas_to_those_who_use_it(tmp_path):
    """scikit-learn is loaded without pandas, which can be loaded afterwards; or was before."""
    code = """
import sys
from luce.importing import for_command
with for_command():
    import luce.run
assert "sklearn" in sys.modules and "pandas" not in sys.modules
import pandas
with for_command():
    pass
assert sys.modules["pandas"] is pandas
"""
    assert "sklearn" in loaded_by(code, tmp_path)


def test_the_collector_is_as_it_was_after_an_import():
    """Paused while libraries are imported, it is on again after it, also after an error."""
    assert gc.isenabled()
    with quickly():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), quickly():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with quickly():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_run_without_pytorch_records_the_threads_that_computed(threads, tmp_path):
    """`environment.json` has the threads that NumPy was given, and not the processor's."""
    code = """
import luce, json
from luce.training.train import train
run = train("digits", model="linear", out="runs")
print(json.loads((run.path / "environment.json").read_text())["threads"])
"""
    asked = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", code + "import sys; assert 'torch' not in sys.modules"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | asked,
    )
    assert done.stdout.split()[-1] == threads
