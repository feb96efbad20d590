"""Numerical questions of the question bank: templates whose numbers are drawn and whose answers are computed.

A template is a function of a `random.Random` that returns a `Draw`. The answers come from the project's own functions: those
of `wanda` and the solutions of the exercises.
"""

from typing import NamedTuple

import torch

import wanda

from .exercises import EXERCISES

TEMPLATES = {}  # by id: (title, function)


class Draw(NamedTuple):
    """One version of a numerical question.

    Attributes:
        text: the question. answer: a number. tolerance: how far an answer may be off, at most.
        why: shown afterwards: how to get there, and which mistake is common.
        given: the numbers drawn, by name, for whoever recomputes the answer.
    """

    text: str
    answer: float
    tolerance: float
    why: str
    given: dict


def template(key, title):
    """Decorator that adds a template to `TEMPLATES`. key: "NN.nK", with the notebook's number."""

    def add(function):
        TEMPLATES[key] = title, function
        return function

    return add


def _solved(key, *arguments):
    """What the solution of an exercise gives."""
    return EXERCISES[key].solution(*arguments)


def _row(values):
    return ", ".join(f"{value:g}" for value in values)


def _distinct(draw, count, step=0.05, most=20):
    """So many different sizes, each with a random sign."""
    return [round(step * size * draw.choice((-1, 1)), 2) for size in draw.sample(range(1, most), count)]


@template("00.n1", "the bytes of a bitmap")
def bitmap(draw):
    """A layer stored with a bitmap."""
    out, width, share = draw.choice((512, 1024, 2048)), draw.choice((1000, 2000, 3000)), draw.choice((40, 50, 60, 70))
    weights = out * width
    text = (
        f"A layer of {out} outputs and {width} inputs is stored in bfloat16 (16 bits), with a bitmap and the weights that "
        f"are left. {share} % of the weights are zero. How many kilobytes does it take? (1 kB = 1000 bytes)"
    )
    answer = weights * (1 + 16 * (100 - share) / 100) / 8 / 1000
    why = (
        "One bit for every weight, and 16 bits for each that is left; 8 bits make a byte. The zeros pay for the bitmap."
    )
    return Draw(text, answer, answer / 200, why, {"out": out, "width": width, "share": share})


@template("00.n2", "perplexity from probabilities")
def perplexity(draw):
    """Perplexity of a text of four predicted tokens."""
    values = [draw.choice((0.5, 0.25, 0.2, 0.1, 0.05, 0.02, 0.01)) for _ in range(4)]
    text = (
        "A model gave the four tokens of a text that it had to predict these probabilities: "
        f"{_row(values)}. What is its perplexity on them? (two decimals)"
    )
    logits = torch.stack([torch.tensor([value, 1 - value]).double().log() for value in [*values, 0.5]])  # [5, 2]
    answer = float(_solved("00.b1", logits, torch.zeros(5, dtype=torch.long)))
    why = (
        "The exponential of the mean of minus the logarithms, which is the geometric mean of 1/p. Averaging the four 1/p "
        "themselves lets one surprising token decide."
    )
    return Draw(text, answer, 0.02 + answer / 500, why, {"values": values})


@template("01.n1", "what RMSNorm lets through")
def rms_norm(draw):
    """One entry of a normalised state with a massive value."""
    small, massive, gain = draw.choice((2, 3, 5)), draw.choice((100, 200, 400)), draw.choice((0.1, 0.2, 0.3))
    text = (
        f"A token's hidden state has four features: {small}, {small}, {small} and {massive}. RMSNorm has the gain {gain:g} "
        "for the fourth feature and 0.5 for the others; epsilon is 0. What does the layer behind it read in the fourth "
        "feature? (three decimals)"
    )
    state = torch.tensor([[small, small, small, massive]]).double()
    answer = float(_solved("01.b2", state, torch.tensor([0.5, 0.5, 0.5, gain]), 0.0)[0, 3])
    why = (
        "The root of the mean square is about half of the massive value, so the feature leaves the norm at about 2 and the "
        "gain does the rest. Dividing by the root of the sum, not of the mean, gives half of it."
    )
    return Draw(text, answer, 0.005, why, {"small": small, "massive": massive, "gain": gain})


