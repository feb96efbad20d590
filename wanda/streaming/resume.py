"""What a streaming run has finished, kept beside what it writes, so that it can go on after any interruption."""

import hashlib
import json
import shutil
from contextlib import contextmanager
from importlib.metadata import version

import torch
from filelock import FileLock, Timeout

from ..report import LayerReport
from .safetensors_files import INDEX, WHOLE, companions, write_json

FOLDER, FILE = ".pruning", "journal.json"


class Journal:
    """The finished blocks of a run with their reports. Attributes: `run` (see `describe_run`), `folder` for files
    that are of no use afterwards, `blocks` (a list of `LayerReport` per block), `phases` and `seconds` so far."""

    def __init__(self, folder, run):
        self.folder, self.run = folder, run
        self.blocks, self.phases, self.seconds = [], {}, 0.0

    def add(self, reports, phases, seconds):
        """A block is finished, and everything that it leaves is on the disk."""
        self.blocks.append(reports)
        self.phases, self.seconds = dict(phases), seconds
        self.write()

    def write(self):
        """Write the journal, in one step."""
        blocks = [[vars(layer) for layer in reports] for reports in self.blocks]
        content = {"run": self.run, "seconds": self.seconds, "phases": self.phases, "blocks": blocks}
        write_json(self.folder / FILE, content)

    def read(self):
        """Take up the journal that is there, if it is of the same run.

        Raises: ValueError saying what differs.
        """
        content = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
        different = _differences(content["run"], self.run)
        if different:
            raise ValueError(
                f"{str(self.folder.parent)!r} holds an unfinished run that is not this one: {'; '.join(different)}. "
                "Call it with what it was begun with, or remove the folder to begin anew"
            )
        self.phases, self.seconds = content["phases"], content["seconds"]
        for reports in content["blocks"]:
            self.blocks.append([LayerReport(**(layer | {"shape": tuple(layer["shape"])})) for layer in reports])


def check_target(target):
    """Refuse a target that holds anything but an unfinished run. Returns whether it holds one."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{str(target)!r} is a file; a new or empty folder is needed")
    present = {path.name for path in target.iterdir()} if target.exists() else set()
    if (target / FOLDER / FILE).is_file():
        return True
    if present - {FOLDER}:
        finished = " (it holds a whole checkpoint: a finished run?)" if {INDEX, WHOLE} & present else ""
        raise ValueError(f"{str(target)!r} exists already and is not an empty folder{finished}")
    return False


@contextmanager
def journal_in(target, run):
    """The journal of a run that writes into `target`: begun, or taken up. It is removed when the run is through.

    Raises: ValueError: a run with something else, or a running one, is there.
    """
    journal = Journal(target / FOLDER, run)
    journal.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(journal.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"another process is writing into {str(target)!r}") from error
    try:
        if (journal.folder / FILE).is_file():
            journal.read()
        else:
            journal.write()
        yield journal
    finally:
        lock.release()
    for leftover in journal.folder.iterdir():
        if leftover.name != FILE:  # while the journal is there, the run can be taken up, if only to clean up
            leftover.unlink()
    shutil.rmtree(journal.folder)


def describe_run(folder, stored, batches, sparsities, device, **options):
    """What must be the same for two runs to give the same bits, as a dict ready for JSON.

    A function has no content that could be compared: it counts as the same when its module and name are.
    """
    files = {tensor.file for tensor in stored.values()} | set(companions(folder))
    described = {
        name: f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
        if callable(value)
        else value
        for name, value in options.items()
    }
    described |= {
        "sparsity": sparsities,
        "calibration": _hash(batches),
        "device": torch.device(device or "cpu").type,
        "source": {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(files)},
        "versions": {package: version(package) for package in ("torch", "transformers")},
    }
    return json.loads(json.dumps(described))


def _hash(batches):
    digest = hashlib.sha256()
    for batch in batches:
        for name in ("input_ids", "attention_mask"):
            if name in batch:
                digest.update(f"{name} {tuple(batch[name].shape)}".encode())
                digest.update(batch[name].long().cpu().numpy().tobytes())
    return digest.hexdigest()


def _differences(before, now):
    """One phrase for each entry in which two descriptions of runs differ."""
    phrases = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name == "calibration":
            phrases.append("the calibration data is another")
        elif name == "source":
            changed = sorted(file for file in {*old, *new} if old.get(file) != new.get(file))
            phrases.append(f"the source is another or was changed ({', '.join(changed)})")
        elif name == "sparsity":
            layer = next(layer for layer in {**old, **new} if old.get(layer) != new.get(layer))
            phrases.append(f"sparsity of {layer} was {old.get(layer)}, now {new.get(layer)}")
        else:
            phrases.append(f"{name} was {old!r}, now {new!r}")
    return phrases
