"""The judge of a leaderboard of pruning metrics: the same model, calibration windows, texts and sparsity for all.

A metric is anything that `wanda.prune` takes for `method`. A metric that needs more than a weight and a norm is given
as a function `prepare(model, calibration)` that returns options for `wanda.prune`; it is called once per set of
calibration windows. `judge` returns an entry; `standings` compares, tabulates and stores entries.
"""

import inspect
from dataclasses import asdict, dataclass

from wanda import find_blocks
from wanda.pruning import prune
from wanda.sources.models import load
from wanda.sources.text import calibration_set, eval_tokens
from wanda.tools.compare import restoring
from wanda.tools.perplexity import perplexity
from wanda.tools.provenance import provenance

from . import leaks

CHOICES = {"method", "sparsity", "group"}  # what a metric may choose
TOLERANCE = 1e-3  # of the sparsity, which rounding in each row shifts slightly


@dataclass(frozen=True)
class Rules:
    """The fixed conditions. Only entries under equal rules are compared.

    Attributes:
        model: as for `wanda.load`.
        sparsity: of all prunable weights together; its distribution over the layers is free.
        calibration, samples, length: source, number and tokens of the calibration windows.
        sets: how many sets of such windows; their seeds are 0, 1, 2 and so on.
        evaluation, windows, window: source, number and tokens of the evaluation windows. The open text is the first
            `windows` of them, the held-out text the next `windows`.
    """

    model: str = "smollm2"
    sparsity: float = 0.5
    calibration: str = "news"
    samples: int = 4
    length: int = 512
    sets: int = 3
    evaluation: str = "wikipedia"
    windows: int = 3
    window: int = 512


@dataclass(frozen=True)
class Bench:
    """What `Rules` name, loaded.

    Attributes:
        calibrations: one LongTensor [samples, length] per set.
        texts: dict "open", "held_out" -> LongTensor [windows * window].
        dense: dict "open", "held_out" -> perplexity of the model before pruning.
    """

    rules: Rules
    model: object
    tokenizer: object
    calibrations: list
    texts: dict
    dense: dict


def set_up(rules):
    """Load what the rules name. Returns a `Bench`.

    Raises: ValueError: the evaluation text is too short for two texts of the required size.
    """
    model, tokenizer = load(rules.model)
    calibrations = [
        calibration_set(tokenizer, rules.calibration, samples=rules.samples, length=rules.length, seed=seed)
        for seed in range(rules.sets)
    ]
    size = rules.windows * rules.window
    tokens = eval_tokens(tokenizer, rules.evaluation)
    if len(tokens) < 2 * size:
        raise ValueError(f"{rules.evaluation!r} has {len(tokens)} tokens; two texts of {size} tokens are needed")
    texts = {"open": tokens[:size], "held_out": tokens[size : 2 * size]}
    dense = {name: perplexity(model, text, rules.window) for name, text in texts.items()}
    return Bench(rules, model, tokenizer, calibrations, texts, dense)


def judge(name, bench, method=None, *, prepare=None):
    """Prune the bench's model with a metric, once per set of calibration windows, and measure it on both texts.

    A metric only chooses masks: only the pruned model's zeros count, and all other weights keep their dense values.

    Args:
        name: the entry's.
        bench: a `Bench`. Its model is restored afterwards, whatever the metric did to it.
        method: as for `wanda.prune`: a method's name, or function (weight [out, in], input_norm [in]) -> score [out, in].
        prepare: instead of `method`, function (model, calibration) -> dict of "method" and, optionally, "group" and
            "sparsity" (per layer).

    Returns: the entry, a dict ready for JSON: name, rules, dense (perplexities), sparsity [sets], perplexity (dict text ->
        [sets]), source (of the function; None for a name), provenance (date, machine, versions, hashes of the texts).

    Raises:
        ValueError: the metric can reach an evaluation text (see `leaks`), chooses what the rules fix, or misses the
            sparsity. TypeError: neither or both of `method` and `prepare` given.
    """
    if (method is None) == (prepare is None):
        raise TypeError("give either method or prepare(model, calibration), not both")
    _refuse_leaks(name, method or prepare, bench)
    entry = {"name": name, "rules": asdict(bench.rules), "dense": bench.dense, "sparsity": []}
    entry["perplexity"] = {text: [] for text in bench.texts}
    entry["source"] = None if isinstance(method, str) else _source(method or prepare)
    for calibration in bench.calibrations:
        masks = _choose(name, bench, calibration, prepare or (lambda model, calibration: {"method": method}))
        entry["sparsity"].append(sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks))
        if abs(entry["sparsity"][-1] - bench.rules.sparsity) > TOLERANCE:
            got, wanted = f"{entry['sparsity'][-1]:.2%}", f"{bench.rules.sparsity:.2%}"
            raise ValueError(f"{name!r} prunes {got} of the weights; the rules require {wanted}")
        with restoring(bench.model):
            for layer, mask in zip(_layers(bench.model), masks, strict=True):
                layer.replace(layer.weight.masked_fill(mask, 0))
            for text, tokens in bench.texts.items():
                entry["perplexity"][text].append(perplexity(bench.model, tokens, bench.rules.window))
    calibrations = {f"calibration_{seed}": windows for seed, windows in enumerate(bench.calibrations)}
    entry["provenance"] = provenance(**calibrations, **bench.texts) | {"command": f"judge({name!r})"}
    return entry


def _choose(name, bench, calibration, prepare):
    """The metric's masks: bool [out, in] per layer. The model is restored afterwards."""
    dense = {key: value.clone() for key, value in bench.model.state_dict().items()}
    try:
        options = {"sparsity": bench.rules.sparsity, **prepare(bench.model, calibration)}
        if set(options) - CHOICES:
            raise ValueError(f"{name!r} chooses {sorted(set(options) - CHOICES)}; it may choose {sorted(CHOICES)}")
        _refuse_leaks(name, options["method"], bench)
        prune(bench.model, calibration, propagate="dense", progress=False, **options)
        return [layer.weight == 0 for layer in _layers(bench.model)]
    finally:
        bench.model.load_state_dict(dense)


def _layers(model):
    return [layer for block in find_blocks(model) for layer in block.layers]


def _refuse_leaks(name, metric, bench):
    """Raise if a metric can reach one of the texts it is judged on."""
    texts = list(bench.texts.values())
    if not isinstance(metric, str):
        findings = leaks.find(metric, texts, [bench.tokenizer.decode(text.tolist()) for text in texts])
        if findings:
            raise ValueError(f"{name!r} is not judged: {'; '.join(findings)}")


def _source(metric):
    """The source code of a function, of a partial's function, or of a callable object's class."""
    while hasattr(metric, "func"):
        metric = metric.func
    return inspect.getsource(metric if inspect.isroutine(metric) else type(metric))
