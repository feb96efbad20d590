"""ALPS: ADMM whose penalty r grows until the mask stays, then conjugate gradients for the kept weights.

With G = XT X, inputs in units of their norms: W' = (W G - V + r D) (G + r)^-1, V = V + r W', D = the largest entries of
V over r, V = V - r D (Meng and others, arXiv 2406.07831, algorithms 1 and 2). Constants are those of the authors' code,
where all weights of a layer compete unless a pattern sets groups; its restart with a smaller penalty is left out.
"""

import torch

import wanda

NAME = "ALPS"
PENALTY, DAMPING, EVERY, ROUNDS, REFINEMENTS = 0.1, 0.01, 3, 100, 10


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    own = {"method": "wanda", "update": lambda *layer: solve(*layer, rules.pattern)}
    return own if rules.pattern else own | {"group": "layer"}


def solve(weight, hessian, mask, pattern):
    """weight [out, in], hessian [in, in], mask [out, in] -> weight [out, in] with as many zeros."""
    damped = hessian.double() + torch.diag(DAMPING * hessian.double().diagonal().mean().expand(len(hessian)))
    norm = damped.diagonal().sqrt()  # [in]
    values, vectors = torch.linalg.eigh(damped / norm / norm[:, None])
    gram, dense = (damped / norm / norm[:, None]).float(), (weight * norm).float()  # [in, in], [out, in]
    target, sparse, dual, penalty = dense @ gram, dense.masked_fill(mask, 0), torch.zeros_like(dense), PENALTY
    choose = {"pattern": pattern} if pattern else {"sparsity": mask.double().mean().item(), "group": "layer"}
    for done in range(1, ROUNDS + 1):
        inverse, before = ((vectors / (values + penalty)) @ vectors.T).float(), mask  # [in, in]
        for _ in range(EVERY):
            full = (target - dual + penalty * sparse) @ inverse  # [out, in]
            dual += penalty * full
            mask = wanda.prune_mask(dual.abs(), **choose)
            sparse, dual = dual.masked_fill(mask, 0) / penalty, dual * mask
        changed = (mask != before).sum() / (~mask).sum()
        if changed == 0 or (done > 10 and changed < 0.0003):
            break
        penalty *= 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
    found = full.masked_fill(mask, 0)
    direction = residual = (target - found @ gram).masked_fill(mask, 0)  # [out, in]
    for _ in range(REFINEMENTS):
        product = (direction @ gram).masked_fill(mask, 0)
        bend = (direction * product).sum(dim=1, keepdim=True).clamp(min=1e-30)  # [out, 1]
        length = (residual * direction).sum(dim=1, keepdim=True) / bend
        found, residual = found + length * direction, residual - length * product
        direction = residual - (residual * product).sum(dim=1, keepdim=True) / bend * direction
    return found / norm.float()
