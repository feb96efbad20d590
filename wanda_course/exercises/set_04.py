"""Exercises of notebook 04: the walk over the blocks, and the memory it needs."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

from itertools import pairwise

import torch
from torch import nn

from .types import Exercise


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


def linear(weight):
    """A linear layer with this weight [out, in]. It draws no random numbers of its own."""
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return layer


# 04.1 What the layers of a block read -----------------------------------------------------------------------------------


def block_norms(block, batches, masks):
    layers = [module for module in block.modules() if isinstance(module, nn.Linear)]
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


def block_norms_cases(generator):
    small = nn.Sequential(linear(torch.tensor([[1.0, -1.0], [0.5, 2.0]])), nn.ReLU(), linear(torch.eye(2)))
    ones, twos = torch.tensor([[[3.0, 1.0], [0.0, 1.0]]]), torch.tensor([[[4.0, 1.0], [9.0, 9.0]]])
    full, half = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    wide = nn.Sequential(linear(normal(generator, 6, 4)), nn.SiLU(), linear(normal(generator, 4, 6)))
    batches = [normal(generator, 2, 5, 4), 3 * normal(generator, 2, 7, 4)]
    lengths = [torch.arange(5) < torch.tensor([[5], [3]]), torch.arange(7) < torch.tensor([[2], [7]])]
    return [(small, [ones, twos], [full, half]), (wide, batches, lengths)]


def _heard(block, batches, masks, what="input"):
    """Per layer a list over the batches of the tokens [tokens, in] that a hook hears; `what` it listens to."""
    layers = [module for module in block.modules() if isinstance(module, nn.Linear)]
    heard = []
    with torch.no_grad():
        for hidden, mask in zip(batches, masks, strict=True):
            of_batch = {}
            for module in block:
                result = module(hidden)
                if module in layers:
                    of_batch[module] = (hidden if what == "input" else result)[mask]
                hidden = result
            heard.append([of_batch[layer] for layer in layers])
    return [list(of_layer) for of_layer in zip(*heard, strict=True)]


hooks = Exercise(
    "04.1",
    "what the layers of a block read",
    block_norms,
    block_norms_cases,
    hints=(
        "A hook on each nn.Linear, called before its forward, sees the layer's input. Which quantity can it simply "
        "add up from batch to batch?",
        "register_forward_pre_hook(hook) calls hook(layer, args). args[0][mask] is [tokens, in]; add up its "
        ".square().sum(dim=0) per layer, run block(hidden) on each batch, remove the hooks, and take the roots.",
    ),
    wrong=[
        (
            lambda *given: [torch.cat(tokens).norm(dim=0) for tokens in _heard(*given, what="output")],
            "you recorded the layers' outputs. Wanda needs the norms of their inputs: a forward pre-hook gets them as "
            "args[0].",
        ),
        (
            lambda block, batches, masks: block_norms(block, batches, [torch.ones_like(mask) for mask in masks]),
            "you counted the padding: leave out the positions where the mask is False.",
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
    ],
)


# 04.2 The walk -----------------------------------------------------------------------------------------------------------


def toy_walk(blocks, inputs, sparsity):
    def prune(weight, norm):
        score = weight.abs() * norm  # [out, in]
        order = score.argsort(dim=1, stable=True)
        return weight.scatter(1, order[:, : round(sparsity * weight.shape[1])], 0.0)

    pruned = []
    for first, second in blocks:
        inner = torch.relu(inputs @ first.T)  # what the second layer reads in the dense block
        first, second = prune(first, inputs.norm(dim=0)), prune(second, inner.norm(dim=0))
        pruned.append((first, second))
        inputs = inputs + torch.relu(inputs @ first.T) @ second.T  # the pruned block feeds the next one
    return pruned


def toy_walk_cases(generator):
    cases = []
    for blocks, width, inner, sparsity in ((2, 4, 6, 0.5), (3, 6, 8, 0.5), (3, 8, 8, 0.25)):
        weights = [(normal(generator, inner, width), normal(generator, width, inner)) for _ in range(blocks)]
        cases.append((weights, normal(generator, 12, width) * torch.linspace(0.3, 2, width), sparsity))
    return cases


def _walk(blocks, inputs, sparsity, *, inner_of="dense", passes_on="pruned", norms=True):
    """The walk with one decision changed."""

    def prune(weight, norm):
        score = weight.abs() * (norm if norms else 1)
        order = score.argsort(dim=1, stable=True)
        return weight.scatter(1, order[:, : round(sparsity * weight.shape[1])], 0.0)

    pruned = []
    for first, second in blocks:
        new_first = prune(first, inputs.norm(dim=0))
        read = first if inner_of == "dense" else new_first
        new_second = prune(second, torch.relu(inputs @ read.T).norm(dim=0))
        pruned.append((new_first, new_second))
        if passes_on == "pruned":
            inputs = inputs + torch.relu(inputs @ new_first.T) @ new_second.T
        elif passes_on == "dense":
            inputs = inputs + torch.relu(inputs @ first.T) @ second.T
        elif passes_on == "no residual":
            inputs = torch.relu(inputs @ new_first.T) @ new_second.T
    return pruned


walk = Exercise(
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
            lambda blocks, x, s: _walk(blocks, x, s, norms=False),
            "you ranked by |w| alone: the score needs the norms of each layer's inputs too.",
        ),
        (
            lambda blocks, x, s: [*toy_walk(blocks[:1], x, s), *blocks[1:]],
            "only the first block was pruned. The walk goes on to the last one.",
        ),
    ],
)


# 04.3 The peak of a streamed run -----------------------------------------------------------------------------------------


def streamed_peak(blocks, embedding, itemsize):
    def numbers(shapes):
        return sum(outputs * inputs for outputs, inputs in shapes)

    start = itemsize * (numbers([embedding]) + numbers(blocks[0]))
    masks = max(
        itemsize * numbers(block) + 4 * 4 * max(outputs * inputs for outputs, inputs in block) for block in blocks
    )
    reading = max(itemsize * (numbers(one) + numbers(other)) for one, other in pairwise(blocks))
    return max(start, masks, reading)


def streamed_peak_cases(generator):
    llama = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
    even, uneven = [[(8, 8), (16, 8)]] * 3, [[(8, 8), (8, 8)], [(40, 8), (8, 40)], [(8, 8), (24, 8)]]
    many = [[(8, 8)] * count for count in (5, 7, 4, 7)]  # small layers, so that two blocks weigh more than the copies
    return [
        (even, (10, 8), 4),
        (even, (1000, 8), 4),
        ([llama] * 32, (32000, 4096), 2),
        (uneven, (10, 8), 2),
        (uneven, (1000, 8), 2),
        (many, (10, 8), 4),
        (many, (100, 8), 2),
    ]


def _numbers(shapes):
    return sum(outputs * inputs for outputs, inputs in shapes)


def _moments(blocks, embedding, itemsize, copy=4):
    """The bytes of each of the three moments, with working copies of `copy` bytes a number."""
    start = itemsize * (_numbers([embedding]) + _numbers(blocks[0]))
    masks = max(itemsize * _numbers(block) + 4 * copy * max(_numbers([shape]) for shape in block) for block in blocks)
    reading = itemsize * max(_numbers(one) + _numbers(other) for one, other in pairwise(blocks))
    return start, masks, reading


peak = Exercise(
    "04.3",
    "the peak of a streamed run",
    streamed_peak,
    streamed_peak_cases,
    hints=(
        "Three moments, three sums. Only one of the three needs to know about float32.",
        "max of: itemsize * (embedding + first block); the largest itemsize * block + 16 * largest layer of that "
        "block; itemsize * the largest pair of neighbours, pairwise(blocks).",
    ),
    wrong=[
        (
            lambda blocks, embedding, size: size * (_numbers([embedding]) + sum(map(_numbers, blocks))),
            "this is the whole model. When streaming, each block is freed before the next but one is read.",
        ),
        (
            lambda blocks, embedding, size: streamed_peak(blocks, embedding, size) // size,
            "you counted numbers, not bytes. How many bytes does each take?",
        ),
        (
            lambda blocks, embedding, size: max(_moments(blocks, embedding, size, copy=size)),
            "the working copies are float32 whatever the checkpoint's dtype: 4 bytes each, not itemsize.",
        ),
        (
            lambda *given: max(_moments(*given, copy=0)),
            "the moment when masks are chosen is missing: four float32 copies of the current layer are then in memory "
            "beside the block.",
        ),
        (
            lambda *given: max(_moments(*given)[:2]),
            "the moment when the next block is read is missing: two neighbours are then in memory.",
        ),
        (
            lambda blocks, e, size: max(streamed_peak(blocks, e, size), 2 * size * max(map(_numbers, blocks))),
            "you took the largest block twice. Only neighbours are in memory together, and the largest two need not "
            "be neighbours.",
        ),
        (
            lambda blocks, embedding, size: streamed_peak(blocks, (0, 0), size),
            "the embedding is missing: to make the first block's inputs it has to be in memory beside that block.",
        ),
    ],
)


@peak.misconception(
    "you added up what is never in memory together. Compute each of the three moments, and take the largest."
)
def peak_as_a_sum(blocks, embedding, itemsize):
    largest = max(outputs * inputs for block in blocks for outputs, inputs in block)
    pair = max(_numbers(one) + _numbers(other) for one, other in pairwise(blocks))
    return itemsize * (_numbers([embedding]) + pair) + 16 * largest


@peak.misconception(
    "you put the embedding beside the largest block. It is needed for the first block only, and freed after that."
)
def peak_with_embedding_for_all(blocks, embedding, itemsize):
    largest = itemsize * (_numbers([embedding]) + max(map(_numbers, blocks)))
    return max(streamed_peak(blocks, embedding, itemsize), largest)


# 04.4 Two machines -------------------------------------------------------------------------------------------------------


def merged_norm(norms, tokens):
    return torch.stack(list(norms)).square().sum(dim=0).sqrt()  # [in]


def merged_norm_cases(generator):
    return [
        ([torch.tensor([3.0, 1.0]), torch.tensor([4.0, 1.0])], [10, 30]),
        ([torch.tensor([2.0, 0.0, 6.0])], [5]),
        ([normal(generator, 6).abs() for _ in range(4)], [128, 128, 128, 7]),
    ]


merge = Exercise(
    "04.4",
    "one norm from several machines",
    merged_norm,
    merged_norm_cases,
    hints=(
        "What would one machine compute that had read all texts? Which part of it can be computed in pieces?",
        "Square, add, root. The numbers of tokens are not needed.",
    ),
    wrong=[
        (
            lambda norms, tokens: torch.stack(list(norms)).sum(dim=0),
            "you added the norms. Norms do not add up, their squares do: 3 and 4 make 5, not 7.",
        ),
        (
            lambda norms, tokens: torch.stack(list(norms)).mean(dim=0),
            "you averaged the norms. More text makes the norm larger; an average does not grow.",
        ),
        (
            lambda norms, tokens: torch.stack(list(norms)).amax(dim=0),
            "you took the largest norm; what the other machines saw is lost.",
        ),
        (lambda norms, tokens: norms[0], "you took the first machine's norm; what the others saw is lost."),
        (
            lambda norms, tokens: merged_norm(norms, tokens).square(),
            "the root at the end is missing: this is the sum of squares.",
        ),
        (
            lambda norms, tokens: merged_norm(norms, tokens) / len(norms) ** 0.5,
            "you averaged the squares over the machines. Their sum is wanted: it is one sum over all tokens.",
        ),
        (
            lambda norms, tokens: merged_norm(norms, tokens) / sum(tokens) ** 0.5,
            "you divided by the number of tokens (a root mean square). The ranking within a layer stays the same, but "
            "the L2 norm is wanted.",
        ),
    ],
)


@merge.misconception(
    "you averaged the norms, weighted by tokens. A squared norm is already a sum over tokens: nothing needs a weight."
)
def merged_by_weighted_average(norms, tokens):
    weights = torch.tensor(tokens, dtype=torch.float32)
    return (torch.stack(list(norms)) * weights[:, None]).sum(dim=0) / weights.sum()


@merge.misconception(
    "you weighted the squares by tokens. They are already sums over tokens: a machine that saw more of them has larger "
    "norms."
)
def merged_with_weighted_squares(norms, tokens):
    weights = torch.tensor(tokens, dtype=torch.float32)
    return ((torch.stack(list(norms)).square() * weights[:, None]).sum(dim=0) / weights.sum()).sqrt()
