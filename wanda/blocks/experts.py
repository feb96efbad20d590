"""Mixture-of-experts layers whose weights are fused into one tensor per projection, [experts, out, in] or [experts, in, out].

Each expert's matrix is a prunable layer of its own, with the statistics of the tokens that were routed to that expert.
The layout is told by the flags that transformers' experts interface sets on such modules: `is_transposed`, `has_bias` and
`has_gate`. Gated experts have a method `_apply_gate`, others an `act_fn`. A module without them is no such module.
"""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ExpertLinear:
    """One expert's projection: a prunable layer, like `Linear`."""

    name: str  # such as "model.layers.0.mlp.experts.3.down_proj"
    module: nn.Module
    projection: str
    expert: int

    @property
    def parameter(self):
        """The fused parameter that holds the weight."""
        return getattr(self.module, self.projection)

    @property
    def parameter_name(self):
        """The name of that parameter in the model."""
        return f"{self.name.removesuffix(f'.{self.expert}.{self.projection}')}.{self.projection}"

    @property
    def weight(self):
        """The weight as a view [out, in] of the fused parameter."""
        return self.view(self.parameter.detach())

    def view(self, tensor):
        """This layer's part, as [out, in], of a tensor of the parameter's shape."""
        matrix = tensor[self.expert]
        return matrix.T if self.module.is_transposed else matrix

    def replace(self, weight):
        """Write new values [out, in] into the fused parameter, in its own dtype."""
        self.weight.copy_(weight)


def is_experts(module):
    """Whether a module follows transformers' experts interface, with fused weights."""
    down = getattr(module, "down_proj", None)
    if not all(hasattr(module, flag) for flag in ("is_transposed", "has_bias", "has_gate")):
        return False
    return (
        hasattr(module, "_apply_gate" if module.has_gate else "act_fn")
        and isinstance(down, nn.Parameter)
        and down.ndim == 3
        and isinstance(getattr(module, _up_name(module), None), nn.Parameter)
    )


def expert_layers(name, module):
    """The layers of an experts module, expert by expert: list of `ExpertLinear`."""
    projections = (_up_name(module), "down_proj")
    return [
        ExpertLinear(f"{name}.{expert}.{projection}", module, projection, expert)
        for expert in range(len(module.down_proj))
        for projection in projections
    ]


def expert_inputs(module, hidden, routes):
    """What each projection of each expert reads, as the module's forward computes it.

    Args:
        hidden: Tensor [tokens, hidden]. routes: LongTensor [tokens, k], the experts of each token.

    Yields: (expert, projection, inputs [routed tokens, in], positions of these tokens [routed tokens]).
    """
    for expert in range(len(module.down_proj)):
        positions = (routes == expert).any(dim=1).nonzero().squeeze(1)
        if not len(positions):
            continue
        inputs = hidden[positions]
        yield expert, _up_name(module), inputs, positions
        outputs = _multiply(module, _up_name(module), expert, inputs)
        inner = module._apply_gate(outputs) if module.has_gate else module.act_fn(outputs)
        yield expert, "down_proj", inner, positions


def _multiply(module, projection, expert, inputs):
    weight = getattr(module, projection)[expert]
    bias = getattr(module, f"{projection}_bias")[expert] if module.has_bias else None
    return nn.functional.linear(inputs, weight.T if module.is_transposed else weight, bias)


def _up_name(module):
    return "gate_up_proj" if module.has_gate else "up_proj"