@template("01.n2", "how far the peak stands out")
def peak(draw):
    """Largest over median magnitude."""
    values = [*_distinct(draw, 6, step=1, most=9), draw.choice((-1, 1)) * draw.choice((60, 90, 120))]
    draw.shuffle(values)
    text = (
        f"A hidden state holds the values {_row(values)}. How many times its median magnitude is its largest magnitude? "
        "(two decimals)"
    )
    answer = float(_solved("01.1", torch.tensor(values).double().reshape(1, 1, -1))[0])
    why = "Magnitudes first, then the largest and the median. The median of the signed values is no size at all."
    return Draw(text, answer, 0.01, why, {"values": values})


@template("02.n1", "starved by one threshold")
def starved(draw):
    """Weights that an output keeps, layer-wise."""
    values = _distinct(draw, 12, most=40)
    rows = [values[:4], values[4:8], values[8:]]
    number = draw.randrange(3)
    text = (
        f"A layer has three outputs with four weights each: first {_row(rows[0])}; second {_row(rows[1])}; third "
        f"{_row(rows[2])}. It is pruned to 50 % by magnitude with one threshold for the layer. How many weights does "
        f"the {('first', 'second', 'third')[number]} output keep?"
    )
    kept = ~wanda.prune_mask(torch.tensor(rows).abs(), 0.5, group="layer")  # [3, 4]
    why = "Order all twelve sizes; the six smallest go, wherever they stand. Two of each row go only if rows compete alone."
    return Draw(text, int(kept[number].sum()), 0, why, {"rows": rows, "number": number})


@template("02.n2", "the relative change of an output")
def output_error(draw):
    """What a mask does to one output over two tokens."""
    weights = [draw.randint(1, 6), draw.randint(1, 6)]
    tokens = [[draw.randint(1, 5), draw.randint(1, 5)] for _ in range(2)]
    text = (
        f"An output has the weights {_row(weights)}. It reads two tokens: ({_row(tokens[0])}) and ({_row(tokens[1])}). Its "
        "second weight is removed. By how many per cent of its norm over the two tokens does the output change? (one "
        "decimal)"
    )
    mask = torch.tensor([[False, True]])
    answer = 100 * float(_solved("02.3", torch.tensor([weights]).double(), torch.tensor(tokens).double(), mask))
    why = (
        "The norm of what is missing over the norm of the dense output: roots of sums of squares over both tokens, above "
        "and below. Ratios per token, averaged, are something else."
    )
    return Draw(text, answer, 0.1, why, {"weights": weights, "tokens": tokens})


@template("03.n1", "what Wanda removes")
def wanda_row(draw):
    """The root of the sum of the squared scores that a row gives up."""
    weights = _distinct(draw, 6)
    norms = draw.sample((0.5, 1, 2, 3, 4, 8), 6)
    text = (
        f"A row has the weights {_row(weights)}; the norms of its inputs are {_row(norms)}. Wanda removes half of the row. "
        "How far does the output move if the cross terms cancel? (two decimals)"
    )
    score = torch.tensor([weights]).double().abs() * torch.tensor(norms)  # [1, 6]
    answer = float(score[wanda.prune_mask(score, 0.5)].norm())
    why = (
        "Scores are |w| times norm; the three smallest go; without cross terms their squares add up. The sum of the scores "
        "themselves would be right only if all three contributions pointed the same way."
    )
    return Draw(text, answer, 0.01, why, {"weights": weights, "norms": norms})


@template("03.n2", "the price of a pair")
def pair(draw):
    """The cost of two removals with their cross term."""
    weights = [draw.choice((-3, -2, -1, 1, 2, 3)) for _ in range(2)]
    tokens = [[draw.randint(-4, 4), draw.randint(1, 4)] for _ in range(3)]
    text = (
        f"A row holds the weights {weights[0]} and {weights[1]} for two features. Over three tokens, the first feature is "
        f"{_row(token[0] for token in tokens)}, the second {_row(token[1] for token in tokens)}. Both weights are removed. "
        "How far does the output move? (two decimals)"
    )
    answer = float(_solved("03.1", torch.tensor(weights).double(), torch.tensor(tokens).double())[0, 1])
    why = (
        "Add the two contributions token by token, then take the norm: the cross term counts twice in the square of a sum, "
        "and it has a sign."
    )
    return Draw(text, answer, 0.01, why, {"weights": weights, "tokens": tokens})


