"""Compare results, and say in words how they differ. Results are as `running.normal` gives them."""

import re

import numpy as np
import torch

SHOWN = 24  # entries of a tensor that are still printed in full


def same(one, other, tolerance):
    """Whether two outcomes are alike: the same error, or the same value and the same weights in what was given."""
    if one.error is not None or other.error is not None:
        return (one.error, _without_index(one.message)) == (other.error, _without_index(other.message))
    return not difference((one.value, one.weights), (other.value, other.weights), tolerance)


def _without_index(message):
    """A message without a bad index: of several, PyTorch names the one that one of its threads meets first."""
    return re.sub(r"index -?\d+ is out of bounds", "index is out of bounds", message)


def difference(got, expected, tolerance):
    """What is wrong with a value, to go after "your function"; an empty string if nothing is."""
    if isinstance(expected, tuple):
        if not isinstance(got, tuple) or len(got) != len(expected):
            return f"returns {_kind(got)}; {_kind(expected)} is wanted"
        found = (difference(*pair, tolerance) for pair in zip(got, expected, strict=True))
        return next((f"{text} (item {place})" for place, text in enumerate(found) if text), "")
    if not isinstance(got, torch.Tensor) or got.shape != expected.shape:
        return f"returns {_kind(got)}; {_kind(expected)} is wanted"
    if _sort(got) != _sort(expected) and (_sort(got), _sort(expected)) != ("int", "float"):
        return f"returns values of dtype {_dtype(got)}; {_dtype(expected)} is wanted"
    if _sort(expected) == "int":
        tolerance = 0  # counts are exact, however large
    apart = ~torch.isclose(got.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
    if not apart.any():
        return ""
    place = tuple(apart.nonzero()[0].tolist())
    one, right = float(got[place]), float(expected[place])
    alike = f"{one:.4g}" == f"{right:.4g}"
    if alike and _sort(expected) == "float":
        return f"returns {one:.10g} where {right:.10g} is right. Is a part of it computed with fewer digits?"
    if got.numel() <= SHOWN:
        return f"returns\n  {brief(got)}\nbut this is right:\n  {brief(expected)}"
    digits = 10 if alike else 4
    return (
        f"returns {one:.{digits}g} at {list(place)}, where {right:.{digits}g} is right; "
        f"{int(apart.sum())} of {apart.numel()} entries differ"
    )


def _sort(tensor):
    if tensor.dtype == torch.bool:
        return "bool"
    return "float" if tensor.is_floating_point() else "int"


def _dtype(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def _kind(value):
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}" if value.ndim else f"a single {_sort(value)}"
    if isinstance(value, tuple):  # or a list: `normal` made it a tuple
        return f"a list or tuple of {len(value)}"
    return value


def brief(value):
    """An argument or a result in a line or a few."""
    if isinstance(value, torch.Tensor):
        if value.numel() > SHOWN:
            return f"a tensor of shape {list(value.shape)}"
        numbers = np.asarray(value.tolist())
        tiny = bool(((numbers != 0) & (np.abs(numbers) < 1e-3)).any())  # must not be printed as if it were zero
        style = {"formatter": {"float_kind": "{:.4g}".format}} if tiny else {"precision": 4, "suppress_small": True}
        return np.array2string(numbers, separator=", ", **style).replace("\n", "\n    ")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(brief, value)).join("()" if isinstance(value, tuple) else "[]")
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__}"
    return f"{value!r:.60}"
