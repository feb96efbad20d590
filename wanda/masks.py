"""Masks: a score per weight in, a bool tensor out, True where the weight is pruned. Pure tensors, no model.

Every mask marks the k smallest scores of each row; only the arrangement of the rows differs: a row per output, one for
the whole layer, a row per input, or a row per M consecutive inputs.
"""

import re

import numpy as np
import torch

from .devices.selection import smallest

GROUPS = ("output", "layer", "input")


def prune_mask(score, sparsity=0.5, pattern=None, group="output"):
    """Mark the lowest-scoring weights of each group.

    Args:
        score: Tensor [out, in]; the smallest are pruned. May hold infinities, not NaN.
        sparsity: fraction of each group to prune, in [0, 1). Ignored if `pattern` is given.
        pattern: None, or "N:M": at most N of each M consecutive inputs of an output are kept ("2:4", "4:8", "1:4").
        group: the weights that compete with each other: "output" (a row, as in Wanda), "layer" (all of them, as in
            magnitude pruning) or "input" (a column). A pattern has groups of its own and needs "output".

    Returns:
        Bool tensor [out, in], True where the weight is pruned: exactly `round(sparsity * size)` weights of each group
        (M - N with a pattern). Of equal scores the first in position are pruned.

    Raises:
        ValueError, TypeError: an argument outside its range, NaN scores, or a width that M does not divide.

    Source: Wanda (arXiv 2306.11695), section 3.
    """
    if not isinstance(score, torch.Tensor):
        raise TypeError(f"score must be a tensor [out, in], got {type(score).__name__}")
    if score.ndim != 2:
        raise ValueError(f"score must be a matrix [out, in], got shape {tuple(score.shape)}")
    if torch.isnan(score).any():
        raise ValueError("score has NaN entries, which have no rank")
    check_group(group, pattern)
    if pattern is not None:
        check_width(score.shape[1], pattern)
    else:
        check_sparsity(sparsity)
    return lowest(score, sparsity, pattern, group)


def lowest(score, sparsity, pattern, group):
    """Unvalidated `prune_mask`; the NaN check would force a GPU sync."""
    outputs, width = score.shape
    if pattern is not None:
        keep, size = parse_pattern(pattern)
        return smallest(score.reshape(-1, size), size - keep).reshape(outputs, width)
    if group == "output":
        return smallest(score, round(sparsity * width))
    if group == "layer":
        return smallest(score.reshape(1, -1), round(sparsity * score.numel())).reshape(outputs, width)
    return smallest(score.T, round(sparsity * outputs)).T.contiguous()


def parse_pattern(pattern):
    """The numbers (N, M) of a pattern "N:M", which keeps at most N of every M consecutive inputs."""
    match = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    if match is None:
        raise ValueError(f"pattern must be None or 'N:M' such as '2:4', got {pattern!r}")
    keep, size = int(match[1]), int(match[2])
    if not 1 <= keep <= size:
        raise ValueError(f"pattern 'N:M' keeps N of every M weights, so it needs 1 <= N <= M; got {pattern!r}")
    return keep, size


def check_width(width, pattern, layer="the score"):
    """Raise ValueError unless the pattern's M divides the number of inputs."""
    size = parse_pattern(pattern)[1]
    if width % size:
        raise ValueError(f"pattern {pattern!r} needs a width divisible by {size}; {layer} has {width} inputs")


def check_sparsity(sparsity, where="sparsity"):
    """Raise unless `sparsity` is a number in [0, 1)."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float, np.number)):
        raise TypeError(f"{where} must be a number in [0, 1), got {sparsity!r}")
    if not 0 <= sparsity < 1:
        raise ValueError(f"{where} must be in [0, 1): the fraction of weights to remove; got {sparsity!r}")


def check_group(group, pattern=None):
    """Raise ValueError unless `group` is known and does not contradict the pattern."""
    if group not in GROUPS:
        raise ValueError(f"group must be one of {', '.join(map(repr, GROUPS))}; got {group!r}")
    if pattern is not None and group != "output":
        raise ValueError(
            f"pattern {pattern!r} compares M consecutive inputs of one output; it cannot be combined with group={group!r}"
        )
