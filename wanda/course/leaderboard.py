"""A leaderboard of pruning metrics: the same model, calibration windows, texts and sparsity for all; entries as JSON.

A metric is what `wanda.prune` takes for `method`. One that needs more than a weight and a norm comes as a function
`prepare(model, calibration)` that returns options for `wanda.prune`: it is called once per set of calibration windows.
"""

import inspect
import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas
import torch

from ..blocks import find_blocks
from ..evaluation import perplexity
from ..models import load
from ..provenance import provenance
from ..pruning import prune
from ..text import calibration_set, eval_tokens
from . import leaks

OPTIONS = {"method", "sparsity", "group"}  # what a metric may choose
TOLERANCE = 1e-3  # of the sparsity: rounding in each row makes it a little more or less


@dataclass(frozen=True)
class Rules:
    """What is held fixed. Only entries under equal rules are ever compared.

    Attributes:
        model: as for `wanda.load`.
        sparsity: of all prunable weights together; how it is shared out over the layers is open.
        calibration, samples, length: source, number and tokens of the calibration windows.
        seeds: one set of calibration windows each.
        evaluation, windows, window: source, number and tokens of the windows judged by. The open text is the first
            `windows` of them, the held-out text as many that follow.
    """

    model: str = "smollm2"
    sparsity: float = 0.5
    calibration: str = "news"
    samples: int = 6
    length: int = 512
    seeds: tuple = (0, 1, 2)
    evaluation: str = "wikipedia"
    windows: int = 6
    window: int = 512


@dataclass(frozen=True)
class Bench:
    """Everything that `Rules` speak of, loaded.

    Attributes:
        calibrations: dict seed -> LongTensor [samples, length].
        texts: dict "open", "held_out" -> LongTensor [windows * window].
        dense: dict "open", "held_out" -> perplexity of the model before pruning.
    """

    rules: Rules
    model: object
    tokenizer: object
    calibrations: dict
    texts: dict
    dense: dict


def set_up(rules):
    """Load what the rules speak of. Returns a `Bench`.

    Raises: ValueError: the evaluation text is too short for two texts of the size asked for.
    """
    model, tokenizer = load(rules.model)
    calibrations = {
        seed: calibration_set(tokenizer, rules.calibration, samples=rules.samples, length=rules.length, seed=seed)
        for seed in rules.seeds
    }
    size = rules.windows * rules.window
    tokens = eval_tokens(tokenizer, rules.evaluation)
    if len(tokens) < 2 * size:
        raise ValueError(f"{rules.evaluation!r} has {len(tokens)} tokens; two texts of {size} tokens are needed")
    texts = {"open": tokens[:size], "held_out": tokens[size : 2 * size]}
    dense = {name: perplexity(model, text, rules.window) for name, text in texts.items()}
    return Bench(rules, model, tokenizer, calibrations, texts, dense)


def judge(name, bench, method=None, *, prepare=None):
    """Prune the bench's model with a metric, once per calibration seed, and measure it on both texts.

    Args:
        name: of the entry.
        bench: a `Bench`. Its model is dense again afterwards.
        method: as for `wanda.prune`: a method's name, or function (weight [out, in], input_norm [in]) -> score [out, in].
        prepare: instead of `method`, function (model, calibration) -> dict with "method" and, if wanted, "group" and
            "sparsity" (per layer).

    Returns: the entry, a dict ready for JSON.

    Raises:
        ValueError: the metric can reach an evaluation text, chooses what the rules fix, misses the sparsity, or
            changes weights that it keeps. TypeError: neither or both of `method` and `prepare` given.
    """
    if (method is None) == (prepare is None):
        raise TypeError("give either method or prepare(model, calibration), not both and not neither")
    _check(name, method or prepare, bench)
    entry = {"name": name, "rules": _plain(bench.rules), "dense": bench.dense, "sparsity": []}
    entry["perplexity"] = {text: [] for text in bench.texts}
    entry["source"] = None if isinstance(method, str) else inspect.getsource(_innermost(method or prepare))
    for calibration in bench.calibrations.values():
        sparsity, perplexities = _measure(name, method, prepare, bench, calibration)
        entry["sparsity"].append(sparsity)
        for text, value in perplexities.items():
            entry["perplexity"][text].append(value)
    calibrations = {f"calibration {seed}": windows for seed, windows in bench.calibrations.items()}
    entry["provenance"] = provenance(**calibrations, **bench.texts) | {"command": f"judge({name!r})"}
    return entry


