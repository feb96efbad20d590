"""Exercises of notebook 00: how the checker works."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise


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


sparsity = Exercise(
    "00.1",
    "the sparsity of a model",
    zero_fraction,
    zero_fraction_cases,
    hints=(
        "Two sums, over all tensors of the list: one of zeros, one of weights. Divide at the very end.",
        "(weight == 0).sum() counts the zeros of one tensor, weight.numel() its weights.",
    ),
    wrong=[
        (
            lambda weights: sum(float((weight == 0).float().mean()) for weight in weights) / len(weights),
            "you averaged the fractions of the layers. A small layer then counts as much as a large one: divide all "
            "zeros by all weights.",
        ),
        (
            lambda weights: 1 - zero_fraction(weights),
            "this is the density, the fraction that is kept. Sparsity is the fraction that is zero.",
        ),
        (lambda weights: 100 * zero_fraction(weights), "this is in percent; a fraction between 0 and 1 is wanted."),
        (
            lambda weights: zero_fraction([weight.clamp_min(0) for weight in weights]),
            "you counted negative weights as zeros. Only a weight equal to 0 is pruned.",
        ),
        (
            lambda weights: zero_fraction([weight.where(weight.abs() > 1e-4, 0) for weight in weights]),
            "you counted very small weights as zeros. They still take part in the product; pruned means exactly 0.",
        ),
        (
            lambda weights: zeros_counted(weights) / len(weights),
            "you divided by the number of tensors. Divide by the number of weights: numel() counts them.",
        ),
        (
            lambda weights: zeros_counted(weights) / sum(len(weight) for weight in weights),
            "you divided by the number of rows, which is what len() of a matrix gives. numel() counts its weights.",
        ),
        (
            lambda weights: [float((weight == 0).float().mean()) for weight in weights],
            "this is a fraction for each tensor. One number for all of them is wanted: add up zeros and weights "
            "first, then divide.",
        ),
    ],
)


@sparsity.misconception("this is the number of zeros. Divide by the number of weights.")
def zeros_counted(weights):
    return sum(int((weight == 0).sum()) for weight in weights)
