"""Which weights go: a score per weight in, a boolean mask out. Pure tensors, no model.

Everything here is one operation, "the k smallest of each row", applied to different arrangements of the score matrix:
a row per output, one row for the whole layer, a row per input, or a row per M consecutive inputs.
"""

import re

import numpy as np
import torch

GROUPS = ("output", "layer", "input")
PANEL = {"cpu": 1 << 18, "other": 1 << 25}  # scores looked at in one go: a GPU takes many, so as to be busy
SHORT = 4  # entries of a row; longer ones are quicker to select from than to sort, on a CPU


def prune_mask(score, sparsity=0.5, pattern=None, group="output"):
    """Mark the lowest-scoring weights of each comparison group.

    Args:
        score: Tensor [out, in]; the smaller, the sooner pruned. May hold infinities, not NaN.
        sparsity: fraction of each group to prune, in [0, 1). Not used when `pattern` is given.
        pattern: None, or "N:M": at most N of each M consecutive inputs of an output are kept ("2:4", "4:8", "1:4").
        group: the weights that compete with each other: "output" (a row, Wanda's choice), "layer" (all of them,
            magnitude's choice) or "input" (a column). An N:M pattern is a grouping of its own: leave it at "output".

    Returns:
        Bool tensor [out, in], True where the weight is pruned. Each group loses exactly `round(sparsity * size)`
        weights (M - N with a pattern); ties go in order of position, so the same scores always give the same mask.

    Raises:
        ValueError, TypeError: a value outside what is allowed, or a width that M does not divide.

    Source: Wanda (arXiv 2306.11695), section 3.
    """
    if score.ndim != 2:
        raise ValueError(f"score must be a matrix [out, in], got shape {tuple(score.shape)}")
    if torch.isnan(score).any():
        raise ValueError("score has NaN entries; there is no order to prune by")
    check_group(group, pattern)
    if pattern is not None:
        check_width(score.shape[1], pattern)
    else:
        check_sparsity(sparsity)
    return lowest(score, sparsity, pattern, group)


def lowest(score, sparsity, pattern, group):
    """`prune_mask` for what has been checked already: looking for NaN makes the program wait for a GPU."""
    outputs, width = score.shape
    if pattern is not None:
        keep, size = parse_pattern(pattern)
        return smallest(score.reshape(-1, size), size - keep).reshape(outputs, width)
    if group == "output":
        return smallest(score, round(sparsity * width))
    if group == "layer":
        return smallest(score.reshape(1, -1), round(sparsity * score.numel())).reshape(outputs, width)
    return smallest(score.T, round(sparsity * outputs)).T.contiguous()


def smallest(rows, count):
    """Bool tensor [rows, n]: True at exactly the `count` smallest entries of each row, earliest position first on a tie."""
    marked = torch.zeros(rows.shape, dtype=torch.bool, device=rows.device)
    if count == 0 or rows.numel() == 0:
        return marked
    on_cpu = rows.device.type == "cpu"
    mark = _mark_by_selecting if on_cpu and rows.shape[1] > SHORT else _mark_by_sorting
    height = max(1, PANEL["cpu" if on_cpu else "other"] // rows.shape[1])
    for start in range(0, len(rows), height):  # rows do not know of each other: some at a time need less memory
        few = slice(start, start + height)
        mark(rows[few], count, marked[few])
    return marked


def _mark_by_sorting(rows, count, marked):
    """What `smallest` does, into a bool tensor of the same shape; on any device, and without a wait for it."""
    order = rows.sort(dim=1, stable=True).indices  # equal entries stay in order of position
    marked.scatter_(1, order[:, :count], True)


def _mark_by_selecting(rows, count, marked):
    """The same on a CPU: everything below the entry of that rank, and as many of its equals as are missing."""
    panel = PANEL["cpu"]
    threshold = _kth_smallest(rows, count)  # [rows, 1]
    below = torch.lt(rows, threshold, out=marked)
    tied = rows == threshold
    missing = count - _count(below, panel)  # how many of the tied entries each row still has to give up
    if not torch.equal(_count(tied, panel), missing):
        _keep_first(tied, missing, panel)
    below |= tied


def _count(marked, panel):
    """How many entries of each row are True [rows, 1]. PyTorch widens what it adds up to 8 bytes: a part at a time."""
    first, *others = (part.sum(dim=1, keepdim=True) for part in marked.split(panel, dim=1))
    return sum(others, first)


def _keep_first(marked, counts, panel):
    """Leave, in each row of a bool tensor [rows, n], only the first `counts` [rows, 1] marks."""
    seen = None
    for part in marked.split(panel, dim=1):
        ranks = part.cumsum(dim=1, dtype=torch.int32)
        if seen is not None:
            ranks += seen
        part &= ranks <= counts
        seen = ranks[:, -1:]


def _kth_smallest(rows, count):
    """The value [rows, 1] at rank `count` of each row, on a CPU."""
    # Selection needs no full order: numpy's introselect is 20 to 50 times faster than a sort on a CPU.
    exact = rows.detach() if rows.dtype in (torch.float32, torch.float64) else rows.detach().float()
    ranked = np.partition(exact.numpy(), count - 1, axis=1)
    return torch.from_numpy(ranked[:, count - 1 : count].copy()).to(rows.dtype)


def parse_pattern(pattern):
    """The numbers (N, M) of a pattern "N:M": keep at most N of every M consecutive inputs."""
    match = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    if match is None:
        raise ValueError(f"pattern must be None or 'N:M' such as '2:4', got {pattern!r}")
    keep, size = int(match[1]), int(match[2])
    if not 1 <= keep <= size:
        raise ValueError(f"pattern 'N:M' keeps N of every M weights, so 1 <= N <= M is needed; got {pattern!r}")
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
            f"pattern {pattern!r} compares M consecutive inputs of one output; it cannot be joined with group={group!r}"
        )
