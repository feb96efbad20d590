"""TF32 on NVIDIA GPUs: matrix products whose float32 operands are cut to 10 bits, several times as fast."""

from contextlib import contextmanager

import torch


@contextmanager
def tf32(allowed):
    """Allow or forbid TF32 in CUDA's matrix products inside a `with`."""
    switches = torch.backends.cuda.matmul
    # PyTorch 2.9 has a new switch; reading the old one while the new one is set is an error, so never use both.
    new = hasattr(switches, "fp32_precision")
    name, values = ("fp32_precision", ("ieee", "tf32")) if new else ("allow_tf32", (False, True))
    before = getattr(switches, name)
    setattr(switches, name, values[allowed])
    try:
        yield
    finally:
        setattr(switches, name, before)
