"""The judge of a leaderboard of pruning methods: the same model, calibration windows, texts and sparsity for all.

An entry is a method that `wanda.prune` takes, or a function that prepares options for `wanda.prune`, or one that prunes
the model itself. `judge` returns what it measured; `standings` compares, tabulates and stores it; `tracks` names the
rules of the public leaderboard, and `judging` is its command.
"""

import inspect
import math
import time
from dataclasses import asdict, dataclass

from wanda import find_blocks
from wanda import prune as prune_with
from wanda.masks import parse_pattern
from wanda.sources.models import load
from wanda.sources.text import calibration_set, eval_tokens
from wanda.tools.compare import restoring
from wanda.tools.perplexity import over_windows, window_losses
from wanda.tools.provenance import provenance
from wanda.tools.zeroshot import PAPER_TASKS, zero_shot

from . import fingerprint, leaks
from .forward_passes import forward_seconds

CHOICES = {"method", "sparsity", "group", "update", "propagate"}  # of `wanda.prune`: what an entry may choose
TOLERANCE = 1e-3  # of the sparsity, which rounding in each row shifts slightly
TEXTS = ("open", "held_out")
METHODS = {*fingerprint.METHODS, "admm"}  # whose numerics an entry may have run
DECIMALS = 5  # of the losses: finer than two machines agree


@dataclass(frozen=True)
class Rules:
    """The fixed conditions. Only entries under equal rules are compared.

    Attributes:
        model: as for `wanda.load`.
        sparsity: of all prunable weights together; its distribution over the layers is free. With a pattern, 1 - N/M.
        pattern: None, or "N:M", which every prunable layer must have.
        update: whether the kept weights may be changed. If not, only an entry's zeros count.
        propagate: as for `wanda.prune`, unless an entry chooses.
        calibration, samples, length: source, number and tokens of the calibration windows.
        sets: how many sets of such windows; their seeds are 0, 1, 2 and so on.
        evaluation, windows, window: source, number and tokens of the evaluation windows. The open text is the first
            `windows` of them, the held-out text the next `windows`.
        zero_shot: whether to measure the paper's zero-shot tasks as well, whose items come from the datasets hub.
    """

    model: str = "smollm2"
    sparsity: float = 0.5
    pattern: str | None = None
    update: bool = False
    propagate: str = "dense"
    calibration: str = "news"
    samples: int = 4
    length: int = 512
    sets: int = 3
    evaluation: str = "wikipedia"
    windows: int = 3
    window: int = 512
    zero_shot: bool = False

    @property
    def amount(self):
        """How much to prune, as arguments of `wanda.prune`: a dict."""
        return {"pattern": self.pattern} if self.pattern else {"sparsity": self.sparsity}


@dataclass(frozen=True)
class Bench:
    """What `Rules` name, loaded.

    Attributes:
        calibrations: one LongTensor [samples, length] per set.
        texts: dict from "open" and, if it was asked for, "held_out" to a LongTensor [windows * window].
        dense: dict from the same names to the perplexity of the model before pruning.
    """

    rules: Rules
    model: object
    tokenizer: object
    calibrations: list
    texts: dict
    dense: dict


def set_up(rules, texts=TEXTS, device=None):
    """Load what the rules name. Returns a `Bench`.

    Args:
        texts: which of the two texts to judge by.
        device: as for `wanda.load`.

    Raises: ValueError: the evaluation text is too short for two texts of the required size.
    """
    model, tokenizer = load(rules.model, device=device)
    calibrations = [
        calibration_set(tokenizer, rules.calibration, samples=rules.samples, length=rules.length, seed=seed)
        for seed in range(rules.sets)
    ]
    size = rules.windows * rules.window
    tokens = eval_tokens(tokenizer, rules.evaluation)
    if len(tokens) < 2 * size:
        raise ValueError(f"{rules.evaluation!r} has {len(tokens)} tokens; two texts of {size} tokens are needed")
    parts = {text: part for text, part in zip(TEXTS, tokens.split(size), strict=False) if text in texts}
    dense = {text: over_windows(window_losses(model, part, rules.window)) for text, part in parts.items()}
    return Bench(rules, model, tokenizer, calibrations, parts, dense)


