"""Search the Python objects that a metric can reach for the text it is judged on. A search, not a proof.

A function carries more than its arguments: the variables of its enclosing function, its defaults, the globals that it
names, and everything these hold. `find` follows them, and reports pieces of the evaluation text and the function that
loads it. It misses what was computed from the text elsewhere (a gradient or a mask looks like any other tensor), a
reordered or re-encoded text, a file that the function reads, and the contents of a module that the function names.
"""

import inspect
import sys
import types

import numpy as np
import torch

from wanda.sources.text import eval_tokens

RUN = 32  # consecutive token ids; different documents rarely share this many
PASSAGE = 100  # characters
LIBRARIES = {
    "torch",
    "transformers",
    "numpy",
    "pandas",
    "matplotlib",
    "tqdm",
    "wanda",
    "wanda_course",
} | sys.stdlib_module_names
CARRIERS = (
    "__func__",
    "__self__",
    "__wrapped__",
    "func",
    "args",
    "keywords",
)  # of methods, decorated functions, partials


def find(function, texts, strings=()):
    """Search everything that a function holds or names for the evaluation texts.

    Args:
        function: the metric: a function, method, partial or callable object.
        texts: the evaluation texts, each a LongTensor [n]. They are cut into pieces of `RUN` ids, and each piece is
            searched for, so 2 * RUN - 1 consecutive ids are always found.
        strings: the same texts as strings, to search strings as well, in pieces of `PASSAGE` characters.

    Returns: list of sentences, one per finding; empty if nothing was found.

    Raises: TypeError: not callable. ValueError: a text is too short to be recognised.
    """
    if not callable(function):
        raise TypeError(f"a metric must be callable, got {type(function).__name__}")
    if min(map(len, texts)) < RUN:
        raise ValueError(f"an evaluation text needs at least {RUN} tokens to be recognised, got {min(map(len, texts))}")
    runs = [piece.tobytes() for text in texts for piece in _pieces(_ids(text), RUN)]
    passages = [piece for string in strings for piece in _pieces(string, PASSAGE)]
    findings = []
    for thing, path in _reachable(function):
        if thing is eval_tokens or (_is_own_function(thing) and "eval_tokens" in _names(thing.__code__)):
            findings.append(f"{path} loads the evaluation text (eval_tokens)")
        ids = _ids(thing)
        if ids is not None and any(map(ids.tobytes().__contains__, runs)):
            findings.append(f"{path} holds {RUN} or more consecutive tokens of the evaluation text")
        if isinstance(thing, str) and any(passage in thing for passage in passages):
            findings.append(f"{path} holds a passage of the evaluation text")
    return findings


def _pieces(sequence, size):
    """Cut a sequence into pieces of one size, and drop the remainder."""
    return [sequence[start : start + size] for start in range(0, len(sequence) - size + 1, size)]


def _ids(thing):
    """Anything that may be token ids, as one row of int64; else None. Ids stored as floats count."""
    if isinstance(thing, torch.Tensor):
        thing = thing.detach().cpu()
        thing = (thing.float() if thing.is_floating_point() else thing).numpy()
    elif not isinstance(thing, np.ndarray):
        if not isinstance(thing, (list, tuple)) or not all(isinstance(item, int) for item in thing):
            return None
        thing = np.asarray(thing)
    row = thing.reshape(-1)
    if (
        row.dtype.kind not in "iuf" or not _are_whole(row[:1000]) or not _are_whole(row)
    ):  # check a prefix first: it is quick
        return None
    return row.astype(np.int64)


def _are_whole(row):
    return bool((np.abs(row) < 2**31).all() and (row == np.trunc(row)).all())  # never true of NaN


def _reachable(function):
    """Every object reachable from a function, once, with its path in words."""
    seen, waiting = {}, [(function, getattr(function, "__name__", type(function).__name__))]
    while waiting:
        thing, path = waiting.pop()
        if id(thing) not in seen:
            seen[id(thing)] = thing  # keep it alive: a freed object's id may be reused
            yield thing, path
            waiting += [(part, f"{path} → {name}") for name, part in _parts(thing)]


def _parts(thing):
    """(name, object) for each object that an object refers to. Skips modules, and libraries' functions and classes."""
    if _is_own_function(thing):
        yield from zip(
            thing.__code__.co_freevars, (cell.cell_contents for cell in thing.__closure__ or ()), strict=True
        )
        for parameter in inspect.signature(thing, follow_wrapped=False).parameters.values():
            yield parameter.name, parameter.default
        names = sorted(_names(thing.__code__))
        yield from ((name, thing.__globals__[name]) for name in names if name in thing.__globals__)
    elif isinstance(thing, dict):
        yield from ((str(key), value) for key, value in thing.items())
    elif isinstance(thing, (list, tuple, set, frozenset)):
        yield from (("an item", item) for item in thing if not isinstance(item, (int, float)))
    elif isinstance(thing, type):
        yield from () if _of_a_library(thing) else vars(thing).items()
    elif not isinstance(thing, (types.ModuleType, torch.Tensor)):
        yield "its class", type(thing)
    if not isinstance(thing, (types.ModuleType, torch.Tensor, type)):
        yield from getattr(thing, "__dict__", {}).items()
        yield from ((name, getattr(thing, name)) for name in CARRIERS if hasattr(thing, name))


def _is_own_function(thing):
    return isinstance(thing, types.FunctionType) and not _of_a_library(thing)


def _of_a_library(thing):
    return (getattr(thing, "__module__", None) or "").partition(".")[0] in LIBRARIES


def _names(code):
    """All names that a piece of code uses, including in its inner functions and comprehensions."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))
