"""The linear layers of a module, and which of them can be pruned."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from .experts import expert_layers, is_experts


@dataclass(frozen=True)
class Linear:
    """A prunable layer: `y = x WT`. GPT-2's `Conv1D` stores W transposed; here it is always [out, in]."""

    name: str
    module: nn.Module

    @property
    def parameter(self):
        """The parameter that holds the weight."""
        return self.module.weight

    @property
    def parameter_name(self):
        """The name of that parameter in the model."""
        return f"{self.name}.weight"

    @property
    def weight(self):
        """The weight as a view [out, in] of the module's own storage."""
        return self.view(self.parameter.detach())

    def view(self, tensor):
        """This layer's part, as [out, in], of a tensor of the parameter's shape."""
        return tensor.T if isinstance(self.module, Conv1D) else tensor

    def replace(self, weight):
        """Write new values [out, in] into the module, in its own dtype."""
        self.weight.copy_(weight)


def matches(name, pattern):
    """Whether a pattern matches a layer's dotted name: the whole name, consecutive components of it ("down_proj",
    "layers.0"), or a wildcard for the whole name ("*.mlp.*")."""
    return fnmatchcase(name, pattern) or f".{pattern}." in f".{name}."


def check_layer(layer):
    """Raise ValueError unless a layer's weight is a plain matrix of floats."""
    if not isinstance(layer.parameter, nn.Parameter):
        raise ValueError(
            f"{layer.name} computes its weight from other parameters (torch.nn.utils.prune, a parametrization?); "
            "make it a plain weight first, for example with torch.nn.utils.prune.remove"
        )
    if not _is_plain(layer.module):
        raise ValueError(
            f"{layer.name} is a {type(layer.module).__name__}, which is not applied to each token as a whole; "
            f"pass skip=({layer.name.rpartition('.')[2]!r},) to leave such layers dense and prune the rest"
        )
    if not layer.parameter.is_floating_point():
        raise ValueError(f"{layer.name} holds {layer.parameter.dtype} (quantized?) weights; load the model unquantized")


def linear_layers(prefix, module):
    """The linear layers of a module, in its order, without routers: list of `Linear` and `ExpertLinear`."""
    counts = {len(part) for part in module.modules() if isinstance(part, nn.ModuleList)}
    counts |= {len(parameter) for parameter in module.parameters() if parameter.ndim == 3}  # fused experts
    adapted = [name for name, part in module.named_modules() if hasattr(part, "base_layer")]  # by PEFT
    found = []
    for name, part in module.named_modules():
        full = f"{prefix}.{name}" if name else prefix
        if any(name.startswith(f"{other}.") and name != f"{other}.base_layer" for other in adapted):
            continue  # an adapter
        if is_experts(part):
            found += expert_layers(full, part)
        elif isinstance(part, (nn.Linear, Conv1D)) and not _is_router(full, part, counts):
            found.append(Linear(full, part))
    return found


def _is_plain(module):
    """Whether a linear layer maps each row of its input to a row of outputs; grouped ones apply parts of their weight."""
    if not isinstance(module, nn.Linear) or type(module).forward is nn.Linear.forward:
        return True
    probe = module.weight.new_zeros(2, module.in_features)
    try:
        outputs = module(probe)
        return isinstance(outputs, torch.Tensor) and outputs.shape == (2, module.out_features)
    except (RuntimeError, ValueError, IndexError):
        return False


def _is_router(name, linear, counts):
    """Whether a linear layer chooses among experts, or gates a shared one. counts: possible numbers of experts."""
    outputs = linear.weight.shape[0]
    return bool(counts) and outputs in {1, *counts} and re.search(r"(^|[._])(gate|router)(\.|$)", name) is not None
