"""Run answers in contained processes, from the marker's side: what goes in is data, and so is what comes out."""

import functools
import io
import os
import pickle
import pwd
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import fields
from pathlib import Path

import torch

from ..exercises.running import Outcome
from . import template
from .answers import Answer

PACKAGE = Path(__file__).resolve().parents[1]
MEMORY = 2 * 1024**3  # bytes that an answer may allocate
NAMESPACES = ("--net", "--pid", "--ipc", "--fork", "--kill-child")
GONE = -1001  # in place of a child's status
ORDINARY = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64} | {
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
}
MAX_TEXT = 1000  # characters of a message that an answer makes


class Unanswered(Exception):
    """An answer that gave no results; the message says why."""


@functools.cache
def namespaces():
    """The command that starts a process without network and without sight of others; empty where there is none."""
    if shutil.which("unshare") is None:
        return []
    command = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), *NAMESPACES]
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return [] if tried.returncode else command


def other_user():
    """The number of the user that an answer becomes where the marker runs as root; "" elsewhere."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else ""


def not_contained():
    """What answers could reach on this system: list of str, empty if nothing is known."""
    doors = []
    if not namespaces():
        owner = "your own" if os.geteuid() else "nobody's"
        doors.append(f"signals to {owner} processes, other answers among them (no process namespace by `unshare`)")
        if os.geteuid():
            doors.append("removing, renaming and creating files by name (no user namespace by `unshare`)")
    if not sys.platform.startswith("linux"):
        doors.append("memory (only Linux limits it)")
    return doors


class Sandbox:
    """A template process and the answers forked from it, one at a time. Use it in a `with`.

    Args:
        seconds: wall clock for each answer. memory: bytes for each answer.
    """

    def __init__(self, seconds=10.0, memory=MEMORY):
        self.seconds, self.memory = seconds, memory
        self.command, self.process = namespaces(), None

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="wanda-mark-")
        Path(self.folder.name).chmod(0o555)
        return self

    def __exit__(self, *_):
        self._stop()
        self.folder.cleanup()

    def _start(self):
        script = [sys.executable, template.__file__, PACKAGE, self.folder.name, other_user(), self.memory]
        self.process = subprocess.Popen(
            [*self.command, *map(str, script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C ends the marker, which then ends this
        )
        status, result = self._ask(Answer("def test():\n    return 1", "test"), pickle.dumps([()]))
        if status:
            raise RuntimeError(f"answers cannot be run here (status {status}): {result.decode()}")

    def _stop(self):
        if self.process is not None:
            self.process.stdin.close()  # it ends when it has ended the answer that it is running
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def run(self, answer, cases):
        """What an answer does on some cases.

        Args:
            answer: `answers.Answer`. cases: list of argument tuples, pickled.

        Returns: list of `Outcome`, as `run_all` gives it.

        Raises: Unanswered: it gave no results.
        """
        if self.process is None:
            self._start()
        status, result = self._ask(answer, cases)
        if status == GONE:
            self._stop()
            raise Unanswered("it ended the process that runs the answers")
        if status == template.LATE:
            raise Unanswered(f"it was stopped after {self.seconds:g} seconds")
        if len(result) > template.MAX_RESULT:
            raise Unanswered("its result is too large")
        if status:
            how = f"with status {status}" if status > 0 else f"by signal {-status}"
            raise Unanswered(f"it ended the process that ran it ({how})")
        return read(result)

    def _ask(self, answer, cases):
        """Returns: (status, result) as `template.watched` gives it; the status is GONE if the template has ended."""
        try:
            template.send(self.process.stdin.fileno(), pickle.dumps((answer.source, answer.name, cases, self.seconds)))
        except BrokenPipeError:
            return GONE, b""
        reply = template.receive(self.process.stdout.fileno())
        return (struct.unpack("<q", reply[:8])[0], reply[8:]) if reply else (GONE, b"")


def read(result):
    """The outcomes that a child reports. They are not trusted: they are read as plain data, and checked.

    Raises: Unanswered: these are no outcomes, or the child says why there are none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(result)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > template.MAX_RESULT:
                raise ValueError("too large")
        told = torch.load(io.BytesIO(result), map_location="cpu", weights_only=True)
        outcomes = told if isinstance(told, str) else [_outcome(one) for one in told]
    except Exception as error:  # whatever a forged file makes torch raise, it is no result
        raise Unanswered("it gave no readable result") from error
    if isinstance(outcomes, str):
        raise Unanswered(f"its code fails: {outcomes:.{MAX_TEXT}}")
    return outcomes


def _outcome(told):
    """An `Outcome` of what a child tells. Raises: TypeError or KeyError: it is none."""
    if type(told) is not dict:
        raise TypeError("not an outcome")
    value, error, message, line, changed, weights = (told[field.name] for field in fields(Outcome))
    texts = isinstance(message, str) and isinstance(line, str) and (error is None or isinstance(error, str))
    if not texts or not all(type(index) is int for index in changed):
        raise TypeError("not an outcome")
    return Outcome(_plain(value), _plain(error), _plain(message), _plain(line), tuple(changed), _plain(weights))


def _plain(value):
    """A result as `running.normal` gives it, of ordinary tensors. Raises: TypeError: it is another kind of thing."""
    if type(value) is tuple:
        return tuple(map(_plain, value))
    if type(value) is torch.Tensor:
        is_dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_nested
        return value if is_dense and value.dtype in ORDINARY else f"a tensor of {value.dtype}, {value.layout}"
    if value is None or type(value) is str:
        return value and value[:MAX_TEXT]
    raise TypeError(f"a result of type {type(value).__name__}")
