"""Exercises of notebook 01: outlier features and massive activations."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from .types import Exercise, Misconception


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


def peak_signed(states):
    flat = states.flatten(1)
    return flat.max(dim=1).values / flat.abs().median(dim=1).values


def peak_over_signed_median(states):
    flat = states.flatten(1)
    return flat.abs().max(dim=1).values / flat.median(dim=1).values


def peak_without_magnitudes(states):
    flat = states.flatten(1)
    return flat.max(dim=1).values / flat.median(dim=1).values


def peak_over_deviation(states):
    flat = states.flatten(1)
    return flat.abs().max(dim=1).values / flat.std(dim=1)


def peak_minus_median(states):
    sizes = states.abs().flatten(1)
    return sizes.max(dim=1).values - sizes.median(dim=1).values


def peak_over_mean(states):
    sizes = states.abs().flatten(1)
    return sizes.max(dim=1).values / sizes.mean(dim=1)


def peak_only(states):
    return states.abs().flatten(1).max(dim=1).values


def peak_over_all_layers(states):
    return states.abs().flatten(1).max(dim=1).values / states.abs().median()


def peak_per_token(states):
    sizes = states.abs()
    return sizes.max(dim=2).values / sizes.median(dim=2).values


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
    for factor in (
        2.0,
        3.0,
        4.0,
        6.0,
    ):  # features of many sizes, with values far out: no two rules agree on all of them
        spread = torch.exp(1.5 * normal(generator, 15)) * torch.exp(normal(generator, 11, 15))
        cases.append((normal(generator, 11, 15) * spread, factor))
    return cases


def outliers_by_maximum(state, factor):
    size = state.abs().amax(dim=0)
    return size >= factor * size.median()


def outliers_by_mean(state, factor):
    size = state.abs().mean(dim=0)
    return size >= factor * size.median()


def outliers_by_norm(state, factor):
    size = state.norm(dim=0)
    return size >= factor * size.median()


def outliers_sign_dropped_late(state, factor):
    size = state.median(dim=0).values.abs()
    return size >= factor * size.median()


def outliers_over_all_values(state, factor):
    return state.abs().median(dim=0).values >= factor * state.abs().median()


def outliers_strictly_above(state, factor):
    size = state.abs().median(dim=0).values
    return size > factor * size.median()


def outliers_listed(state, factor):
    return outlier_mask(state, factor).nonzero().flatten()


def outliers_signed(state, factor):
    size = state.median(dim=0).values
    return size >= factor * size.median()


def outlying_tokens(state, factor):
    return outlier_mask(state.T, factor)


def outliers_over_number(state, factor):
    return state.abs().median(dim=0).values >= factor


def outlying_values(state, factor):
    return state.abs() >= factor * state.abs().median()


def outliers_over_mean_size(state, factor):
    size = state.abs().median(dim=0).values
    return size >= factor * size.mean()


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


def writers_by_weight(weight, inputs, token, feature, count):
    return weight[feature].abs().argsort(descending=True, stable=True)[:count]


def writers_by_input(weight, inputs, token, feature, count):
    return inputs[token].abs().argsort(descending=True, stable=True)[:count]


def writers_signed(weight, inputs, token, feature, count):
    return (weight[feature] * inputs[token]).argsort(descending=True, stable=True)[:count]


def writers_smallest(weight, inputs, token, feature, count):
    return (weight[feature] * inputs[token]).abs().argsort(stable=True)[:count]


def writers_over_all_tokens(weight, inputs, token, feature, count):
    return (weight[feature] * inputs).abs().sum(dim=0).argsort(descending=True, stable=True)[:count]


def writers_with_swapped_indices(weight, inputs, token, feature, count):
    return writers(weight, inputs, feature, token, count)


def writers_by_number(weight, inputs, token, feature, count):
    return writers(weight, inputs, token, feature, count).sort().values


def writers_amounts(weight, inputs, token, feature, count):
    return (weight[feature] * inputs[token])[writers(weight, inputs, token, feature, count)]


def writers_of_column(weight, inputs, token, feature, count):
    return (weight[:, feature] * inputs[token]).abs().argsort(descending=True, stable=True)[:count]


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


def damage_at_all_tokens(model, tokens, length, layers, token, feature):
    return damage_by_layer(model, tokens, length, layers, slice(None), feature)


def damage_of_whole_token(model, tokens, length, layers, token, feature):
    return damage_by_layer(model, tokens, length, layers, token, slice(None))


def damage_with_swapped_indices(model, tokens, length, layers, token, feature):
    return damage_by_layer(model, tokens, length, layers, feature, token)


def damage_one_layer_late(model, tokens, length, layers, token, feature):
    return damage_by_layer(model, tokens, length, [layer + 1 for layer in layers], token, feature)


def damage_left_out(model, tokens, length, layers, token, feature):
    from wanda import perplexity

    return torch.tensor([perplexity(model, tokens, length)] * len(layers))


def damage_at_positions(model, tokens, length, layers, token, feature):
    return damage_by_layer(model, tokens, length, range(len(layers)), token, feature)


def damage_minus_dense(model, tokens, length, layers, token, feature):
    return damage_by_layer(model, tokens, length, layers, token, feature) - damage_left_out(
        model, tokens, length, layers, token, feature
    )


def damage_as_loss(model, tokens, length, layers, token, feature):
    return damage_by_layer(model, tokens, length, layers, token, feature).log()


def damage_over_dense(model, tokens, length, layers, token, feature):
    return damage_by_layer(model, tokens, length, layers, token, feature) / damage_left_out(
        model, tokens, length, layers, token, feature
    )


EXERCISES = [
    Exercise(
        key="01.1",
        title="how far the peak stands out",
        cases=peak_ratio_cases,
        solution=peak_ratio,
        misconceptions=[
            Misconception(
                peak_signed,
                "you looked for the largest value, not for the largest magnitude. A value of -40 is as massive as one of 40.",
            ),
            Misconception(
                peak_over_signed_median,
                "you divided by the median of the signed values. Signed values lie on both sides of zero, so their median "
                "says little about their size: take magnitudes first.",
            ),
            Misconception(
                peak_without_magnitudes,
                "you took maximum and median of the signed values. A value of -40 is as massive as one of 40, and signed "
                "values have a median near zero: take magnitudes first.",
            ),
            Misconception(
                peak_over_deviation,
                "you divided by the standard deviation. One massive value makes it large, and hides behind it; the median "
                "magnitude does not notice.",
            ),
            Misconception(
                peak_minus_median, "you took a difference. How many times is a ratio: divide by the median magnitude."
            ),
            Misconception(
                peak_over_mean,
                "you divided by the mean. The outliers themselves pull the mean up; half of all values lie below the "
                "median, however large the peak.",
            ),
            Misconception(
                peak_only,
                "this is the peak itself. Hidden states grow from block to block: divide by what is typical in the same "
                "layer.",
            ),
            Misconception(
                peak_over_all_layers,
                "you divided all layers by one median. Hidden states grow from block to block, so each layer needs its own.",
            ),
            Misconception(
                peak_per_token,
                "you computed a ratio per token. One ratio per layer is wanted: flatten tokens and features first.",
            ),
        ],
        hints=(
            "One number per layer: which dimensions have to go? Does the sign of a value matter?",
            "sizes = states.abs().flatten(1) has shape [layers, tokens * hidden]; now max and median along dim=1, whose "
            "results are in .values.",
        ),
    ),
    Exercise(
        key="01.2",
        title="outlier features",
        cases=outlier_mask_cases,
        solution=outlier_mask,
        misconceptions=[
            Misconception(
                outliers_by_maximum,
                "you took the maximum over the tokens, so a single massive activation makes its feature an outlier. An "
                "outlier feature is large at the typical token: take the median over tokens.",
            ),
            Misconception(
                outliers_by_mean,
                "you took the mean over the tokens. One huge value pulls a mean far up; the median asks what the feature "
                "is at the typical token.",
            ),
            Misconception(
                outliers_by_norm,
                "you took the norm (or the root mean square) over the tokens. It squares, so one huge value outweighs all "
                "others; the median asks what the feature is at the typical token.",
            ),
            Misconception(
                outliers_sign_dropped_late,
                "you dropped the sign after the median. A feature that is now 50, now -50 has a median near zero: magnitudes "
                "first, then the median.",
            ),
            Misconception(
                outliers_over_all_values,
                "you compared with the median of all values. Compare with the size of the median feature: a median over "
                "features of the medians over tokens.",
            ),
            Misconception(
                outliers_strictly_above,
                "right but for features that reach the factor exactly: at least means that they belong to the outliers.",
            ),
            Misconception(
                outliers_listed,
                "these are the numbers of the outlier features. A mask is wanted: one True or False for every feature.",
            ),
            Misconception(
                outliers_signed,
                "the sign is still in it. A feature that is -60 everywhere is an outlier too, and one that changes sign "
                "has a median near zero: take magnitudes first.",
            ),
            Misconception(
                outlying_tokens,
                "you found outlying tokens. state is [tokens, hidden]: the median over tokens runs along dim=0 and leaves "
                "one size per feature.",
            ),
            Misconception(
                outliers_over_number,
                "you compared with the factor itself. It is a multiple: of the median size of all features.",
            ),
            Misconception(
                outlying_values,
                "you judged single values. An outlier feature is a whole column: one verdict per feature, shape [hidden].",
            ),
            Misconception(
                outliers_over_mean_size,
                "you compared with the mean size of the features. A few huge features pull the mean up and hide behind it: "
                "compare with the median size.",
            ),
        ],
        hints=(
            "Two medians: first over the tokens, which gives each feature its size; then over the features, for what is typical.",
            "size = state.abs().median(dim=0).values; compare it with factor * size.median().",
        ),
    ),
    Exercise(
        key="01.3",
        title="who writes this value",
        cases=writers_cases,
        solution=writers,
        misconceptions=[
            Misconception(
                writers_by_weight,
                "you ranked by |w| alone. A large weight that reads a small input writes little.",
            ),
            Misconception(
                writers_by_input,
                "you ranked by |x| alone. A large input that meets a small weight writes little.",
            ),
            Misconception(
                writers_signed,
                "you ranked by the signed product, so strong negative contributions come last. Take the magnitude of the "
                "product.",
            ),
            Misconception(writers_smallest, "your order is upside down: the strongest writers come first."),
            Misconception(
                writers_over_all_tokens,
                "you added up over all tokens. The value asked about stands at one token, and only that token's inputs "
                "wrote it.",
            ),
            Misconception(
                writers_with_swapped_indices,
                "token and feature are swapped: a row of the weight belongs to an output feature, a row of the inputs to a "
                "token.",
            ),
            Misconception(
                writers_by_number,
                "these are the right columns in the order of their numbers. The strongest comes first.",
            ),
            Misconception(
                writers_amounts,
                "these are the contributions themselves. Where they come from is asked: the columns.",
            ),
            Misconception(
                writers_of_column,
                "you took a column of the weight. weight is [out, in]: what writes output feature i is row i.",
            ),
        ],
        hints=(
            "An output value is a sum of products, one per input. How large is each of the summands?",
            "(weight[feature] * inputs[token]).abs() has one entry per input; argsort(descending=True), and the first count.",
        ),
    ),
    Exercise(
        key="01.4",
        title="where does it hurt",
        cases=damage_by_layer_cases,
        solution=damage_by_layer,
        misconceptions=[
            Misconception(
                damage_piling_up,
                "your interventions pile up: the value set to zero at one layer is still set to zero when you measure the "
                "next. Leave the `with` before you go on.",
            ),
            Misconception(
                damage_at_all_tokens, "you set the feature to zero at every token. Only one token's value is meant."
            ),
            Misconception(
                damage_of_whole_token,
                "you set the whole hidden state of the token to zero. Only one feature of it is meant.",
            ),
            Misconception(
                damage_with_swapped_indices,
                "token and feature are swapped: replaced(model, layer, token, feature, value).",
            ),
            Misconception(
                damage_one_layer_late,
                "you are one layer late. Hidden state i is the input of block i; no shift is needed.",
            ),
            Misconception(
                damage_left_out,
                "the model you measured was whole: perplexity has to be called inside the `with`.",
            ),
            Misconception(
                damage_at_positions,
                "you counted 0, 1, 2, ... `layers` holds the hidden states to use: loop over its entries, not over its length.",
            ),
            Misconception(
                damage_minus_dense,
                "you subtracted the perplexity of the whole model. The perplexities themselves are wanted.",
            ),
            Misconception(damage_as_loss, "these are losses, the logarithms. The perplexities themselves are wanted."),
            Misconception(
                damage_over_dense,
                "you divided by the perplexity of the whole model. The perplexities themselves are wanted.",
            ),
        ],
        hints=(
            "A loop over the layers: enter `with replaced(...)`, measure, leave. Collect one number per turn.",
            "with replaced(model, layer, token, feature, 0.0): damage.append(perplexity(model, tokens, length)); at the end "
            "torch.tensor(damage).",
        ),
        tolerance=1e-4,
    ),
]