def _measure(name, method, prepare, bench, calibration):
    """(sparsity, dict text -> perplexity) of the model pruned with one set of calibration windows; dense afterwards."""
    layers = [layer for block in find_blocks(bench.model) for layer in block.layers]
    before = [layer.weight.clone() for layer in layers]
    try:
        options = {"sparsity": bench.rules.sparsity, "method": method}
        if prepare is not None:
            options |= _options(name, prepare(bench.model, calibration))
            _check(name, options["method"], bench)
        report = prune(bench.model, calibration, propagate="dense", progress=False, **options)
        if abs(report.sparsity - bench.rules.sparsity) > TOLERANCE:
            raise ValueError(
                f"{name!r} removes {report.sparsity:.2%} of the weights; the rules say {bench.rules.sparsity:.2%}"
            )
        for layer, weight in zip(layers, before, strict=True):
            if not torch.equal(layer.weight, weight.masked_fill(layer.weight == 0, 0)):
                raise ValueError(f"{name!r} changes weights of {layer.name} that it keeps; a metric only chooses")
        return report.sparsity, {
            key: perplexity(bench.model, text, bench.rules.window) for key, text in bench.texts.items()
        }
    finally:
        with torch.no_grad():
            for layer, weight in zip(layers, before, strict=True):
                layer.replace(weight)


def _check(name, function, bench):
    """Refuse a metric that can reach one of the texts it is judged by."""
    if isinstance(function, str):
        return
    texts = list(bench.texts.values())
    findings = leaks.find(function, texts, [bench.tokenizer.decode(text.tolist()) for text in texts])
    if findings:
        raise ValueError(f"{name!r} is not judged: {'; '.join(findings)}")


def _options(name, options):
    if not isinstance(options, dict) or "method" not in options or set(options) - OPTIONS:
        got = sorted(options) if isinstance(options, dict) else type(options).__name__
        raise ValueError(
            f"prepare of {name!r} must return a dict with 'method' and perhaps 'group', 'sparsity'; got {got}"
        )
    return options


def _innermost(function):
    """What has source code to keep: of a partial its function, of an object its class."""
    while hasattr(function, "func"):
        function = function.func
    return function if inspect.isroutine(function) else type(function)


def against(entry, baseline):
    """An entry next to another one under the same rules, pair by pair: same calibration windows, same text.

    Returns: dict of open and held_out (the geometric mean of the ratios of perplexity: below 1 is better than the
        baseline), gap (held_out over open: above 1, the entry does better on the text that all can see), wins and
        pairs (how many of all pairs have the lower perplexity).

    Raises: ValueError: the two were judged under different rules.
    """
    if entry["rules"] != baseline["rules"]:
        raise ValueError(f"{entry['name']!r} and {baseline['name']!r} were judged under different rules")
    found, wins = {}, 0
    for text, values in entry["perplexity"].items():
        others = baseline["perplexity"][text]
        logs = [math.log(value / other) for value, other in zip(values, others, strict=True)]
        found[text] = math.exp(sum(logs) / len(logs))
        wins += sum(log < 0 for log in logs)
    found["gap"] = found["held_out"] / found["open"]
    return found | {"wins": wins, "pairs": sum(map(len, entry["perplexity"].values()))}


def table(entries, baseline):
    """The leaderboard: a DataFrame, best on the held-out text first.

    Columns: mean, lowest and highest perplexity over the seeds on both texts; ratio to the baseline on each; won pairs.
    """
    rows = []
    for entry in entries:
        pairs = against(entry, baseline)
        row = {"metric": entry["name"]}
        for text, values in entry["perplexity"].items():
            row |= {text: sum(values) / len(values), f"{text} from": min(values), f"{text} to": max(values)}
            row[f"{text} ratio"] = pairs[text]
        rows.append(row | {"won": f"{pairs['wins']} of {pairs['pairs']}"})
    return pandas.DataFrame(rows).set_index("metric").sort_values("held_out")


def write(entry, folder):
    """Keep an entry as a JSON file named after it. Returns its path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{re.sub('[^a-z0-9]+', '-', entry['name'].lower()).strip('-')}.json"
    file.write_text(json.dumps(entry, indent=1, allow_nan=False), encoding="utf-8")
    return file


def _plain(rules):
    """Rules as they come back from a JSON file: tuples have become lists."""
    return json.loads(json.dumps(asdict(rules)))


def read(folder, rules):
    """The entries in a folder that were judged under these rules: a list of dicts, in order of their file names."""
    wanted = _plain(rules)
    entries = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(Path(folder).glob("*.json"))]
    return [entry for entry in entries if entry["rules"] == wanted]
