"""Exercises of notebook 01: outlier features and massive activations."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


# 01.1 How far the peak stands out --------------------------------------------------------------------------------------


def peak_ratio(states):
    sizes = states.abs().flatten(1)  # [states, tokens * hidden]
    return sizes.max(dim=1).values / sizes.median(dim=1).values  # [states]


def peak_ratio_cases(generator):
    toy = torch.tensor([[[1.0, -2.0, 3.0], [2.0, -40.0, 1.0], [4.0, 3.0, -3.0]]])  # one state, three tokens
    growing = normal(generator, 4, 7, 5) * torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None, None]
    return [(toy,), (growing,), (normal(generator, 3, 5, 7) + 0.5,)]


peak = Exercise(
    "01.1",
    "how far the peak stands out",
    peak_ratio,
    peak_ratio_cases,
    hints=(
        "One number per state: which dimensions have to go? Does the sign of a value matter?",
        "sizes = states.abs().flatten(1) has shape [states, tokens * hidden]; now max and median along dim=1, whose "
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
            "state.",
        ),
        (
            lambda s: s.abs().flatten(1).amax(dim=1) / s.abs().median(),
            "you divided all states by one median. Hidden states grow from block to block, so each needs its own.",
        ),
        (
            lambda s: s.abs().amax(dim=2) / s.abs().median(dim=2).values,
            "you computed a ratio per token. One ratio per state is wanted: flatten tokens and features first.",
        ),
        (
            lambda s: s.abs().flatten(1).amax(dim=1) / s.abs().median(dim=2).values.median(dim=1).values,
            "you took a median of medians, one per token. That is not the median of all magnitudes: flatten tokens and "
            "features first.",
        ),
        (
            lambda s: s.abs().flatten(1).amax(dim=1) / s.abs().median(dim=1).values.median(dim=1).values,
            "you took a median of medians, one per feature. That is not the median of all magnitudes: flatten tokens "
            "and features first.",
        ),
        (
            lambda s: s.abs().max() / s.abs().flatten(1).median(dim=1).values,
            "you compared every state with the peak of all states. Each state has a peak of its own.",
        ),
        (
            lambda s: peak_ratio(s.pow(2)),
            "you squared the values, so this is the square of the ratio. The magnitude is the absolute value.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=5,
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
    difficulty=1,
    importance=3,
    minutes=8,
)


# 01.3 Who writes a value -----------------------------------------------------------------------------------------------


def writers(weight, inputs, token, feature, count):
    parts = weight[feature] * inputs[token]  # [in], their sum is the output
    return parts.abs().argsort(descending=True, stable=True)[:count]  # [count]


def writers_cases(generator):
    weight = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
    inputs = torch.tensor([[1.0, -2.0, 10.0, 0.5], [3.0, 1.0, -4.0, 1.5], [-1.0, 2.0, 0.5, 8.0], [2.0, 5.0, 1.0, -3.0]])
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
        (
            lambda w, x, t, f, n: (w[f] * x[t]).abs().argsort(descending=True, stable=True),
            "these are all columns, in the right order. Only the first `count` are wanted.",
        ),
        (
            lambda w, x, t, f, n: (w[f] * x[t]).abs().argsort(stable=True)[-n:],
            "these are the right columns in reverse order. The strongest comes first: argsort(descending=True), then the first `count`.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=8,
)


# 01.4 An experiment: where does it hurt? -------------------------------------------------------------------------------


def damage_by_state(model, tokens, length, places, token, feature):
    from wanda import perplexity
    from wanda.tools.outliers import replaced

    damage = []
    for place in places:
        with replaced(model, place, token, feature, 0.0):
            damage.append(perplexity(model, tokens, length))
    return torch.tensor(damage)  # [places]


def small_model(generator):
    """A random model of three blocks."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,  # so that perplexity's own default length is allowed
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws weights from the global generator
        model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * normal(generator, *parameter.shape))
    return model


def damage_by_state_cases(generator):
    model = small_model(generator)
    tokens = torch.randint(32, (48,), generator=generator)
    return [(model, tokens, 16, [0, 1, 3], 0, 5), (model, tokens, 12, [3, 2], 1, 7)]


