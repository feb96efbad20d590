"""Exercises of notebook 11: a metric of one's own."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


# 11.1 Ahead, or lucky? -------------------------------------------------------------------------------------------------


def paired(ours, baseline):
    ratios = ours / baseline  # [seeds], each pair under the same conditions
    return ratios.log().mean().exp(), (ratios < 1).sum()


def paired_cases(generator):
    baseline = torch.tensor([40.0, 50.0, 80.0])
    random = 50 * (0.2 * normal(generator, 6)).exp()
    return [
        (torch.tensor([38.0, 49.0, 88.0]), baseline),
        (torch.tensor([45.0, 38.0, 82.0]), baseline),
        (torch.tensor([70.0, 71.0, 72.0]), torch.tensor([100.0, 60.0, 90.0])),
        (random * (0.05 * normal(generator, 6)).exp(), random),
        (torch.tensor([40.0, 45.0]), torch.tensor([40.0, 50.0])),  # a tie is no win
        (torch.tensor([41.0]), torch.tensor([40.0])),
        (torch.tensor([99.9, 50.0]), torch.tensor([100.0, 51.0])),  # a narrow win is a win
        (torch.full((30,), 90.0), torch.full((30,), 100.0)),  # many seeds: the product of the perplexities overflows
    ]


ahead = Exercise(
    "11.1",
    "ahead, or lucky",
    paired,
    paired_cases,
    hints=(
        "Divide pair by pair first. Which mean treats twice as good and half as good as opposites?",
        "ratios = ours / baseline; the geometric mean is ratios.log().mean().exp(), the wins are (ratios < 1).sum().",
    ),
    wrong=[
        (
            lambda ours, baseline: (ours.mean() / baseline.mean(), (ours < baseline).sum()),
            "you divided the means. A seed with a large perplexity then counts for more than the others. Divide pair "
            "by pair, then take the mean.",
        ),
        (
            lambda ours, baseline: ((ours / baseline).mean(), (ours < baseline).sum()),
            "you averaged the ratios themselves. Twice as good and half as good then average to 1.25, not to 1: take "
            "the mean of the logarithms.",
        ),
        (
            lambda ours, baseline: (ours.min() / baseline.min(), (ours < baseline).sum()),
            "you compared the best runs. The best of several seeds is luck; every seed has to count.",
        ),
        (
            lambda ours, baseline: paired(ours.sort().values, baseline.sort().values),
            "you sorted both first, which breaks the pairs. With the same seed both entries saw the same windows, and "
            "only that makes small differences visible.",
        ),
        (
            lambda ours, baseline: (paired(ours, baseline)[0], (ours < baseline.mean()).sum()),
            "you counted the runs that are better than the baseline's mean. Compare each run with the one of the same "
            "seed.",
        ),
        (
            lambda ours, baseline: (1 / paired(ours, baseline)[0], (ours < baseline).sum()),
            "the ratio is upside down: ours over the baseline, so that below 1 is better.",
        ),
        (
            lambda ours, baseline: ((ours - baseline).mean(), (ours < baseline).sum()),
            "this is a mean difference. In a ratio, a text that is hard for all does not count more.",
        ),
        (
            lambda ours, baseline: ((ours / baseline).log().mean(), (ours < baseline).sum()),
            "this is the mean of the logarithms, where a tie is 0. Take the exponential to get back to a ratio.",
        ),
        (
            lambda ours, baseline: (paired(ours, baseline)[0], (ours > baseline).sum()),
            "you counted the pairs that were lost. Lower perplexity is better.",
        ),
        (
            lambda ours, baseline: (paired(ours, baseline)[0], (ours <= baseline).sum()),
            "you counted a tie as a win. A pair is won if our perplexity is lower than the baseline's.",
        ),
        (
            lambda ours, baseline: ((ours / baseline).median(), (ours < baseline).sum()),
            "you took the median of the ratios. The geometric mean uses every pair: the exponential of the mean "
            "logarithm.",
        ),
        (
            lambda ours, baseline: (paired(ours, baseline)[0], (ours < baseline).double().mean()),
            "you returned the share of the seeds that are won; their number is wanted.",
        ),
        (
            lambda ours, baseline: (
                ours.prod() ** (1 / len(ours)) / baseline.prod() ** (1 / len(ours)),
                (ours < baseline).sum(),
            ),
            "right, but not for many seeds: a product of perplexities soon overflows. Take the mean of the logarithms.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=6,
)


# 11.2 Inputs that hardly anybody reads any more ------------------------------------------------------------------------


def orphans(mask, share):
    return int((mask.float().mean(dim=0) >= share).sum())  # [out, in] -> [in] -> a number


def orphans_cases(generator):
    toy = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1, 1]]).bool()  # columns lose 1, 3, 2 and 4
    wide = torch.rand(8, 24, generator=generator) < torch.linspace(0.1, 1, 24)
    none = torch.zeros(3, 5, dtype=torch.bool)
    one = torch.tensor([[True], [True], [False]])  # a single input that has lost two thirds
    nine = torch.tensor([[True]] * 9 + [[False]])  # nine of ten: in floats 1 - 0.9 is less than 0.1
    return [
        (toy, 1.0),
        (toy, 0.75),
        (toy, 0.5),
        (wide, 0.75),
        (wide.T.contiguous(), 0.625),
        (none, 0.5),
        (one, 0.7),
        (one, 0.9),
        (nine, 0.9),
    ]


orphaned = Exercise(
    "11.2",
    "inputs that lose their readers",
    orphans,
    orphans_cases,
    hints=(
        "For each column of the mask: which fraction of it is True?",
        "mask.float().mean(dim=0) has shape [in]; compare it with the share, and add up.",
    ),
    wrong=[
        (
            lambda mask, share: orphans(mask.T, share),
            "you counted outputs. A row of the mask is an output, a column an input: average over the rows (dim=0).",
        ),
        (
            lambda mask, share: orphans(~mask, share),
            "you counted inputs that keep their weights. True in the mask means pruned.",
        ),
        (
            lambda mask, share: int((mask.float().mean(dim=0) > share).sum()),
            "you left out the inputs that lost exactly the share. At least means greater or equal.",
        ),
        (
            lambda mask, share: orphans(mask, share) / mask.shape[1],
            "this is a fraction of the inputs; their number is wanted.",
        ),
        (
            lambda mask, share: int(mask.sum()),
            "you counted pruned weights. An input counts once, however many it lost.",
        ),
        (
            lambda mask, share: orphans(mask, 1.0),
            "you counted only inputs with no weights left; the given share is not used.",
        ),
        (
            lambda mask, share: int((mask.sum(dim=0) >= int(share * mask.shape[0])).sum()),
            "you rounded the share down to a number of weights, so inputs count that have lost less than the share. "
            "Compare fractions.",
        ),
        (
            lambda mask, share: int((mask.sum(dim=0) >= round(share * mask.shape[0])).sum()),
            "you rounded the share to the nearest number of weights. Where that is down, inputs count that have lost "
            "less than the share. Compare fractions.",
        ),
        (
            lambda mask, share: orphans(mask, 0.9),
            "you compare with 0.9, whatever share is given.",
        ),
        (
            lambda mask, share: int(((~mask).double().mean(dim=0) <= 1 - share).sum()),
            "you compared what is kept with 1 - share, which rounding makes a little too small here: 1 - 0.9 is less "
            "than 0.1. Compare what is pruned with the share itself.",
        ),
        (
            lambda mask, share: int((mask.sum(dim=0) >= share).sum()),
            "you compared a number of weights with a share. Divide by the number of outputs, or take the mean.",
        ),
        (
            lambda mask, share: mask.float().mean(dim=0) >= share,
            "you marked the inputs; how many there are is wanted. Add them up.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=4,
)


# 11.3 From shares of outliers to sparsities ----------------------------------------------------------------------------


def weighed_sparsities(shares, sizes, target, spread):
    stretched = (shares - shares.min()) / (shares.max() - shares.min())  # [blocks], 0 to 1
    kept = 2 * spread * stretched.nan_to_num()  # [blocks]; all alike: 0 / 0, so no difference
    mean = (kept * sizes).sum() / sizes.sum()
    return target - (kept - mean)  # [blocks], their mean weighted by size is the target


def weighed_cases(generator):
    toy = torch.tensor([0.02, 0.05, 0.03, 0.02]), torch.tensor([100.0, 100.0, 300.0, 100.0])
    random = torch.rand(6, generator=generator), 10 + torch.rand(6, generator=generator) * 90
    alike = torch.full((3,), 0.02), torch.tensor([10.0, 20.0, 30.0])  # no difference: the target for all
    small = torch.tensor([1e-4, 3e-4]), torch.tensor([1.0, 3.0])  # small shares are not yet alike
    return [(*toy, 0.6, 0.08), (*toy, 0.7, 0.04), (*random, 0.6, 0.1), (*alike, 0.5, 0.08), (*small, 0.5, 0.08)]


def stretched(shares, spread):
    """From 0 to 2 * spread [blocks]."""
    return 2 * spread * ((shares - shares.min()) / (shares.max() - shares.min())).nan_to_num()


owl = Exercise(
    "11.3",
    "from shares of outliers to sparsities",
    weighed_sparsities,
    weighed_cases,
    hints=(
        "Three steps: stretch the shares to run from 0 to 2 · spread, subtract their mean, and take that from the "
        "target.",
        "kept = 2 * spread * (shares - shares.min()) / (shares.max() - shares.min()), with nan_to_num() for 0 / 0; the "
        "mean is (kept * sizes).sum() / sizes.sum().",
    ),
    wrong=[
        (
            lambda shares, sizes, target, spread: 2 * target - weighed_sparsities(shares, sizes, target, spread),
            "the blocks with the most outliers lose the most weights. They should lose the fewest.",
        ),
        (
            lambda shares, sizes, target, spread: weighed_sparsities(shares, torch.ones_like(sizes), target, spread),
            "your sparsities have the right plain mean, but blocks differ in size: the mean must be weighted by it, "
            "or the model as a whole misses the target.",
        ),
        (
            lambda shares, sizes, target, spread: weighed_sparsities(shares, sizes, target, spread / 2),
            "the interval is half as wide as it should be: from one end to the other it is 2 · spread.",
        ),
        (
            lambda *given: 1 - weighed_sparsities(*given),
            "these are the fractions that are kept; sparsity is the fraction that is pruned.",
        ),
        (
            lambda shares, sizes, target, spread: target + spread - stretched(shares, spread),
            "you put the middle of the interval at the target. Then the mean depends on how the shares are "
            "distributed, and the model misses the target. Subtract the mean.",
        ),
        (
            lambda shares, sizes, target, spread: target - stretched(shares, spread),
            "no block is above the target, so the model as a whole is below it: subtract the mean before you add the "
            "target.",
        ),
        (
            lambda shares, sizes, target, spread: target - (shares - (shares * sizes).sum() / sizes.sum()),
            "you used the shares as they are, without the spread. Stretch them first, so that they run from 0 to 2 · "
            "spread.",
        ),
        (
            lambda shares, sizes, target, spread: weighed_sparsities(
                shares, torch.where(shares.max() > shares.min(), sizes, torch.nan), target, spread
            ),
            "right, but where all shares are alike you get NaN from 0 / 0. Then there is no difference to stretch, and "
            "every block gets the target.",
        ),
        (
            lambda shares, sizes, target, spread: (
                torch.full_like(shares, target)
                if shares.max() - shares.min() < 1e-3
                else weighed_sparsities(shares, sizes, target, spread)
            ),
            "you treat small differences as none. Shares are small numbers: only if all are equal does every block "
            "get the target.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=10,
)


@owl.misconception("a mean weighted by size is divided by the sum of the sizes, not by the number of blocks.")
def owl_not_divided(shares, sizes, target, spread):
    kept = stretched(shares, spread)
    return target - (kept - (kept * sizes).mean())


# 11.4 One step of grow and prune ---------------------------------------------------------------------------------------


def refine(weight, mask, mean, variance, norm):
    parts = weight * mean  # [out, in], what each weight adds to the expected output
    error = (parts * mask).sum(dim=1)  # [out], what the expected output has lost
    towards = error.sign()[:, None] * parts  # [out, in], positive where a return makes the error smaller
    worth = (towards / variance).masked_fill(~mask | (towards <= 0), -torch.inf)  # [out, in], -inf: must not return
    grown = worth.argmax(dim=1, keepdim=True)  # [out, 1]
    cost = (weight.abs() * norm).masked_fill(mask | (towards >= 0), torch.inf)  # [out, in], inf: must not go
    gone = cost.argmin(dim=1, keepdim=True)  # [out, 1]
    after = error - parts.gather(1, grown)[:, 0] + parts.gather(1, gone)[:, 0]  # [out]
    possible = cost.gather(1, gone)[:, 0] < torch.inf
    better = (possible & (after.abs() < error.abs()))[:, None]  # [out, 1]
    return torch.where(better, mask.scatter(1, grown, False).scatter(1, gone, True), mask)


def refine_cases(generator):
    weight = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
    mask = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]]).bool()
    toy = weight, mask, torch.tensor([0.5, -0.4, -0.2, 0.3]), torch.tensor([0.5, 0.25, 4.0, 0.1])
    norms = torch.tensor([1.0, 2.0, 8.0, 0.5])
    bare = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()  # nothing to grow; nothing to prune
    cases = [(*toy, norms), (weight, bare, *toy[2:], norms)]  # the first row changes, the others do not

    def row(weight, mask, mean, variance=(1.0, 1.0, 1.0)):
        return torch.tensor([weight]), torch.tensor([mask]), *map(torch.tensor, (mean, variance)), torch.ones(len(mean))

    cases += [
        row([1.0, -1.0], [True, False], [1.0, 1.0], (1.0, 1.0)),  # |error| would stay as large: no change
        row([1.0, 0.1, -0.5], [True, False, False], [1.0, 0.0, 1.0]),  # a kept weight with part 0 must not go
        row([1.0, 0.9, -0.5], [True, True, False], [1.0, 1.0, 1.0], (0.011, 0.009, 1.0)),  # variances may be small
    ]
    for outputs, width in ((8, 6), (12, 16), (10, 16)):
        weight, mean = normal(generator, outputs, width), normal(generator, width)
        variance = 0.1 + 2 * torch.rand(width, generator=generator)
        norm = (20 * (variance + mean.square())).sqrt()
        order = (weight.abs() * norm).argsort(dim=1)
        mask = torch.zeros_like(weight, dtype=torch.bool).scatter(1, order[:, : width // 2], True)
        cases.append((weight, mask, mean, variance, norm))
    dead = row([1.0, 0.5, -0.3], [True, True, False], [1.0, 0.0, 1.0], (1.0, 0.0, 1.0))  # 0 / 0 must not win
    return [*cases, dead]


def _refined(
    weight,
    mask,
    mean,
    variance,
    norm,
    lost=lambda parts, mask: parts * mask,
    growable=lambda towards: towards > 0,
    grow=lambda parts, towards, variance: towards / variance,
    prunable=lambda towards: towards < 0,
    cost=lambda score: score,
    accept=lambda after, error, possible: possible & (after.abs() < error.abs()),
    prune=True,
):
    """`refine` with one of its parts replaced."""
    parts = weight * mean
    error = lost(parts, mask).sum(dim=1)
    towards = error.sign()[:, None] * parts
    worth = grow(parts, towards, variance).masked_fill(~mask | ~growable(towards), -torch.inf)
    grown = worth.argmax(dim=1, keepdim=True)
    price = cost(weight.abs() * norm).masked_fill(mask | ~prunable(towards), torch.inf)
    gone = price.argmin(dim=1, keepdim=True)
    after = error - parts.gather(1, grown)[:, 0] + (parts.gather(1, gone)[:, 0] if prune else 0)
    better = accept(after, error, price.gather(1, gone)[:, 0] < torch.inf if prune else True)
    changed = mask.scatter(1, grown, False)
    return torch.where(better[:, None], changed.scatter(1, gone, True) if prune else changed, mask)


growing = Exercise(
    "11.4",
    "one step of grow and prune",
    refine,
    refine_cases,
    hints=(
        "Write parts = weight * mean, and the error as the sum of the pruned parts. Multiply the parts by the sign of "
        "the error: positive ones help when they come back, negative ones when they go.",
        "Grow: (towards / variance) with -inf where kept or where towards <= 0, argmax. Prune: |weight| · norm with "
        "inf where pruned or where towards >= 0, argmin. Swap both only where the new |error| is smaller and "
        "something could be pruned.",
    ),
    wrong=[
        (
            lambda *given: _refined(
                *given,
                growable=lambda towards: towards != 0,
                grow=lambda parts, towards, variance: parts.abs() / variance,
            ),
            "you brought back the weight with the largest part, whatever its sign. If its sign is opposite to the "
            "error's, bringing it back makes the error larger.",
        ),
        (
            lambda *given: _refined(*given, grow=lambda parts, towards, variance: parts / variance),
            "you took the largest part, sign included. Where the error is negative, so are the parts that help, and "
            "the largest of them is the one nearest to 0: compare sizes.",
        ),
        (
            lambda *given: _refined(*given, growable=lambda towards: towards < torch.inf),
            "right, but for a feature that is always 0: its part and its variance are 0, and argmax takes 0 / 0, "
            "which is NaN, for the largest. Only a part with the sign of the error may come back: towards > 0.",
        ),
        (
            lambda *given: _refined(*given, grow=lambda parts, towards, variance: towards),
            "the variance is not used: a part that is large on average may vary from token to token. Divide by the "
            "variance before you choose what grows.",
        ),
        (
            lambda *given: _refined(*given, prunable=lambda towards: towards < torch.inf),
            "you pruned the smallest score of all kept weights. Choose only among those whose removal makes the error "
            "smaller: their parts have the opposite sign.",
        ),
        (
            lambda *given: _refined(*given, cost=lambda score: -score),
            "you pruned the kept weight with the largest score. Prune the one with the smallest.",
        ),
        (
            lambda *given: _refined(
                *given, prunable=lambda towards: towards > 0, accept=lambda after, error, possible: after < torch.inf
            ),
            "you pruned a weight whose part has the sign of the error. Without it the output loses even more: prune "
            "one of the opposite sign.",
        ),
        (lambda weight, mask, *rest: mask, "this is the mask you were given: no row has changed."),
        (
            lambda *given: _refined(*given, lost=lambda parts, mask: parts * ~mask),
            "your error sums the parts of the kept weights. What the output has lost is the sum over the pruned ones.",
        ),
        (
            lambda *given: _refined(*given, accept=lambda after, error, possible: after < torch.inf),
            "you changed every row. A row whose |error| would not become smaller stays as it is.",
        ),
        (
            lambda *given: _refined(*given, accept=lambda after, error, possible: possible),
            "you changed every row that has something to grow and something to prune. It stays as it is if its "
            "|error| would not become smaller.",
        ),
        (
            lambda *given: _refined(
                *given, accept=lambda after, error, possible: possible & (after.abs() <= error.abs())
            ),
            "you changed a row whose |error| stays as large as it was. It has to become smaller: <, not <=.",
        ),
        (
            lambda *given: _refined(*given, prunable=lambda towards: towards <= 0),
            "you pruned a kept weight whose part is 0. That does not make the error smaller: only a part of the "
            "opposite sign does.",
        ),
        (
            lambda *given: _refined(*given, prune=False),
            "your rows keep one weight more than before. For each weight that comes back, prune another.",
        ),
        (
            lambda weight, mask, *rest: ~refine(weight, ~mask, *rest),
            "you inverted the mask. True means pruned, here as everywhere.",
        ),
        (
            lambda *given: _refined(*given, grow=lambda parts, towards, variance: towards * variance),
            "you multiplied by the variance, which prefers restless features. Divide: a steady feature is the safe bet.",
        ),
        (
            lambda *given: _refined(*given, grow=lambda parts, towards, variance: towards / variance.sqrt()),
            "you divided by the standard deviation. The variance itself is asked for.",
        ),
        (
            lambda *given: _refined(
                *given,
                growable=lambda towards: towards < 0,
                grow=lambda parts, towards, variance: -towards / variance,
            ),
            "you brought back a weight whose part has the opposite sign of the error, which makes it larger.",
        ),
        (
            lambda weight, mask, mean, variance, norm: _refined(weight, mask, mean, variance, torch.ones_like(norm)),
            "you pruned the smallest weight. The smallest Wanda score is asked for: |weight| times the norm of its input.",
        ),
        (
            lambda weight, mask, mean, variance, norm: _refined(
                weight, mask, mean, variance, norm, cost=lambda score: (weight * mean).abs()
            ),
            "you pruned the weight with the smallest part. The part only tells which weights may go, by its sign; among "
            "them the smallest Wanda score goes.",
        ),
        (
            lambda *given: _refined(*given, lost=lambda parts, mask: parts.abs() * mask),
            "you added up the sizes of the lost parts. They have signs and cancel in part: sum the parts themselves.",
        ),
        (
            lambda weight, mask, mean, variance, norm: refine(weight, mask, norm, variance, norm),
            "you used the norm where the mean belongs. A norm has no sign, so parts would never cancel over the tokens.",
        ),
    ],
    difficulty=3,
    importance=1,
    minutes=30,
)


@growing.misconception(
    "you repeated the step until no row changes. One step is asked for: at most one weight of each row comes back."
)
def until_it_stands(weight, mask, *rest):
    while not torch.equal(new := refine(weight, mask, *rest), mask):
        mask = new
    return mask


@growing.misconception(
    "you traded in one row only, the one with the largest error. Every row whose |error| gets smaller changes."
)
def one_row_only(weight, mask, mean, *rest):
    row = (weight * mean * mask).sum(dim=1).abs().argmax()
    new = mask.clone()
    new[row] = refine(weight, mask, mean, *rest)[row]
    return new


# 11.b1 A score from its formula -----------------------------------------------------------------------------------------


def ria_score(weight, input_norm, power=0.5):
    size = weight.abs()  # [out, in]
    of_row = size / size.sum(dim=1, keepdim=True)  # [out, in] / [out, 1]: rows sum to 1
    of_column = size / size.sum(dim=0)  # [out, in] / [in]: columns sum to 1
    return (of_row + of_column) * input_norm**power


def ria_cases(generator):
    toy = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
    norms = torch.tensor([1.0, 2.0, 8.0, 0.5])
    square, wide = normal(generator, 4, 4), normal(generator, 5, 9)
    return [
        (toy, norms, 0.5),
        (toy, norms, 1.0),
        (square, normal(generator, 4).abs(), 0.5),
        (wide, normal(generator, 9).abs(), 0.25),
    ]


def _ria(weight, input_norm, power, size=torch.abs, row=1, column=0):
    size = size(weight)
    return (size / size.sum(dim=row, keepdim=True) + size / size.sum(dim=column, keepdim=True)) * input_norm**power


relative = Exercise(
    "11.b1",
    "relative importance, from its formula",
    ria_score,
    ria_cases,
    hints=(
        "The row's sum runs over the inputs (dim=1), the column's over the outputs (dim=0). Which shape must each have "
        "to be divided into [out, in]?",
        "size = weight.abs(); size / size.sum(dim=1, keepdim=True) + size / size.sum(dim=0), times input_norm**power.",
    ),
    wrong=[
        (
            lambda weight, norm, power: weight.abs() * norm**power,
            "this is Wanda's score with a power. RIA takes the share of a weight in its row and in its column.",
        ),
        (
            lambda weight, norm, power: weight.abs() / weight.abs().sum(dim=1, keepdim=True) * norm**power,
            "the share of the column is missing: it is the new term, which protects an input whose weights are all "
            "small.",
        ),
        (
            lambda weight, norm, power: weight.abs() / weight.abs().sum(dim=0) * norm**power,
            "the share of the row is missing.",
        ),
        (
            lambda weight, norm, power: _ria(weight, norm, power, size=lambda weight: weight),
            "you left out the absolute values. With signs the sums cancel, and a share can be anything.",
        ),
        (
            lambda weight, norm, power: ria_score(weight, norm, 1.0),
            "you did not use the power: the norm is raised to it.",
        ),
        (
            lambda weight, norm, power: ria_score(weight, norm, 0.5),
            "you always take the root of the norm. The power is an argument.",
        ),
        (
            lambda weight, norm, power: _ria(weight, norm, power, row=1, column=1),
            "you took the share of the row twice. A column's sum runs over the outputs: dim=0.",
        ),
        (
            lambda weight, norm, power: ria_score(weight, torch.ones_like(norm), power),
            "the norms are not used: the sum of the shares is multiplied by the norm's power.",
        ),
        (
            lambda weight, norm, power: (
                (ria_score(weight, norm, power) - weight.abs() / weight.abs().sum(dim=0) * norm**power)
                + weight.abs() / weight.abs().sum(dim=0)
            ),
            "only the row's share is multiplied by the norm. Add the shares first: brackets.",
        ),
        (
            lambda weight, norm, power: (
                weight.abs() / weight.abs().sum(dim=1, keepdim=True)
                + weight.abs() / weight.abs().sum(dim=0) * norm**power
            ),
            "only the column's share is multiplied by the norm. Add the shares first: brackets.",
        ),
        (
            lambda weight, norm, power: weight.sign() * ria_score(weight, norm, power),
            "your scores keep the sign of the weight, so the large negative weights are pruned first. The absolute "
            "value belongs above the fraction as well.",
        ),
        (
            lambda weight, norm, power: (ria_score(weight, torch.ones_like(norm), power) * norm) ** power,
            "you raised everything to the power. Only the norm has the exponent.",
        ),
        (
            lambda weight, norm, power: (
                weight.abs() / (weight.abs().sum(dim=1, keepdim=True) + weight.abs().sum(dim=0)) * norm**power
            ),
            "you divided by the sum of row and column. They are two shares, each with a sum of its own, and then added.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=8,
)


@relative.misconception(
    "each share is divided by a mean where a sum belongs. Row and column have different lengths, so this changes how much "
    "either counts."
)
def by_means(weight, input_norm, power):
    size = weight.abs()
    return (size / size.mean(dim=1, keepdim=True) + size / size.mean(dim=0)) * input_norm**power


# 11.b2 A sparsity for each block ----------------------------------------------------------------------------------------


def owl_sparsities(shares, target, spread=0.08):
    stretched = (shares - shares.min()) / (shares.max() - shares.min())  # [blocks], 0 to 1
    kept = 2 * spread * stretched.nan_to_num()  # [blocks]; all alike: 0 / 0, so no difference
    return target - (kept - kept.mean())  # [blocks]


def owl_cases(generator):
    return [
        (torch.tensor([0.01, 0.02, 0.05, 0.02]), 0.6, 0.08),
        (torch.tensor([0.3, 0.1]), 0.7, 0.04),
        (torch.rand(7, generator=generator), 0.6, 0.1),
        (torch.full((3,), 0.02), 0.5, 0.08),
        (torch.tensor([0.02]), 0.5, 0.08),
        (torch.tensor([1e-4, 3e-4]), 0.5, 0.08),  # small shares are not yet alike
    ]


adaptive = Exercise(
    "11.b2",
    "a sparsity for each block, with the total kept",
    owl_sparsities,
    owl_cases,
    hints=(
        "Stretch the shares to run from 0 to 1, then to 2 · spread. What must be subtracted so that the mean of the "
        "result is the target? And what is 0 / 0?",
        "kept = 2 * spread * ((shares - shares.min()) / (shares.max() - shares.min())).nan_to_num(); target - (kept - "
        "kept.mean()).",
    ),
    wrong=[
        (
            lambda shares, target, spread: 2 * target - owl_sparsities(shares, target, spread),
            "the blocks with the most outliers lose the most weights. They should lose the fewest.",
        ),
        (
            lambda shares, target, spread: owl_sparsities(shares, target, spread / 2),
            "the interval is half as wide as it should be: from one end to the other it is 2 · spread.",
        ),
        (
            lambda shares, target, spread: target + spread - stretched(shares, spread),
            "you put the middle of the interval at the target. The mean has to be there, or the model as a whole misses "
            "its sparsity.",
        ),
        (
            lambda shares, target, spread: target - stretched(shares, spread),
            "no block is above the target, so the model as a whole is below it: subtract the mean of what is kept.",
        ),
        (
            lambda shares, target, spread: 1 - owl_sparsities(shares, target, spread),
            "these are the fractions that are kept; sparsity is the fraction that is pruned.",
        ),
        (
            lambda shares, target, spread: target - (shares - shares.mean()),
            "you used the shares as they are. Stretch them first: their differences become 2 · spread wide, whatever "
            "they were.",
        ),
        (
            lambda shares, target, spread: (
                owl_sparsities(shares, target, spread) * torch.where(shares.max() > shares.min(), 1, torch.nan)
            ),
            "right, but where all shares are alike you get NaN from 0 / 0. Then every block gets the target.",
        ),
        (
            lambda shares, target, spread: (
                torch.full_like(shares, target)
                if shares.max() - shares.min() < 1e-3
                else owl_sparsities(shares, target, spread)
            ),
            "you treat small differences as none. Shares are small numbers: only if all are equal does every block "
            "get the target.",
        ),
        (
            lambda shares, target, spread: (
                target - 2 * spread * (shares / shares.max() - (shares / shares.max()).mean())
            ),
            "you divided by the maximum without subtracting the minimum first: the width is then less than 2 · spread.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=8,
)


# 11.b3 The outliers of a block ------------------------------------------------------------------------------------------


def outlier_share(scores, factor=5):
    together = torch.cat([score.flatten() for score in scores])  # [weights of the block]
    return float((together > factor * together.mean()).double().mean())


def outlier_cases(generator):
    toy = [torch.tensor([[1.0, 1.0], [1.0, 9.0]]), torch.tensor([[0.0, 0.0, 12.0, 0.0]])]
    random = [normal(generator, *shape).abs() ** 3 for shape in ((6, 8), (3, 8), (8, 20))]
    scaled = [score * scale for score, scale in zip(random, (1.0, 4.0, 0.2), strict=True)]
    level = [torch.tensor([[1.0, 2.0, 3.0]])]  # the mean is 2: with factor 1 only the 3 is larger
    return [(toy, 3), (random, 5), (scaled, 5), (level, 1), ([torch.ones(2, 2)], 5)]


counting = Exercise(
    "11.b3",
    "the share of outliers in a block",
    outlier_share,
    outlier_cases,
    hints=(
        "Put all scores of the block into one row. The mean and the share are those of this row.",
        "together = torch.cat([score.flatten() for score in scores]); then the mean of together > factor * "
        "together.mean().",
    ),
    wrong=[
        (
            lambda scores, factor: sum(outlier_share([score], factor) for score in scores) / len(scores),
            "you counted layer by layer and averaged the shares. All layers of a block share one mean, and a large layer "
            "counts for more.",
        ),
        (
            lambda scores, factor: (
                sum(int((score > factor * score.mean()).sum()) for score in scores)
                / sum(score.numel() for score in scores)
            ),
            "each layer is compared with its own mean. The mean is that of the whole block.",
        ),
        (
            lambda scores, factor: int(
                (
                    torch.cat([s.flatten() for s in scores]) > factor * torch.cat([s.flatten() for s in scores]).mean()
                ).sum()
            ),
            "this is the number of outliers. Blocks are compared by their share: divide by the number of weights.",
        ),
        (
            lambda scores, factor: float(
                (torch.cat([s.flatten() for s in scores]) > factor * torch.cat([s.flatten() for s in scores]).median())
                .double()
                .mean()
            ),
            "you compared with the median. Outliers are counted against the mean.",
        ),
        (
            lambda scores, factor: float((torch.cat([s.flatten() for s in scores]) > factor).double().mean()),
            "you compared the scores with the factor itself. It is a multiple of the mean score.",
        ),
        (
            lambda scores, factor: float(
                (torch.cat([s.flatten() for s in scores]) >= factor * torch.cat([s.flatten() for s in scores]).mean())
                .double()
                .mean()
            ),
            "an outlier is larger than the limit, not as large: >, not >=.",
        ),
        (
            lambda scores, factor: float(
                (torch.cat([s.flatten() for s in scores]) > factor * torch.stack([s.mean() for s in scores]).mean())
                .double()
                .mean()
            ),
            "you took the mean of the layers' means. Layers differ in size: take the mean of all scores together.",
        ),
        (
            lambda scores, factor: 1 - outlier_share(scores, factor),
            "this is the share of the weights that are no outliers.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=6,
)
