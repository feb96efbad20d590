"""Run a learner's function on the cases of an exercise, and note what it gives, raises and changes.

The marker's children load this file alone, without the solutions: it imports nothing of the course.
"""

import copy
import signal
import sys
import threading
import traceback
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


class TimeLimit(BaseException):
    """A learner's function ran too long. No `except Exception` of the function itself catches it."""


@dataclass(frozen=True)
class Outcome:
    """What a function did on a case.

    Attributes:
        value: as `normal` gives it; None if the function raised.
        error: the name of the exception's class, or None. message: the exception's. line: that it came from, if known.
        changed: places of the arguments that it changed and should not have.
        weights: for each argument that is a module, its parameters.
    """

    value: object = None
    error: str | None = None
    message: str = ""
    line: str = ""
    changed: tuple = ()
    weights: tuple = ()


def run(function, case):
    """Call a function with copies of the arguments in `case`. Returns: `Outcome`."""
    arguments = [clone(argument) for argument in case]
    value, failed = None, {}
    try:
        value = normal(function(*arguments))
    except (Exception, SystemExit) as problem:
        failed = _failed(problem, function)
    pairs = enumerate(zip(arguments, case, strict=True))
    changed = tuple(index for index, pair in pairs if not unchanged(*pair))
    modules = [argument for argument in arguments if isinstance(argument, torch.nn.Module)]
    weights = tuple(normal(tuple(module.parameters())) for module in modules)
    return Outcome(value, changed=changed, weights=weights, **failed)


def run_all(function, cases, seconds):
    """Call a function on each case, within a time limit for all of them.

    Returns: list of `Outcome`, one per case; if time was up, the last one has the error "TimeLimit", and the cases after
        it have none.
    """
    outcomes = []
    try:
        with time_limit(seconds):
            for case in cases:
                outcomes.append(run(function, case))
    except TimeLimit as error:
        if len(outcomes) < len(cases):
            outcomes.append(Outcome(**_failed(error, function) | {"message": f"{seconds:g} seconds"}))
    return outcomes


@contextmanager
def time_limit(seconds):
    """Within a `with`, raise `TimeLimit` in the code that runs when `seconds` are over, and each second from then on.

    It needs a POSIX system and the main thread, where Python delivers signals; elsewhere there is no limit. A single call
    into compiled code, such as the product of two huge matrices, is interrupted only when it returns.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    tracing, handler = sys.gettrace(), signal.signal(signal.SIGALRM, _interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
        sys.settrace(tracing)


def _interrupt(signum, frame):
    """Raise `TimeLimit` here, and again at the next line of each function that is running: a bare `except:` stops only one."""
    while frame is not None and frame.f_code is not run.__code__:
        frame.f_trace = _stop
        frame = frame.f_back
    sys.settrace(lambda *_: None)  # without a global trace function, those of the frames are not called
    raise TimeLimit


def _stop(frame, event, argument):
    if event == "line":
        raise TimeLimit
    return _stop


def _failed(error, function):
    """The attributes of an `Outcome` that tell of an exception."""
    return {"error": type(error).__name__, "message": str(error), "line": _line(error, function)}


def _line(error, function):
    """The line of the learner's own code that an error came from; empty if it cannot be told."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else ""


def clone(value):
    """A copy of an argument, so that whatever a function does to it, the case stays as it is."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if type(value) in (list, tuple):
        return type(value)(map(clone, value))
    return copy.deepcopy(value)


def unchanged(now, before):
    """Whether an argument is what it was. Of a module only hooks count: some exercises ask for new weights in place."""
    if isinstance(before, torch.Tensor):
        return now.shape == before.shape and torch.equal(torch.nan_to_num(now), torch.nan_to_num(before))
    if type(before) in (list, tuple):
        return len(now) == len(before) and all(map(unchanged, now, before))
    if isinstance(before, torch.nn.Module):
        return not any(module._forward_pre_hooks or module._forward_hooks for module in now.modules())
    return not isinstance(before, (bool, int, float, str, dict)) or now == before


def normal(value):
    """A result in the form in which results are compared: tensors, and tuples of them.

    A number is a tensor without dimensions: a float and a tensor that holds it are the same answer. A list is a tuple.
    Anything else is a string that describes it.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, (bool, int, float, np.ndarray, np.generic)):
        return torch.as_tensor(value, dtype=torch.float64 if type(value) is float else None)
    if isinstance(value, (tuple, list)):
        return tuple(map(normal, value))
    return f"{value!r:.40} ({type(value).__name__})"