@template("04.n1", "the distance from the dense model")
def distance(draw):
    """Mean relative distance of two tokens' hidden states."""
    dense = [[draw.randint(1, 9), draw.randint(1, 9)] for _ in range(2)]
    pruned = [[entry + draw.choice((-2, -1, 1, 2)) for entry in token] for token in dense]
    text = (
        f"After a block, the dense model has the hidden states ({_row(dense[0])}) and ({_row(dense[1])}) for two tokens, the "
        f"pruned model ({_row(pruned[0])}) and ({_row(pruned[1])}). What is the distance as notebook 04 defines it: the mean "
        "over tokens of the length of the difference over the length of the dense state? (three decimals)"
    )
    states = (torch.tensor([states]).double() for states in (pruned, dense))  # [1, tokens, 2] each
    answer = float(_solved("04.b3", *states)[0])
    why = "One ratio per token, then the mean. One norm over all tokens would let the longest state decide."
    return Draw(text, answer, 0.003, why, {"dense": dense, "pruned": pruned})


@template("04.n2", "norms of what arrives")
def norm_of_two(draw):
    """The norm of a feature over batches of which some positions are padding."""
    real, filler = [draw.randint(1, 9) for _ in range(4)], draw.randint(10, 20)
    text = (
        f"A layer reads one feature over two windows. First window: {_row(real[:2])}, then a padded position where the "
        f"feature is {filler}. Second window: {_row(real[2:])}, and no padding. What norm does the score of Wanda need? (two "
        "decimals)"
    )
    batches = [torch.tensor([*real[:2], filler]).reshape(1, 3, 1), torch.tensor(real[2:]).reshape(1, 2, 1)]
    masks = [torch.tensor([[True, True, False]]), torch.tensor([[True, True]])]
    answer = float(_solved("03.3", [batch.double() for batch in batches], masks)[0])
    why = "Leave the padding out, add the squares of all tokens, take one root. Norms of windows do not add up; squares do."
    return Draw(text, answer, 0.01, why, {"real": real, "filler": filler})


def _surgeon(draw):
    """A row of two weights and a Hessian that is positive definite."""
    row = [draw.choice((0.2, 0.4, 0.5, 0.8, 1.0)), draw.choice((0.3, 0.6, 0.9, 1.2))]
    a, c = draw.randint(2, 9), draw.randint(2, 9)
    b = draw.randint(1, min(a, c) - 1)
    return row, [[a, b], [b, c]]


@template("05.n1", "the surgeon's price")
def surgeon_price(draw):
    """The squared error that is left after the best repair."""
    row, hessian = _surgeon(draw)
    (a, b), (_, c) = hessian
    text = (
        f"A row has the weights {_row(row)}, and H = XᵀX has the diagonal {a} and {c}, and {b} beside it. The first weight is "
        "removed and the second may move. Which squared error is left at best? (three decimals)"
    )
    inverse = torch.linalg.inv(torch.tensor(hessian).double())
    answer = float(row[0] ** 2 / inverse[0, 0])
    why = (
        "w² / [H⁻¹]₁₁, which is w² (H₁₁ − H₁₂² / H₂₂). The squared Wanda score w² H₁₁ is the price without a repair, and is "
        "never lower."
    )
    return Draw(text, answer, 0.002, why, {"row": row, "hessian": hessian})


@template("05.n2", "where the other weight goes")
def surgeon_move(draw):
    """The kept weight after the repair."""
    row, hessian = _surgeon(draw)
    (a, b), (_, c) = hessian
    text = (
        f"A row has the weights {_row(row)}, and H = XᵀX has the diagonal {a} and {c}, and {b} beside it. The first weight is "
        "removed, and the second makes up for it as well as it can. Which value does it take? (three decimals)"
    )
    hessian_, weights = torch.tensor(hessian).double(), torch.tensor(row).double()
    answer = float(_solved("05.b1", weights, hessian_, 0)[1])
    why = "It takes over the share H₁₂ / H₂₂ of the removed weight. Moving along a column of H, not of its inverse, is wrong."
    return Draw(text, answer, 0.002, why, {"row": row, "hessian": hessian})


@template("06.n1", "windows of unequal length")
def windows(draw):
    """Perplexity of a text whose last window is shorter."""
    long, short = draw.choice((1000, 500)), draw.choice((100, 250))
    losses = [draw.choice((2.8, 3.0, 3.2)), draw.choice((3.4, 3.8, 4.2))]
    text = (
        f"A text is read in two windows. In the first, {long} tokens are predicted with a mean loss of {losses[0]:g} nats; in "
        f"the second, {short} tokens with {losses[1]:g} nats. What is the perplexity of the text? (one decimal)"
    )
    tokens = [torch.full((count,), loss).double() for count, loss in zip((long, short), losses, strict=True)]
    answer = _solved("06.b1", tokens)
    why = "Every token counts the same: add all losses, divide by all tokens, then the exponential. The short window counts less."
    return Draw(text, answer, answer / 200, why, {"long": long, "short": short, "losses": losses})