damage = Exercise(
    "01.4",
    "where does it hurt",
    damage_by_state,
    damage_by_state_cases,
    hints=(
        "A loop over the places: enter `with replaced(...)`, measure, leave. Collect one number per turn.",
        "with replaced(model, place, token, feature, 0.0): damage.append(perplexity(model, tokens, length)); at the "
        "end torch.tensor(damage).",
    ),
    wrong=[
        (
            lambda m, ids, n, places, t, f: damage_by_state(m, ids, n, places, slice(None), f),
            "you set the feature to zero at every token. Set it at one token only.",
        ),
        (
            lambda m, ids, n, places, t, f: damage_by_state(m, ids, n, places, t, slice(None)),
            "you set the whole hidden state of the token to zero. Set one of its features only.",
        ),
        (
            lambda m, ids, n, places, t, f: damage_by_state(m, ids, n, places, f, t),
            "token and feature are swapped: replaced(model, place, token, feature, value).",
        ),
        (
            lambda m, ids, n, places, t, f: damage_by_state(m, ids, n, [place + 1 for place in places], t, f),
            "you are one state late. Hidden state i is the input of block i; no shift is needed.",
        ),
        (
            lambda m, ids, n, places, t, f: damage_by_state(m, ids, n, range(len(places)), t, f),
            "you counted 0, 1, 2, ... `places` holds the hidden states to use: loop over its entries, not over its "
            "length.",
        ),
        (
            lambda *given: damage_by_state(*given) - damage_left_out(*given),
            "you subtracted the perplexity of the unchanged model. The perplexities themselves are wanted.",
        ),
        (
            lambda *given: damage_by_state(*given).log(),
            "these are losses, the logarithms. The perplexities themselves are wanted.",
        ),
        (
            lambda *given: damage_by_state(*given) / damage_left_out(*given),
            "you divided by the perplexity of the unchanged model. The perplexities themselves are wanted.",
        ),
        (
            lambda m, ids, n, places, t, f: damage_by_state(m, ids[:n], n, places, t, f),
            "you measured on the first window only. Give all of `tokens` to wanda.perplexity: it cuts them into windows "
            "of `length`, and the value is set to zero in each of them.",
        ),
        (
            lambda m, ids, n, places, t, f: damage_by_state(m, ids, len(ids), places, t, f),
            "you measured in one long window. Pass `length` on to wanda.perplexity, so that every window has a token at "
            "that position.",
        ),
        (
            lambda m, ids, n, places, t, f: damage_by_state(m, ids, n, sorted(places), t, f),
            "you sorted the places. The perplexities are wanted in the order of `places`.",
        ),
        (
            lambda *given: damage_by_state(*given)[:1],
            "you returned after the first place. Is your `return` inside the loop?",
        ),
    ],
    tolerance=1e-4,
    difficulty=2,
    importance=2,
    minutes=15,
)


@damage.misconception(
    "your interventions pile up: the value set to zero at one place is still zero when you measure the next. Leave the "
    "`with` before you go on."
)
def damage_piling_up(model, tokens, length, places, token, feature):
    from contextlib import ExitStack

    from wanda import perplexity
    from wanda.tools.outliers import replaced

    damage = []
    with ExitStack() as stack:
        for place in places:
            stack.enter_context(replaced(model, place, token, feature, 0.0))
            damage.append(perplexity(model, tokens, length))
    return torch.tensor(damage)


@damage.misconception("you measured the unchanged model: call perplexity inside the `with`.")
def damage_left_out(model, tokens, length, places, token, feature):
    from wanda import perplexity

    return torch.tensor([perplexity(model, tokens, length)] * len(places))


# The pieces: a value replaced by a hook, RMSNorm, the norm of an input ----------------------------------------------------


def logits_with(model, window, place, token, feature, value):
    from wanda import find_blocks

    def overwrite(module, inputs):
        state = inputs[0].clone()  # [1, tokens, hidden]
        state[:, token, feature] = value
        return (state, *inputs[1:])

    hook = find_blocks(model)[place].module.register_forward_pre_hook(overwrite)
    try:
        with torch.no_grad():
            return model(window[None], use_cache=False).logits[0]  # [tokens, vocabulary]
    finally:
        hook.remove()


def logits_with_cases(generator):
    model = small_model(generator)
    window = torch.randint(32, (12,), generator=generator)
    broken = (model, torch.tensor([3, 99, 4]), 1, 0, 5, 0.0)  # an id outside the vocabulary: the pass raises
    return [(model, window, 0, 3, 2, 40.0), (model, window, 1, 0, 5, 0.0), (model, window, 2, 1, 7, -25.0), broken]


