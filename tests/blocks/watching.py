"""Wanda by whole forward passes, from the matrix products that PyTorch computes: a reference that uses no hook of ours."""

import reference
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wanda import find_blocks


class Products(TorchDispatchMode):
    """Sums of squares of all that is multiplied with given weights, told apart by their place in memory."""

    def __init__(self, weights):
        super().__init__()
        self.weights = {self.place(weight): name for name, weight in weights.items()}
        self.squares = {}

    @staticmethod
    def place(weight):
        return weight.data_ptr(), *sorted(zip(weight.shape, weight.stride(), strict=True))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            inputs, weight = args[-2:]
            name = self.weights.get(self.place(weight))
            if name is not None:
                self.squares[name] = self.squares.get(name, 0) + inputs.float().square().sum(dim=0, dtype=torch.float64)
        return function(*args, **(kwargs or {}))


def reference_walk(model, batches, sparsity=0.5):
    """Prune by Wanda, block after block, with a whole forward pass for each. batches: dicts for the model's forward.

    Returns: the names of the layers that were multiplied with something; the others are pruned by magnitude.
    """
    read = set()
    for module in model.modules():
        if hasattr(module, "config"):  # plain matrix products, expert by expert
            module.config._experts_implementation = "eager"
    for block in find_blocks(model):
        weights = {layer.name: layer.weight for layer in block.layers}
        with torch.no_grad(), Products(weights) as products:
            for batch in batches:
                model(**batch)
        read |= products.squares.keys()
        for name, weight in weights.items():
            norm = products.squares[name].sqrt() if name in products.squares else 1.0
            weight.masked_fill_(reference.prune_mask(weight.abs() * norm, sparsity), 0)
    return read


def zeros(model):
    """Dict from layer name to a bool Tensor [out, in], True where the weight is zero."""
    return {layer.name: layer.weight == 0 for block in find_blocks(model) for layer in block.layers}
