"""Each access of each kernel lies within its tensor: Triton-viz's sanitizer."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.interpreter import GPU

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.skipif(GPU, reason="compute-sanitizer looks at what runs on a GPU"),
    pytest.mark.skipif(
        not find_spec("triton_viz"), reason="Triton-viz is not installed (pip install triton-viz)"
    ),
]


def sanitize(*arguments):
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-m", "tests.kernels.cuda.sanitize", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_an_overrun_of_one_element_is_seen():
    """A length of one element too many is an error."""
    done = sanitize("unguarded")
    assert done.returncode != 0
    assert "scaling.py" in done.stdout


def test_every_kernel_is_clean():
    """None reads or writes outside: blocks with a rest, several blocks, few classes, maps."""
    done = sanitize()
    assert done.returncode == 0, (done.stdout + done.stderr)[-2_000:]
    names = done.stdout.splitlines()[-1].split()
    assert int(names[0]) == len(names) - 1 == 11
