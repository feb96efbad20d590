"""Exercises of notebook 03: weights times activations."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise

# The toy of notebooks 02 and 03, and tokens whose columns have the norms 1, 2, 8 and 0.5.
W = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
NORMS = torch.tensor([1.0, 2.0, 8.0, 0.5])  # [in]
X = torch.tensor(
    [[0.5, 1.0, 4.0, 0.25], [-0.5, 1.0, 4.0, -0.25], [0.5, -1.0, 4.0, 0.25], [0.5, 1.0, -4.0, 0.25]]
)  # [tokens, in]


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


def rows_smallest(score, sparsity):
    """True at the round(sparsity * in) smallest scores of each row."""
    order = score.argsort(dim=1, stable=True)
    mask = torch.zeros_like(score, dtype=torch.bool)
    return mask.scatter(1, order[:, : round(sparsity * score.shape[1])], True)


# 03.1 What one removal costs -------------------------------------------------------------------------------------------


def removal_cost(weight, inputs):
    return weight.abs() * inputs.norm(dim=0)  # [out, in] * [in]


def removal_cost_cases(generator):
    square = normal(generator, 4, 4)
    return [(W, X), (square, normal(generator, 4, 4)), (normal(generator, 6, 5), normal(generator, 20, 5))]


cost = Exercise(
    "03.1",
    "what one removal costs",
    removal_cost,
    removal_cost_cases,
    hints=(
        "Removing w_ij changes output i by -w_ij times column j of the inputs, and nothing else. How long is that "
        "vector?",
        "inputs.norm(dim=...) over the tokens leaves one norm per column, [in]. A tensor [in] broadcasts over the "
        "rows of one of shape [out, in].",
    ),
    wrong=[
        (lambda w, x: w.abs(), "this is magnitude: the inputs do not enter. What does each weight multiply?"),
        (
            lambda w, x: w.abs() * x.norm(dim=1),
            "you took one norm per token (dim=1). A weight w_ij reads one feature, over all tokens: one norm per "
            "column of the inputs.",
        ),
        (
            lambda w, x: w.abs() * x.norm(dim=1)[:, None],
            "you took one norm per token and applied it to the rows of the weight. Rows are outputs; the norms belong "
            "to the inputs, which are the columns.",
        ),
        (
            lambda w, x: w.abs() * x.norm(),
            "you took one norm of all inputs together. A common factor changes no ranking: each feature needs its own "
            "norm.",
        ),
        (
            lambda w, x: w.abs() * x.abs().amax(dim=0),
            "you took the largest value of the feature. Removing the weight changes the output at every token, and "
            "the norm counts them all.",
        ),
        (
            lambda w, x: w.abs() * x.abs().mean(dim=0),
            "you averaged the magnitudes of the feature. The output error here is a root of summed squares: the L2 "
            "norm.",
        ),
        (
            lambda w, x: w.abs() * x.std(dim=0),
            "you took the standard deviation, which leaves out the mean. A feature that is 10 at every token has a "
            "deviation of 0, yet the output needs it.",
        ),
        (
            lambda w, x: w.abs() / x.norm(dim=0),
            "you divided by the norm. The louder the input, the more its weight matters: multiply.",
        ),
        (
            lambda w, x: (w.abs() * x.norm(dim=0)).sum(dim=1),
            "you added up the costs of each row. One cost per weight is wanted, in the shape of the weight.",
        ),
        (
            lambda w, x: (w * x.mean(dim=0)).abs(),
            "you averaged the feature over tokens. Positive and negative values cancel in a mean, but a change of the "
            "output hurts in either direction.",
        ),
        (
            lambda w, x: (w * x.sum(dim=0)).abs(),
            "you summed the feature over tokens with its sign. Positive and negative values cancel, but a change of "
            "the output hurts in either direction.",
        ),
        (
            lambda w, x: w.abs() * x.abs().sum(dim=0),
            "you took the L1 norm of the feature. The output error here is a root of summed squares, so the norm is "
            "L2.",
        ),
        (
            lambda w, x: w.abs() * x.square().mean(dim=0).sqrt(),
            "you divided by the number of tokens (a root mean square). It gives the same ranking, but the cost asked "
            "for is the norm of the whole change.",
        ),
        (
            lambda w, x: w.abs() * x.square().sum(dim=0),
            "the root is missing: |w| is multiplied by the sum of squares, not by the norm.",
        ),
        (
            lambda w, x: (w.abs() * x.norm(dim=0)).square(),
            "this is the squared error. The ranking is the same, but the cost asked for is the norm: take the root.",
        ),
        (
            lambda w, x: w * x.norm(dim=0),
            "your cost can be negative: the sign of the weight is still in it. A norm is never negative.",
        ),
    ],
)


# 03.2 Wanda, from weights and inputs to a pruned layer -----------------------------------------------------------------


def wanda_layer(weight, inputs, sparsity):
    score = weight.abs() * inputs.norm(dim=0)  # [out, in]
    order = score.argsort(dim=1, stable=True)  # within each row
    count = round(sparsity * weight.shape[1])
    return weight.scatter(1, order[:, :count], 0.0)  # [out, in]


def wanda_layer_cases(generator):
    toy = W.clone()
    toy[0, 1] = -0.41  # no tie
    scale = torch.tensor([1.0, 5.0, 0.2, 1.0, 3.0, 0.5, 1.0, 2.0])
    rows = torch.tensor([[0.2], [1.0], [4.0]])
    bursts = normal(generator, 16, 8)  # some features are silent but for one token, where they are loud
    bursts[1:, ::2] *= 0.01
    bursts[0, ::2] = torch.tensor([12.0, 8.0, -10.0, 15.0])
    return [
        (toy, X, 0.5),
        (toy, X, 0.0),
        (rows * normal(generator, 3, 8), scale * normal(generator, 16, 8), 0.5),
        (rows * normal(generator, 3, 8), scale * normal(generator, 16, 8), 0.7),  # 5.6 weights: 6
        (normal(generator, 12, 8), scale * normal(generator, 16, 8), 0.25),
        (normal(generator, 12, 8), scale * bursts, 0.3),  # 2.4 weights: 2
    ]


def pruned(weight, score, sparsity):
    """The weight without the smallest scores of each row."""
    return weight.masked_fill(rows_smallest(score, sparsity), 0)


pruned_layer = Exercise(
    "03.2",
    "a Wanda layer from weights and inputs",
    wanda_layer,
    wanda_layer_cases,
    hints=(
        "Three steps: score [out, in], then the positions of the smallest scores in each row, then zeros there.",
        "wanda_score wants one norm per input feature, row_mask the score and the sparsity; masked_fill makes a new "
        "tensor from the weight and the mask.",
    ),
    wrong=[
        (
            lambda w, x, s: pruned(w, w.abs(), s),
            "you ranked by |w| alone. The score needs the inputs too: |w_ij| times ||x_j||.",
        ),
        (
            lambda w, x, s: pruned(w.reshape(1, -1), removal_cost(w, x).reshape(1, -1), s).reshape(w.shape),
            "your mask compares weights across the whole layer; Wanda compares within one output row.",
        ),
        (
            lambda w, x, s: pruned(w.T, removal_cost(w, x).T, s).T,
            "your mask compares the weights of one column, that is of one input. Within a column the norm is the same "
            "for all, so it decides nothing. Wanda compares within one output row.",
        ),
        (
            lambda w, x, s: pruned(w, -removal_cost(w, x), s),
            "you removed the highest scores. A high score marks a weight that the output needs.",
        ),
        (
            lambda w, x, s: w - wanda_layer(w, x, s),
            "your mask is inverted: it zeroes what it should keep, and keeps the rest.",
        ),
        (
            lambda w, x, s: pruned(w, removal_cost(w, x), int(s * w.shape[1]) / w.shape[1]),
            "each row loses too few weights where sparsity * in is not whole: round the count to the nearest number; "
            "int() truncates it.",
        ),
        (
            lambda w, x, s: pruned(w, removal_cost(w, x), math.ceil(s * w.shape[1]) / w.shape[1]),
            "each row loses too many weights where sparsity * in is not whole: round the count to the nearest number, "
            "not up.",
        ),
        (
            lambda w, x, s: wanda_layer(w, x, 1 - s),
            "you kept the fraction `sparsity` and removed the rest. Sparsity is the fraction that is removed.",
        ),
        (
            lambda w, x, s: pruned(w, w.abs() * x.abs().sum(dim=0), s),
            "you summed the magnitudes of a feature (L1). The cost of a removal is the L2 norm; a feature that is "
            "loud at only one token shows the difference.",
        ),
        (
            lambda w, x, s: pruned(w, w.abs() * x.square().sum(dim=0), s),
            "you multiplied |w| by the squared norm. Squaring the whole score changes no ranking; squaring only the "
            "norm does.",
        ),
        (
            lambda w, x, s: pruned(w, x.norm(dim=0).expand_as(w), s),
            "you ranked by the inputs alone. The score needs the weight too: |w_ij| times ||x_j||.",
        ),
        (
            lambda w, x, s: wanda_layer(w, x, s) / (1 - s),
            "you scaled up the kept weights, as dropout does. Wanda leaves them unchanged.",
        ),
        (
            lambda w, x, s: pruned(w, w * x.norm(dim=0), s),
            "you ranked by w times the norm, with its sign, so large negative weights are removed first. Take |w|.",
        ),
        (
            lambda w, x, s: pruned(removal_cost(w, x), removal_cost(w, x), s),
            "you returned scores. The score only decides which weights to remove; the kept ones stay unchanged.",
        ),
        (
            lambda w, x, s: rows_smallest(removal_cost(w, x), s),
            "you returned the mask. The pruned weight is wanted, zero under the mask.",
        ),
    ],
)


@pruned_layer.misconception(
    "you used a quantile as the threshold and removed what does not exceed it. At sparsity 0 this still removes the "
    "smallest: rank the scores, and count."
)
def layer_by_quantile(weight, inputs, sparsity):
    score = removal_cost(weight, inputs)
    return weight.masked_fill(score <= score.quantile(sparsity, dim=1, keepdim=True), 0)


# 03.3 Norms of a stream -------------------------------------------------------------------------------------------------


def stream_norm(batches, masks):
    total = 0
    for inputs, mask in zip(batches, masks, strict=True):  # [batch, length, in], [batch, length]
        tokens = inputs[mask]  # [tokens, in]
        total = total + tokens.square().sum(dim=0)
    return total.sqrt()  # [in]


def stream_norm_cases(generator):
    ones = torch.tensor([[[3.0, 1.0], [0.0, 1.0]]])  # one text of two tokens
    twos = torch.tensor([[[4.0, 1.0], [9.0, 9.0]]])  # the second token is padding
    full, half = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    lengths = (torch.arange(5) < torch.tensor([[5], [3]]), torch.arange(7) < torch.tensor([[2], [7]]))
    batches = [normal(generator, 2, 5, 4), 3 * normal(generator, 2, 7, 4)]
    return [([ones, twos], [full, half]), ([ones], [full]), (batches, list(lengths))]


def batch_norms(batches, masks):
    """The norms of each batch by itself [batches, in]."""
    return torch.stack([inputs[mask].norm(dim=0) for inputs, mask in zip(batches, masks, strict=True)])


stream = Exercise(
    "03.3",
    "norms of a stream of batches",
    stream_norm,
    stream_norm_cases,
    hints=(
        "Which quantity of two batches can simply be added, so that the result is that of one long batch?",
        "inputs[mask] has shape [tokens, in]. Add up tokens.square().sum(dim=0) over the batches; one sqrt after the "
        "loop.",
    ),
    wrong=[
        (
            lambda batches, masks: sum(batch_norms(batches, masks)),
            "you added the norms of the batches. Norms do not add up, their squares do: 3 and 4 make 5, not 7.",
        ),
        (
            lambda batches, masks: sum(batch_norms(batches, masks)) / len(batches),
            "you averaged the norms of the batches. A short batch then counts as much as a long one. Add squares, and "
            "take one root at the end.",
        ),
        (
            lambda batches, masks: stream_norm(batches, [torch.ones_like(mask) for mask in masks]),
            "you counted the padding: leave out the positions where the mask is False.",
        ),
        (
            lambda batches, masks: stream_norm(batches, [~mask for mask in masks]),
            "you kept the padding and left out the text. True marks a token.",
        ),
        (
            lambda batches, masks: batch_norms(batches, masks).amax(dim=0),
            "you took the largest of the batches' norms. Every batch contributes to the norm of the whole: add their "
            "squares.",
        ),
        (
            lambda batches, masks: batch_norms(batches, masks),
            "this is one norm per batch. One norm per feature, over all batches, is wanted.",
        ),
        (
            lambda batches, masks: stream_norm(batches[-1:], masks[-1:]),
            "only the last batch counts: the sum starts again in each turn of the loop.",
        ),
        (
            lambda batches, masks: stream_norm(batches, masks).square(),
            "the root at the end is missing: this is the sum of squares.",
        ),
        (
            lambda batches, masks: stream_norm(batches, masks) / sum(int(mask.sum()) for mask in masks) ** 0.5,
            "you divided by the number of tokens. The ranking within a layer stays the same, but the L2 norm is "
            "wanted.",
        ),
    ],
)


@stream.misconception(
    "you averaged the norms of the batches, weighted by their tokens. Norms do not average to the norm of the whole: "
    "add squares, and take one root at the end."
)
def norms_weighted(batches, masks):
    counts = [int(mask.sum()) for mask in masks]
    norms = [inputs[mask].norm(dim=0) for inputs, mask in zip(batches, masks, strict=True)]
    return sum(count * norm for count, norm in zip(counts, norms, strict=True)) / sum(counts)


@stream.misconception(
    "you averaged the feature over the tokens before squaring. Values of opposite sign then cancel: square first."
)
def norms_of_means(batches, masks):
    return sum(inputs[mask].mean(dim=0).square() for inputs, mask in zip(batches, masks, strict=True)).sqrt()


# 03.4 Between magnitude and Wanda --------------------------------------------------------------------------------------


def power_score(weight, input_norm, power):
    return weight.abs() * input_norm**power  # [out, in] * [in]


def power_score_cases(generator):
    norm = normal(generator, 6).abs() + 0.1
    return [(W, NORMS, 1.0), (W, NORMS, 0.0), (W, NORMS, 2.0), (normal(generator, 5, 6), norm, 0.5)]


dial = Exercise(
    "03.4",
    "a dial from magnitude to Wanda",
    power_score,
    power_score_cases,
    hints=(
        "At power 0 every norm has to become 1, at power 1 it has to stay as it is.",
        "Only the norm gets the exponent, with **; the weight keeps its absolute value. [in] broadcasts over the rows.",
    ),
    wrong=[
        (
            lambda w, n, p: (w.abs() * n) ** p,
            "the power acts on the whole product, weight included. A power of the whole score does not change any "
            "ranking; it belongs on the norm alone.",
        ),
        (
            lambda w, n, p: w.abs() * n ** (1 - p),
            "the dial is reversed: power 0 must ignore the norm (magnitude), power 1 must use it in full (Wanda).",
        ),
        (
            lambda w, n, p: (1 - p) * w.abs() + p * w.abs() * n,
            "you mixed the two scores linearly. The ends are right, but between them a sum is not a power: the "
            "exponent belongs on the norm.",
        ),
        (
            lambda w, n, p: w.abs() ** (1 - p) * n**p,
            "you split the exponent between weight and norm: at 1 only the inputs are left. The weight counts in full "
            "at every setting.",
        ),
        (
            lambda w, n, p: w.abs() * n.square() ** p,
            "the norm is squared before the power acts, so at 1 the score is not Wanda's.",
        ),
        (lambda w, n, p: w.abs() ** p * n, "the power acts on the weight. It belongs on the norm."),
        (
            lambda w, n, p: w.abs() * n * p,
            "you multiplied by the power. A constant factor does not change any ranking; raise the norm to it.",
        ),
        (lambda w, n, p: w.abs() * p**n, "base and exponent are swapped: this is power ** norm."),
        (lambda w, n, p: w.abs() * n, "this is Wanda at every setting of the dial: the power is not used."),
        (
            lambda w, n, p: w * n**p,
            "the sign of the weight is still in the score, so negative weights would be pruned first.",
        ),
    ],
)
