"""Exercises of notebook 04: the walk over the blocks, and the memory it needs."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

from itertools import pairwise

import torch
from torch import nn

from .types import Exercise, Misconception


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


def block_norms_of_outputs(block, batches, masks):
    return [torch.cat(tokens).norm(dim=0) for tokens in _heard(block, batches, masks, what="output")]


def block_norms_with_padding(block, batches, masks):
    return block_norms(block, batches, [torch.ones_like(mask) for mask in masks])


def block_norms_of_last_batch(block, batches, masks):
    return block_norms(block, batches[-1:], masks[-1:])


def block_norms_added(block, batches, masks):
    return [sum(part.norm(dim=0) for part in tokens) for tokens in _heard(block, batches, masks)]


def block_norms_averaged(block, batches, masks):
    return [norm / len(batches) for norm in block_norms_added(block, batches, masks)]


def block_norms_without_root(block, batches, masks):
    return [norm.square() for norm in block_norms(block, batches, masks)]


def block_norms_of_the_block_input(block, batches, masks):
    first = block_norms(block, batches, masks)[0]
    return [first for module in block.modules() if isinstance(module, nn.Linear)]


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


def walk_recomputed_too_early(blocks, inputs, sparsity):
    return _walk(blocks, inputs, sparsity, passes_on="dense")


def walk_without_recomputing(blocks, inputs, sparsity):
    return _walk(blocks, inputs, sparsity, passes_on="nothing")


def walk_layer_by_layer(blocks, inputs, sparsity):
    return _walk(blocks, inputs, sparsity, inner_of="pruned")


def walk_without_residual(blocks, inputs, sparsity):
    return _walk(blocks, inputs, sparsity, passes_on="no residual")


def walk_by_magnitude(blocks, inputs, sparsity):
    return _walk(blocks, inputs, sparsity, norms=False)


def walk_over_one_block(blocks, inputs, sparsity):
    return [*toy_walk(blocks[:1], inputs, sparsity), *blocks[1:]]


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


def peak_of_the_whole_model(blocks, embedding, itemsize):
    return itemsize * (_numbers([embedding]) + sum(map(_numbers, blocks)))


def peak_as_a_sum(blocks, embedding, itemsize):
    largest = max(outputs * inputs for block in blocks for outputs, inputs in block)
    pair = max(_numbers(one) + _numbers(other) for one, other in pairwise(blocks))
    return itemsize * (_numbers([embedding]) + pair) + 16 * largest


def peak_in_numbers(blocks, embedding, itemsize):
    return streamed_peak(blocks, embedding, itemsize) // itemsize


def peak_with_narrow_copies(blocks, embedding, itemsize):
    masks = max(_numbers(block) + 4 * max(_numbers([shape]) for shape in block) for block in blocks)
    start = _numbers([embedding]) + _numbers(blocks[0])
    pair = max(_numbers(one) + _numbers(other) for one, other in pairwise(blocks))
    return itemsize * max(start, masks, pair)


def peak_without_copies(blocks, embedding, itemsize):
    pair = max(_numbers(one) + _numbers(other) for one, other in pairwise(blocks))
    return itemsize * max(_numbers([embedding]) + _numbers(blocks[0]), pair)


def peak_without_reading_ahead(blocks, embedding, itemsize):
    masks = max(itemsize * _numbers(block) + 16 * max(_numbers([shape]) for shape in block) for block in blocks)
    return max(itemsize * (_numbers([embedding]) + _numbers(blocks[0])), masks)


def peak_of_the_largest_twice(blocks, embedding, itemsize):
    return max(streamed_peak(blocks, embedding, itemsize), 2 * itemsize * max(map(_numbers, blocks)))


def peak_with_embedding_for_all(blocks, embedding, itemsize):
    largest = itemsize * (_numbers([embedding]) + max(map(_numbers, blocks)))
    return max(streamed_peak(blocks, embedding, itemsize), largest)


def peak_without_embedding(blocks, embedding, itemsize):
    return streamed_peak(blocks, (0, 0), itemsize)


# 04.4 Two machines -------------------------------------------------------------------------------------------------------


def merged_norm(norms, tokens):
    return torch.stack(list(norms)).square().sum(dim=0).sqrt()  # [in]


def merged_norm_cases(generator):
    return [
        ([torch.tensor([3.0, 1.0]), torch.tensor([4.0, 1.0])], [10, 30]),
        ([torch.tensor([2.0, 0.0, 6.0])], [5]),
        ([normal(generator, 6).abs() for _ in range(4)], [128, 128, 128, 7]),
    ]


def merged_by_adding(norms, tokens):
    return torch.stack(list(norms)).sum(dim=0)


def merged_by_averaging(norms, tokens):
    return torch.stack(list(norms)).mean(dim=0)


def merged_by_weighted_average(norms, tokens):
    weights = torch.tensor(tokens, dtype=torch.float32)
    return (torch.stack(list(norms)) * weights[:, None]).sum(dim=0) / weights.sum()


def merged_by_maximum(norms, tokens):
    return torch.stack(list(norms)).amax(dim=0)


def merged_of_the_first(norms, tokens):
    return norms[0]


def merged_without_root(norms, tokens):
    return merged_norm(norms, tokens).square()


def merged_by_mean_square(norms, tokens):
    return merged_norm(norms, tokens) / len(norms) ** 0.5


def merged_per_token(norms, tokens):
    return merged_norm(norms, tokens) / sum(tokens) ** 0.5


def merged_with_weighted_squares(norms, tokens):
    weights = torch.tensor(tokens, dtype=torch.float32)
    return ((torch.stack(list(norms)).square() * weights[:, None]).sum(dim=0) / weights.sum()).sqrt()


EXERCISES = [
    Exercise(
        key="04.1",
        title="what the layers of a block read",
        cases=block_norms_cases,
        solution=block_norms,
        misconceptions=[
            Misconception(
                block_norms_of_outputs,
                "you listened to what the layers give. Wanda wants the norm of what they read: a forward pre-hook gets it "
                "as args[0].",
            ),
            Misconception(
                block_norms_with_padding,
                "padding is counted. It is no text: leave out the positions where the mask is False.",
            ),
            Misconception(
                block_norms_of_last_batch,
                "only the last batch counts: the hook overwrites what it noted before. It has to add to it.",
            ),
            Misconception(
                block_norms_added,
                "you added the norms of the batches. Norms do not add up, their squares do: 3 and 4 make 5, not 7.",
            ),
            Misconception(
                block_norms_averaged,
                "you averaged the norms of the batches. A short batch then counts as much as a long one. Add squares, and "
                "take one root at the end.",
            ),
            Misconception(block_norms_without_root, "the root at the end is missing: these are sums of squares."),
            Misconception(
                block_norms_of_the_block_input,
                "every layer got the norm of the block's input. The second layer reads what the first one made of it: each "
                "layer needs a hook of its own.",
            ),
        ],
        hints=(
            "A hook on each nn.Linear, called before its forward, sees the layer's input. Which quantity can it simply add "
            "up from batch to batch?",
            "register_forward_pre_hook(hook) calls hook(layer, args). args[0][mask] is [tokens, in]; add up its "
            ".square().sum(dim=0) per layer, run block(hidden) on each batch, remove the hooks, and take the roots.",
        ),
    ),
    Exercise(
        key="04.2",
        title="the walk over a toy model",
        cases=toy_walk_cases,
        solution=toy_walk,
        misconceptions=[
            Misconception(
                walk_recomputed_too_early,
                "the next block gets what the dense block gives: its outputs were computed before it was pruned, or never "
                "anew. That is propagate='dense'; here the pruned block is to feed the next one.",
            ),
            Misconception(
                walk_without_recomputing,
                "every block gets the first block's inputs. After a block is pruned, run it: its output is what the next "
                "one reads.",
            ),
            Misconception(
                walk_layer_by_layer,
                "the second layer's norms were taken behind the first layer's pruned weights. Within a block, all "
                "statistics come from the dense block: take both norms first, then prune both layers.",
            ),
            Misconception(
                walk_without_residual,
                "the block's own input is missing in what you pass on: a block adds to its input.",
            ),
            Misconception(
                walk_by_magnitude,
                "you ranked by |w| alone: the norms of what each layer reads have to enter the score.",
            ),
            Misconception(walk_over_one_block, "only the first block was pruned. The walk goes on to the last one."),
        ],
        hints=(
            "Three steps per block, and their order matters: norms while it is dense, prune both layers, run the pruned "
            "block on its own inputs.",
            "In the loop: inner, _ = run_toy(block, inputs); prune the two weights with inputs.norm(dim=0) and "
            "inner.norm(dim=0); then inputs = run_toy(the pruned pair, inputs)[1].",
        ),
    ),
    Exercise(
        key="04.3",
        title="the peak of a streamed run",
        cases=streamed_peak_cases,
        solution=streamed_peak,
        misconceptions=[
            Misconception(
                peak_of_the_whole_model,
                "this is the whole model. Streamed, a block leaves memory before the next but one is read.",
            ),
            Misconception(
                peak_as_a_sum,
                "you added up what is never there at the same time. Compute each of the three moments, and take the largest.",
            ),
            Misconception(
                peak_in_numbers, "you counted numbers, or divided by itemsize. How many bytes does each take?"
            ),
            Misconception(
                peak_with_narrow_copies,
                "the working copies are float32 whatever the checkpoint's dtype: 4 bytes each, not itemsize.",
            ),
            Misconception(
                peak_without_copies,
                "the moment in which masks are chosen is missing: then four float32 copies of the layer at hand are there "
                "besides the block.",
            ),
            Misconception(
                peak_without_reading_ahead,
                "the moment in which the next block is read is missing: then two neighbours are in memory.",
            ),
            Misconception(
                peak_of_the_largest_twice,
                "you took the largest block twice. Only neighbours are in memory together, and the largest two need not "
                "be neighbours.",
            ),
            Misconception(
                peak_with_embedding_for_all,
                "you put the embedding beside the largest block. It is needed for the first block only, and gone after that.",
            ),
            Misconception(
                peak_without_embedding,
                "the embedding is missing: to make the first block's inputs it has to be in memory beside that block.",
            ),
        ],
        hints=(
            "Three moments, three sums. Only one of the three needs to know about float32.",
            "max of: itemsize * (embedding + first block); the largest itemsize * block + 16 * largest layer of that block; "
            "itemsize * the largest pair of neighbours, pairwise(blocks).",
        ),
    ),
    Exercise(
        key="04.4",
        title="one norm from several machines",
        cases=merged_norm_cases,
        solution=merged_norm,
        misconceptions=[
            Misconception(
                merged_by_adding, "you added the norms. Norms do not add up, their squares do: 3 and 4 make 5, not 7."
            ),
            Misconception(
                merged_by_averaging, "you averaged the norms. More text makes a norm longer, an average does not."
            ),
            Misconception(
                merged_by_weighted_average,
                "you averaged the norms, weighted by tokens. A norm is a sum over tokens already: nothing is to be weighted.",
            ),
            Misconception(merged_by_maximum, "you took the largest norm; what the other machines saw is lost."),
            Misconception(merged_of_the_first, "you took the first machine's norm; what the others saw is lost."),
            Misconception(merged_without_root, "the root at the end is missing: this is the sum of squares."),
            Misconception(
                merged_by_mean_square,
                "you averaged the squares over the machines. Their sum is wanted: it is one sum over all tokens.",
            ),
            Misconception(
                merged_per_token,
                "you divided by the number of tokens (a root mean square). The ranking within a layer stays the same, but "
                "the L2 norm is wanted.",
            ),
            Misconception(
                merged_with_weighted_squares,
                "you weighted the squares by tokens. They are sums over tokens already: a machine with more of them has "
                "longer norms.",
            ),
        ],
        hints=(
            "What would one machine compute that had read all texts? Which part of it can be computed in pieces?",
            "Square, add, root. The numbers of tokens are not needed.",
        ),
    ),
]
