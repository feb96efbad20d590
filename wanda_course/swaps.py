"""Exact swaps: move the zeros of a mask one pair at a time, while the layer's squared error falls. No weight is changed.

Source: SparseSwaps (arXiv 2512.10922). For a row w of a layer and d, which holds the weights that are pruned and 0
elsewhere, the squared error of the row is d H dT with H = sum of x xT. To prune k and restore u changes it by

    w_k^2 H_kk + 2 w_k c_k  +  w_u^2 H_uu - 2 w_u c_u  -  2 w_k w_u H_ku        with c = d H,

so a swap is judged, and c renewed, without looking at the data again.
"""

from functools import partial

import torch

CANDIDATES = 8  # of a row on either side: all pairs of these are compared
ROUNDS = 1000  # at most
LEAST = 1e-9  # a swap has to gain this share of what a row's weights would cost, each pruned by itself


def swap(weight, hessian, mask, pattern=None, *, candidates=CANDIDATES, rounds=ROUNDS):
    """Swap pruned and kept weights of each row as long as that lowers its squared error. An `update` for `wanda.prune`.

    Args:
        weight: Tensor [out, in]. hessian: Tensor [in, in], the sum of x xT over calibration tokens.
        mask: Bool tensor [out, in], True = pruned: where to begin.
        pattern: "N:M" where the mask has one: pairs are then taken within M consecutive inputs.
        candidates: how many of the kept weights that would cost least to prune, each by itself, and of the pruned ones
            that would gain most by coming back, are tried together. As many as there are: every pair.
        rounds: at most so many; in a round each group of M, or the whole row, may make its best swap.

    Returns: Tensor [out, in], the weight with as many zeros per row (per M inputs with a pattern) as the mask has.
    """
    w, hessian, pruned = weight.double(), hessian.double(), mask.clone()
    alone = w.square() * hessian.diagonal()  # [out, in], the error of pruning a weight by itself
    linked = (w * pruned) @ hessian  # [out, in], c
    size = w.shape[1] if pattern is None else int(pattern.split(":")[1])
    least = LEAST * alone.sum(dim=1)  # [out]
    rows = torch.arange(len(w), device=w.device)  # those that made a swap in the round before
    for _ in range(rounds):
        moved = torch.zeros(len(w), dtype=torch.bool, device=w.device)
        for start in range(0, w.shape[1], size):
            part = rows, slice(start, start + size)
            change, k, u = _best_pair(
                *(x[part] for x in (w, alone, linked, pruned)), hessian[part[1], part[1]], candidates
            )
            better = change < -least[rows]
            some, k, u = rows[better], start + k[better], start + u[better]
            pruned[some, k], pruned[some, u], moved[some] = True, False, True
            linked[some] += w[some, k, None] * hessian[k] - w[some, u, None] * hessian[u]
        rows = moved.nonzero()[:, 0]
        if len(rows) == 0:
            break
    return weight.masked_fill(pruned, 0)


def options(method, pattern=None):
    """The options of `wanda.prune` for a method of its own, or for "swaps": Wanda's masks, refined by swaps."""
    found = {"method": method, "pattern": pattern}
    return found if method != "swaps" else found | {"method": "wanda", "update": partial(swap, pattern=pattern)}


def _best_pair(w, alone, linked, pruned, hessian, candidates):
    """The best swap of each row of a group [rows, M]: change of the squared error, weight to prune, weight to restore."""
    near, count = 2 * w * linked, min(candidates, w.shape[1])
    cost, kept = (alone + near).masked_fill(pruned, torch.inf).topk(count, largest=False)  # [rows, count]
    gain, back = (alone - near).masked_fill(~pruned, torch.inf).topk(count, largest=False)
    both = w.gather(1, kept)[:, :, None] * w.gather(1, back)[:, None] * hessian[kept[:, :, None], back[:, None]]
    change, best = (cost[:, :, None] + gain[:, None] - 2 * both).flatten(1).min(dim=1)  # over [rows, count * count]
    return change, kept.gather(1, best[:, None] // count)[:, 0], back.gather(1, best[:, None] % count)[:, 0]
