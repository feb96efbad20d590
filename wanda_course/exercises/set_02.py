"""Exercises of notebook 02: magnitude pruning."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise

# The toy of notebooks 02 and 03, and tokens whose columns have the norms 1, 2, 8 and 0.5.
W = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
X = torch.tensor(
    [[0.5, 1.0, 4.0, 0.25], [-0.5, 1.0, 4.0, -0.25], [0.5, -1.0, 4.0, 0.25], [0.5, 1.0, -4.0, 0.25]]
)  # [tokens, in]


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


def half(generator, *shape):
    """A random mask, about half of it True."""
    return torch.rand(*shape, generator=generator) < 0.5


# 02.1 How starved is each output? --------------------------------------------------------------------------------------


def zeros_per_output(mask):
    return mask.float().mean(dim=1)  # [out]


def zeros_per_output_cases(generator):
    uneven = torch.tensor([[True, True, True], [False, False, True], [False, False, False]])
    return [(uneven,), (W.abs() < 0.45,), (half(generator, 5, 8),), (half(generator, 7, 7),)]


starved = Exercise(
    "02.1",
    "how starved is each output",
    zeros_per_output,
    zeros_per_output_cases,
    hints=(
        "The mean of a row of zeros and ones is the fraction of ones in it.",
        "A bool tensor has no mean: turn the mask into float first, then average over dim=1.",
    ),
    wrong=[
        (
            lambda mask: mask.float().mean(dim=0),
            "you averaged down the columns: that is the fraction each input loses. An output is a row of W; average "
            "along it.",
        ),
        (
            lambda mask: mask.float().sum(dim=1),
            "these are counts. A layer with 1,536 inputs and one with 576 can only be compared by fractions.",
        ),
        (
            lambda mask: 1 - mask.float().mean(dim=1),
            "this is the fraction of weights that are kept. In a mask, True means pruned.",
        ),
        (
            lambda mask: mask.float().mean(),
            "this is the sparsity of the whole layer, which is fixed beforehand. The question is how the outputs "
            "share it: one number per row.",
        ),
        (lambda mask: 100 * mask.float().mean(dim=1), "this is in percent; fractions between 0 and 1 are wanted."),
        (
            lambda mask: mask.float().sum(dim=1) / mask.shape[0],
            "you divided by the number of rows. The weights of an output are a row: divide by the number of columns.",
        ),
        (
            lambda mask: mask.float().sum(dim=1) / mask.numel(),
            "you divided by the number of weights in the layer. Divide by the number of weights in the row.",
        ),
        (
            lambda mask: mask.all(dim=1).float(),
            "you marked the outputs that lost everything. One that lost nine tenths is starved too: return the "
            "fraction.",
        ),
        (
            lambda mask: mask.float().sum(dim=1) / mask.sum(),
            "you divided by all zeros of the layer, which gives each row's share of them. Divide by the number of "
            "weights in the row.",
        ),
    ],
)


# 02.2 The layer-wise magnitude mask ------------------------------------------------------------------------------------


def layer_mask(weight, sparsity):
    count = round(sparsity * weight.numel())
    order = weight.abs().flatten().argsort(stable=True)  # [out * in], the smallest first
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[:count]] = True
    return mask.reshape(weight.shape)  # [out, in]


def layer_mask_cases(generator):
    tied = torch.tensor([[0.5, -0.5, 0.5, -0.5], [0.1, 0.5, -0.5, 2.0], [3.0, -0.2, 0.5, 1.0]])
    cases = [(W, 0.5), (W, 0.25), (tied, 0.5), (normal(generator, 6, 8), 0.5)]
    cases += [(normal(generator, 5, 7), 0.3), (normal(generator, 4, 4), 0.0)]
    return [*cases, (normal(generator, 4, 7), 0.7), (normal(generator, 4, 7), 0.3)]  # 19.6 weights: 20; 8.4: 8


magnitude = Exercise(
    "02.2",
    "the layer-wise magnitude mask",
    layer_mask,
    layer_mask_cases,
    hints=(
        "Flatten the layer into one long row, choose there, and bring the result back into shape.",
        "argsort(stable=True) of the flattened absolute values lists positions, the smallest first and ties in order; "
        "the first round(sparsity * size) of them become True.",
    ),
    wrong=[
        (
            lambda w, s: row_mask(w.T, s).T,
            "your mask compares the weights of one column, that is of one input; magnitude pruning compares them "
            "across the whole layer.",
        ),
        (
            lambda w, s: layer_mask(w, int(s * w.numel()) / w.numel()),
            "you prune too few weights where sparsity * size is not whole: int() truncates, round() gives the nearest "
            "number.",
        ),
        (
            lambda w, s: layer_mask(w.flip(0, 1), s).flip(0, 1),
            "right except for ties: of equal weights you removed the later ones. Remove the earlier ones, in reading "
            "order.",
        ),
        (
            lambda w, s: w.abs() <= torch.quantile(w.abs(), s),
            "you used a quantile as the threshold. The count is then wrong where weights are equal, and at sparsity "
            "0, where the smallest is still removed. Rank the weights, and count.",
        ),
        (
            lambda w, s: w.abs() < torch.quantile(w.abs(), s),
            "you used a quantile as the threshold, and equal weights all fall on one side of it. Rank the weights, "
            "and count.",
        ),
        (
            lambda w, s: layer_mask(w + w.abs().max(), s),
            "you ranked the weights with their signs, so large negative weights are removed first. Magnitude is the "
            "absolute value.",
        ),
        (lambda w, s: ~layer_mask(w, s), "your mask is inverted: True means pruned, not kept."),
        (
            lambda w, s: layer_mask(1 / w.abs(), s),
            "you removed the largest weights. Magnitude pruning removes the smallest.",
        ),
        (
            lambda w, s: w.abs() < s * w.abs().max(),
            "you removed weights below a fraction of the largest one. Sparsity is a fraction of the number of "
            "weights, not of their size: rank them, and count.",
        ),
        (
            lambda w, s: w.masked_fill(layer_mask(w, s), 0),
            "you returned the pruned weights. The mask itself is wanted: a bool tensor, True where a weight is pruned.",
        ),
    ],
)


@magnitude.misconception(
    "your mask compares weights within each row; magnitude pruning compares them across the whole layer, and some rows "
    "lose more than others."
)
def row_mask(weight, sparsity):
    return torch.stack([layer_mask(row[None], sparsity)[0] for row in weight])


@magnitude.misconception(
    "right except for ties: you removed every weight equal to the threshold, which can be too many. Remove exactly "
    "round(sparsity * size), the earliest positions first."
)
def everything_up_to_the_threshold(weight, sparsity):
    count = round(sparsity * weight.numel())
    ranked = weight.abs().flatten().sort().values
    return weight.abs() <= (ranked[count - 1] if count else -1)


@magnitude.misconception(
    "right except for ties: you kept every weight equal to the threshold, so too few are removed. Remove exactly "
    "round(sparsity * size), the earliest positions first."
)
def everything_below_the_threshold(weight, sparsity):
    count = round(sparsity * weight.numel())
    return weight.abs() < weight.abs().flatten().sort().values[count]


# 02.3 What a mask does to the output -----------------------------------------------------------------------------------


def output_error(weight, inputs, mask):
    removed = weight * mask  # W - W'  [out, in]
    return float((inputs @ removed.T).norm() / (inputs @ weight.T).norm())


def output_error_cases(generator):
    cases = [(W, X, layer_mask(W, 0.5)), (W, X, row_mask(W, 0.5))]
    for tokens, outputs, width in ((5, 4, 6), (6, 6, 6)):
        weight, inputs = normal(generator, outputs, width), normal(generator, tokens, width)
        cases.append((weight, inputs, half(generator, outputs, width)))
    return cases


error = Exercise(
    "02.3",
    "what a mask does to the output",
    output_error,
    output_error_cases,
    hints=(
        "The output is linear in the weights: what is missing from it is what the removed weights would have added.",
        "weight * mask holds the removed weights; compare the norm of inputs @ (weight * mask).T with that of inputs "
        "@ weight.T.",
    ),
    wrong=[
        (
            lambda w, x, m: float((w * m).norm() / w.norm()),
            "you measured the change of the weights. What counts is the change of the output X Wᵀ, and that depends "
            "on the inputs.",
        ),
        (
            lambda w, x, m: float((x @ (w * m).T).norm()),
            "this is the absolute change. Divide by the size of the dense output, so that layers can be compared.",
        ),
        (
            lambda w, x, m: float((x @ (w * ~m).T).norm() / (x @ w.T).norm()),
            "you inverted the mask: True marks the removed weights, and they are what changes the output.",
        ),
        (
            lambda w, x, m: output_error(w, x, m) ** 2,
            "this is the squared error. Take the square root of both sums of squares: the norm.",
        ),
        (
            lambda w, x, m: float((x @ (w * m).T).norm()) / float((x @ (w * ~m).T).norm()),
            "you divided by the size of the pruned output. Divide by the dense one: it is the same for every mask.",
        ),
        (
            lambda w, x, m: float((x @ (w * m).T).abs().sum() / (x @ w.T).abs().sum()),
            "you added up magnitudes (L1). The double bars mean the root of the sum of squares.",
        ),
        (
            lambda w, x, m: float(((x @ (w * m).T).norm(dim=0) / (x @ w.T).norm(dim=0)).mean()),
            "you took one ratio per output and averaged them. A small output then counts as much as a large one. Take "
            "one norm of the whole output above and one below.",
        ),
        (
            lambda w, x, m: float(((x @ (w * m).T).abs() / (x @ w.T).abs()).mean()),
            "you averaged the ratios of single entries, so one entry near zero dominates. Take one norm above and one "
            "below.",
        ),
    ],
    tolerance=1e-4,
)


@error.misconception(
    "you compared the sizes of the two outputs. Two vectors of the same size can point in different directions: "
    "subtract first, then take the norm."
)
def difference_of_sizes(weight, inputs, mask):
    before, after = (inputs @ weight.T).norm(), (inputs @ (weight * ~mask).T).norm()
    return float((before - after).abs() / before)


# 02.4 How far can a layer go? ------------------------------------------------------------------------------------------


def furthest(weight, inputs, tolerance):
    best = 0.0
    for tenths in range(1, 10):
        removed = weight * layer_mask(weight, tenths / 10)  # W - W'  [out, in]
        error = (inputs @ removed.T).norm() / (inputs @ weight.T).norm()
        if error > tolerance:
            break
        best = tenths / 10
    return best


def furthest_cases(generator):
    weight, inputs = normal(generator, 12, 20), normal(generator, 40, 20)
    loud = inputs * torch.linspace(0.1, 20, 20) ** 2  # a few inputs are much larger than the others
    quiet = weight * torch.linspace(1, 0.05, 20)  # small weights read the last inputs
    uneven = weight * torch.linspace(0.1, 3, 12)[:, None]  # outputs of very different sizes
    cases = [(W, X, 0.3), (weight, inputs, 0.25), (weight, inputs * 30, 0.25), (quiet, loud, 0.6)]
    return [*cases, (uneven, inputs, 0.2), (weight, loud, 0.02), (weight, inputs, 0.5), (weight, inputs, 1.5)]


def _last(weight, tolerance, error, choose=layer_mask):
    """The last of 0.1, 0.2, ... 0.9 before an error exceeds the tolerance."""
    best = 0.0
    for tenths in range(1, 10):
        if error(choose(weight, tenths / 10)) > tolerance:
            break
        best = tenths / 10
    return best


reach = Exercise(
    "02.4",
    "how far can a layer go",
    furthest,
    furthest_cases,
    hints=(
        "Exercises 02.2 and 02.3 are the two halves: a mask for each sparsity, and its error.",
        "Go up from 0.1 in steps of 0.1, remember the last sparsity whose error is at most the tolerance, and stop at "
        "the first that is not. Write the steps as tenths / 10: adding 0.1 again and again drifts.",
    ),
    wrong=[
        (
            lambda w, x, t: _last(w, t, lambda m: (w * m).norm() / w.norm()),
            "you bounded the change of the weights. The tolerance is for the output, and loud inputs make the two "
            "very different.",
        ),
        (
            lambda w, x, t: _last(w, t, lambda m: (x @ (w * m).T).norm()),
            "you bounded the absolute change of the output, so multiplying all inputs by 30 changes your answer. "
            "Divide by the dense output's norm.",
        ),
        (
            lambda w, x, t: _last(w, t, lambda m: output_error(w, x, m) ** 2),
            "you compared the squared error with the tolerance. A squared error of 0.09 is an error of 0.3.",
        ),
        (
            lambda w, x, t: _last(w, t, lambda m: output_error(w, x, m), row_mask),
            "you chose the weights row by row. This exercise asks for magnitude pruning as it is usually done: one "
            "threshold for the layer.",
        ),
        (
            lambda w, x, t: _last(w, t, lambda m: output_error(w, x, m), lambda _, s: layer_mask(w * x.norm(dim=0), s)),
            "you used the inputs to choose the weights. Notebook 03 will do that; here magnitude alone chooses, and "
            "the inputs only measure the damage.",
        ),
        (
            lambda w, x, t: round(10 * furthest(w, x, t)),
            "this is the number of steps. The sparsity is wanted, such as 0.4.",
        ),
        (
            lambda w, x, t: _last(w, t, lambda m: ((x @ (w * m).T).norm(dim=0) / (x @ w.T).norm(dim=0)).max()),
            "you applied the tolerance to the worst output. It is for the output as a whole, as in 02.3.",
        ),
        (
            lambda w, x, t: min(round(furthest(w, x, t) + 0.1, 1), 0.9),
            "you returned the first sparsity that breaks the tolerance. The last one within it is wanted.",
        ),
    ],
)


@reach.misconception(
    "you compared each step with the step before. Small steps add up: compare with the dense output each time."
)
def furthest_step_by_step(weight, inputs, tolerance):
    best, before = 0.0, weight
    for tenths in range(1, 10):
        after = weight.masked_fill(layer_mask(weight, tenths / 10), 0)
        if (inputs @ (before - after).T).norm() / (inputs @ weight.T).norm() > tolerance:
            break
        best, before = tenths / 10, after
    return best


@reach.misconception("you went on to 1.0, a layer without weights. The last step to try is 0.9.")
def furthest_to_nothing(weight, inputs, tolerance):
    best = furthest(weight, inputs, tolerance)
    return 1.0 if best == 0.9 and tolerance >= 1 else best