@template("06.n2", "the error of a paired difference")
def paired_windows(draw):
    """Standard error of a mean difference over four windows."""
    first = [round(3 + 0.1 * draw.randint(0, 9), 1) for _ in range(4)]
    second = [round(loss - 0.01 * step, 2) for loss, step in zip(first, draw.sample(range(1, 12), 4), strict=True)]
    text = (
        f"Two models have these mean losses on the same four windows: {_row(first)} and {_row(second)}. What is the standard "
        "error of their mean difference? (four decimals)"
    )
    answer = float(_solved("06.3", torch.tensor(first).double(), torch.tensor(second).double())[1])
    why = (
        "Differences window by window; their standard deviation (with n − 1) over the root of their number. Taking the "
        "spread of each model by itself keeps the luck of hard windows in, which is common to both."
    )
    return Draw(text, answer, 0.0005, why, {"first": first, "second": second})


@template("07.n1", "bits per weight of N:M")
def pattern_bits(draw):
    """Storage of a packed N:M matrix."""
    keep, size = draw.choice(((2, 4), (4, 8), (1, 4), (8, 16), (3, 6), (2, 8)))
    bits = draw.choice((4, 8, 16))
    text = (
        f"A matrix with the pattern {keep}:{size} is packed: each kept weight takes {bits} bits, and its place in the group "
        "as many bits as a place needs. How many bits is that per weight of the matrix, zeros included? (two decimals)"
    )
    answer = _solved("07.2", keep, size, bits)
    why = f"N (bits + log₂ M, rounded up) for every M weights. Only kept weights need a place. Here N is {keep} and M is {size}."
    return Draw(text, answer, 0.005, why, {"keep": keep, "size": size, "bits": bits})


@template("07.n2", "the speed-up to expect")
def speedup(draw):
    """The roofline estimate for one 2:4 product."""
    tokens, bandwidth, rate = draw.choice((1, 16, 180, 4096)), draw.choice((1, 2, 3)), draw.choice((200, 300, 400))
    text = (
        f"A GPU reads {bandwidth} TB/s and does {rate} TFLOP/s in dense 16-bit products. How many times as fast as the dense "
        f"product is a 2:4 product of one weight matrix with {tokens} tokens, by the estimate of notebook 07? (two decimals)"
    )
    answer = _solved("07.3", tokens, 10**6, bandwidth * 1e12, rate * 1e12)
    why = (
        "For each product the larger of the two times: bytes over bandwidth (2 and 9/8 bytes a weight), operations over rate "
        "(2 and 1 a weight and token). Few tokens give 16/9, many give 2, and between the two limits neither."
    )
    return Draw(text, answer, 0.01, why, {"tokens": tokens, "bandwidth": bandwidth, "rate": rate})


@template("08.n1", "the overlap that chance gives")
def chance(draw):
    """Expected Jaccard index of two random masks."""
    one, two = draw.sample((20, 30, 40, 50, 60, 70, 80), 2)
    text = (
        f"Two masks are drawn at random and independently: one prunes {one} % of the weights, the other {two} %. Which Jaccard "
        "index of the pruned weights is expected? (three decimals)"
    )
    answer = _solved("08.2", one / 100, two / 100)
    why = "Both prune the product of the two shares; at least one prunes their sum less that product. Divide."
    return Draw(text, answer, 0.002, why, {"one": one, "two": two})


@template("08.n2", "a mixture of two texts")
def mixture(draw):
    """Root mean square of a feature in a mixture."""
    norms, tokens = draw.sample((20, 30, 40, 60, 80), 2), draw.sample((400, 900, 1600, 2500), 2)
    share = draw.choice((10, 25, 50, 75))
    text = (
        f"Over {tokens[0]} tokens of news a feature has the norm {norms[0]}, over {tokens[1]} tokens of code the norm "
        f"{norms[1]}. What is its root mean square in a text of which {share} % of the tokens are like the news and the rest "
        "like the code? (three decimals)"
    )
    one, two = (torch.tensor([norm]).double() for norm in norms)
    answer = float(_solved("08.3", one, tokens[0], two, tokens[1], share / 100))
    why = "Squares per token add up: mix the two mean squares by the share and take one root. Norms themselves do not mix."
    return Draw(text, answer, 0.005, why, {"norms": norms, "tokens": tokens, "share": share})


