"""Exercises of notebook 07: N:M sparsity, what it weighs and how fast it is."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise

# 07.b1 The mask of N:M --------------------------------------------------------------------------------------------------


def n_m_mask(score, keep, size):
    groups = score.reshape(-1, size)  # [out * in / size, size]
    order = groups.argsort(dim=1, stable=True)  # smallest first; of equal ones the earlier
    mask = torch.zeros(groups.shape, dtype=torch.bool)
    mask.scatter_(1, order[:, : size - keep], True)
    return mask.reshape(score.shape)


def n_m_mask_cases(generator):
    ties = torch.tensor([[0.8, 0.9, 0.8, 0.3, 0.5, 0.5, 0.5, 0.5]])
    return [
        (torch.tensor([[1.0, 4.0, 3.0, 2.0], [4.0, 3.0, 2.0, 1.0], [0.0, 5.0, 0.0, 0.0]]), 2, 4),
        (torch.tensor([[9.0, 8.0, 7.0, 3.0, 1.0, 2.0, 6.0, 4.0]]), 2, 4),  # three of the lowest four are in one group
        (ties, 2, 4),
        (ties, 1, 4),
        (torch.randn(8, 16, generator=generator), 4, 8),  # some scores are negative
        (torch.rand(4, 12, generator=generator), 3, 4),
        (torch.rand(2, 4, generator=generator), 4, 4),  # nothing to prune
    ]


def _lowest(groups, count, descending=False):
    """The smallest, or the largest, of each row: bool, of equal ones the earlier."""
    places = groups.argsort(dim=1, descending=descending, stable=True)[:, :count]
    return torch.zeros(groups.shape, dtype=torch.bool).scatter(1, places, True)


def _later_ties(groups, count):
    return _lowest(groups.flip(1), count).flip(1)


selection = Exercise(
    "07.b1",
    "the mask of N:M",
    n_m_mask,
    n_m_mask_cases,
    hints=(
        "Reshape so that each group is a row, mark the smallest of each row, and reshape back.",
        "`score.reshape(-1, size)`, then `argsort(dim=1, stable=True)`: its first size - keep columns are the places to mark, "
        "with `scatter_(1, places, True)` in a mask of False.",
    ),
    wrong=[
        (
            lambda score, keep, size: ~n_m_mask(score, keep, size),
            "your mask is the other way round: True marks the weights that are pruned.",
        ),
        (
            lambda score, keep, size: _lowest(score.reshape(-1, size), keep).reshape(score.shape),
            "you prune N of each group. N are kept, so M - N are pruned; at 2:4 one does not see the difference.",
        ),
        (
            lambda score, keep, size: _lowest(score.reshape(-1, size), size - keep, True).reshape(score.shape),
            "you prune the largest scores. A large score says that the weight matters.",
        ),
        (
            lambda score, keep, size: _lowest(score, round(score.shape[1] * (1 - keep / size))),
            "you rank the whole row. Each group of M consecutive inputs gives up M - N by itself.",
        ),
        (
            lambda score, keep, size: _later_ties(score.reshape(-1, size), size - keep).reshape(score.shape),
            "of equal scores you prune the later. The earlier one goes: sort with stable=True, smallest first.",
        ),
        (
            lambda score, keep, size: _lowest(score.abs().reshape(-1, size), size - keep).reshape(score.shape),
            "you take the absolute value of the score. A score is ranked as it is; the lowest goes, also where it is negative.",
        ),
        (
            lambda score, keep, size: _lowest(score.reshape(size, -1).T, size - keep).T.reshape(score.shape),
            "your groups are made of weights that lie far apart. reshape(-1, size) puts neighbours into a group.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=10,
)


@selection.misconception(
    "you compare with a threshold, the largest score that is pruned. Where scores are equal that marks too many: choose "
    "places, not values."
)
def by_threshold(score, keep, size):
    groups = score.reshape(-1, size)
    if keep == size:
        return torch.zeros(score.shape, dtype=torch.bool)
    return (groups <= groups.sort(dim=1).values[:, size - keep - 1, None]).reshape(score.shape)


# 07.b2 Packing 2:4 ------------------------------------------------------------------------------------------------------


def pack_by_hand(weight):
    values, places = [], []
    for row in weight.tolist():
        for start in range(0, len(row), 4):
            group = row[start : start + 4]
            order = sorted(range(4), key=lambda place: group[place] == 0)  # non-zeros first
            kept = sorted(order[:2])
            values += [group[place] for place in kept]
            places += kept
    shape = (len(weight), -1)
    return torch.tensor(values).reshape(shape), torch.tensor(places).reshape(shape)


def pack_cases(generator):
    weight = torch.randn(3, 16, generator=generator)
    return [
        (torch.tensor([[0.9, 0.0, 0.1, 0.0], [0.0, 0.8, 0.3, 0.0], [0.0, 0.0, -0.6, 2.5]]),),
        (torch.tensor([[0.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0]]),),  # groups with fewer than two
        (torch.tensor([[0.0, 1e-8, 0.0, -1e-8, 5.0, 0.0, 0.0, 0.0]]),),
        (weight.masked_fill(n_m_mask(weight.abs(), 2, 4), 0),),
    ]


def _packed(weight, choose):
    """Values and places, with another choice of the two places of a group."""
    groups = weight.reshape(len(weight), -1, 4)
    places = torch.tensor([[choose(group) for group in row] for row in groups.tolist()])
    return groups.gather(2, places).flatten(1), places.flatten(1)


def _two(group, spare):
    """The places of the non-zeros, filled up with spare places."""
    kept = [place for place in range(4) if group[place] != 0]
    return sorted(kept + [place for place in spare if place not in kept][: 2 - len(kept)])


packing = Exercise(
    "07.b2",
    "packing a 2:4 matrix",
    pack_by_hand,
    pack_cases,
    hints=(
        "Take one group of four. Which two places have to be stored, and which ones if it holds a single non-zero?",
        "`sorted(range(4), key=lambda place: group[place] == 0)` lists the places of the non-zeros first; sort its first two.",
    ),
    wrong=[
        (
            lambda weight: (
                pack_by_hand(weight)[0],
                pack_by_hand(weight)[1] + torch.arange(weight.shape[1] // 2) // 2 * 4,
            ),
            "you store the number of the column. A place within the group, 0 to 3, is enough: it fits in two bits.",
        ),
        (
            lambda weight: _packed(weight, lambda g: sorted(range(4), key=lambda place: -abs(g[place]))[:2]),
            "you store the larger weight first. Keep the two from left to right, as they stand in the row.",
        ),
        (
            lambda weight: _packed(weight, lambda g: sorted(range(4), key=lambda place: g[place] == 0)[:2]),
            "in a group with one non-zero you store it first and the zero behind it. Left to right holds for the zero, too.",
        ),
        (
            lambda weight: _packed(weight, lambda g: _two(g, (3, 2, 1, 0))),
            "you fill groups up with their last zeros. Take the first ones, so that everybody packs a matrix the same way.",
        ),
        (
            lambda weight: _packed(weight, lambda g: [0, 1]),
            "you store the first two weights of each group, whichever they are. Store those that are not zero.",
        ),
        (
            lambda weight: (pack_by_hand(weight)[0], 3 - pack_by_hand(weight)[1]),
            "you count the places from the right. They count from the left, 0 to 3.",
        ),
        (
            lambda weight: (pack_by_hand(weight)[0], pack_by_hand(weight)[1] + 1),
            "your places are 1 to 4. Count from 0: 4 would not fit in two bits.",
        ),
        (
            lambda weight: _packed(weight, lambda g: _two([v if abs(v) > 1e-6 else 0 for v in g], (0, 1, 2, 3))),
            "you take small weights for zeros. Only an exact zero may be left out.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=15,
)


# 07.b3 Unpacking 2:4 ----------------------------------------------------------------------------------------------------


def unpack_by_hand(values, places):
    outputs = len(values)
    groups = torch.zeros(outputs, values.shape[1] // 2, 4, dtype=values.dtype)
    pairs = (outputs, -1, 2)  # [out, in / 4, 2]
    groups.scatter_(2, places.long().reshape(pairs), values.reshape(pairs))  # places may be uint8
    return groups.reshape(outputs, -1)


def unpack_cases(generator):
    packed = [pack_by_hand(*case) for case in pack_cases(generator)]
    values, places = packed[0]
    return [*packed, (values, places.to(torch.uint8)), (torch.tensor([[3, -1]]), torch.tensor([[0, 2]]))]


unpacking = Exercise(
    "07.b3",
    "unpacking a 2:4 matrix",
    unpack_by_hand,
    unpack_cases,
    hints=(
        "Two values belong to each group of four. In which columns does the group begin, and where do its two values go?",
        "Reshape both to [out, in / 4, 2], make zeros [out, in / 4, 4] of the dtype of the values, and "
        "`scatter_(2, places.long(), values)`.",
    ),
    wrong=[
        (
            lambda values, places: unpack_by_hand(values, places.flip(1)),
            "values and places do not belong together: the first value of a row goes to the first place.",
        ),
        (
            lambda values, places: unpack_by_hand(values, places * 0 + torch.arange(values.shape[1]) % 2),
            "you put the values into the first two places of each group, whatever their places are.",
        ),
        (
            lambda values, places: unpack_by_hand(values, 3 - places),
            "you count the places from the right. They count from the left.",
        ),
        (
            lambda values, places: unpack_by_hand(values.abs(), places),
            "the signs are gone. Put the values back as they are.",
        ),
        (
            lambda values, places: values.new_zeros(len(values), 2 * values.shape[1]).scatter(1, places.long(), values),
            "you take a place for a column of the whole row. The places count within a group of four: add four times the "
            "number of the group.",
        ),
        (
            lambda values, places: torch.stack([values, torch.zeros_like(values)], dim=2).flatten(1),
            "you put a zero behind every value. The places say where the values go.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=12,
)


@unpacking.misconception(
    "your places cannot be used as an index if they are stored in bytes (uint8), which have room enough for 0 to 3: "
    "`places.long()`."
)
def unpacked_without_long(values, places):
    groups = torch.zeros(len(values), values.shape[1] // 2, 4, dtype=values.dtype)
    pairs = (len(values), -1, 2)
    return groups.scatter(2, places.reshape(pairs), values.reshape(pairs)).flatten(1)


@unpacking.misconception(
    "your matrix is float32, whatever the values are. Make the zeros of their dtype: dtype=values.dtype."
)
def unpacked_as_float(values, places):
    return unpack_by_hand(values.float(), places)


# 07.b4 Rounding to nearest ----------------------------------------------------------------------------------------------


def rounded(weight, bits, size=32):
    groups = weight.unflatten(1, (-1, size))  # [out, in / size, size]
    low = groups.amin(dim=2, keepdim=True)
    step = (groups.amax(dim=2, keepdim=True) - low) / (2**bits - 1)
    steps = torch.where(step > 0, (groups - low) / step, 0).round()
    return (low + steps * step).flatten(1)


def rounded_cases(generator):
    toy = torch.tensor([[-0.5, -0.2, 0.15, 1.0, 2.5, 4.0, 2.7, 3.35], [1.0, -6.5, 2.0, 0.5, 0.2, 0.45, 0.6, 0.8]])
    return [
        (toy, 2, 4),
        (torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]]), 4, 4),  # groups of equal weights
        (torch.randn(3, 64, generator=generator), 4, 32),
        (torch.randn(4, 32, generator=generator), 3, 8),
        (torch.randn(8, 8, generator=generator), 1, 8),
        (torch.randn(2, 32, generator=generator), 8, 32),  # step numbers up to 255
    ]


def _on_grid(groups, low, high, steps, nearest=torch.round):
    """Groups of weights on a grid of `steps` steps from low to high."""
    step = (high - low) / steps
    return low + nearest(torch.where(step > 0, (groups - low) / step, 0)) * step


def _by_group(weight, bits, size, steps=None, nearest=torch.round):
    groups = weight.unflatten(1, (-1, size))
    ends = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
    return _on_grid(groups, *ends, steps or 2**bits - 1, nearest).flatten(1)


rounding = Exercise(
    "07.b4",
    "rounding to nearest",
    rounded,
    rounded_cases,
    hints=(
        "2**bits values have 2**bits - 1 steps between them. How many steps above the smallest weight of its group is a weight?",
        "step = (high - low) / (2**bits - 1); ((weight - low) / step).round() counts steps; low + steps * step is the value. "
        "Where a group's weights are all equal, the step is zero: take care not to divide.",
    ),
    wrong=[
        (
            lambda weight, bits, size: _by_group(weight, bits, size, 2**bits),
            "you make 2**bits steps. That needs 2**bits + 1 values, one more than the bits can tell apart.",
        ),
        (
            lambda weight, bits, size: _by_group(weight, bits, size, nearest=torch.floor),
            "you round down. The nearest value may be the one above.",
        ),
        (
            lambda weight, bits, size: _by_group(weight, bits, weight.shape[1]),
            "you use one grid for the whole row. Each group has a smallest and a largest weight of its own.",
        ),
        (
            lambda weight, bits, size: (
                rounded(weight, bits, size)
                - weight.unflatten(1, (-1, size)).amin(dim=2, keepdim=True).expand(-1, -1, size).flatten(1)
            ),
            "you forget to add the smallest weight again: the grid begins there, not at zero.",
        ),
        (
            lambda weight, bits, size: _on_grid(weight, weight.min(), weight.max(), 2**bits - 1),
            "you use one grid for the whole matrix. A single large weight makes the steps wide for all others: that is why "
            "groups are used.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=12,
)


@rounding.misconception(
    "a group of equal weights becomes NaN: its step is zero, and zero was divided by zero. Leave such a group as it is."
)
def divided_by_zero(weight, bits, size):
    groups = weight.unflatten(1, (-1, size))
    low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return (low + ((groups - low) / step).round() * step).flatten(1)


@rounding.misconception(
    "your grid is the same on both sides of zero, as wide as the largest weight. Here it goes from the smallest to the "
    "largest weight of the group, and wastes no value."
)
def symmetric_grid(weight, bits, size):
    groups = weight.unflatten(1, (-1, size))
    largest = groups.abs().amax(dim=2, keepdim=True)
    return _on_grid(groups, -largest, largest, 2**bits - 1).flatten(1)


@rounding.misconception(
    "your grid has zero among its values and is the same on both sides of it, which leaves one of the 2**bits values "
    "unused. Here the grid goes from the smallest to the largest weight of the group, and zero need not be on it."
)
def symmetric_grid_with_zero(weight, bits, size):
    groups = weight.unflatten(1, (-1, size))
    step = groups.abs().amax(dim=2, keepdim=True) / (2 ** (bits - 1) - 1)
    return (torch.where(step > 0, groups / step, 0).round() * step).flatten(1)


@rounding.misconception(
    "you return the numbers of the steps. They are what is stored; the weight that the model multiplies with is "
    "low + steps * step."
)
def the_steps(weight, bits, size):
    groups = weight.unflatten(1, (-1, size))
    low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return torch.where(step > 0, (groups - low) / step, 0).round().flatten(1)


# 07.1 Is it N:M? -------------------------------------------------------------------------------------------------------


def is_n_m(weight, keep, size):
    groups = weight.reshape(weight.shape[0], -1, size)  # [out, in / size, size]
    return bool(((groups != 0).sum(dim=2) <= keep).all())


def is_n_m_cases(generator):
    two_four = torch.tensor([[0.0, 3.0, 0.0, 1.0, 2.0, 1.0, 0.0, 0.0]])
    three = torch.tensor([[0.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 1.0]])  # half of it is zero, but not of each group
    crossing = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])  # four in a row, over the border
    emptier = torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    columns = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    negative = torch.tensor([[0.0, -3.0, -2.0, -1.0, 0.0, 4.0, 0.0, 0.0]])
    strided = torch.tensor([[1.0, 2.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0]])
    later = torch.tensor([[1.0, 0.0, 0.0, 2.0], [1.0, 0.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0]])  # only its last row is not
    one = torch.randn(3, 8, generator=generator)
    one[:, [0, 2, 3, 4, 5, 7]] = 0
    return [
        (two_four, 2, 4),
        (three, 2, 4),
        (crossing, 2, 4),
        (emptier, 2, 4),
        (columns, 2, 4),
        (two_four, 4, 8),
        (one, 1, 4),
        (torch.randn(6, 16, generator=generator), 4, 8),
        (negative, 2, 4),
        (strided, 2, 4),
        (later, 2, 4),
        (later, 3, 4),
        (two_four, 1, 4),
        (torch.tensor([[1.0, 2.0, 1e-30, 0.0], [0.0, -1e-30, 1.0, 0.0]]), 2, 4),  # nearly zero is not zero
        (torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]), 4, 8),  # 4:8, but not 2:4
        (torch.tensor([[1.0, 0.0, 0.0, 2.0, 3.0, 0.0]]), 2, 3),  # a width that 4 does not divide
        (torch.tensor([[1.0, 1.0, 0.0, 0.0]]), 1, 2),  # 2:4, but not 1:2
        (torch.randn(2, 4, generator=generator), 4, 4),  # everything may stay
        (torch.tensor([[0.0, 0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 0.0]]), 2, 4),  # only the second group has too many
        (torch.tensor([[1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 0.0, 0.0]]), 2, 4),  # only the first
        (torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 5.0]]), 2, 4),  # four in the row, but three in the first
    ]


pattern = Exercise(
    "07.1",
    "Is it N:M?",
    is_n_m,
    is_n_m_cases,
    hints=(
        "Give the matrix a third dimension, so that each group lies by itself along the last one.",
        "weight.reshape(out, -1, size), then count (… != 0).sum(dim=2) and compare every count with `keep`.",
    ),
    wrong=[
        (
            lambda w, n, m: bool(((w.reshape(len(w), -1, m) != 0).sum(dim=2) == n).all()),
            "you ask for exactly N non-zeros in each group. N is the maximum: a group with more zeros can be stored "
            "too, with a zero among its numbers.",
        ),
        (
            lambda w, n, m: bool((w != 0).double().mean() <= n / m),
            "you count over the whole matrix. Half of all weights may be zero while one group still holds three, with "
            "room for two: the limit is for each group by itself.",
        ),
        (
            lambda w, n, m: bool(((w != 0).unfold(1, m, 1).sum(dim=2) <= n).all()),
            "you look at every M weights in a row, wherever they begin. Groups begin at multiples of M and do not "
            "overlap: two in one group may stand beside two in the next.",
        ),
        (
            lambda w, n, m: is_n_m(w == 0, n, m),
            "you limit the zeros. N:M limits what is kept: at most N of each M weights are not zero.",
        ),
        (
            lambda w, n, m: bool(((w.reshape(len(w), -1, m) == 0).sum(dim=2) >= n).all()),
            "you ask for N zeros in each group. That is the same at 2:4, where half of the group is kept, but not at "
            "1:4: there one weight may be kept, and three must be zero. Count what is not zero.",
        ),
        (
            lambda w, n, m: is_n_m(w, n - 1, m),
            "you ask for fewer than N non-zeros in each group. N of them are allowed: <=, not <.",
        ),
        (
            lambda w, n, m: bool(((w != 0).double().mean(dim=1) <= n / m).all()),
            "you count over a whole row. Half of a row may be zero while one group still holds three, with room for "
            "two: look at each M consecutive inputs by themselves.",
        ),
        (
            lambda w, n, m: bool(((w.reshape(len(w), -1, m) != 0).sum(dim=2) <= n).any()),
            "you accept the weight if any group is within the limit. All of them must be: one group above it, and the "
            "weight cannot be stored.",
        ),
        (
            lambda w, n, m: is_n_m(w > 0, n, m),
            "you count the weights above zero. Negative weights are weights too: != 0, not > 0.",
        ),
        (
            lambda w, n, m: bool(((w.reshape(len(w), -1, m) != 0).sum(dim=1) <= n).all()),
            "you group correctly, but count across the groups: the first of each, the second of each. With [out, "
            "groups, size] the members of a group lie along the last dimension.",
        ),
        (
            lambda w, n, m: bool(((w.reshape(len(w), m, -1) != 0).sum(dim=1) <= n).all()),
            "your groups are made of weights that lie far apart. reshape(out, -1, size) puts neighbours into a group; "
            "reshape(out, size, -1) takes them from all over the row.",
        ),
        (lambda w, n, m: is_n_m(w[:1], n, m), "you look at the first row only. Check every row."),
        (
            lambda w, n, m: is_n_m(w.abs() > 1e-3, n, m),
            "you take small weights for zeros. A weight of a millionth has to be stored like any other: != 0, without a "
            "tolerance.",
        ),
        (
            lambda w, n, m: is_n_m(w, 2, 4),
            "you check 2:4 whatever is asked. Use `keep` and `size`: 4:8 allows matrices that 2:4 does not.",
        ),
        (
            lambda w, n, m: is_n_m(w, n, 4),
            "your groups always have four weights. `size` says how many: 8 for 4:8.",
        ),
        (
            lambda w, n, m: is_n_m(w, 2, m),
            "you allow two weights in each group, whatever is asked. `keep` says how many.",
        ),
        (lambda w, n, m: is_n_m(w[:, :m], n, m), "you look at the first group of each row only. Check every group."),
        (
            lambda w, n, m: is_n_m(w[:, -m:], n, m),
            "you look at the last group of each row only. Is the result overwritten in your loop? Check every group.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=8,
)


@pattern.misconception(
    "your groups run along the outputs. The weights that are multiplied and added up together belong to one output, so "
    "the groups lie in a row, along its inputs."
)
def along_outputs(weight, keep, size):
    if weight.shape[0] % size:
        return bool(((weight != 0).sum(dim=0) <= keep).all())
    return bool(((weight.T.reshape(weight.shape[1], -1, size) != 0).sum(dim=2) <= keep).all())


# 07.2 Bits per weight --------------------------------------------------------------------------------------------------


def bits_per_weight(keep, size, bits):
    return (keep * bits + keep * math.ceil(math.log2(size))) / size


def bits_cases(generator):
    return [(5, 16, 16), (2, 4, 16), (4, 8, 16), (1, 4, 16), (2, 4, 8), (16, 32, 16), (3, 6, 32), (3, 5, 8)]


storage = Exercise(
    "07.2",
    "Bits per weight",
    bits_per_weight,
    bits_cases,
    hints=(
        "What is stored for a group? N numbers, and for each of them its place, one of M.",
        "A place takes math.ceil(math.log2(size)) bits. Add the bits of the group up, and divide by M.",
    ),
    wrong=[
        (
            lambda n, m, bits: n * bits / m,
            "you store only the numbers. They do not say which of the M places they belong to: add the bits for each "
            "number's place.",
        ),
        (
            lambda n, m, bits: (n * bits + m * math.ceil(math.log2(m))) / m,
            "you store a place for all M weights of a group. Only the N that are kept need one.",
        ),
        (
            lambda n, m, bits: float(bits + math.ceil(math.log2(m))),
            "this is what one kept weight takes. Average over all weights, including the removed ones: N are stored "
            "for every M.",
        ),
        (
            lambda n, m, bits: (n * bits + m) / m,
            "you spend one bit on every weight, to say whether it is kept. That is a good format too, but not this "
            "one: here each kept number carries its place, in log2(M) bits, rounded up.",
        ),
        (
            lambda n, m, bits: float(n * bits + n * math.ceil(math.log2(m))),
            "this is what a group of M weights takes. Divide by M to get the bits per weight.",
        ),
        (
            lambda n, m, bits: (n * bits + n * math.log2(m)) / m,
            "you use fractions of a bit. A place among six takes three bits, since two tell only four apart: round "
            "log2(M) up.",
        ),
        (
            lambda n, m, bits: n * (bits + int(math.log2(m))) / m,
            "you round log2(M) down. A place among six takes three bits, since two tell only four apart: round up.",
        ),
        (
            lambda n, m, bits: n * (bits + round(math.log2(m))) / m,
            "you round log2(M) to the nearest. A place among five takes three bits, since two tell only four apart: "
            "round up.",
        ),
        (
            lambda n, m, bits: n * (bits + 2) / m,
            "you give each place two bits. That is right for M = 4; a place among eight takes three: log2(M), rounded "
            "up.",
        ),
        (
            lambda n, m, bits: (n * bits + math.ceil(math.log2(m))) / m,
            "you store one place per group. Each of the N kept numbers needs its own.",
        ),
        (
            lambda n, m, bits: n * (bits + math.ceil(math.log2(n))) / m,
            "you store a place among the N that are kept. Store which of the group's M places it is.",
        ),
        (
            lambda n, m, bits: (n * bits + math.ceil(math.log2(math.comb(m, n)))) / m,
            "you number the possible masks of a group. That format is shorter (six masks fit in three bits at 2:4), "
            "but the hardware would have to look the places up; here each number carries its own.",
        ),
        (
            lambda n, m, bits: (m - n) * (bits + math.ceil(math.log2(m))) / m,
            "you count M - N weights of each group. N of M are kept, and only those are stored.",
        ),
        (
            lambda n, m, bits: bits_per_weight(n, m, bits) / bits,
            "this is the share of the dense matrix. Bits per weight are wanted: do not divide by the bits of a value.",
        ),
        (
            lambda n, m, bits: n * (bits + math.ceil(math.log2(m))) // m,
            "you round the result to a whole number. An average may have a fraction: /, not //.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=8,
)


# 07.3 The speed-up to expect -------------------------------------------------------------------------------------------


def expected_speedup(tokens, weights, bandwidth, rate):
    dense = max(2 * weights / bandwidth, 2 * tokens * weights / rate)  # 16 bits = 2 bytes each; 2 operations each
    sparse = max(9 / 8 * weights / bandwidth, tokens * weights / rate)  # 9 bits each; half of the operations
    return dense / sparse


def speedup_cases(generator):
    large, small = 4096.0 * 4096.0, 576.0 * 1536.0
    return [
        (1, large, 2e12, 3e14),  # far on the side of memory
        (4096, large, 2e12, 3e14),  # far on the side of arithmetic
        (160, large, 2e12, 3e14),  # dense is held up by arithmetic, sparse by memory
        (250, large, 2e12, 3e14),  # both are held up by arithmetic, and not by far
        (128, small, 5e10, 1e12),
        (15, small, 5e10, 1e12),
    ]


def times_of(
    tokens, weights, bandwidth, rate, dense_bytes=2, sparse_bytes=9 / 8, dense_operations=2, sparse_operations=1
):
    """The ratio of the two times, with other numbers in it than the right ones."""
    dense = max(dense_bytes * weights / bandwidth, dense_operations * tokens * weights / rate)
    return dense / max(sparse_bytes * weights / bandwidth, sparse_operations * tokens * weights / rate)


speedup = Exercise(
    "07.3",
    "The speed-up to expect",
    expected_speedup,
    speedup_cases,
    hints=(
        "Work out two times for the dense weight, to read it and to compute with it. Which of them does one wait for?",
        "dense = max(2 * weights / bandwidth, 2 * tokens * weights / rate); for the sparse one 9/8 bytes per weight, "
        "and half of the operations. Then divide.",
    ),
    wrong=[
        (
            lambda *given: 2.0,
            "you always get 2: half of the operations, or half of the bytes. With few tokens the units wait for the "
            "weights, and 2:4 keeps 9/16 of their bytes: the places of the kept numbers are read as well.",
        ),
        (
            lambda *given: 16 / 9,
            "you always get 16/9, as if only the bytes counted. The weights are read once for all tokens, but the "
            "operations grow with the number of tokens: with many of them, they decide.",
        ),
        (
            lambda t, w, b, r: (2 * w / b + 2 * t * w / r) / (9 / 8 * w / b + t * w / r),
            "you add the time to read to the time to compute. The hardware does both at once, so the longer one "
            "decides: max, not a sum.",
        ),
        (
            lambda t, w, b, r: min(2 * w / b, 2 * t * w / r) / min(9 / 8 * w / b, t * w / r),
            "you take the shorter of the two times. The product is ready when both the reading and the computing are: "
            "the longer one decides.",
        ),
        (
            lambda *given: 1 / expected_speedup(*given),
            "you divided the sparse time by the dense one. A speed-up of 2 means half the time: dense over sparse.",
        ),
        (
            lambda *given: times_of(*given, sparse_operations=2),
            "your sparse product does as many operations as the dense one. The units skip the zeros, which halves "
            "them.",
        ),
        (
            lambda *given: times_of(*given, dense_bytes=16, sparse_bytes=9),
            "you took bits for bytes. The bandwidth is in bytes per second; 16 bits are 2 bytes, and 9 bits 9/8 of "
            "one.",
        ),
        (
            lambda *given: times_of(*given, dense_operations=1, sparse_operations=1 / 2),
            "your weights are too many bytes, or your operations too few, by a factor of 2. 16 bits are 2 bytes; and "
            "each weight is multiplied and added for each token, which makes 2 operations.",
        ),
        (
            lambda *given: times_of(*given, sparse_bytes=9 / 16),
            "9/16 is the share of the bytes that 2:4 keeps. In bytes per weight it is 9/16 of 2, which is 9/8.",
        ),
        (
            lambda t, w, b, r: 16 / 9 if 2 * w / b > 2 * t * w / r else 2.0,
            "you find what limits the dense product, and assume that it limits the sparse one. Between the two limits "
            "the dense one waits for its operations and the sparse one still for its bytes: take a max for each.",
        ),
        (
            lambda t, w, b, r: 16 / 9 if 9 / 8 * w / b > t * w / r else 2.0,
            "you find what limits the sparse product, and assume that it limits the dense one. Between the two limits "
            "the sparse one waits for its bytes and the dense one already for its operations: take a max for each.",
        ),
    ],
    tolerance=1e-4,
    difficulty=2,
    importance=3,
    minutes=15,
)
