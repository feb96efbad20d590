"""Exercises of notebook 03: weights times activations."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise, Misconception

# The toy of notebooks 02 and 03, and tokens whose columns have the norms 1, 2, 8 and 0.5.
W = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
NORMS = torch.tensor([1.0, 2.0, 8.0, 0.5])  # [in]
X = torch.tensor(
    [[0.5, 1.0, 4.0, 0.25], [-0.5, 1.0, 4.0, -0.25], [0.5, -1.0, 4.0, 0.25], [0.5, 1.0, -4.0, 0.25]]
)  # [tokens, in]


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


def columns_smallest(score, sparsity):
    """True at the round(sparsity * out) smallest scores of each column."""
    return rows_smallest(score.T, sparsity).T


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


def cost_without_inputs(weight, inputs):
    return weight.abs()


def cost_with_token_norms(weight, inputs):
    return weight.abs() * inputs.norm(dim=1)


def cost_per_output(weight, inputs):
    return weight.abs() * inputs.norm(dim=1)[:, None]


def cost_with_one_norm(weight, inputs):
    return weight.abs() * inputs.norm()


def cost_with_maximum(weight, inputs):
    return weight.abs() * inputs.abs().amax(dim=0)


def cost_with_mean_magnitude(weight, inputs):
    return weight.abs() * inputs.abs().mean(dim=0)


def cost_with_deviation(weight, inputs):
    return weight.abs() * inputs.std(dim=0)


def cost_divided(weight, inputs):
    return weight.abs() / inputs.norm(dim=0)


def cost_of_outputs(weight, inputs):
    return (weight.abs() * inputs.norm(dim=0)).sum(dim=1)


def cost_with_mean(weight, inputs):
    return (weight * inputs.mean(dim=0)).abs()


def cost_with_sum(weight, inputs):
    return (weight * inputs.sum(dim=0)).abs()


def cost_with_absolute_sum(weight, inputs):
    return weight.abs() * inputs.abs().sum(dim=0)


def cost_per_token(weight, inputs):
    return weight.abs() * inputs.square().mean(dim=0).sqrt()


def cost_squared_norm(weight, inputs):
    return weight.abs() * inputs.square().sum(dim=0)


def cost_squared(weight, inputs):
    return (weight.abs() * inputs.norm(dim=0)).square()


def cost_signed(weight, inputs):
    return weight * inputs.norm(dim=0)


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


def layer_by_magnitude(weight, inputs, sparsity):
    return weight.masked_fill(rows_smallest(weight.abs(), sparsity), 0)


def layer_across_rows(weight, inputs, sparsity):
    score = removal_cost(weight, inputs)
    return weight.masked_fill(rows_smallest(score.reshape(1, -1), sparsity).reshape(score.shape), 0)


def layer_by_columns(weight, inputs, sparsity):
    return weight.masked_fill(columns_smallest(removal_cost(weight, inputs), sparsity), 0)


def layer_upside_down(weight, inputs, sparsity):
    return weight.masked_fill(rows_smallest(-removal_cost(weight, inputs), sparsity), 0)


def layer_keeps_the_smallest(weight, inputs, sparsity):
    return weight.masked_fill(~rows_smallest(removal_cost(weight, inputs), sparsity), 0)


def layer_rounded_down(weight, inputs, sparsity):
    count = int(sparsity * weight.shape[1])
    return weight.masked_fill(rows_smallest(removal_cost(weight, inputs), count / weight.shape[1]), 0)


def layer_rounded_up(weight, inputs, sparsity):
    count = math.ceil(sparsity * weight.shape[1])
    return weight.masked_fill(rows_smallest(removal_cost(weight, inputs), count / weight.shape[1]), 0)


def layer_by_quantile(weight, inputs, sparsity):
    score = removal_cost(weight, inputs)
    return weight.masked_fill(score <= score.quantile(sparsity, dim=1, keepdim=True), 0)


def layer_keeps_its_sparsity(weight, inputs, sparsity):
    return wanda_layer(weight, inputs, 1 - sparsity)


def layer_with_absolute_sum(weight, inputs, sparsity):
    return weight.masked_fill(rows_smallest(cost_with_absolute_sum(weight, inputs), sparsity), 0)


def layer_with_squared_norm(weight, inputs, sparsity):
    return weight.masked_fill(rows_smallest(cost_squared_norm(weight, inputs), sparsity), 0)


def layer_by_inputs(weight, inputs, sparsity):
    return weight.masked_fill(rows_smallest(inputs.norm(dim=0).expand_as(weight), sparsity), 0)


def layer_rescaled(weight, inputs, sparsity):
    return wanda_layer(weight, inputs, sparsity) / (1 - sparsity)


def layer_signed(weight, inputs, sparsity):
    return weight.masked_fill(rows_smallest(weight * inputs.norm(dim=0), sparsity), 0)


def layer_keeps_the_product(weight, inputs, sparsity):
    return removal_cost(weight, inputs).masked_fill(rows_smallest(removal_cost(weight, inputs), sparsity), 0)


def layer_mask_only(weight, inputs, sparsity):
    return rows_smallest(removal_cost(weight, inputs), sparsity)


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


def norms_added(batches, masks):
    return sum(inputs[mask].norm(dim=0) for inputs, mask in zip(batches, masks, strict=True))


def norms_averaged(batches, masks):
    return norms_added(batches, masks) / len(batches)


def norms_with_padding(batches, masks):
    return stream_norm(batches, [torch.ones_like(mask) for mask in masks])


def norms_of_padding(batches, masks):
    return stream_norm(batches, [~mask for mask in masks])


def norms_weighted(batches, masks):
    counts = [int(mask.sum()) for mask in masks]
    norms = [inputs[mask].norm(dim=0) for inputs, mask in zip(batches, masks, strict=True)]
    return sum(count * norm for count, norm in zip(counts, norms, strict=True)) / sum(counts)


def norms_of_largest_batch(batches, masks):
    return torch.stack([inputs[mask].norm(dim=0) for inputs, mask in zip(batches, masks, strict=True)]).amax(dim=0)


def norms_listed(batches, masks):
    return torch.stack([inputs[mask].norm(dim=0) for inputs, mask in zip(batches, masks, strict=True)])


def norms_of_last_batch(batches, masks):
    return stream_norm(batches[-1:], masks[-1:])


def norms_without_root(batches, masks):
    return stream_norm(batches, masks).square()


def norms_per_token(batches, masks):
    return stream_norm(batches, masks) / sum(int(mask.sum()) for mask in masks) ** 0.5


def norms_of_means(batches, masks):
    return sum(inputs[mask].mean(dim=0).square() for inputs, mask in zip(batches, masks, strict=True)).sqrt()


# 03.4 Between magnitude and Wanda --------------------------------------------------------------------------------------


def power_score(weight, input_norm, power):
    return weight.abs() * input_norm**power  # [out, in] * [in]


def power_score_cases(generator):
    norm = normal(generator, 6).abs() + 0.1
    return [(W, NORMS, 1.0), (W, NORMS, 0.0), (W, NORMS, 2.0), (normal(generator, 5, 6), norm, 0.5)]


def power_on_the_product(weight, input_norm, power):
    return (weight.abs() * input_norm) ** power


def power_on_the_weight(weight, input_norm, power):
    return weight.abs() ** power * input_norm


def power_reversed(weight, input_norm, power):
    return weight.abs() * input_norm ** (1 - power)


def power_as_mixture(weight, input_norm, power):
    return (1 - power) * weight.abs() + power * weight.abs() * input_norm


def power_shared_out(weight, input_norm, power):
    return weight.abs() ** (1 - power) * input_norm**power


def power_of_the_square(weight, input_norm, power):
    return weight.abs() * input_norm.square() ** power


def power_as_factor(weight, input_norm, power):
    return weight.abs() * input_norm * power


def power_as_exponential(weight, input_norm, power):
    return weight.abs() * power**input_norm


def power_not_used(weight, input_norm, power):
    return weight.abs() * input_norm


def power_signed(weight, input_norm, power):
    return weight * input_norm**power


EXERCISES = [
    Exercise(
        key="03.1",
        title="what one removal costs",
        cases=removal_cost_cases,
        solution=removal_cost,
        misconceptions=[
            Misconception(
                cost_without_inputs, "this is magnitude: the inputs do not enter. What does each weight multiply?"
            ),
            Misconception(
                cost_with_token_norms,
                "you took one norm per token (dim=1). A weight w_ij reads one feature, over all tokens: one norm per "
                "column of the inputs.",
            ),
            Misconception(
                cost_per_output,
                "you took one norm per token and gave it to the rows of the weight. Rows are outputs; the norms belong to "
                "the inputs, which are the columns.",
            ),
            Misconception(
                cost_with_one_norm,
                "you took one norm of all inputs together. A factor that all weights share changes no ranking: each feature "
                "needs its own norm.",
            ),
            Misconception(
                cost_with_maximum,
                "you took the largest value of the feature. Removing the weight changes the output at every token, and the "
                "norm counts them all.",
            ),
            Misconception(
                cost_with_mean_magnitude,
                "you averaged the magnitudes of the feature. The output error here is a root of summed squares: the L2 norm.",
            ),
            Misconception(
                cost_with_deviation,
                "you took the standard deviation, which leaves out the mean. A feature that is 10 at every token has none, but "
                "the output would miss it.",
            ),
            Misconception(
                cost_divided, "you divided by the norm. The louder the input, the more its weight is missed: multiply."
            ),
            Misconception(
                cost_of_outputs,
                "you added up the costs of each row. One cost for every single weight is wanted, in the shape of the weight.",
            ),
            Misconception(
                cost_with_mean,
                "you averaged the feature over tokens. Positive and negative values cancel in a mean, but a change of "
                "the output hurts in either direction.",
            ),
            Misconception(
                cost_with_sum,
                "you summed the feature over tokens with its sign. Positive and negative values cancel, but a change of "
                "the output hurts in either direction.",
            ),
            Misconception(
                cost_with_absolute_sum,
                "you took the L1 norm of the feature. The output error here is a root of summed squares, so the norm is L2.",
            ),
            Misconception(
                cost_per_token,
                "you divided by the number of tokens (a root mean square). It gives the same ranking, but the cost asked "
                "for is the norm of the whole change.",
            ),
            Misconception(
                cost_squared_norm, "the root is missing: |w| is multiplied by the sum of squares, not by the norm."
            ),
            Misconception(
                cost_squared,
                "this is the squared error. The ranking is the same, but the cost asked for is the norm: take the root.",
            ),
            Misconception(
                cost_signed, "your cost can be negative: the sign of the weight is still in it. A norm has no sign."
            ),
        ],
        hints=(
            "Removing w_ij changes output i by -w_ij times column j of the inputs, and nothing else. How long is that vector?",
            "inputs.norm(dim=...) over the tokens leaves one norm per column, [in]. A tensor [in] broadcasts over the rows of "
            "one of shape [out, in].",
        ),
    ),
    Exercise(
        key="03.2",
        title="a Wanda layer from weights and inputs",
        cases=wanda_layer_cases,
        solution=wanda_layer,
        misconceptions=[
            Misconception(
                layer_by_magnitude, "you ranked by |w| alone. The inputs have to enter the score: |w_ij| times ||x_j||."
            ),
            Misconception(
                layer_across_rows,
                "your mask compares weights across the whole layer; Wanda compares within one output row.",
            ),
            Misconception(
                layer_by_columns,
                "your mask compares the weights of one column, that is of one input. Within a column the norm is the "
                "same for all, so it decides nothing. Wanda compares within one output row.",
            ),
            Misconception(
                layer_upside_down, "you removed the highest scores. A high score means that the output would miss it."
            ),
            Misconception(
                layer_keeps_the_smallest,
                "your mask is turned round: it zeroes what it should keep, and keeps the rest.",
            ),
            Misconception(
                layer_rounded_down,
                "each row loses too few weights where sparsity * in is not whole: the count is rounded to the nearest "
                "number, int() cuts it off.",
            ),
            Misconception(
                layer_rounded_up,
                "each row loses too many weights where sparsity * in is not whole: the count is rounded to the nearest number, "
                "not up.",
            ),
            Misconception(
                layer_by_quantile,
                "you took a quantile for a threshold and removed what does not exceed it. At sparsity 0 the smallest still "
                "goes: rank the scores, and count.",
            ),
            Misconception(
                layer_keeps_its_sparsity,
                "you kept the share `sparsity` and removed the rest. Sparsity is the share that goes.",
            ),
            Misconception(
                layer_with_absolute_sum,
                "you summed the magnitudes of a feature (L1). What a removal costs is the L2 norm; a feature that is loud at one "
                "token only shows the difference.",
            ),
            Misconception(
                layer_with_squared_norm,
                "you multiplied |w| by the squared norm. Squaring the whole score changes no ranking; squaring only the norm does.",
            ),
            Misconception(
                layer_by_inputs,
                "you ranked by the inputs alone. The weight has to enter the score: |w_ij| times ||x_j||.",
            ),
            Misconception(
                layer_rescaled,
                "you scaled up the weights that stay, as dropout does. Wanda leaves them exactly as they are.",
            ),
            Misconception(
                layer_signed,
                "you ranked by w times the norm, with its sign, so large negative weights go first. Take |w|.",
            ),
            Misconception(
                layer_keeps_the_product,
                "what you return are scores. The score only decides which weights go; the kept weights stay as they are.",
            ),
            Misconception(
                layer_mask_only, "what you return is the mask. The pruned weight is wanted, zero under the mask."
            ),
        ],
        hints=(
            "Three steps: score [out, in], then the positions of the smallest scores in each row, then zeros there.",
            "wanda_score wants one norm per input feature, row_mask the score and the sparsity; masked_fill makes a new tensor "
            "from the weight and the mask.",
        ),
    ),
    Exercise(
        key="03.3",
        title="norms of a stream of batches",
        cases=stream_norm_cases,
        solution=stream_norm,
        misconceptions=[
            Misconception(
                norms_added,
                "you added the norms of the batches. Norms do not add up, their squares do: 3 and 4 make 5, not 7.",
            ),
            Misconception(
                norms_averaged,
                "you averaged the norms of the batches. A short batch then counts as much as a long one. Add squares, and "
                "take one root at the end.",
            ),
            Misconception(
                norms_with_padding,
                "padding is counted. It is no text: leave out the positions where the mask is False.",
            ),
            Misconception(norms_of_padding, "you kept the padding and left out the text. True marks a token."),
            Misconception(
                norms_weighted,
                "you averaged the norms of the batches, weighted by their tokens. Norms do not average to the norm of the whole: "
                "add squares, and take one root at the end.",
            ),
            Misconception(
                norms_of_largest_batch,
                "you took the largest of the batches' norms. Every batch adds to the norm of the whole: add their squares.",
            ),
            Misconception(
                norms_listed,
                "this is one norm for each batch. One norm per feature over all batches together is wanted.",
            ),
            Misconception(
                norms_of_last_batch, "only the last batch counts: the sum starts anew in each turn of the loop."
            ),
            Misconception(norms_without_root, "the root at the end is missing: this is the sum of squares."),
            Misconception(
                norms_per_token,
                "you divided by the number of tokens. The ranking within a layer stays the same, but the L2 norm is wanted.",
            ),
            Misconception(
                norms_of_means,
                "you averaged the feature over the tokens before squaring. Values of opposite sign cancel then: square first.",
            ),
        ],
        hints=(
            "Which quantity of two batches can simply be added, so that the result is that of one long batch?",
            "inputs[mask] has shape [tokens, in]. Add up tokens.square().sum(dim=0) over the batches; one sqrt after the loop.",
        ),
    ),
    Exercise(
        key="03.4",
        title="a dial from magnitude to Wanda",
        cases=power_score_cases,
        solution=power_score,
        misconceptions=[
            Misconception(
                power_on_the_product,
                "the power acts on the whole product, weight included. A power of the whole score does not change any "
                "ranking; it belongs on the norm alone.",
            ),
            Misconception(
                power_reversed,
                "the dial is turned round: at power 0 the norm has to have no say (magnitude), at 1 its full say (Wanda).",
            ),
            Misconception(
                power_as_mixture,
                "you mixed the two scores in a straight line. The ends are right, but between them a sum is not a power: the "
                "norm gets the exponent.",
            ),
            Misconception(
                power_shared_out,
                "you took a power from the weight and gave it to the norm: at 1 only the inputs are left. The weight keeps its "
                "full say at every setting.",
            ),
            Misconception(
                power_of_the_square, "the norm is squared before the power acts, so at 1 the score is not Wanda's."
            ),
            Misconception(power_on_the_weight, "the power acts on the weight. It belongs on the norm."),
            Misconception(
                power_as_factor,
                "you multiplied by the power. A constant factor does not change any ranking; raise the norm to it.",
            ),
            Misconception(power_as_exponential, "base and exponent are swapped: this is power ** norm."),
            Misconception(power_not_used, "this is Wanda at every setting of the dial: the power is not used."),
            Misconception(
                power_signed, "the sign of the weight is still in the score, so negative weights would go first."
            ),
        ],
        hints=(
            "At power 0 every norm has to become 1, at power 1 it has to stay as it is.",
            "Only the norm gets the exponent, with **; the weight keeps its absolute value. [in] broadcasts over the rows.",
        ),
    ),
]
