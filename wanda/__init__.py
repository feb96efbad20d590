"""Prune large language models by weights and activations (Wanda, arXiv 2306.11695), by magnitude or with SparseGPT."""

from .blocks.stacks import find_blocks, sparsity
from .masks import prune_mask
from .pruning import prune
from .report import LayerReport, PruneReport
from .sources.models import load, save
from .sources.text import calibration_set, eval_tokens
from .streaming.memory import memory_needed
from .streaming.run import prune_checkpoint
from .tools.compare import restoring
from .tools.finetuning import keep_masks, merge_lora
from .tools.perplexity import perplexity
from .tools.zeroshot import zero_shot, zero_shot_results

__all__ = [
    "LayerReport",
    "PruneReport",
    "calibration_set",
    "eval_tokens",
    "find_blocks",
    "keep_masks",
    "load",
    "memory_needed",
    "merge_lora",
    "perplexity",
    "prune",
    "prune_checkpoint",
    "prune_mask",
    "restoring",
    "save",
    "sparsity",
    "zero_shot",
    "zero_shot_results",
]
__version__ = "0.1.0"
