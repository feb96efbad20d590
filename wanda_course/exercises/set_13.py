"""Exercises of notebook 13: models larger than memory, several processes, GPUs."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math
from itertools import pairwise

import torch

from .types import Exercise


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


# 13.b1 Which block a tensor belongs to ---------------------------------------------------------------------------------


def block_numbers(names, stack):
    numbers = []
    for name in names:
        inside = name.startswith(f"{stack}.")
        number, dot, _ = name.removeprefix(f"{stack}.").partition(".")
        numbers.append(int(number) if inside and dot and number.isdecimal() else -1)
    return numbers


def block_numbers_cases(generator):
    llama = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    llama[1:1] = [
        f"model.layers.{block}.{layer}.weight" for block in (0, 1, 10, 2) for layer in ("mlp.up_proj", "norm")
    ]
    other = ["h.0.attn.weight", "h.12.attn.weight", "head.weight", "h_norm.weight", "h.3.attn.experts.7.weight"]
    near = [
        "model.layers_norm.0.weight",
        "tower.model.layers.4.weight",
        "model.layers.norm.2.weight",
        "model.layers2.4.weight",
    ]
    outside = [  # each differs from a block's tensor in one place
        "0.weight",
        "model.layers_3.weight",
        "model_layers.3.weight",
        "model.layers.7_norm.weight",
        "model.layers.7",
    ]
    staged = ["stage1.layers.1.w", "stage1.layers.12.w"]  # the stack's name has a digit, too
    return [
        (llama, "model.layers"),
        (other, "h"),
        ([*near, "model.layers.5.weight"], "model.layers"),
        ([], "h"),
        (outside, "model.layers"),
        (staged, "stage1.layers"),
    ]


numbering = Exercise(
    "13.b1",
    "which block a tensor belongs to",
    block_numbers,
    block_numbers_cases,
    hints=(
        "A name inside the stack begins with the stack's name and a dot. What comes before the next dot?",
        'name.removeprefix(stack + ".").partition(".")[0] is the number, if name.startswith(stack + ".") and it '
        "consists of digits (isdecimal); otherwise -1. Then int().",
    ),
    wrong=[
        (
            lambda names, stack: [
                int(name.removeprefix(f"{stack}.")[0])
                if name.startswith(f"{stack}.") and name.removeprefix(f"{stack}.")[0].isdecimal()
                else -1
                for name in names
            ],
            "you read one digit: block 10 became block 1. The number goes on to the next dot.",
        ),
        (
            lambda names, stack: [
                next((int(part) for part in name.split(".") if part.isdecimal()), -1) for name in names
            ],
            "you took the first number anywhere in a name. It counts blocks only right after the stack's name: a tower has "
            "numbers of its own.",
        ),
        (
            lambda names, stack: [
                next((int(part) for part in reversed(name.split(".")) if part.isdecimal()), -1) for name in names
            ],
            "you took the last number in a name. Experts have numbers too, and so have layers outside the stack: the "
            "block's number comes right after the stack's name.",
        ),
        (
            lambda names, stack: [number for number in block_numbers(names, stack) if number >= 0],
            "the tensors outside the blocks are missing: each name gets a number, -1 for those.",
        ),
        (
            lambda names, stack: [max(number, 0) for number in block_numbers(names, stack)],
            "tensors outside the blocks count as block 0. They get -1.",
        ),
        (
            lambda names, stack: [number + 1 if number >= 0 else -1 for number in block_numbers(names, stack)],
            "you counted the blocks from 1. The checkpoint counts them from 0.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=10,
)


@numbering.misconception(
    "you did not ask for the dot after the stack's name, so model.layers2 passes for model.layers. Compare with the name and its dot."
)
def numbers_without_the_dot(names, stack):
    rests = [name.removeprefix(stack).lstrip(".").partition(".")[0] if name.startswith(stack) else "" for name in names]
    return [int(rest) if rest.isdecimal() else -1 for rest in rests]


@numbering.misconception(
    "you looked for the stack's name anywhere in a name. Another part of the model, such as a vision tower, can have a list "
    "of the same name: the name must begin with it."
)
def found_anywhere(names, stack):
    numbers = []
    for name in names:
        _, found, rest = name.partition(f"{stack}.")
        number, dot, _ = rest.partition(".")
        numbers.append(int(number) if found and dot and number.isdecimal() else -1)
    return numbers


# 13.b2 One process's share of a sum ------------------------------------------------------------------------------------


def partial_squares(batches, rank, size):
    total = torch.zeros(batches[0].shape[1], dtype=torch.float64)
    for batch in batches[rank::size]:
        total += batch.double().square().sum(dim=0)  # [in]
    return total


def partial_squares_cases(generator):
    by_hand = [torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[5.0, 1.0]]), torch.tensor([[0.0, 4.0]])]
    several = [normal(generator, tokens, 4) for tokens in (3, 8, 5, 2, 6)]
    half = [(300 * normal(generator, 4, 3)).half() for _ in range(3)]
    large = [torch.tensor([[3e19, 1.0], [4e19, 2.0]])]  # its squares overflow in float32
    tall = [torch.ones(3, 2)]  # more tokens than features, and nothing for the second process
    return [
        (by_hand, 0, 2),
        (several, 1, 2),
        (several, 2, 3),
        (half, 0, 1),
        (by_hand, 3, 4),
        (large, 0, 1),
        (tall, 1, 2),
    ]


partial = Exercise(
    "13.b2",
    "one process's share of a sum",
    partial_squares,
    partial_squares_cases,
    hints=(
        "Which batches are this process's? A slice with a step picks them. What does a process contribute that has none?",
        "Start with torch.zeros(in, dtype=torch.float64), and for each batch of batches[rank::size] add "
        "batch.double().square().sum(dim=0).",
    ),
    wrong=[
        (
            lambda batches, rank, size: partial_squares(batches, 0, 1),
            "you added up all batches. Each process takes its share; together they then have each batch once.",
        ),
        (
            lambda batches, rank, size: partial_squares(batches, rank, size).sqrt(),
            "you took the root. The sums of several processes are added before the root: norms do not add up.",
        ),
        (
            lambda batches, rank, size: partial_squares(batches, rank, size) / max(len(batches[rank::size]), 1),
            "you averaged over the batches. The sums are added up over all processes, whatever their shares.",
        ),
        (
            lambda batches, rank, size: sum(
                (batch.double().sum(dim=0) for batch in batches[rank::size]),
                torch.zeros(batches[0].shape[1], dtype=torch.float64),
            ),
            "you added the inputs themselves, so that signs cancel: square first.",
        ),
        (
            lambda batches, rank, size: sum(
                (batch.square().sum(dim=0).double() for batch in batches[rank::size]),
                torch.zeros(batches[0].shape[1], dtype=torch.float64),
            ),
            "you squared in the batch's own precision: in 16 bits the square of 300 is infinite. Convert to float64 first.",
        ),
        (
            lambda batches, rank, size: sum(
                (batch.float().square().sum(dim=0).double() for batch in batches[rank::size]),
                torch.zeros(batches[0].shape[1], dtype=torch.float64),
            ),
            "you squared in float32, which has no room for the square of 1e20 and drops digits of others. Convert to "
            "float64 first.",
        ),
        (
            lambda batches, rank, size: sum(
                (batch.double().square().sum() for batch in batches[rank::size]),
                torch.zeros(batches[0].shape[1], dtype=torch.float64),
            ),
            "you summed over the features too. One number per feature is wanted: sum over the tokens, dim=0.",
        ),
        (
            lambda batches, rank, size: sum(partial_squares([batch[rank::size]], 0, 1) for batch in batches),
            "you shared out the tokens of each batch. Processes share whole batches: batches[rank::size].",
        ),
        (
            lambda batches, rank, size: partial_squares(
                [token[None] for batch in batches for token in batch], rank, size
            ),
            "you put all tokens in one row and shared them out. Processes share whole batches: batches[rank::size].",
        ),
        (
            lambda batches, rank, size: sum(
                (batch.double().square().mean(dim=0) for batch in batches[rank::size]),
                torch.zeros(batches[0].shape[1], dtype=torch.float64),
            ),
            "you averaged over the tokens of a batch. Batches differ in length, and only sums add up to that of all "
            "tokens.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=5,
)


@partial.misconception(
    "you gave each process a run of neighbours. Process `rank` takes batch `rank` and then every size-th one, so that the "
    "shares differ by one batch at most."
)
def neighbours(batches, rank, size):
    each = math.ceil(len(batches) / size)
    total = torch.zeros(batches[0].shape[1], dtype=torch.float64)
    for batch in batches[rank * each : (rank + 1) * each]:
        total += batch.double().square().sum(dim=0)
    return total


@partial.misconception(
    "a process without a batch must contribute too: zeros [in], or the others would wait for it. Start the sum from zeros."
)
def nothing_to_add(batches, rank, size):
    return sum(batch.double().square().sum(dim=0) for batch in batches[rank::size])


# 13.1 The peak of a streamed run -----------------------------------------------------------------------------------------


def streamed_peak(blocks, embedding, itemsize):
    def weights(shapes):
        return sum(outputs * inputs for outputs, inputs in shapes)

    copy = 9 if itemsize >= 4 else 13  # bytes a weight
    sizes = [weights(block) for block in blocks]
    start = itemsize * (weights([embedding]) + sizes[0])
    masks = max(itemsize * weights(block) + copy * max(weights([shape]) for shape in block) for block in blocks)
    two = max([sizes[n] + sizes[n + 1] for n in range(len(sizes) - 1)], default=0)
    return max(start, masks, itemsize * two)


def streamed_peak_cases(generator):
    llama = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
    even, uneven = [[(8, 8), (16, 8)]] * 3, [[(8, 8), (8, 8)], [(40, 8), (8, 40)], [(8, 8), (24, 8)]]
    many = [[(8, 8)] * count for count in (5, 7, 4, 7)]  # small layers, so that two blocks weigh more than the copies
    apart = [[(8, 8)] * count for count in (9, 1, 9, 1)]  # the two largest are no neighbours
    last = [[(8, 8)] * count for count in (1, 1, 3, 12)]  # the largest pair is the last one
    return [
        (even, (10, 8), 4),
        (even, (1000, 8), 4),
        ([llama] * 32, (32000, 4096), 2),
        (uneven, (10, 8), 2),
        (uneven, (1000, 8), 2),
        (many, (10, 8), 4),
        (many, (100, 8), 2),
        (apart, (10, 8), 4),
        (last, (10, 8), 4),
        (even, (10, 8), 8),  # float64: no copy in float32 either
        (even[:1], (10, 8), 2),  # a single block has no next one
        ([[(8, 8)] * 9, [(20, 8)]], (1, 8), 4),  # the largest layer is not in the largest block
        ([[(10, 8), (8, 40)]], (1, 8), 4),  # the layer with most outputs is not the largest
        ([[(8, 8)] * 9, [(8, 8)], [(8, 8)] * 9], (1, 8), 4),  # the last block and the first are no neighbours
        (even, (10, 8), 1),  # 8 bits: a copy in float32 as well
    ]


def _numbers(shapes):
    return sum(outputs * inputs for outputs, inputs in shapes)


def _moments(blocks, embedding, itemsize, copy=None):
    """The bytes of each of the three moments, with working copies of `copy` bytes a weight."""
    copy = (9 + 4 * (itemsize < 4)) if copy is None else copy
    start = itemsize * (_numbers([embedding]) + _numbers(blocks[0]))
    masks = max(itemsize * _numbers(block) + copy * max(_numbers([shape]) for shape in block) for block in blocks)
    return start, masks, itemsize * max((_numbers(one) + _numbers(two) for one, two in pairwise(blocks)), default=0)


peak = Exercise(
    "13.1",
    "the peak of a streamed run",
    streamed_peak,
    streamed_peak_cases,
    hints=(
        "Three moments, three sums. Only one of the three needs the working copies.",
        "max of: itemsize * (embedding + first block); the largest itemsize * block + 9 (or 13) * largest layer of that "
        "block; itemsize * the largest pair of neighbours, zip(blocks, blocks[1:]). A single block has no pair.",
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
            lambda blocks, embedding, size: max(_moments(blocks, embedding, size, copy=9)),
            "in 16 bits the weight has a float32 copy too: 13 bytes a weight if itemsize is less than 4.",
        ),
        (
            lambda blocks, embedding, size: max(_moments(blocks, embedding, size, copy=13)),
            "a weight that is stored in 32 bits needs no float32 copy: 9 bytes a weight, and 13 only if itemsize is less "
            "than 4.",
        ),
        (
            lambda *given: max(_moments(*given, copy=0)),
            "the moment when masks are chosen is missing: the working copies of the current layer are then in memory "
            "beside the block.",
        ),
        (
            lambda *given: max(_moments(*given)[:2]),
            "the moment when the next block is read is missing: two neighbours are then in memory.",
        ),
        (
            lambda blocks, e, size: max(streamed_peak(blocks, e, size), 2 * size * max(map(_numbers, blocks))),
            "you took the largest block twice. The next block may be smaller: take each block with its neighbour.",
        ),
        (
            lambda blocks, embedding, size: streamed_peak(blocks, (0, 0), size),
            "the embedding is missing: to make the first block's inputs it has to be in memory beside that block.",
        ),
        (
            lambda blocks, embedding, size: max(
                *_moments(blocks, embedding, size)[:2], size * sum(map(_numbers, blocks[:2])) * (len(blocks) > 1)
            ),
            "you took the first two blocks only. Blocks may differ: the largest pair of neighbours counts.",
        ),
        (
            lambda blocks, embedding, itemsize: max(
                _moments(blocks, embedding, itemsize, copy=9 if itemsize == 4 else 13)
            ),
            "you asked for itemsize == 4. A weight stored in 64 bits needs no float32 copy either: itemsize < 4 makes it 13.",
        ),
        (
            lambda blocks, embedding, itemsize: max(
                _moments(blocks, embedding, itemsize, copy=13 if itemsize == 2 else 9)
            ),
            "you asked for itemsize == 2. A weight stored in 8 bits has a float32 copy too: itemsize < 4 makes it 13.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=15,
)


@peak.misconception(
    "you took the two largest blocks, wherever they stand. Only neighbours are in memory together, and the two largest need "
    "not be neighbours."
)
def peak_of_the_two_largest(blocks, embedding, itemsize):
    start, masks, _ = _moments(blocks, embedding, itemsize)
    largest = sorted(map(_numbers, blocks))[-2:]
    return max(start, masks, itemsize * sum(largest) * (len(blocks) > 1))


@peak.misconception(
    "you added up what is never in memory together. Compute each of the three moments, and take the largest."
)
def peak_as_a_sum(blocks, embedding, itemsize):
    largest = max(outputs * inputs for block in blocks for outputs, inputs in block)
    pair = max((_numbers(one) + _numbers(other) for one, other in pairwise(blocks)), default=0)
    return itemsize * (_numbers([embedding]) + pair) + (9 + 4 * (itemsize < 4)) * largest


@peak.misconception(
    "you put the largest layer of the model beside the largest block. Take each block with the largest layer of its "
    "own."
)
def peak_of_parts_that_never_meet(blocks, embedding, itemsize):
    start, _, two = _moments(blocks, embedding, itemsize)
    largest = max(outputs * inputs for block in blocks for outputs, inputs in block)
    return max(start, itemsize * max(map(_numbers, blocks)) + (9 + 4 * (itemsize < 4)) * largest, two)


@peak.misconception(
    "you put the embedding beside the largest block. It is needed for the first block only, and freed after that."
)
def peak_with_embedding_for_all(blocks, embedding, itemsize):
    largest = itemsize * (_numbers([embedding]) + max(map(_numbers, blocks)))
    return max(streamed_peak(blocks, embedding, itemsize), largest)


@peak.misconception(
    "a model of a single block has no pair of neighbours: max() of nothing raises. Give it a default of 0."
)
def peak_without_a_default(blocks, embedding, itemsize):
    pair = max(_numbers(one) + _numbers(other) for one, other in pairwise(blocks))
    return max(*_moments(blocks, embedding, itemsize)[:2], itemsize * pair)


# 13.2 Several machines ---------------------------------------------------------------------------------------------------


def merged_norm(norms, tokens):
    return torch.stack(list(norms)).double().square().sum(dim=0).sqrt()  # [in]


def merged_norm_cases(generator):
    return [
        ([torch.tensor([3.0, 1.0]), torch.tensor([4.0, 1.0])], [10, 30]),
        ([torch.tensor([2.0, 0.0, 6.0])], [5]),
        ([normal(generator, 6).abs() for _ in range(4)], [128, 128, 128, 7]),
        ([torch.tensor([300.0, 2.0]).half(), torch.tensor([400.0, 1.0]).half(), torch.zeros(2).half()], [9, 9, 0]),
    ]


merge = Exercise(
    "13.2",
    "one norm from several machines, of any float dtype",
    merged_norm,
    merged_norm_cases,
    hints=(
        "What would one machine compute that had read all texts? Which part of it can be computed in pieces?",
        "Square, add, root, in float64: the square of a large 16-bit number overflows. The numbers of tokens are not "
        "needed.",
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
        (
            lambda norms, tokens: torch.stack(list(norms)).square().sum(dim=0).sqrt(),
            "you squared in the norms' own precision: in 16 bits the square of 300 is infinite. Convert to float64 first.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=5,
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
    weights = torch.tensor(tokens, dtype=torch.float64)
    return ((torch.stack(list(norms)).double().square() * weights[:, None]).sum(dim=0) / weights.sum()).sqrt()


# 13.3 What more processes save -------------------------------------------------------------------------------------------


def seconds_with(phases, windows, processes):
    passes = phases["capture"] + phases["statistics"] + phases["recompute"]
    most = math.ceil(windows / processes)  # windows of the process that has most
    return passes * most / windows + phases["select"]


def seconds_with_cases(generator):
    by_hand = {"capture": 1.0, "statistics": 8.0, "recompute": 7.0, "select": 3.0}
    repair = {"capture": 0.5, "statistics": 14.0, "recompute": 6.5, "select": 40.0}
    return [
        (by_hand, 10, 4),
        (by_hand, 8, 4),
        (repair, 128, 4),
        (repair, 128, 1),
        (by_hand, 5, 5),
        (repair, 7, 2),
    ]


def _seconds(phases, share, shared=("capture", "statistics", "recompute")):
    """The seconds if the phases in `shared` take `share` of their time."""
    return sum(seconds * (share if phase in shared else 1) for phase, seconds in phases.items())


saved = Exercise(
    "13.3",
    "how much more processes save",
    seconds_with,
    seconds_with_cases,
    hints=(
        "Which phases get shorter, and by which factor? With 10 windows and 4 processes, how many has the process that "
        "has most?",
        "math.ceil(windows / processes) / windows is the share of the busiest process. It multiplies capture, "
        "statistics and recompute; select is added as it is.",
    ),
    wrong=[
        (
            lambda phases, windows, processes: sum(phases.values()) / processes,
            "you divided everything. Every process chooses all masks for its own copy of the model: `select` stays. And "
            "the windows are shared out whole.",
        ),
        (
            lambda phases, windows, processes: _seconds(phases, 1 / processes),
            "you shared the windows exactly. They are whole: 10 windows for 4 processes give one of them 3, and all wait "
            "for it.",
        ),
        (
            lambda phases, windows, processes: _seconds(phases, windows // processes / windows),
            "you rounded the share down: then windows are left over. All wait for the process that has most, so round up.",
        ),
        (
            lambda phases, windows, processes: _seconds(
                phases, math.ceil(windows / processes) / windows, shared=("statistics",)
            ),
            "only the statistics are shared in your answer. The capture and the second run of the blocks are passes over "
            "the same windows.",
        ),
        (
            lambda phases, windows, processes: _seconds(
                phases, math.ceil(windows / processes) / windows, shared=("statistics", "recompute")
            ),
            "the capture is a pass over the windows too: each process runs its own.",
        ),
        (
            lambda phases, windows, processes: _seconds(
                phases, math.ceil(windows / processes) / windows, shared=tuple(phases)
            ),
            "you shared `select` as well. Every process chooses all masks for its own copy of the model.",
        ),
        (
            lambda phases, windows, processes: sum(phases.values()) / seconds_with(phases, windows, processes),
            "this is how many times as fast it gets. The seconds are wanted.",
        ),
        (
            lambda phases, windows, processes: seconds_with(phases, windows, processes) - phases["select"],
            "`select` is missing: it is not shared, but it takes its time.",
        ),
        (
            lambda phases, windows, processes: (
                seconds_with(phases, windows, processes) + (processes - 1) * phases["select"]
            ),
            "you multiplied `select` by the number of processes. All choose at the same time: it takes as long as "
            "before.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=10,
)
