"""GBLM: Wanda's score plus the weight times a norm of its gradients over the calibration windows.

S_ij = |W_ij| * ||X_j||_2 + a |W_ij| * ||G_ij||_2, a = 100 (Das and others, arXiv 2311.04902). As in the authors'
code, the squared norm of the input is a mean over the windows, and the gradient is that of a window's mean loss.
"""

import torch

import wanda

NAME = "GBLM"
ALPHA = 100


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    layers = [layer for block in wanda.find_blocks(model) for layer in block.layers]
    weights = [layer.module.weight for layer in layers]
    squares = [torch.zeros_like(weight) for weight in weights]
    for window in calibration.to(model.device):
        loss = model(window[None], labels=window[None], use_cache=False).loss
        for total, gradient in zip(squares, torch.autograd.grad(loss, weights), strict=True):
            total += gradient.square()
    left = [(layer.weight.clone(), total.sqrt()) for layer, total in zip(layers, squares, strict=True)]

    def score(weight, input_norm):
        size = next(size for known, size in left if torch.equal(known, weight))  # [out, in]
        return weight.abs() * (input_norm / len(calibration) ** 0.5 + ALPHA * size)

    return {"method": score}
