"""The journal of a streaming run, kept beside its output, so that an interrupted run can resume."""

import hashlib
import json
import shutil
from contextlib import contextmanager
from importlib.metadata import version

import torch
from filelock import FileLock, Timeout

from ..devices.distributed import digest
from ..report import LayerReport
from ..sources.checkpoints import companions
from ..sources.download import check_writable
from .safetensors_files import INDEX, WHOLE, write_json

FOLDER, FILE = ".pruning", "journal.json"


class Journal:
    """The finished blocks of a run.

    Attributes:
        folder: of the journal and of temporary files.
        run: the run's description, see `describe_run`.
        blocks: per finished block, a list of `LayerReport`.
        phases, seconds: so far, as in `PruneReport`.
    """

    def __init__(self, folder, run):
        self.folder, self.run = folder, run
        self.blocks, self.phases, self.seconds = [], {}, 0.0

    def add(self, reports, phases, seconds):
        """Record a finished block, whose output is on the disk."""
        self.blocks.append(reports)
        self.phases, self.seconds = dict(phases), seconds
        self.write()

    def write(self):
        """Write the journal atomically."""
        blocks = [[vars(layer) for layer in reports] for reports in self.blocks]
        content = {"run": self.run, "seconds": self.seconds, "phases": self.phases, "blocks": blocks}
        write_json(self.folder / FILE, content | {"sha256": _sha256(content)})

    def read(self):
        """Read the journal of an interrupted run.

        Raises: ValueError: it is damaged, or belongs to another run; the message says what differs.
        """
        path = self.folder / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            is_whole = content.pop("sha256") == _sha256(content)
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            is_whole = False
        if not is_whole:
            raise ValueError(f"{str(path)!r} is damaged; remove {str(self.folder.parent)!r} to start again")
        different = _differences(content["run"], self.run)
        if different:
            raise ValueError(
                f"{str(self.folder.parent)!r} holds an unfinished run that differs from this one: {'; '.join(different)}. "
                "Repeat the original call to resume it, or remove the folder to start again"
            )
        self.phases, self.seconds = content["phases"], content["seconds"]
        for reports in content["blocks"]:
            self.blocks.append([LayerReport(**(layer | {"shape": tuple(layer["shape"])})) for layer in reports])


def check_target(target):
    """Raise ValueError if a target holds anything but an unfinished run. Returns whether it holds one."""
    check_writable(target)
    present = {path.name for path in target.iterdir()} if target.exists() else set()
    if (target / FOLDER / FILE).is_file():
        return True
    if present - {FOLDER}:
        finished = " (it holds a complete checkpoint: a finished run?)" if {INDEX, WHOLE} & present else ""
        raise ValueError(f"{str(target)!r} exists already and is not an empty folder{finished}")
    return False


@contextmanager
def journal_in(target, run):
    """The journal of a run that writes into `target`: a new one, or an interrupted run's. Removed when the run finishes.

    Raises: ValueError: the target holds another run, or another process is writing into it.
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
        if leftover.name != FILE:  # remove the journal last: until then, an interrupted clean-up can resume
            leftover.unlink()
    shutil.rmtree(journal.folder)


def describe_run(folder, stored, batches, sparsities, device, **options):
    """All that a run's bits depend on, as a dict for JSON.

    Functions are compared by module and name only.
    """
    files = {tensor.file for tensor in stored.values()} | {folder / path for path in companions(folder)}
    described = {
        name: f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
        if callable(value)
        else value
        for name, value in options.items()
    }
    described |= {
        "sparsity": sparsities,
        "calibration": digest(batches),
        "device": torch.device(device or "cpu").type,
        "source": {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(files)},
        "versions": {package: version(package) for package in ("torch", "transformers")},
    }
    return json.loads(json.dumps(described))


def _sha256(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _differences(before, now):
    """One phrase for each difference between two descriptions of runs."""
    phrases = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name == "calibration":
            phrases.append("the calibration data differs")
        elif name == "source":
            changed = sorted(file for file in {*old, *new} if old.get(file) != new.get(file))
            phrases.append(f"the source differs or has changed ({', '.join(changed)})")
        elif name == "sparsity":
            layer = next(layer for layer in {**old, **new} if old.get(layer) != new.get(layer))
            phrases.append(f"sparsity of {layer} was {old.get(layer)}, now {new.get(layer)}")
        else:
            phrases.append(f"{name} was {old!r}, now {new!r}")
    return phrases
