"""Exercises of notebook 07: N:M sparsity, what it weighs and how fast it is."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise, Misconception

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
        (torch.randn(4, 8, generator=generator), 4, 8),
        (negative, 2, 4),
        (strided, 2, 4),
        (later, 2, 4),
        (later, 3, 4),
        (two_four, 1, 4),
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


def at_least_n_zeros(weight, keep, size):
    groups = weight.reshape(weight.shape[0], -1, size)
    return bool(((groups == 0).sum(dim=2) >= keep).all())


def fewer_than_n(weight, keep, size):
    groups = weight.reshape(weight.shape[0], -1, size)
    return bool(((groups != 0).sum(dim=2) < keep).all())


def share_of_each_row(weight, keep, size):
    return bool(((weight != 0).double().mean(dim=1) <= keep / size).all())


def some_group(weight, keep, size):
    groups = weight.reshape(weight.shape[0], -1, size)
    return bool(((groups != 0).sum(dim=2) <= keep).any())


def positive_only(weight, keep, size):
    groups = weight.reshape(weight.shape[0], -1, size)
    return bool(((groups > 0).sum(dim=2) <= keep).all())


def counted_across_groups(weight, keep, size):
    groups = weight.reshape(weight.shape[0], -1, size)
    return bool(((groups != 0).sum(dim=1) <= keep).all())


def with_a_stride(weight, keep, size):
    groups = weight.reshape(weight.shape[0], size, -1)
    return bool(((groups != 0).sum(dim=1) <= keep).all())


def first_row(weight, keep, size):
    return is_n_m(weight[:1], keep, size)


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
    return float(bits + math.ceil(math.log2(size)))


def bits_as_bitmap(keep, size, bits):
    return (keep * bits + size) / size


def bits_per_group(keep, size, bits):
    return float(keep * bits + keep * math.ceil(math.log2(size)))


def bits_with_fractions(keep, size, bits):
    return (keep * bits + keep * math.log2(size)) / size


def bits_rounded_down(keep, size, bits):
    return keep * (bits + int(math.log2(size))) / size


def two_bits_always(keep, size, bits):
    return keep * (bits + 2) / size


def one_place_per_group(keep, size, bits):
    return (keep * bits + math.ceil(math.log2(size))) / size


def place_among_the_kept(keep, size, bits):
    return keep * (bits + math.ceil(math.log2(keep))) / size


def bits_of_a_mask(keep, size, bits):
    return (keep * bits + math.ceil(math.log2(math.comb(size, keep)))) / size


def bits_of_the_removed(keep, size, bits):
    return (size - keep) * (bits + math.ceil(math.log2(size))) / size


def share_of_dense(keep, size, bits):
    return bits_per_weight(keep, size, bits) / bits


def whole_bits(keep, size, bits):
    return keep * (bits + math.ceil(math.log2(size))) // size


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


def times_of(
    tokens, weights, bandwidth, rate, dense_bytes=2, sparse_bytes=9 / 8, dense_operations=2, sparse_operations=1
):
    """The ratio of the two times, with other numbers in it than the right ones."""
    dense = max(dense_bytes * weights / bandwidth, dense_operations * tokens * weights / rate)
    return dense / max(sparse_bytes * weights / bandwidth, sparse_operations * tokens * weights / rate)


def operations_not_halved(tokens, weights, bandwidth, rate):
    return times_of(tokens, weights, bandwidth, rate, sparse_operations=2)


def bits_for_bytes(tokens, weights, bandwidth, rate):
    return times_of(tokens, weights, bandwidth, rate, dense_bytes=16, sparse_bytes=9)


def one_operation(tokens, weights, bandwidth, rate):
    return times_of(tokens, weights, bandwidth, rate, dense_operations=1, sparse_operations=1 / 2)


def share_for_bytes(tokens, weights, bandwidth, rate):
    return times_of(tokens, weights, bandwidth, rate, sparse_bytes=9 / 16)


def dense_decides_for_both(tokens, weights, bandwidth, rate):
    return 16 / 9 if 2 * weights / bandwidth > 2 * tokens * weights / rate else 2.0


def sparse_decides_for_both(tokens, weights, bandwidth, rate):
    return 16 / 9 if 9 / 8 * weights / bandwidth > tokens * weights / rate else 2.0


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
            Misconception(
                at_least_n_zeros,
                "you ask for N zeros in each group. That is the same at 2:4, where half of the group stays, but not at 1:4: "
                "there one weight may stay, and three must be zero. Count what is not zero.",
            ),
            Misconception(
                fewer_than_n,
                "you ask for fewer than N non-zeros in each group. N of them are allowed: <=, not <.",
            ),
            Misconception(
                share_of_each_row,
                "you count over a whole row. Half of a row may be zero and still three stand together in one group, "
                "which has room for two: look at each M consecutive inputs by themselves.",
            ),
            Misconception(
                some_group,
                "you are content when one group keeps the limit. A single group above it and the weight cannot be "
                "stored: all of them must.",
            ),
            Misconception(
                positive_only, "you count the weights above zero. Negative weights are weights too: != 0, not > 0."
            ),
            Misconception(
                counted_across_groups,
                "you group rightly, and then count across the groups: the first of each, the second of each. With "
                "[out, groups, size] the members of a group lie along the last dimension.",
            ),
            Misconception(
                with_a_stride,
                "your groups are made of weights that lie far apart. reshape(out, -1, size) puts neighbours into a group; "
                "reshape(out, size, -1) takes them from all over the row.",
            ),
            Misconception(first_row, "you look at the first row only. Every row has its groups."),
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
            Misconception(
                bits_rounded_down,
                "you round log2(M) down. A place among six takes three bits: with two one can only tell four apart. Round up.",
            ),
            Misconception(
                two_bits_always,
                "you give each place two bits. That is right for M = 4; a place among eight takes three: log2(M), rounded up.",
            ),
            Misconception(
                one_place_per_group,
                "you store one place for a group. Each of the N numbers that stay needs its own.",
            ),
            Misconception(
                place_among_the_kept,
                "you write a place among the N that stay. What has to be told is which of the M places of the group it is.",
            ),
            Misconception(
                bits_of_a_mask,
                "you number the possible masks of a group. That form is shorter (six masks fit in three bits at "
                "2:4), but the hardware would have to look the places up; here each number brings its own place.",
            ),
            Misconception(
                bits_of_the_removed, "you count M - N weights of each group. N of M stay, and only those are stored."
            ),
            Misconception(
                share_of_dense,
                "this is the share of the dense matrix. Bits per weight are wanted: do not divide by the bits of a value.",
            ),
            Misconception(
                whole_bits, "you round the result to a whole number. An average may have a fraction: /, not //."
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
                "you get 16/9 whatever happens, as if only the bytes counted. The weights are read once for all tokens, but the "
                "operations grow with the number of tokens: with many of them, they decide.",
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
            Misconception(
                operations_not_halved,
                "your sparse product makes as many operations as the dense one. The units skip the zeros: half of them.",
            ),
            Misconception(
                bits_for_bytes,
                "you have read bits for bytes. The bandwidth is in bytes per second; 16 bits are 2 bytes, and 9 bits 9/8 of one.",
            ),
            Misconception(
                one_operation,
                "your weights are too many bytes, or your operations too few, by a factor of 2. 16 bits are 2 bytes; and each "
                "weight is multiplied and added for each token, which makes 2 operations.",
            ),
            Misconception(
                share_for_bytes,
                "9/16 is the share of the bytes that 2:4 keeps. In bytes per weight it is 9/16 of 2, which is 9/8.",
            ),
            Misconception(
                dense_decides_for_both,
                "you ask of the dense product what decides, and assume the same of the sparse one. Between the two limits the "
                "dense one waits for its operations and the sparse one still for its bytes: take a max for each.",
            ),
            Misconception(
                sparse_decides_for_both,
                "you ask of the sparse product what decides, and assume the same of the dense one. Between the two limits the "
                "sparse one waits for its bytes and the dense one already for its operations: take a max for each.",
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
