"""Processes that train together, for tests: what a launcher does, without one."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def environment(rank, size, port):
    """Return the variables of a launcher for one rank; PyTorch computes with one thread."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    own |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1}
    paths = [str(Path(__file__).parents[1] / "src"), str(Path(__file__).parents[1])]
    return os.environ | {k: str(v) for k, v in own.items()} | {"PYTHONPATH": os.pathsep.join(paths)}


def outside(variables):
    """Return them without a launcher's, for what is to start ranks itself."""
    own = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return {name: value for name, value in variables.items() if name not in own}


def free_port():
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(command, size, *, cwd, timeout=120):
    """Run a command as all ranks of a group; return what each ended with: status, out, err."""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment(rank, size, port),
        )
        for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *each) for p, each in zip(processes, said, strict=True)]
