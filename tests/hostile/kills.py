"""Training killed before each single change that it makes on the disk, and what can be done then.

Run as a program: ``python -m tests.hostile.kills FOLDER STEP`` kills before every STEP-th change.
It forks, so it must be a process of its own. It prints one line of JSON: how many kills there were,
and every claim that did not hold.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

import luce
from luce.errors import ArgumentError, LuceError, RunError
from luce.run import Run

# What Python announces before it changes something on the disk.
CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}

# The exit codes of a child: as `kill -9` would leave it; training came to its end.
KILLED, ENDED = 9, 0


def data(seed):
    """Return forty rows in two classes."""
    y = np.arange(40) % 2
    return np.random.default_rng(seed).normal(size=(40, 3)) + y[:, None], y


def train(folder, **options):
    """Train a tiny network, or go on with it."""
    if "resume" not in options:
        options = {"model": "mlp", "hidden": (4,), "epochs": 2, **options}
    return luce.train(data(0), out=folder, name="run", **options)


def probabilities(folder):
    """Return what the run in the folder predicts."""
    return luce.load_run(folder / "run").predict_proba(data(1)[0])


def fork(work, *, kill_before=None, under=None):
    """Do work in a child, and kill it before its so-manieth change; return its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0

    def watch(event, arguments):
        nonlocal seen
        if event not in CHANGES or not str(arguments[0]).startswith(str(under)):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if seen == kill_before:
            os._exit(KILLED)
        seen += 1

    if kill_before is not None:
        sys.addaudithook(watch)
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - a child must never return
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(ENDED)


def claims(folder, before, after):
    """Yield what does not hold in a folder in which training was killed."""
    if before is not None:
        try:
            now = probabilities(folder)
        except LuceError as error:
            yield f"the run that was there cannot be loaded: {error}"
        else:
            if not (np.array_equal(now, before) or np.array_equal(now, after)):
                yield "what is there predicts neither as the old run nor as the new one"
    copy = shutil.copytree(folder, folder.with_name("copy"))
    if fork(lambda: train(copy, overwrite=True)) != ENDED:
        yield "--overwrite cannot replace it"
    shutil.rmtree(copy)

    def plain_or_resume():
        try:
            train(folder)
        except ArgumentError:
            train(folder, resume=True)

    if fork(plain_or_resume) != ENDED:
        yield "neither a plain training nor --resume can go on"
    left = {*folder.rglob(".*"), *folder.iterdir()} - {folder / "run"}
    if left:
        yield f"left behind: {sorted(str(each.relative_to(folder)) for each in left)}"


def main(folder, step):
    """Kill the first training of a name, one that replaces a run, and one that is resumed."""
    torch.set_num_threads(1)

    # The page is not what is looked at here, and drawing takes a second.
    def no_page(*_, **__):
        raise RunError("no page")

    Run.report_of = no_page
    train(folder / "warm")
    train(folder / "new", hidden=(5,))
    after = probabilities(folder / "new")
    failed, kills = [], 0
    for scenario in ("first", "overwrite", "resume"):
        for number in range(0, 1000, step):
            work = folder / f"{scenario}{number}"
            before, options = None, {}
            if scenario == "first":
                work.mkdir()
            if scenario == "overwrite":
                shutil.copytree(folder / "warm", work)
                before, options = probabilities(work), {"overwrite": True, "hidden": (5,)}
            if scenario == "resume":
                # As the last kill of the first scenario left it.
                shutil.copytree(folder / "half", work)
                options = {"resume": True}
            ended = fork(lambda o=options, w=work: train(w, **o), kill_before=number, under=work)
            if ended == ENDED:
                break
            kills += 1
            if ended != KILLED:
                failed.append(f"{scenario}, change {number}: training failed")
                break
            if scenario == "first" and (work / "run" / "checkpoints").is_dir():
                shutil.copytree(work, folder / "half", dirs_exist_ok=True)
            failed += [
                f"{scenario}, change {number}: {each}" for each in claims(work, before, after)
            ]
            shutil.rmtree(work)
    print(json.dumps({"kills": kills, "failed": failed}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
