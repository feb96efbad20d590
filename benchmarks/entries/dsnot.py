"""DSnoT: grow and prune one weight per row and round, until the expected change of the output is small.

With e_i = sum over the pruned j of W_ij E[x_j], the pruned weight whose part has the sign of e_i and is the largest over the
variance of its input comes back; of the kept weights whose part has the other sign, the one with the smallest Wanda score goes
(Zhang and others, arXiv 2310.08915). Our step, as in exercise 11.4: a row changes only if |e_i| falls. At most 50 rounds,
in attention layers alone: the defaults of the authors' code, without its threshold. Without a pattern only. Moments are those of the dense model.
"""

import torch

import wanda
from wanda_course.exercises.set_11 import refine

NAME = "DSnoT"
ROUNDS, REFINED = 50, "self_attn"


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    layers = [layer for block in wanda.find_blocks(model) for layer in block.layers if REFINED in layer.name]
    sums = {layer.module: torch.zeros(2, layer.weight.shape[1], dtype=torch.float64) for layer in layers}

    def add(module, inputs):
        tokens = inputs[0].flatten(0, -2).double().cpu()  # [tokens, in]
        sums[module] += torch.stack([tokens.sum(dim=0), tokens.square().sum(dim=0)])

    handles = [module.register_forward_pre_hook(add) for module in sums]
    with torch.no_grad():
        for window in calibration.to(model.device):
            model(window[None], use_cache=False)
    for handle in handles:
        handle.remove()
    known = [(layer.weight.clone(), sums[layer.module] / calibration.numel()) for layer in layers]

    def score(weight, input_norm):
        wandas = weight.abs() * input_norm
        moments = next((found for dense, found in known if torch.equal(dense, weight)), None)
        if moments is None:
            return wandas
        mean, variance = moments[0], moments[1] - moments[0].square()  # [in]
        mask = wanda.prune_mask(wandas, rules.sparsity)  # [out, in]
        for _ in range(ROUNDS):
            mask, before = refine(weight, mask, mean.float(), variance.float(), input_norm), mask
            if torch.equal(mask, before):
                break
        return (~mask).float()

    return {"method": score}
