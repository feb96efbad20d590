"""Exact swaps: move the zeros of a mask one pair at a time, while the layer's squared error falls. No weight is changed.

Source: SparseSwaps (arXiv 2512.10922). For a row w of a layer and d, which holds the weights that are pruned and 0
elsewhere, the squared error of the row is d H dT with H = sum of x xT. To prune k and restore u changes it by

    w_k^2 H_kk + 2 w_k c_k  +  w_u^2 H_uu - 2 w_u c_u  -  2 w_k w_u H_ku        with c = d H,

so a swap is judged, and c renewed, without looking at the data again.
"""

import torch

CANDIDATES = 8  # of a row on either side: all pairs of these are compared
STEPS = 1000  # at most; a row takes one swap per step


def swap(weight, hessian, mask, pattern=None, *, candidates=CANDIDATES, steps=STEPS):
    """Swap pruned and kept weights of each row as long as that lowers its squared error. An `update` for `wanda.prune`.

    Args:
        weight: Tensor [out, in]. hessian: Tensor [in, in], the sum of x xT over calibration tokens.
        mask: Bool tensor [out, in], True = pruned: where to begin.
        pattern: "N:M" where the mask has one: pairs are then taken within M consecutive inputs.
        candidates: how many of the kept weights that would cost least to prune, each by itself, and of the pruned ones
            that would gain most by coming back, are tried together. As many as the row has weights: every pair.
        steps: at most so many swaps for each row.

    Returns: Tensor [out, in], the weight with as many zeros per row (per M inputs with a pattern) as the mask has.
    """
    w, hessian, pruned = weight.double(), hessian.double(), mask.clone()
    alone = w.square() * hessian.diagonal()  # [out, in], the error of pruning a weight by itself
    linked = (w * pruned) @ hessian  # [out, in], c
    open_rows = torch.arange(len(w), device=w.device)
    for _ in range(steps):
        row = w[open_rows]  # [rows, in]
        near = 2 * row * linked[open_rows]
        here, gone = alone[open_rows], pruned[open_rows]
        costs = (here + near).masked_fill(gone, torch.inf), (here - near).masked_fill(~gone, torch.inf)
        cost, kept, gain, back = _pairs(*costs, candidates, pattern)
        both = row.gather(1, kept) * row.gather(1, back)  # [rows, pairs]
        change, best = (cost + gain - 2 * both * hessian[kept, back]).min(dim=1)
        better = change < -1e-9 * here.sum(dim=1)
        open_rows, best = open_rows[better], best[better, None]
        if len(open_rows) == 0:
            break
        k, u = kept[better].gather(1, best)[:, 0], back[better].gather(1, best)[:, 0]
        pruned[open_rows, k], pruned[open_rows, u] = True, False
        linked[open_rows] += w[open_rows, k, None] * hessian[k] - w[open_rows, u, None] * hessian[u]
    return weight.masked_fill(pruned, 0)


def _pairs(cost, gain, candidates, pattern):
    """The pairs to compare: costs and places of the weights to prune and to restore, four tensors [rows, pairs]."""
    rows, width = cost.shape
    size = width if pattern is None else int(pattern.split(":")[1])
    count = min(candidates, size)
    grouped = cost.reshape(rows, -1, size), gain.reshape(rows, -1, size)  # [rows, groups, M]
    (cost, kept), (gain, back) = (values.topk(count, largest=False) for values in grouped)
    offset = torch.arange(0, width, size, device=cost.device)[:, None]  # of each group
    first = [(value[..., :, None].expand(-1, -1, -1, count)).flatten(1) for value in (cost, kept + offset)]
    second = [(value[..., None, :].expand(-1, -1, count, -1)).flatten(1) for value in (gain, back + offset)]
    return *first, *second
