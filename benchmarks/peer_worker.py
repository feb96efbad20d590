"""Prune a saved model with one program and time it. `peers.py` starts this, once per program and way to prune.

    python benchmarks/peer_worker.py ours JOB.json
    python benchmarks/peer_worker.py llmcompressor JOB.json

The job names the model's folder, the calibration windows (a safetensors file), the pruning options, and the file for
the pruned weights. The measurements are written beside them. The worker runs in the program's own environment, and
imports none of our code for the other program.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

PACKAGES = {"ours": ("torch", "transformers"), "llmcompressor": ("torch", "transformers", "llmcompressor")}


def ours(model, windows, method, sparsity, pattern):
    """Prune with `wanda.prune`. windows: LongTensor [samples, length]."""
    import wanda

    return lambda: wanda.prune(model, windows, method=method, sparsity=sparsity, pattern=pattern, progress=False)


def llmcompressor(model, windows, method, sparsity, pattern):
    """Prune with llmcompressor: the same windows, one at a time, each block after the pruned ones before it."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

    modifier = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[method]
    # A regular expression: the peer adds a dot to the name, so "lm_head" would not match, and the head would be pruned.
    recipe = modifier(sparsity=sparsity, mask_structure=pattern or "0:0", targets=["Linear"], ignore=["re:.*lm_head"])
    batches = [{"input_ids": window[None], "attention_mask": torch.ones_like(window[None])} for window in windows]
    data = torch.utils.data.DataLoader(batches, batch_size=None)
    return lambda: oneshot(model=model, dataset=data, recipe=recipe, num_calibration_samples=len(windows))


def main(program, job):
    """Run a job: a dict of model, windows, method, sparsity, pattern and out. Returns the measurements."""
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    windows = load_file(job["windows"])["windows"]
    with torch.no_grad():
        model(windows[:1], use_cache=False)  # warm up
    prune = globals()[program](model, windows, job["method"], job["sparsity"], job["pattern"])
    began, worked = time.perf_counter(), time.process_time()
    prune()
    # CPU time, summed over threads, does not grow when other programs compete for the cores.
    times = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - worked}
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, job["out"])
    versions = {package: version(package) for package in PACKAGES[program]}
    about = {**times, "threads": torch.get_num_threads(), "versions": versions}
    Path(job["out"]).with_suffix(".json").write_text(json.dumps(about))
    return about


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
