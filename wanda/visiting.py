"""Blocks that visit a device, and the hidden states that come home from there."""

from contextlib import closing, contextmanager

from .blocks import is_hooked


def check_free(blocks, device):
    """Raise ValueError if accelerate's hooks, which have a device in mind for each block, would bring it back."""
    for block in blocks:
        if is_hooked(block.module):
            raise ValueError(
                f"device is {device!r}, but {block.name} is tied to a device of its own (device_map, accelerate hooks); "
                "leave device at None, or load the model without a device_map"
            )


class Homecoming(list):
    """A list whose items are tensors on one device."""

    def __init__(self, device):
        self.device = device

    def append(self, states):
        """Take a tensor from wherever it is. From a GPU it comes into page-locked memory, while the GPU works on; it is
        there before anybody looks: the one who will is the GPU, later in its queue."""
        super().append(states.to(self.device, non_blocking=states.is_cuda))

    def extend(self, several):
        """Take several from a generator, one by one."""
        with closing(several):  # so that an error here ends what it has begun
            for states in several:
                self.append(states)
                del states  # or it would be on the GPU while the next one is computed


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
