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
            "you marked the outputs that lost everything (a quotient with // does that too). One that lost nine tenths is "
            "starved too: return the fraction.",
        ),
        (
            lambda mask: mask.float().sum(dim=1) / mask.sum(),
            "you divided by all zeros of the layer, which gives each row's share of them. Divide by the number of "
            "weights in the row.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=4,
)


# 02.b1 The smallest of each row ----------------------------------------------------------------------------------------


def smallest(rows, count):
    order = rows.argsort(dim=1, stable=True)  # [rows, n], positions, the smallest first
    return torch.zeros_like(rows, dtype=torch.bool).scatter(1, order[:, :count], True)


def tied(generator, *shape):
    """A random tensor of few different values, so that most are tied."""
    return torch.randint(-4, 5, shape, generator=generator) / 4


def smallest_cases(generator):
    equal = torch.tensor([[0.5, 0.25, 0.5, 0.25, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0]])
    cases = [(equal, 3), (W, 2), (tied(generator, 3, 60), 30), (normal(generator, 6, 6), 2)]
    return [*cases, (normal(generator, 3, 5), 0), (normal(generator, 3, 5), 5), (normal(generator, 1, 9), 4)]


def up_to_the_threshold(rows, count):
    """True up to the count-th smallest value of each row, ties and all."""
    if count == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    return rows <= rows.sort(dim=1).values[:, count - 1 : count]