def logits_by(change):
    """A wrong idea: `change(state, token, feature, value)` edits the state that the block reads."""

    def wrong(model, window, place, token, feature, value):
        from wanda import find_blocks

        def overwrite(module, inputs):
            state = inputs[0].clone()
            change(state, token, feature, value)
            return (state, *inputs[1:])

        hook = find_blocks(model)[place].module.register_forward_pre_hook(overwrite)
        try:
            with torch.no_grad():
                return model(window[None], use_cache=False).logits[0]
        finally:
            hook.remove()

    return wrong


def unchanged_logits(model, window, *_):
    with torch.no_grad():
        return model(window[None], use_cache=False).logits[0]


overwriting = Exercise(
    "01.b1",
    "a value replaced by a hook",
    logits_with,
    logits_with_cases,
    hints=(
        "A forward pre-hook gets (module, inputs), inputs[0] being what the block reads, and may return other inputs. "
        "What is left to do when the pass is over?",
        "In the hook: state = inputs[0].clone(); state[:, token, feature] = value; return (state, *inputs[1:]). Register "
        "it on find_blocks(model)[place].module, and remove it in a `finally`.",
    ),
    wrong=[
        (
            unchanged_logits,
            "these are the unchanged logits. Does your hook return the new inputs, and does the pass run before the hook "
            "is removed?",
        ),
        (
            lambda m, w, p, t, f, v: logits_by(lambda s, t, f, v: s[:, :, f].fill_(v))(m, w, p, t, f, v),
            "you set the feature at every token. Set it at one token only.",
        ),
        (
            lambda m, w, p, t, f, v: logits_by(lambda s, t, f, v: s[:, t].fill_(v))(m, w, p, t, f, v),
            "you set all features of the token. Set one of them only.",
        ),
        (
            lambda m, w, p, t, f, v: logits_with(m, w, p, f, t, v),
            "token and feature are swapped: a hidden state is [1, tokens, hidden].",
        ),
        (
            lambda m, w, p, t, f, v: logits_by(lambda s, t, f, v: s[:, t, f].add_(v))(m, w, p, t, f, v),
            "you added the value. It takes the place of the old one.",
        ),
        (
            lambda m, w, p, t, f, v: logits_with(m, w, p, t, f, 0.0),
            "you always set zero. `value` says what to set.",
        ),
        (
            lambda m, w, p, t, f, v: logits_with(m, w, min(p + 1, 2), t, f, v),
            "you are one block late: hidden state i is what block i reads.",
        ),
        (
            lambda *given: logits_with(*given).log_softmax(dim=-1),
            "these are log-probabilities. The logits themselves are wanted.",
        ),
        (
            lambda *given: logits_with(*given)[None],
            "the batch dimension is left: the window is one text, and [tokens, vocabulary] is wanted.",
        ),
    ],
    tolerance=1e-4,
    difficulty=3,
    importance=2,
    minutes=15,
)


def rms_norm(state, gain, epsilon):
    mean_square = state.pow(2).mean(dim=1, keepdim=True)  # [tokens, 1]
    return gain * state / (mean_square + epsilon).sqrt()  # [tokens, hidden]


def rms_norm_cases(generator):
    toy = torch.tensor([[3.0, -4.0, 0.0, 5.0], [1.0, 1.0, 1.0, 1.0], [100.0, 1.0, -1.0, 2.0]])
    gain = torch.tensor([1.0, 2.0, 0.5, 1.0])
    square = normal(generator, 6, 6) + 0.5
    return [
        (toy, gain, 1e-5),
        (square, normal(generator, 6).abs(), 1e-5),
        (0.1 * normal(generator, 5, 8), normal(generator, 8).abs(), 0.5),
    ]


