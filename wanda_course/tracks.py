"""The tracks of the public leaderboard: named rules. An entry is judged under one track, with the command `wanda-judge`.

A name has three parts: the model, how much is pruned, and whether the kept weights may be changed, such as
"smollm2-50-mask" or "smollm2-2of4-update". A change to any rule needs a new VERSION: entries of two versions are never
compared.
"""

from dataclasses import replace

from . import protocol
from .leaderboard import Rules

VERSION = 1
AMOUNTS = {
    "50": {"sparsity": 0.5},
    "60": {"sparsity": 0.6},
    "70": {"sparsity": 0.7},
    "2of4": {"pattern": "2:4"},
    "4of8": {"pattern": "4:8"},
}
WAYS = {"mask": False, "update": True}
OFFLINE = Rules(
    propagate="pruned",
    **{name: protocol.CALIBRATION[name] for name in ("samples", "length")},
    calibration=protocol.CALIBRATION["source"],
    sets=3,
    evaluation=protocol.EVALUATION["source"],
    windows=protocol.EVALUATION["windows"],
    window=protocol.EVALUATION["length"],
)
"""The course's protocol, on the default model; the held-out text is used nowhere else in this repository."""
HUB = replace(
    OFFLINE, calibration="c4", samples=128, length=2048, evaluation="wikitext2", windows=60, window=2048, zero_shot=True
)
"""The usual protocol of the papers, for models that come from the hub."""
MODELS = {
    "smollm2": OFFLINE,
    "smollm2-135m": replace(HUB, model="HuggingFaceTB/SmolLM2-135M"),
    "smollm2-360m": replace(HUB, model="HuggingFaceTB/SmolLM2-360M"),
    "smollm2-1.7b": replace(HUB, model="HuggingFaceTB/SmolLM2-1.7B"),
    "llama-3.2-1b": replace(HUB, model="meta-llama/Llama-3.2-1B"),
}
TRACKS = {
    f"{model}-{amount}-{way}": replace(rules, **choice, update=update)
    for model, rules in MODELS.items()
    for amount, choice in AMOUNTS.items()
    for way, update in WAYS.items()
}
