"""The inputs of each block in turn, once the blocks before it are done.

Most blocks hand on their hidden states and nothing else: the arguments of all are recorded at once, and a block's outputs
are the next one's inputs. Some hand on more (T5's position bias, a shared indexer), or the model changes the states between
two blocks (an encoder and a decoder, images added to deeper layers). Then the model is run up to each block, while the
blocks before it return what they returned when they were done: stepwise, at the cost of running the rest of the model again
for each block. Towers of images or sound run once; their outputs stay in memory.
"""

import copy
import inspect
import itertools
from collections import deque
from contextlib import contextmanager
from functools import partial

import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel

from ..devices.distributed import checksum
from .calibration import lacks_decoder_inputs
from .replay import NeedsSteps, capture, forward, forwards_replaced, join, replay, share, split, tensors

SHORT = 32  # tokens of the window that a model is tried on


class Walk:
    """Goes through the blocks of a model in order, on all batches.

    Args:
        blocks: list of `Block`. batches: list of dicts of the model's forward arguments.
        stepwise: whether to run the model up to each block, see `needs_steps`; set to True where a batch turns out to need it.
    """

    def __init__(self, model, blocks, batches, stepwise=False):
        self.model, self.blocks, self.batches, self.stepwise = model, blocks, batches, stepwise
        self.finished = {}  # stand-ins for the blocks that are done, see `capture`
        self.towers = {tower: {} for tower in _towers(model, blocks)}  # what each returned, see `_remembering`
        self.hidden, self.calls, self.previous = None, None, None
        self.returned = []

    def inputs(self, block):
        """What the next block is called with: (hidden, calls), each a list with an item per batch."""
        if self.calls is None and not self.stepwise:
            try:
                self.hidden, calls = capture(self.model, self.blocks, self.batches)
                self.calls = deque(calls)
            except (
                NeedsSteps
            ):  # in a later batch than the one that `needs_steps` tried, such as the first with an image
                self.stepwise = True
        if self.stepwise:
            with forwards_replaced({tower: partial(_remembering, known) for tower, known in self.towers.items()}):
                self.hidden, calls = capture(self.model, [block], self.batches, finished=self.finished)
            if self.previous is not None and self.previous.stack == block.stack:  # free its hidden states
                self.finished[self.previous.module].keywords["hidden"] = None
            return self.hidden, calls[0]
        return self.hidden, self.calls.popleft()

    @contextmanager
    def recording_extras(self, block):
        """Record what a block returns beside its hidden states when it runs inside a `with`, on one batch after the other."""
        self.returned.clear()
        if not self.stepwise:
            yield
            return

        def record(module, args, output):  # batches often get equal extras: keep one copy
            self.returned.append(share(split(output)[1], self.returned[-1] if self.returned else None))

        handle = block.module.register_forward_hook(record)
        try:
            yield
        finally:
            handle.remove()

    def finish(self, block, hidden):
        """Take the hidden states that a block returned: a list with an item per batch."""
        self.hidden, self.previous = hidden, block
        if self.stepwise:
            device = next((states.device for states in hidden), None)
            extras = send_to_device(self.returned[-len(self.batches) :], device)
            self.finished[block.module] = partial(_stand_in, hidden=list(hidden), extras=extras)
            self.returned.clear()


def _stand_in(number, states, hidden, extras):
    """What a block that is done returned for batch `number`; where its hidden states are needed no more, any others."""
    states = states if hidden is None else hidden[number]
    return join(states.clone(), extras[number])  # the model may change it in place


def _towers(model, blocks):
    """The models inside a model that hold none of its blocks, such as one of images."""
    stack, found = {block.module for block in blocks}, []
    for module in model.modules():  # from the outside in
        if isinstance(module, PreTrainedModel) and stack.isdisjoint(module.modules()):
            found += [module] if not any(module in tower.modules() for tower in found) else []
    return found


