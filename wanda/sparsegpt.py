"""SparseGPT: prune and repair with optimal-brain-surgeon updates. Pure tensors: weight + Hessian -> weight.

Columns are processed from left to right. When a weight is removed, the kept weights to its right in the same row move
to compensate; columns to its left stay fixed. All rows use the same order, so they share one factor of the inverse
Hessian. Source: SparseGPT (Frantar and Alistarh, arXiv 2301.00774), algorithm 1.
"""

import warnings
from functools import partial

import torch

from .devices.sweep import sweep
from .masks import check_sparsity, check_width, parse_pattern, smallest

BLOCK = 128  # columns whose errors are accumulated before the rest of the matrix is updated (the paper's B)
PANEL = {"cpu": 16, "other": 64}  # columns whose errors are accumulated before the rest of the block is updated
PRECISION = {"cpu": torch.float64, "other": torch.float32}  # of the factor and the repair, see `precision`
DAMPING = 0.01  # fraction of the mean diagonal added to it (the paper's lambda)


def sparsegpt(
    weight, hessian, sparsity=0.5, pattern=None, mask=None, *, block=BLOCK, damping=DAMPING, layer="the layer"
):
    """Prune a weight matrix and update the kept weights to change the layer's outputs as little as possible.

    Args:
        weight: Tensor [out, in].
        hessian: Tensor [in, in], the sum of x xT over calibration tokens.
        sparsity, pattern: as in `prune_mask`. Without a pattern, each block's mask is chosen over all its rows.
        mask: Bool tensor [out, in] (True = pruned) to use instead; then only the repair is done.
        layer: name for messages.

    Returns:
        (weight, mask): float32 [out, in] with exact zeros where mask is True, and the bool mask [out, in].

    Raises:
        ValueError: invalid sparsity or pattern. RuntimeError: the Hessian cannot be factorised even when heavily damped.
    """
    if pattern is None and mask is None:
        check_sparsity(sparsity)
    elif pattern is not None:
        check_width(weight.shape[1], pattern, layer)
    factor, dead = inverse_factor(hessian, damping, layer)
    return repair(weight, factor, dead, sparsity, pattern, mask, block=block)


def precision(device):
    """The dtype in which SparseGPT computes on a device.

    A rounding error in one column moves every later column, and then the mask. In float64 the result, rounded to float32,
    depends on neither the panel size nor the kernel, and takes about the same time. The rounding of the activations in the
    Hessian remains. GPUs use float32: float64 can be many times slower there, and Apple's GPUs have none.
    """
    return PRECISION.get(device.type, PRECISION["other"])


def inverse_factor(hessian, damping=DAMPING, layer="the layer"):
    """The upper Cholesky factor U of the inverse of the damped Hessian: UT U = (H + damping * mean(diag H) * I)^-1.

    Features that were always zero ("dead") have a zero row and column in H. A positive diagonal keeps H regular without
    affecting other features.

    Returns: (U [in, in] upper triangular, in the `precision` of its device; dead [in] bool).
    """
    hessian = hessian.to(precision(hessian.device))
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    alive = len(dead) - dead.sum()
    mean = torch.where(
        alive > 0, diagonal.masked_fill(dead, 0).sum() / alive.clamp(min=1), 1.0
    )  # no branch on a tensor value: it would force a GPU sync
    for attempt in range(4):
        damped = hessian.clone()
        damped.diagonal().add_(damping * mean + mean * dead)
        # Factor H from its last row to its first: H = R RT with R upper triangular, so H^-1 = (R^-1)T R^-1 and U = R^-1.
        # The inverse itself is never formed: that step would lose digits.
        flipped, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
        if not failed:
            del damped  # free each matrix before making the next
            factor = flipped.flip(0, 1)
            del flipped
            identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
            return torch.linalg.solve_triangular(factor, identity, upper=True), dead
        if attempt < 3:
            damping = 10 * damping
            warnings.warn(
                f"{layer}: the Hessian is not positive definite; trying again with damping {damping:g}", stacklevel=2
            )
    raise RuntimeError(
        f"{layer}: the Hessian could not be factorised even with damping {damping:g} of its mean diagonal; "
        "check the calibration data, or use method='wanda', which needs no factorisation"
    )


