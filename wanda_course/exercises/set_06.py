"""Exercises of notebook 06: the benchmark."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise, Misconception

# 06.1 The freedom that a pattern leaves ---------------------------------------------------------------------------------


def freedom(kept, group):
    return math.log2(math.comb(group, kept)) / group


def freedom_cases(generator):
    pairs = [(2, 4), (4, 8), (1, 4), (288, 576)]
    for _ in range(3):
        group = int(torch.randint(5, 40, (), generator=generator))
        pairs.append((int(torch.randint(1, group - 1, (), generator=generator)), group))
    return pairs


def freedom_of_a_group(kept, group):
    return math.log2(math.comb(group, kept))


def freedom_in_nats(kept, group):
    return math.log(math.comb(group, kept)) / group


def freedom_of_arrangements(kept, group):
    return math.log2(math.perm(group, kept)) / group


def freedom_without_a_pattern(kept, group):
    return math.log2(2**group) / group


def freedom_as_the_share_kept(kept, group):
    return kept / group


def freedom_per_kept_weight(kept, group):
    return math.log2(math.comb(group, kept)) / kept


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


def last_point_within(sparsities, perplexities, factor):
    for i in range(1, len(perplexities)):
        if perplexities[i] > factor * perplexities[0]:
            return sparsities[i - 1]
    return sparsities[-1]


def first_point_beyond(sparsities, perplexities, factor):
    for i in range(1, len(perplexities)):
        if perplexities[i] > factor * perplexities[0]:
            return sparsities[i]
    return sparsities[-1]


def _straight(sparsities, values, limit, places):
    for i in places:
        if values[i] > limit >= values[i - 1]:
            return sparsities[i - 1] + (limit - values[i - 1]) / (values[i] - values[i - 1]) * (
                sparsities[i] - sparsities[i - 1]
            )
    return sparsities[-1]


def on_a_straight_scale(sparsities, perplexities, factor):
    return _straight(sparsities, perplexities, factor * perplexities[0], range(1, len(perplexities)))


def the_last_crossing(sparsities, perplexities, factor):
    losses = [math.log(perplexity) for perplexity in perplexities]
    return _straight(sparsities, losses, losses[0] + math.log(factor), range(len(losses) - 1, 0, -1))


def the_factor_added(sparsities, perplexities, factor):
    losses = [math.log(perplexity) for perplexity in perplexities]
    return _straight(sparsities, losses, math.log(perplexities[0] + factor), range(1, len(losses)))


def the_factor_on_the_loss(sparsities, perplexities, factor):
    losses = [math.log(perplexity) for perplexity in perplexities]
    return _straight(sparsities, losses, factor * losses[0], range(1, len(losses)))


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


def unpaired(first, second):
    return first.mean() - second.mean(), torch.sqrt(first.var() / len(first) + second.var() / len(second))


def spread_for_error(first, second):
    difference = first - second
    return difference.mean(), difference.std()


def divided_by_the_count(first, second):
    difference = first - second
    return difference.mean(), difference.std() / len(difference)


def biased_spread(first, second):
    difference = first - second
    return difference.mean(), difference.std(correction=0) / math.sqrt(len(difference))


def the_other_way_round(first, second):
    difference = second - first
    return difference.mean(), difference.std() / math.sqrt(len(difference))


def of_perplexities(first, second):
    difference = first.exp() - second.exp()
    return difference.mean(), difference.std() / math.sqrt(len(difference))


def without_signs(first, second):
    difference = (first - second).abs()
    return difference.mean(), difference.std() / math.sqrt(len(difference))


EXERCISES = [
    Exercise(
        key="06.1",
        title="the freedom that a pattern leaves",
        cases=freedom_cases,
        solution=freedom,
        misconceptions=[
            Misconception(
                freedom_of_a_group,
                "these are the bits of a whole group, and a larger group has more of them only because it holds more "
                "weights. Per weight, patterns of different lengths can be compared.",
            ),
            Misconception(freedom_in_nats, "the count is right, but in nats: a bit is a logarithm to the base two."),
            Misconception(
                freedom_of_arrangements,
                "you count in which order the kept weights are chosen. A mask does not remember an order: keeping the "
                "first and the third is the same mask as keeping the third and the first.",
            ),
            Misconception(
                freedom_without_a_pattern,
                "you count every mask, with any number of kept weights. The pattern fixes how many are kept in a group.",
            ),
            Misconception(
                freedom_as_the_share_kept,
                "this is the share of weights that stay, which is the same for 2:4 and 4:8. Count in how many ways the "
                "kept ones can be placed.",
            ),
            Misconception(
                freedom_per_kept_weight,
                "you share the bits among the kept weights only. The mask decides about every weight of the group.",
            ),
        ],
        hints=(
            "In how many ways can two of four places be chosen? How many yes-or-no answers does it take to name one?",
            "`math.comb` counts the choices, `math.log2` makes bits of a count, and a group has `group` weights.",
        ),
    ),
    Exercise(
        key="06.2",
        title="how much can go",
        cases=affordable_cases,
        solution=affordable,
        misconceptions=[
            Misconception(
                last_point_within,
                "you return the last measured sparsity within the limit. The curve crosses the limit somewhere after it: "
                "interpolate.",
            ),
            Misconception(
                first_point_beyond,
                "you return the first measured sparsity beyond the limit, where the model is already worse than allowed.",
            ),
            Misconception(
                on_a_straight_scale,
                "you interpolate the perplexity. It grows like an exponential, so between two points a straight line in "
                "its logarithm (the loss) is nearer to the curve; the plot's axis is logarithmic for the same reason.",
            ),
            Misconception(
                the_last_crossing,
                "you take the last crossing. Where a curve dips under the limit again, a smaller sparsity was already too "
                "much: the first crossing is the safe answer.",
            ),
            Misconception(
                the_factor_added, "the limit is a factor on the dense perplexity, not a number of points added to it."
            ),
            Misconception(
                the_factor_on_the_loss,
                "you multiply the loss by the factor. The factor belongs to the perplexity; the loss, its logarithm, "
                "moves by log(factor).",
            ),
        ],
        hints=(
            "Work with losses, the logarithms of the perplexities. The limit is the dense loss plus log(factor).",
            "Find the first i with a loss above the limit. How far along the way from i - 1 to i is the limit? Go as far "
            "along the way between the two sparsities.",
        ),
    ),
    Exercise(
        key="06.3",
        title="is the difference real",
        cases=paired_cases,
        solution=paired,
        misconceptions=[
            Misconception(
                unpaired,
                "you treat the two models as if they had read different texts. Most of the spread is that some windows are "
                "hard for both, and it cancels if you take the difference window by window first.",
            ),
            Misconception(
                spread_for_error,
                "this is how far single windows scatter. Their mean is known better than any one of them, by the square "
                "root of their number.",
            ),
            Misconception(
                divided_by_the_count,
                "the error of a mean falls with the square root of the number of windows, not with the number itself.",
            ),
            Misconception(
                biased_spread,
                "the spread is taken about a mean that was fitted to the same few windows, so it comes out too small: "
                "divide by one less than their number (`std` does so by default).",
            ),
            Misconception(
                the_other_way_round, "the sign is wrong: first minus second, so that below zero the first is better."
            ),
            Misconception(
                of_perplexities,
                "you compare perplexities of windows. A perplexity of a text is the exponential of its mean loss, so the "
                "losses are what is averaged; the exponential would let the hardest window decide alone.",
            ),
            Misconception(
                without_signs,
                "you drop the signs before averaging. Then two models that win half of the windows each would seem far "
                "apart.",
            ),
        ],
        hints=(
            "Both models read the same windows. What is left of a hard window if you subtract one loss from the other?",
            "The differences are a sample. Its mean, and its standard deviation over the square root of how many there are.",
        ),
    ),
]
