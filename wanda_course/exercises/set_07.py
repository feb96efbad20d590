"""Exercises of notebook 07: N:M sparsity, what it weighs and how fast it is."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise

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
    ],
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
    return [(2, 4, 16), (4, 8, 16), (1, 4, 16), (2, 4, 8), (16, 32, 16), (3, 6, 32)]


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
)
