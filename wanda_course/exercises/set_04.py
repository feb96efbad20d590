"""Exercises of notebook 04: the walk over the blocks."""

# ruff: noqa: D101, D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

from contextlib import suppress

import torch
from torch import nn

import wanda

from .toys import Absent, Broken, Mixing, Others, Stack, ToyBlock, linear
from .types import Exercise


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


# What the notebook has: the solutions use it under the same names.


def linears(block):
    modules = block.named_modules()
    return {name: layer for name, layer in modules if isinstance(layer, torch.nn.Linear)}


def pruned(weight, norm, sparsity=0.5):
    return weight.masked_fill(wanda.prune_mask(weight.abs() * norm, sparsity), 0)


def run_toy(block, inputs):
    first, second = block
    inner = torch.relu(inputs @ first.T)
    return inner, inputs + inner @ second.T


class Caught(Exception):
    pass


# 04.b1 Norms of what the layers read -----------------------------------------------------------------------------------


def toy_block(generator, width, inner):
    return ToyBlock(normal(generator, inner, width), normal(generator, inner, width), normal(generator, width, inner))


def norms_of(block, batches, arguments):
    squares, handles = {}, []

    def listen(layer, args):
        tokens = args[0].flatten(0, -2).float()  # [tokens, in]
        squares[layer] = squares.get(layer, 0) + tokens.square().sum(dim=0).double()  # [in]

    for layer in linears(block).values():
        handles.append(layer.register_forward_pre_hook(listen))
    for states in batches:
        block(states, **arguments)
    for handle in handles:
        handle.remove()
    return [squares[layer].sqrt().float() for layer in linears(block).values()]


def norms_of_cases(generator):
    small = ToyBlock(torch.eye(2), torch.tensor([[1.0, -1.0], [0.5, 2.0]]), torch.eye(2))
    by_hand = [torch.tensor([[[3.0, 1.0], [0.0, 1.0]]]), torch.tensor([[[4.0, 1.0], [0.0, 0.5]]])]
    quiet = ToyBlock(1e-19 * torch.eye(2), 1e-19 * torch.eye(2), torch.eye(2))
    batches = [normal(generator, 2, 5, 4), 3 * normal(generator, 1, 7, 4), normal(generator, 3, 2, 4)]
    return [
        (small, by_hand, {}),
        (toy_block(generator, 4, 6), batches, {"scale": 0.5}),
        (toy_block(generator, 4, 3), batches[:1], {"scale": 2.0}),
        (quiet, [torch.tensor([[[1.5e19, 1.0]]]), torch.tensor([[[1.5e19, 2.0]]])], {}),  # the sum overflows in float32
    ]


def _read(block, batches, arguments, what="input"):
    """Per layer a list over the batches of what it reads (or gives), [tokens, in]."""
    heard = {layer: [] for layer in linears(block).values()}
    hooks = [
        layer.register_forward_hook(
            lambda layer, args, result: heard[layer].append((args[0] if what == "input" else result).flatten(0, -2))
        )
        for layer in heard
    ]
    for states in batches:
        block(states, **arguments)
    for hook in hooks:
        hook.remove()
    return list(heard.values())


