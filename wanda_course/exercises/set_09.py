"""Exercises of notebook 09: recovery by masked fine-tuning and LoRA."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math

import torch

from .types import Exercise

# 09.1 A step that holds the zeros ---------------------------------------------------------------------------------------


def masked_step(weight, gradient, velocity, mask, rate, limit):
    gradient = gradient.masked_fill(mask, 0)  # [out, in]
    if gradient.norm() > limit:
        gradient = gradient * (limit / gradient.norm())
    velocity = 0.9 * velocity + gradient
    return (weight - rate * velocity).masked_fill(mask, 0)


def step_cases(generator):
    weight = torch.tensor([[0.9, 0.0, 0.0, 0.6], [0.0, 0.8, 0.0, -0.5], [0.7, 0.0, -0.6, 0.0]])  # [out, in]
    gradient = torch.tensor([[0.2, 2.0, -1.0, 0.1], [3.0, 0.3, 0.5, 0.2], [-0.1, 1.0, 0.4, -2.0]])
    velocity = torch.tensor([[0.5, 1.0, 0.0, -0.2], [0.0, 0.1, 2.0, 0.3], [0.2, -1.0, 0.1, 0.5]])
    fresh = torch.zeros_like(velocity)
    one_less = weight == 0
    one_less[tuple(one_less.nonzero()[0])] = False
    random = []
    for rate, limit in ((0.5, 2.0), (0.01, 100.0)):
        mask = torch.rand(6, 5, generator=generator) < 0.5
        one, two, three = torch.randn(3, 6, 5, generator=generator)
        random.append((one.masked_fill(mask, 0), two, three, mask, rate, limit))
    return [
        (weight, gradient, velocity, weight == 0, 0.1, 10.0),  # nothing is clipped
        (weight, gradient, velocity, weight == 0, 0.1, 0.2),  # everything is
        (weight, gradient, velocity, weight == 0, 0.1, 0.38),  # below the limit only if its norm is squared
        (weight, gradient, velocity, weight == 0, 0.1, 2.0),  # only if the pruned weights are counted in
        (weight, gradient, fresh, weight == 0, 0.1, 2.0),
        (weight, fresh, velocity, weight == 0, 0.1, 2.0),  # no gradient: the velocity still moves the weight
        (weight, gradient, velocity, one_less, 0.1, 10.0),  # a kept weight is zero for the moment
        *random,
    ]


def clipped(gradient, limit):
    return gradient * (limit / gradient.norm()) if gradient.norm() > limit else gradient


step = Exercise(
    "09.1",
    "A step that holds the zeros",
    masked_step,
    step_cases,
    hints=(
        "There are two leaks to close, and they need the mask at two places: where the gradient comes in, and where "
        "the weight goes out.",
        "gradient.masked_fill(mask, 0) first; then times limit / norm if the norm is above the limit, update the velocity, take the "
        "step; and .masked_fill(mask, 0) on the result.",
    ),
    difficulty=2,
    importance=3,
    minutes=10,
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
        (
            lambda w, g, v, m, r, limit: masked_step(w, g, v, w == 0, r, limit),
            "you took every zero of the weight for a pruned one. A kept weight may be zero for the moment and has to move: use the mask that is given.",
        ),
    ],
)


# 09.2 What the adapters hold --------------------------------------------------------------------------------------------


def adapter_parameters(shapes, rank):
    return sum(rank * (outputs + inputs) for outputs, inputs in shapes)


def adapter_cases(generator):
    return [
        ([(4, 9)], 3),
        ([], 8),
        ([(576, 576), (192, 576)], 8),
        ([(4096, 4096)] * 3, 8),
        ([(1536, 576), (576, 1536)], 4),
    ]


adapters = Exercise(
    "09.2",
    "What the adapters hold",
    adapter_parameters,
    adapter_cases,
    hints=(
        "How many numbers are in a matrix A [rank, in], and how many in B [out, rank]?",
        "For each shape (out, in): rank * in + rank * out.",
    ),
    difficulty=1,
    importance=2,
    minutes=5,
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
        (
            lambda shapes, rank: sum(map(sum, shapes)),
            "`rank` is missing. A has `rank` rows, and B as many columns.",
        ),
    ],
)


# 09.3 The share of the gap that is closed -------------------------------------------------------------------------------


def gap_closed(pruned_before, pruned_after, dense_before, dense_after):
    before, after = math.log(pruned_before / dense_before), math.log(pruned_after / dense_after)  # in nats
    return 1 - after / before


def gap_cases(generator):
    return [
        (60.0, 33.0, 20.0, 15.0),
        (400.0, 50.0, 20.0, 18.0),
        (50.0, 45.0, 20.0, 20.0),
        (50.0, 18.0, 20.0, 15.0),  # below the dense model as it was: not yet recovered
        (50.0, 48.0, 20.0, 16.0),  # gained less than the dense model did
        (50.0, 14.0, 20.0, 15.0),  # better than the dense model
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
    difficulty=2,
    importance=3,
    minutes=10,
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
        (weight * torch.tensor([1.0, 1.0, 1e-7, 1.0]), A, B, 2.0),  # kept weights may be tiny
        (weight + 1, A, B, 2.0),  # nothing is pruned, and nothing lost
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
    difficulty=2,
    importance=3,
    minutes=10,
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
            lambda w, A, B, alpha: masked_merge(w.masked_fill(w.abs() < 1e-5, 0), A, B, alpha),
            "you take tiny weights for pruned ones. A kept weight may be as small as it likes: only an exact zero was "
            "pruned.",
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
        (
            lambda w, A, B, alpha: (w + alpha / len(A) * B @ A * (w == 0), 1 - masked_merge(w, A, B, alpha)[1]),
            "your mask is inverted, for the weight and for the share. Where the weight is zero the update is left out, "
            "and that part of it is what is lost.",
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


# 09.b1 The gradient of a layer -------------------------------------------------------------------------------------------


def layer_gradient(weight, X, wanted):
    D = X @ weight.T - wanted  # [tokens, out]
    return D.T @ X


def gradient_cases(generator):
    toy = torch.tensor([[0.9, 0.0, 0.1, 0.0], [0.0, 0.8, 0.3, 0.0], [0.7, 0.0, -0.6, 0.0]])
    X, other = (torch.randn(shape, generator=generator) for shape in ((5, 4), (3, 4)))
    square = torch.randn(4, 4, generator=generator)  # where a forgotten transpose raises no error
    return [
        (torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[0.0], [5.0]])),
        (toy, X, torch.randn(5, 3, generator=generator)),
        (square, torch.randn(4, 4, generator=generator), torch.randn(4, 4, generator=generator)),
        (toy, other, other @ toy.T),  # no error, no gradient
    ]


gradient_piece = Exercise(
    "09.b1",
    "the gradient of a layer",
    layer_gradient,
    gradient_cases,
    hints=(
        "First the errors at the outputs, one per token and output. A weight's gradient is the sum over the tokens of "
        "the error at its output times its input.",
        "D = X @ weight.T - wanted; D.T @ X is that sum for all weights at once.",
    ),
    difficulty=2,
    importance=3,
    minutes=10,
    wrong=[
        (
            lambda weight, X, wanted: 2 * layer_gradient(weight, X, wanted),
            "your gradient is twice as large: that of the squared error. Half of it is asked for.",
        ),
        (
            lambda weight, X, wanted: layer_gradient(weight, X, wanted) / len(X),
            "you take the mean over the tokens. The loss here is a sum, so is its gradient.",
        ),
        (
            lambda weight, X, wanted: -layer_gradient(weight, X, wanted),
            "the sign is reversed. The error is what the layer gives minus what it should give.",
        ),
        (
            lambda weight, X, wanted: layer_gradient(weight, X, wanted).masked_fill(weight == 0, 0),
            "you set the gradient to zero where the weight is zero. The loss knows no mask: a pruned weight has a gradient "
            "like any other.",
        ),
        (
            lambda weight, X, wanted: layer_gradient(weight, X, wanted).T,
            "this is the transpose, [in, out]. The gradient has the shape of the weight.",
        ),
        (
            lambda weight, X, wanted: -wanted.T @ X,
            "you left out what the layer gives now. The error is X weightᵀ minus what is wanted.",
        ),
        (
            lambda weight, X, wanted: (X @ weight - wanted).T @ X,
            "the outputs are X weightᵀ: each output is the product of a token with a row of the weight.",
        ),
    ],
)


# 09.b2 What an adapter adds ----------------------------------------------------------------------------------------------


def lora_output(x, A, B, scale):
    return scale * (x @ A.T @ B.T)


def lora_cases(generator):
    one = (torch.randn(shape, generator=generator) for shape in ((5, 4), (2, 4), (3, 2)))
    two = (torch.randn(shape, generator=generator) for shape in ((2, 3, 6), (1, 6), (5, 1)))
    square = torch.randn(3, 4, 4, generator=generator)
    return [
        (torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[2.0], [-1.0]]), 0.5),
        (*one, 3.0),
        (*two, 4.0),
        (*square, 1.5),
        (torch.tensor([1.0, 2.0, 0.0]), torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[2.0], [-1.0]]), 0.5),
        # B A is too large for float32
        (torch.tensor([[1e-30, 0.0]]), torch.tensor([[1e25, 0.0]]), torch.tensor([[1e25], [0.0]]), 1.0),
    ]


lora_piece = Exercise(
    "09.b2",
    "what an adapter adds",
    lora_output,
    lora_cases,
    hints=(
        "Two small layers in a row: A takes in numbers to r, B takes r to out.",
        "x @ A.T is [..., r]; times B.T it is [..., out]; times scale.",
    ),
    difficulty=1,
    importance=3,
    minutes=5,
    wrong=[
        (
            lambda x, A, B, scale: x @ A.T @ B.T,
            "`scale` is missing: the product of x with both factors is multiplied by it.",
        ),
        (
            lambda x, A, B, scale: scale / len(A) * (x @ A.T @ B.T),
            "you divide by the rank once more. `scale` is alpha / r already.",
        ),
        (
            lambda x, A, B, scale: x @ A.T @ B.T + scale,
            "you add `scale`. It multiplies the product.",
        ),
        (
            lambda x, A, B, scale: x @ (B @ A) * scale,
            "you multiply x by B A without the transpose. A row of B A belongs to an output: x (B A)ᵀ. It would also form "
            "the whole [out, in] matrix, which is to be avoided.",
        ),
        (
            lambda x, A, B, scale: scale * (x @ (B @ A).T),
            "you form B A, the whole [out, in] matrix, which costs memory and, with large entries, overflows. x goes "
            "through A first, then through B.",
        ),
        (
            lambda x, A, B, scale: x + lora_output(x, A, B, scale),
            "you add x. The adapter's output is added to that of the layer, W x, which is done elsewhere.",
        ),
    ],
)


# 09.b3 A difference and its error ----------------------------------------------------------------------------------------


def paired_error(one, other, span):
    difference = (one - other).double()  # [n]
    spans = torch.stack([part.mean() for part in difference.split(span)])
    return float(difference.mean()), float(spans.std() / len(spans) ** 0.5)


def paired_cases(generator):
    page = torch.rand(40, generator=generator) * 6  # hard and easy tokens, the same for both models
    noise = torch.randn(2, 40, generator=generator)
    return [
        (torch.tensor([1.0, 3.0, 2.0, 4.0]), torch.tensor([0.5, 1.5, 1.0, 2.0]), 2),
        (torch.tensor([1.0, 3.0, 2.0, 4.0, 9.0]), torch.tensor([0.5, 1.5, 1.0, 2.0, 3.0]), 2),  # a span of one token
        (page + 0.2, page + 0.1 * noise[0], 8),
        (page + 0.3 * noise[0], page + 0.3 * noise[1], 5),
        (page[:37], page[:37] + noise[0, :37], 8),  # the last span holds fewer tokens
        (page, page + noise[1], 1),
    ]


paired_piece = Exercise(
    "09.b3",
    "a difference and its standard error",
    paired_error,
    paired_cases,
    hints=(
        "Both models read the same tokens: take the difference first, token by token, and only then ask how much it "
        "varies from span to span.",
        "difference = one - other; means = torch.stack([part.mean() for part in difference.split(span)]); the error is "
        "means.std() / len(means) ** 0.5.",
    ),
    difficulty=2,
    importance=2,
    minutes=15,
    wrong=[
        (
            lambda one, other, span: (paired_error(one, other, span)[0], float(span_means(one - other, span).std())),
            "your difference is right. For its error you returned the standard deviation of the spans; that of their mean "
            "is smaller, by the root of their number.",
        ),
        (
            lambda one, other, span: paired_error(one, other, 1),
            "you treat every token as independent. Take the means over spans first: neighbouring tokens go together.",
        ),
        (
            lambda one, other, span: (-paired_error(one, other, span)[0], paired_error(one, other, span)[1]),
            "your difference has the wrong sign: it is one minus other.",
        ),
        (
            lambda one, other, span: (
                paired_error(one, other, span)[0],
                float(span_means(one - other, span).var() / len(span_means(one, span))),
            ),
            "your difference is right. Its error is the root of what you returned: you stopped at the variance of the mean.",
        ),
        (
            lambda one, other, span: (float(span_means(one - other, span).mean()), paired_error(one, other, span)[1]),
            "your error is right. The difference is the mean over all tokens; that of the spans gives the tokens of a "
            "shorter last span more weight than the others.",
        ),
        (
            lambda one, other, span: (paired_error(one, other, span)[0], without_the_rest(one, other, span)[1]),
            "your difference is right. For its error you dropped the last, shorter span; it counts like the others.",
        ),
    ],
)


def span_means(values, span):
    return torch.stack([part.mean() for part in values.double().split(span)])


@paired_piece.misconception(
    "your difference is right. For its error you treated the two models as if they had read different texts, and added their "
    "variances. They read the same tokens: take the difference token by token first."
)
def unpaired_error(one, other, span):
    variance = span_means(one, span).var() + span_means(other, span).var()
    return paired_error(one, other, span)[0], float((variance / len(span_means(one, span))).sqrt())


@paired_piece.misconception(
    "your difference is right. For its error, the standard deviation of the means divides by their number less one; you "
    "divided by their number."
)
def biased_error(one, other, span):
    means = span_means(one - other, span)
    return paired_error(one, other, span)[0], float(means.std(unbiased=False) / len(means) ** 0.5)


@paired_piece.misconception(
    "you dropped the last, shorter span. It counts like the others, and its tokens belong to the mean."
)
def without_the_rest(one, other, span):
    whole = len(one) // span * span
    return paired_error(one[:whole], other[:whole], span)
