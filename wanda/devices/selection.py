"""The k smallest entries of each row, quickly: a selection on the CPU's cores, a stable sort elsewhere. Pure tensors."""

import numpy as np
import torch

from .cpu_threads import each

PANEL = {"cpu": 1 << 18, "other": 1 << 25}  # entries per step: a GPU takes many, to be busy
SHORT = 4  # entries of a row; longer rows are quicker to select from than to sort, on a CPU


def smallest(rows, count):
    """Bool tensor [rows, n]: True at exactly the `count` smallest entries of each row, earliest position first on a tie."""
    marked = torch.zeros(rows.shape, dtype=torch.bool, device=rows.device)
    if count == 0 or rows.numel() == 0:
        return marked
    on_cpu = rows.device.type == "cpu"
    mark = _mark_by_selecting if on_cpu and rows.shape[1] > SHORT else _mark_by_sorting
    height = max(1, PANEL["cpu" if on_cpu else "other"] // rows.shape[1])
    panels = list(zip(rows.split(height), marked.split(height), strict=True))  # rows are independent
    threads = min(torch.get_num_threads(), len(panels)) if on_cpu else 1
    for _ in each(lambda panel: mark(panel[0], count, panel[1]), panels, threads):
        pass
    return marked


def _mark_by_sorting(rows, count, marked):
    """What `smallest` does, into a bool tensor of the same shape; on any device, without a sync."""
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