def judge(name, bench, method=None, *, prepare=None, prune=None, say=None):
    """Prune the bench's model by an entry, once per set of calibration windows, and measure it on the bench's texts.

    Unless the rules allow an update, only the pruned model's zeros count, and all other weights keep their dense values.
    With an update, the prunable weights count, and everything else in the model keeps its values. Give one of three:

    Args:
        name: the entry's.
        bench: a `Bench`. Its model is restored afterwards, whatever the entry did to it.
        method: as for `wanda.prune`: a method's name, or function (weight [out, in], input_norm [in]) -> score [out, in].
        prepare: function (model, calibration) -> dict of options for `wanda.prune`: "method" and, optionally, "group",
            "sparsity" (per layer), "update" and "propagate".
        prune: function (model, calibration) that prunes the model in place.
        say: function that is given a line of text when a set of windows is done.

    Returns: the entry, a dict ready for JSON: name, rules, dense (perplexities), sparsity [sets], perplexity (dict text ->
        [sets]), losses (dict text -> [sets][windows], mean nats per token), forwards [sets] (the time to prune, in dense
        forward passes over the calibration windows), accuracy ([sets] of dict task -> float, if the rules ask for it), source (of the function; None for a name), fingerprint, provenance
        (date, machine, versions, hashes of the texts).

    Raises:
        ValueError: the entry can reach an evaluation text (see `leaks`), chooses what the rules fix, misses the sparsity
            or the pattern, or leaves a model without a finite perplexity.
        TypeError: not exactly one of `method`, `prepare` and `prune` given.
    """
    given = [way for way in (method, prepare, prune) if way is not None]
    if len(given) != 1:
        raise TypeError(f"give one of method, prepare and prune, not {len(given)}")
    _refuse_leaks(name, given[0], bench)
    act, methods = prune, METHODS
    if prune is None:
        methods = {"wanda"}
        act = _by_options(name, bench, prepare or (lambda model, calibration: {"method": method}), methods)
    unit = forward_seconds(bench.model, bench.calibrations[0])
    entry = {"name": name, "rules": asdict(bench.rules), "dense": bench.dense, "sparsity": [], "forwards": []}
    entry |= {"perplexity": {text: [] for text in bench.texts}, "losses": {text: [] for text in bench.texts}}
    entry["source"] = None if isinstance(method, str) else _source(given[0])
    for calibration in bench.calibrations:
        began = time.perf_counter()
        weights = _pruned(bench, act, calibration)
        entry["forwards"].append(round((time.perf_counter() - began) / unit, 2))
        entry["sparsity"].append(_checked_sparsity(name, weights, bench.rules))
        with restoring(bench.model):
            for layer, weight in zip(_layers(bench.model), weights, strict=True):
                layer.replace(weight)
            for text, tokens in bench.texts.items():
                losses = window_losses(bench.model, tokens, bench.rules.window)
                entry["perplexity"][text].append(over_windows(losses))
                entry["losses"][text].append([round(loss / count, DECIMALS) for loss, count in losses])
                if not math.isfinite(entry["perplexity"][text][-1]):
                    raise ValueError(f"{name!r} leaves a model whose perplexity is {entry['perplexity'][text][-1]}")
            if say is not None:
                found = (f"{values[-1]:.4g} ({text.replace('_', '-')})" for text, values in entry["perplexity"].items())
                say(f"set {len(entry['sparsity'])} of {len(bench.calibrations)}: perplexity {', '.join(found)}")
            if bench.rules.zero_shot:
                entry.setdefault("accuracy", []).append(zero_shot(bench.model, bench.tokenizer, PAPER_TASKS))
    calibrations = {f"calibration_{seed}": windows for seed, windows in enumerate(bench.calibrations)}
    entry["fingerprint"] = {method: fingerprint.of(method) for method in sorted(methods)}
    entry["provenance"] = provenance(**calibrations, **bench.texts) | {"command": f"judge({name!r})"}
    return entry


def _by_options(name, bench, prepare, methods):
    """A function (model, calibration) that prunes by the options that `prepare` returns; adds what it runs to `methods`."""

    def act(model, calibration):
        chosen = prepare(model, calibration)
        if set(chosen) - CHOICES:
            raise ValueError(f"{name!r} chooses {sorted(set(chosen) - CHOICES)}; it may choose {sorted(CHOICES)}")
        options = {**bench.rules.amount, "propagate": bench.rules.propagate, **chosen}
        for option in ("method", "update"):
            if callable(options.get(option)):
                _refuse_leaks(name, options[option], bench)
        if isinstance(options["method"], str):
            methods.update({options["method"]} & METHODS)
        if isinstance(options.get("update"), str):
            methods.add("sparsegpt")
        prune_with(model, calibration, progress=False, **options)

    return act


def _pruned(bench, act, calibration):
    """The weights [out, in] of all prunable layers as the rules count them. The model is restored afterwards."""
    dense = {key: value.clone() for key, value in bench.model.state_dict().items()}
    try:
        act(bench.model, calibration)
        weights = [layer.weight.detach().clone() for layer in _layers(bench.model)]
    finally:
        bench.model.load_state_dict(dense)
    if bench.rules.update:
        return weights
    layers = _layers(bench.model)
    return [layer.weight.masked_fill(weight == 0, 0) for layer, weight in zip(layers, weights, strict=True)]


def _checked_sparsity(name, weights, rules):
    """The fraction of zeros in all weights. Raises: ValueError: not what the rules require."""
    zeros = [weight == 0 for weight in weights]
    found = sum(int(zero.sum()) for zero in zeros) / sum(zero.numel() for zero in zeros)
    if rules.pattern is not None:
        keep, size = parse_pattern(rules.pattern)
        broken = sum(bool((zero.view(-1, size).sum(dim=1) < size - keep).any()) for zero in zeros)
        if broken:
            raise ValueError(f"{name!r} breaks the pattern {rules.pattern} in {broken} of {len(zeros)} layers")
    elif abs(found - rules.sparsity) > TOLERANCE:
        raise ValueError(f"{name!r} prunes {found:.2%} of the weights; the rules require {rules.sparsity:.2%}")
    return found


def _layers(model):
    return [layer for block in find_blocks(model) for layer in block.layers]


def _refuse_leaks(name, entry, bench):
    """Raise if an entry can reach one of the texts it is judged on."""
    texts = list(bench.texts.values())
    if not isinstance(entry, str):
        findings = leaks.find(entry, texts, [bench.tokenizer.decode(text.tolist()) for text in texts])
        if findings:
            raise ValueError(f"{name!r} is not judged: {'; '.join(findings)}")


def _source(entry):
    """The source code of a function, of a partial's function, or of a callable object's class."""
    while hasattr(entry, "func"):
        entry = entry.func
    return inspect.getsource(entry if inspect.isroutine(entry) else type(entry))
