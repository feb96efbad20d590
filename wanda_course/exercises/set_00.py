"""Exercises of notebook 00: how the checker works, and what perplexity is."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise

# The sparsity of a model ------------------------------------------------------------------------------------------------


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
    tiny = torch.tensor([[1e-9, 0.0, -1e-12], [1e-30, -0.0, 2.0]])  # two zeros; isclose() counts five
    spoilt = torch.tensor([[float("nan"), 0.0, 1.0, -3.0]])
    return [([small, large],), ([large],), ([tiny, small],), (random,), ([spoilt, torch.zeros(0, 4)],)]


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
            lambda weights: zero_fraction([weight.where(weight.abs() > 1e-8, 0) for weight in weights]),
            "you counted weights below 1e-8 as zeros, perhaps with isclose(), which allows for rounding. Pruning writes "
            "0 exactly: compare with ==.",
        ),
        (
            lambda weights: zero_fraction([weight.nan_to_num(0) for weight in weights]),
            "you counted NaN as zero. It is neither above nor below zero, and not equal to it either: compare with ==.",
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
        (
            lambda weights: zero_fraction(weights[:1]),
            "you looked at the first tensor only. Is your `return` inside the loop?",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=5,
)


@sparsity.misconception("this is the number of zeros. Divide by the number of weights.")
def zeros_counted(weights):
    return sum(int((weight == 0).sum()) for weight in weights)


# A piece: perplexity ----------------------------------------------------------------------------------------------------


def perplexity_of(logits, ids):
    log_probability = logits.log_softmax(dim=-1)  # [tokens, vocabulary]
    of_next = log_probability[:-1].gather(1, ids[1:, None])  # [tokens - 1, 1]
    return torch.exp(-of_next.mean())


def perplexity_of_cases(generator):
    even = torch.zeros(4, 5)  # as unsure as among 5 tokens
    sure = torch.full((3, 4), -2.0)
    sure[0, 2] = sure[1, 3] = 6.0  # nearly certain of what follows
    cases = [(even, torch.tensor([0, 3, 3, 1])), (sure, torch.tensor([1, 2, 3]))]
    for tokens, vocabulary in ((6, 9), (7, 7), (2, 11)):
        logits = 2 * torch.randn(tokens, vocabulary, generator=generator)
        cases.append((logits, torch.randint(vocabulary, (tokens,), generator=generator)))
    hopeless = 120 * torch.eye(4)[[1, 1, 2, 3, 0, 0]]  # float32 has no number for the probability of others
    return [*cases, (hopeless, torch.tensor([3, 0, 1, 2, 3, 0]))]


def losses(logits, ids):
    """-log of the probability of each ids[i] by logits[i]."""
    return -logits.log_softmax(dim=-1).gather(1, ids[:, None])[:, 0]


perplexity = Exercise(
    "00.b1",
    "perplexity",
    perplexity_of,
    perplexity_of_cases,
    hints=(
        "Which line of the logits speaks about which token? And a probability is wanted: what makes one out of scores?",
        "logits.log_softmax(dim=-1)[:-1] speaks about ids[1:]. gather(1, ids[1:, None]) picks one entry of each line; "
        "then the mean, the sign, torch.exp.",
    ),
    wrong=[
        (
            lambda logits, ids: losses(logits, ids).mean().exp(),
            "you judged each token by the line of logits at its own place. Line i was computed from tokens 0 to i and "
            "speaks about token i + 1: shift them by one.",
        ),
        (
            lambda logits, ids: losses(logits[1:], ids[1:]).mean().exp(),
            "you dropped the first line and the first token. Line i speaks about token i + 1: drop the last line and the "
            "first token.",
        ),
        (
            lambda logits, ids: losses(logits[1:], ids[:-1]).mean().exp(),
            "you shifted the wrong way: line i of the logits speaks about token i + 1, not about token i - 1.",
        ),
        (
            lambda logits, ids: losses(logits[:-1], ids[1:]).mean(),
            "this is the mean loss. Perplexity is its exponential.",
        ),
        (
            lambda logits, ids: losses(logits[:-1], ids[1:]).exp().mean(),
            "you took the exponential of each loss, then the mean, so one surprising token decides. First the mean, "
            "then the exponential.",
        ),
        (
            lambda logits, ids: losses(logits[:-1], ids[1:]).sum().exp(),
            "you added up the losses. The sum grows with the length of the text: take the mean.",
        ),
        (
            lambda logits, ids: (losses(logits[:-1], ids[1:]).sum() / len(ids)).exp(),
            "you divided by the number of tokens. The first token is predicted by nothing, so there is one loss less.",
        ),
        (
            lambda logits, ids: (-losses(logits[:-1], ids[1:]).mean()).exp(),
            "the sign is missing: this is the typical probability of a token, between 0 and 1. The loss is minus the "
            "log of the probability.",
        ),
        (
            lambda logits, ids: losses(logits[:-1], ids[1:]).mean().exp2(),
            "you mixed two bases: 2 to the power of a loss in nats. A natural logarithm goes with exp.",
        ),
        (
            lambda logits, ids: (-logits[:-1].gather(1, ids[1:, None]).mean()).exp(),
            "you took the logits for log-probabilities. They are scores of any size: log_softmax along the vocabulary "
            "turns them into log-probabilities.",
        ),
        (
            lambda logits, ids: (-logits.log_softmax(dim=0)[:-1].gather(1, ids[1:, None]).mean()).exp(),
            "your softmax runs over the tokens. The probabilities of all entries of the vocabulary add up to 1 at each "
            "place: dim=-1.",
        ),
        (
            lambda logits, ids: torch.exp(-logits.softmax(dim=-1).log()[:-1].gather(1, ids[1:, None]).mean()),
            "you took the logarithm of a softmax. The probability of a hopeless token is rounded to 0, and its logarithm is infinite: log_softmax does both in one step.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=10,
)
