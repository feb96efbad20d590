"""ADMM: choose the mask and solve for the kept weights in turn. Pure tensors: weight + Hessian -> weight.

SparseGPT visits each column once and never returns to it. ADMM looks for the sparse weight V whose outputs are closest to
the dense one's, min ||X (W - V)T||, by alternating between two easy steps: without the constraint, the best weight is a
linear solve; without the data, the best sparse weight is the one that keeps the largest entries. A dual variable makes
the two agree. A round is one selection and one matrix product over the whole layer.
Source: Boža, "Fast and Effective Weight Update for Pruned Large Language Models" (arXiv 2401.02938).
"""

import torch

from .masks import check_group, check_sparsity, check_width, lowest, parse_pattern
from .sparsegpt import precision

ITERATIONS = 20
RAMP = 15  # iterations in which the sparsity rises to its final value; the mask is fixed afterwards
DAMPING = 0.1  # added to the diagonal of the normalised Hessian, whose entries are 1


def admm(
    weight, hessian, sparsity=0.5, pattern=None, group="output", mask=None, *, iterations=ITERATIONS, damping=DAMPING
):
    """Prune a weight matrix and solve for the kept weights, to change the layer's outputs as little as possible.

    Args:
        weight: Tensor [out, in].
        hessian: Tensor [in, in], the sum of x xT over calibration tokens.
        sparsity, pattern, group: as in `prune_mask`.
        mask: Bool tensor [out, in] (True = pruned) to use instead; then only the kept weights are solved for.
        iterations: number of alternations; the sparsity rises during the first `RAMP`.
        damping: fraction of the diagonal added to it.

    Returns:
        (weight, mask): float32 [out, in] with exact zeros where mask is True, and the bool mask [out, in].

    Raises: ValueError, TypeError: invalid sparsity, pattern or group.
    """
    if mask is None and pattern is not None:
        check_width(weight.shape[1], pattern)
    elif mask is None:
        check_sparsity(sparsity)
    check_group(group, pattern)
    return solve(weight, *normal_equations(hessian, damping), sparsity, pattern, group, mask, iterations=iterations)


def normal_equations(hessian, damping=DAMPING):
    """What layers that read the same input share: (norm, inverse).

    norm [in] holds the norms of the input features. In units in which each feature has norm 1, the Hessian has ones on its
    diagonal, and |W| * norm, Wanda's score, is the size of a weight. inverse [in, in] is (H + damping * I + I)^-1 in these
    units; the second I is the ADMM penalty, 1. Features that were always zero keep norm 0.
    """
    hessian = hessian.detach().to(precision(hessian.device))
    norm = hessian.diagonal().sqrt()  # [in]
    unit = torch.where(norm > 0, norm, 1.0)
    normalised = hessian / unit / unit[:, None]
    normalised.diagonal().add_(damping + 1)
    factor, _ = torch.linalg.cholesky_ex(normalised)  # at least 1 on the diagonal of a positive matrix: it cannot fail
    return norm, torch.cholesky_inverse(factor)


def solve(weight, norm, inverse, sparsity=0.5, pattern=None, group="output", mask=None, *, iterations=ITERATIONS):
    """The alternation, given the return values of `normal_equations`. See `admm`."""
    fixed, weight = mask is not None, weight.detach()
    dense = weight.to(inverse.dtype) * norm  # [out, in], in units of the features' norms
    current, dual = dense.clone(), torch.zeros_like(dense)
    for step in range(1, iterations + 1):
        current += dual
        if not fixed and step <= RAMP:
            mask = _mask(current.abs(), sparsity, pattern, group, min(step / min(RAMP, iterations), 1))
        torch.mul(current, mask, out=dual)  # what the mask takes away; the rest is kept
        # argmin_V ||X (V - W)T||^2 + ||V - (kept - dual)||^2 in these units, where kept = current - dual
        current.sub_(dual, alpha=2).sub_(dense)
        current = torch.addmm(dense, current, inverse)
    del dense, dual  # the next lines take two copies more; the dual is zero where weights are kept
    solved = current.div_(norm)  # [out, in]
    solved = torch.where(norm > 0, solved, weight.to(solved.dtype))  # a feature that was always zero says nothing
    return solved.masked_fill_(mask, 0).float(), mask


def _mask(score, sparsity, pattern, group, progress):
    """The mask when the sparsity has risen by `progress`, from 0 to 1: fast at first, slowly at the end."""
    share = 1 - (1 - progress) ** 3
    if pattern is None:
        return lowest(score, share * sparsity, None, group)
    keep, size = parse_pattern(pattern)
    return lowest(score, None, f"{size - round(share * (size - keep))}:{size}", group)
