"""Fine-tune a pruned model and keep its zeros: under any optimiser, and when LoRA adapters are merged."""

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..blocks.stacks import find_blocks


class keep_masks:  # noqa: N801 (used like a function)
    """Hold the zeros of a pruned model during training.

        with wanda.keep_masks(model):
            ...  # any training loop, with any optimiser of PyTorch

    The call records which weights are zero. From then on their gradients are zero, so they affect neither gradient
    clipping nor an optimiser's running mean. After each optimiser step they are reset to zero, in case it changed them
    (through earlier momentum, or an update that mixes the entries of a matrix).

    Args:
        model: a pruned model, on the device where it is trained.
        skip: layers that may change freely, as in `prune`.

    Attributes:
        masks: dict from layer name to a bool Tensor of the shape of the module's weight, True where it is held at zero.
            Experts that share a fused parameter share an entry.

    Raises: ValueError: none of the weights is zero (was the model pruned?).
    """

    def __init__(self, model, skip=()):
        layers = [layer for block in find_blocks(model, skip) for layer in block.layers]
        self.masks, self.weights = {}, {}
        for layer in layers:
            name = layer.parameter_name.removesuffix(".weight")
            self.weights[name] = layer.parameter
            mask = self.masks.setdefault(name, torch.zeros_like(layer.parameter, dtype=torch.bool))
            layer.view(mask).copy_(layer.weight == 0)
        if not any(mask.any() for mask in self.masks.values()):
            raise ValueError(f"{type(model).__name__} has no zeros to hold in its {len(layers)} layers; prune it first")
        self.handles = [register_optimizer_step_post_hook(lambda *_: self.apply())]
        for name, weight in self.weights.items():
            if weight.requires_grad:
                self.handles.append(weight.register_hook(lambda grad, mask=self.masks[name]: grad.masked_fill(mask, 0)))

    @torch.no_grad()
    def apply(self):
        """Set the held weights to zero, now."""
        for name, weight in self.weights.items():
            weight.masked_fill_(self.masks[name], 0)

    def remove(self):
        """Set the held weights to zero once more, then release them."""
        self.apply()
        for handle in self.handles:
            handle.remove()

    def __enter__(self):
        """Return this object; the masks are already held."""
        return self

    def __exit__(self, *_):
        """Release the masks."""
        self.remove()


@torch.no_grad()
def merge_lora(model):
    """Merge the LoRA adapters of a `peft` model into its weights, and keep pruned weights at zero.

    A plain merge adds a matrix without zeros to each adapted layer, which destroys the sparsity. This merge drops the
    part that falls on pruned weights. That is a loss: the adapters were trained with it.

    Args:
        model: a `peft.PeftModel` with LoRA adapters on a pruned model. Consumed: do not use it afterwards.

    Returns: (merged, lost). merged: the model without adapters, as sparse as before. lost: dict from the name of an adapted
        layer to the fraction of the squared update that was dropped, in [0, 1]; about the sparsity if the update is
        spread evenly.

    Raises: ValueError: there is no adapter to merge, or it is merged already.
    """
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "base_layer")}
    if not adapted or not hasattr(model, "merge_and_unload"):
        raise ValueError(f"{type(model).__name__} has no LoRA adapters; peft.get_peft_model adds them")
    if already := [name for name, module in adapted.items() if module.merged]:
        raise ValueError(f"the adapter of {already[0]} is merged into the pruned weight; call unmerge_adapter() first")
    before = {name: module.get_base_layer().weight.clone() for name, module in adapted.items()}
    layers = {name: module.get_base_layer() for name, module in adapted.items()}
    merged, lost = model.merge_and_unload(), {}
    for name, old in before.items():
        weight = layers[name].weight
        update, pruned = (weight - old).float().square(), old == 0
        lost[name] = float(update[pruned].sum() / update.sum()) if update.any() else 0.0
        weight.masked_fill_(pruned, 0)
    return merged, lost
