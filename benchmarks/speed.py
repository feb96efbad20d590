"""Time each method against one dense forward pass of the same calibration tokens, in one run.

    python -m benchmarks.speed

The dense forward is timed before, between and after the methods and the median taken, since machines drift.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import pandas
import torch

import wanda
from wanda.assets import replacing
from wanda.comparison import restoring
from wanda.provenance import provenance

RUNS = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "wanda, dense propagation": {"method": "wanda", "propagate": "dense"},
    "wanda 2:4": {"method": "wanda", "pattern": "2:4"},
    "sparsegpt": {"method": "sparsegpt"},
    "sparsegpt 2:4": {"method": "sparsegpt", "pattern": "2:4"},
}


@torch.no_grad()
def forward_seconds(model, calibration):
    """One forward pass of the dense model over all windows, one at a time, logits and all."""
    began = time.perf_counter()
    for window in calibration:
        model(window[None], use_cache=False)
    return time.perf_counter() - began


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    model, tokenizer = wanda.load(options.model)
    calibration = wanda.calibration_set(tokenizer, samples=options.samples, length=options.length)
    model(calibration[:1], use_cache=False)  # warm up
    forwards, rows = [forward_seconds(model, calibration)], []
    for name, settings in RUNS.items():
        with restoring(model):
            data = None if settings["method"] == "magnitude" else calibration
            report = wanda.prune(model, data, progress=False, **settings)
        rows.append({"run": name, "seconds": report.seconds, **report.phases})
        forwards.append(forward_seconds(model, calibration))
        print(f"{name:>25}  {report.seconds:6.1f} s", flush=True)
    forward = statistics.median(forwards)
    for row in rows:
        row["forwards"] = row["seconds"] / forward
    columns = ["forwards", "seconds", "capture", "statistics", "select", "recompute"]
    print(f"\none dense forward pass over {calibration.numel()} tokens: {forward:.1f} s", end=" ")
    print(f"(from {min(forwards):.1f} to {max(forwards):.1f} in this run)")
    print("time of each method in such passes, and where its seconds go:\n")
    print(pandas.DataFrame(rows).set_index("run")[columns].to_string(float_format="{:.2f}".format))
    if options.out:
        about = {"model": options.model, "calibration": f"news, {options.samples} windows of {options.length} tokens"}
        record = about | provenance(calibration=calibration) | {"forward_seconds": forwards, "rows": rows}
        with replacing(options.out) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
