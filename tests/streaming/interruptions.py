"""Kill `prune_checkpoint` again and again, and see what its next run makes of the remains. Run by test_streaming.py.

    python tests/streaming/interruptions.py random|operation SOURCE FOLDER

Kills at random moments, or at every step that changes a folder. Prints a JSON list of what happened. The runs are forked
from this process, which has the imports but never computes, so each costs a fraction of a second and can be killed as the
operating system kills: at once, with no last word. What a killed process has written survives it, synced or not.
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
from wanda.streaming.empty_model import Skeleton, find_folder

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
    """What a folder holds: name -> bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def finished_blocks(target):
    """What the journal of an unfinished run says; None where there is none."""
    journal = target / ".pruning" / "journal.json"
    return len(json.loads(journal.read_text())["blocks"]) if journal.is_file() else None


def main():
    kind, source, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None
    Skeleton(find_folder(source))  # has transformers import the model's code, here and not in every child
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
            remains.rmdir()  # fails unless it is empty: a kill between the last two steps leaves this much
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
            longest = point  # it was through before that: a machine that is busy for a while is not busy for ever
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
