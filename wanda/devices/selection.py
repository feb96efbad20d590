"""The k smallest entries of each row: by selection or comparison on all CPU cores, by a stable sort elsewhere.

Pure tensors. All three ways mark the same entries.
"""

import numpy as np
import torch

from .cpu_threads import each

PANEL = {"cpu": 1 << 18, "other": 1 << 25}  # entries per step; a GPU needs many to be busy
SHORT = 8  # entries of a row up to which comparing all pairs is faster on a CPU than selecting


def smallest(rows, count):
    """Bool tensor [rows, n]: True at exactly the `count` smallest entries of each row; of equal ones, the first."""
    marked = torch.zeros(rows.shape, dtype=torch.bool, device=rows.device)
    if count == 0 or rows.numel() == 0:
        return marked
    on_cpu = rows.device.type == "cpu"
    way_on_cpu = _mark_by_selecting if rows.shape[1] > SHORT else _mark_by_comparing
    mark = way_on_cpu if on_cpu else _mark_by_sorting
    height = max(1, PANEL["cpu" if on_cpu else "other"] // rows.shape[1])
    panels = list(zip(rows.split(height), marked.split(height), strict=True))  # rows are independent
    threads = min(torch.get_num_threads(), len(panels)) if on_cpu else 1
    for _ in each(lambda panel: mark(panel[0], count, panel[1]), panels, threads):
        pass
    return marked


def _mark_by_sorting(rows, count, marked):
    """Mark the `count` smallest entries of each row in a bool tensor of the same shape; on any device, without a sync."""
    order = rows.sort(dim=1, stable=True).indices  # stable: equal entries stay in order
    marked.scatter_(1, order[:, :count], True)


def _mark_by_comparing(rows, count, marked):
    """The same on a CPU, for rows of a few entries: mark those that come after fewer than `count` others of their row."""
    columns = rows.T.contiguous()  # [n, rows]
    before = columns[:, None] <= columns  # [n, n, rows]: entry i comes before entry j, right where i < j
    for j in range(1, len(columns)):
        torch.logical_not(before[:j, j], out=before[j, :j])  # so of equal entries the first comes before
    before.diagonal(dim1=0, dim2=1).zero_()
    torch.lt(before.sum(dim=0, dtype=torch.int8).T, count, out=marked)


def _mark_by_selecting(rows, count, marked):
    """The same on a CPU: mark the entries below the one of rank `count`, then the first of its equals."""
    panel = PANEL["cpu"]
    threshold = _kth_smallest(rows, count)  # [rows, 1]
    below = torch.lt(rows, threshold, out=marked)
    tied = rows == threshold
    missing = count - _count(below, panel)  # how many tied entries of each row to mark
    if not torch.equal(_count(tied, panel), missing):
        _keep_first(tied, missing, panel)
    below |= tied


def _count(marked, panel):
    """The number of True entries in each row [rows, 1], a part at a time: PyTorch widens each to 8 bytes for the sum."""
    first, *others = (part.sum(dim=1, keepdim=True) for part in marked.split(panel, dim=1))
    return sum(others, first)


def _keep_first(marked, counts, panel):
    """Keep only the first `counts` [rows, 1] marks in each row of a bool tensor [rows, n]."""
    seen = None
    for part in marked.split(panel, dim=1):
        ranks = part.cumsum(dim=1, dtype=torch.int32)
        if seen is not None:
            ranks += seen
        part &= ranks <= counts
        seen = ranks[:, -1:]


def _kth_smallest(rows, count):
    """The value [rows, 1] of rank `count` in each row, on a CPU."""
    # Selection needs no full order: numpy's introselect is 20 to 50 times faster than a sort on a CPU.
    exact = rows.detach() if rows.dtype in (torch.float32, torch.float64) else rows.detach().float()
    ranked = np.partition(exact.numpy(), count - 1, axis=1)
    return torch.from_numpy(ranked[:, count - 1 : count].copy()).to(rows.dtype)
