"""Small modules that the cases of exercises are made of.

They stand apart from the solutions so that the marker's children, which get the cases, can load this file alone.
"""

# ruff: noqa: D102 (a class says what its `forward` does)

from collections import OrderedDict

from torch import nn


def linear(weight):
    """A linear layer with this weight [out, in]. It draws no random numbers of its own and has no gradient."""
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return layer.requires_grad_(False)


class ToyBlock(nn.Module):
    """A gated MLP in a residual stream, one of its layers in a submodule; `scale` stands for a block's other arguments."""

    def __init__(self, gate, up, down):
        super().__init__()
        self.inner = nn.Sequential(linear(gate), nn.SiLU())
        self.down, self.up = linear(down), linear(up)  # defined in another order than they run

    def forward(self, states, scale=1.0):
        states = scale * states
        return states + self.down(self.inner(states) * self.up(states))


class Mixing(nn.Module):
    """Adds the mean of the window to each token, as attention might: what is padded shows in the others."""

    def forward(self, states):
        return states + states.mean(dim=1, keepdim=True)


class Others(OrderedDict):
    """The hooks of a layer that others have hooks on too."""

    def clear(self):
        raise RuntimeError("some of these hooks are not yours")


class Stack(nn.Module):
    """A model of blocks that does more than call them: it scales the embedding, and what each block gives."""

    def __init__(self, embedding, blocks):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(embedding)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, tokens):
        states = 2 * self.embedding(tokens)
        for block in self.blocks:
            states = states + 0.5 * block(states)
        return states.mean(dim=1)


class Absent(nn.Module):
    """A block that is not in memory."""

    def forward(self, states):
        raise RuntimeError("a block that is not in memory was run")


class Broken(nn.Module):
    """A block with a fault of its own."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, states):
        raise self.kind("this block is broken")