normalising = Exercise(
    "01.b2",
    "RMSNorm",
    rms_norm,
    rms_norm_cases,
    hints=(
        "One number per token says how large its vector is. Over which dimension is the mean, and which shape does it "
        "need to divide [tokens, hidden]?",
        "state.pow(2).mean(dim=1, keepdim=True) + epsilon, then the root; gain * state / root.",
    ),
    wrong=[
        (
            lambda s, g, e: g * s / (s.pow(2).mean(dim=0, keepdim=True) + e).sqrt(),
            "your mean runs over the tokens. Each token is normalised by itself: the mean over its features, dim=1.",
        ),
        (
            lambda s, g, e: g * s / (s.pow(2).sum(dim=1, keepdim=True) + e).sqrt(),
            "you divided by the norm. RMSNorm takes the mean of the squares, not their sum.",
        ),
        (
            lambda s, g, e: g * s / (s.pow(2).mean() + e).sqrt(),
            "you took one mean over the whole state. Each token is normalised by itself.",
        ),
        (
            lambda s, g, e: s / (s.pow(2).mean(dim=1, keepdim=True) + e).sqrt(),
            "the gain is missing: each feature has a learned factor of its own.",
        ),
        (
            lambda s, g, e: g * s / (s.pow(2).mean(dim=1, keepdim=True).sqrt() + e),
            "you added epsilon after the root. It belongs under the root.",
        ),
        (
            lambda s, g, e: g * s / s.pow(2).mean(dim=1, keepdim=True).sqrt(),
            "epsilon is missing under the root. It keeps a token of zeros from dividing by zero.",
        ),
        (
            lambda s, g, e: g * s / (s.pow(2).mean(dim=1, keepdim=True) + e),
            "the root is missing: divide by the root of the mean square.",
        ),
        (
            lambda s, g, e: (
                g * (s - s.mean(dim=1, keepdim=True)) / (s.var(dim=1, keepdim=True, correction=0) + e).sqrt()
            ),
            "this is LayerNorm. RMSNorm subtracts no mean.",
        ),
        (
            lambda s, g, e: g * s / (s.pow(2).mean(dim=1) + e).sqrt(),
            "the mean squares have the shape [tokens], which is lined up with the features. keepdim=True makes it "
            "[tokens, 1].",
        ),
        (
            lambda s, g, e: rms_norm(g * s, torch.ones_like(g), e),
            "you multiplied by the gain before you normalised. The root is of the state's own mean square; the gain comes "
            "last.",
        ),
        (
            lambda s, g, e: g * s / (s.abs().mean(dim=1, keepdim=True) + e),
            "you took the mean magnitude. RMS is the root of the mean square.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=8,
)


def input_norms(inputs):
    return inputs.pow(2).sum(dim=0).sqrt()  # [in]


def input_norms_cases(generator):
    toy = torch.tensor([[0.5, 1.0, 4.0, 0.25], [-0.5, 1.0, 4.0, -0.25], [0.5, -1.0, 2.0, 0.25], [2.5, 1.0, -4.0, 0.25]])
    return [(toy,), (normal(generator, 6, 6) + 1,), (100 * normal(generator, 7, 5) - 30,), (normal(generator, 1, 4),)]


strength = Exercise(
    "01.b3",
    "the norm of each input feature",
    input_norms,
    input_norms_cases,
    hints=(
        "One number per input feature: which dimension has to go?",
        "Square, sum over the tokens (dim=0), take the root; or inputs.norm(dim=0).",
    ),
    wrong=[
        (
            lambda x: x.norm(dim=1),
            "this is one norm per token. One per input feature is wanted: the sum runs over the tokens, dim=0.",
        ),
        (lambda x: x.pow(2).sum(dim=0), "this is the square of the norm. The root is missing."),
        (lambda x: x.pow(2).mean(dim=0).sqrt(), "you took the mean of the squares. A norm is the root of their sum."),
        (
            lambda x: x.abs().sum(dim=0),
            "you added up magnitudes, the norm ‖x‖₁. Wanda's is the root of the sum of squares.",
        ),
        (lambda x: x.abs().mean(dim=0), "you took the mean magnitude. The root of the sum of squares is wanted."),
        (lambda x: x.abs().amax(dim=0), "you took the largest magnitude. The root of the sum of squares is wanted."),
        (lambda x: x.sum(dim=0).abs(), "you added up signed values, which cancel. Square them first."),
        (lambda x: x.std(dim=0, correction=0), "you subtracted the mean. A constant input is an input, too."),
        (lambda x: x.norm(), "this is one norm for all. One per input feature is wanted."),
        (
            lambda x: x.norm(dim=0) / x.norm(dim=0).median(),
            "you divided by the median already. The norms themselves are wanted.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=5,
)
