"""Wanda++'s regional gradient score: the norm of the input plus a gradient of the block's own output.

S_ij = (a G_ij + ||X_j||_2) * |W_ij|, a = 100, where G is the root mean square, over the windows, of the gradient of the norm
of the block's output (Wanda++, arXiv 2503.04992). The score alone: their regional optimisation
changes the weights, and is left out.
"""

import torch

import wanda

NAME = "Wanda++, score alone"
ALPHA = 100


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    blocks = wanda.find_blocks(model)
    layers = [layer for block in blocks for layer in block.layers]
    weights, norms = [layer.module.weight for layer in layers], []
    squares = [torch.zeros_like(weight) for weight in weights]

    def cut(module, args, kwargs):  # so that a gradient stays in its block
        return tuple(arg.detach() if isinstance(arg, torch.Tensor) else arg for arg in args), kwargs

    def listen(module, args, output):
        norms.append((output[0] if isinstance(output, tuple) else output).norm())

    handles = [block.module.register_forward_pre_hook(cut, with_kwargs=True) for block in blocks]
    handles += [block.module.register_forward_hook(listen) for block in blocks]
    for window in calibration.to(model.device):
        norms.clear()
        model(window[None], use_cache=False)
        for total, gradient in zip(squares, torch.autograd.grad(sum(norms), weights), strict=True):
            total += gradient.square() / len(calibration)
    for handle in handles:
        handle.remove()
    left = [(layer.weight.clone(), total.sqrt()) for layer, total in zip(layers, squares, strict=True)]

    def score(weight, input_norm):
        regional = next(size for known, size in left if torch.equal(known, weight))  # [out, in]
        return weight.abs() * (ALPHA * regional + input_norm)

    return {"method": score}
