"""Compare several ways to prune one model, with the same weights, calibration windows and text."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..blocks.stacks import list_blocks
from ..pruning import prune
from .perplexity import perplexity

METHODS = ("dense", "magnitude", "wanda", "sparsegpt")


@dataclass(frozen=True)
class Setting:
    """One row of a comparison: a method ("dense" leaves the model alone) with a sparsity or an N:M pattern."""

    method: str
    sparsity: float = 0.5
    pattern: str | None = None

    def __str__(self):
        if self.method == "dense":
            return "dense"
        return f"{self.method} {self.pattern or f'{self.sparsity:.0%}'}"


def settings(sparsities=(0.5,), patterns=("2:4",), methods=METHODS):
    """The rows of a comparison: dense once, then every method at every sparsity and pattern."""
    amounts = [{"sparsity": sparsity} for sparsity in sparsities] + [{"pattern": pattern} for pattern in patterns]
    pruning = [Setting(method, **amount) for amount in amounts for method in methods if method != "dense"]
    return ([Setting("dense")] if "dense" in methods else []) + pruning


def compare(model, calibration, tokens, rows, *, length=1024, batch_size=1, generate=None, progress=True):
    """Prune, measure and restore the model, once per row.

    Args:
        calibration: as for `prune`. Magnitude pruning runs without it, as intended.
        tokens, length: as for `perplexity`. batch_size: as for `prune`.
        rows: `Setting`s.
        generate: function(model) -> str, called on the model of each row.

    Yields: per row a dict of method, pattern, sparsity (the fraction of zeros found), perplexity, seconds (of pruning),
        report (a `PruneReport`; not for the dense model), and text if `generate` is given.
    """
    for row in rows:
        with restoring(model):
            result = {"method": row.method, "pattern": row.pattern, "sparsity": 0.0, "seconds": 0.0}
            if row.method != "dense":
                windows = None if row.method == "magnitude" else calibration
                options = {"method": row.method, "sparsity": row.sparsity, "pattern": row.pattern}
                report = prune(model, windows, batch_size=batch_size, progress=progress, **options)
                result |= {"sparsity": report.sparsity, "seconds": report.seconds, "report": report}
            result["perplexity"] = perplexity(model, tokens, length, progress=progress)
            if generate is not None:
                result["text"] = generate(model)
        yield result


@contextmanager
def restoring(model):
    """Restore the weights of the prunable layers at the end of a `with`. Holds a copy of them in memory."""
    layers = [layer for block in list_blocks(model) for layer in block.layers]
    kept = [layer.weight.clone() for layer in layers]
    try:
        yield model
    finally:
        with torch.no_grad():
            for layer, weight in zip(layers, kept, strict=True):
                layer.replace(weight)