def repair(weight, factor, dead, sparsity=0.5, pattern=None, mask=None, *, price=None, group="layer", block=BLOCK):
    """Algorithm 1 of the paper, given the factor, which layers that read the same input share. See `sparsegpt`.

    Each column subtracts the errors of earlier columns in its panel. A panel's errors are applied to the rest of its block
    at once, and a block's to the rest of the matrix: the same sums in another order.

    Args:
        factor, dead: from `inverse_factor`; the repair computes in the factor's dtype.
        price: function (weight [out, b], columns) -> score [out, b] that the mask is chosen by, given the weights of a slice
            of b columns as repaired so far. By default, SparseGPT's own.
        group: which weights compete when a block's mask is chosen: "layer" (all of the block, as in SparseGPT), "output"
            (those of a row) or "input" (those of a column).
    """
    width = weight.shape[1]
    choose = mask is None
    keep, size = parse_pattern(pattern) if choose and pattern is not None else (None, 1)
    panel = PANEL.get(weight.device.type, PANEL["other"])
    block, panel = (max(size, columns - columns % size) for columns in (block, panel))  # no N:M group straddles two
    step = panel if keep is None else size  # columns whose mask is known at once
    # [in, out]: a column of W is contiguous here
    rest = weight.detach().T.to(factor.dtype, copy=True, memory_format=torch.contiguous_format)
    pruned = torch.zeros_like(rest, dtype=torch.bool) if choose else mask.T.contiguous()  # [in, out]
    errors = torch.empty_like(rest[:block])  # [b, out]
    pivots = factor.diagonal()  # [in]
    price = price or partial(_obs_price, pivots=pivots, dead=dead)
    for start in range(0, width, block):
        stop = min(start + block, width)
        here = slice(start, stop)
        if choose and pattern is None:
            pruned[here] = _cheapest(price(rest[here].T, here), sparsity, start, stop, group).T
        for first in range(start, stop, panel):
            last = min(first + panel, stop)
            few = slice(first, last)
            error = errors[first - start : last - start].zero_()  # [p, out]; zero for columns not yet processed
            coefficients = factor[few, few].triu(diagonal=1).T.contiguous()  # [p, p]: row j holds those of column j
            shares = pruned[few] / pivots[few, None]  # [p, out]: error per unit of weight; 0 where it is kept
            for i in range(first, last, step):
                these, rows = slice(i, min(i + step, last)), slice(i - first, min(i + step, last) - first)
                if keep is not None:  # choose from the weights as repaired so far
                    rest[these].addmm_(coefficients[rows], error, alpha=-1)  # [M, out]
                    pruned[these] = smallest(price(rest[these].T, these), size - keep).T
                    torch.div(pruned[these], pivots[these, None], out=shares[rows])
                sweep(rest[these], coefficients[rows, rows], shares[rows], error[rows])
            rest[last:stop].addmm_(factor[few, last:stop].T, error, alpha=-1)
        rest[stop:].addmm_(factor[here, stop:].T, errors[: stop - start], alpha=-1)  # the lazy update of later columns
    return rest.masked_fill_(pruned, 0).T.float().contiguous(), pruned.T.contiguous()


def _obs_price(weight, columns, pivots, dead):
    """The output error that removing a weight adds: w^2 / U_ii^2 (the optimal-brain-surgeon error, SparseGPT section 3).

    A weight on a dead feature adds none. Returns: [out, b].
    """
    return (weight / pivots[columns]).square().masked_fill_(dead[columns], 0)


def _cheapest(price, sparsity, start, stop, group):
    """The mask [out, b] of columns `start` to `stop`, given their prices.

    Counts are differences of rounded cumulative counts, so they add up to round(sparsity * size) for the whole group.
    """
    outputs = len(price)
    if group == "output":
        return smallest(price, round(sparsity * stop) - round(sparsity * start))
    if group == "input":
        return smallest(price.T, round(sparsity * outputs)).T
    count = round(sparsity * outputs * stop) - round(sparsity * outputs * start)
    return smallest(price.reshape(1, -1), count).reshape(outputs, -1)
