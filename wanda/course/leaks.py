"""What a metric can reach that it must not know: the text it is judged by. A search through Python objects, no proof.

A function carries more than its arguments: variables of the function around it, defaults, and the globals it names.
`find` follows these, and whatever they hold, and reports tokens or passages of the evaluation text, and the function
that loads it. What was computed from the text elsewhere (a gradient, a mask) looks like any other tensor and is not
found; neither is a file read in the function.
"""

import dataclasses
import functools
import sys
import types

import numpy as np
import torch

from ..text import eval_tokens

RUN = 32  # consecutive token ids; two different documents hardly share as many
PASSAGE = 100  # characters
LIBRARIES = {"torch", "transformers", "numpy", "pandas", "matplotlib", "tqdm", "wanda"} | sys.stdlib_module_names
MULTIPLIERS = np.cumprod(np.full(RUN, 6364136223846793005, dtype=np.uint64))  # powers of an odd number, modulo 2^64
SEQUENCES = (list, tuple, set, frozenset)


def find(function, texts, strings=()):
    """Follow everything a function holds or names, and look for the evaluation texts in it.

    Args:
        function: what is to be judged: a function, method, partial or callable object.
        texts: the evaluation texts, each a LongTensor [n].
        strings: the same as strings, if strings are to be searched as well.

    Returns: list of sentences, one per finding; empty if nothing was found.

    Raises: TypeError: not callable. ValueError: a text is too short to be told from others.
    """
    if not callable(function):
        raise TypeError(f"a metric must be callable, got {type(function).__name__}")
    if min(map(len, texts)) < RUN:
        raise ValueError(f"an evaluation text needs at least {RUN} tokens to be recognised, got {min(map(len, texts))}")
    known = np.concatenate([_fingerprints(_whole_numbers(text)) for text in texts])
    findings = []
    for thing, path in _reachable(function):
        if thing is eval_tokens or "eval_tokens" in _names(thing) - set(getattr(thing, "__globals__", ())):
            findings.append(f"{path} loads the evaluation text (eval_tokens)")
        ids = _whole_numbers(thing)
        if ids is not None and np.isin(_fingerprints(ids), known).any():
            findings.append(f"{path} holds {RUN} or more consecutive tokens of the evaluation text")
        if isinstance(thing, str) and any(_share_a_passage(thing, string) for string in strings):
            findings.append(f"{path} holds a passage of the evaluation text")
    return findings


def _fingerprints(ids):
    """A 64-bit number for each run of RUN consecutive ids [n] -> [n - RUN + 1]. Equal runs, equal numbers."""
    return np.lib.stride_tricks.sliding_window_view(ids.astype(np.uint64), RUN) @ MULTIPLIERS


def _share_a_passage(string, text):
    """A common passage of 1.5 times PASSAGE contains a whole piece that starts at a multiple of half of PASSAGE."""
    starts = range(0, len(string) - PASSAGE + 1, PASSAGE // 2)
    return any(string[start : start + PASSAGE] in text for start in starts)


def _whole_numbers(thing):
    """Whatever may be token ids, as one row of int64; None if it cannot be."""
    if isinstance(thing, (list, tuple)) and len(thing) >= RUN and all(isinstance(item, int) for item in thing):
        return np.asarray(thing, dtype=np.int64)
    if isinstance(thing, torch.Tensor):
        thing = thing.detach().cpu()
        thing = (thing.float() if thing.dtype == torch.bfloat16 else thing).numpy()
    if not isinstance(thing, np.ndarray) or thing.dtype.kind not in "iuf" or thing.size < RUN:
        return None
    row = thing.reshape(-1)
    if row.dtype.kind == "f" and not (_all_whole(row[:1000]) and _all_whole(row)):
        return None  # ids kept as floats are still ids; weights and gradients are no whole numbers
    return np.ascontiguousarray(row, dtype=np.int64)


def _all_whole(row):
    return bool(np.isfinite(row).all() and (row == row.round()).all())


def _reachable(function):
    """Every object that can be reached from a function, with the way to it in words. Each once."""
    seen, waiting = {}, [(function, getattr(function, "__name__", type(function).__name__))]
    while waiting:
        thing, path = waiting.pop()
        if id(thing) not in seen:
            seen[id(thing)] = thing  # kept alive, so that its id stays its own
            yield thing, path
            waiting += [(part, f"{path} → {name}") for name, part in _parts(thing)]


def _parts(thing):
    """(name, object) of what an object leads to. Libraries and modules are not entered."""
    if isinstance(thing, types.FunctionType) and not _of_a_library(thing):
        yield from zip(thing.__code__.co_freevars, _contents(thing.__closure__ or ()), strict=True)
        yield from (("a default", value) for value in (thing.__defaults__ or ()))
        yield from (thing.__kwdefaults__ or {}).items()
        yield from ((name, thing.__globals__[name]) for name in _names(thing) if name in thing.__globals__)
    elif isinstance(thing, types.MethodType):
        yield from (("the method", thing.__func__), ("its object", thing.__self__))
    elif isinstance(thing, functools.partial):
        yield from (("the function", thing.func), *(("an argument", value) for value in thing.args))
        yield from thing.keywords.items()
    elif isinstance(thing, dict):
        yield from ((str(key), value) for key, value in thing.items())
    elif isinstance(thing, SEQUENCES):
        yield from (("an item", value) for value in thing if not isinstance(value, (int, float)))
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        yield from ((field.name, getattr(thing, field.name)) for field in dataclasses.fields(thing))
    elif not isinstance(thing, (type, types.ModuleType, torch.Tensor)) and not _of_a_library(type(thing)):
        yield from vars(thing).items() if hasattr(thing, "__dict__") else ()
        yield "its call", type(thing).__call__ if callable(thing) else None


def _contents(cells):
    return [cell.cell_contents if _filled(cell) else None for cell in cells]


def _filled(cell):
    """A cell is empty until its variable gets a value; there is no other way to ask."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _of_a_library(thing):
    return (getattr(thing, "__module__", None) or "").partition(".")[0] in LIBRARIES


def _names(thing):
    """All names that a function of the learner's uses, those of functions and comprehensions inside it included."""
    if not isinstance(thing, types.FunctionType) or _of_a_library(thing):
        return set()
    names, codes = set(), [thing.__code__]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return names
