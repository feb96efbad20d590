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
    ],
)


# 11.2 Inputs that hardly anybody reads any more ------------------------------------------------------------------------


def orphans(mask, share):
    return int((mask.float().mean(dim=0) >= share).sum())  # [out, in] -> [in] -> a number


def orphans_cases(generator):
    toy = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1, 1]]).bool()  # columns lose 1, 3, 2 and 4
    wide = torch.rand(8, 24, generator=generator) < torch.linspace(0.1, 1, 24)
    return [(toy, 1.0), (toy, 0.75), (toy, 0.5), (wide, 0.75), (wide.T.contiguous(), 0.625)]


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
    ],
)


# 11.3 From shares of outliers to sparsities ----------------------------------------------------------------------------


def owl_sparsities(shares, sizes, target, spread):
    kept = 2 * spread * (shares - shares.min()) / (shares.max() - shares.min())  # [blocks], from 0 to 2 * spread
    mean = (kept * sizes).sum() / sizes.sum()
    return target - (kept - mean)  # [blocks], their mean weighted by size is the target


def owl_sparsities_cases(generator):
    toy = torch.tensor([0.02, 0.05, 0.03, 0.02]), torch.tensor([100.0, 100.0, 300.0, 100.0])
    random = torch.rand(6, generator=generator), 10 + torch.rand(6, generator=generator) * 90
    return [(*toy, 0.5, 0.08), (*toy, 0.7, 0.04), (*random, 0.6, 0.1)]


def stretched(shares, spread):
    """From 0 to 2 * spread [blocks]."""
    return 2 * spread * (shares - shares.min()) / (shares.max() - shares.min())


owl = Exercise(
    "11.3",
    "from shares of outliers to sparsities",
    owl_sparsities,
    owl_sparsities_cases,
    hints=(
        "Three steps: stretch the shares to run from 0 to 2 · spread, subtract their mean, and take that from the "
        "target.",
        "kept = 2 * spread * (shares - shares.min()) / (shares.max() - shares.min()); the mean is (kept * "
        "sizes).sum() / sizes.sum().",
    ),
    wrong=[
        (
            lambda shares, sizes, target, spread: 2 * target - owl_sparsities(shares, sizes, target, spread),
            "the blocks with the most outliers lose the most weights. They should lose the fewest.",
        ),
        (
            lambda shares, sizes, target, spread: owl_sparsities(shares, torch.ones_like(sizes), target, spread),
            "your sparsities have the right plain mean, but blocks differ in size: the mean must be weighted by it, "
            "or the model as a whole misses the target.",
        ),
        (
            lambda shares, sizes, target, spread: owl_sparsities(shares, sizes, target, spread / 2),
            "the interval is half as wide as it should be: from one end to the other it is 2 · spread.",
        ),
        (
            lambda *given: 1 - owl_sparsities(*given),
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
    ],
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
    grown = (towards / variance).masked_fill(~mask, -torch.inf).argmax(dim=1, keepdim=True)  # [out, 1]
    cost = (weight.abs() * norm).masked_fill(
        mask | (towards >= 0), torch.inf
    )  # removing these makes it smaller as well
    gone = cost.argmin(dim=1, keepdim=True)  # [out, 1]
    after = error - parts.gather(1, grown)[:, 0] + parts.gather(1, gone)[:, 0]  # [out]
    possible = cost.gather(1, gone)[:, 0] < torch.inf
    better = (possible & (after.abs() < error.abs()))[:, None]  # [out, 1]
    return torch.where(better, mask.scatter(1, grown, False).scatter(1, gone, True), mask)


def refine_cases(generator):
    weight = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
    mask = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]]).bool()
    toy = weight, mask, torch.tensor([0.5, -0.4, -0.2, 0.3]), torch.tensor([0.5, 0.25, 4.0, 0.1])
    cases = [(*toy, torch.tensor([1.0, 2.0, 8.0, 0.5]))]  # the first row changes, the others do not
    for outputs, width in ((8, 6), (12, 16), (10, 16)):
        weight, mean = normal(generator, outputs, width), normal(generator, width)
        variance = 0.1 + 2 * torch.rand(width, generator=generator)
        norm = (20 * (variance + mean.square())).sqrt()
        order = (weight.abs() * norm).argsort(dim=1)
        mask = torch.zeros_like(weight, dtype=torch.bool).scatter(1, order[:, : width // 2], True)
        cases.append((weight, mask, mean, variance, norm))
    return cases


def _refined(
    weight,
    mask,
    mean,
    variance,
    norm,
    lost=lambda parts, mask: parts * mask,
    grow=lambda parts, towards, variance: towards / variance,
    prunable=lambda towards: towards < 0,
    cost=lambda score: score,
    always=False,
    prune=True,
):
    """`refine` with one of its parts replaced."""
    parts = weight * mean
    error = lost(parts, mask).sum(dim=1)
    towards = error.sign()[:, None] * parts
    grown = grow(parts, towards, variance).masked_fill(~mask, -torch.inf).argmax(dim=1, keepdim=True)
    price = cost(weight.abs() * norm).masked_fill(mask | ~prunable(towards), torch.inf)
    gone = price.argmin(dim=1, keepdim=True)
    after = error - parts.gather(1, grown)[:, 0] + (parts.gather(1, gone)[:, 0] if prune else 0)
    better = after.abs() < error.abs()
    if prune:
        better &= price.gather(1, gone)[:, 0] < torch.inf
    better = torch.ones_like(better) if always else better
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
        "Grow: (towards / variance) with -inf where kept, argmax. Prune: |weight| · norm with inf where pruned or "
        "where towards >= 0, argmin. Swap both only where the new |error| is smaller and something could be pruned.",
    ),
    wrong=[
        (
            lambda *given: _refined(*given, grow=lambda parts, towards, variance: parts.abs() / variance),
            "you brought back the weight with the largest part, whatever its sign. If its sign is opposite to the "
            "error's, bringing it back makes the error larger.",
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
            lambda *given: _refined(*given, prunable=lambda towards: towards > 0, always=True),
            "you pruned a weight whose part has the sign of the error. Without it the output loses even more: prune "
            "one of the opposite sign.",
        ),
        (lambda weight, mask, *rest: mask, "this is the mask you were given: no row has changed."),
        (
            lambda *given: _refined(*given, lost=lambda parts, mask: parts * ~mask),
            "your error sums the parts of the kept weights. What the output has lost is the sum over the pruned ones.",
        ),
        (
            lambda *given: _refined(*given, always=True),
            "you changed every row. A row whose |error| would not become smaller stays as it is.",
        ),
        (
            lambda *given: _refined(*given, prune=False),
            "your rows keep one weight more than before. For each weight that comes back, prune another.",
        ),
        (
            lambda weight, mask, *rest: ~refine(weight, ~mask, *rest),
            "you inverted the mask. True means pruned, here as everywhere.",
        ),
    ],
)
