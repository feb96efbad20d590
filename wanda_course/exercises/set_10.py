"""Exercises of notebook 10: zero-shot tasks."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise


def flips(generator, count, chance):
    """A tensor [count] of ones and zeros: right and wrong answers."""
    return (torch.rand(count, generator=generator) < chance).double()


# 10.1 The answer, by length ---------------------------------------------------------------------------------------------


def answer_per_character(log_likelihoods, choices):
    lengths = torch.tensor([len(choice) for choice in choices])  # [choices]
    return int((log_likelihoods / lengths).argmax())


def answer_cases(generator):
    names = ["Alexander Graham Bell", "Thomas Edison", "Samuel Morse", "Guglielmo Marconi"]
    words = ["a b c d e f g h", "abcdefgh", "ab cd", "xyz"]
    ends = ["carbon dioxide", "hydrogen", "air", "carbon monoxide"]
    random = [(-20 * torch.rand(4, generator=generator).double() - 1, ends) for _ in range(6)]
    return [
        (torch.tensor([-9.0, -7.5, -8.5, -16.0]).double(), names),
        (torch.tensor([-8.0, -3.9, -2.0, -1.8]).double(), words),
        (torch.tensor([-4.0, -6.0, -2.0, -9.0]).double(), ["yes", "certainly", "no", "perhaps not"]),
        (torch.tensor([-4.0, -8.5, -2.0, -12.0]).double(), ["yes", "certainly", "no", "perhaps not"]),
        *random,
    ]


def lengths(choices):
    return torch.tensor([len(choice) for choice in choices])


answer = Exercise(
    "10.1",
    "the answer by log-likelihood per character",
    answer_per_character,
    answer_cases,
    hints=(
        "Make a tensor of the lengths of the choices, in characters. What do you do with it before you look for the "
        "largest?",
        "int((log_likelihoods / lengths).argmax()), with lengths = torch.tensor([len(choice) for choice in choices])",
    ),
    wrong=[
        (
            lambda sums, choices: int(sums.argmax()),
            "you took the highest sum. Every token lowers a sum, so long choices start behind: divide each by the "
            "length of its own choice first. (Dividing all by one number changes nothing.)",
        ),
        (
            lambda sums, choices: int((sums / lengths(choices)).argmin()),
            "you took the lowest value. Log-likelihoods are negative, and the likeliest choice is the one nearest to "
            "0.",
        ),
        (
            lambda sums, choices: int((sums / lengths([choice.split() for choice in choices])).argmax()),
            "you divided by the number of words. The length asked for is in characters: len(choice).",
        ),
        (
            lambda sums, choices: int((sums * lengths(choices)).argmax()),
            "you multiplied by the length, which puts long choices even further behind. Divide.",
        ),
        (
            lambda sums, choices: float((sums / lengths(choices)).max()),
            "you returned the highest value. Its index is wanted: argmax, not max.",
        ),
        (
            lambda sums, choices: int((sums / (lengths(choices) + 1)).argmax()),
            "you count one character too many: the space between prompt and choice is not part of the choice. That "
            "favors short choices. lm-eval divides by len(choice).",
        ),
        (
            lambda sums, choices: int((sums / lengths([choice.replace(" ", "") for choice in choices])).argmax()),
            "you leave out the spaces inside a choice. They count as characters: len(choice).",
        ),
        (
            lambda sums, choices: int(lengths(choices).argmax()),
            "you returned the longest choice. Divide the log-likelihoods by the lengths.",
        ),
        (
            lambda sums, choices: int(lengths(choices).argmin()),
            "you returned the shortest choice. Divide the log-likelihoods by the lengths.",
        ),
    ],
)


# 10.2 The standard error of an accuracy --------------------------------------------------------------------------------


def standard_error(right):
    accuracy = right.mean()
    return float((accuracy * (1 - accuracy) / (len(right) - 1)).sqrt())


def standard_error_cases(generator):
    four = torch.tensor([1.0, 1.0, 1.0, 0.0]).double()
    return [(four,), (torch.ones(5).double(),), (flips(generator, 68, 0.7),), (flips(generator, 300, 0.4),)]


error = Exercise(
    "10.2",
    "the standard error of an accuracy",
    standard_error,
    standard_error_cases,
    hints=(
        "The variance of a yes-or-no answer is p(1 - p). What is left of it in the mean of n answers?",
        "The root of p(1 - p)/(n - 1), which is right.std() / len(right) ** 0.5.",
    ),
    wrong=[
        (
            lambda right: float(right.std()),
            "this is the spread of single items. It does not shrink with more items; the error of the mean does, by "
            "the root of their number.",
        ),
        (
            lambda right: float(right.var() / len(right)),
            "this is the square of the standard error: the root is missing.",
        ),
        (
            lambda right: float(right.std() / len(right)),
            "you divided the spread by n. Errors cancel only in part: divide by the root of n.",
        ),
        (
            lambda right: float(right.std(correction=0) / math.sqrt(len(right))),
            "nearly: you divided by n where lm-eval divides by n - 1. The mean comes from the same items, which uses "
            "one of them up.",
        ),
        (
            lambda right: float(right.mean() * (1 - right.mean())),
            "p(1 - p) is the variance of a single answer. Divide by the number of items, less one, and take the root.",
        ),
        (
            lambda right: float((right.mean() * (1 - right.mean())).sqrt()),
            "the root of p(1 - p) is the spread of single answers. The error of the mean shrinks with the number of "
            "items: n - 1 belongs under the root.",
        ),
        (
            lambda right: float(right.mean() * (1 - right.mean()) / len(right)),
            "two things are missing: the root, and n - 1 in place of n. What you have is (nearly) the square of the "
            "error.",
        ),
        (
            lambda right: float((right.mean() * (1 - right.mean())).sqrt()) / (len(right) - 1),
            "you took the root of p(1 - p) alone. The n - 1 belongs under the root as well.",
        ),
        (
            lambda right: float((right.mean() * (1 - right.mean())).sqrt()) / len(right),
            "you took the root of p(1 - p) and divided by n. The number of items belongs under the root as well, as n "
            "- 1.",
        ),
        (
            lambda right: float(right.std() / math.sqrt(len(right) - 1)),
            "you corrected twice: std() already divides by n - 1. Divide it by the root of n.",
        ),
        (
            lambda right: 2 * standard_error(right),
            "this is two standard errors, half the width of a 95 % interval. One is wanted.",
        ),
        (lambda right: 100 * standard_error(right), "your result is in percent. Accuracies here are between 0 and 1."),
        (
            lambda right: 0.5 / math.sqrt(len(right)),
            "you assumed an accuracy of one half, where the error is largest. Take the accuracy of these items.",
        ),
    ],
)


# 10.3 A paired difference ------------------------------------------------------------------------------------------------


def paired_difference(first, second):
    change = second - first  # [items]: -1 lost, 0 the same, 1 gained
    return float(change.mean()), float(change.std() / math.sqrt(len(change)))


def paired_cases(generator):
    first = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 0.0]).double()
    second = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0]).double()
    dense, other = flips(generator, 80, 0.7), flips(generator, 80, 0.2)
    better = (flips(generator, 60, 0.4), flips(generator, 60, 0.8))  # here the second is ahead
    pairs = [(first, second), (dense, dense * (1 - other)), (flips(generator, 200, 0.6), flips(generator, 200, 0.5))]
    return [*pairs, better]


difference = Exercise(
    "10.3",
    "a paired difference and its standard error",
    paired_difference,
    paired_cases,
    hints=(
        "For each item there are three cases: lost (-1), the same (0), gained (1). Make that tensor first.",
        "change = second - first; then change.mean() and change.std() / len(change) ** 0.5.",
    ),
    wrong=[
        (
            lambda a, b: (float(b.mean() - a.mean()), math.hypot(standard_error(a), standard_error(b))),
            "you treated the two models as if each had answered its own items. They answered the same ones: take the "
            "difference item by item first, then the error of its mean.",
        ),
        (
            lambda a, b: paired_difference(b, a),
            "the sign is reversed: you took first minus second. A loss must be negative.",
        ),
        (
            lambda a, b: paired_difference(torch.zeros_like(a), (b - a).abs()),
            "you took absolute values, so a lost and a gained item add up. They should cancel: keep the sign.",
        ),
        (
            lambda a, b: (float((b - a).mean()), float((b - a).std())),
            "the difference is right. The error is still that of a single item: divide by the root of their number.",
        ),
        (
            lambda a, b: (float(b.mean() - a.mean()), standard_error(a) + standard_error(b)),
            "you added the errors of the two models. Take the difference item by item, and the error of its mean.",
        ),
        (
            lambda a, b: (float(b.mean() - a.mean()), abs(standard_error(a) - standard_error(b))),
            "you subtracted the errors of the two models. Errors never cancel like that; take the difference item by "
            "item, and the error of its mean.",
        ),
        (
            lambda a, b: (float((b - a).mean()), standard_error(b)),
            "the difference is right. Your error is that of the second model's accuracy; take that of the changes.",
        ),
        (
            lambda a, b: (abs(paired_difference(a, b)[0]), paired_difference(a, b)[1]),
            "you return the size of the difference without its sign. Whether the second model is better or worse "
            "matters.",
        ),
        (
            lambda a, b: paired_difference(a[a != b], b[a != b]),
            "you left out the items on which the two agree. They are zeros among the differences, and count in the "
            "mean and in the error.",
        ),
        (
            lambda a, b: (float((b - a).mean()), float((b - a).std(correction=0) / math.sqrt(len(a)))),
            "nearly: your standard deviation divides by n, where n - 1 is usual, as in the error of an accuracy.",
        ),
        (
            lambda a, b: (float((b - a).mean()), float((b - a).std() / len(a))),
            "the difference is right. For the error, divide the standard deviation by the root of n, not by n.",
        ),
        (
            lambda a, b: (float((b - a).mean()), float((b - a).var() / len(a))),
            "the difference is right. Your error is still squared: the root is missing.",
        ),
        (
            lambda a, b: (paired_difference(a, b)[0] * len(a), paired_difference(a, b)[1]),
            "your first number counts items, gained less lost. A difference of accuracies is wanted: the mean, not "
            "the sum.",
        ),
        (
            lambda a, b: [100 * number for number in paired_difference(a, b)],
            "your results are in percent. Accuracies here are between 0 and 1.",
        ),
        (
            lambda a, b: paired_difference(a, b)[::-1],
            "the two numbers are right, in the wrong order: first the difference, then its error.",
        ),
    ],
)


@difference.misconception(
    "the difference is right. But p(1 - p) is the variance of zeros and ones; the changes are -1, 0 and 1. Take their "
    "standard deviation."
)
def formula_of_an_accuracy(first, second):
    difference = float((second - first).mean())
    return difference, math.sqrt(abs(difference) * (1 - abs(difference)) / (len(first) - 1))


# 10.4 The sign test ------------------------------------------------------------------------------------------------------


def sign_test(lost, gained):
    count = lost + gained
    tail = sum(math.comb(count, k) for k in range(min(lost, gained) + 1)) / 2**count
    return min(1.0, 2 * tail)


def sign_test_cases(generator):
    random = [torch.randint(30, (2,), generator=generator).tolist() for _ in range(4)]
    return [(3, 1), (8, 1), (1, 8), (5, 5), (0, 0), *map(tuple, random)]


def tail(count, last):
    """The chance of at most `last` heads in `count` flips."""
    return sum(math.comb(count, k) for k in range(last + 1)) / 2**count


coins = Exercise(
    "10.4",
    "a sign test",
    sign_test,
    sign_test_cases,
    hints=(
        "If pruning only shuffled answers, each changed item would be a coin flip. How likely are at most min(lost, "
        "gained) heads in lost + gained flips, in either direction?",
        "tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n with n = lost + gained; min(1.0, 2 "
        "* tail).",
    ),
    wrong=[
        (
            lambda lost, gained: tail(lost + gained, min(lost, gained)),
            "this is one tail. Before the run you did not know which way it would go: count both tails.",
        ),
        (
            lambda lost, gained: 2 * tail(lost + gained, min(lost, gained)),
            "this exceeds 1 where lost and gained are equal. A probability cannot: cap it.",
        ),
        (
            lambda lost, gained: math.comb(lost + gained, lost) / 2 ** (lost + gained),
            "this is the chance of exactly this split. What counts is a split at least as uneven: add up the tail.",
        ),
        (
            lambda lost, gained: min(1.0, 2 * tail(lost + gained, min(lost, gained) - 1)),
            "your tail stops one too early: the observed split belongs to it.",
        ),
        (
            lambda lost, gained: min(1.0, 2 * tail(lost + gained, gained)),
            "your tail always ends at the gained items. If more are gained than lost, that is nearly everything; take "
            "the smaller of the two.",
        ),
        (
            lambda lost, gained: min(1.0, 2 * tail(lost + gained, lost)),
            "your tail always ends at the lost items. If more are lost than gained, that is nearly everything; take "
            "the smaller number.",
        ),
        (
            lambda lost, gained: min(1.0, 2 * tail(lost + gained, max(lost, gained))),
            "your tail goes up to the larger of the two, which is nearly everything. Start from nothing and stop at "
            "the smaller.",
        ),
        (
            lambda lost, gained: min(1.0, 2 * math.comb(lost + gained, lost) / 2 ** (lost + gained)),
            "this is the chance of exactly this split, in either direction. More uneven splits count as well: add up "
            "the whole tail.",
        ),
        (
            lambda lost, gained: math.erfc(abs(lost - gained) / math.sqrt(2 * (lost + gained) or 1)),
            "you used the normal approximation, which is close only when many items change. Here you can count "
            "exactly: math.comb.",
        ),
        (
            lambda lost, gained: float(2 * sum(math.comb(lost + gained, k) for k in range(min(lost, gained) + 1))),
            "you count outcomes. Divide by the number of all outcomes, 2 to the power of n.",
        ),
    ],
    tolerance=1e-9,
)
