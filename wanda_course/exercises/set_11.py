"""Exercises of notebook 11: a metric of one's own."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise, Misconception


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


def paired_ratio_of_means(ours, baseline):
    return ours.mean() / baseline.mean(), (ours < baseline).sum()


def paired_mean_of_ratios(ours, baseline):
    return (ours / baseline).mean(), (ours < baseline).sum()


def paired_best(ours, baseline):
    return ours.min() / baseline.min(), (ours < baseline).sum()


def paired_sorted(ours, baseline):
    return paired(ours.sort().values, baseline.sort().values)


def paired_with_mean(ours, baseline):
    return paired(ours, baseline)[0], (ours < baseline.mean()).sum()


def paired_inverted(ours, baseline):
    return 1 / paired(ours, baseline)[0], (ours < baseline).sum()


def paired_difference(ours, baseline):
    return (ours - baseline).mean(), (ours < baseline).sum()


def paired_logarithm(ours, baseline):
    return (ours / baseline).log().mean(), (ours < baseline).sum()


def paired_losses(ours, baseline):
    return paired(ours, baseline)[0], (ours > baseline).sum()


# 11.2 Inputs that hardly anybody reads any more ------------------------------------------------------------------------


def orphans(mask, share):
    return int((mask.float().mean(dim=0) >= share).sum())  # [out, in] -> [in] -> a number


def orphans_cases(generator):
    toy = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1, 1]]).bool()  # columns lose 1, 3, 2 and 4
    wide = torch.rand(8, 24, generator=generator) < torch.linspace(0.1, 1, 24)
    return [(toy, 1.0), (toy, 0.75), (toy, 0.5), (wide, 0.75), (wide.T.contiguous(), 0.625)]


def orphaned_outputs(mask, share):
    return orphans(mask.T, share)


def orphans_kept(mask, share):
    return orphans(~mask, share)


def orphans_beyond(mask, share):
    return int((mask.float().mean(dim=0) > share).sum())


def orphans_fraction(mask, share):
    return orphans(mask, share) / mask.shape[1]


def orphans_weights(mask, share):
    return int(mask.sum())


def orphans_all(mask, share):
    return orphans(mask, 1.0)


# 11.3 From shares of outliers to sparsities ----------------------------------------------------------------------------


def owl_sparsities(shares, sizes, target, spread):
    kept = 2 * spread * (shares - shares.min()) / (shares.max() - shares.min())  # [blocks], from 0 to 2 * spread
    mean = (kept * sizes).sum() / sizes.sum()
    return target - (kept - mean)  # [blocks], their mean weighted by size is the target


def owl_sparsities_cases(generator):
    toy = torch.tensor([0.02, 0.05, 0.03, 0.02]), torch.tensor([100.0, 100.0, 300.0, 100.0])
    random = torch.rand(6, generator=generator), 10 + torch.rand(6, generator=generator) * 90
    return [(*toy, 0.5, 0.08), (*toy, 0.7, 0.04), (*random, 0.6, 0.1)]


def owl_upside_down(shares, sizes, target, spread):
    return 2 * target - owl_sparsities(shares, sizes, target, spread)


def owl_unweighted(shares, sizes, target, spread):
    return owl_sparsities(shares, torch.ones_like(sizes), target, spread)


def owl_not_divided(shares, sizes, target, spread):
    kept = 2 * spread * (shares - shares.min()) / (shares.max() - shares.min())
    return target - (kept - (kept * sizes).mean())


def owl_half_as_wide(shares, sizes, target, spread):
    return owl_sparsities(shares, sizes, target, spread / 2)


def owl_density(shares, sizes, target, spread):
    return 1 - owl_sparsities(shares, sizes, target, spread)


def owl_middle(shares, sizes, target, spread):
    return target + spread - 2 * spread * (shares - shares.min()) / (shares.max() - shares.min())


def owl_not_centred(shares, sizes, target, spread):
    return target - 2 * spread * (shares - shares.min()) / (shares.max() - shares.min())


def owl_not_stretched(shares, sizes, target, spread):
    return target - (shares - (shares * sizes).sum() / sizes.sum())


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


def _refined(weight, mask, mean, norm, error=None, grow=None, cost=None, always=False, prune=True):
    """`refine` with one of its parts replaced: functions of (parts, towards)."""
    parts = weight * mean
    error = (parts * mask).sum(dim=1) if error is None else error(parts)
    towards = error.sign()[:, None] * parts
    grown = grow(parts, towards).masked_fill(~mask, -torch.inf).argmax(dim=1, keepdim=True)
    price = (weight.abs() * norm).masked_fill(towards >= 0, torch.inf) if cost is None else cost(parts, towards)
    price = price.masked_fill(mask, torch.inf)
    gone = price.argmin(dim=1, keepdim=True)
    after = error - parts.gather(1, grown)[:, 0] + (parts.gather(1, gone)[:, 0] if prune else 0)
    better = after.abs() < error.abs()
    if prune:
        better &= price.gather(1, gone)[:, 0] < torch.inf
    better = torch.ones_like(better) if always else better
    changed = mask.scatter(1, grown, False)
    return torch.where(better[:, None], changed.scatter(1, gone, True) if prune else changed, mask)


def refine_without_sign(weight, mask, mean, variance, norm):
    return _refined(weight, mask, mean, norm, grow=lambda parts, towards: parts.abs() / variance)


def refine_without_variance(weight, mask, mean, variance, norm):
    return _refined(weight, mask, mean, norm, grow=lambda parts, towards: towards)


def refine_prunes_anything(weight, mask, mean, variance, norm):
    cost = weight.abs() * norm
    return _refined(weight, mask, mean, norm, grow=lambda _, towards: towards / variance, cost=lambda *_: cost)


def refine_prunes_the_dearest(weight, mask, mean, variance, norm):
    def cost(parts, towards):
        return (-weight.abs() * norm).masked_fill(towards >= 0, torch.inf)

    return _refined(weight, mask, mean, norm, grow=lambda _, towards: towards / variance, cost=cost)


def refine_error_of_the_kept(weight, mask, mean, variance, norm):
    return _refined(
        weight,
        mask,
        mean,
        norm,
        error=lambda parts: (parts * ~mask).sum(dim=1),
        grow=lambda _, towards: towards / variance,
    )


def refine_always(weight, mask, mean, variance, norm):
    return _refined(weight, mask, mean, norm, grow=lambda _, towards: towards / variance, always=True)


def refine_grows_only(weight, mask, mean, variance, norm):
    return _refined(weight, mask, mean, norm, grow=lambda _, towards: towards / variance, prune=False)


def refine_prunes_the_same_sign(weight, mask, mean, variance, norm):
    def cost(parts, towards):
        return (weight.abs() * norm).masked_fill(towards <= 0, torch.inf)

    return _refined(weight, mask, mean, norm, grow=lambda _, towards: towards / variance, cost=cost, always=True)


def refine_nothing(weight, mask, mean, variance, norm):
    return mask


def refine_turned_mask(weight, mask, mean, variance, norm):
    return ~refine(weight, ~mask, mean, variance, norm)


EXERCISES = [
    Exercise(
        key="11.1",
        title="ahead, or lucky",
        cases=paired_cases,
        solution=paired,
        misconceptions=[
            Misconception(
                paired_ratio_of_means,
                "you divided the means. A seed with a large perplexity then counts for more than the others. Divide pair "
                "by pair, then take the mean.",
            ),
            Misconception(
                paired_mean_of_ratios,
                "you averaged the ratios themselves. Twice as good and half as good then average to 1.25, not to level: "
                "take the mean of the logarithms.",
            ),
            Misconception(
                paired_best, "you compared the best runs. The best of several seeds is luck; every seed has to count."
            ),
            Misconception(
                paired_sorted,
                "you sorted both before you compared. The pairs are lost: both entries met the same windows under the same "
                "seed, and only that makes small differences visible.",
            ),
            Misconception(
                paired_with_mean,
                "you counted the runs that are better than the baseline's mean. Each run has its own partner: same seed.",
            ),
            Misconception(
                paired_inverted, "the ratio is upside down: ours over the baseline, so that below 1 is better."
            ),
            Misconception(
                paired_difference,
                "this is a mean difference. In a ratio, a text that is hard for all does not count more.",
            ),
            Misconception(
                paired_logarithm,
                "this is the mean of the logarithms, where level is 0. Take the exponential of it to get back to a ratio.",
            ),
            Misconception(paired_losses, "you counted the pairs that were lost. A lower perplexity is the better one."),
        ],
        hints=(
            "Divide pair by pair first. Which mean treats twice as good and half as good as opposites?",
            "ratios = ours / baseline; the geometric mean is ratios.log().mean().exp(), the wins are (ratios < 1).sum().",
        ),
    ),
    Exercise(
        key="11.2",
        title="inputs that lose their readers",
        cases=orphans_cases,
        solution=orphans,
        misconceptions=[
            Misconception(
                orphaned_outputs,
                "you counted outputs. A row of the mask is an output, a column an input: average over the rows (dim=0).",
            ),
            Misconception(orphans_kept, "you counted inputs that keep their weights. True in the mask means pruned."),
            Misconception(
                orphans_beyond, "an input that has lost exactly the share is left out. At least means greater or equal."
            ),
            Misconception(orphans_fraction, "this is a fraction of the inputs; their number is wanted."),
            Misconception(orphans_weights, "you counted pruned weights. An input counts once, however many it lost."),
            Misconception(
                orphans_all, "you counted only inputs without any weight left; the share that is given is not used."
            ),
        ],
        hints=(
            "For each column of the mask: which fraction of it is True?",
            "mask.float().mean(dim=0) has shape [in]; compare it with the share, and add up.",
        ),
    ),
    Exercise(
        key="11.3",
        title="from shares of outliers to sparsities",
        cases=owl_sparsities_cases,
        solution=owl_sparsities,
        misconceptions=[
            Misconception(
                owl_upside_down,
                "the blocks with the most outliers lose the most weights. It should be the other way round: they are to "
                "be spared.",
            ),
            Misconception(
                owl_unweighted,
                "your sparsities have the right plain mean, but blocks differ in size: the mean must be weighted by it, "
                "or the model as a whole misses the target.",
            ),
            Misconception(
                owl_not_divided,
                "a mean weighted by size is divided by the sum of the sizes, not by the number of blocks.",
            ),
            Misconception(
                owl_half_as_wide,
                "the interval is half as wide as it should be: from one end to the other it is 2 · spread.",
            ),
            Misconception(owl_density, "these are the shares that are kept; sparsity is the share that goes."),
            Misconception(
                owl_middle,
                "you put the middle of the interval at the target. Then the mean depends on how the shares are "
                "distributed, and the model misses the target. Subtract the mean.",
            ),
            Misconception(
                owl_not_centred,
                "no block is above the target, so the model as a whole is below it: subtract the mean before you add "
                "the target.",
            ),
            Misconception(
                owl_not_stretched,
                "the shares are used as they are; the spread has no say. Stretch them first, so that they run from 0 to "
                "2 · spread.",
            ),
        ],
        hints=(
            "Three steps: stretch the shares to run from 0 to 2 · spread, subtract their mean, and take that from the target.",
            "kept = 2 * spread * (shares - shares.min()) / (shares.max() - shares.min()); the mean is (kept * sizes).sum() / "
            "sizes.sum().",
        ),
    ),
    Exercise(
        key="11.4",
        title="one step of grow and prune",
        cases=refine_cases,
        solution=refine,
        misconceptions=[
            Misconception(
                refine_without_sign,
                "you brought back the weight with the largest part, whatever its sign. If it has the sign opposite to the "
                "error, its return makes the error larger.",
            ),
            Misconception(
                refine_without_variance,
                "the variance is not used: a part that is large on average may change from token to token. Divide by the "
                "variance before you choose what grows.",
            ),
            Misconception(
                refine_prunes_anything,
                "you pruned the smallest score of all kept weights. Choose among those only whose removal makes the error "
                "smaller: their part has the sign opposite to it.",
            ),
            Misconception(
                refine_prunes_the_dearest,
                "you pruned the kept weight with the largest score. It is the smallest that should go.",
            ),
            Misconception(
                refine_prunes_the_same_sign,
                "you pruned a weight whose part has the sign of the error. Without it the output has lost even more: what "
                "goes must have the opposite sign.",
            ),
            Misconception(refine_nothing, "this is the mask you were given: no row has changed."),
            Misconception(
                refine_error_of_the_kept,
                "your error sums the parts of the kept weights. What the output has lost is the sum over the pruned ones.",
            ),
            Misconception(
                refine_always,
                "you changed every row. A row whose error would not become smaller in size stays as it is.",
            ),
            Misconception(
                refine_grows_only,
                "your rows keep one weight more than before. For each weight that comes back, another has to go.",
            ),
            Misconception(
                refine_turned_mask, "you read the mask the other way round. True means pruned, here as everywhere."
            ),
        ],
        hints=(
            "Write parts = weight * mean, and the error as the sum of the pruned parts. Multiply the parts by the sign of the "
            "error: positive ones help when they come back, negative ones when they go.",
            "Grow: (towards / variance) with -inf where kept, argmax. Prune: |weight| · norm with inf where pruned or where "
            "towards >= 0, argmin. Swap both only where the new |error| is smaller and something could be pruned.",
        ),
    ),
]
