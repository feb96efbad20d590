"""Kill `prune_checkpoint` repeatedly, and check how its next run resumes. Run by test_streaming.py.

    python tests/streaming/interruptions.py random|operation SOURCE FOLDER

Kills at random moments, or at every step that changes a folder. Prints a JSON list of the outcomes. The runs are forked
from this process, which has the imports but never computes, so each takes a fraction of a second and can be killed by
SIGKILL: at once, without cleanup. What a killed process has written survives it, synced or not.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

import wanda
from wanda.sources.checkpoints import find_folder
from wanda.streaming.empty_model import Skeleton

CALIBRATION = torch.arange(96).reshape(4, 24)
RANDOM_KILLS = 12


def fork(work):
    """Run a function in a child process. Returns its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def end_of(child):
    """The exit status of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying_at(operation, run):
    """`run`, killed right before its n-th step that changes a folder."""
    count = 0

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(*arguments, **options):
            nonlocal count
            if operation == count:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return original(*arguments, **options)

        setattr(owner, name, watched)

    def watched_run():
        for owner, name in ((os, "replace"), (pathlib.Path, "unlink"), (pathlib.Path, "mkdir"), (shutil, "rmtree")):
            watch(owner, name)
        run()

    return watched_run


def content(folder):
    """The files of a folder: name -> bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def finished_blocks(target):
    """The number of blocks in the journal of an unfinished run; None if there is no journal."""
    journal = target / ".pruning" / "journal.json"
    return len(json.loads(journal.read_text())["blocks"]) if journal.is_file() else None


def main():
    kind, source, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None
    Skeleton(find_folder(source))  # makes transformers import the model's code here, not in every child
    chosen = random.Random(0)

    def run(target):
        return lambda: wanda.prune_checkpoint(source, target, CALIBRATION, progress=False)

    seconds = []
    for name in ("warm", "expected"):
        began = time.perf_counter()
        assert end_of(fork(run(folder / name))) == 0
        seconds.append(time.perf_counter() - began)
    expected, record = content(folder / "expected"), []

    def interrupt_and_resume(kind, point, child, target):
        status = end_of(child)
        blocks = finished_blocks(target)
        again = None
        whole = (target / "model.safetensors.index.json").exists() and blocks is None
        if not whole:
            again = end_of(fork(run(target)))
        record.append({"kind": kind, "point": point, "status": status, "blocks": blocks, "again": again})
        for remains in target.glob(".pruning"):
            remains.rmdir()  # fails unless it is empty: a kill between the last two steps leaves the empty folder
        record[-1]["same"] = content(target) == expected
        shutil.rmtree(target)
        return status

    longest, kills = seconds[-1], 0
    while kind == "random" and kills < RANDOM_KILLS:
        target, point = folder / f"random-{len(record)}", chosen.uniform(0, longest)
        child = fork(run(target))
        time.sleep(point)
        os.kill(child, signal.SIGKILL)
        if interrupt_and_resume("random", point, child, target) == 0:
            longest = point  # the run ended before the kill: the machine was busier when `longest` was measured
        else:
            kills += 1
    for operation in range(1000 if kind == "operation" else 0):
        target = folder / f"operation-{operation}"
        child = fork(dying_at(operation, run(target)))
        if interrupt_and_resume("operation", operation, child, target) == 0:
            break
    print(json.dumps(record))


if __name__ == "__main__":
    main()
