"""The whole hostile corpus: ``python -m tests.hostile [SEED]``, from the project's folder."""

import json
import os
import subprocess
import sys
import tempfile

import torch

from tests.hostile import files, runs, serving

RUNS, FILES, REQUESTS = 3_000, 2_000, 10_000


def kills() -> int:
    """Kill trainings before every change that they make on the disk; it forks, so it is apart."""
    if not hasattr(os, "fork"):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.hostile.kills", folder, "1"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    result = json.loads(done.stdout)
    print("\n".join([*result["failed"], f"{result['kills']} kills"]))  # noqa: T201
    return len(result["failed"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    failed = runs.main(RUNS, seed) + kills() + files.main(FILES, seed)
    failed += serving.main(REQUESTS, seed)
    sys.exit(min(failed, 1))
