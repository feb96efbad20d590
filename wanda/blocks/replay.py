"""Run the blocks of a model one at a time.

`capture` records the arguments of each block; `replay` calls one again with them, on other hidden states.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate.utils import send_to_device


class Stop(Exception):
    """Raised by a hook to end a forward pass early."""


@dataclass(frozen=True)
class Call:
    """The arguments of one block for one batch, without the hidden states."""

    args: tuple
    kwargs: dict


def capture(model, blocks, batches, hidden=None):
    """Record the arguments of each block, at the cost of an embedding look-up and one block's forward.

    The blocks do not compute: each records its own arguments (sliding-window models mask each layer differently) and
    returns its input.

    Args:
        batches: list of dicts of the model's forward arguments: `input_ids` [batch, length], `attention_mask`, ...
        hidden: list, or object with `append`, for the first block's inputs; None: a new list.

    Returns:
        (hidden, calls): hidden[b] is the first block's input for batch b, [batch, length, hidden];
        calls[i][b] is the `Call` of block i for batch b.

    Raises: ValueError naming a block that is not called once per batch, or that reads more than hidden states from the
        block before it.
    """
    hidden, calls = [] if hidden is None else hidden, [[] for _ in blocks]
    extras = []  # holds what a block returns after the hidden states: the rest of a tuple or list, or None
    returned = set()  # the ids of the tensors among them

    def recorder(index, original):
        def forward(*args, **kwargs):
            if index == 0 and not extras:
                output = original(*args, **kwargs)
                extras.append(output[1:] if isinstance(output, (tuple, list)) else None)
                returned.update(map(id, _tensors(extras[0])))
            states, *args = args or (kwargs.pop("hidden_states"),)
            call = Call(tuple(args), kwargs)
            if index > 0 and any(id(tensor) in returned for tensor in _tensors((call.args, call.kwargs))):
                raise ValueError(
                    f"{blocks[index].name} of {type(model).__name__} reads more than the hidden states of the block before "
                    "it; such blocks cannot be run one at a time, so this model cannot be pruned"
                )
            # Batches of the same shape get equal masks and positions: keep one copy.
            calls[index].append(_share(call, calls[index][-1]) if calls[index] else call)
            if index == 0:
                hidden.append(states)
            if index == len(blocks) - 1:
                raise Stop
            return states if extras[0] is None else (states, *extras[0])

        return forward

    with _forwards_replaced([block.module for block in blocks], recorder):
        for batch in batches:
            try:
                model(**batch, use_cache=False)
            except Stop:
                continue
            raise RuntimeError(f"{type(model).__name__} never called its block {blocks[-1].name!r}")
    for block, received in zip(blocks, calls, strict=True):
        if len(received) != len(batches):
            raise ValueError(
                f"{type(model).__name__} calls {block.name} {len(received)} times for {len(batches)} batches; only blocks "
                "that are called once per forward pass can be pruned"
            )
    return hidden, calls


def replay(block, hidden, call):
    """Run a block on hidden states [batch, length, hidden], on its own device, with the arguments of a recorded `Call`.

    Returns: the hidden states [batch, length, hidden] for the next block.
    """
    device = device_of(block)
    args, kwargs = send_to_device(call.args, device), send_to_device(call.kwargs, device)
    # From pinned memory this copy is asynchronous, in stream order.
    hidden = hidden.to(device, non_blocking=device.type == "cuda")
    output = block.module(hidden, *args, **kwargs)
    return output[0] if isinstance(output, (tuple, list)) else output


def device_of(block):
    """The device of a block's parameters."""
    return next(block.module.parameters()).device


@contextmanager
def evaluating(model):
    """Switch a model to evaluation mode (no dropout) inside a `with`."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _forwards_replaced(modules, replacement):
    """Replace the forward of module i by `replacement(i, its own forward)` inside a `with`."""
    own = [module.__dict__.get("forward") for module in modules]  # present where a library (accelerate) wrapped it
    try:
        for index, module in enumerate(modules):
            module.forward = replacement(index, module.forward)
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = forward


def _tensors(value):
    """Yield the tensors in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _share(new, old):
    """`new`, with each tensor that equals its counterpart in `old` replaced by that object."""
    if isinstance(new, torch.Tensor):
        same = isinstance(old, torch.Tensor) and new.shape == old.shape and new.dtype == old.dtype
        return old if same and torch.equal(new, old) else new
    if isinstance(new, Call):
        return Call(_share(new.args, old.args), _share(new.kwargs, old.kwargs))
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: _share(value, old.get(key)) for key, value in new.items()}
    if type(new) in (tuple, list) and type(old) is type(new) and len(new) == len(old):
        return type(new)(map(_share, new, old))
    return new
