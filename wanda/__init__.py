"""Prune large language models by weights and activations (Wanda, arXiv 2306.11695), with magnitude and SparseGPT beside it."""

from .blocks import sparsity
from .evaluation import perplexity
from .masks import prune_mask
from .models import load, save
from .pruning import prune
from .recovery import keep_masks, merge_lora
from .report import LayerReport, PruneReport
from .streaming import prune_checkpoint
from .text import calibration_set, eval_tokens
from .zeroshot import zero_shot, zero_shot_results

__all__ = [
    "LayerReport",
    "PruneReport",
    "calibration_set",
    "eval_tokens",
    "keep_masks",
    "load",
    "merge_lora",
    "perplexity",
    "prune",
    "prune_checkpoint",
    "prune_mask",
    "save",
    "sparsity",
    "zero_shot",
    "zero_shot_results",
]
__version__ = "0.1.0"
