"""Exercises of notebook 10: zero-shot tasks."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise


def flips(generator, count, chance):
    """A tensor [count] of ones and zeros: right and wrong answers."""
    return (torch.rand(count, generator=generator) < chance).double()


# 10.b1 The score of a choice ----------------------------------------------------------------------------------------------


def choice_score(logits, ids, start):
    logs = logits.float().log_softmax(dim=-1)  # [tokens, vocabulary]
    places = torch.arange(start, len(ids))  # of the choice's tokens
    return float(logs[places - 1, ids[places]].sum())  # predicted at the place before


def choice_cases(generator):
    def one(tokens, vocabulary, start, dtype=torch.float32):
        logits = 3 * torch.randn(tokens, vocabulary, generator=generator)
        return logits.to(dtype), torch.randint(vocabulary, (tokens,), generator=generator), start

    toy = torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 5.0]])  # [tokens, vocabulary]
    first = (toy, torch.tensor([2, 0, 1, 2]), 1)
    hopeless = (120 * torch.eye(3)[[0, 1, 2, 0]], torch.tensor([2, 0, 2, 2]), 2)  # a probability below all of float32
    return [first, hopeless, one(6, 10, 5), one(9, 7, 3), one(8, 8, 4), one(12, 50, 6, torch.bfloat16)]


def per_token(logits, ids):
    """The log-probability of each token but the first [tokens - 1]."""
    return logits.float().log_softmax(dim=-1)[:-1].gather(1, ids[1:, None])[:, 0]


def two_dimensional(logits, ids, start, dim=-1):
    logs = logits.float().log_softmax(dim=dim)
    places = torch.arange(start, len(ids))
    return float(logs[places - 1, ids[places]].sum())


scoring = Exercise(
    "10.b1",
    "the log-likelihood of a choice",
    choice_score,
    choice_cases,
    hints=(
        "Which row of the logits predicts the first token of the choice? The row of the last token of the prompt.",
        "logs = logits.float().log_softmax(dim=-1); then add up logs[place - 1, ids[place]] for every place from start "
        "to the end.",
    ),
    wrong=[
        (
            lambda logits, ids, start: float(
                logits.float().log_softmax(-1)[torch.arange(start, len(ids)), ids[start:]].sum()
            ),
            "you looked each token up in its own row. Row t is about token t + 1, so a token is predicted one row earlier.",
        ),
        (
            lambda logits, ids, start: float(per_token(logits, ids).sum()),
            "you added up the prompt's tokens as well. Only the tokens of the choice count: from start on.",
        ),
        (
            lambda logits, ids, start: float(per_token(logits, ids)[start - 1 :].mean()),
            "you took the mean over the tokens. The log-likelihood is their sum; what to do about length comes later.",
        ),
        (
            lambda logits, ids, start: float(per_token(logits, ids)[start - 1 :].exp().prod()),
            "this is a probability, the product. Add up the logarithms and leave it at that: a product of many small "
            "numbers soon becomes zero.",
        ),
        (
            lambda logits, ids, start: float(per_token(logits, ids)[start - 1 :].exp().sum()),
            "you added up probabilities. The probabilities of a sequence are multiplied; their logarithms are added.",
        ),
        (
            lambda logits, ids, start: float(-per_token(logits, ids)[start - 1 :].sum()),
            "the sign is reversed: this is a loss. A log-likelihood is negative, and nearer to 0 is likelier.",
        ),
        (
            lambda logits, ids, start: float(per_token(logits, ids)[start:].sum()),
            "you left out the first token of the choice. It is ids[start], and row start - 1 predicts it.",
        ),
        (
            lambda logits, ids, start: float(
                logits.float()[torch.arange(start, len(ids)) - 1, ids[torch.arange(start, len(ids))]].sum()
            ),
            "you added up the logits themselves. They are probabilities only after a softmax: take log_softmax over "
            "the vocabulary.",
        ),
        (
            lambda logits, ids, start: two_dimensional(logits, ids, start, dim=0),
            "your softmax runs over the tokens. A row of logits is one distribution over the vocabulary: dim=-1.",
        ),
        (
            lambda logits, ids, start: float(
                logits.log_softmax(-1)[torch.arange(start, len(ids)) - 1, ids[torch.arange(start, len(ids))]].sum()
            ),
            "right but for the precision: these logits are in half precision, and so are your sums. Call float() "
            "before log_softmax.",
        ),
        (
            lambda logits, ids, start: float(
                logits.log_softmax(-1).float()[torch.arange(start, len(ids)) - 1, ids[start:]].sum()
            ),
            "your sums are in float32, but log_softmax itself still ran in half precision, and float() does not bring "
            "its lost digits back. Convert the logits first.",
        ),
        (
            lambda logits, ids, start: float(per_token(logits, ids)[-1]),
            "you took the last token alone. A choice may have several: add them all up.",
        ),
        (
            lambda logits, ids, start: float(
                logits.float().softmax(-1).log()[torch.arange(start, len(ids)) - 1, ids[start:]].sum()
            ),
            "you took the logarithm of a softmax. The probability of a hopeless token is rounded to 0, and its logarithm is infinite: log_softmax does both in one step.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=12,
)


# 10.1 The answer, by length ---------------------------------------------------------------------------------------------


def answer_per_character(log_likelihoods, choices):
    lengths = torch.tensor([len(choice) for choice in choices])  # [choices]
    return int((log_likelihoods / lengths).argmax())


def answer_cases(generator):
    names = ["Alexander Graham Bell", "Thomas Edison", "Samuel Morse", "Guglielmo Marconi"]
    words = ["a b c d e f g h", "abcdefgh", "ab cd", "xyz"]
    ends = ["carbon dioxide", "hydrogen", "air", "carbon monoxide"]
    towns = ["Łódź", "Zürich", "Århus", "Rome"]  # 4, 6, 5 and 4 characters; 7, 7, 6 and 4 bytes
    random = [(-20 * torch.rand(4, generator=generator).double() - 1, ends) for _ in range(6)]
    return [
        (torch.tensor([-9.0, -7.5, -8.5, -16.0]).double(), names),
        (torch.tensor([-8.0, -3.9, -2.0, -1.8]).double(), words),
        (torch.tensor([-4.0, -6.0, -2.0, -9.0]).double(), ["yes", "certainly", "no", "perhaps not"]),
        (torch.tensor([-4.0, -8.5, -2.0, -12.0]).double(), ["yes", "certainly", "no", "perhaps not"]),
        (torch.tensor([-4.4, -7.2, -6.5, -4.0]).double(), towns),
        (torch.tensor([-3.0]).double(), ["so"]),  # one choice
        (torch.tensor([-8.0, -4.0, -2.0]).double(), ["abcdefgh", "abcd", "ab"]),  # level, in floats too: the first
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
            lambda sums, choices: int((sums / lengths([choice.encode() for choice in choices])).argmax()),
            "you divided by the number of bytes. A letter such as ü takes two of them in UTF-8, so other alphabets get "
            "other scores. Count characters: len(choice), without encode.",
        ),
        (
            lambda sums, choices: len(choices) - 1 - int((sums / lengths(choices)).flip(0).argmax()),
            "where two choices are level you take the last one. Take the first, as argmax does.",
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
            "favours short choices. lm-eval divides by len(choice).",
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
    difficulty=1,
    importance=2,
    minutes=4,
)


# 10.2 The standard error of an accuracy --------------------------------------------------------------------------------


def standard_error(right):
    accuracy = right.mean()
    return float((accuracy * (1 - accuracy) / (len(right) - 1)).sqrt())


def standard_error_cases(generator):
    six = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0]).double()
    two, rare = torch.tensor([0.0, 1.0]).double(), torch.zeros(1000).double()
    rare[0] = 1
    cases = [six, torch.ones(5).double(), two, rare, flips(generator, 68, 0.7), flips(generator, 300, 0.4)]
    return [(case,) for case in cases]


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
    difficulty=1,
    importance=3,
    minutes=5,
)


# 10.b2 A paired difference -----------------------------------------------------------------------------------------------


def paired_difference(first, second):
    change = second - first  # [items]: -1 lost, 0 the same, 1 gained
    return float(change.mean()), float(change.std() / math.sqrt(len(change)))


def paired_cases(generator):
    first = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 0.0]).double()
    second = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0]).double()
    dense, other = flips(generator, 80, 0.7), flips(generator, 80, 0.2)
    better = (flips(generator, 60, 0.4), flips(generator, 60, 0.8))  # here the second is ahead
    pairs = [(first, second), (dense, dense * (1 - other)), (flips(generator, 200, 0.6), flips(generator, 200, 0.5))]
    return [*pairs, better, (dense, dense.clone())]  # at last, no difference at all


difference = Exercise(
    "10.b2",
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
            lambda a, b: (float((b - a).mean()), float((b - a)[a != b].std() / math.sqrt(len(a)))),
            "the difference is right. For the error you took the standard deviation of the changed items alone; the "
            "zeros of the others belong to it.",
        ),
        (
            lambda a, b: (float((b - a).mean()), float((b - a).std() / (a != b).sum().sqrt())),
            "the difference is right. For the error you divided by the root of the number of changed items; divide by "
            "the root of the number of all items.",
        ),
        (
            lambda a, b: (float((b - a).mean()), standard_error((a != b).double())),
            "the difference is right. Your error is that of the share of changed items, by p(1 - p), which counts "
            "lost and gained alike: take the standard deviation of the changes, -1, 0 and 1.",
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
    difficulty=1,
    importance=3,
    minutes=6,
)


@difference.misconception(
    "the difference is right. But p(1 - p) is the variance of zeros and ones; the changes are -1, 0 and 1. Take their "
    "standard deviation."
)
def formula_of_an_accuracy(first, second):
    difference = float((second - first).mean())
    return difference, math.sqrt(abs(difference) * (1 - abs(difference)) / (len(first) - 1))


# 10.b3 The sign test -----------------------------------------------------------------------------------------------------


def sign_test(lost, gained):
    count = lost + gained
    tail = sum(math.comb(count, k) for k in range(min(lost, gained) + 1)) / 2**count
    return min(1.0, 2 * tail)


def sign_test_cases(generator):
    random = [torch.randint(30, (2,), generator=generator).tolist() for _ in range(4)]
    many = (600, 500)  # 2**1100 is larger than any float
    return [(3, 1), (8, 1), (1, 8), (5, 5), (0, 0), (0, 1), (60, 30), *map(tuple, random), many]


def tail(count, last):
    """The chance of at most `last` heads in `count` flips."""
    return sum(math.comb(count, k) for k in range(last + 1)) / 2**count


coins = Exercise(
    "10.b3",
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
        (
            lambda lost, gained: min(
                1.0, 2 * sum(math.comb(lost + gained, k) / 2.0 ** (lost + gained) for k in range(min(lost, gained) + 1))
            ),
            "right, but not for many items: as a float, 2.0 ** n overflows above n = 1023. Python's whole numbers do "
            "not: divide by 2**n.",
        ),
    ],
    tolerance=1e-9,
    difficulty=2,
    importance=2,
    minutes=10,
)


# 10.3 Holm's correction --------------------------------------------------------------------------------------------------


def holm(p_values, level):
    count, order = len(p_values), p_values.argsort()
    limits = level / torch.arange(count, 0, -1, dtype=p_values.dtype)  # for the smallest, the next, ...
    passes = (p_values[order] <= limits).cumprod(dim=0).bool()  # False from the first failure on
    return torch.zeros(count, dtype=torch.bool).scatter(0, order, passes)


def holm_cases(generator):
    def numbers(*values):
        return torch.tensor(values, dtype=torch.float64)

    skewed = torch.rand(15, generator=generator).double() ** 6
    return [
        (numbers(0.012, 0.4, 0.02, 0.001), 0.05),  # 0.02 passes with Holm only
        (numbers(0.04, 0.01, 0.045, 0.3), 0.05),  # 0.04 fails, so 0.045 does
        (numbers(0.001, 0.03, 0.04, 0.045), 0.05),  # the second fails; the last is below its own limit
        (numbers(0.0625, 0.9, 0.5, 0.7), 0.25),  # exactly at its level
        (numbers(0.03), 0.05),
        (numbers(0.4, 0.0126, 0.6, 0.9), 0.05),  # 0.05 / 4 is 0.0125
        (numbers(0.02, 0.02, 0.02), 0.05),
        (numbers(0.0, 1.0), 0.05),
        (skewed, 0.05),
        (torch.rand(8, generator=generator).double() ** 4, 0.1),
    ]


def in_order(p_values, keep):
    """The verdicts on the sorted probabilities, put back in the order given."""
    order = p_values.argsort()
    return torch.zeros(len(order), dtype=torch.bool).scatter(0, order, keep(p_values[order]))


def limits(p_values, level):
    return level / torch.arange(len(p_values), 0, -1, dtype=p_values.dtype)


correction = Exercise(
    "10.3",
    "Holm's correction",
    holm,
    holm_cases,
    hints=(
        "Sort, and compare the smallest with level / m, the next with level / (m - 1), and so on. What does the first "
        "failure mean for those after it? And in which order must the verdicts be returned?",
        "order = p_values.argsort(); walk through it with the number of those left; found[place] = True while "
        "p_values[place] <= level / left, then break. found starts as torch.zeros(m, dtype=torch.bool).",
    ),
    wrong=[
        (lambda p, level: p <= level, "you corrected nothing: each is tested at the full level."),
        (
            lambda p, level: p <= level / len(p),
            "this is Bonferroni's correction: all at level / m. Holm relaxes the level with every one that has passed.",
        ),
        (
            lambda p, level: in_order(p, lambda p: p <= limits(p, level)),
            "you go on after a failure. The first that is larger than its level ends the test: all larger ones fail, "
            "too.",
        ),
        (
            lambda p, level: in_order(p, lambda p: (p <= limits(p, level)).flip(0).cummax(0).values.flip(0)),
            "you start at the largest and accept all below the first that passes. That is Hochberg's procedure, which "
            "needs assumptions on how the tests depend on each other. Start at the smallest and stop at a failure.",
        ),
        (
            lambda p, level: in_order(p, lambda p: (p <= limits(p, level).flip(0)).cumprod(0).bool()),
            "you use the levels in reverse: the smallest probability gets the loosest one. It gets level / m, the "
            "strictest.",
        ),
        (
            lambda p, level: (p.sort().values <= limits(p, level)).cumprod(0).bool(),
            "your verdicts are in sorted order. Put each back to the place of its comparison.",
        ),
        (
            lambda p, level: in_order(p, lambda p: (p < limits(p, level)).cumprod(0).bool()),
            "a probability equal to its level passes: <=, not <.",
        ),
        (
            lambda p, level: int(holm(p, level).sum()),
            "this is how many pass. Return which: a bool tensor, in the order given.",
        ),
        (
            lambda p, level: ~holm(p, level),
            "you marked those that fail. True is for a comparison that passes.",
        ),
        (
            lambda p, level: (p <= limits(p, level)).cumprod(0).bool(),
            "you took the probabilities in the order given. Sort them first, the smallest in front.",
        ),
        (
            lambda p, level: in_order(
                p,
                lambda p: (p <= 1 - (1 - level) ** (1 / torch.arange(len(p), 0, -1, dtype=p.dtype))).cumprod(0).bool(),
            ),
            "these are Šidák's levels, 1 - (1 - level) ** (1 / left), which are for independent comparisons. Holm's are level / left, whatever the dependence.",
        ),
        (
            lambda p, level: in_order(
                p,
                lambda p: (p <= level / torch.arange(len(p) - 1, -1, -1, dtype=p.dtype).clamp(min=1)).cumprod(0).bool(),
            ),
            "your levels are one step too loose: the smallest of m is tested at level / m, not at level / (m - 1).",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=12,
)


@correction.misconception(
    "this is the procedure of Benjamini and Hochberg. It bounds the share of false alarms among those that pass, which is "
    "a weaker promise than Holm's."
)
def benjamini_hochberg(p_values, level):
    count = len(p_values)
    rising = level * torch.arange(1, count + 1, dtype=p_values.dtype) / count
    return in_order(p_values, lambda p: (p <= rising).flip(0).cummax(0).values.flip(0))


# 10.4 How many items? ----------------------------------------------------------------------------------------------------


def items_needed(changed, difference, errors):
    variance = changed - difference**2  # of a change, which is -1, 0 or 1
    return math.ceil(round(variance * (errors / difference) ** 2, 9))  # a whole number in floats stays whole


def items_cases(generator):
    random = [torch.rand(2, generator=generator).tolist() for _ in range(4)]
    return [
        (0.2, 0.04, 1.7),
        (0.2, -0.05, 1.9),  # a loss needs as many as a gain
        (0.3, 0.01, 2.3),  # a small difference needs many items
        (0.5, 0.5, 2.0),  # all changes in one direction; a whole number, exact in floats whichever way it is computed
        (0.3125, 0.25, 2.0),  # a whole number again
        (0.25, 0.03, 1.96),
        *[(0.1 + 0.4 * one, 0.01 + 0.08 * other, 2.5) for one, other in random],
    ]


needed = Exercise(
    "10.4",
    "the number of items for a difference",
    items_needed,
    items_cases,
    hints=(
        "The paired standard error is the root of variance / n. Set errors times it equal to the difference, and solve "
        "for n.",
        "n = variance * (errors / difference) ** 2 with variance = changed - difference ** 2; then math.ceil.",
    ),
    wrong=[
        (
            lambda changed, difference, errors: int((changed - difference**2) * (errors / difference) ** 2),
            "you rounded down. With that many items the difference is just below what was asked for: round up.",
        ),
        (
            lambda changed, difference, errors: round((changed - difference**2) * (errors / difference) ** 2),
            "you rounded to the nearest number, which is down half of the time: round up.",
        ),
        (
            lambda changed, difference, errors: int((changed - difference**2) * (errors / difference) ** 2) + 1,
            "you added one after rounding down. Where the number is whole already, that is an item too many: round up.",
        ),
        (
            lambda changed, difference, errors: (changed - difference**2) * (errors / difference) ** 2,
            "the number is right but for the fraction. There is no part of an item: round up to an int.",
        ),
        (
            lambda changed, difference, errors: math.ceil(changed * (errors / difference) ** 2),
            "you left out the square of the mean: the variance of the changes is changed - difference ** 2.",
        ),
        (
            lambda changed, difference, errors: math.ceil((changed - difference**2) * errors / abs(difference)),
            "the squares are missing: an error falls with the root of n, so half the difference needs four times the "
            "items.",
        ),
        (
            lambda changed, difference, errors: math.ceil((changed - difference**2) / difference**2),
            "this is for one standard error. Use the number that is given, squared.",
        ),
        (
            lambda changed, difference, errors: math.ceil(changed * (1 - changed) * (errors / difference) ** 2),
            "p(1 - p) is the variance of zeros and ones. The changes are -1, 0 and 1; their variance is changed - "
            "difference ** 2.",
        ),
        (
            lambda changed, difference, errors: math.ceil(
                math.sqrt(changed - difference**2) * (errors / difference) ** 2
            ),
            "you used the standard deviation where its square, the variance, belongs.",
        ),
        (
            lambda changed, difference, errors: math.ceil(0.5 * (errors / difference) ** 2),
            "you planned for two models that answered different items, half of them right. The share of items that "
            "change is given, and is what counts in a paired test.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=8,
)
