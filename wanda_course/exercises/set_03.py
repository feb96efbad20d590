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


def tied(generator, *shape):
    """A random tensor of few different values from 0 to 2, so that most are tied."""
    return torch.randint(9, shape, generator=generator) / 4


def linear(weight):
    """A linear layer with this weight [out, in]. It draws no random numbers of its own."""
    layer = torch.nn.utils.skip_init(torch.nn.Linear, weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return layer


# 03.b1 The score --------------------------------------------------------------------------------------------------------


def wanda_score(weight, input_norm):
    return weight.abs() * input_norm  # [out, in] * [in]: each column times its own norm


def wanda_score_cases(generator):
    square, wide = normal(generator, 4, 4), normal(generator, 6, 5)
    norm = normal(generator, 5).abs() + 0.1
    silent = torch.tensor([1.0, 0.0, 3.0, 0.0])  # two features are never there
    return [(W, NORMS), (square, NORMS), (wide, norm), (W, silent)]


the_score = Exercise(
    "03.b1",
    "the score",
    wanda_score,
    wanda_score_cases,
    hints=(
        "One factor says how large the weight is, the other how long the column that it multiplies. Whose sign counts?",
        "weight.abs() times input_norm. A tensor [in] broadcasts over the rows of one of shape [out, in].",
    ),
    wrong=[
        (lambda w, n: w.abs(), "this is magnitude: the inputs do not enter. What does each weight multiply?"),
        (
            lambda w, n: w * n,
            "your score can be negative: the sign of the weight is still in it, and the most negative would be pruned "
            "first. A length is never negative.",
        ),
        (
            lambda w, n: w.abs() * n[:, None],
            "you applied the norms to the rows of the weight. Rows are outputs; the norms belong to the inputs, which "
            "are the columns.",
        ),
        (
            lambda w, n: w.abs() / n,
            "you divided by the norm. The longer the input's column, the more its weight matters: multiply.",
        ),
        (
            lambda w, n: w.abs() * n.square(),
            "you multiplied by the squared norm. Squaring the whole score changes no ranking; squaring only the norm "
            "does.",
        ),
        (
            lambda w, n: (w * n).square(),
            "this is the squared error. The ranking is the same, but the score asked for is the length: no square.",
        ),
        (
            lambda w, n: w.abs() + n,
            "you added the two. A large weight on a silent feature then still scores high, though it changes nothing: "
            "multiply.",
        ),
        (
            lambda w, n: w.abs() * n / n.norm(),
            "you divided by the norm of all inputs together. It changes no ranking within a layer, but the score is no "
            "longer the change of the output.",
        ),
        (
            lambda w, n: w.abs() @ n,
            "you added up the scores of each row. One score per weight is wanted, in the shape of the weight.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=3,
)


# 03.1 What a pair costs ------------------------------------------------------------------------------------------------


def pair_costs(row, inputs):
    contributions = inputs * row  # [tokens, in]: column j is w_j x_j
    products = contributions.T @ contributions  # [in, in]
    squares = products.diagonal()  # [in], the squared scores
    both = squares[:, None] + squares + 2 * products  # [in, in]
    both.diagonal().copy_(squares)
    return both.clamp_min(0).sqrt()  # [in, in]; rounding can leave a small negative number


def pair_costs_cases(generator):
    twins = torch.tensor([[1.0, 1.0, 2.0], [2.0, 2.0, -1.0]])  # features 1 and 2 are the same
    noise = normal(generator, 12, 5)
    scales, signs = normal(generator, 8).abs() + 0.5, torch.tensor([1.0, -1.0]).repeat(4)
    return [
        (W[1], X),
        (torch.tensor([0.5, -0.5, 1.0]), twins),  # without both, nothing is missing
        (normal(generator, 4), normal(generator, 4, 4)),
        (normal(generator, 5), noise + 2 * noise[:, :1]),  # features that have much in common
        (torch.tensor([0.3]), torch.tensor([[3.0], [-4.0]])),  # no pair at all
        (signs / scales, normal(generator, 12, 1) * scales),  # any two of opposite sign cancel, but for rounding
    ]


def pair_costs_unclamped(row, inputs):
    """The squares of `pair_costs`, with whatever sign rounding leaves."""
    products = (inputs * row).T @ (inputs * row)
    squares = products.diagonal().clone()
    return (squares[:, None] + squares + 2 * products) * (1 - torch.eye(len(row))) + torch.diag(squares)


def _pairs(row, inputs, of_pair):
    """A matrix [in, in] of a function of two contributions; on the diagonal the norm of one."""
    parts = (inputs * row).T  # [in, tokens]
    size = range(len(row))
    costs = [[of_pair(parts[j], parts[k]) if j != k else parts[j].norm() for k in size] for j in size]
    return torch.tensor(costs)


pair = Exercise(
    "03.1",
    "what a pair costs",
    pair_costs,
    pair_costs_cases,
    hints=(
        "What is missing from the output is w_j x_j + w_k x_k. Write down the squared length of a sum of two vectors.",
        "P = (inputs * row).T @ (inputs * row) holds all products of contributions, the squared scores on its "
        "diagonal. Off the diagonal the square of the answer is P_jj + P_kk + 2 P_jk.",
    ),
    wrong=[
        (
            lambda w, x: _pairs(w, x, lambda a, b: (a.norm() ** 2 + b.norm() ** 2).sqrt()),
            "the cross term is missing: you added the two squared scores. That is right only if the two columns are at "
            "right angles.",
        ),
        (
            lambda w, x: _pairs(w, x, lambda a, b: (a.norm() ** 2 + b.norm() ** 2 + a @ b).clamp_min(0).sqrt()),
            "the cross term counts once in your formula. In the square of a sum, (a + b)² = a² + b² + 2ab, it counts "
            "twice.",
        ),
        (
            lambda w, x: _pairs(w, x, lambda a, b: a.norm() + b.norm()),
            "you added the two scores. Lengths add up only if both vectors point the same way.",
        ),
        (
            lambda w, x: _pairs(w, x, lambda a, b: (a - b).norm()),
            "your cross term has the wrong sign: both contributions are missing, so they add up.",
        ),
        (
            lambda w, x: _pairs(
                w, x, lambda a, b: (a.norm() ** 2 + b.norm() ** 2 + 2 * (a @ b).abs()).clamp_min(0).sqrt()
            ),
            "you took the absolute value of the cross term. It may be negative: then one removal undoes part of what "
            "the other does.",
        ),
        (
            lambda w, x: pair_costs(w.abs(), x),
            "you took |w| in the cross term as well. Two weights of opposite sign on equal features cancel: keep the "
            "signs.",
        ),
        (
            lambda w, x: _pairs(
                w, x, lambda a, b: (a.norm() ** 2 + b.norm() ** 2 + 2 * a.norm() * b.norm()).clamp_min(0).sqrt() ** 2
            ),
            "you multiplied the two norms for a cross term, and left the root out. The product of two vectors depends "
            "on the angle between them.",
        ),
        (
            lambda w, x: pair_costs(w, x).square(),
            "this is the squared change. How far the output moves is its root.",
        ),
        (
            lambda w, x: pair_costs(w, x).fill_diagonal_(0),
            "your diagonal is zero. There, j and k are one weight, and its removal costs its own score.",
        ),
        (
            lambda w, x: pair_costs(w, x) + torch.diag(pair_costs(w, x).diagonal()),
            "your diagonal counts each weight twice: j and k are one weight there, which can be removed only once.",
        ),
        (
            lambda w, x: pair_costs(w, x).triu(),
            "you filled only one half. The cost of j and k is that of k and j.",
        ),
        (
            lambda w, x: pair_costs(torch.ones_like(w), x),
            "the weights do not enter: this is the length of the sum of two columns.",
        ),
        (
            lambda w, x: pair_costs_unclamped(w, x).sqrt(),
            "right except where two contributions cancel. Rounding can make their squared sum a tiny negative number, "
            "whose root is not a number: clamp it at 0 first.",
        ),
    ],
    tolerance=3e-3,  # where contributions cancel, the formula has only half of the digits
    difficulty=2,
    importance=2,
    minutes=12,
)


# 03.b2 The mask ---------------------------------------------------------------------------------------------------------


def row_mask(score, sparsity):
    count = round(sparsity * score.shape[1])  # how many weights each row gives up
    order = score.argsort(dim=1, stable=True)  # [out, in], positions, the smallest score first; ties by position
    mask = torch.zeros_like(score, dtype=torch.bool)
    return mask.scatter(1, order[:, :count], True)  # [out, in], True = pruned


def row_mask_cases(generator):
    toy = W.abs() * NORMS  # 0.8 and 0.8 in the first row
    cases = [(toy, 0.5), (toy, 0.25), (tied(generator, 5, 6), 0.5), (tied(generator, 4, 60), 0.5)]
    cases += [(normal(generator, 5, 7).abs(), 0.3), (normal(generator, 5, 8).abs(), 0.7)]  # 2.1: 2; 5.6: 6
    cases.append((normal(generator, 3, 5).abs(), 0.5))  # 2.5: 2
    return [*cases, (normal(generator, 4, 4).abs(), 0.0), (normal(generator, 1, 5).abs(), 0.4)]


def layer_mask(score, sparsity):
    """True at the smallest scores of the whole layer."""
    return row_mask(score.reshape(1, -1), sparsity).reshape(score.shape)


def up_to_the_threshold(score, sparsity):
    """True up to the largest score that a row has to give up, ties and all."""
    count = round(sparsity * score.shape[1])
    return score <= score.sort(dim=1).values[:, count - 1 : count] if count else torch.zeros_like(score) > 0


def below_the_threshold(score, sparsity):
    """True below the smallest score that a row may keep."""
    count = round(sparsity * score.shape[1])
    return score < score.sort(dim=1).values[:, count : count + 1]


the_mask = Exercise(
    "03.b2",
    "the mask of each row",
    row_mask,
    row_mask_cases,
    hints=(
        "A number of weights per row, an order within each row, and True at the first places of that order.",
        "count = round(sparsity * score.shape[1]); score.argsort(dim=1, stable=True)[:, :count] are positions; scatter "
        "True there into a bool tensor of zeros.",
    ),
    wrong=[
        (
            layer_mask,
            "your mask compares the scores of the whole layer; here each row gives up the same number.",
        ),
        (
            lambda score, s: row_mask(score.T, s).T,
            "your mask compares within each column, that is among the weights of one input. A row is an output.",
        ),
        (lambda score, s: row_mask(-score, s), "you marked the highest scores. The smallest are pruned."),
        (lambda score, s: ~row_mask(score, s), "your mask is inverted: True means pruned, not kept."),
        (
            lambda score, s: row_mask(score, 1 - s),
            "you kept the fraction `sparsity` and removed the rest. Sparsity is the fraction that is removed.",
        ),
        (
            lambda score, s: row_mask(score, int(s * score.shape[1]) / score.shape[1]),
            "each row loses too few weights where sparsity * in is not whole: round the count to the nearest number; "
            "int() truncates it.",
        ),
        (
            lambda score, s: row_mask(score, math.ceil(s * score.shape[1]) / score.shape[1]),
            "each row loses too many weights where sparsity * in is not whole: round the count to the nearest number, "
            "not up.",
        ),
        (
            lambda score, s: row_mask(score, int(s * score.shape[1] + 0.5) / score.shape[1]),
            "each row loses one too many where sparsity * in ends in a half: you rounded it up. Python's round() takes "
            "the even neighbour, 2.5 to 2.",
        ),
        (
            up_to_the_threshold,
            "right except for ties: you removed every score equal to the threshold (<=), which can be too many. Remove "
            "exactly the count, the earlier position first.",
        ),
        (
            below_the_threshold,
            "right except for ties: you kept every score equal to the threshold (<), so a row can lose too few. Remove "
            "exactly the count, the earlier position first.",
        ),
        (
            lambda score, s: row_mask(score.flip(1), s).flip(1),
            "right except for ties: of equal scores you removed the later ones. The earlier go first.",
        ),
        (
            lambda score, s: row_mask(score, 0).scatter(
                1, score.topk(round(s * score.shape[1]), dim=1, largest=False).indices, True
            ),
            "right except for ties: `topk` takes any of equal scores. The earlier go first: argsort(dim=1, stable=True).",
        ),
        (
            lambda score, s: score <= score.quantile(s, dim=1, keepdim=True),
            "you used a quantile as the threshold and removed what does not exceed it. At sparsity 0 this still "
            "removes the smallest: rank the scores, and count.",
        ),
        (
            lambda score, s: score < s * score.amax(dim=1, keepdim=True),
            "you removed scores below a fraction of the largest one. Sparsity is a fraction of the number of weights: "
            "rank them, and count.",
        ),
        (
            lambda score, s: score.argsort(dim=1, stable=True) < round(s * score.shape[1]),
            "you compared the positions themselves with the count. The first entries of the order are the positions to "
            "mark.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=8,
)


# 03.b3 Comparison groups ------------------------------------------------------------------------------------------------


def group_mask(score, sparsity, group):
    if group == "output":  # a row competes
        return row_mask(score, sparsity)
    if group == "input":  # a column competes
        return row_mask(score.T, sparsity).T
    return row_mask(score.reshape(1, -1), sparsity).reshape(score.shape)  # "layer": everything competes


def group_mask_cases(generator):
    toy, ties = W.abs() * NORMS, tied(generator, 6, 6)
    cases = [(toy, 0.5, group) for group in ("output", "layer", "input")]
    cases += [(ties, 0.5, group) for group in ("output", "layer", "input")]
    cases.append((torch.ones(3, 4), 0.5, "layer"))
    cases.append((normal(generator, 3, 9).abs(), 0.5, "input"))  # 1.5 of three outputs: 2; half of nine inputs: 4
    return cases + [(normal(generator, 5, 7).abs(), 0.3, group) for group in ("input", "layer", "output")]


the_groups = Exercise(
    "03.b3",
    "the comparison groups",
    group_mask,
    group_mask_cases,
    hints=(
        "`row_mask` compares within rows. How do you rearrange the score so that the weights that should compete stand "
        "in one row, and how do you get back?",
        '"input": transpose, mask, transpose back. "layer": reshape(1, -1), mask, reshape to score.shape.',
    ),
    wrong=[
        (
            lambda score, s, group: row_mask(score, s),
            'you compare within rows for every group. Only "output" means that.',
        ),
        (
            lambda score, s, group: group_mask(score, s, {"input": "output", "output": "input"}.get(group, group)),
            '"output" and "input" are swapped. A row of the weight is an output, a column an input.',
        ),
        (
            lambda score, s, group: (
                group_mask(score.T, s, "layer").T if group == "layer" else group_mask(score, s, group)
            ),
            "right except for ties by layer: of equal scores the earlier in reading order goes, along the rows.",
        ),
        (
            lambda score, s, group: row_mask(score.T, s) if group == "input" else group_mask(score, s, group),
            'for "input" you did not transpose back: the mask has the shape of the score, [out, in].',
        ),
        (
            lambda score, s, group: row_mask(score.T, s).T if group != "output" else row_mask(score, s),
            '"layer" is not "input": by layer all weights compete, whatever column they stand in.',
        ),
        (
            lambda score, s, group: row_mask(score, s) if group == "layer" else group_mask(score, s, group),
            '"layer" is not "output": by layer all weights compete, whatever row they stand in.',
        ),
        (
            lambda score, s, group: (
                row_mask(score.reshape(1, -1), s) if group == "layer" else group_mask(score, s, group)
            ),
            'for "layer" the mask is still one long row: bring it back into the shape of the score.',
        ),
        (
            lambda score, s, group: (
                row_mask(score.T, s).reshape(score.shape) if group == "input" else group_mask(score, s, group)
            ),
            'for "input" you went back with reshape, which keeps the order of the entries. The inverse of a transpose '
            "is a transpose.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=6,
)


@the_groups.misconception(
    'for "input" you counted round(sparsity * in). The group is a column: its length is the number of outputs.'
)
def columns_counted_by_inputs(score, sparsity, group):
    if group != "input":
        return group_mask(score, sparsity, group)
    return row_mask(score.T, round(sparsity * score.shape[1]) / len(score)).T


# 03.2 Wanda, from weights and inputs to a pruned layer -----------------------------------------------------------------


def wanda_layer(weight, inputs, sparsity):
    score = wanda_score(weight, inputs.norm(dim=0))  # [out, in]
    return weight.masked_fill(row_mask(score, sparsity), 0)  # [out, in], a new tensor


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
        (normal(generator, 3, 5), normal(generator, 9, 5), 0.5),  # 2.5: 2
        (tied(generator, 6, 8) - 1, torch.eye(8), 0.5),  # ties, and weights that are zero already
        (tied(generator, 3, 40) - 1, torch.eye(40), 0.5),
    ]


def _score(weight, inputs):
    """The Wanda score from a layer's inputs [tokens, in]."""
    return wanda_score(weight, inputs.norm(dim=0))


def pruned(weight, score, sparsity):
    """The weight without the smallest scores of each row."""
    return weight.masked_fill(row_mask(score, sparsity), 0)


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
            "your ranking within each row is that of |w| alone. The score needs the inputs too, |w_ij| times ||x_j||, with a "
            "norm for each feature: one norm for all changes no ranking.",
        ),
        (
            lambda w, x, s: pruned(w.reshape(1, -1), _score(w, x).reshape(1, -1), s).reshape(w.shape),
            "your mask compares weights across the whole layer; Wanda compares within one output row.",
        ),
        (
            lambda w, x, s: pruned(w.T, _score(w, x).T, s).T,
            "your mask compares the weights of one column, that is of one input. Within a column the norm is the same "
            "for all, so it decides nothing. Wanda compares within one output row.",
        ),
        (
            lambda w, x, s: pruned(w, -_score(w, x), s),
            "you removed the highest scores. A high score marks a weight that the output needs.",
        ),
        (
            lambda w, x, s: w - wanda_layer(w, x, s),
            "your mask is inverted: it zeroes what it should keep, and keeps the rest.",
        ),
        (
            lambda w, x, s: pruned(w, _score(w, x), int(s * w.shape[1]) / w.shape[1]),
            "each row loses too few weights where sparsity * in is not whole: round the count to the nearest number; "
            "int() truncates it.",
        ),
        (
            lambda w, x, s: pruned(w, _score(w, x), math.ceil(s * w.shape[1]) / w.shape[1]),
            "each row loses too many weights where sparsity * in is not whole: round the count to the nearest number, "
            "not up.",
        ),
        (
            lambda w, x, s: pruned(w, _score(w, x), int(s * w.shape[1] + 0.5) / w.shape[1]),
            "each row loses one too many where sparsity * in ends in a half: you rounded it up. Python's round() takes "
            "the even neighbour, 2.5 to 2.",
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
            lambda w, x, s: w.masked_fill(up_to_the_threshold(_score(w, x), s), 0),
            "right except for ties: you removed every score equal to the threshold (<=), which can be too many. Remove "
            "exactly the count, the earlier position first.",
        ),
        (
            lambda w, x, s: w.masked_fill(below_the_threshold(_score(w, x), s), 0),
            "right except for ties: you kept every score equal to the threshold (<), so a row can lose too few. Remove "
            "exactly the count, the earlier position first.",
        ),
        (
            lambda w, x, s: pruned(w.flip(1), _score(w, x).flip(1), s).flip(1),
            "right except for ties: of equal scores you removed the later ones. The earlier go first.",
        ),
        (
            lambda w, x, s: pruned(w, w.abs() * x.norm(dim=1)[: w.shape[1]], s),
            "you took one norm per token (dim=1). A weight w_ij reads one feature, over all tokens: one norm per "
            "column of the inputs.",
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
            lambda w, x, s: pruned(_score(w, x), _score(w, x), s),
            "you returned scores. The score only decides which weights to remove; the kept ones stay unchanged.",
        ),
        (
            lambda w, x, s: row_mask(_score(w, x), s),
            "you returned the mask. The pruned weight is wanted, zero under the mask.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=6,
)


@pruned_layer.misconception(
    "your zeros are right, but you changed the weights that stay, to make up for those that go. That is a good idea, and "
    "another method (SparseGPT, notebook 05). Wanda leaves the kept weights as they are."
)
def layer_with_repair(weight, inputs, sparsity):
    repaired = torch.zeros_like(weight)
    for row, removed in enumerate(row_mask(_score(weight, inputs), sparsity)):
        kept = ~removed
        repaired[row, kept] = torch.linalg.lstsq(inputs[:, kept], inputs @ weight[row]).solution
    return repaired


@pruned_layer.misconception(
    "you used a quantile as the threshold and removed what does not exceed it. At sparsity 0 this still removes the "
    "smallest: rank the scores, and count."
)
def layer_by_quantile(weight, inputs, sparsity):
    score = _score(weight, inputs)
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
    empty = (batches[:1] + batches[:1], [lengths[0], lengths[0] & False])  # the second batch is all padding
    return [([ones, twos], [full, half]), ([ones], [full]), (batches, list(lengths)), empty]


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
        (
            lambda batches, masks: batches[0][masks[0]].norm(dim=0),
            "only the first batch counts. Is the `return` inside the loop?",
        ),
        (
            lambda batches, masks: torch.cat([x[m] for x, m in zip(batches, masks, strict=True)]).norm(dim=1),
            "you took one norm per token. One norm per feature, over all tokens, is wanted: sum over the tokens.",
        ),
        (
            lambda batches, masks: torch.cat([x[m] for x, m in zip(batches, masks, strict=True)]).abs().sum(dim=0),
            "you added up magnitudes (L1). The norm asked for is L2: add squares, and take one root at the end.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=8,
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
    cases = [(W, NORMS, 2.0), (W, NORMS, 1.0), (W, NORMS, 0.0), (normal(generator, 5, 6), norm, 0.5)]
    return [*cases, (W, torch.tensor([1.0, 0.0, 2.0, 3.0]), 0.0)]  # a silent feature: 0 to the power 0 is 1


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
        (
            lambda w, n, p: w.abs() * (p * n.log()).exp(),
            "right except where a norm is zero: its logarithm is infinite, and times 0 that is not a number. Use **.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=5,
)


# 03.5 A small Wanda, complete ------------------------------------------------------------------------------------------


def small_wanda(network, batches, sparsity, probe):
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    squares = {layer: torch.zeros(layer.in_features) for layer in layers}

    def listen(layer, args):
        squares[layer] += args[0].square().sum(dim=0)  # args[0]: [tokens, in]

    handles = [layer.register_forward_pre_hook(listen) for layer in layers]
    with torch.no_grad():
        for batch in batches:
            network(batch)
        for layer, handle in zip(layers, handles, strict=True):
            handle.remove()
            score = wanda_score(layer.weight, squares[layer].sqrt())  # [out, in]
            layer.weight.masked_fill_(row_mask(score, sparsity), 0)
        return network(probe)


def small_wanda_cases(generator):
    def network(*sizes):
        shapes = zip(sizes[1:], sizes[:-1], strict=True)
        layers = [linear(normal(generator, *shape)) for shape in shapes]
        return torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.ReLU())][:-1])

    toy = torch.nn.Sequential(linear(W.clone()), torch.nn.ReLU(), linear(torch.tensor([[0.5, -1.0, 2.0]])))
    nested = torch.nn.Sequential(network(6, 8), torch.nn.Sequential(torch.nn.ReLU(), network(8, 5)))
    scale = torch.tensor([1.0, 6.0, 0.2, 1.0, 3.0, 0.5])
    batches = [scale * normal(generator, 7, 6), 4 * scale.flip(0) * normal(generator, 2, 6)]
    many = [scale * normal(generator, tokens, 6) for tokens in (1, 3, 9)]
    probe = normal(generator, 3, 6)
    return [
        (toy, [X[:1], X[1:]], 0.5, X[:3]),
        (network(6, 10, 4), batches, 0.5, 50 * probe),  # louder than the batches: it must not count
        (network(6, 7, 9, 3), many, 0.3, probe),  # 1.8 weights: 2; 2.1: 2; 2.7: 3
        (nested, batches, 0.7, probe),
        (network(6, 4, 2), batches, 0.0, probe),
    ]


def _linears(network):
    return [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]


def _heard(network, batches):
    """Per layer a list over the batches of its inputs [tokens, in]."""
    layers, heard = _linears(network), []

    def listen(layer, args):
        heard[-1][layer] = args[0]

    handles = [layer.register_forward_pre_hook(listen) for layer in layers]
    with torch.no_grad():
        for batch in batches:
            heard.append({})
            network(batch)
    for handle in handles:
        handle.remove()
    return [[batch[layer] for batch in heard] for layer in layers]


def _after(network, weights, probe):
    """What a network makes of the probe with other weights in its linear layers."""
    with torch.no_grad():
        for layer, weight in zip(_linears(network), weights, strict=True):
            layer.weight.copy_(weight)
        return network(probe)


def _small(network, batches, sparsity, probe, norm=None, score=_score, mask=row_mask):
    """`small_wanda` with another norm, score or mask. norm: function of a list of inputs [tokens, in]."""
    weights = []
    for layer, inputs in zip(_linears(network), _heard(network, batches), strict=True):
        weight = layer.weight.detach()
        scores = score(weight, torch.cat(inputs)) if norm is None else weight.abs() * norm(inputs)
        weights.append(weight.masked_fill(mask(scores, sparsity), 0))
    return _after(network, weights, probe)


capstone = Exercise(
    "03.5",
    "a small Wanda, complete",
    small_wanda,
    small_wanda_cases,
    hints=(
        "Three steps, as in the ten lines: hooks that add up squares while the dense network reads every batch; then, "
        "per layer, a score and a mask; then zeros in layer.weight. Remove the hooks.",
        "layer.register_forward_pre_hook(listen) calls listen(layer, args) with args[0] the input [tokens, in]: "
        "squares[layer] += args[0].square().sum(dim=0). After the last batch, under torch.no_grad(), "
        "layer.weight.masked_fill_(row_mask(wanda_score(layer.weight, squares[layer].sqrt()), sparsity), 0).",
    ),
    wrong=[
        (
            lambda n, b, s, p: _small(n, b, s, p, score=lambda w, x: w.abs()),
            "each row is ranked by |w| alone, so the inputs have no say. (One factor for a whole row changes nothing: take the "
            "norms of what a layer reads, one per column, not of what it writes.)",
        ),
        (
            lambda n, b, s, p: _small(n, b, s, p, lambda inputs: inputs[-1].norm(dim=0)),
            "only the last batch counts: add to the sum of squares instead of replacing it.",
        ),
        (
            lambda n, b, s, p: _small(n, b, s, p, lambda inputs: inputs[0].norm(dim=0)),
            "only the first batch counts: prune after the last one.",
        ),
        (
            lambda n, b, s, p: _small(n, [*b, p], s, p),
            "the probe counts in the norms. They come from the batches alone.",
        ),
        (
            lambda n, b, s, p: _small(n, b, s, p, lambda inputs: sum(one.norm(dim=0) for one in inputs)),
            "you added the norms of the batches. Norms do not add up, their squares do: 3 and 4 make 5, not 7.",
        ),
        (
            lambda n, b, s, p: _small(
                n, b, s, p, lambda inputs: sum(one.square().mean(dim=0) for one in inputs).sqrt()
            ),
            "you averaged the squares of each batch before adding, so a short batch counts as much as a long one. Add "
            "the sums.",
        ),
        (
            lambda n, b, s, p: _small(n, b, s, p, lambda inputs: torch.cat(inputs).square().sum(dim=0)),
            "the root is missing: |w| is multiplied by the sum of squares, not by the norm.",
        ),
        (
            lambda n, b, s, p: _small(n, b, s, p, lambda inputs: torch.cat(inputs).abs().sum(dim=0)),
            "you added up magnitudes (L1). The norm of the score is L2: squares, and one root at the end.",
        ),
        (
            lambda n, b, s, p: _small(n, b, s, p, lambda inputs: torch.cat(inputs).sum(dim=0).abs()),
            "you added up the inputs with their signs. Positive and negative values cancel: square first.",
        ),
        (
            lambda n, b, s, p: _small(n, b, s, p, mask=layer_mask),
            "your mask compares weights across a whole layer; Wanda compares within one output row.",
        ),
        (
            lambda n, b, s, p: _small(n, b, s, p, mask=lambda score, s: row_mask(score.T, s).T),
            "your mask compares within a column, where the norm is the same for all, so it decides nothing. Wanda "
            "compares within one output row.",
        ),
        (
            lambda n, b, s, p: _small(n, b, s, p, mask=lambda score, s: ~row_mask(score, s)),
            "your mask is inverted: the network keeps what it should lose.",
        ),
        (
            lambda n, b, s, p: _small(
                n, b, s, p, mask=lambda score, s: row_mask(score, int(s * score.shape[1]) / score.shape[1])
            ),
            "each row loses too few weights where sparsity * in is not whole: round the count to the nearest number; "
            "int() truncates it.",
        ),
        (
            lambda n, b, s, p: n(p),
            "the network computes what it did before. masked_fill makes a new tensor: write it into layer.weight, or use "
            "masked_fill_, under torch.no_grad().",
        ),
    ],
    difficulty=3,
    importance=3,
    minutes=25,
)


@capstone.misconception(
    "each layer is pruned before the next one is measured, so the later norms come from a network that is pruned already. "
    "The paper does that, and so does `wanda.prune`; here all norms come from the dense network."
)
def one_layer_after_the_other(network, batches, sparsity, probe):
    for place, layer in enumerate(_linears(network)):
        norm = torch.cat(_heard(network, batches)[place]).norm(dim=0)
        layer.weight.data = pruned(layer.weight.data, wanda_score(layer.weight.data, norm), sparsity)
    return network(probe)


@capstone.misconception(
    "only the layers directly inside the network are pruned. Some stand deeper: go through network.modules()."
)
def direct_children(network, batches, sparsity, probe):
    direct = any(isinstance(layer, torch.nn.Linear) for layer in network)
    return small_wanda(network, batches, sparsity if direct else 0.0, probe)