@template("09.n1", "what the adapters hold")
def adapters(draw):
    """Parameters of LoRA adapters."""
    blocks, width, inner, rank = draw.choice((12, 24, 30)), draw.choice((512, 768)), draw.choice((1024, 2048)), 4
    rank *= draw.choice((1, 2, 4))
    text = (
        f"A model has {blocks} blocks. In each, a q projection of {width} × {width} and an up projection of {inner} outputs "
        f"and {width} inputs get LoRA adapters of rank {rank}. How many parameters are trained?"
    )
    answer = _solved("09.2", [(width, width), (inner, width)] * blocks, rank)
    why = "A is [rank, in] and B is [out, rank], so each adapter holds rank · (in + out). The product B A is never stored."
    return Draw(text, answer, 0, why, {"blocks": blocks, "width": width, "inner": inner, "rank": rank})


@template("09.n2", "the share of the gap that is closed")
def gap(draw):
    """The fair share of a gap that training closes."""
    dense, pruned = draw.choice((16, 18, 20)), draw.choice((40, 50, 60))
    after, dense_after = pruned - draw.choice((8, 10, 14)), dense - draw.choice((1, 2))
    text = (
        f"A pruned model's perplexity falls from {pruned} to {after} when it is trained; the dense model's, trained on the "
        f"same tokens, from {dense} to {dense_after}. Which share of the gap is closed, in nats and with the fair comparison? "
        "(three decimals)"
    )
    answer = _solved("09.3", pruned, after, dense, dense_after)
    why = (
        "Gaps are logarithms of ratios: before against the dense model before, after against the dense model after. Against "
        "the untrained dense model, what the new text gives to any model counts as recovery."
    )
    given = {"pruned": pruned, "after": after, "dense": dense, "dense_after": dense_after}
    return Draw(text, answer, 0.003, why, given)


@template("10.n1", "the error of an accuracy")
def accuracy_error(draw):
    """Standard error of an accuracy, in points."""
    items, right = draw.choice((101, 201, 401)), draw.choice((40, 55, 70, 85))
    count = round(items * right / 100)
    text = (
        f"A model gets {count} of {items} items right. What is the standard error of its accuracy, in percentage points, with "
        "n − 1 as in notebook 10? (two decimals)"
    )
    answers = torch.cat([torch.ones(count), torch.zeros(items - count)]).double()
    answer = 100 * _solved("10.2", answers)
    why = "The root of p (1 − p) / (n − 1). Without the number of items it is the spread of single answers."
    return Draw(text, answer, 0.02, why, {"items": items, "count": count})


@template("10.n2", "how many items it takes")
def items(draw):
    """Items for a difference of a given number of paired errors."""
    changed, points, errors = draw.choice((10, 15, 20, 25)), draw.choice((3, 6, 7)), 2  # no product is a whole number
    text = (
        f"Two models disagree on {changed} % of the items, and their accuracies differ by {points} points. How many items does "
        f"it take for this difference to be {errors} paired standard errors? (n, not n − 1; rounded up)"
    )
    answer = _solved("10.4", changed / 100, points / 100, errors)
    why = "The changes are −1, 0 and 1: their variance is the share that changes less the squared difference. Errors fall with √n."
    return Draw(text, answer, 1, why, {"changed": changed, "points": points, "errors": errors})


@template("11.n1", "ahead of the baseline")
def ratio(draw):
    """Geometric mean of paired ratios."""
    baseline = [draw.randint(36, 44) for _ in range(3)]
    ours = [value + step for value, step in zip(baseline, draw.sample((-5, -3, -1, 2, 4), 3), strict=True)]
    text = (
        f"On three sets of calibration windows the baseline has the perplexities {_row(baseline)}, your entry {_row(ours)}, in "
        "the same order. What is the ratio that the leaderboard shows, ours over the baseline's? (three decimals)"
    )
    answer = float(_solved("11.1", torch.tensor(ours).double(), torch.tensor(baseline).double())[0])
    why = "The geometric mean of the three paired ratios. The ratio of the means gives more weight to a hard set."
    return Draw(text, answer, 0.0006, why, {"baseline": baseline, "ours": ours})


