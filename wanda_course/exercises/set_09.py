"""Exercises of notebook 09: recovery by masked fine-tuning and LoRA."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise, Misconception

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


def step_gradient_only(weight, gradient, velocity, mask, rate, limit):
    return weight - rate * (0.9 * velocity + clipped(gradient.masked_fill(mask, 0), limit))


def step_weight_only(weight, gradient, velocity, mask, rate, limit):
    return (weight - rate * (0.9 * velocity + clipped(gradient, limit))).masked_fill(mask, 0)


def step_free(weight, gradient, velocity, mask, rate, limit):
    return weight - rate * (0.9 * velocity + clipped(gradient, limit))


def step_inverted(weight, gradient, velocity, mask, rate, limit):
    return masked_step(weight, gradient, velocity, ~mask, rate, limit)


def step_without_memory(weight, gradient, velocity, mask, rate, limit):
    return masked_step(weight, gradient, torch.zeros_like(velocity), mask, rate, limit)


def step_clipping_the_velocity(weight, gradient, velocity, mask, rate, limit):
    velocity = clipped(0.9 * velocity + gradient.masked_fill(mask, 0), limit)
    return (weight - rate * velocity).masked_fill(mask, 0)


def step_always_scaled(weight, gradient, velocity, mask, rate, limit):
    gradient = gradient.masked_fill(mask, 0)
    velocity = 0.9 * velocity + gradient * limit / gradient.norm()
    return (weight - rate * velocity).masked_fill(mask, 0)


def step_clipping_each_entry(weight, gradient, velocity, mask, rate, limit):
    gradient = gradient.masked_fill(mask, 0).clamp(-limit, limit)
    return (weight - rate * (0.9 * velocity + gradient)).masked_fill(mask, 0)


def step_uphill(weight, gradient, velocity, mask, rate, limit):
    return masked_step(weight, gradient, velocity, mask, -rate, limit)


# 09.2 What the adapters hold --------------------------------------------------------------------------------------------


def adapter_parameters(shapes, rank):
    return sum(rank * (outputs + inputs) for outputs, inputs in shapes)


def adapter_cases(generator):
    return [([(3, 4)], 1), ([(576, 576), (192, 576)], 8), ([(4096, 4096)] * 64, 8), ([(1536, 576), (576, 1536)], 4)]


def adapters_of_one_matrix(shapes, rank):
    return sum(rank * inputs for outputs, inputs in shapes)


def adapters_of_the_other(shapes, rank):
    return sum(rank * outputs for outputs, inputs in shapes)


def adapters_as_product(shapes, rank):
    return sum(outputs * inputs for outputs, inputs in shapes)


def adapters_of_all_squared(shapes, rank):
    return sum(2 * rank * inputs for outputs, inputs in shapes)


def adapters_multiplied(shapes, rank):
    return sum(rank * outputs * inputs for outputs, inputs in shapes)


def adapters_with_weight(shapes, rank):
    return sum(rank * (outputs + inputs) + outputs * inputs for outputs, inputs in shapes)


def adapters_of_a_layer(shapes, rank):
    return rank * sum(shapes[0])


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


def gap_to_dense_before(pruned_before, pruned_after, dense_before, dense_after):
    return 1 - math.log(pruned_after / dense_before) / math.log(pruned_before / dense_before)


def gap_to_dense_after(pruned_before, pruned_after, dense_before, dense_after):
    return 1 - math.log(pruned_after / dense_after) / math.log(pruned_before / dense_after)


def gap_in_perplexity(pruned_before, pruned_after, dense_before, dense_after):
    return 1 - (pruned_after - dense_after) / (pruned_before - dense_before)


def gap_left(pruned_before, pruned_after, dense_before, dense_after):
    return 1 - gap_closed(pruned_before, pruned_after, dense_before, dense_after)


def gap_of_perplexity_gone(pruned_before, pruned_after, dense_before, dense_after):
    return 1 - pruned_after / pruned_before


def gap_of_ratios(pruned_before, pruned_after, dense_before, dense_after):
    return 1 - (pruned_after / dense_after) / (pruned_before / dense_before)


def gap_bounded(pruned_before, pruned_after, dense_before, dense_after):
    return min(max(gap_closed(pruned_before, pruned_after, dense_before, dense_after), 0.0), 1.0)


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


def merge_plain(weight, A, B, alpha):
    update = alpha / len(A) * B @ A
    pruned = weight == 0
    return weight + update, float(update[pruned].square().sum() / update.square().sum())


def merge_unscaled(weight, A, B, alpha):
    return masked_merge(weight, A, B, len(A))


def merge_undivided(weight, A, B, alpha):
    return masked_merge(weight, A, B, alpha * len(A))


def merge_lost_lengths(weight, A, B, alpha):
    merged, lost = masked_merge(weight, A, B, alpha)
    return merged, math.sqrt(lost)


def merge_lost_absolute(weight, A, B, alpha):
    update = alpha / len(A) * B @ A
    lost = update[weight == 0].abs().sum() / update.abs().sum()
    return masked_merge(weight, A, B, alpha)[0], float(lost)


def merge_lost_count(weight, A, B, alpha):
    return masked_merge(weight, A, B, alpha)[0], float((weight == 0).double().mean())


def merge_what_is_kept(weight, A, B, alpha):
    merged, lost = masked_merge(weight, A, B, alpha)
    return merged, 1 - lost


def merge_lost_to_kept(weight, A, B, alpha):
    merged, lost = masked_merge(weight, A, B, alpha)
    return merged, lost / (1 - lost)


def merge_on_pruned(weight, A, B, alpha):
    update = alpha / len(A) * B @ A
    kept = weight != 0
    return weight + update.masked_fill(kept, 0), masked_merge(weight, A, B, alpha)[1]


EXERCISES = [
    Exercise(
        "09.1",
        "A step that holds the zeros",
        step_cases,
        masked_step,
        [
            Misconception(
                step_gradient_only,
                "you mask the gradient and nothing else. The velocity remembers gradients from before the mask, and moves "
                "pruned weights with them. Set them to zero once more after the step.",
            ),
            Misconception(
                step_weight_only,
                "your zeros hold, but the gradients of pruned weights are counted when the length of the gradient is "
                "limited, and shrink the step of all others. Mask the gradient before it is clipped.",
            ),
            Misconception(step_free, "the mask is not used at all: one step, and the zeros are gone."),
            Misconception(
                step_inverted,
                "you hold the weights that were kept, and train those that were pruned. In `mask`, True means pruned.",
            ),
            Misconception(
                step_without_memory,
                "this step has no momentum: the velocity is 0.9 times the old one plus the gradient.",
            ),
            Misconception(
                step_clipping_the_velocity,
                "you limit the length of the velocity. It is the gradient that is clipped, before it enters the velocity.",
            ),
            Misconception(
                step_always_scaled,
                "you bring every gradient to the length `limit`. Clipping shortens long ones and leaves short ones alone.",
            ),
            Misconception(
                step_clipping_each_entry,
                "you clip each entry by itself. It is the length of the whole gradient that is limited, which keeps its "
                "direction.",
            ),
            Misconception(
                step_uphill, "you add the velocity. A step goes against the gradient: weight − rate · velocity."
            ),
        ],
        (
            "There are two leaks to close, and they need the mask at two places: where the gradient comes in, and where the "
            "weight goes out.",
            "gradient.masked_fill(mask, 0) first; then clip with min(1, limit / norm), update the velocity, take the step; "
            "and .masked_fill(mask, 0) on the result.",
        ),
    ),
    Exercise(
        "09.2",
        "What the adapters hold",
        adapter_cases,
        adapter_parameters,
        [
            Misconception(
                adapters_of_one_matrix, "you count A [rank, in] only. Each layer has a B [out, rank] as well."
            ),
            Misconception(
                adapters_of_the_other, "you count B [out, rank] only. Each layer has an A [rank, in] as well."
            ),
            Misconception(
                adapters_as_product,
                "you count the entries of the product B A. It is never stored; what is trained are its two factors.",
            ),
            Misconception(
                adapters_of_all_squared,
                "you take every layer for square. A has as many columns as there are inputs, B as many rows as outputs.",
            ),
            Misconception(
                adapters_multiplied,
                "you multiply inputs and outputs. The two factors stand side by side: their sizes add up.",
            ),
            Misconception(
                adapters_with_weight,
                "you count the weight of the layer too. It is frozen, and not part of the adapter.",
            ),
            Misconception(adapters_of_a_layer, "you count the first layer only. Add up over all of them."),
        ],
        (
            "How many numbers are in a matrix A [rank, in], and how many in B [out, rank]?",
            "For each shape (out, in): rank * in + rank * out.",
        ),
    ),
    Exercise(
        "09.3",
        "The share of the gap that is closed",
        gap_cases,
        gap_closed,
        [
            Misconception(
                gap_to_dense_before,
                "after the training you compare with the dense model as it was. It has not seen the new text. Part of what "
                "you call recovery is the text, and would have helped the dense model as well.",
            ),
            Misconception(
                gap_to_dense_after,
                "you measure both gaps to the dense model after its training. Before the training, the pruned model's gap "
                "is to the dense model before its training.",
            ),
            Misconception(
                gap_in_perplexity,
                "you subtract perplexities. Then a model at 400 seems nearly healed when it reaches 50. Subtract what is "
                "trained, the loss: the logarithms.",
            ),
            Misconception(gap_left, "this is the share of the gap that is left, not the share that is closed."),
            Misconception(
                gap_of_perplexity_gone,
                "you ask how much of the pruned model's perplexity is gone. The dense model does not appear in it, and it "
                "says where the perplexity can go at all.",
            ),
            Misconception(
                gap_of_ratios,
                "you divide perplexities by perplexities and stop there. A ratio of 1 means no gap, so take the logarithm "
                "of each ratio: then no gap is 0.",
            ),
            Misconception(
                gap_bounded,
                "you force the result between 0 and 1. If the dense model gains more than the pruned one, the gap has grown, "
                "and a negative share says so.",
            ),
        ],
        (
            "There are two gaps, one before and one after the training. Who is the pruned model's fair rival in each?",
            "before = log(pruned_before / dense_before), after = log(pruned_after / dense_after); the share is "
            "1 − after / before.",
        ),
    ),
    Exercise(
        "09.4",
        "A merge that keeps the mask",
        merge_cases,
        masked_merge,
        [
            Misconception(
                merge_plain,
                "this is the plain merge: B A has no zeros, so the sum has none either. Leave the update out where the "
                "weight is zero.",
            ),
            Misconception(
                merge_unscaled,
                "the update is not scaled. It is B A times alpha / rank; rank is the number of rows of A.",
            ),
            Misconception(
                merge_undivided, "you scale by alpha alone. The factor is alpha / rank, the number of rows of A."
            ),
            Misconception(
                merge_lost_lengths,
                "your merged weight is right. For the share that is lost you took the root: it is wanted of the squares, "
                "which add up to one over lost and kept.",
            ),
            Misconception(
                merge_lost_absolute,
                "your merged weight is right. For the share that is lost you added up absolute values; squares are wanted, "
                "as for the length of a vector.",
            ),
            Misconception(
                merge_lost_count,
                "your merged weight is right. As the share that is lost you gave the share of pruned weights. They often are "
                "close, but what counts is how large the update is there.",
            ),
            Misconception(
                merge_what_is_kept, "your merged weight is right, but the second number is what is kept, not lost."
            ),
            Misconception(
                merge_lost_to_kept,
                "your merged weight is right. You divided what is lost by what is kept; divide it by the whole update.",
            ),
            Misconception(
                merge_on_pruned,
                "you add the update where the weight is zero and leave it out elsewhere: the other way round.",
            ),
        ],
        (
            "Work out the whole update [out, in] first. Then ask where the weight is zero.",
            "update = alpha / len(A) * B @ A; pruned = weight == 0; add update.masked_fill(pruned, 0); the share is "
            "update[pruned].square().sum() over update.square().sum().",
        ),
    ),
]
