"""Exercises of notebook 01: outlier features and massive activations."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


# 01.1 How far the peak stands out --------------------------------------------------------------------------------------


def peak_ratio(states):
    sizes = states.abs().flatten(1)  # [layers, tokens * hidden]
    return sizes.max(dim=1).values / sizes.median(dim=1).values  # [layers]


def peak_ratio_cases(generator):
    toy = torch.tensor([[[1.0, -2.0, 3.0], [2.0, -40.0, 1.0], [4.0, 3.0, -3.0]]])  # one layer, three tokens
    growing = normal(generator, 4, 7, 5) * torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None, None]
    return [(toy,), (growing,), (normal(generator, 3, 5, 7) + 0.5,)]


peak = Exercise(
    "01.1",
    "how far the peak stands out",
    peak_ratio,
    peak_ratio_cases,
    hints=(
        "One number per layer: which dimensions have to go? Does the sign of a value matter?",
        "sizes = states.abs().flatten(1) has shape [layers, tokens * hidden]; now max and median along dim=1, whose "
        "results are in .values.",
    ),
    wrong=[
        (
            lambda s: s.flatten(1).amax(dim=1) / s.abs().flatten(1).median(dim=1).values,
            "you looked for the largest value, not for the largest magnitude. A value of -40 is as massive as one of "
            "40.",
        ),
        (
            lambda s: s.abs().flatten(1).amax(dim=1) / s.flatten(1).median(dim=1).values,
            "you divided by the median of the signed values. Signed values lie on both sides of zero, so their median "
            "says little about their size: take magnitudes first.",
        ),
        (
            lambda s: s.flatten(1).amax(dim=1) / s.flatten(1).median(dim=1).values,
            "you took the maximum and median of the signed values. A value of -40 is as massive as one of 40, and "
            "signed values have a median near zero: take magnitudes first.",
        ),
        (
            lambda s: s.abs().flatten(1).amax(dim=1) / s.flatten(1).std(dim=1),
            "you divided by the standard deviation. One massive value inflates it and so hides behind it; the median "
            "magnitude barely moves.",
        ),
        (
            lambda s: s.abs().flatten(1).amax(dim=1) - s.abs().flatten(1).median(dim=1).values,
            "you took a difference. A ratio is wanted: divide by the median magnitude.",
        ),
        (
            lambda s: s.abs().flatten(1).amax(dim=1) / s.abs().flatten(1).mean(dim=1),
            "you divided by the mean. The outliers themselves pull the mean up; half of all values lie below the "
            "median, however large the peak.",
        ),
        (
            lambda s: s.abs().flatten(1).amax(dim=1),
            "this is the peak itself. Hidden states grow from block to block: divide by what is typical in the same "
            "layer.",
        ),
        (
            lambda s: s.abs().flatten(1).amax(dim=1) / s.abs().median(),
            "you divided all layers by one median. Hidden states grow from block to block, so each layer needs its "
            "own.",
        ),
        (
            lambda s: s.abs().amax(dim=2) / s.abs().median(dim=2).values,
            "you computed a ratio per token. One ratio per layer is wanted: flatten tokens and features first.",
        ),
    ],
)


# 01.2 Outlier features -------------------------------------------------------------------------------------------------


def outlier_mask(state, factor):
    size = state.abs().median(dim=0).values  # [hidden], the typical token
    return size >= factor * size.median()  # [hidden]


def outlier_mask_cases(generator):
    toy = torch.tensor(
        [[1.0, -30.0, 1.0, 500.0, 2.0], [-1.0, 28.0, 2.0, 1.0, -1.0], [1.5, -33.0, -1.0, -1.0, 1.0]]
    )  # feature 1 is large at all tokens, feature 3 at one
    state = normal(generator, 9, 7) + torch.tensor([0, 0, -60.0, 0, 0, 25.0, 0])
    state[0, 4] = 9000.0
    single = normal(generator, 9, 7)
    single[3, 2] = 40.0
    flipping = normal(generator, 9, 7)  # feature 5 is large at all tokens but one, and changes its sign
    flipping[:, 5] = torch.tensor([50.0, -52.0, 48.0, -50.0, 0.1, 51.0, -49.0, 50.0, -50.0])
    equal = torch.tensor(
        [[1.0, -1.0, 1.0, 9.0, 30.0]] * 3 + [[9.0, 9.0, -9.0, 9.0, -30.0]] * 2
    )  # sizes 1, 1, 1, 9, 30; the median of all values is 9
    cases = [(toy, 10.0), (toy, 40.0), (100 * toy, 10.0), (state, 10.0), (single, 10.0), (normal(generator, 9, 7), 2.0)]
    cases += [(flipping, 10.0), (equal, 5.0), (equal, 9.0)]
    for factor in (2.0, 3.0, 4.0, 6.0):
        # Features of many sizes, with values far out: no two rules agree on all of them.
        spread = torch.exp(1.5 * normal(generator, 15)) * torch.exp(normal(generator, 11, 15))
        cases.append((normal(generator, 11, 15) * spread, factor))
    return cases


def stands_out(size, factor):
    """The solution, from the sizes of the features [hidden]."""
    return size >= factor * size.median()


outliers = Exercise(
    "01.2",
    "outlier features",
    outlier_mask,
    outlier_mask_cases,
    hints=(
        "Two medians: first over the tokens, which gives each feature its size; then over the features, for what is "
        "typical.",
        "size = state.abs().median(dim=0).values; compare it with factor * size.median().",
    ),
    wrong=[
        (
            lambda s, f: stands_out(s.abs().amax(dim=0), f),
            "you took the maximum over the tokens, so a single massive activation makes its feature an outlier. An "
            "outlier feature is large at the typical token: take the median over tokens.",
        ),
        (
            lambda s, f: stands_out(s.abs().mean(dim=0), f),
            "you took the mean over the tokens. One huge value pulls it far up; the median says how large the feature "
            "is at the typical token.",
        ),
        (
            lambda s, f: stands_out(s.norm(dim=0), f),
            "you took the norm (or the root mean square) over the tokens. Squaring lets one huge value outweigh all "
            "others; the median says how large the feature is at the typical token.",
        ),
        (
            lambda s, f: stands_out(s.median(dim=0).values.abs(), f),
            "you dropped the sign after the median. A feature that is now 50, now -50 has a median near zero: "
            "magnitudes first, then the median.",
        ),
        (
            lambda s, f: s.abs().median(dim=0).values >= f * s.abs().median(),
            "you compared with the median of all values. Compare with the size of the median feature: a median over "
            "features of the medians over tokens.",
        ),
        (
            lambda s, f: s.abs().median(dim=0).values > f * s.abs().median(dim=0).values.median(),
            "right except for features that reach the factor exactly: at least means that they are outliers too.",
        ),
        (
            lambda s, f: outlier_mask(s, f).nonzero().flatten(),
            "these are the indices of the outlier features. A mask is wanted: one True or False per feature.",
        ),
        (
            lambda s, f: stands_out(s.median(dim=0).values, f),
            "the sign still counts. A feature that is -60 everywhere is an outlier too, and one that changes sign has "
            "a median near zero: take magnitudes first.",
        ),
        (
            lambda s, f: outlier_mask(s.T, f),
            "you found outlying tokens. state is [tokens, hidden]: the median over tokens runs along dim=0 and leaves "
            "one size per feature.",
        ),
        (
            lambda s, f: s.abs().median(dim=0).values >= f,
            "you compared with the factor itself. Multiply it by the median size of all features.",
        ),
        (
            lambda s, f: s.abs() >= f * s.abs().median(),
            "you judged single values. An outlier feature is a whole column: one verdict per feature, shape [hidden].",
        ),
        (
            lambda s, f: s.abs().median(dim=0).values >= f * s.abs().median(dim=0).values.mean(),
            "you compared with the mean size of the features. A few huge features pull the mean up and hide behind "
            "it: compare with the median size.",
        ),
    ],
)


# 01.3 Who writes a value -----------------------------------------------------------------------------------------------


def writers(weight, inputs, token, feature, count):
    parts = weight[feature] * inputs[token]  # [in], their sum is the output
    return parts.abs().argsort(descending=True, stable=True)[:count]  # [count]


def writers_cases(generator):
    weight = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
    inputs = torch.tensor([[1.0, -2.0, 9.0, 0.5], [3.0, 1.0, -4.0, 1.5], [-1.0, 2.0, 0.5, 8.0], [2.0, 5.0, 1.0, -3.0]])
    square = normal(generator, 6, 6), normal(generator, 6, 6)
    return [
        (weight, inputs, 0, 0, 2),
        (weight, inputs, 1, 2, 3),
        (*square, 2, 4, 3),
        (*square, 5, 1, 4),
        (normal(generator, 5, 9), normal(generator, 7, 9), 6, 3, 4),
    ]


writing = Exercise(
    "01.3",
    "who writes this value",
    writers,
    writers_cases,
    hints=(
        "An output value is a sum of products, one per input. How large is each of the summands?",
        "(weight[feature] * inputs[token]).abs() has one entry per input; argsort(descending=True), and the first "
        "count.",
    ),
    wrong=[
        (
            lambda w, x, t, f, n: w[f].abs().argsort(descending=True, stable=True)[:n],
            "you ranked by |w| alone. A large weight that reads a small input writes little.",
        ),
        (
            lambda w, x, t, f, n: x[t].abs().argsort(descending=True, stable=True)[:n],
            "you ranked by |x| alone. A large input that meets a small weight writes little.",
        ),
        (
            lambda w, x, t, f, n: (w[f] * x[t]).argsort(descending=True, stable=True)[:n],
            "you ranked by the signed product, so strong negative contributions come last. Take the magnitude of the "
            "product.",
        ),
        (
            lambda w, x, t, f, n: (w[f] * x[t]).abs().argsort(stable=True)[:n],
            "your order is reversed: the strongest writers come first.",
        ),
        (
            lambda w, x, t, f, n: (w[f] * x).abs().sum(dim=0).argsort(descending=True, stable=True)[:n],
            "you added up over all tokens. The value belongs to one token, and only that token's inputs wrote it.",
        ),
        (
            lambda w, x, t, f, n: writers(w, x, f, t, n),
            "token and feature are swapped: a row of the weight belongs to an output feature, a row of the inputs to "
            "a token.",
        ),
        (
            lambda w, x, t, f, n: writers(w, x, t, f, n).sort().values,
            "these are the right columns, sorted by index. The strongest comes first.",
        ),
        (
            lambda w, x, t, f, n: (w[f] * x[t])[writers(w, x, t, f, n)],
            "these are the contributions themselves. The columns they come from are wanted.",
        ),
        (
            lambda w, x, t, f, n: (w[:, f] * x[t]).abs().argsort(descending=True, stable=True)[:n],
            "you took a column of the weight. weight is [out, in]: row i writes output feature i.",
        ),
    ],
)


# 01.4 An experiment: where does it hurt? -------------------------------------------------------------------------------


def damage_by_layer(model, tokens, length, layers, token, feature):
    from wanda import perplexity
    from wanda.tools.outliers import replaced

    damage = []
    for layer in layers:
        with replaced(model, layer, token, feature, 0.0):
            damage.append(perplexity(model, tokens, length))
    return torch.tensor(damage)  # [layers]


def damage_by_layer_cases(generator):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws weights from the global generator
        model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * normal(generator, *parameter.shape))
    tokens = torch.randint(32, (48,), generator=generator)
    return [(model, tokens, 16, [0, 1, 3], 0, 5), (model, tokens, 12, [3, 2], 1, 7)]


damage = Exercise(
    "01.4",
    "where does it hurt",
    damage_by_layer,
    damage_by_layer_cases,
    hints=(
        "A loop over the layers: enter `with replaced(...)`, measure, leave. Collect one number per turn.",
        "with replaced(model, layer, token, feature, 0.0): damage.append(perplexity(model, tokens, length)); at the "
        "end torch.tensor(damage).",
    ),
    wrong=[
        (
            lambda m, ids, n, layers, t, f: damage_by_layer(m, ids, n, layers, slice(None), f),
            "you set the feature to zero at every token. Set it at one token only.",
        ),
        (
            lambda m, ids, n, layers, t, f: damage_by_layer(m, ids, n, layers, t, slice(None)),
            "you set the whole hidden state of the token to zero. Set one of its features only.",
        ),
        (
            lambda m, ids, n, layers, t, f: damage_by_layer(m, ids, n, layers, f, t),
            "token and feature are swapped: replaced(model, layer, token, feature, value).",
        ),
        (
            lambda m, ids, n, layers, t, f: damage_by_layer(m, ids, n, [layer + 1 for layer in layers], t, f),
            "you are one layer late. Hidden state i is the input of block i; no shift is needed.",
        ),
        (
            lambda m, ids, n, layers, t, f: damage_by_layer(m, ids, n, range(len(layers)), t, f),
            "you counted 0, 1, 2, ... `layers` holds the hidden states to use: loop over its entries, not over its "
            "length.",
        ),
        (
            lambda *given: damage_by_layer(*given) - damage_left_out(*given),
            "you subtracted the perplexity of the unchanged model. The perplexities themselves are wanted.",
        ),
        (
            lambda *given: damage_by_layer(*given).log(),
            "these are losses, the logarithms. The perplexities themselves are wanted.",
        ),
        (
            lambda *given: damage_by_layer(*given) / damage_left_out(*given),
            "you divided by the perplexity of the unchanged model. The perplexities themselves are wanted.",
        ),
    ],
    tolerance=1e-4,
)


@damage.misconception(
    "your interventions pile up: the value set to zero at one layer is still zero when you measure the next. Leave the "
    "`with` before you go on."
)
def damage_piling_up(model, tokens, length, layers, token, feature):
    from contextlib import ExitStack

    from wanda import perplexity
    from wanda.tools.outliers import replaced

    damage = []
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced(model, layer, token, feature, 0.0))
            damage.append(perplexity(model, tokens, length))
    return torch.tensor(damage)


@damage.misconception("you measured the unchanged model: call perplexity inside the `with`.")
def damage_left_out(model, tokens, length, layers, token, feature):
    from wanda import perplexity

    return torch.tensor([perplexity(model, tokens, length)] * len(layers))