@template("11.n2", "what OWL spares")
def owl(draw):
    """The sparsity of the block with most outliers."""
    shares = draw.sample((1, 2, 3, 5, 6, 8), 4)
    text = (
        f"Four equal blocks have {_row(shares)} % of outliers. OWL aims at a mean sparsity of 50 % with λ = 0.08. What "
        "sparsity does the block with the most outliers get, in per cent? (one decimal)"
    )
    found = _solved("11.b2", torch.tensor(shares).double() / 100, 0.5)
    answer = 100 * float(found.min())
    why = "Stretch the shares to a width of 2λ and put their mean, not their middle, at the target: it may be spared more than λ."
    return Draw(text, answer, 0.1, why, {"shares": shares})


@template("12.n1", "what a swap changes")
def swap(draw):
    """The change of a row's squared error by one swap."""
    row = [draw.choice((1, 2, 3)) for _ in range(3)]
    a, b, c = (draw.randint(4, 9) for _ in range(3))
    links = [draw.randint(-2, 2) for _ in range(3)]  # small enough for the Hessian of some text
    text = (
        f"A row has the weights {_row(row)}. H has the diagonal {a}, {b}, {c}; H₁₂ is {links[0]}, H₁₃ is {links[1]} and H₂₃ is "
        f"{links[2]}. Only the first weight is pruned so far. By how much does the squared error of the row change if the second "
        "is pruned and the first comes back?"
    )
    hessian = torch.tensor([[a, links[0], links[1]], [links[0], b, links[2]], [links[1], links[2], c]]).double()
    pruned = torch.tensor([True, False, False])
    answer = float(_solved("12.b3", torch.tensor(row).double(), pruned, hessian)[1, 0])
    why = "With one pruned weight before and one after, the cross terms cancel: the error goes from w₁² H₁₁ to w₂² H₂₂."
    given = {"row": row, "diagonal": [a, b, c], "links": links}
    return Draw(text, answer, 0.01, why, given)


@template("12.n2", "the zeros come gradually")
def gradual(draw):
    """Weights pruned after some steps of the cubic schedule."""
    count, steps = draw.choice((200, 288, 400, 768)), draw.choice((10, 15, 20))
    step = draw.randint(2, steps // 2)
    text = (
        f"ADMM prunes {count} weights of each row within {steps} steps, and has after step i of n pruned the share "
        f"1 − (1 − i/n)³ of them. How many are pruned after step {step}, rounded to the nearest number?"
    )
    answer = _solved("12.3", count, step, steps)
    why = "Many early, few late: what is left to prune shrinks with the third power of what is left of the steps."
    return Draw(text, answer, 0, why, {"count": count, "steps": steps, "step": step})


@template("13.n1", "what more processes save")
def processes(draw):
    """Seconds with several processes."""
    passes, select = draw.choice((20, 40, 60)), draw.choice((5, 10, 30))
    windows, count = draw.choice((10, 14, 18)), draw.choice((3, 4))
    text = (
        f"One process spends {passes} seconds on passes over {windows} calibration windows and {select} seconds on choosing "
        f"masks. How many seconds does it take with {count} processes that share the windows, by exercise 13.3? (one decimal)"
    )
    phases = {"capture": 0, "statistics": passes, "recompute": 0, "select": select}
    answer = _solved("13.3", phases, windows, count)
    why = "Windows are whole, and all wait for the process that has most; every process chooses all masks for its own copy."
    return Draw(text, answer, 0.1, why, {"passes": passes, "select": select, "windows": windows, "count": count})


@template("13.n2", "one norm from several machines")
def machines(draw):
    """The norm over all tokens of two machines."""
    one, two = draw.sample((3, 5, 6, 8, 9, 12, 15), 2)
    tokens = draw.sample((1000, 2000, 4000), 2)
    text = (
        f"Two machines report the norm of a feature over their own calibration tokens: {one} over {tokens[0]} tokens and {two} "
        f"over {tokens[1]} tokens. What is the norm over all tokens? (two decimals)"
    )
    answer = float(_solved("13.2", [torch.tensor([one]), torch.tensor([two])], tokens)[0])
    why = "Squares add up, norms do not, and a squared norm is a sum over tokens already: the numbers of tokens do not enter."
    return Draw(text, answer, 0.01, why, {"one": one, "two": two, "tokens": tokens})
