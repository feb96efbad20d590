"""Offloading: a block is moved to a device while it is needed, and the hidden states are moved back."""

from contextlib import closing, contextmanager


def check_free(blocks, device):
    """Raise ValueError if accelerate's hooks, which tie each block to a device of its own, would move it back."""
    for block in blocks:
        if is_hooked(block.module):
            raise ValueError(
                f"device is {device!r}, but {block.name} is tied to a device of its own (device_map, accelerate hooks); "
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
        """Move a tensor here. The copy from a GPU is asynchronous, into pinned memory; that is safe without a sync, since
        the next reader is the same GPU, later on the same stream."""
        super().append(states.to(self.device, non_blocking=states.is_cuda))

    def extend(self, several):
        """Take several from a generator, one by one."""
        with closing(several):  # an error here must end the threads behind it
            for states in several:
                self.append(states)
                del states  # free the GPU copy before computing the next batch


@contextmanager
def visiting(module, device):
    """Have a module on a device for the time of a `with`. Yields the device where it belongs."""
    home = next(module.parameters()).device
    if device is not None:
        module.to(device)
    try:
        yield home
    finally:
        if device is not None:
            module.to(home)
