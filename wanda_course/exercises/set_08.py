"""Exercises of notebook 08: calibration."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

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
    return [
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
    wrong=[
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
    return [(0.5, 0.5), (0.5, 0.25), (0.7, 0.7), (0.1, 0.6)]


by_chance = Exercise(
    "08.2",
    "the overlap that chance gives",
    chance,
    chance_cases,
    hints=(
        "What share of all weights do both prune, if the two know nothing of each other? What share does at least one?",
        "Both: sparsity_a * sparsity_b. At least one: sparsity_a + sparsity_b minus both. The index is the quotient.",
    ),
    wrong=[
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
    wrong=[
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
