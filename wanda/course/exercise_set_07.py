"""Exercises of notebook 07: N:M sparsity, what it weighs and how fast it is."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .exercise_types import Exercise, Misconception

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
        (torch.randn(4, 8, generator=generator), 4, 8),
    ]


def exactly_n(weight, keep, size):
    groups = weight.reshape(weight.shape[0], -1, size)
    return bool(((groups != 0).sum(dim=2) == keep).all())


def share_of_the_whole(weight, keep, size):
    return bool((weight != 0).double().mean() <= keep / size)


def every_window(weight, keep, size):
    return bool(((weight != 0).unfold(1, size, 1).sum(dim=2) <= keep).all())


def along_outputs(weight, keep, size):
    if weight.shape[0] % size:
        return bool(((weight != 0).sum(dim=0) <= keep).all())
    return bool(((weight.T.reshape(weight.shape[1], -1, size) != 0).sum(dim=2) <= keep).all())


def n_zeros(weight, keep, size):
    groups = weight.reshape(weight.shape[0], -1, size)
    return bool(((groups == 0).sum(dim=2) <= keep).all())


# 07.2 Bits per weight --------------------------------------------------------------------------------------------------


def bits_per_weight(keep, size, bits):
    return (keep * bits + keep * math.ceil(math.log2(size))) / size


def bits_cases(generator):
    return [(2, 4, 16), (4, 8, 16), (1, 4, 16), (2, 4, 8), (16, 32, 16), (3, 6, 32)]


def bits_without_places(keep, size, bits):
    return keep * bits / size


def bits_with_all_places(keep, size, bits):
    return (keep * bits + size * math.ceil(math.log2(size))) / size


def bits_per_kept_weight(keep, size, bits):
    return bits + math.ceil(math.log2(size))


def bits_as_bitmap(keep, size, bits):
    return (keep * bits + size) / size


def bits_per_group(keep, size, bits):
    return keep * bits + keep * math.ceil(math.log2(size))


def bits_with_fractions(keep, size, bits):
    return (keep * bits + keep * math.log2(size)) / size


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
        (128, small, 5e10, 1e12),
        (20, small, 5e10, 1e12),
    ]


def arithmetic_only(tokens, weights, bandwidth, rate):
    return 2.0


def memory_only(tokens, weights, bandwidth, rate):
    return 16 / 9


def time_adds_up(tokens, weights, bandwidth, rate):
    dense = 2 * weights / bandwidth + 2 * tokens * weights / rate
    return dense / (9 / 8 * weights / bandwidth + tokens * weights / rate)


def the_faster_of_two(tokens, weights, bandwidth, rate):
    dense = min(2 * weights / bandwidth, 2 * tokens * weights / rate)
    return dense / min(9 / 8 * weights / bandwidth, tokens * weights / rate)


def share_of_time(tokens, weights, bandwidth, rate):
    return 1 / expected_speedup(tokens, weights, bandwidth, rate)


EXERCISES = [
    Exercise(
        "07.1",
        "Is it N:M?",
        is_n_m_cases,
        is_n_m,
        [
            Misconception(
                exactly_n,
                "you ask for exactly N non-zeros in each group. N is the most that may stay: a group that happens to hold "
                "more zeros is stored all the same, with a zero among its numbers.",
            ),
            Misconception(
                share_of_the_whole,
                "you count over the whole matrix. Half of all weights may be zero and still three stand together in one "
                "group, which has room for two: every group must keep the limit by itself.",
            ),
            Misconception(
                every_window,
                "you look at every M weights in a row, wherever they begin. Groups begin at multiples of M and do not "
                "overlap: two of one group and two of the next may stand side by side.",
            ),
            Misconception(
                along_outputs,
                "your groups run along the outputs. The weights that are multiplied and added up together belong to one "
                "output, so the groups lie in a row, along its inputs.",
            ),
            Misconception(
                n_zeros, "you limit the zeros. N:M limits what stays: at most N of each M weights are not zero."
            ),
        ],
        (
            "Give the matrix a third dimension, so that each group lies by itself along the last one.",
            "weight.reshape(out, -1, size), then count (… != 0).sum(dim=2) and compare every count with `keep`.",
        ),
    ),
    Exercise(
        "07.2",
        "Bits per weight",
        bits_cases,
        bits_per_weight,
        [
            Misconception(
                bits_without_places,
                "you store the numbers only. Nobody could tell which of the M places they belong to: each number needs "
                "the bits for its place besides.",
            ),
            Misconception(
                bits_with_all_places,
                "you store a place for all M weights of a group. Only the N that stay have one to be stored.",
            ),
            Misconception(
                bits_per_kept_weight,
                "this is what one kept weight takes. The question is about the average over all weights of the matrix, "
                "those that were removed among them: N of them are stored for every M.",
            ),
            Misconception(
                bits_as_bitmap,
                "you spend one bit on every weight, to say whether it is there. That is a good form too, but not this "
                "one: here each kept number has the bits that write its place, log2(M) of them rounded up.",
            ),
            Misconception(
                bits_per_group, "this is what a group of M weights takes. Divide by M to get the bits per weight."
            ),
            Misconception(
                bits_with_fractions,
                "you use a fraction of a bit. A place among six takes three bits, since two can only tell four apart: "
                "round log2(M) up.",
            ),
        ],
        (
            "What is stored for a group? N numbers, and for each of them its place, one of M.",
            "A place takes math.ceil(math.log2(size)) bits. Add the bits of the group up, and divide by M.",
        ),
    ),
    Exercise(
        "07.3",
        "The speed-up to expect",
        speedup_cases,
        expected_speedup,
        [
            Misconception(
                arithmetic_only,
                "you get 2 whatever happens: half of the operations, or half of the bytes. With few tokens the units wait for "
                "the weights, and of their bytes 2:4 keeps 9/16: the places of the kept numbers are read as well.",
            ),
            Misconception(
                memory_only,
                "you count bytes only, and get 16/9 whatever happens. With many tokens each weight that has been read is "
                "used many times, and the operations decide.",
            ),
            Misconception(
                time_adds_up,
                "you add the time to read to the time to compute. The hardware does both at once, so the longer one "
                "decides: max, not a sum.",
            ),
            Misconception(
                the_faster_of_two,
                "you take the shorter of the two times. The product is ready when both the reading and the computing "
                "are: the longer one decides.",
            ),
            Misconception(
                share_of_time,
                "you divided the sparse time by the dense one. A speed-up of 2 means half the time: dense over sparse.",
            ),
        ],
        (
            "Work out two times for the dense weight, to read it and to compute with it. Which of them does one wait for?",
            "dense = max(2 * weights / bandwidth, 2 * tokens * weights / rate); for the sparse one 9/8 bytes per weight, and "
            "half of the operations. Then divide.",
        ),
        1e-4,
    ),
]
