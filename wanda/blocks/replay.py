"""Run the blocks of a model one at a time.

`capture` records the arguments of each block; `replay` calls one again with them, on other hidden states.
"""

import inspect
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from accelerate.utils import send_to_device


class Stop(Exception):
    """Raised by a hook to end a forward pass early."""


@dataclass(frozen=True)
class Call:
    """The arguments of one block for one batch, without the hidden states."""

    args: tuple
    kwargs: dict

    def to(self, device):
        """The same with all tensors on a device."""
        return Call(send_to_device(self.args, device), send_to_device(self.kwargs, device))


class NeedsSteps(ValueError):
    """A block's input is not just the hidden states that the block before it returned."""


def capture(model, blocks, batches, hidden=None, finished=None):
    """Record the arguments of each block of a stack, at the cost of an embedding look-up and one block's forward.

    The blocks do not compute: each records its own arguments (sliding-window models mask each layer differently) and
    returns its input.

    Args:
        blocks: list of `Block`, which are called one after the other.
        batches: list of dicts of the model's forward arguments: `input_ids` [batch, length], `attention_mask`, ...
        hidden: list, or object with `append`, for the first block's inputs; None: a new list.
        finished: dict from the modules of earlier blocks to functions (batch number, hidden states) -> output, which
            are called in their place.

    Returns:
        (hidden, calls): hidden[b] is the first block's input for batch b, [batch, length, hidden];
        calls[i][b] is the `Call` of block i for batch b.

    Raises:
        ValueError naming a block that is not called once per batch; `NeedsSteps` naming one that reads more than the hidden
            states that the block before it returned, or others.
    """
    hidden, calls = [] if hidden is None else hidden, [[] for _ in blocks]
    finished = finished or {}
    extras = []  # holds what the first block returned beside the hidden states, see `split`
    earlier = []  # weak references to the hidden states that the blocks of this batch returned
    latest = None  # the hidden states that the latest block returned

    def recorder(index, original):
        def forward(*args, **kwargs):
            nonlocal latest
            if index == 0 and len(blocks) > 1 and not extras:
                extras.append(split(original(*args, **kwargs))[1])
            states, *args = args or (kwargs.pop("hidden_states"),)
            call = Call(tuple(args), kwargs)
            known = {id(tensor) for tensor in (*tensors(extras), *(reference() for reference in earlier))}
            if index > 0 and any(id(tensor) in known for tensor in tensors((call.args, call.kwargs))):
                raise NeedsSteps(
                    f"{blocks[index].name} of {type(model).__name__} reads more than the hidden states of the block before it"
                )
            if index > 0 and not _same(states, latest):
                raise NeedsSteps(
                    f"{type(model).__name__} changes the hidden states between {blocks[index - 1].name} and the next block"
                )
            # Batches of the same shape get equal masks and positions: keep one copy.
            calls[index].append(share(call, calls[index][-1]) if calls[index] else call)
            if index == 0:
                earlier.clear()
                hidden.append(states)
            if index == len(blocks) - 1:
                raise Stop
            latest = states
            handed = states.clone()  # the model may change it in place
            earlier.append(weakref.ref(handed))
            return join(handed, extras[0])

        return forward

    def stand_in(output):  # batches are counted by the calls recorded so far
        return lambda _: lambda *args, **kwargs: output(len(calls[0]), args[0] if args else kwargs["hidden_states"])

    replacements = {block.module: partial(recorder, index) for index, block in enumerate(blocks)}
    with forwards_replaced(replacements | {module: stand_in(output) for module, output in finished.items()}):
        for batch in batches:
            try:
                forward(model, batch)
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


def forward(model, batch):
    """Run a model on a batch, a dict of its forward's arguments, without a cache."""
    takes = inspect.signature(model.forward).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()) and "input_ids" in batch
    return model(**batch, **({"use_cache": False} if "use_cache" in takes or anything else {}))


def replay(block, hidden, call):
    """Run a block on hidden states [batch, length, hidden], on its own device, with the arguments of a recorded `Call`.

    Returns: the hidden states [batch, length, hidden] for the next block.
    """
    device = device_of(block)
    call = call.to(device)
    # From pinned memory this copy is asynchronous, in stream order.
    hidden = hidden.to(device, non_blocking=device.type == "cuda")
    return split(block.module(hidden, *call.args, **call.kwargs))[0]


def split(output):
    """A block's output as (hidden states, extras): extras is the rest of a tuple or list, or None."""
    return (output[0], tuple(output[1:])) if isinstance(output, (tuple, list)) else (output, None)


def join(states, extras):
    """The output of a block that `split` made into these."""
    return states if extras is None else (states, *extras)


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
def forwards_replaced(replacements):
    """Replace the forwards of modules inside a `with`. replacements: dict from module to function(its forward) -> new one."""
    own = {module: module.__dict__.get("forward") for module in replacements}  # where a library (accelerate) wrapped it
    try:
        for module, replacement in replacements.items():
            module.forward = replacement(module.forward)
        yield
    finally:
        for module, forward in own.items():
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = forward


def tensors(value):
    """Yield the tensors in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


def share(new, old):
    """`new`, with each tensor that equals its counterpart in `old` replaced by that object."""
    if isinstance(new, torch.Tensor):
        return old if isinstance(old, torch.Tensor) and _same(new, old) else new
    if isinstance(new, Call):
        return Call(share(new.args, old.args), share(new.kwargs, old.kwargs))
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: share(value, old.get(key)) for key, value in new.items()}
    if type(new) in (tuple, list) and type(old) is type(new) and len(new) == len(old):
        return type(new)(map(share, new, old))
    return new


def _same(one, other):
    """Whether two tensors agree in shape, dtype and values."""
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
