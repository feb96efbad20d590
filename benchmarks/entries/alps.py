"""ALPS: ADMM with a penalty that grows until the mask no longer changes, then conjugate gradients for the kept weights.

In units in which each input has norm 1, with G = XT X, it looks for the sparse D that is closest to W in ||X (W - D)T||:

    W' = (W G - V + r D) (G + r)^-1,    D = the largest entries of W' + V / r,    V = V + r (W' - D)

(Meng and others, arXiv 2406.07831, algorithms 1 and 2; D and W' are `sparse` and `full`). Constants are those of the
authors' code, in which all weights of a layer compete, unless a pattern sets the groups; its restart with a smaller
penalty is left out. Under a mask track its zeros count, and its weights do not.
"""

from functools import partial

import torch

import wanda

NAME = "ALPS"
PENALTY, DAMPING, EVERY, ROUNDS, REFINEMENTS = 0.1, 0.01, 3, 300, 10


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    group = {} if rules.pattern else {"group": "layer"}
    return {"method": "wanda", "update": partial(solve, pattern=rules.pattern), **group}


def solve(weight, hessian, mask, pattern=None):
    """weight [out, in], hessian [in, in], mask [out, in] -> weight [out, in] with as many zeros."""
    gram = hessian.double() + torch.diag(DAMPING * hessian.double().diagonal().mean().expand(len(hessian)))
    norm = gram.diagonal().sqrt()  # [in]
    gram = gram / norm / norm[:, None]
    values, vectors = torch.linalg.eigh(gram)
    gram, norm, kept = gram.float(), norm.float(), (~mask).sum()
    dense = weight * norm  # [out, in]
    target, sparse, dual, penalty = dense @ gram, dense.masked_fill(mask, 0), torch.zeros_like(dense), PENALTY
    choose = {"sparsity": mask.double().mean().item(), "group": "layer"} if pattern is None else {"pattern": pattern}
    for step in range(1, ROUNDS + 1):
        if step % EVERY == 1:
            inverse, before = ((vectors / (values + penalty)) @ vectors.T).float(), mask  # [in, in]
        full = (target - dual + penalty * sparse) @ inverse  # [out, in]
        sparse = full + dual / penalty
        mask = wanda.prune_mask(sparse.abs(), **choose)
        sparse = sparse.masked_fill(mask, 0)
        dual += penalty * (full - sparse)
        if step % EVERY == 0:
            changed = (mask != before).sum() / kept
            if changed == 0 or (step > 30 and changed < 0.0003):
                break
            penalty *= 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
    return refined(full.masked_fill(mask, 0), target, gram, mask) / norm


def refined(weight, target, gram, mask):
    """Conjugate gradients towards weight @ gram = target on the kept weights of each row. All but gram: [out, in]."""
    residual = (target - weight @ gram).masked_fill(mask, 0)
    direction, size = residual, residual.square().sum(dim=1, keepdim=True)  # [out, in], [out, 1]
    for _ in range(REFINEMENTS):
        product = direction @ gram
        length = size / (direction * product).sum(dim=1, keepdim=True).clamp(min=1e-30)
        weight = weight + length * direction
        residual = residual - (length * product).masked_fill(mask, 0)
        before, size = size, residual.square().sum(dim=1, keepdim=True)
        direction = residual + size / before.clamp(min=1e-30) * direction
    return weight