norms = Exercise(
    "04.b1",
    "norms of what a block's layers read",
    norms_of,
    norms_of_cases,
    hints=(
        "register_forward_pre_hook(hook) calls hook(layer, args) before the layer runs, and args[0] is its input. What "
        "can the hook add up from batch to batch, so that a single root at the end gives the norms?",
        "In the hook: tokens = args[0].flatten(0, -2), then add tokens.square().sum(dim=0) to the layer's entry in a "
        "dict. Register it on each of linears(block).values(), call block(states, **arguments) for each batch, remove "
        "the handles, and take the roots in the same order.",
    ),
    wrong=[
        (
            lambda *given: [torch.cat(tokens).norm(dim=0) for tokens in _read(*given, what="output")],
            "you recorded the layers' outputs. Wanda needs the norms of their inputs: a hook that runs before a layer "
            "gets them as args[0].",
        ),
        (
            lambda *given: [sum(part.norm(dim=0) for part in tokens) for tokens in _read(*given)],
            "you added the norms of the batches. Norms do not add up, their squares do: 3 and 4 make 5, not 7.",
        ),
        (
            lambda *given: [tokens[-1].norm(dim=0) for tokens in _read(*given)],
            "only the last batch counts: the hook overwrites the earlier sum. Add to it instead.",
        ),
        (
            lambda *given: [norm.square() for norm in norms_of(*given)],
            "the root at the end is missing: these are sums of squares.",
        ),
        (
            lambda block, batches, arguments: norms_of(block, batches, {}),
            "the block ran without its other arguments: call block(states, **arguments).",
        ),
        (
            lambda *given: [torch.cat(tokens).double().square().mean(dim=0).sqrt() for tokens in _read(*given)],
            "you averaged over the tokens (a root mean square). The L2 norm is the root of the sum; within a layer the "
            "ranking is the same, but the value is not the norm.",
        ),
        (
            lambda *given: norms_of(*given)[1:],
            "only the block's direct children were found. A layer can lie deeper, as in attention: linears(block) "
            "finds them all.",
        ),
        (
            lambda *given: [torch.cat(tokens).square().sum(dim=0).sqrt() for tokens in _read(*given)],
            "you kept the sums in float32. Squares of millions of tokens come together there: add them up in float64.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=15,
)


@norms.misconception(
    "the norms stand in the order in which the layers ran. The order of linears(block) is wanted: look each layer up in your dict."
)
def norms_in_order_of_calls(block, batches, arguments):
    squares = {}

    def listen(layer, args):
        squares[layer] = squares.get(layer, 0) + args[0].flatten(0, -2).double().square().sum(dim=0)

    handles = [layer.register_forward_pre_hook(listen) for layer in linears(block).values()]
    for states in batches:
        block(states, **arguments)
    for handle in handles:
        handle.remove()
    return [total.sqrt() for total in squares.values()]


# 04.b2 One block: statistics, zeros, second run ------------------------------------------------------------------------


def visit(block, hidden, arguments, sparsity):
    norms = norms_of(block, hidden, arguments)
    for layer, norm in zip(linears(block).values(), norms, strict=True):
        score = layer.weight.abs() * norm  # [out, in] * [in]
        layer.weight.data.masked_fill_(wanda.prune_mask(score, sparsity), 0)
    return [block(states, **arguments) for states in hidden]


def visit_cases(generator):
    scales = torch.linspace(0.3, 2, 8)
    hidden = [normal(generator, 1, 5, 8) * scales for _ in range(3)]
    return [
        (toy_block(generator, 8, 12), hidden[:1], {}, 0.5),
        (toy_block(generator, 8, 12), hidden, {"scale": 0.5}, 0.5),
        (toy_block(generator, 8, 12), hidden, {"scale": 2.0}, 0.3),  # 2.4 of 8 weights: 2; 3.6 of 12: 4
        (toy_block(generator, 8, 12), hidden, {}, 0.0),
    ]


def _visited(block, hidden, arguments, sparsity, norms=None, at_once=True, whole_layer=False, layers=None):
    """The visit with one decision changed: other norms, layer after layer, or another group."""
    norms = norms_of(block, hidden, arguments) if norms is None else norms
    for index, layer in enumerate(list(linears(block).values())[:layers]):
        norm = norms[index] if at_once else norms_of(block, hidden, arguments)[index]
        group = "layer" if whole_layer else "output"
        mask = wanda.prune_mask(layer.weight.abs() * norm, sparsity, group=group)
        layer.weight.data.masked_fill_(mask, 0)
    return [block(states, **arguments) for states in hidden]


one_block = Exercise(
    "04.b2",
    "one block: norms, zeros, second run",
    visit,
    visit_cases,
    hints=(
        "Three steps, and their order matters: all norms while the block is dense, then the zeros in every layer, then "
        "the block once more on the same inputs.",
        "norms = norms_of(block, hidden, arguments); for each layer and its norm: "
        "layer.weight.data.masked_fill_(wanda.prune_mask(layer.weight.abs() * norm, sparsity), 0); then "
        "[block(states, **arguments) for states in hidden].",
    ),
    wrong=[
        (
            lambda block, hidden, arguments, sparsity: [block(states, **arguments) for states in hidden],
            "the weights have not changed: write the zeros into layer.weight, then run the block.",
        ),
        (
            lambda block, hidden, arguments, sparsity: (
                [block(states, **arguments) for states in hidden],
                visit(block, hidden, arguments, sparsity),
            )[0],
            "you return the dense block's outputs. The next block reads what the pruned block gives: run it again after "
            "the zeros.",
        ),
        (
            lambda *given: _visited(*given, at_once=False),
            "you took a layer's norms after pruning the layers before it. All statistics of a block come from the dense "
            "block: norms first, then all zeros.",
        ),
        (
            lambda block, hidden, arguments, sparsity: _visited(
                block, hidden, arguments, sparsity, norms=[1.0] * len(linears(block))
            ),
            "you ranked by |w| alone: the score needs the norms of each layer's inputs too.",
        ),
        (
            lambda *given: _visited(*given, whole_layer=True),
            "the weights competed over the whole layer. Each output has its own ranking: that is what prune_mask does by "
            "default.",
        ),
        (
            lambda block, hidden, arguments, sparsity: (
                visit(block, hidden, arguments, sparsity),
                [block(states) for states in hidden],
            )[1],
            "the second run lacks the block's other arguments: call block(states, **arguments).",
        ),
        (
            lambda *given: _visited(*given, layers=-1),
            "the last layer was not pruned. The loop goes over all of linears(block).",
        ),
        (
            lambda block, hidden, arguments, sparsity: (
                _visited(block, hidden[:1], arguments, sparsity),
                [block(states, **arguments) for states in hidden],
            )[1],
            "the norms come from the first window only: they are taken over all of them.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=15,
)


@one_block.misconception(
    "you kept the weights with the small scores and pruned the large ones. prune_mask is True where a weight goes."
)
def visit_inverted(block, hidden, arguments, sparsity):
    for layer, norm in zip(linears(block).values(), norms_of(block, hidden, arguments), strict=True):
        mask = wanda.prune_mask(layer.weight.abs() * norm, sparsity)
        layer.weight.data.masked_fill_(~mask, 0)
    return [block(states, **arguments) for states in hidden]


# 04.b3 The distance from the dense model -------------------------------------------------------------------------------


def distance(states, dense):
    apart = (states - dense).norm(dim=-1) / dense.norm(dim=-1)  # [blocks, tokens]
    return apart.mean(dim=1)


def distance_cases(generator):
    dense = torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[6.0, 8.0], [2.0, 0.0]]])
    loud = normal(generator, 5, 5, 5) * torch.tensor([1.0, 1.0, 30.0, 0.1, 1.0])[:, None]  # tokens of several lengths
    return [
        (dense + torch.tensor([0.0, 1.0]), dense),
        (loud + normal(generator, 5, 5, 5), loud),
        (normal(generator, 3, 7, 4), normal(generator, 3, 7, 4)),
    ]


far = Exercise(
    "04.b3",
    "the distance from the dense model",
    distance,
    distance_cases,
    hints=(
        "First a number for each block and token, [blocks, tokens]. Over which dimension is a hidden state's length?",
        "The difference's norm(dim=-1), divided by the dense state's norm(dim=-1), and of that the mean over the tokens, "
        "dim=1.",
    ),
    wrong=[
        (
            lambda states, dense: (states - dense).norm(dim=-1).mean(dim=1),
            "this is the distance itself. The stream grows with depth, so divide each by the length of the dense state.",
        ),
        (
            lambda states, dense: (states - dense).norm(dim=-1).sum(dim=1) / dense.norm(dim=-1).sum(dim=1),
            "you divided sum by sum, so long states count more. Divide token by token, then take the mean.",
        ),
        (
            lambda states, dense: (states - dense).flatten(1).norm(dim=1) / dense.flatten(1).norm(dim=1),
            "you took one norm over all tokens of a block: the longest states drown the others. One norm per token "
            "first.",
        ),
        (
            lambda states, dense: ((states - dense).norm(dim=-1) / states.norm(dim=-1)).mean(dim=1),
            "you divided by the pruned model's states. The dense model is what we compare with.",
        ),
        (
            lambda states, dense: ((states - dense).norm(dim=-1) / dense.norm(dim=-1)).mean(dim=0),
            "you averaged over the blocks. The result has a number per block: average over the tokens, dim=1.",
        ),
        (
            lambda states, dense: (1 - states.norm(dim=-1) / dense.norm(dim=-1)).abs().mean(dim=1),
            "you compared the lengths. Two states of equal length can point in different directions: take the length of "
            "the difference.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=5,
)


# 04.1 What the layers of a block read, with padding --------------------------------------------------------------------


def block_norms(block, batches, masks):
    layers = [module for module in block.modules() if isinstance(module, torch.nn.Linear)]
    squares, mask = {}, None

    def listen(layer, args):
        tokens = args[0][mask].double()  # [tokens, in]
        squares[layer] = squares.get(layer, 0) + tokens.square().sum(dim=0)  # [in]

    handles = [layer.register_forward_pre_hook(listen) for layer in layers]
    with torch.no_grad():
        for hidden, mask in zip(batches, masks, strict=True):  # noqa: B007 (the hook reads `mask`)
            block(hidden)
    for handle in handles:
        handle.remove()
    return [squares[layer].sqrt().float() for layer in layers]


def shared(weight, bias=None):
    """A linear layer that refuses to lose all its hooks at once."""
    layer = linear(weight)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    layer._forward_pre_hooks = Others()
    return layer


def block_norms_cases(generator):
    small = nn.Sequential(shared(torch.tensor([[1.0, -1.0], [0.5, 2.0]])), nn.ReLU(), shared(torch.eye(2)))
    ones, twos = torch.tensor([[[3.0, 1.0], [0.0, 1.0]]]), torch.tensor([[[4.0, 1.0], [9.0, 9.0]]])
    full, half = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    inner = nn.Sequential(shared(normal(generator, 6, 4), normal(generator, 6)), nn.SiLU(), Mixing())
    nested = nn.Sequential(shared(normal(generator, 4, 4)), Mixing(), inner, shared(normal(generator, 4, 6)))
    batches = [normal(generator, 2, 5, 4), 3 * normal(generator, 2, 7, 4), normal(generator, 1, 3, 4)]
    lengths = [[[5], [3]], [[2], [7]], [[0]]]  # of the tokens; the last window is all padding
    masks = [
        torch.arange(hidden.shape[1]) < torch.tensor(count) for hidden, count in zip(batches, lengths, strict=True)
    ]
    return [(small, [ones, twos], [full, half]), (nested, batches, masks)]


def _heard(block, batches, masks, what="input"):
    """Per layer a list over the batches of the tokens [tokens, in] that a hook hears; `what` it listens to."""
    parts = [_read(block, [hidden], {}, what) for hidden in batches]
    return [
        [of_layer[0][mask.flatten()] for of_layer, mask in zip(layer, masks, strict=True)]
        for layer in zip(*parts, strict=True)
    ]


hooks = Exercise(
    "04.1",
    "what the layers of a block read, with padding",
    block_norms,
    block_norms_cases,
    hints=(
        "A hook on each nn.Linear, called before its forward, sees the layer's input. The mask of the batch that is just "
        "running says which of its positions count.",
        "register_forward_pre_hook(hook) calls hook(layer, args). args[0][mask] is [tokens, in]; add up its "
        ".square().sum(dim=0) per layer, run block(hidden) on each batch, remove the handles, and take the roots.",
    ),
    wrong=[
        (
            lambda *given: [torch.cat(tokens).norm(dim=0) for tokens in _heard(*given, what="output")],
            "you recorded the layers' outputs. Wanda needs the norms of their inputs: a hook that runs before a layer "
            "gets them as args[0].",
        ),
        (
            lambda block, batches, masks: block_norms(block, batches, [torch.ones_like(mask) for mask in masks]),
            "you counted the padding: leave out the positions where the mask is False.",
        ),
        (
            lambda block, batches, masks: block_norms(block, batches, [~mask for mask in masks]),
            "you counted the padding and nothing else: the mask is True where there is a token.",
        ),
        (
            lambda block, batches, masks: block_norms(
                block,
                [hidden * mask[..., None] for hidden, mask in zip(batches, masks, strict=True)],
                [torch.ones_like(mask) for mask in masks],
            ),
            "you set the padded inputs of the block to zero. A bias makes something of zeros, and attention mixes "
            "positions. Run the block as it is, and leave padded positions out where a layer's input is counted.",
        ),
        (
            lambda block, batches, masks: block_norms(
                block, [hidden * mask[..., None] for hidden, mask in zip(batches, masks, strict=True)], masks
            ),
            "you changed what the block reads: its padded inputs are zero. They go through it like any other; only the "
            "counting leaves them out.",
        ),
        (
            lambda block, batches, masks: block_norms(block, batches[-1:], masks[-1:]),
            "only the last batch counts: the hook overwrites the earlier sum. Add to it instead.",
        ),
        (
            lambda *given: [sum(part.norm(dim=0) for part in tokens) for tokens in _heard(*given)],
            "you added the norms of the batches. Norms do not add up, their squares do: 3 and 4 make 5, not 7.",
        ),
        (
            lambda *given: [sum(part.norm(dim=0) for part in parts) / len(parts) for parts in _heard(*given)],
            "you averaged the norms of the batches. A short batch then counts as much as a long one. Add squares, and "
            "take one root at the end.",
        ),
        (
            lambda *given: [norm.square() for norm in block_norms(*given)],
            "the root at the end is missing: these are sums of squares.",
        ),
        (
            lambda *given: block_norms(*given)[:1] * len(block_norms(*given)),
            "every layer got the norm of the block's input. The second layer reads what the first one made of it: "
            "each layer needs its own hook.",
        ),
        (
            lambda block, *given: [
                norm
                for norm, layer in zip(block_norms(block, *given), linears(block).values(), strict=True)
                if layer in set(block)
            ],
            "you looked at the block's direct children only. A layer may lie deeper, as in attention and the MLP: "
            "block.modules() goes all the way down.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=15,
)


@hooks.misconception(
    "you cleared all hooks of a layer, also those that others have registered there. Keep the handle that "
    "register_forward_pre_hook returns, and remove() it."
)
def clearing_all_hooks(block, batches, masks):
    found = block_norms(block, batches, masks)
    for layer in linears(block).values():
        layer._forward_pre_hooks.clear()
    return found


# 04.2 The walk -----------------------------------------------------------------------------------------------------------


def toy_walk(blocks, inputs, sparsity):
    walked = []
    for first, second in blocks:
        inner, _ = run_toy((first, second), inputs)  # what the second layer reads in the dense block
        pair = pruned(first, inputs.norm(dim=0), sparsity), pruned(second, inner.norm(dim=0), sparsity)
        walked.append(pair)
        _, inputs = run_toy(pair, inputs)  # the pruned block feeds the next one
    return walked


def toy_walk_cases(generator):
    cases = []
    for blocks, width, inner, sparsity in ((2, 4, 6, 0.5), (3, 7, 8, 0.5), (3, 8, 8, 0.25), (1, 6, 4, 0.5)):
        weights = [(normal(generator, inner, width), normal(generator, width, inner)) for _ in range(blocks)]
        cases.append((weights, normal(generator, 12, width) * torch.linspace(0.3, 2, width), sparsity))
    return cases


def _walk(blocks, inputs, sparsity, *, inner_of="dense", passes_on="pruned", score=None):
    """The walk with one decision changed."""

    def prune(weight, norm):
        values = weight.abs() * norm if score is None else score(weight, norm)
        return weight.masked_fill(wanda.prune_mask(values, sparsity), 0)

    pairs = []
    for first, second in blocks:
        new_first = prune(first, inputs.norm(dim=0))
        read = first if inner_of == "dense" else new_first
        new_second = prune(second, torch.relu(inputs @ read.T).norm(dim=0))
        pairs.append((new_first, new_second))
        if passes_on == "pruned":
            inputs = inputs + torch.relu(inputs @ new_first.T) @ new_second.T
        elif passes_on == "dense":
            inputs = inputs + torch.relu(inputs @ first.T) @ second.T
        elif passes_on == "no residual":
            inputs = torch.relu(inputs @ new_first.T) @ new_second.T
    return pairs


toy = Exercise(
    "04.2",
    "the walk over a toy model",
    toy_walk,
    toy_walk_cases,
    hints=(
        "Three steps per block, and their order matters: norms while it is dense, prune both layers, run the pruned "
        "block on its own inputs.",
        "In the loop: inner, _ = run_toy(block, inputs); prune the two weights with inputs.norm(dim=0) and "
        "inner.norm(dim=0); then inputs = run_toy(the pruned pair, inputs)[1].",
    ),
    wrong=[
        (
            lambda blocks, x, s: _walk(blocks, x, s, passes_on="dense"),
            "the next block reads the dense block's output, computed before it was pruned. That is propagate='dense'; "
            "here the pruned block feeds the next one.",
        ),
        (
            lambda blocks, x, s: _walk(blocks, x, s, passes_on="nothing"),
            "every block gets the first block's inputs. After a block is pruned, run it: its output is what the next "
            "one reads.",
        ),
        (
            lambda blocks, x, s: _walk(blocks, x, s, inner_of="pruned"),
            "you took the second layer's norms after pruning the first layer. Within a block, all statistics come "
            "from the dense block: take both norms first, then prune both layers.",
        ),
        (
            lambda blocks, x, s: _walk(blocks, x, s, passes_on="no residual"),
            "the residual is missing: a block adds its result to its input.",
        ),
        (
            lambda blocks, x, s: _walk(blocks, x, s, score=lambda weight, norm: weight.abs()),
            "you ranked by |w| alone: the score needs the norms of each layer's inputs too.",
        ),
        (
            lambda blocks, x, s: _walk(blocks, x, s, score=lambda weight, norm: weight * norm),
            "you ranked signed weights: a large negative weight went first. The score takes |w|.",
        ),
        (
            lambda blocks, x, s: [*toy_walk(blocks[:1], x, s), *blocks[1:]],
            "only the first block was pruned. The walk goes on to the last one.",
        ),
        (
            lambda blocks, x, s: toy_walk(blocks, x, 0.5),
            "the sparsity is always one half: pass `sparsity` on to `pruned`, whose default it replaces.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=15,
)


@toy.misconception(
    "you passed on what the pruned second layer makes of the dense inner states. Run the pruned pair on the inputs: the first layer is pruned too."
)
def walk_with_a_dense_inner(blocks, inputs, sparsity):
    found = []
    for first, second in blocks:
        inner = torch.relu(inputs @ first.T)
        pair = pruned(first, inputs.norm(dim=0), sparsity), pruned(second, inner.norm(dim=0), sparsity)
        found.append(pair)
        inputs = inputs + inner @ pair[1].T
    return found


# 04.3 Stop at a block ----------------------------------------------------------------------------------------------------


def reads(model, index, tokens):
    caught = []

    def catch(block, args):
        caught.append(args[0])
        raise Caught

    handle = model.blocks[index].register_forward_pre_hook(catch)
    try:
        with suppress(Caught), torch.no_grad():
            model(tokens)
    finally:  # also after an error that is not ours
        handle.remove()
    return caught[0]


def reads_cases(generator):
    def stack(present, absent):
        blocks = [linear(normal(generator, 4, 4)) for _ in range(present)]
        return Stack(normal(generator, 10, 4), [*blocks, *(Absent() for _ in range(absent))])

    def tokens(*shape):
        return torch.randint(10, shape, generator=generator)

    def broken(kind):
        return Stack(normal(generator, 10, 4), [Broken(kind), linear(normal(generator, 4, 4))])

    return [
        (stack(2, 1), 2, tokens(1, 3)),
        (stack(0, 3), 0, tokens(2, 3)),
        (stack(3, 2), 3, tokens(2, 5)),
        (broken(ValueError), 1, tokens(1, 3)),
        (broken(RuntimeError), 1, tokens(1, 3)),
    ]


stop = Exercise(
    "04.3",
    "stop at a block",
    reads,
    reads_cases,
    hints=(
        "A hook that runs before block `index` sees what the block is about to read. How can it keep the block from "
        "running?",
        "As in inputs_of_first_block: the pre-hook appends args[0] to a list and raises Caught; suppress(Caught) around "
        "model(tokens). Put handle.remove() under `finally`, so that it is called after other errors too.",
    ),
    wrong=[
        (
            lambda model, index, tokens: model(tokens),
            "a block that is not in memory was run. Stop the pass before block `index` runs: an exception raised in its "
            "pre-hook ends it. (A forward hook, or a pre-hook that returns, comes too late.)",
        ),
        (
            lambda model, index, tokens: reads(model, max(index - 1, 0), tokens),
            "you caught what the block before it reads. The hook belongs on model.blocks[index].",
        ),
        (
            lambda model, index, tokens: reads(model, 0, tokens),
            "you caught what the first block reads. The hook belongs on model.blocks[index].",
        ),
        (
            lambda model, index, tokens: reads(model, index, tokens)[0],
            "you returned the first window only. What the block reads is [batch, length, hidden].",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=10,
)


@stop.misconception(
    "you suppressed a kind of error that others raise too: a block that runs out of memory raises a RuntimeError. Raise an exception class of your own, and suppress only that."
)
def reads_suppressing_a_kind(model, index, tokens):
    caught = []

    def catch(block, args):
        caught.append(args[0])
        raise RuntimeError

    handle = model.blocks[index].register_forward_pre_hook(catch)
    try:
        with suppress(RuntimeError), torch.no_grad():
            model(tokens)
    finally:
        handle.remove()
    return caught[0]


@stop.misconception(
    "you called the blocks yourself. The model does more than that (it scales, adds positions, passes masks): let it make "
    "the call, and stop it."
)
def blocks_by_hand(model, index, tokens):
    states = model.embedding(tokens)
    for block in model.blocks[:index]:
        states = block(states)
    return states


@stop.misconception(
    "you suppressed every error. One that is not yours, such as a broken block's, must come through: suppress only your "
    "own exception."
)
def suppressing_all(model, index, tokens):
    caught = []

    def catch(block, args):
        caught.append(args[0])
        raise Caught

    handle = model.blocks[index].register_forward_pre_hook(catch)
    with suppress(Exception), torch.no_grad():
        model(tokens)
    handle.remove()
    return caught[0]
