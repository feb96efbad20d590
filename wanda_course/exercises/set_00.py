"""Exercises of notebook 00: how the checker works."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise, Misconception


def zero_fraction(weights):
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def zero_fraction_cases(generator):
    small = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    large = torch.tensor([[1.0, -2.0, 0.0, 3.0], [4.0, -1.0, -5.0, 6.0], [1.0, 1e-6, -1e-6, 2.0]])
    random = [torch.randn(8, 6, generator=generator), torch.randn(2, 6, generator=generator)]
    random = [
        weight * (torch.rand(weight.shape, generator=generator) < share)
        for weight, share in zip(random, (0.5, 0.9), strict=True)
    ]
    return [([small, large],), ([large],), (random,)]


def mean_of_fractions(weights):
    return sum(float((weight == 0).float().mean()) for weight in weights) / len(weights)


def share_of_nonzeros(weights):
    return 1 - zero_fraction(weights)


def zeros_counted(weights):
    return sum(int((weight == 0).sum()) for weight in weights)


def zeros_in_percent(weights):
    return 100 * zero_fraction(weights)


def zeros_and_negatives(weights):
    return zero_fraction([weight.clamp_min(0) for weight in weights])


def nearly_zeros(weights):
    return zero_fraction([weight.where(weight.abs() > 1e-4, 0) for weight in weights])


def zeros_over_layers(weights):
    return zeros_counted(weights) / len(weights)


def zeros_over_rows(weights):
    return zeros_counted(weights) / sum(len(weight) for weight in weights)


def fractions_listed(weights):
    return [float((weight == 0).float().mean()) for weight in weights]


EXERCISES = [
    Exercise(
        key="00.1",
        title="the sparsity of a model",
        cases=zero_fraction_cases,
        solution=zero_fraction,
        misconceptions=[
            Misconception(
                mean_of_fractions,
                "you averaged the fractions of the layers. A small layer then counts as much as a large one: divide all "
                "zeros by all weights.",
            ),
            Misconception(
                share_of_nonzeros, "this is the density, the share that is left. Sparsity is the share that is gone."
            ),
            Misconception(zeros_counted, "this is the number of zeros. Divide by the number of weights."),
            Misconception(zeros_in_percent, "this is in percent; a fraction between 0 and 1 is wanted."),
            Misconception(
                zeros_and_negatives,
                "you counted negative weights as zeros. Only a weight that equals 0 is gone.",
            ),
            Misconception(
                nearly_zeros,
                "you counted very small weights as zeros. They still take part in the product; pruned means exactly 0.",
            ),
            Misconception(
                zeros_over_layers,
                "you divided by the number of tensors. What is asked for is a share of all weights: numel() counts them.",
            ),
            Misconception(
                zeros_over_rows,
                "you divided by the number of rows: len() of a matrix is that. numel() counts its weights.",
            ),
            Misconception(
                fractions_listed,
                "this is a fraction for each tensor. One number for all of them together is wanted: add up zeros and "
                "weights first, divide at the end.",
            ),
        ],
        hints=(
            "Two sums, over all tensors of the list: one of zeros, one of weights. Divide at the very end.",
            "(weight == 0).sum() counts the zeros of one tensor, weight.numel() its weights.",
        ),
    ),
]
