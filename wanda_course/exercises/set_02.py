"""Exercises of notebook 02: magnitude pruning."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise, Misconception

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


def zeros_per_input(mask):
    return mask.float().mean(dim=0)


def zeros_counted(mask):
    return mask.float().sum(dim=1)


def kept_per_output(mask):
    return 1 - mask.float().mean(dim=1)


def zeros_of_the_layer(mask):
    return mask.float().mean()


def share_of_the_zeros(mask):
    return mask.float().sum(dim=1) / mask.sum()


def zeros_in_percent(mask):
    return 100 * mask.float().mean(dim=1)


def zeros_over_rows(mask):
    return mask.float().sum(dim=1) / mask.shape[0]


def zeros_over_the_layer(mask):
    return mask.float().sum(dim=1) / mask.numel()


def outputs_that_are_empty(mask):
    return mask.all(dim=1).float()


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


def row_mask(weight, sparsity):
    return torch.stack([layer_mask(row[None], sparsity)[0] for row in weight])


def column_mask(weight, sparsity):
    return row_mask(weight.T, sparsity).T


def rounded_down(weight, sparsity):
    return layer_mask(weight, int(sparsity * weight.numel()) / weight.numel())


def later_of_equals(weight, sparsity):
    return layer_mask(weight.flip(0, 1), sparsity).flip(0, 1)


def up_to_a_quantile(weight, sparsity):
    return weight.abs() <= torch.quantile(weight.abs(), sparsity)


def below_a_quantile(weight, sparsity):
    return weight.abs() < torch.quantile(weight.abs(), sparsity)


def signed_mask(weight, sparsity):
    return layer_mask(weight + weight.abs().max(), sparsity)


def kept_mask(weight, sparsity):
    return ~layer_mask(weight, sparsity)


def largest_mask(weight, sparsity):
    return layer_mask(1 / weight.abs(), sparsity)


def fraction_of_the_largest(weight, sparsity):
    return weight.abs() < sparsity * weight.abs().max()


def everything_up_to_the_threshold(weight, sparsity):
    count = round(sparsity * weight.numel())
    ranked = weight.abs().flatten().sort().values
    return weight.abs() <= (ranked[count - 1] if count else -1)


def everything_below_the_threshold(weight, sparsity):
    count = round(sparsity * weight.numel())
    return weight.abs() < weight.abs().flatten().sort().values[count]


def masked_weight(weight, sparsity):
    return weight.masked_fill(layer_mask(weight, sparsity), 0)


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


def weight_error(weight, inputs, mask):
    return float((weight * mask).norm() / weight.norm())


def absolute_error(weight, inputs, mask):
    return float((inputs @ (weight * mask).T).norm())


def error_of_the_kept(weight, inputs, mask):
    return float((inputs @ (weight * ~mask).T).norm() / (inputs @ weight.T).norm())


def squared_error(weight, inputs, mask):
    return output_error(weight, inputs, mask) ** 2


def difference_of_sizes(weight, inputs, mask):
    before, after = (inputs @ weight.T).norm(), (inputs @ (weight * ~mask).T).norm()
    return float((before - after).abs() / before)


def error_over_the_pruned(weight, inputs, mask):
    return absolute_error(weight, inputs, mask) / float((inputs @ (weight * ~mask).T).norm())


def error_of_absolute_sums(weight, inputs, mask):
    return float((inputs @ (weight * mask).T).abs().sum() / (inputs @ weight.T).abs().sum())


def error_of_the_mean_output(weight, inputs, mask):
    return float(((inputs @ (weight * mask).T).norm(dim=0) / (inputs @ weight.T).norm(dim=0)).mean())


def mean_of_ratios(weight, inputs, mask):
    return float(((inputs @ (weight * mask).T).abs() / (inputs @ weight.T).abs()).mean())


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


def furthest_by_weights(weight, inputs, tolerance):
    return _last(weight, tolerance, lambda mask: weight_error(weight, inputs, mask))


def furthest_absolute(weight, inputs, tolerance):
    return _last(weight, tolerance, lambda mask: absolute_error(weight, inputs, mask))


def furthest_squared(weight, inputs, tolerance):
    return _last(weight, tolerance, lambda mask: squared_error(weight, inputs, mask))


def furthest_row_wise(weight, inputs, tolerance):
    return _last(weight, tolerance, lambda mask: output_error(weight, inputs, mask), row_mask)


def furthest_with_inputs(weight, inputs, tolerance):
    score = weight * inputs.norm(dim=0)
    return _last(weight, tolerance, lambda mask: output_error(weight, inputs, mask), lambda _, s: layer_mask(score, s))


def furthest_in_tenths(weight, inputs, tolerance):
    return round(10 * furthest(weight, inputs, tolerance))


def furthest_step_by_step(weight, inputs, tolerance):
    best, before = 0.0, weight
    for tenths in range(1, 10):
        after = weight.masked_fill(layer_mask(weight, tenths / 10), 0)
        if (inputs @ (before - after).T).norm() / (inputs @ weight.T).norm() > tolerance:
            break
        best, before = tenths / 10, after
    return best


def furthest_of_the_worst_output(weight, inputs, tolerance):
    def worst(mask):
        return float(((inputs @ (weight * mask).T).norm(dim=0) / (inputs @ weight.T).norm(dim=0)).max())

    return _last(weight, tolerance, worst)


def furthest_to_nothing(weight, inputs, tolerance):
    best = furthest(weight, inputs, tolerance)
    return 1.0 if best == 0.9 and tolerance >= 1 else best


def one_step_too_far(weight, inputs, tolerance):
    return min(round(furthest(weight, inputs, tolerance) + 0.1, 1), 0.9)


def _last(weight, tolerance, error, choose=layer_mask):
    """The last of 0.1, 0.2, ... 0.9 before an error exceeds the tolerance."""
    best = 0.0
    for tenths in range(1, 10):
        if error(choose(weight, tenths / 10)) > tolerance:
            break
        best = tenths / 10
    return best


EXERCISES = [
    Exercise(
        key="02.1",
        title="how starved is each output",
        cases=zeros_per_output_cases,
        solution=zeros_per_output,
        misconceptions=[
            Misconception(
                zeros_per_input,
                "you averaged down the columns: that is the fraction each input loses. An output is a row of W; average "
                "along it.",
            ),
            Misconception(
                zeros_counted,
                "these are counts. A layer with 1,536 inputs and one with 576 can only be compared by fractions.",
            ),
            Misconception(
                kept_per_output,
                "this is the fraction of weights that stay. In our masks True means pruned.",
            ),
            Misconception(
                zeros_of_the_layer,
                "this is one number for the whole layer. The layer's sparsity is fixed beforehand; how it is shared out "
                "among the outputs is the question. One number per row is wanted.",
            ),
            Misconception(zeros_in_percent, "this is in percent; fractions between 0 and 1 are wanted."),
            Misconception(
                zeros_over_rows,
                "you divided by the number of rows. The weights of an output stand side by side in its row: divide by the "
                "number of columns.",
            ),
            Misconception(
                zeros_over_the_layer,
                "you divided by the number of weights in the layer. Divide by the number of weights the row has.",
            ),
            Misconception(
                outputs_that_are_empty,
                "you marked the outputs that lost everything. An output that lost nine in ten is starved as well: return the "
                "fraction.",
            ),
            Misconception(
                share_of_the_zeros,
                "you divided by all zeros of the layer: each row's share of the damage. Divide by the number of weights "
                "the row has.",
            ),
        ],
        hints=(
            "The mean of a row of zeros and ones is the fraction of ones in it.",
            "A bool tensor has no mean: turn the mask into float first, then average over dim=1.",
        ),
    ),
    Exercise(
        key="02.2",
        title="the layer-wise magnitude mask",
        cases=layer_mask_cases,
        solution=layer_mask,
        misconceptions=[
            Misconception(
                row_mask,
                "your mask compares weights within each row; magnitude pruning compares them across the whole layer, and "
                "some rows lose more than others.",
            ),
            Misconception(
                column_mask,
                "your mask compares the weights of one column, that is of one input; magnitude pruning compares them across "
                "the whole layer.",
            ),
            Misconception(
                rounded_down,
                "too few weights go where sparsity * size is not whole: int() cuts off, round() goes to the nearest number.",
            ),
            Misconception(
                later_of_equals,
                "right but for ties: of equal weights you removed the later ones. The earlier in reading order go first.",
            ),
            Misconception(
                up_to_a_quantile,
                "you took a quantile for a threshold. It gets the count wrong where weights are equal, and at sparsity 0, "
                "where it still removes the smallest. Rank the weights, and count.",
            ),
            Misconception(
                below_a_quantile,
                "you took a quantile for a threshold, and equal weights all stay on one side of it. Rank the weights, and count.",
            ),
            Misconception(
                signed_mask,
                "you ranked the weights with their signs, so that large negative weights go first. Magnitude is the "
                "absolute value.",
            ),
            Misconception(
                kept_mask,
                "your mask is the other way round: here True means pruned, not kept.",
            ),
            Misconception(
                largest_mask,
                "you removed the largest weights. Magnitude pruning removes the smallest.",
            ),
            Misconception(
                fraction_of_the_largest,
                "you removed weights below a fraction of the largest one. Sparsity is a fraction of the number of weights, "
                "not of their size: rank them, and count.",
            ),
            Misconception(
                everything_up_to_the_threshold,
                "right but for ties: you removed every weight equal to the threshold, which can be too many. Remove "
                "exactly round(sparsity * size), the earliest positions first.",
            ),
            Misconception(
                everything_below_the_threshold,
                "right but for ties: you kept every weight equal to the threshold, so too few go. Remove exactly "
                "round(sparsity * size), the earliest positions first.",
            ),
            Misconception(
                masked_weight,
                "you returned the pruned weights. The mask itself is wanted: a bool tensor, True where a weight goes.",
            ),
        ],
        hints=(
            "Flatten the layer into one long row, choose there, and bring the result back into shape.",
            "argsort(stable=True) of the flattened absolute values lists positions, the smallest first and ties in order; "
            "the first round(sparsity * size) of them become True.",
        ),
    ),
    Exercise(
        key="02.3",
        title="what a mask does to the output",
        cases=output_error_cases,
        solution=output_error,
        misconceptions=[
            Misconception(
                weight_error,
                "you measured how much of the weights is gone. The inputs have a say: what counts is how much of the "
                "output X Wᵀ changes.",
            ),
            Misconception(
                absolute_error,
                "this is the change itself. Divide by the size of the dense output, so that layers can be compared.",
            ),
            Misconception(
                error_of_the_kept,
                "you applied the mask the wrong way round: True marks what is removed, and the change of the output is "
                "made of the removed weights.",
            ),
            Misconception(
                squared_error,
                "this is the squared error. Take the square root of both sums of squares: the norm.",
            ),
            Misconception(
                difference_of_sizes,
                "you compared the sizes of the two outputs. Two vectors of the same size can point in different "
                "directions: take the difference first and its norm afterwards.",
            ),
            Misconception(
                error_over_the_pruned,
                "you divided by the size of the pruned output. Divide by the dense one: it is the same for every mask.",
            ),
            Misconception(
                error_of_absolute_sums,
                "you added up magnitudes (L1). The double bars mean the root of the sum of squares.",
            ),
            Misconception(
                error_of_the_mean_output,
                "you took one ratio per output and averaged them. A small output then counts as much as a large one; the "
                "question is about the output as a whole: one norm above and one below.",
            ),
            Misconception(
                mean_of_ratios,
                "you averaged the ratios of single entries; one entry near zero rules them all. Take one norm above and "
                "one below.",
            ),
        ],
        hints=(
            "The output is linear in the weights: what is missing from it is what the removed weights would have added.",
            "weight * mask holds the removed weights; compare the norm of inputs @ (weight * mask).T with that of "
            "inputs @ weight.T.",
        ),
        tolerance=1e-4,
    ),
    Exercise(
        key="02.4",
        title="how far can a layer go",
        cases=furthest_cases,
        solution=furthest,
        misconceptions=[
            Misconception(
                furthest_by_weights,
                "you bounded the change of the weights. The tolerance is for the output, and loud inputs make the two "
                "very different.",
            ),
            Misconception(
                furthest_absolute,
                "you bounded the absolute change of the output; multiplying all inputs by 30 then changes your answer. "
                "Divide by the dense output's norm.",
            ),
            Misconception(
                furthest_squared,
                "you compared the squared error with the tolerance. A squared error of 0.09 is an error of 0.3.",
            ),
            Misconception(
                furthest_row_wise,
                "you chose the weights row by row. This exercise asks for magnitude pruning as it is usually done: one "
                "threshold for the layer.",
            ),
            Misconception(
                furthest_with_inputs,
                "you chose the weights with a look at the inputs. That is where notebook 03 is going; here the size alone "
                "chooses, and the inputs only measure what it did.",
            ),
            Misconception(furthest_in_tenths, "this is the number of steps. The sparsity is wanted, such as 0.4."),
            Misconception(
                furthest_step_by_step,
                "you compared each step with the step before. Small steps add up: compare with the dense output each time.",
            ),
            Misconception(
                furthest_of_the_worst_output,
                "you held the worst output to the tolerance. The change of the output as a whole is meant, as in 02.3.",
            ),
            Misconception(
                furthest_to_nothing, "you went on to 1.0, a layer without any weight. The last step to try is 0.9."
            ),
            Misconception(
                one_step_too_far,
                "you returned the first sparsity that breaks the tolerance. The last one that keeps it is wanted.",
            ),
        ],
        hints=(
            "Exercises 02.2 and 02.3 are the two halves: a mask for each sparsity, and its error.",
            "Go up from 0.1 in steps of 0.1, remember the last sparsity whose error is at most the tolerance, and stop at "
            "the first that is not. Write the steps as tenths / 10: adding 0.1 again and again drifts.",
        ),
    ),
]
