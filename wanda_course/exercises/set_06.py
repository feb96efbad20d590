"""Exercises of notebook 06: the benchmark."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import numpy as np
import torch

from .types import Exercise

# 06.b1 Perplexity from the losses of tokens -----------------------------------------------------------------------------


def text_perplexity(losses):
    total = sum(float(loss.sum()) for loss in losses)
    return math.exp(total / sum(len(loss) for loss in losses))


def text_perplexity_cases(generator):
    lengths = (7, 7, 3)
    return [
        ([torch.tensor([1.0, 3.0, 2.5, 2.0]), torch.tensor([5.0])],),  # a tail of one token
        ([torch.tensor([0.5, 0.25])],),  # one window
        ([torch.tensor([1.0, 2.0]), torch.tensor([])],),  # a window that predicts nothing
        ([3 * torch.rand(length, generator=generator) for length in lengths],),
    ]


perplexity = Exercise(
    "06.b1",
    "the perplexity of a text",
    text_perplexity,
    text_perplexity_cases,
    hints=(
        "Two numbers are needed of each window: the sum of its losses, and how many there are.",
        "Add up all sums, divide by the number of all tokens, and take math.exp once, at the end.",
    ),
    wrong=[
        (
            lambda losses: math.exp(sum(float(loss.mean()) for loss in losses) / len(losses)),
            "you average the means of the windows. A short last window then counts as much as a full one: divide the sum "
            "of all losses by the number of all tokens.",
        ),
        (
            lambda losses: sum(math.exp(float(loss.mean())) for loss in losses) / len(losses),
            "you average the perplexities of the windows. The mean is taken of losses, over all tokens; the exponential "
            "comes last.",
        ),
        (
            lambda losses: float(torch.cat(losses).mean()),
            "this is the mean loss, in nats. The perplexity is its exponential.",
        ),
        (
            lambda losses: math.exp(float(torch.cat(losses[:-1] or losses).mean())),
            "you drop the last window. Its tokens are part of the text; they are only fewer.",
        ),
        (
            lambda losses: float(torch.cat(losses).exp().mean()),
            "you take the exponential of each token's loss and average these. The mean of the losses comes first, the "
            "exponential last.",
        ),
        (
            lambda losses: 2 ** float(torch.cat(losses).mean()),
            "the losses are in nats, so the base is e, not 2.",
        ),
        (
            lambda losses: math.exp(sum(float(loss.sum()) for loss in losses) / sum(len(loss) + 1 for loss in losses)),
            "you divide by the lengths of the windows, first tokens included. A loss is there for each token that was "
            "predicted; count the losses.",
        ),
        (
            lambda losses: math.exp(float(sum(len(loss) * loss.mean() for loss in losses)) / len(torch.cat(losses))),
            "a window of one token predicts none, and the mean of no losses is NaN, also when it counts zero times. "
            "Add up the losses themselves.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=8,
)


# 06.b2 Bits per byte ----------------------------------------------------------------------------------------------------


def bits_per_byte(loss, count, text):
    return loss * count / math.log(2) / len(text.encode("utf-8"))


def bits_per_byte_cases(generator):
    return [
        (3.0, 5, "The ocean is deep"),
        (2.0, 9, "Größe, naïve, 東京 🌊"),  # more bytes than characters
        (math.log(2), 1, "a"),  # one bit
        (float(torch.rand((), generator=generator)) + 1, 30, "Two lines,\nand a tail. " * 5),
    ]


bits = Exercise(
    "06.b2",
    "bits per byte",
    bits_per_byte,
    bits_per_byte_cases,
    hints=(
        "How many nats does the whole text cost? How many bits is a nat, and how many bytes has the text?",
        "`loss * count` nats; divided by `math.log(2)` they are bits; `len(text.encode('utf-8'))` counts the bytes.",
    ),
    wrong=[
        (
            lambda loss, count, text: loss * count / math.log(2) / len(text),
            "you count characters. A character outside of ASCII takes two to four bytes: count `text.encode('utf-8')`.",
        ),
        (
            lambda loss, count, text: loss * count / len(text.encode()),
            "these are nats per byte. A nat is 1 / log(2) bits, about 1.44.",
        ),
        (
            lambda loss, count, text: loss * count * math.log(2) / len(text.encode()),
            "you multiply by log(2). A nat is more than a bit, so there are more bits than nats: divide.",
        ),
        (
            lambda loss, count, text: loss / math.log(2),
            "these are bits per token. Spread the bits of all tokens over the bytes of the text.",
        ),
        (
            lambda loss, count, text: loss / math.log(2) / len(text.encode()),
            "you spread the loss of one token over the whole text. The text costs `count` times as much.",
        ),
        (
            lambda loss, count, text: loss * len(text.encode()) / count / math.log(2),
            "you multiply by the bytes per token. A token of several bytes has its loss shared among them: divide.",
        ),
        (
            lambda loss, count, text: loss * count / math.log(2) / len(text.split()),
            "these are bits per word. Words are not bytes, and a byte is the one unit that all texts share.",
        ),
        (
            lambda loss, count, text: math.exp(loss) * count / math.log(2) / len(text.encode()),
            "you took the perplexity. Bits come from the loss, its logarithm.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=8,
)


# 06.b3 A paired bootstrap -----------------------------------------------------------------------------------------------


def ratio_interval(first, second, draws):
    ratios = (first[draws] - second[draws]).mean(dim=1).exp()  # [repeats]
    return float(ratios.quantile(0.025)), float(ratios.quantile(0.975))


def ratio_interval_cases(generator):
    windows = 3 + torch.randn(10, generator=generator)
    other = windows + 0.05 + 0.1 * torch.randn(10, generator=generator)
    # 41 or 401 draws: no quantile is interpolated, so it matters neither how, nor whether before or after exp
    draws = torch.randint(10, (401, 10), generator=generator)
    few = torch.tensor([[0, 0, 1], [2, 1, 2], [1, 1, 1]]).repeat(14, 1)[:41]
    return [
        (torch.tensor([3.0, 2.0, 4.0]), torch.tensor([2.0, 2.2, 3.5]), few),
        (torch.tensor([1.5]), torch.tensor([1.0]), torch.tensor([[0], [0]])),  # one window
        (windows, other, draws),
        (other.double(), windows.double(), draws),
    ]


def _interval(values, low=0.025, high=0.975):
    return float(values.quantile(low)), float(values.quantile(high))


def _mean_losses(first, second, draws):
    return first[draws].mean(dim=1), second[draws].mean(dim=1)


bootstrap = Exercise(
    "06.b3",
    "a paired bootstrap",
    ratio_interval,
    ratio_interval_cases,
    hints=(
        "`first[draws]` are the losses of all repeats at once, [repeats, windows]. What is the perplexity of one repeat?",
        "The ratio of two exponentials is the exponential of the difference: (first[draws] - second[draws]).mean(dim=1).exp(), "
        "then `.quantile(0.025)` and `.quantile(0.975)`.",
    ),
    wrong=[
        (
            lambda a, b, draws: _interval((a[draws] - b[draws]).mean(dim=1)),
            "this is an interval of the difference of the losses, in nats. The ratio of the perplexities is its "
            "exponential.",
        ),
        (
            lambda a, b, draws: _interval((b[draws] - a[draws]).mean(dim=1).exp()),
            "your ratio is upside down: the first model's perplexity over the second's.",
        ),
        (
            lambda a, b, draws: _interval((a[draws].mean(dim=1) - b[draws.flip(0)].mean(dim=1)).exp()),
            "you draw other windows for the second model. Then the interval holds the luck of which windows are hard, which "
            "is the same for both: use the same draw.",
        ),
        (
            lambda a, b, draws: _interval((a[draws] - b[draws]).exp().mean(dim=1)),
            "you average ratios of windows. The perplexity of a repeat is the exponential of its mean loss: mean first, "
            "then the exponential.",
        ),
        (
            lambda a, b, draws: _interval(a[draws].exp().mean(dim=1) / b[draws].exp().mean(dim=1)),
            "you average the perplexities of windows. Average the losses of a repeat, then take the exponential.",
        ),
        (
            lambda a, b, draws: _interval((a[draws] - b[draws]).mean(dim=1).exp(), 0.05, 0.95),
            "this interval holds 90 % of the repeats: 5 % are cut off on each side. For 95 % cut off 2.5 %.",
        ),
        (
            lambda a, b, draws: _interval((a[draws] - b[draws]).mean(dim=1).exp(), 0.0, 1.0),
            "these are the smallest and the largest repeat, which move further apart the more repeats there are. Cut off "
            "2.5 % on each side.",
        ),
        (
            lambda a, b, draws: _interval((a[draws] - b[draws]).exp().flatten()),
            "this is the spread of single windows. Take the mean over the windows of each repeat first: dim=1.",
        ),
        (
            lambda a, b, draws: _interval((a[draws] - b[draws]).mean(dim=0).exp()),
            "you average over the repeats, which leaves nothing of their spread. Each row of `draws` is one repeat: dim=1.",
        ),
        (
            lambda a, b, draws: _interval(_mean_losses(a, b, draws)[0] / _mean_losses(a, b, draws)[1]),
            "you divide losses. The perplexities are their exponentials.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=12,
)


# 06.1 The freedom that a pattern leaves ---------------------------------------------------------------------------------


def freedom(kept, group):
    return math.log2(math.comb(group, kept)) / group


def freedom_cases(generator):
    pairs = [(3, 8), (2, 4), (4, 8), (1, 4), (288, 576)]
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
        (
            lambda kept, group: math.floor(math.log2(math.comb(group, kept))) / group,
            "you round the bits of a group down. A number of masks that is no power of two leaves a fraction of a bit: "
            "keep it.",
        ),
        (
            lambda kept, group: math.ceil(math.log2(math.comb(group, kept))) / group,
            "you round the bits of a group up, as one has to in order to store a single mask. The freedom is the "
            "logarithm itself.",
        ),
        (
            lambda kept, group: math.log2(sum(math.comb(group, n) for n in range(kept + 1))) / group,
            "you also count masks that keep fewer. Here each group keeps exactly `kept` weights.",
        ),
        (
            lambda kept, group: -sum(p * math.log2(p) for p in (kept / group, 1 - kept / group) if p),
            "this is the entropy of the share that is kept, which a pattern reaches only with very large groups. Count the masks of one group: math.comb.",
        ),
    ],
    difficulty=1,
    importance=1,
    minutes=8,
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
        ([0.0, 0.2, 0.4, 0.6, 0.8], [20.0, 21.0, 24.0, 60.0, 400.0], 1.5),
        ([0.0, 0.3, 0.5], [20.0, 20.5, 21.0], 1.1),  # never over the limit
        ([0.0, 0.1, 0.2, 0.3, 0.4], [20.0, 19.5, 23.0, 21.5, 40.0], 1.1),  # over it, under it again, over it
        ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [20.0, 24.0, 20.5, 21.0, 26.0, 60.0], 1.15),  # over it at once, then under it
        ([0.0, 0.1, 0.2, 0.3, 0.4], [20.0, 18.0, 16.0, 19.0, 44.0], 1.5),  # first better than dense
        # A bisection, as in np.interp, lands behind the dip.
        ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [20.0, 20.5, 21.0, 22.0, 40.0, 21.0, 22.0, 23.0, 60.0], 1.25),
        ([0.0, 0.25, 0.5, 0.7, 0.8], rising, 1.8),
        ([0.0, 0.25, 0.5], [16.0, 32.0, 64.0], 2.0),  # at the limit exactly
    ]


def _straight(sparsities, values, limit, last=False):
    """Where the values cross a limit, for the first or the last time, on straight lines between the points."""
    places = range(1, len(values))
    for i in reversed(places) if last else places:
        if values[i] > limit >= values[i - 1]:
            way = (limit - values[i - 1]) / (values[i] - values[i - 1])
            return sparsities[i - 1] + way * (sparsities[i] - sparsities[i - 1])
    return sparsities[-1]


def _interpolated(sparsities, perplexities, factor):
    """What np.interp makes of the curve: it takes for granted that the losses rise."""
    return float(np.interp(math.log(factor * perplexities[0]), _losses(perplexities), sparsities))


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
            _interpolated,
            "you hand the curve to `np.interp`, which takes for granted that the losses rise from point to point. Where a "
            "measured curve dips, its answer means nothing: look for the first crossing.",
        ),
        (
            lambda s, ppl, f: _interpolated(s, sorted(ppl), f),
            "you sort the perplexities. That moves them to other sparsities: a curve that dips has to be followed from "
            "point to point.",
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
        (
            lambda s, ppl, f: affordable(s, ppl[:1] + ppl[:-1], f),
            "your result lies one point too late. The crossing is between the last point within the limit and the first "
            "one beyond it.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=15,
)


# 06.3 Is the difference real? -------------------------------------------------------------------------------------------


def paired(first, second):
    difference = first - second  # [windows]
    return difference.mean(), difference.std() / math.sqrt(len(difference))


def paired_cases(generator):
    windows = 3 + torch.randn(12, generator=generator)  # some windows are hard, for every model
    noise = 0.1 * torch.randn(12, generator=generator)
    return [
        (torch.tensor([3.0, 4.0, 2.0, 3.0, 5.0]), torch.tensor([2.9, 3.8, 1.9, 2.7, 4.6])),
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
        (
            lambda a, b: ((a - b).median(), paired(a, b)[1]),
            "you took the median of the differences. The standard error that goes with it is another one; take the mean.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=10,
)