few = Exercise(
    "02.b1",
    "the smallest of each row",
    smallest,
    smallest_cases,
    hints=(
        "You want positions, not values: which function lists the positions of a row in order of size?",
        "argsort(dim=1, stable=True), of which the first count columns; then zeros of dtype bool, and "
        "scatter(1, those positions, True).",
    ),
    wrong=[
        (
            up_to_the_threshold,
            "you took everything up to the threshold. Where several entries equal it, a row then has more than "
            "`count`. Take positions from an order, not values.",
        ),
        (
            lambda rows, count: rows.sort(dim=1).indices < count,
            "you compared the positions themselves with `count`. The first `count` entries of the order are the "
            "positions to mark.",
        ),
        (
            lambda rows, count: smallest(rows.flip(1), count).flip(1),
            "right except for ties: of equal entries you took the later ones. The earlier go first.",
        ),
        (
            lambda rows, count: smallest(rows, 0).scatter(1, rows.topk(count, dim=1, largest=False).indices, True),
            "right except for ties: `topk` takes any of equal entries. The earlier go first: argsort(dim=1, stable=True).",
        ),
        (
            lambda rows, count: smallest(-rows, count),
            "you marked the largest entries. The order must begin with the smallest.",
        ),
        (
            lambda rows, count: smallest(rows.abs(), count),
            "you ranked by the absolute value. This function takes its rows as they are; whoever calls it decides "
            "what a score is.",
        ),
        (
            lambda rows, count: smallest(rows.T, count).T,
            "you chose within each column. The groups here are the rows: dim=1.",
        ),
        (
            lambda rows, count: smallest(rows.reshape(1, -1), count * len(rows)).reshape(rows.shape),
            "you chose among all entries together, so some rows give more than others. Each row gives `count`.",
        ),
        (
            lambda rows, count: ~smallest(rows, count),
            "your mask is inverted: True marks the smallest.",
        ),
        (
            lambda rows, count: rows.argsort(dim=1, stable=True)[:, :count],
            "these are the positions. A mask in the shape of the rows is wanted, True at these positions.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=10,
)


@few.misconception(
    "mask[positions] = True takes the positions for rows and marks whole rows. They are places within each row: scatter(1, positions, True)."
)
def smallest_by_indexing(rows, count):
    mask = torch.zeros_like(rows, dtype=torch.bool)
    mask[rows.argsort(dim=1, stable=True)[:, :count]] = True
    return mask


# 02.b2 The magnitude mask, by layer or by row ---------------------------------------------------------------------------


def magnitude_mask(weight, sparsity, row_wise=False):
    rows = weight.abs() if row_wise else weight.abs().reshape(1, -1)  # [out, in] or [1, out * in]
    return smallest(rows, round(sparsity * rows.shape[1])).reshape(weight.shape)


def magnitude_mask_cases(generator):
    equal = torch.tensor([[0.5, -0.5, 0.5, -0.5], [0.1, 0.5, -0.5, 2.0], [3.0, -0.2, 0.5, 1.0]])
    scaled = W * torch.tensor([[1.0], [0.1], [1.0]])
    cases = [(scaled, 0.5, False), (scaled, 0.5, True), (equal, 0.5, False), (equal, 0.5, True)]
    cases += [(tied(generator, 6, 10), 0.5, False), (tied(generator, 4, 40), 0.5, True)]
    cases += [(normal(generator, 4, 7), 0.7, False), (normal(generator, 4, 7), 0.3, False)]  # 19.6: 20; 8.4: 8
    cases += [(normal(generator, 4, 7), 0.7, True), (normal(generator, 4, 7), 0.3, True)]  # 4.9: 5; 2.1: 2
    cases.append((normal(generator, 3, 5), 0.5, True))  # 2.5: 2
    return [*cases, (normal(generator, 4, 4), 0.0, False), (normal(generator, 5, 5), 0.4, True)]


def by_quantile(weight, sparsity, row_wise, strict=False):
    """True where the size does not exceed a quantile of the layer's or the row's."""
    size = weight.abs()
    limit = size.quantile(sparsity, dim=1, keepdim=True) if row_wise else size.quantile(sparsity)
    return size < limit if strict else size <= limit


def magnitude_up_to_the_threshold(weight, sparsity, row_wise):
    rows = weight.abs() if row_wise else weight.abs().reshape(1, -1)
    return up_to_the_threshold(rows, round(sparsity * rows.shape[1])).reshape(weight.shape)


magnitude = Exercise(
    "02.b2",
    "the magnitude mask, by layer or by row",
    magnitude_mask,
    magnitude_mask_cases,
    hints=(
        "`smallest` works on rows. What shape must the layer have so that all its weights stand in one row?",
        "reshape(1, -1) for the layer, the weight as it is for rows; the count is round(sparsity * length of a row); "
        "reshape the mask to weight.shape.",
    ),
    wrong=[
        (
            lambda w, s, r: magnitude_mask(w, s, True),
            "your mask compares weights within each row, whatever `row_wise` says. False asks for one order of all "
            "weights of the layer.",
        ),
        (
            lambda w, s, r: magnitude_mask(w, s, False),
            "your mask compares all weights of the layer, whatever `row_wise` says. True asks for an order within "
            "each row.",
        ),
        (
            lambda w, s, r: magnitude_mask(w, s, not r),
            "the two groupings are swapped: row_wise=True compares within each row.",
        ),
        (
            lambda w, s, r: magnitude_mask(w.T, s, r).T,
            "you turned the weight round, so a column is what you compare. An output is a row of the weight; its "
            "weights stand in one row, and the earlier of equal weights is the earlier in reading order.",
        ),
        (
            lambda w, s, r: magnitude_mask(
                w, int(s * w.numel() / (len(w) if r else 1)) / w.numel() * (len(w) if r else 1), r
            ),
            "you prune too few weights where sparsity * size is not whole: int() truncates, round() gives the nearest "
            "number.",
        ),
        (
            lambda w, s, r: magnitude_mask(w.flip(0, 1), s, r).flip(0, 1),
            "right except for ties: of equal weights you removed the later ones. Remove the earlier ones, in reading "
            "order.",
        ),
        (
            lambda w, s, r: (
                magnitude_mask(w, int(s * w[0].numel() + 0.5) / w[0].numel(), True)
                if r
                else magnitude_mask(w, int(s * w.numel() + 0.5) / w.numel(), False)
            ),
            "you prune one weight too many where sparsity * size ends in a half: you rounded it up. Python's round() "
            "takes the even neighbour, 2.5 to 2.",
        ),
        (
            magnitude_up_to_the_threshold,
            "right except for ties: you removed every weight equal to the threshold, which can be too many. Remove "
            "exactly the count, the earliest positions first.",
        ),
        (
            by_quantile,
            "you used a quantile as the threshold. The count is then wrong where weights are equal, and at sparsity "
            "0, where the smallest is still removed. Rank the weights, and count.",
        ),
        (
            lambda w, s, r: by_quantile(w, s, r, strict=True),
            "you used a quantile as the threshold, and equal weights all fall on one side of it. Rank the weights, "
            "and count.",
        ),
        (
            lambda w, s, r: magnitude_mask(w + w.abs().max(), s, r),
            "you ranked the weights with their signs, so large negative weights are removed first. Magnitude is the "
            "absolute value.",
        ),
        (lambda w, s, r: ~magnitude_mask(w, s, r), "your mask is inverted: True means pruned, not kept."),
        (
            lambda w, s, r: magnitude_mask(1 / w.abs(), s, r),
            "you removed the largest weights. Magnitude pruning removes the smallest.",
        ),
        (
            lambda w, s, r: w.abs() < s * (w.abs().amax(dim=1, keepdim=True) if r else w.abs().max()),
            "you removed weights below a fraction of the largest one. Sparsity is a fraction of the number of "
            "weights, not of their size: rank them, and count.",
        ),
        (
            lambda w, s, r: w.masked_fill(magnitude_mask(w, s, r), 0),
            "you returned the pruned weights. The mask itself is wanted: a bool tensor, True where a weight is pruned.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=8,
)


# 02.2 One threshold for the whole model --------------------------------------------------------------------------------


def model_masks(weights, sparsity):
    sizes = torch.cat([weight.abs().flatten() for weight in weights])  # [all weights]
    order = sizes.argsort(stable=True)  # positions, the smallest first
    chosen = torch.zeros(len(sizes), dtype=torch.bool)
    chosen[order[: round(sparsity * len(sizes))]] = True
    parts = chosen.split([weight.numel() for weight in weights])
    return [part.reshape(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def model_masks_cases(generator):
    small = W[1:] / 10  # a layer in smaller units
    pair = [tied(generator, 5, 6), tied(generator, 7, 6)]
    shapes = [normal(generator, 4, 6), 3 * normal(generator, 2, 4), normal(generator, 5, 4)]
    ragged = [normal(generator, 3, 7), 0.3 * normal(generator, 2, 4)]  # 29 weights: 8.7, 20.3
    equal = [torch.ones(2, 3), -torch.ones(3, 2)]  # 12 weights: 3.6
    return [
        ([W, small], 0.5),
        (pair, 0.5),
        (equal, 0.3),
        (shapes, 0.3),
        (ragged, 0.3),
        (ragged, 0.7),
        (shapes, 0.0),
        ([W], 0.5),
        ([normal(generator, 3, 3), normal(generator, 2, 2)], 0.5),  # 13 weights: 6.5, and 6 is even
    ]


def split_like(flat, weights):
    """Cut a long vector into the shapes of the weights."""
    parts = flat.split([weight.numel() for weight in weights])
    return [part.reshape(weight.shape) for part, weight in zip(parts, weights, strict=True)]


whole = Exercise(
    "02.2",
    "one threshold for the whole model",
    model_masks,
    model_masks_cases,
    hints=(
        "Layer-wise became row-wise by another shape. What shape lets the weights of all layers compete?",
        "torch.cat of the flattened absolute values; argsort(stable=True); mark the first round(sparsity * all); then "
        "split into the sizes of the layers, and reshape each part.",
    ),
    wrong=[
        (
            lambda weights, s: [magnitude_mask(weight, s, False) for weight in weights],
            "each of your layers gives up the same share. With one threshold for the model, layers with small weights "
            "give more.",
        ),
        (
            lambda weights, s: [magnitude_mask(weight, s, True) for weight in weights],
            "you compare within each row of each layer. Here all weights of all layers compete.",
        ),
        (
            lambda weights, s: model_masks(
                weights, int(s * sum(w.numel() for w in weights)) / sum(w.numel() for w in weights)
            ),
            "you prune too few weights where sparsity * all is not whole: int() truncates, round() gives the nearest "
            "number.",
        ),
        (
            lambda weights, s: [
                mask.flip(0, 1) for mask in model_masks([w.flip(0, 1) for w in weights[::-1]], s)[::-1]
            ],
            "right except for ties: of equal weights you removed the later ones. The earlier layer goes first, and "
            "within it the earlier position.",
        ),
        (
            lambda weights, s: [mask.T for mask in model_masks([weight.T for weight in weights], s)],
            "right except for ties: within a layer you went down the columns. Of equal weights the earlier in reading "
            "order goes first.",
        ),
        (
            lambda weights, s: [~mask for mask in model_masks(weights, s)],
            "your masks are inverted: True means pruned, not kept.",
        ),
        (
            lambda weights, s: model_masks(weights, 1 - s),
            "you kept the fraction `sparsity` and removed the rest. Sparsity is the fraction that is removed.",
        ),
        (
            lambda weights, s: model_masks([1 / weight.abs() for weight in weights], s),
            "you removed the largest weights. Magnitude pruning removes the smallest.",
        ),
        (
            lambda weights, s: model_masks([weight / weight.abs().mean() for weight in weights], s),
            "you scaled each layer before comparing. That may be a better idea than the one asked for, but here the "
            "sizes compete as they are.",
        ),
        (
            lambda weights, s: model_masks([weight + 100 for weight in weights], s),
            "you ranked the weights with their signs, so large negative weights are removed first. Magnitude is the "
            "absolute value.",
        ),
        (
            lambda weights, s: [w.masked_fill(m, 0) for w, m in zip(weights, model_masks(weights, s), strict=True)],
            "you returned the pruned weights. The masks are wanted: bool tensors, True where a weight is pruned.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=15,
)


@whole.misconception(
    "you prune one weight too many where sparsity * all ends in a half: you rounded it up. Python's round() takes the even neighbour, 6.5 to 6."
)
def model_rounded_up(weights, sparsity):
    total = sum(weight.numel() for weight in weights)
    return model_masks(weights, int(sparsity * total + 0.5) / total)


@whole.misconception(
    "right except for ties: `topk` takes any of equal weights. The earlier go first: argsort(dim=1, stable=True)."
)
def model_masks_by_topk(weights, sparsity):
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    chosen = torch.zeros(len(sizes), dtype=torch.bool)
    chosen[sizes.topk(round(sparsity * len(sizes)), largest=False).indices] = True
    return split_like(chosen, weights)


@whole.misconception(
    "right except for ties: you removed every weight equal to the threshold, which can be too many. Remove exactly the "
    "count, the earliest positions first."
)
def model_masks_up_to_the_threshold(weights, sparsity):
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    return split_like(up_to_the_threshold(sizes[None], round(sparsity * len(sizes)))[0], weights)


@whole.misconception(
    "you used a quantile as the threshold. The count is then wrong where weights are equal, and at sparsity 0, where the "
    "smallest is still removed. Rank the weights, and count."
)
def model_masks_by_quantile(weights, sparsity):
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    return [weight.abs() <= sizes.quantile(sparsity) for weight in weights]


# 02.3 What a mask does to the output -----------------------------------------------------------------------------------


def output_error(weight, inputs, mask):
    removed = weight * mask  # W - W'  [out, in]
    return float((inputs @ removed.T).norm() / (inputs @ weight.T).norm())


def output_error_cases(generator):
    cases = [(W, X, magnitude_mask(W, 0.5)), (W, X, magnitude_mask(W, 0.5, True))]
    for tokens, outputs, width in ((5, 4, 6), (6, 6, 6)):
        weight, inputs = normal(generator, outputs, width), normal(generator, tokens, width)
        cases.append((weight, inputs, half(generator, outputs, width)))
    loud = normal(generator, 5, 6) * torch.tensor([[0.1], [1.0], [20.0], [1.0], [1.0]])  # one token is loud
    cases.append((normal(generator, 4, 6), loud, half(generator, 4, 6)))
    return [*cases, (W, X, torch.zeros_like(W, dtype=torch.bool)), (W, X, torch.ones_like(W, dtype=torch.bool))]


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
        (
            lambda w, x, m: float(((x @ (w * m).T).norm(dim=1) / (x @ w.T).norm(dim=1)).mean()),
            "you took one ratio per token and averaged them. A token with a small output then counts as much as one "
            "with a large output. Take one norm over all tokens and outputs above, and one below.",
        ),
        (
            lambda w, x, m: float((x @ (w * m).T).norm(dim=1).mean() / (x @ w.T).norm(dim=1).mean()),
            "you averaged the norms of the tokens before dividing. Norms do not add up, their squares do: take one norm "
            "over all tokens and outputs.",
        ),
        (
            lambda w, x, m: float((x @ (w * m).T).norm(dim=0).mean() / (x @ w.T).norm(dim=0).mean()),
            "you averaged the norms of the outputs before dividing. Norms do not add up, their squares do: take one "
            "norm over all tokens and outputs.",
        ),
        (
            lambda w, x, m: float(torch.linalg.matrix_norm(x @ (w * m).T, 2) / torch.linalg.matrix_norm(x @ w.T, 2)),
            "you took the spectral norm, the largest singular value. The double bars mean the root of the sum of all "
            "squares (Frobenius).",
        ),
        (
            lambda w, x, m: float((x @ (w * m).T).abs().max() / (x @ w.T).abs().max()),
            "you compared the largest entries. The double bars mean the root of the sum of all squares.",
        ),
    ],
    tolerance=1e-4,
    difficulty=1,
    importance=3,
    minutes=6,
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
        removed = weight * magnitude_mask(weight, tenths / 10)  # W - W'  [out, in]
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
    cases += [(uneven, inputs, 0.2), (weight, loud, 0.02), (weight, inputs, 0.5), (weight, inputs, 1.5)]
    # The two smallest weights read equal inputs and nearly cancel: without one the output changes, without both hardly.
    ladder = torch.tensor([[0.1, -0.11, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4]])
    twins = torch.eye(10) * torch.tensor([20.0, 0.0, *[1.0] * 8])
    twins[0, 1] = 20.0
    equal = torch.ones(1, 4)  # without one of the four, the error is exactly a half
    return [*cases, (ladder, twins, 0.2), (equal, torch.eye(4), 0.5)]


def _last(weight, tolerance, error, choose=magnitude_mask):
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
            lambda w, x, t: _last(w, t, lambda m: output_error(w, x, m), lambda w, s: magnitude_mask(w, s, True)),
            "you chose the weights row by row. This exercise asks for magnitude pruning as it is usually done: one "
            "threshold for the layer.",
        ),
        (
            lambda w, x, t: _last(
                w, t, lambda m: output_error(w, x, m), lambda _, s: magnitude_mask(w * x.norm(dim=0), s)
            ),
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
        (
            lambda w, x, t: max(
                (n / 10 for n in range(10) if output_error(w, x, magnitude_mask(w, n / 10)) <= t), default=0.0
            ),
            "you took the largest sparsity within the tolerance, wherever it is. An error can fall again when two "
            "removals cancel: stop at the first step that exceeds the tolerance.",
        ),
        (
            lambda w, x, t: furthest(w, x, t - 1e-6),
            "you stopped where the error equals the tolerance. It has to exceed it.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=15,
)


@reach.misconception(
    "you compared each step with the step before. Small steps add up: compare with the dense output each time."
)
def furthest_step_by_step(weight, inputs, tolerance):
    best, before = 0.0, weight
    for tenths in range(1, 10):
        after = weight.masked_fill(magnitude_mask(weight, tenths / 10), 0)
        if (inputs @ (before - after).T).norm() / (inputs @ weight.T).norm() > tolerance:
            break
        best, before = tenths / 10, after
    return best


@reach.misconception("you went on to 1.0, a layer without weights. The last step to try is 0.9.")
def furthest_to_nothing(weight, inputs, tolerance):
    best = furthest(weight, inputs, tolerance)
    return 1.0 if best == 0.9 and tolerance >= 1 else best
