"""OWL: Wanda's score, with less sparsity for blocks that have more outlying scores.

D_l is the share of a block's scores above M times their mean; S_l = S - (d_l - mean d) with d_l = 2 lambda (D_l - min D) /
(max D - min D) (Yin and others, arXiv 2310.05175, section 3.2). M = 5 and lambda = 0.08, as in the authors' example. Norms are
those of the dense model. Without a pattern only.
"""

import torch

import wanda

NAME = "OWL"
FACTOR, SPREAD = 5, 0.08


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    blocks, shares = wanda.find_blocks(model), {}
    place = {layer.module: block.name for block in blocks for layer in block.layers}
    scores, squares = {block.name: [] for block in blocks}, {}

    def keep(module, inputs):
        norm = inputs[0].flatten(0, -2).double().square().sum(dim=0)  # [in], squared; added up over the windows
        squares[module] = squares.get(module, 0) + norm

    modules = [layer.module for block in blocks for layer in block.layers]
    handles = [module.register_forward_pre_hook(keep) for module in modules]
    with torch.no_grad():
        for window in calibration.to(model.device):
            model(window[None], use_cache=False)
    for module, handle in zip(modules, handles, strict=True):
        handle.remove()
        scores[place[module]].append((module.weight.abs() * squares[module].sqrt().float()).flatten())
    for name, parts in scores.items():
        together = torch.cat(parts)
        shares[name] = float((together > FACTOR * together.mean()).float().mean())
    found = torch.tensor(list(shares.values()), dtype=torch.float64)  # [blocks]
    spared = 2 * SPREAD * (found - found.min()) / (found.max() - found.min())
    sparsity = rules.sparsity - (spared - spared.mean())
    return {"method": "wanda", "sparsity": dict(zip(shares, sparsity.tolist(), strict=True))}
