"""Exercises of notebook 10: zero-shot tasks."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise, Misconception


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


def answer_by_sum(log_likelihoods, choices):
    return int(log_likelihoods.argmax())


def answer_least_likely(log_likelihoods, choices):
    lengths = torch.tensor([len(choice) for choice in choices])
    return int((log_likelihoods / lengths).argmin())


def answer_per_word(log_likelihoods, choices):
    return int((log_likelihoods / torch.tensor([len(choice.split()) for choice in choices])).argmax())


def answer_times_length(log_likelihoods, choices):
    return int((log_likelihoods * torch.tensor([len(choice) for choice in choices])).argmax())


def answer_value(log_likelihoods, choices):
    return float((log_likelihoods / torch.tensor([len(choice) for choice in choices])).max())


def answer_with_space(log_likelihoods, choices):
    return int((log_likelihoods / torch.tensor([len(choice) + 1 for choice in choices])).argmax())


def answer_per_letter(log_likelihoods, choices):
    return int((log_likelihoods / torch.tensor([len(choice.replace(" ", "")) for choice in choices])).argmax())


def answer_longest(log_likelihoods, choices):
    return int(torch.tensor([len(choice) for choice in choices]).argmax())


def answer_shortest(log_likelihoods, choices):
    return int(torch.tensor([len(choice) for choice in choices]).argmin())


# 10.2 The standard error of an accuracy --------------------------------------------------------------------------------


def standard_error(right):
    accuracy = right.mean()
    return float((accuracy * (1 - accuracy) / (len(right) - 1)).sqrt())


def standard_error_cases(generator):
    four = torch.tensor([1.0, 1.0, 1.0, 0.0]).double()
    return [(four,), (torch.ones(5).double(),), (flips(generator, 68, 0.7),), (flips(generator, 300, 0.4),)]


def spread_of_items(right):
    return float(right.std())


def variance_of_the_mean(right):
    return float(right.var() / len(right))


def divided_by_n(right):
    return float(right.std() / len(right))


def with_n(right):
    return float(right.std(correction=0) / math.sqrt(len(right)))


def variance_of_an_item(right):
    return float(right.mean() * (1 - right.mean()))


def spread_without_count(right):
    return float((right.mean() * (1 - right.mean())).sqrt())


def variance_with_n(right):
    return float(right.mean() * (1 - right.mean()) / len(right))


def root_of_the_top_only(right):
    return spread_without_count(right) / (len(right) - 1)


def root_of_the_top_with_n(right):
    return spread_without_count(right) / len(right)


def corrected_twice(right):
    return float(right.std() / math.sqrt(len(right) - 1))


def two_errors(right):
    return 2 * standard_error(right)


def in_percent(right):
    return 100 * standard_error(right)


def worst_case(right):
    return 0.5 / math.sqrt(len(right))


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


def as_two_samples(first, second):
    error = math.sqrt(standard_error(first) ** 2 + standard_error(second) ** 2)
    return float(second.mean() - first.mean()), error


def turned_round(first, second):
    return paired_difference(second, first)


def without_sign(first, second):
    change = (second - first).abs()
    return float(change.mean()), float(change.std() / math.sqrt(len(change)))


def spread_of_changes(first, second):
    change = second - first
    return float(change.mean()), float(change.std())


def errors_added(first, second):
    return float(second.mean() - first.mean()), standard_error(first) + standard_error(second)


def errors_subtracted(first, second):
    return float(second.mean() - first.mean()), abs(standard_error(first) - standard_error(second))


def without_sign_of_the_mean(first, second):
    difference, error = paired_difference(first, second)
    return abs(difference), error


def only_what_changed(first, second):
    return paired_difference(first[first != second], second[first != second])


def formula_of_an_accuracy(first, second):
    difference = float((second - first).mean())
    return difference, math.sqrt(abs(difference) * (1 - abs(difference)) / (len(first) - 1))


def paired_with_n(first, second):
    change = second - first
    return float(change.mean()), float(change.std(correction=0) / math.sqrt(len(change)))


def paired_divided_by_n(first, second):
    change = second - first
    return float(change.mean()), float(change.std() / len(change))


def paired_variance(first, second):
    change = second - first
    return float(change.mean()), float(change.var() / len(change))


def number_of_items(first, second):
    difference, error = paired_difference(first, second)
    return difference * len(first), error


def paired_in_percent(first, second):
    difference, error = paired_difference(first, second)
    return 100 * difference, 100 * error


def error_first(first, second):
    difference, error = paired_difference(first, second)
    return error, difference


def error_of_the_second(first, second):
    return float((second - first).mean()), standard_error(second)


# 10.4 The sign test ------------------------------------------------------------------------------------------------------


def sign_test(lost, gained):
    count = lost + gained
    tail = sum(math.comb(count, k) for k in range(min(lost, gained) + 1)) / 2**count
    return min(1.0, 2 * tail)


def sign_test_cases(generator):
    random = [torch.randint(30, (2,), generator=generator).tolist() for _ in range(4)]
    return [(3, 1), (8, 1), (1, 8), (5, 5), (0, 0), *map(tuple, random)]


def one_sided(lost, gained):
    count = lost + gained
    return sum(math.comb(count, k) for k in range(min(lost, gained) + 1)) / 2**count


def without_cap(lost, gained):
    return 2 * one_sided(lost, gained)


def only_this_count(lost, gained):
    return math.comb(lost + gained, lost) / 2 ** (lost + gained)


def stricter_tail(lost, gained):
    count = lost + gained
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(min(lost, gained))) / 2**count)


def only_losses_count(lost, gained):
    count = lost + gained
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(gained + 1)) / 2**count)


def only_gains_count(lost, gained):
    return only_losses_count(gained, lost)


def up_to_the_larger(lost, gained):
    count = lost + gained
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(max(lost, gained) + 1)) / 2**count)


def twice_this_count(lost, gained):
    return min(1.0, 2 * only_this_count(lost, gained))


def normal_curve(lost, gained):
    count = lost + gained
    return math.erfc(abs(lost - gained) / math.sqrt(2 * count)) if count else 1.0


def not_divided(lost, gained):
    return float(2 * sum(math.comb(lost + gained, k) for k in range(min(lost, gained) + 1)))


EXERCISES = [
    Exercise(
        key="10.1",
        title="the answer by log-likelihood per character",
        cases=answer_cases,
        solution=answer_per_character,
        misconceptions=[
            Misconception(
                answer_by_sum,
                "your answers are those of the highest sum. Every further token makes a sum smaller, so long choices start "
                "behind: divide each by the length of its own choice first. (Dividing all by one number changes nothing.)",
            ),
            Misconception(
                answer_least_likely,
                "you took the lowest value. Log-likelihoods are negative, and the likeliest choice is the one nearest to 0.",
            ),
            Misconception(
                answer_per_word,
                "you divided by the number of words. The length asked for is in characters: len(choice).",
            ),
            Misconception(
                answer_times_length,
                "you multiplied by the length, which puts long choices even further behind. Divide.",
            ),
            Misconception(answer_value, "what you return is the highest value. Its place is wanted: argmax, not max."),
            Misconception(
                answer_with_space,
                "you count one character too many: the space between prompt and choice is not part of the choice. That "
                "favors short choices. lm-eval divides by len(choice).",
            ),
            Misconception(
                answer_per_letter, "you leave out the spaces inside a choice. They count as characters: len(choice)."
            ),
            Misconception(
                answer_longest, "you return the longest choice. The log-likelihoods have a say, too: divide."
            ),
            Misconception(
                answer_shortest, "you return the shortest choice. The log-likelihoods have a say, too: divide."
            ),
        ],
        hints=(
            "Make a tensor of the lengths of the choices, in characters. What do you do with it before you look for the largest?",
            "int((log_likelihoods / lengths).argmax()), with lengths = torch.tensor([len(choice) for choice in choices])",
        ),
    ),
    Exercise(
        key="10.2",
        title="the standard error of an accuracy",
        cases=standard_error_cases,
        solution=standard_error,
        misconceptions=[
            Misconception(
                spread_of_items,
                "this is how far single items lie from their mean. It does not shrink with more items; the error of the mean "
                "does, by the root of their number.",
            ),
            Misconception(variance_of_the_mean, "this is the square of the standard error: the root is missing."),
            Misconception(
                divided_by_n,
                "you divided the spread by n. Errors partly cancel, but only so far that the root of n divides.",
            ),
            Misconception(
                with_n,
                "nearly: you divided by n where lm-eval divides by n - 1. The mean was taken from the same items, which uses "
                "one of them up.",
            ),
            Misconception(
                variance_of_an_item,
                "p(1 - p) is the variance of a single answer. Divide by the number of items, less one, and take the root.",
            ),
            Misconception(
                spread_without_count,
                "the root of p(1 - p) is how far single answers lie from their mean. The error of the mean shrinks with the "
                "number of items: n - 1 belongs under the root.",
            ),
            Misconception(
                variance_with_n,
                "two things are missing: the root, and n - 1 in place of n. What you have is (nearly) the square of the error.",
            ),
            Misconception(
                root_of_the_top_only,
                "you took the root of p(1 - p) alone. The n - 1 stands under the root as well.",
            ),
            Misconception(
                root_of_the_top_with_n,
                "you took the root of p(1 - p) and divided by n. The number of items stands under the root as well, as n - 1.",
            ),
            Misconception(
                corrected_twice,
                "you corrected twice: std() has divided by n - 1 already. Divide it by the root of n.",
            ),
            Misconception(two_errors, "this is two standard errors, half the width of a 95 % interval. One is wanted."),
            Misconception(in_percent, "your result is in percent. Accuracies here are between 0 and 1."),
            Misconception(
                worst_case,
                "you assumed an accuracy of one half, where the error is largest. Take the accuracy of these items.",
            ),
        ],
        hints=(
            "The variance of a yes-or-no answer is p(1 - p). What is left of it in the mean of n answers?",
            "The root of p(1 - p)/(n - 1), which is right.std() / len(right) ** 0.5.",
        ),
    ),
    Exercise(
        key="10.3",
        title="a paired difference and its standard error",
        cases=paired_cases,
        solution=paired_difference,
        misconceptions=[
            Misconception(
                as_two_samples,
                "you treated the two models as if each had been asked items of its own. They answered the same ones: take "
                "the difference item by item first, then the error of its mean.",
            ),
            Misconception(turned_round, "the sign is turned round: first minus second. A loss has to be negative."),
            Misconception(
                without_sign,
                "you took absolute values, so that a lost and a gained item add up. They cancel: keep the sign.",
            ),
            Misconception(
                spread_of_changes,
                "the difference is right. The error is still that of a single item: divide by the root of their number.",
            ),
            Misconception(
                errors_added,
                "you added the errors of the two models. Take the difference item by item, and the error of its mean.",
            ),
            Misconception(
                errors_subtracted,
                "you subtracted the errors of the two models. Errors never cancel like that; take the difference item by "
                "item, and the error of its mean.",
            ),
            Misconception(
                error_of_the_second,
                "the difference is right. Your error is that of the second model's accuracy; take that of the changes.",
            ),
            Misconception(
                without_sign_of_the_mean,
                "you return the size of the difference without its sign. Whether the second model is better or worse matters.",
            ),
            Misconception(
                only_what_changed,
                "you left out the items on which the two agree. They are zeros among the differences, and count in the mean "
                "and in the error.",
            ),
            Misconception(
                formula_of_an_accuracy,
                "the difference is right. But p(1 - p) is the variance of zeros and ones; the changes are -1, 0 and 1. Take "
                "their standard deviation.",
            ),
            Misconception(
                paired_with_n,
                "nearly: your standard deviation divides by n, where n - 1 is usual, as in the error of an accuracy.",
            ),
            Misconception(
                paired_divided_by_n,
                "the difference is right. For the error, divide the standard deviation by the root of n, not by n.",
            ),
            Misconception(
                paired_variance, "the difference is right. Your error is still squared: the root is missing."
            ),
            Misconception(
                number_of_items,
                "your first number counts items, gained less lost. A difference of accuracies is wanted: the mean, not the sum.",
            ),
            Misconception(paired_in_percent, "your results are in percent. Accuracies here are between 0 and 1."),
            Misconception(
                error_first, "the two numbers are right, in the wrong order: first the difference, then its error."
            ),
        ],
        hints=(
            "For each item there are three cases: lost (-1), the same (0), gained (1). Make that tensor first.",
            "change = second - first; then change.mean() and change.std() / len(change) ** 0.5.",
        ),
    ),
    Exercise(
        key="10.4",
        title="a sign test",
        cases=sign_test_cases,
        solution=sign_test,
        misconceptions=[
            Misconception(
                one_sided,
                "this is the chance of so few in one direction. Before the run you did not know which way it would go: count "
                "both tails.",
            ),
            Misconception(
                without_cap, "where lost and gained are equal this is above 1. A probability is not: cap it."
            ),
            Misconception(
                only_this_count,
                "this is the chance of exactly this split. What counts is a split as uneven as this or more: add up the tail.",
            ),
            Misconception(stricter_tail, "your tail stops one too early: the split that was seen belongs to it."),
            Misconception(
                only_losses_count,
                "your tail always ends at the gained items. If more are gained than lost, that is nearly everything; take "
                "the smaller of the two.",
            ),
            Misconception(
                only_gains_count,
                "your tail always ends at the lost items. If more are lost than gained, that is nearly everything; take "
                "the smaller number.",
            ),
            Misconception(
                up_to_the_larger,
                "your tail goes up to the larger of the two, which is nearly everything. Start from nothing and stop at the smaller.",
            ),
            Misconception(
                twice_this_count,
                "this is the chance of exactly this split, in either direction. A split that is more uneven counts as well: add "
                "up the whole tail.",
            ),
            Misconception(
                normal_curve,
                "you used the normal curve, which only comes near when many items change. Here the coins can be counted: "
                "math.comb.",
            ),
            Misconception(
                not_divided,
                "you count the ways in which the coins can fall. Divide by all there are, 2 to the power of n.",
            ),
        ],
        hints=(
            "If pruning only shuffled answers, each changed item would be a coin flip. How likely are at most min(lost, gained) "
            "heads in lost + gained flips, in either direction?",
            "tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n with n = lost + gained; min(1.0, 2 * tail).",
        ),
        tolerance=1e-9,
    ),
]
