"""What a layer's inputs look like, summed over the calibration tokens: feature norms and the Hessian.

Both are sums over tokens, so they can be added up batch by batch and merged. Products are taken in float32 whatever the
model's dtype, and added up in float64: in what order, and on how many machines, then makes no difference that a float32
result would show.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

SUM = torch.float64
PANEL = 128  # columns of the Hessian computed at once; only panels on and right of the diagonal are


class _Sums:
    """Sums over tokens: what the two statistics have in common."""

    def add(self, inputs):
        """Take in a batch of inputs [tokens, in]."""
        self.take(self.contribution(inputs), len(inputs))

    def merge(self, other):
        """Add what another accumulator saw: the result is that of one accumulator over both parts."""
        self.sums.add_(other.sums.to(self.sums.device))
        self.tokens += other.tokens


class InputNorm(_Sums):
    """The L2 norm of each input feature: ||X_j|| over all tokens seen. All that Wanda needs to know of the data."""

    def __init__(self, width, device=None):
        self.tokens = 0
        self.sums = _zeros(width, device=device)  # [in], of squares

    @staticmethod
    def contribution(inputs):
        """What a batch of inputs [tokens, in] adds to the sum: yields a tensor [in], float32."""
        yield inputs.float().square().sum(dim=0)

    def take(self, contribution, tokens):
        """Take in a batch of so many tokens by its `contribution`, which may come from another thread."""
        for squares in contribution:
            self.sums += squares
        self.tokens += tokens

    def norm(self):
        """Tensor [in], float32."""
        return self.sums.sqrt().float()


class Hessian(_Sums):
    """H = sum over tokens of x xT: the Hessian of a linear layer's squared output error, up to a factor 2.

    Its diagonal holds the squared feature norms, so it serves every score as well.
    Source: SparseGPT (arXiv 2301.00774), section 3.1.
    """

    def __init__(self, width, device=None):
        self.tokens = 0
        self.sums = _zeros(width, width, device=device)  # [in, in], lower panels unused

    @staticmethod
    def contribution(inputs):
        """What a batch of inputs [tokens, in] adds to the sum: yields panels [PANEL, in - start], float32, from the top."""
        # TF32 keeps 10 bits after the leading one, as many as float16 and more than bfloat16: such inputs lose nothing.
        exact = inputs.dtype in (torch.float16, torch.bfloat16)
        inputs = inputs.float()
        for start in range(0, inputs.shape[1], PANEL):
            with tf32(exact) if inputs.is_cuda else nullcontext():
                # H is symmetric: what lies left of the diagonal panel is known already.
                panel = inputs[:, start : start + PANEL].T @ inputs[:, start:]
            yield panel

    def take(self, contribution, tokens):
        """Take in a batch of so many tokens by its `contribution`, which may come from another thread."""
        start = 0
        for panel in contribution:
            self.sums[start : start + len(panel), start:] += panel
            start += len(panel)
        self.tokens += tokens

    def matrix(self, dtype=torch.float32):
        """Tensor [in, in] of a dtype, symmetric to the last bit."""
        upper = self.sums.to(dtype, copy=True).triu_()  # in place: there is nothing larger
        return upper.add_(upper.triu(diagonal=1).T)

    def norm(self):
        """Tensor [in], float32: the same feature norms as `InputNorm`."""
        return self.sums.diagonal().sqrt().float()


@dataclass
class LayerInputs:
    """What is kept of a layer's inputs: the running statistic, and the first window's tokens [tokens, in]."""

    statistic: object
    sample: torch.Tensor
    first: int  # the batch that the sample is from
    derived: dict = field(default_factory=dict)  # what was computed from the statistic, for the layers that share it


@contextmanager
def tf32(allowed):
    """Allow or forbid TF32 (float32 operands cut to 10 bits, several times the speed) in CUDA's matrix products, for a `with`."""
    switches = torch.backends.cuda.matmul
    # PyTorch 2.9 has a new switch, and reading the old one while the new one is set is an error: never use both.
    new = hasattr(switches, "fp32_precision")
    name, values = ("fp32_precision", ("ieee", "tf32")) if new else ("allow_tf32", (False, True))
    before = getattr(switches, name)
    setattr(switches, name, values[allowed])
    try:
        yield
    finally:
        setattr(switches, name, before)


def _zeros(*shape, device):
    """Sums begin here. Apple's GPUs have no float64."""
    return torch.zeros(
        *shape, dtype=torch.float32 if torch.device(device or "cpu").type == "mps" else SUM, device=device
    )
