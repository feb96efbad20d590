"""Exercises of notebook 09: recovery by masked fine-tuning and LoRA."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise

# 09.1 A step that holds the zeros ---------------------------------------------------------------------------------------


def masked_step(weight, gradient, velocity, mask, rate, limit):
    gradient = gradient.masked_fill(mask, 0)  # [out, in]
    gradient = gradient * min(1.0, limit / float(gradient.norm()))
    velocity = 0.9 * velocity + gradient
    return (weight - rate * velocity).masked_fill(mask, 0)


def step_cases(generator):
    weight = torch.tensor([[0.9, 0.0, 0.0, 0.6], [0.0, 0.8, 0.0, -0.5], [0.7, 0.0, -0.6, 0.0]])  # [out, in]
    gradient = torch.tensor([[0.2, 2.0, -1.0, 0.1], [3.0, 0.3, 0.5, 0.2], [-0.1, 1.0, 0.4, -2.0]])
    velocity = torch.tensor([[0.5, 1.0, 0.0, -0.2], [0.0, 0.1, 2.0, 0.3], [0.2, -1.0, 0.1, 0.5]])
    fresh = torch.zeros_like(velocity)
    random = []
    for rate, limit in ((0.5, 2.0), (0.01, 100.0)):
        mask = torch.rand(6, 5, generator=generator) < 0.5
        one, two, three = torch.randn(3, 6, 5, generator=generator)
        random.append((one.masked_fill(mask, 0), two, three, mask, rate, limit))
    return [
        (weight, gradient, velocity, weight == 0, 0.1, 10.0),  # nothing is clipped
        (weight, gradient, velocity, weight == 0, 0.1, 0.2),  # everything is
        (weight, gradient, velocity, weight == 0, 0.1, 2.0),  # only if the pruned weights are counted in
        (weight, gradient, fresh, weight == 0, 0.1, 2.0),
        *random,
    ]


def clipped(gradient, limit):
    return gradient * min(1.0, limit / float(gradient.norm()))


step = Exercise(
    "09.1",
    "A step that holds the zeros",
    masked_step,
    step_cases,
    hints=(
        "There are two leaks to close, and they need the mask at two places: where the gradient comes in, and where "
        "the weight goes out.",
        "gradient.masked_fill(mask, 0) first; then clip with min(1, limit / norm), update the velocity, take the "
        "step; and .masked_fill(mask, 0) on the result.",
    ),
    wrong=[
        (
            lambda w, g, v, m, r, limit: w - r * (0.9 * v + clipped(g.masked_fill(m, 0), limit)),
            "you mask the gradient and nothing else. The velocity remembers gradients from before the mask, and moves "
            "pruned weights with them. Set them to zero again after the step.",
        ),
        (
            lambda w, g, v, m, r, limit: (w - r * (0.9 * v + clipped(g, limit))).masked_fill(m, 0),
            "your zeros hold, but the gradients of pruned weights count towards the norm that is clipped, and shrink "
            "the step of all others. Mask the gradient before clipping it.",
        ),
        (
            lambda w, g, v, m, r, limit: w - r * (0.9 * v + clipped(g, limit)),
            "the mask is not used at all: one step, and the zeros are gone.",
        ),
        (
            lambda w, g, v, m, r, limit: masked_step(w, g, v, ~m, r, limit),
            "you hold the kept weights at zero, and train the pruned ones. In `mask`, True means pruned.",
        ),
        (
            lambda w, g, v, m, r, limit: masked_step(w, g, torch.zeros_like(v), m, r, limit),
            "this step has no momentum: the velocity is 0.9 times the old one plus the gradient.",
        ),
        (
            lambda w, g, v, m, r, limit: (w - r * clipped(0.9 * v + g.masked_fill(m, 0), limit)).masked_fill(m, 0),
            "you clip the velocity. Clip the gradient, before it enters the velocity.",
        ),
        (
            lambda w, g, v, m, r, limit: masked_step(w, g * limit / g.masked_fill(m, 0).norm(), v, m, r, torch.inf),
            "you scale every gradient to the norm `limit`. Clipping shortens long ones and leaves short ones alone.",
        ),
        (
            lambda w, g, v, m, r, limit: masked_step(w, g.clamp(-limit, limit), v, m, r, torch.inf),
            "you clip each entry by itself. Limit the norm of the whole gradient, which keeps its direction.",
        ),
        (
            lambda w, g, v, m, r, limit: masked_step(w, g, v, m, -r, limit),
            "you add the velocity. A step goes against the gradient: weight − rate · velocity.",
        ),
    ],
)


# 09.2 What the adapters hold --------------------------------------------------------------------------------------------


def adapter_parameters(shapes, rank):
    return sum(rank * (outputs + inputs) for outputs, inputs in shapes)


def adapter_cases(generator):
    return [([(3, 4)], 1), ([(576, 576), (192, 576)], 8), ([(4096, 4096)] * 64, 8), ([(1536, 576), (576, 1536)], 4)]


adapters = Exercise(
    "09.2",
    "What the adapters hold",
    adapter_parameters,
    adapter_cases,
    hints=(
        "How many numbers are in a matrix A [rank, in], and how many in B [out, rank]?",
        "For each shape (out, in): rank * in + rank * out.",
    ),
    wrong=[
        (
            lambda shapes, rank: sum(rank * inputs for outputs, inputs in shapes),
            "you count A [rank, in] only. Each layer has a B [out, rank] as well.",
        ),
        (
            lambda shapes, rank: sum(rank * outputs for outputs, inputs in shapes),
            "you count B [out, rank] only. Each layer has an A [rank, in] as well.",
        ),
        (
            lambda shapes, rank: sum(outputs * inputs for outputs, inputs in shapes),
            "you count the entries of the product B A. It is never stored; only its two factors are trained.",
        ),
        (
            lambda shapes, rank: sum(2 * rank * inputs for outputs, inputs in shapes),
            "you assume that every layer is square. A has as many columns as there are inputs, B as many rows as "
            "outputs.",
        ),
        (
            lambda shapes, rank: sum(rank * outputs * inputs for outputs, inputs in shapes),
            "you multiply inputs and outputs. The factors are two separate matrices: their sizes add up.",
        ),
        (
            lambda shapes, rank: sum(rank * (outputs + inputs) + outputs * inputs for outputs, inputs in shapes),
            "you count the weight of the layer too. It is frozen, and not part of the adapter.",
        ),
        (lambda shapes, rank: rank * sum(shapes[0]), "you count the first layer only. Add up over all of them."),
    ],
)


# 09.3 The share of the gap that is closed -------------------------------------------------------------------------------


def gap_closed(pruned_before, pruned_after, dense_before, dense_after):
    before, after = math.log(pruned_before / dense_before), math.log(pruned_after / dense_after)  # in nats
    return 1 - after / before


def gap_cases(generator):
    return [
        (60.0, 30.0, 20.0, 15.0),
        (400.0, 50.0, 20.0, 18.0),
        (50.0, 45.0, 20.0, 20.0),
        (50.0, 18.0, 20.0, 15.0),  # below the dense model as it was: not yet recovered
        (50.0, 48.0, 20.0, 16.0),  # gained less than the dense model did
    ]


gap = Exercise(
    "09.3",
    "The share of the gap that is closed",
    gap_closed,
    gap_cases,
    hints=(
        "There are two gaps, one before and one after the training. Who is the pruned model's fair rival in each?",
        "before = log(pruned_before / dense_before), after = log(pruned_after / dense_after); the share is 1 − after "
        "/ before.",
    ),
    wrong=[
        (
            lambda p0, p1, d0, d1: 1 - math.log(p1 / d0) / math.log(p0 / d0),
            "after training, you compare with the dense model as it was, which has not seen the new text. Part of "
            "your recovery is due to that text, and would have helped the dense model too.",
        ),
        (
            lambda p0, p1, d0, d1: 1 - math.log(p1 / d1) / math.log(p0 / d1),
            "you measure both gaps to the dense model after its training. Before the training, the pruned model's gap "
            "is to the dense model before its training.",
        ),
        (
            lambda p0, p1, d0, d1: 1 - (p1 - d1) / (p0 - d0),
            "you subtract perplexities. A model at 400 then seems almost recovered when it reaches 50. Subtract "
            "losses, the logarithms.",
        ),
        (
            lambda *given: 1 - gap_closed(*given),
            "this is the share of the gap that is left, not the share that is closed.",
        ),
        (
            lambda p0, p1, d0, d1: 1 - p1 / p0,
            "you measured how far the pruned model's perplexity fell. The dense model is missing: it says how far it "
            "could fall.",
        ),
        (
            lambda p0, p1, d0, d1: 1 - (p1 / d1) / (p0 / d0),
            "you divide perplexities by perplexities and stop there. A ratio of 1 means no gap, so take the logarithm "
            "of each ratio: then no gap is 0.",
        ),
        (
            lambda *given: min(max(gap_closed(*given), 0.0), 1.0),
            "you force the result between 0 and 1. If the dense model gains more than the pruned one, the gap has "
            "grown, and a negative share says so.",
        ),
    ],
)


# 09.4 A merge that keeps the mask ---------------------------------------------------------------------------------------


def masked_merge(weight, A, B, alpha):
    update = alpha / len(A) * B @ A  # [out, in]
    pruned = weight == 0
    lost = update[pruned].square().sum() / update.square().sum()
    return weight + update.masked_fill(pruned, 0), float(lost)


def merge_cases(generator):
    weight = torch.tensor([[0.9, 0.0, 0.0, 0.6], [0.0, 0.8, 0.0, -0.5], [0.7, 0.0, -0.6, 0.0]])  # [out, in]
    A, B = torch.tensor([[1.0, -2.0, 0.5, 1.0]]), torch.tensor([[0.3], [-0.1], [0.2]])
    square = torch.randn(4, 4, generator=generator)
    square = square * (torch.rand(4, 4, generator=generator) < 0.5)
    return [
        (weight, A, B, 1.0),
        (weight, A, B, 16.0),
        (weight, *(torch.randn(shape, generator=generator) for shape in ((2, 4), (3, 2))), 8.0),
        (square, *torch.randn(2, 4, 4, generator=generator), 3.0),
    ]


merge = Exercise(
    "09.4",
    "A merge that keeps the mask",
    masked_merge,
    merge_cases,
    hints=(
        "Work out the whole update [out, in] first. Then ask where the weight is zero.",
        "update = alpha / len(A) * B @ A; pruned = weight == 0; add update.masked_fill(pruned, 0); the share is "
        "update[pruned].square().sum() over update.square().sum().",
    ),
    wrong=[
        (
            lambda w, A, B, alpha: (w + alpha / len(A) * B @ A, masked_merge(w, A, B, alpha)[1]),
            "this is the plain merge: B A has no zeros, so the sum has none either. Leave the update out where the "
            "weight is zero.",
        ),
        (
            lambda w, A, B, alpha: masked_merge(w, A, B, len(A)),
            "the update is not scaled. It is B A times alpha / rank; rank is the number of rows of A.",
        ),
        (
            lambda w, A, B, alpha: masked_merge(w, A, B, alpha * len(A)),
            "you scale by alpha alone. The factor is alpha / rank, the number of rows of A.",
        ),
        (
            lambda *given: (masked_merge(*given)[0], math.sqrt(masked_merge(*given)[1])),
            "your merged weight is right. For the share that is lost you took a root: compare the squares, which add "
            "up to 1 over lost and kept.",
        ),
        (
            lambda w, A, B, alpha: (masked_merge(w, A, B, alpha)[0], float((w == 0).double().mean())),
            "your merged weight is right. For the share that is lost you returned the fraction of pruned weights. The "
            "two are often close, but what counts is how large the update is there.",
        ),
        (
            lambda *given: (masked_merge(*given)[0], 1 - masked_merge(*given)[1]),
            "your merged weight is right, but the second number is what is kept, not lost.",
        ),
        (
            lambda *given: (masked_merge(*given)[0], masked_merge(*given)[1] / (1 - masked_merge(*given)[1])),
            "your merged weight is right. You divided what is lost by what is kept; divide it by the whole update.",
        ),
        (
            lambda w, A, B, alpha: (w + alpha / len(A) * B @ A * (w == 0), masked_merge(w, A, B, alpha)[1]),
            "you add the update where the weight is zero and leave it out elsewhere: do the opposite.",
        ),
    ],
)


@merge.misconception(
    "your merged weight is right. For the share that is lost you added up absolute values; squares are wanted, as for "
    "the length of a vector."
)
def merge_lost_absolute(weight, A, B, alpha):
    update = alpha / len(A) * B @ A
    lost = update[weight == 0].abs().sum() / update.abs().sum()
    return masked_merge(weight, A, B, alpha)[0], float(lost)
