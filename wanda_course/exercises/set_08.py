"""Exercises of notebook 08: calibration."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

import wanda

from .types import Exercise

# The masks that Wanda gives the toy matrix with the norms (1, 2, 8, 0.5) and (1, 2, 1, 3), True where pruned.
MASK_A = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]], dtype=torch.bool)
MASK_B = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)


def pruned_at_random(generator, sparsity, *shape):
    """A mask that prunes about this share."""
    return torch.rand(*shape, generator=generator) < sparsity


# 08.1 Jaccard ----------------------------------------------------------------------------------------------------------


def jaccard(mask_a, mask_b):
    return float((mask_a & mask_b).sum() / (mask_a | mask_b).sum())  # pruned by both, out of those pruned by either


def jaccard_cases(generator):
    fewer = pruned_at_random(generator, 0.3, 8, 20)
    few = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    return [
        (MASK_A, few),
        (MASK_A, MASK_B),
        (MASK_A, MASK_A),
        (MASK_A, ~MASK_A),
        (fewer, pruned_at_random(generator, 0.6, 8, 20)),
        (pruned_at_random(generator, 0.6, 8, 20), fewer),
    ]


overlap = Exercise(
    "08.1",
    "the Jaccard index of two masks",
    jaccard,
    jaccard_cases,
    hints=(
        "Two sets: what both prune, and what at least one prunes. On bool tensors & and | make them, element by "
        "element.",
        "(mask_a & mask_b).sum() over (mask_a | mask_b).sum(), as a float.",
    ),
    difficulty=1,
    importance=3,
    minutes=5,
    wrong=[
        (
            lambda a, b: float(((a & b).sum(dim=1) / (a | b).sum(dim=1)).mean()),
            "you averaged the index over the rows. A row with few pruned weights then counts as much as one with many: "
            "add up over the whole matrix first, and divide once.",
        ),
        (
            lambda a, b: float((a ^ b).sum() / (a | b).sum()),
            "this is the Jaccard distance: the weights that only one mask prunes, out of those that either prunes. It "
            "is 0 for equal masks; the index is 1 minus that.",
        ),
        (
            lambda a, b: float((a == b).double().mean()),
            "you counted the places where the masks agree, and that includes the weights that both keep. Two masks "
            "that prune next to nothing would agree nearly everywhere. Look at the pruned ones only.",
        ),
        (
            lambda a, b: float((~a & ~b).sum() / (~a | ~b).sum()),
            "you compared the kept weights. True means pruned here; the index asked for is that of the pruned sets.",
        ),
        (
            lambda a, b: float((a & b).double().mean()),
            "you divided by the number of all weights. Even two equal masks would not reach 1: divide by the number "
            "that at least one of them prunes.",
        ),
        (
            lambda a, b: float((a & b).sum() / a.sum()),
            "you divided by what the first mask prunes. Swap the masks, and the answer changes; the index divides by "
            "the union.",
        ),
        (
            lambda a, b: float((a & b).sum() / b.sum()),
            "you divided by what the second mask prunes. Swap the masks, and the answer changes; the index divides by "
            "the union.",
        ),
        (
            lambda a, b: float((a & b).sum() / torch.minimum(a.sum(), b.sum())),
            "you divided by the smaller of the two sets. A mask inside a larger one would reach 1; the "
            "index divides by the union.",
        ),
        (
            lambda a, b: float((a & b).sum() / torch.maximum(a.sum(), b.sum())),
            "you divided by the larger of the two sets. The union is larger still, unless one mask lies inside the other.",
        ),
        (
            lambda a, b: float((a & b).sum() / (a ^ b).sum()),
            "you divided by the weights that only one of the masks prunes (^). The union holds those that both prune "
            "as well (|).",
        ),
        (
            lambda a, b: float((a & b).sum() / (a.sum() + b.sum())),
            "you divided by the sum of both sizes, in which the weights that both prune are counted twice. The union "
            "counts them once.",
        ),
        (
            lambda a, b: float(2 * (a & b).sum() / (a.sum() + b.sum())),
            "this is the Dice coefficient, twice the intersection over the sum of the sizes. It orders pairs in the "
            "same way, but it is larger than the Jaccard index, which divides by the union.",
        ),
        (
            lambda a, b: float((a & b).sum()),
            "this is how many weights both prune, not a share. Divide by the size of the union.",
        ),
    ],
)


# 08.2 Chance -----------------------------------------------------------------------------------------------------------


def chance(sparsity_a, sparsity_b):
    both = sparsity_a * sparsity_b  # share of all weights that two independent masks both prune
    return both / (sparsity_a + sparsity_b - both)


def chance_cases(generator):
    return [(0.1, 0.6), (0.5, 0.5), (0.5, 0.25), (0.7, 0.7), (0.99, 0.01)]


by_chance = Exercise(
    "08.2",
    "the overlap that chance gives",
    chance,
    chance_cases,
    hints=(
        "What share of all weights do both prune, if the two know nothing of each other? What share does at least one?",
        "Both: sparsity_a * sparsity_b. At least one: sparsity_a + sparsity_b minus both. The index is the quotient.",
    ),
    difficulty=1,
    importance=2,
    minutes=5,
    wrong=[
        (
            lambda a, b: ((a + b) / 2) / (2 - (a + b) / 2),
            "you put the mean of the two sparsities into the formula for equal ones. What both prune is the product of "
            "the two, not the square of their mean.",
        ),
        (
            lambda a, b: a * b,
            "this is the share of all weights that both prune. The index divides it by the share that at least one of "
            "them prunes.",
        ),
        (
            lambda a, b: a * b / (a + b),
            "you divided by the sum of the sparsities, which counts the weights that both prune twice. Subtract them "
            "once to get the union.",
        ),
        (
            lambda a, b: 2 * a * b / (a + b),
            "this is the Dice coefficient, twice what both prune over the sum of the sparsities. The Jaccard index "
            "divides what both prune by the union.",
        ),
        (
            lambda a, b: a * b / (2 * a - a**2),
            "this is the union of two masks of the first sparsity. For unequal ones it is sparsity_a + sparsity_b, "
            "less what both prune.",
        ),
        (
            lambda a, b: min(a, b) / max(a, b),
            "this is the best case, one mask inside the other. Random masks are independent.",
        ),
        (
            lambda a, b: a * b + (1 - a) * (1 - b),
            "this is how often two random masks agree, including the weights that both keep. The index looks at the "
            "pruned ones only.",
        ),
        (
            lambda a, b: chance(1 - a, 1 - b),
            "this is the index of the kept weights. At a sparsity of a half it happens to be the same.",
        ),
        (
            lambda a, b: b,
            "this is the share of the first mask's weights that the second prunes too. The index divides by the "
            "union, not by the first mask.",
        ),
        (
            lambda a, b: 0.0,
            "two random masks are not disjoint: a weight that one prunes is pruned by the other with a probability "
            "equal to its sparsity.",
        ),
    ],
)


# 08.3 A mixture of sources ---------------------------------------------------------------------------------------------


def mixed_norm(norm_a, tokens_a, norm_b, tokens_b, share):
    square_a = norm_a.square() / tokens_a  # [in], per token
    square_b = norm_b.square() / tokens_b  # [in], per token
    return (share * square_a + (1 - share) * square_b).sqrt()  # [in]


def mixed_norm_cases(generator):
    norm_a, norm_b = torch.rand(2, 6, generator=generator) * 40 + 1
    return [
        (torch.tensor([3.0, 6.0]), 9, torch.tensor([4.0, 0.0]), 4, 0.5),
        (torch.tensor([3.0, 6.0]), 9, torch.tensor([4.0, 0.0]), 4, 1.0),
        (norm_a, 512, norm_b, 128, 0.25),
        (norm_a, 512, norm_b, 128, 0.0),
        (norm_a, 100, norm_b, 300, 0.9),
    ]


mixture = Exercise(
    "08.3",
    "a mixture that was never run",
    mixed_norm,
    mixed_norm_cases,
    hints=(
        "Of one token of the mixture, what is the expected square of a feature? With probability `share` it is a "
        "token of the first source.",
        "The mean square of a source is norm.square() / tokens. Mix the two mean squares by their shares, then sqrt.",
    ),
    difficulty=2,
    importance=2,
    minutes=10,
    wrong=[
        (
            lambda a, n_a, b, n_b, s: ((s * n_a * a.square() + (1 - s) * n_b * b.square()) / (n_a + n_b)).sqrt(),
            "you weighted each square by its number of tokens. A squared norm is already a sum over its tokens: divide "
            "it by their number, and let the share alone decide.",
        ),
        (
            lambda a, n_a, b, n_b, s: s * a / n_a**0.5 + (1 - s) * b / n_b**0.5,
            "you mixed the norms. Squares are what add up over tokens: mix the squares, and take the root at the end.",
        ),
        (
            lambda a, n_a, b, n_b, s: s * a + (1 - s) * b,
            "you mixed the norms as they are. They grow with the number of tokens, and it is their squares that add "
            "up: take each norm's square per token, mix those, and take the root at the end.",
        ),
        (
            lambda a, n_a, b, n_b, s: (s * a.square() + (1 - s) * b.square()).sqrt(),
            "you mixed the squares as they are, so the source with more tokens weighs more than its share. Divide "
            "each by its own number of tokens first.",
        ),
        (
            lambda a, n_a, b, n_b, s: ((a.square() + b.square()) / (n_a + n_b)).sqrt(),
            "this merges the sources as they were run, each weighted by its tokens. The share is not used.",
        ),
        (
            lambda a, n_a, b, n_b, s: (s * (a / n_a).square() + (1 - s) * (b / n_b).square()).sqrt(),
            "you divided the norms by the number of tokens. The square of a norm is a sum over tokens: divide the "
            "square.",
        ),
        (
            lambda a, n_a, b, n_b, s: (s**2 * (a.square() / n_a) + (1 - s) ** 2 * (b.square() / n_b)).sqrt(),
            "you multiplied the norms by their shares before squaring, so the shares are squared as well and no "
            "longer add up to 1.",
        ),
        (
            lambda a, n_a, b, n_b, s: mixed_norm(a, n_a, b, n_b, 1 - s),
            "the shares are swapped: `share` is the part that comes from the first source.",
        ),
        (
            lambda *given: mixed_norm(*given).square(),
            "the root at the end is missing: this is the mean square, not its root.",
        ),
    ],
)


# 08.4 A padded batch ---------------------------------------------------------------------------------------------------


def padded(texts, pad):
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), pad)  # [texts, longest]
    mask = torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = True
    return ids, mask


def padded_cases(generator):
    words = [torch.randint(50, (length,), generator=generator) for length in (6, 2, 9, 1)]
    return [
        ([torch.tensor([5, 6, 7]), torch.tensor([8])], 0),
        ([torch.tensor([5, 2, 7, 2]), torch.tensor([8, 2])], 2),  # the padding's id ends each text
        (words, 3),
        ([torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])], 9),
        ([torch.tensor([7, 8])], 0),
        ([torch.tensor([7, 8]), torch.tensor([], dtype=torch.long)], 1),  # a text without a token
    ]


batch = Exercise(
    "08.4",
    "a padded batch and its mask",
    padded,
    padded_cases,
    hints=(
        "What tells padding from text for certain: the ids, or the lengths?",
        "torch.full((len(texts), longest), pad) and a mask of False; then, row by row, write the text and True into "
        "the first len(text) places.",
    ),
    difficulty=2,
    importance=3,
    minutes=10,
    wrong=[
        (
            lambda texts, pad: (padded(texts, pad)[0], padded(texts, pad)[0] != pad),
            "your mask is False wherever a token equals the padding's id. Many tokenizers pad with the token that "
            "ends a text, and then real ends of texts are lost. Use the lengths.",
        ),
        (
            lambda texts, pad: (padded(texts, pad)[0], torch.ones_like(padded(texts, pad)[1])),
            "your mask is True everywhere, so padding will count as if it were text.",
        ),
        (
            lambda texts, pad: (padded(texts, pad)[0], ~padded(texts, pad)[1]),
            "your mask is inverted: True means a token, False padding.",
        ),
        (
            lambda texts, pad: padded([text[: min(map(len, texts))] for text in texts], pad),
            "you cut all texts to the shortest. That needs no padding, but throws text away: pad to the longest.",
        ),
        (lambda texts, pad: padded(texts, 0), "you padded with 0. The padding's id is given as `pad`."),
    ],
)


@batch.misconception(
    "your mask lets one padding position of each short text through: it is True up to and including position "
    "len(text), one too far."
)
def padded_with_first_padding(texts, pad):
    ids, mask = padded(texts, pad)
    return ids, torch.cat([torch.ones(len(mask), 1, dtype=torch.bool), mask[:, :-1]], dim=1)


@batch.misconception(
    "you padded on the left. Generation needs that, so that the last token is at the end; here the texts begin at "
    "position 0."
)
def padded_on_the_left(texts, pad):
    ids, mask = padded([text.flip(0) for text in texts], pad)
    return ids.flip(1), mask.flip(1)


@batch.misconception(
    "you leave room for one padding position at the end of every row. The longest text needs none: pad to its length."
)
def padded_too_long(texts, pad):
    ids, mask = padded(texts, pad)
    width = (0, 1)
    return torch.nn.functional.pad(ids, width, value=pad), torch.nn.functional.pad(mask, width)


# 08.b1 The norm over chosen windows --------------------------------------------------------------------------------------


def norm_over(rows, chosen):
    return rows[chosen].double().sum(dim=0).sqrt().float()  # [in]


def norm_cases(generator):
    rows = torch.rand(6, 5, generator=generator) * 9
    return [
        (torch.tensor([[9.0, 16.0], [16.0, 0.0], [0.0, 9.0]]), slice(None)),
        (torch.tensor([[9.0, 16.0], [16.0, 0.0], [0.0, 9.0]]), slice(2)),
        (rows, [0, 2, 5]),
        (rows, slice(1)),
        (rows * 1e4, slice(3, 6)),
        (torch.tensor([[3e38, 1.0], [3e38, 2.0]]), slice(None)),  # their sum is too large for float32
    ]


norm_piece = Exercise(
    "08.b1",
    "the norms over any choice of windows",
    norm_over,
    norm_cases,
    hints=(
        "What adds up over windows: the norms, or their squares?",
        "rows[chosen] are the sums of squares of the chosen windows; .double(), sum over the windows (dim=0), .sqrt(), "
        ".float().",
    ),
    difficulty=1,
    importance=3,
    minutes=5,
    wrong=[
        (
            lambda rows, chosen: rows[chosen].sqrt().sum(dim=0),
            "you add up the norms of the windows. Squares are what adds up: the root comes after the sum.",
        ),
        (
            lambda rows, chosen: rows[chosen].sum(dim=0),
            "the root is missing: these are the sums of squares.",
        ),
        (
            lambda rows, chosen: norm_over(rows, slice(None)),
            "you add up all windows. Only the rows given by `chosen` count.",
        ),
        (
            lambda rows, chosen: rows[chosen].double().mean(dim=0).sqrt(),
            "you take the mean over the windows. That ranks the features alike, but a norm is a sum: windows that are "
            "added later make it grow.",
        ),
        (
            lambda rows, chosen: rows[chosen].square().sum(dim=0).sqrt(),
            "you square what is a square already: `rows` holds sums of squares.",
        ),
        (
            lambda rows, chosen: rows[chosen].sum(dim=1).sqrt(),
            "you add up over the features, which leaves one number per window. Add up over the windows, dim=0.",
        ),
        (
            lambda rows, chosen: rows[chosen].sum(dim=0).sqrt(),
            "you add up in float32. A sum over many tokens loses small terms there, and a very large one becomes "
            "infinite: .double() before the sum.",
        ),
    ],
)


# 08.b2 Who changes sides, by rank ----------------------------------------------------------------------------------------


def changed_by_rank(score, other, sparsity, bins):
    rank = score.argsort(dim=1).argsort(dim=1)  # [out, in], 0 for the smallest of its row
    place = (rank * bins // score.shape[1]).flatten()
    differs = wanda.prune_mask(score, sparsity) ^ wanda.prune_mask(other, sparsity)
    changed = torch.bincount(place[differs.flatten()], minlength=bins)
    return changed, torch.bincount(place, minlength=bins)


def changed_cases(generator):
    one, two = torch.rand(2, 8, 20, generator=generator)
    toy = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.3, 1.6, 2.4, 0.5], [0.7, 0.1, 0.6, 0.4]])
    return [
        (toy, toy.flip(1), 0.5, 4),
        (one, two, 0.5, 5),
        (one, one + 0.3 * two, 0.3, 10),
        (one, two, 0.5, 8),  # 20 ranks do not fill 8 bins evenly
        (one, two, 0.33, 5),  # 6.6 weights of a row: 7
        (one, two, 0.31, 5),  # 6.2: 6
    ]


changed_piece = Exercise(
    "08.b2",
    "which weights change sides, by rank",
    changed_by_rank,
    changed_cases,
    hints=(
        "Two questions: what is a weight's rank within its row, and is it pruned under one score only? The rank of an "
        "entry is its place in the sorted row: sorting the sorting order gives it.",
        "rank = score.argsort(dim=1).argsort(dim=1); place = (rank * bins // in).flatten(); differs = the two masks of "
        "wanda.prune_mask joined by ^; torch.bincount(place[differs.flatten()], minlength=bins), and the same of all.",
    ),
    difficulty=3,
    importance=2,
    minutes=15,
    wrong=[
        (
            lambda score, other, s, bins: changed_by_argsort(score, other, s, bins),
            "`argsort` alone gives which weight comes k-th, not the rank of each weight. Apply it once more: the "
            "position at which a weight's own index stands is its rank.",
        ),
        (
            lambda score, other, s, bins: changed_by_rank(other, score, s, bins),
            "you rank the weights by `other`. The question is about the ranks under `score`.",
        ),
        (
            lambda score, other, s, bins: tuple(counts.flip(0) for counts in changed_by_rank(score, other, s, bins)),
            "your ranks begin with the largest score of each row. Rank 0 is the smallest.",
        ),
        (
            lambda score, other, s, bins: (
                changed_by_rank(score, other, s, bins)[1] - changed_by_rank(score, other, s, bins)[0],
                changed_by_rank(score, other, s, bins)[1],
            ),
            "you count the weights on which the two masks agree. Count those on which they differ.",
        ),
    ],
)


@changed_piece.misconception(
    "you rank the weights over the whole layer. Wanda compares within a row, so the threshold is somewhere else in each: "
    "rank within the row."
)
def changed_by_layer(score, other, sparsity, bins):
    ranks = score.flatten().argsort().argsort().view_as(score)
    place = (ranks * bins // score.numel()).flatten()
    differs = wanda.prune_mask(score, sparsity) ^ wanda.prune_mask(other, sparsity)
    changed = torch.bincount(place[differs.flatten()], minlength=bins)
    return changed, torch.bincount(place, minlength=bins)


@changed_piece.misconception(
    "you count one direction only, weights that `score` keeps and `other` prunes. Those that go the other way change "
    "sides as well."
)
def changed_one_way(score, other, sparsity, bins):
    place = (score.argsort(dim=1).argsort(dim=1) * bins // score.shape[1]).flatten()
    lost = wanda.prune_mask(other, sparsity) & ~wanda.prune_mask(score, sparsity)
    return torch.bincount(place[lost.flatten()], minlength=bins), torch.bincount(place, minlength=bins)


def changed_by_argsort(score, other, sparsity, bins):
    place = (score.argsort(dim=1) * bins // score.shape[1]).flatten()
    differs = wanda.prune_mask(score, sparsity) ^ wanda.prune_mask(other, sparsity)
    changed = torch.bincount(place[differs.flatten()], minlength=bins)
    return changed, torch.bincount(place, minlength=bins)


# 08.b3 The price of a mask -----------------------------------------------------------------------------------------------


def price_of(score, mask, sparsity):
    least = score[wanda.prune_mask(score, sparsity)].norm()
    return float(score[mask].norm() / least)


def price_cases(generator):
    score, other = torch.rand(2, 6, 12, generator=generator) + 0.1
    scale = torch.arange(1.0, 7)[:, None]  # rows of different size
    toy = torch.tensor([[0.9, 0.8, 0.8, 0.3], [0.2, 1.6, 2.4, 0.25]])
    return [
        (toy, MASK_A[:2], 0.5),
        (score, wanda.prune_mask(score), 0.5),  # the best mask costs 1
        (score, wanda.prune_mask(other), 0.5),
        (scale * score, wanda.prune_mask(other, 0.25), 0.25),
        (score, wanda.prune_mask(other, 0.4), 0.4),  # 4.8 weights of a row: 5
        (score, wanda.prune_mask(other, 0.35), 0.35),  # 4.2: 4
    ]


price_piece = Exercise(
    "08.b3",
    "the price of a mask",
    price_of,
    price_cases,
    hints=(
        "Which mask removes the least? You have a function that finds it.",
        "score[mask].norm() over score[wanda.prune_mask(score, sparsity)].norm(), as a float.",
    ),
    difficulty=2,
    importance=2,
    minutes=10,
    wrong=[
        (
            lambda score, mask, s: float(score[mask].sum() / score[wanda.prune_mask(score, s)].sum()),
            "you add up the scores. Errors of different weights add up as squares: square, add, and take the root.",
        ),
        (
            lambda score, mask, s: price_of(score, mask, s) ** 2,
            "you divided the sums of squares. Take the root of each, or of their quotient.",
        ),
        (
            lambda score, mask, s: 1 / price_of(score, mask, s),
            "your quotient is upside down: the best mask costs 1, and any other more.",
        ),
        (
            lambda score, mask, s: float(score[mask].norm() / score.norm()),
            "you divide by the score of the whole layer. The least possible is what the mask of this score removes.",
        ),
        (
            lambda score, mask, s: float(score[~mask].norm() / score[wanda.prune_mask(score, s)].norm()),
            "you took the kept weights. In `mask`, True means pruned: those are what is removed.",
        ),
    ],
)


@price_piece.misconception(
    "your least is taken over the whole layer. The masks compare within each row, `sparsity` of each; so does the least."
)
def price_over_the_layer(score, mask, sparsity):
    least = score.flatten().sort().values[: int(mask.sum())].norm()
    return float(score[mask].norm() / least)


@price_piece.misconception(
    "you average the price of each row. A row with small scores then counts as much as one with large ones: take the root "
    "of one sum over the whole layer."
)
def price_by_row(score, mask, sparsity):
    least = score.masked_fill(~wanda.prune_mask(score, sparsity), 0).norm(dim=1)
    return float((score.masked_fill(~mask, 0).norm(dim=1) / least).mean())
