"""Offloading: move a block to a device while it is needed, and the hidden states back."""

from contextlib import closing, contextmanager

import torch


def check_device(device):
    """Raise ValueError if `device` names none, or a CUDA device and there is none. None and "auto" are no devices."""
    if device in (None, "auto"):
        return
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be None or a torch device such as 'cuda', got {device!r}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but this PyTorch finds no CUDA; device=None computes on the CPU")


def check_free(blocks, device):
    """Raise ValueError if accelerate's hooks, which tie each block to its own device, would move it back."""
    for block in blocks:
        if is_hooked(block.module):
            raise ValueError(
                f"device is {device!r}, but {block.name} is tied to its own device (device_map, accelerate hooks); "
                "leave device at None, or load the model without a device_map"
            )


def is_hooked(module):
    """Whether accelerate's hooks move parts of a module to devices of their own."""
    return any(hasattr(part, "_hf_hook") for part in module.modules())


class StatesOn(list):
    """A list whose items are tensors on one device."""

    def __init__(self, device):
        self.device = device

    def append(self, states):
        """Move a tensor to the device and append it. From a GPU, the copy is asynchronous, into pinned memory.

        Safe without a sync: the next reader is the same GPU, later on the same stream.
        """
        super().append(states.to(self.device, non_blocking=states.is_cuda))

    def extend(self, several):
        """Append the tensors of a generator, one by one."""
        with closing(several):  # an error here must end the generator's threads
            for states in several:
                self.append(states)
                del states  # free the GPU copy before computing the next batch


@contextmanager
def visiting(module, device):
    """Move a module to a device inside a `with`, and back afterwards. Yields its original device."""
    home = next(module.parameters()).device
    if device is not None:
        module.to(device)
    try:
        yield home
    finally:
        if device is not None:
            module.to(home)
