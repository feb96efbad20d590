"""Exercises of notebook 06: the benchmark."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise

# 06.1 The freedom that a pattern leaves ---------------------------------------------------------------------------------


def freedom(kept, group):
    return math.log2(math.comb(group, kept)) / group


def freedom_cases(generator):
    pairs = [(2, 4), (4, 8), (1, 4), (288, 576)]
    for _ in range(3):
        group = int(torch.randint(5, 40, (), generator=generator))
        pairs.append((int(torch.randint(1, group - 1, (), generator=generator)), group))
    return pairs


patterns = Exercise(
    "06.1",
    "the freedom that a pattern leaves",
    freedom,
    freedom_cases,
    hints=(
        "In how many ways can two of four places be chosen? How many yes-or-no answers does it take to name one?",
        "`math.comb` counts the choices, `math.log2` makes bits of a count, and a group has `group` weights.",
    ),
    wrong=[
        (
            lambda kept, group: math.log2(math.comb(group, kept)),
            "these are the bits of a whole group. A larger group has more of them only because it holds more weights: "
            "compare patterns by bits per weight.",
        ),
        (
            lambda kept, group: math.log(math.comb(group, kept)) / group,
            "the count is right, but in nats: a bit is a logarithm to base 2.",
        ),
        (
            lambda kept, group: math.log2(math.perm(group, kept)) / group,
            "you count the orders in which the kept weights are chosen. A mask has no order: keeping the first and "
            "the third is the same mask as keeping the third and the first.",
        ),
        (
            lambda kept, group: math.log2(2**group) / group,
            "you count every mask, with any number of kept weights. The pattern fixes how many are kept in a group.",
        ),
        (
            lambda kept, group: kept / group,
            "this is the fraction of weights that are kept, which is the same for 2:4 and 4:8. Count the ways to "
            "place them.",
        ),
        (
            lambda kept, group: math.log2(math.comb(group, kept)) / kept,
            "you share the bits among the kept weights only. The mask decides about every weight of the group.",
        ),
    ],
)


# 06.2 How much can go? --------------------------------------------------------------------------------------------------


def affordable(sparsities, perplexities, factor):
    losses = [math.log(perplexity) for perplexity in perplexities]
    limit = losses[0] + math.log(factor)
    for i in range(1, len(losses)):
        if losses[i] > limit:  # the curve crosses the limit between i - 1 and i
            share = (limit - losses[i - 1]) / (losses[i] - losses[i - 1])
            return sparsities[i - 1] + share * (sparsities[i] - sparsities[i - 1])
    return sparsities[-1]


def affordable_cases(generator):
    steps = torch.rand(4, generator=generator) + 0.2
    rising = [10.0 * math.exp(float(loss)) for loss in (0, *steps.cumsum(0).tolist())]
    return [
        ([0.0, 0.2, 0.4, 0.6], [20.0, 21.0, 24.0, 60.0], 1.5),
        ([0.0, 0.3, 0.5], [20.0, 20.5, 21.0], 1.1),  # never over the limit
        ([0.0, 0.1, 0.2, 0.3, 0.4], [20.0, 19.5, 23.0, 21.5, 40.0], 1.1),  # over it, under it again, over it
        ([0.0, 0.25, 0.5, 0.7, 0.8], rising, 1.8),
    ]


def _straight(sparsities, values, limit, last=False):
    """Where the values cross a limit, for the first or the last time, on straight lines between the points."""
    places = range(1, len(values))
    for i in reversed(places) if last else places:
        if values[i] > limit >= values[i - 1]:
            way = (limit - values[i - 1]) / (values[i] - values[i - 1])
            return sparsities[i - 1] + way * (sparsities[i] - sparsities[i - 1])
    return sparsities[-1]


def _losses(perplexities):
    return [math.log(perplexity) for perplexity in perplexities]


def _beyond(perplexities, factor):
    """Place of the first perplexity beyond the limit; their number if none is."""
    beyond = (place for place, perplexity in enumerate(perplexities) if perplexity > factor * perplexities[0])
    return next(beyond, len(perplexities))


crossing = Exercise(
    "06.2",
    "how much can go",
    affordable,
    affordable_cases,
    hints=(
        "Work with losses, the logarithms of the perplexities. The limit is the dense loss plus log(factor).",
        "Find the first i with a loss above the limit. How far along the way from i - 1 to i is the limit? Go as far "
        "along the way between the two sparsities.",
    ),
    wrong=[
        (
            lambda s, ppl, f: s[_beyond(ppl, f) - 1],
            "you return the last measured sparsity within the limit. The curve crosses the limit somewhere after it: "
            "interpolate.",
        ),
        (
            lambda s, ppl, f: [*s, s[-1]][_beyond(ppl, f)],
            "you return the first measured sparsity beyond the limit, where the model is already worse than allowed.",
        ),
        (
            lambda s, ppl, f: _straight(s, ppl, f * ppl[0]),
            "you interpolate the perplexity. It grows like an exponential, so between two points a straight line in "
            "its logarithm (the loss) is closer to the curve; the plot's axis is logarithmic for the same reason.",
        ),
        (
            lambda s, ppl, f: _straight(s, _losses(ppl), math.log(ppl[0]) + math.log(f), last=True),
            "you take the last crossing. Where a curve dips under the limit again, a lower sparsity was already too "
            "high: the first crossing is the safe answer.",
        ),
        (
            lambda s, ppl, f: _straight(s, _losses(ppl), math.log(ppl[0] + f)),
            "the limit is a factor on the dense perplexity, not a number of points added to it.",
        ),
        (
            lambda s, ppl, f: _straight(s, _losses(ppl), f * math.log(ppl[0])),
            "you multiply the loss by the factor. The factor belongs to the perplexity; the loss, its logarithm, "
            "moves by log(factor).",
        ),
    ],
)


# 06.3 Is the difference real? -------------------------------------------------------------------------------------------


def paired(first, second):
    difference = first - second  # [windows]
    return difference.mean(), difference.std() / math.sqrt(len(difference))


def paired_cases(generator):
    windows = 3 + torch.randn(12, generator=generator)  # some windows are hard, for every model
    noise = 0.1 * torch.randn(12, generator=generator)
    return [
        (torch.tensor([3.0, 4.0, 2.0, 3.0]), torch.tensor([2.9, 3.8, 1.9, 2.8])),
        (torch.tensor([3.0, 2.0]), torch.tensor([3.5, 2.0])),
        (windows, windows + 0.05 + noise),
    ]


significance = Exercise(
    "06.3",
    "is the difference real",
    paired,
    paired_cases,
    hints=(
        "Both models read the same windows. What is left of a hard window if you subtract one loss from the other?",
        "The differences are a sample. Its mean, and its standard deviation over the square root of how many there "
        "are.",
    ),
    wrong=[
        (
            lambda a, b: (a.mean() - b.mean(), torch.sqrt(a.var() / len(a) + b.var() / len(b))),
            "you treat the two models as if they had read different texts. Most of the spread is that some windows "
            "are hard for both, and it cancels if you take the difference window by window first.",
        ),
        (
            lambda a, b: ((a - b).mean(), (a - b).std()),
            "this is the spread of single windows. Their mean is known better, by the square root of their number.",
        ),
        (
            lambda a, b: ((a - b).mean(), (a - b).std() / len(a)),
            "the error of a mean falls with the square root of the number of windows, not with the number itself.",
        ),
        (
            lambda a, b: ((a - b).mean(), (a - b).std(correction=0) / math.sqrt(len(a))),
            "the spread is taken about a mean that was fitted to the same few windows, so it comes out too small: "
            "divide by one less than their number (`std` does so by default).",
        ),
        (
            lambda a, b: paired(b, a),
            "the sign is wrong: first minus second, so that negative means the first is better.",
        ),
        (
            lambda a, b: paired(a.exp(), b.exp()),
            "you compare perplexities of windows. A text's perplexity is the exponential of its mean loss, so average "
            "the losses; after the exponential, the hardest window dominates.",
        ),
        (
            lambda a, b: paired((a - b).abs(), 0),
            "you drop the signs before averaging. Two models that each win half of the windows would then seem far "
            "apart.",
        ),
    ],
)
