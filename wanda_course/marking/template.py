"""The process that answers are forked from. `sandbox` starts this file as a script; it imports nothing of the course.

It loads torch and `wanda` once, so that a child costs milliseconds. Solutions are not in its memory, and a child can
open no file to read them from. It reads requests from its standard input and writes replies to its standard output:
a length of 8 bytes, then as many bytes. What it reads comes from the marker and is unpickled; what it passes on from a
child is only bytes.
"""

import ctypes
import gc
import importlib
import importlib.util
import io
import linecache
import os
import pickle
import resource
import select
import signal
import struct
import sys
import time
import traceback
import types
from contextlib import suppress
from functools import partial

SECONDS_TO_END = 2  # beyond the limit, for a child that stops itself at the limit and still has to report
MAX_RESULT = 32_000_000  # bytes
LATE = -1000  # the status of a child that was ended because time was up
ANSWER = "<answer>"  # its file name, in tracebacks
NONE_ALLOWED = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 0,  # no file, socket or pipe beside those that are open
    resource.RLIMIT_NPROC: 1,  # no process or thread beside this one (root is exempt)
}
LIBRARY = """
    abc array bisect cmath collections.abc contextlib copy dataclasses decimal enum fractions functools heapq inspect io
    itertools json math numbers operator os random re statistics string sys textwrap threading time types typing warnings
    numpy numpy.fft numpy.linalg numpy.random torch torch.nn.functional torch.optim torch.utils.data
    transformers.models.llama.modeling_llama wanda wanda.admm wanda.masks wanda.scores wanda.sparsegpt wanda.tools.outliers
""".split()  # noqa: SIM905 (what an answer may import)


class OnlyLoaded:
    """The import system of an answer: what is loaded can be imported, nothing else."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Say that there is no such module."""
        raise ModuleNotFoundError(
            f"No module named {name!r}: an answer can import torch, numpy, wanda, standard modules"
        )


def load(name, path):
    """A module from a file, under a name without a package."""
    specification = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Cases(pickle.Unpickler):
    """Unpickles the marker's cases; their modules are of the classes in `exercises/toys.py`, loaded here by itself."""

    def find_class(self, module, name):
        """A class that a case is made of."""
        return super().find_class("toys" if module.endswith(".exercises.toys") else module, name)


def main(folder, empty, user, memory):
    """Serve until the standard input ends.

    Args:
        folder: the path of the course's package. empty: the path of an empty folder, which becomes the children's root
            where the system allows it. user: the number of the user that the children become, "" for no other.
        memory: bytes that an answer may allocate beyond what is loaded.
    """
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
    for name in LIBRARY:
        importlib.import_module(name)
    running = load("running", os.path.join(folder, "exercises", "running.py"))
    load("toys", os.path.join(folder, "exercises", "toys.py"))
    torch = sys.modules["torch"]
    torch.set_num_threads(1)
    torch.linalg.inv(torch.eye(2))  # torch loads its linear algebra on first use,
    torch.save([], io.BytesIO())  # and more to save a result
    sys.path.clear()
    sys.meta_path[:] = [OnlyLoaded]
    requests, replies, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.chdir(empty)
    space = address_space()
    limits = {resource.RLIMIT_AS: space + int(memory)} if space else {}
    gc.collect()
    gc.freeze()  # no garbage collection of what is loaded, which would copy it in each child
    while request := receive(requests):
        source, name, cases, seconds = pickle.loads(request)
        limits[resource.RLIMIT_CPU] = int(seconds) + SECONDS_TO_END + 1  # the wall clock ends it first
        status, result = watched(partial(answer, running, source, name, cases, seconds, limits, user), seconds)
        send(replies, struct.pack("<q", status) + result)


def address_space():
    """The bytes of address space in use; 0 where the system does not tell (and has no such limit either)."""
    if not os.path.exists("/proc/self/statm"):
        return 0
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def watched(child, seconds):
    """Call a function, which must not return, in a child process, and end whatever is left of it.

    Args:
        child: function(the descriptor to write its result to).

    Returns: (status, result): as os.waitstatus_to_exitcode gives it, or LATE; the bytes that the child wrote.
    """
    inlet, outlet = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(outlet)
    os.close(outlet)
    result, deadline = bytearray(), time.monotonic() + seconds + SECONDS_TO_END
    while (left := deadline - time.monotonic()) > 0 and len(result) <= MAX_RESULT:
        if select.select([inlet], [], [], left)[0]:
            part = os.read(inlet, 1 << 20)
            if not part:
                break
            result += part
    os.close(inlet)
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0 if ended else 0.001)
    with suppress(ProcessLookupError):  # nothing is left of its session, as it should be
        os.killpg(pid, signal.SIGKILL)
    if not ended:
        os.waitpid(pid, 0)
    if os.getpid() == 1 and os.getppid() == 0:  # alone in a process namespace: whoever else is here came from the child
        end_all()
    return os.waitstatus_to_exitcode(status) if ended else LATE, bytes(result)


def end_all():
    """Kill and collect every other process of the namespace."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)


def answer(running, source, name, cases, seconds, limits, user, report):
    """In the child: shut the doors, run the answer, report, and leave."""
    try:
        os.setsid()
        cases = Cases(io.BytesIO(cases)).load()
        confine(limits, user, report)
        result = io.BytesIO()
        sys.modules["torch"].save(run(running, source, name, cases, seconds), result)
        left = memoryview(result.getbuffer())
        while left:
            left = left[os.write(report, left) :]
        os._exit(0)
    except BaseException:
        os.write(report, traceback.format_exc().encode())  # for the marker's own test of the sandbox
    finally:  # a child must not go on as a template
        os._exit(70)


def confine(limits, user, report):
    """Give up what an answer does not need: files, network, processes, and the rights to get them back."""
    os.closerange(3, report)
    os.closerange(report + 1, 1024)
    for kind, value in (NONE_ALLOWED | limits).items():
        resource.setrlimit(kind, (value, value))
    if os.geteuid() == 0:
        os.chroot(".")
        if user:
            os.setgroups([])
            os.setgid(int(user))
            os.setuid(int(user))
        else:
            drop_capabilities()


def drop_capabilities():
    """Keep none of root's rights, in a user namespace that has no other user to become."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def run(running, source, name, cases, seconds):
    """What the answer does on the cases: list of an `Outcome`'s attributes, or a string that says why its code failed."""
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    given = {"math": "math", "np": "numpy", "torch": "torch", "wanda": "wanda"}
    vars(module).update({known: sys.modules[loaded] for known, loaded in given.items()})
    linecache.cache[ANSWER] = (len(source), None, source.splitlines(keepends=True), ANSWER)
    try:
        exec(compile(source, ANSWER, "exec"), vars(module))
        function = vars(module)[name]
    except (Exception, SystemExit) as error:
        lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == ANSWER]
        return f"{type(error).__name__}: {error}" + (f" (in `{lines[-1]}`)" if lines else "")
    if not callable(function):
        return f"TypeError: {name} is not a function"
    return [vars(outcome) for outcome in running.run_all(function, cases, seconds)]


def receive(stream):
    """The next message; b"" at the end."""
    length = read_exactly(stream, 8)
    return read_exactly(stream, struct.unpack("<Q", length)[0]) if length else b""


def read_exactly(stream, count):
    """So many bytes of a stream, or b"" if it ends before."""
    parts = bytearray()
    while len(parts) < count:
        part = os.read(stream, min(count - len(parts), 1 << 20))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def send(stream, message):
    """Write a message."""
    left = memoryview(struct.pack("<Q", len(message)) + message)
    while left:
        left = left[os.write(stream, left) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
