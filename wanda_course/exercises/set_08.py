"""Exercises of notebook 08: calibration."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise, Misconception

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


def jaccard_distance(mask_a, mask_b):
    return float((mask_a ^ mask_b).sum() / (mask_a | mask_b).sum())


def jaccard_as_agreement(mask_a, mask_b):
    return float((mask_a == mask_b).double().mean())


def jaccard_of_the_kept(mask_a, mask_b):
    return float((~mask_a & ~mask_b).sum() / (~mask_a | ~mask_b).sum())


def jaccard_of_all(mask_a, mask_b):
    return float((mask_a & mask_b).double().mean())


def jaccard_of_the_first(mask_a, mask_b):
    return float((mask_a & mask_b).sum() / mask_a.sum())


def jaccard_of_the_second(mask_a, mask_b):
    return float((mask_a & mask_b).sum() / mask_b.sum())


def jaccard_counted_twice(mask_a, mask_b):
    return float((mask_a & mask_b).sum() / (mask_a.sum() + mask_b.sum()))


def jaccard_as_dice(mask_a, mask_b):
    return float(2 * (mask_a & mask_b).sum() / (mask_a.sum() + mask_b.sum()))


def jaccard_count(mask_a, mask_b):
    return float((mask_a & mask_b).sum())


# 08.2 Chance -----------------------------------------------------------------------------------------------------------


def chance(sparsity_a, sparsity_b):
    both = sparsity_a * sparsity_b  # share of all weights that two independent masks both prune
    return both / (sparsity_a + sparsity_b - both)


def chance_cases(generator):
    return [(0.5, 0.5), (0.5, 0.25), (0.7, 0.7), (0.1, 0.6)]


def chance_of_both(sparsity_a, sparsity_b):
    return sparsity_a * sparsity_b


def chance_counted_twice(sparsity_a, sparsity_b):
    return sparsity_a * sparsity_b / (sparsity_a + sparsity_b)


def chance_as_if_equal(sparsity_a, sparsity_b):
    return sparsity_a * sparsity_b / (2 * sparsity_a - sparsity_a**2)


def chance_at_best(sparsity_a, sparsity_b):
    return min(sparsity_a, sparsity_b) / max(sparsity_a, sparsity_b)


def chance_to_agree(sparsity_a, sparsity_b):
    return sparsity_a * sparsity_b + (1 - sparsity_a) * (1 - sparsity_b)


def chance_of_the_kept(sparsity_a, sparsity_b):
    return chance(1 - sparsity_a, 1 - sparsity_b)


def chance_of_the_other(sparsity_a, sparsity_b):
    return sparsity_b


def chance_of_nothing(sparsity_a, sparsity_b):
    return 0.0


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


def mixed_norms_themselves(norm_a, tokens_a, norm_b, tokens_b, share):
    return share * norm_a / tokens_a**0.5 + (1 - share) * norm_b / tokens_b**0.5


def mixed_norms_as_they_are(norm_a, tokens_a, norm_b, tokens_b, share):
    return share * norm_a + (1 - share) * norm_b


def mixed_without_tokens(norm_a, tokens_a, norm_b, tokens_b, share):
    return (share * norm_a.square() + (1 - share) * norm_b.square()).sqrt()


def mixed_by_adding_up(norm_a, tokens_a, norm_b, tokens_b, share):
    return ((norm_a.square() + norm_b.square()) / (tokens_a + tokens_b)).sqrt()


def mixed_norms_over_tokens(norm_a, tokens_a, norm_b, tokens_b, share):
    return (share * (norm_a / tokens_a).square() + (1 - share) * (norm_b / tokens_b).square()).sqrt()


def mixed_shares_squared(norm_a, tokens_a, norm_b, tokens_b, share):
    square_a, square_b = norm_a.square() / tokens_a, norm_b.square() / tokens_b
    return (share**2 * square_a + (1 - share) ** 2 * square_b).sqrt()


def mixed_the_other_way(norm_a, tokens_a, norm_b, tokens_b, share):
    return mixed_norm(norm_a, tokens_a, norm_b, tokens_b, 1 - share)


def mixed_without_root(norm_a, tokens_a, norm_b, tokens_b, share):
    return mixed_norm(norm_a, tokens_a, norm_b, tokens_b, share).square()


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


def padded_by_comparison(texts, pad):
    ids, _ = padded(texts, pad)
    return ids, ids != pad


def padded_with_first_padding(texts, pad):
    ids, mask = padded(texts, pad)
    return ids, torch.cat([torch.ones(len(mask), 1, dtype=torch.bool), mask[:, :-1]], dim=1)


def padded_unmasked(texts, pad):
    ids, mask = padded(texts, pad)
    return ids, torch.ones_like(mask)


def padded_mask_inverted(texts, pad):
    ids, mask = padded(texts, pad)
    return ids, ~mask


def padded_on_the_left(texts, pad):
    ids, mask = padded([text.flip(0) for text in texts], pad)
    return ids.flip(1), mask.flip(1)


def padded_by_cutting(texts, pad):
    shortest = min(map(len, texts))
    return padded([text[:shortest] for text in texts], pad)


def padded_with_zeros(texts, pad):
    return padded(texts, 0)


EXERCISES = [
    Exercise(
        key="08.1",
        title="the Jaccard index of two masks",
        cases=jaccard_cases,
        solution=jaccard,
        misconceptions=[
            Misconception(
                jaccard_distance,
                "this is the Jaccard distance: the weights that only one mask prunes, out of those that either prunes. It "
                "is 0 for equal masks; the index is 1 minus that.",
            ),
            Misconception(
                jaccard_as_agreement,
                "you counted the places where the masks agree, and that includes the weights that both keep. Two masks that "
                "prune next to nothing would agree nearly everywhere. Look at the pruned ones only.",
            ),
            Misconception(
                jaccard_of_the_kept,
                "you compared the kept weights. True means pruned here; the index asked for is that of the pruned sets.",
            ),
            Misconception(
                jaccard_of_all,
                "you divided by the number of all weights. Even two equal masks would not reach 1: divide by the number "
                "that at least one of them prunes.",
            ),
            Misconception(
                jaccard_of_the_first,
                "you divided by what the first mask prunes. Swap the masks, and the answer changes; the index divides by the "
                "union.",
            ),
            Misconception(
                jaccard_of_the_second,
                "you divided by what the second mask prunes. Swap the masks, and the answer changes; the index divides by "
                "the union.",
            ),
            Misconception(
                jaccard_counted_twice,
                "you divided by the sum of both sizes, in which the weights that both prune are counted twice. The union "
                "counts them once.",
            ),
            Misconception(
                jaccard_as_dice,
                "this is the Dice coefficient, twice the intersection over the sum of the sizes. It orders pairs in the same "
                "way, but it is larger than the Jaccard index, which divides by the union.",
            ),
            Misconception(
                jaccard_count, "this is how many weights both prune, not a share. Divide by the size of the union."
            ),
        ],
        hints=(
            "Two sets: what both prune, and what at least one prunes. On bool tensors & and | make them, element by element.",
            "(mask_a & mask_b).sum() over (mask_a | mask_b).sum(), as a float.",
        ),
    ),
    Exercise(
        key="08.2",
        title="the overlap that chance gives",
        cases=chance_cases,
        solution=chance,
        misconceptions=[
            Misconception(
                chance_of_both,
                "this is the share of all weights that both prune. The index divides it by the share that at least one of "
                "them prunes.",
            ),
            Misconception(
                chance_counted_twice,
                "you divided by the sum of the sparsities, which counts the weights that both prune twice. Take them off "
                "once to have the union.",
            ),
            Misconception(
                chance_as_if_equal,
                "this is the union of two masks of the first sparsity. For unequal ones it is sparsity_a + sparsity_b, less "
                "what both prune.",
            ),
            Misconception(
                chance_at_best,
                "this is the best case, one mask inside the other. Random masks know nothing of each other.",
            ),
            Misconception(
                chance_to_agree,
                "this is how often two random masks agree, weights that both keep included. The index looks at the pruned "
                "ones only.",
            ),
            Misconception(
                chance_of_the_kept,
                "this is the index of the kept weights. At a sparsity of a half it happens to be the same.",
            ),
            Misconception(
                chance_of_the_other,
                "this is the share of the first mask's weights that the second prunes too. The index divides by the union, "
                "not by the first mask.",
            ),
            Misconception(
                chance_of_nothing,
                "two random masks are not disjoint: a weight that one prunes is pruned by the other with a probability equal "
                "to its sparsity.",
            ),
        ],
        hints=(
            "What share of all weights do both prune, if the two know nothing of each other? What share does at least one?",
            "Both: sparsity_a * sparsity_b. At least one: sparsity_a + sparsity_b minus both. The index is the quotient.",
        ),
    ),
    Exercise(
        key="08.3",
        title="a mixture that was never run",
        cases=mixed_norm_cases,
        solution=mixed_norm,
        misconceptions=[
            Misconception(
                mixed_norms_themselves,
                "you mixed the norms. Squares are what add up over tokens: mix the squares, and take the root at the end.",
            ),
            Misconception(
                mixed_norms_as_they_are,
                "you mixed the norms as they are. They grow with the number of tokens, and it is their squares that add up: "
                "take each norm's square per token, mix those, and take the root at the end.",
            ),
            Misconception(
                mixed_without_tokens,
                "you mixed the squares as they are, so the source with more tokens weighs more than its share. Divide each "
                "by its own number of tokens first.",
            ),
            Misconception(
                mixed_by_adding_up,
                "this is the merge of what was run: each source weighs as many tokens as it had. The share does not enter.",
            ),
            Misconception(
                mixed_norms_over_tokens,
                "you divided the norms by the number of tokens. The square of a norm is a sum over tokens: divide the square.",
            ),
            Misconception(
                mixed_shares_squared,
                "you multiplied the norms by their shares before squaring, so the shares are squared as well and no longer "
                "add up to 1.",
            ),
            Misconception(
                mixed_the_other_way, "the shares are swapped: `share` is the part that comes from the first source."
            ),
            Misconception(mixed_without_root, "the root at the end is missing: this is the mean square, not its root."),
        ],
        hints=(
            "Of one token of the mixture, what is the expected square of a feature? With probability `share` it is a token "
            "of the first source.",
            "The mean square of a source is norm.square() / tokens. Mix the two mean squares by their shares, then sqrt.",
        ),
    ),
    Exercise(
        key="08.4",
        title="a padded batch and its mask",
        cases=padded_cases,
        solution=padded,
        misconceptions=[
            Misconception(
                padded_by_comparison,
                "your mask is False wherever a token equals the padding's id. Many tokenizers pad with the token that ends "
                "a text, and then real ends of texts are lost. The lengths know better.",
            ),
            Misconception(
                padded_with_first_padding,
                "your mask lets one padding position of each short text through: it is True up to and including position "
                "len(text), one too far.",
            ),
            Misconception(padded_unmasked, "your mask is True everywhere, so padding will count as if it were text."),
            Misconception(padded_mask_inverted, "your mask is turned round: True should mean a token, False padding."),
            Misconception(
                padded_on_the_left,
                "you padded on the left. Models that generate need that, to have the last token at the end; here the texts "
                "are to begin at position 0.",
            ),
            Misconception(
                padded_by_cutting,
                "you cut all texts to the shortest. That needs no padding, but throws text away: fill up to the longest.",
            ),
            Misconception(padded_with_zeros, "you filled up with 0. The padding's id is given as `pad`."),
        ],
        hints=(
            "What tells padding from text for certain: the ids, or the lengths?",
            "torch.full((len(texts), longest), pad) and a mask of False; then, row by row, write the text and True into the "
            "first len(text) places.",
        ),
    ),
]
