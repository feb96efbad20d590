"""Statistics of a layer's inputs, summed over the calibration tokens: feature norms and the Hessian.

Both are sums over tokens, so those of several batches or processes can be added. Products are float32 whatever the
model's dtype, and sums float64: the order of summation does not show in a float32 result.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field

import torch

from .devices.tf32 import tf32

PANEL = 128  # columns of the Hessian computed at once


class _Sums:
    """A sum over tokens: what the two statistics have in common."""

    def add(self, inputs):
        """Add a batch of inputs [tokens, in]."""
        self.take(self.contribution(inputs), len(inputs))

    def merge(self, other):
        """Add another accumulator's sums, as if this one had seen its tokens too."""
        self.sums.add_(other.sums.to(self.sums.device))
        self.tokens += other.tokens


class InputNorm(_Sums):
    """The L2 norm of each input feature, ||X_j||, over all tokens: all that Wanda needs to know of the data."""

    def __init__(self, width, device=None):
        self.tokens = 0
        self.sums = _zeros(width, device=device)  # [in], of squares

    @staticmethod
    def contribution(inputs):
        """Yield what a batch of inputs [tokens, in] adds to the sum: a tensor [in], float32."""
        yield inputs.float().square().sum(dim=0)

    def take(self, contribution, tokens):
        """Add a batch of `tokens` tokens, given its `contribution`, which another thread may have computed."""
        for squares in contribution:
            self.sums += squares
        self.tokens += tokens

    def norm(self):
        """Tensor [in], float32."""
        return self.sums.sqrt().float()


class Hessian(_Sums):
    """H = sum over tokens of x xT: the Hessian of a linear layer's squared output error, up to a factor of 2.

    Its diagonal holds the squared feature norms, so it serves every score as well.
    Source: SparseGPT (arXiv 2301.00774), section 3.1.
    """

    def __init__(self, width, device=None):
        self.tokens = 0
        self.sums = _zeros(width, width, device=device)  # [in, in]; entries left of the diagonal panels are not used

    @staticmethod
    def contribution(inputs):
        """Yield what a batch of inputs [tokens, in] adds to the sum: panels [PANEL, in - start], float32, from the top."""
        # TF32 keeps 10 bits after the leading one, as many as float16 and more than bfloat16: such inputs lose nothing.
        exact = inputs.dtype in (torch.float16, torch.bfloat16)
        inputs = inputs.float()
        for start in range(0, inputs.shape[1], PANEL):
            with tf32(exact) if inputs.is_cuda else nullcontext():
                # H is symmetric, so the columns left of the diagonal panel are not computed again.
                panel = inputs[:, start : start + PANEL].T @ inputs[:, start:]
            yield panel

    def take(self, contribution, tokens):
        """Add a batch of `tokens` tokens, given its `contribution`, which another thread may have computed."""
        start = 0
        for panel in contribution:
            self.sums[start : start + len(panel), start:] += panel
            start += len(panel)
        self.tokens += tokens

    def matrix(self, dtype=torch.float32):
        """Tensor [in, in] of a dtype, exactly symmetric."""
        upper = self.sums.to(dtype, copy=True).triu_()  # in place: no tensor here is larger
        return upper.add_(upper.triu(diagonal=1).T)

    def norm(self):
        """Tensor [in], float32: the same feature norms as `InputNorm`."""
        return self.sums.diagonal().sqrt().float()


@dataclass
class LayerInputs:
    """What is kept of a layer's inputs: the running statistic, and the tokens of the first window [tokens, in]."""

    statistic: object
    sample: torch.Tensor
    first: int  # number of the batch that the sample comes from
    derived: dict = field(default_factory=dict)  # computed from the statistic, for all layers that share it


def _zeros(*shape, device):
    on_mps = torch.device(device or "cpu").type == "mps"  # Apple's GPUs have no float64
    return torch.zeros(*shape, dtype=torch.float32 if on_mps else torch.float64, device=device)