def _remembering(known, original):
    """A tower's forward for one of several passes over the same batches, which computes what is not in the dict `known`."""
    number = itertools.count()

    def forward(*args, **kwargs):
        key = next(number), *(int(checksum(tensor)) for tensor in tensors((args, kwargs)))
        if key not in known:
            known[key] = original(*args, **kwargs)
        return copy.deepcopy(known[key])  # the model may change it in place

    return forward


def needs_steps(model, blocks, batch):
    """Try on one batch whether running the blocks one by one gives what the whole model gives, and how.

    Returns: bool, for `Walk`.

    Raises: ValueError if neither way does, so that the model cannot be pruned block by block.
    """
    ids = batch.get("input_ids")
    if set(batch) == {"input_ids"}:
        batch = {"input_ids": ids[:1, :SHORT]}
    elif ids is not None and all(value.shape[:2] == ids.shape for value in batch.values()):
        batch = {name: value[:1] for name, value in batch.items()}  # whole: its padding may be on either side
    expected = _whole_pass(model, blocks, batch)
    stacks = {block.stack for block in blocks}
    for stepwise in (False, True) if len(stacks) == 1 else (True,):
        problem = None  # of this attempt
        try:
            walk = Walk(model, blocks, [batch], stepwise)
            if _close(_one_by_one(walk), expected):
                return walk.stepwise
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # blocks that need more than their inputs fail in many ways
            problem = error
    if not _close(_whole_pass(model, blocks, batch), expected):
        raise ValueError(f"{type(model).__name__} gives another result in every forward pass, so it cannot be pruned")
    raise ValueError(
        f"the blocks of {type(model).__name__}, run one by one, do not give what the whole model gives, so it cannot be "
        f"pruned block by block{f' ({type(problem).__name__}: {problem})' if problem else ''}"
    ) from problem


def _whole_pass(model, blocks, batch):
    """The hidden states that the last block returns in a forward pass of the model.

    Raises: ValueError: the model fails on the batch, or calls a block, which is named, another number of times than once.
    """
    counts, last = dict.fromkeys(blocks, 0), []

    def counted(block, original):
        def run(*args, **kwargs):
            counts[block] += 1
            output = original(*args, **kwargs)
            last[:] = [split(output)[0]]
            return output

        return run

    with forwards_replaced({block.module: partial(counted, block) for block in blocks}):
        try:
            forward(model, batch)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a model that lacks an input fails in many ways
            given = ", ".join(batch)
            lacks = lacks_decoder_inputs(inspect.signature(model.forward).parameters, batch)
            raise ValueError(
                f"{type(model).__name__} fails on the first calibration batch, which holds {given}"
                f"{' and lacks decoder_input_ids or labels' * lacks}: {type(error).__name__}: {error}"
            ) from error
    for block, count in counts.items():
        if count != 1:
            raise ValueError(
                f"{type(model).__name__} calls {block.name} {count} times in a forward pass of the first batch; only blocks "
                "that are called once can be pruned"
            )
    if not isinstance(last[0], torch.Tensor):
        raise ValueError(f"the blocks of {type(model).__name__} do not return a tensor of hidden states")
    return last[0]


def _one_by_one(walk):
    """The hidden states that the last block returns for the only batch of a `Walk`."""
    for block in walk.blocks:
        hidden, calls = walk.inputs(block)
        with walk.recording_extras(block):
            outputs = [replay(block, hidden[0], calls[0])]
        walk.finish(block, outputs)
    return outputs[0]


def _close(found, expected):
    """Whether the hidden states [..., hidden] of every token agree up to rounding; on a GPU, those of most tokens.

    A GPU may sum in another order each time, and a token on the edge between two experts then takes the other one.
    """
    if found.shape != expected.shape:
        return False
    tolerance = 1e-4 if found.dtype == torch.float32 else 0.02
    found, expected = (states.float().to(expected.device).nan_to_num(0, 0, 0) for states in (found, expected))
    agrees = (found - expected).norm(dim=-1) <= tolerance * expected.norm(dim=-1)
    return bool(agrees.all() if found.device.type == "cpu" else agrees.float().mean() > 0.9)
