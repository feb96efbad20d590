"""Time each method against one dense forward pass of the same calibration tokens, in one run.

    python -m benchmarks.speed

Machines drift, so the dense forward pass is timed before, between and after the methods, each time on some of the
windows, and the median is used. Three more runs: a model in bfloat16, and both dtypes from file to file
(`prune_checkpoint`).
"""

import argparse
import copy
import json
import statistics
import tempfile
from pathlib import Path

import pandas
import torch

import wanda
from wanda.sources.download import replacing
from wanda.tools.compare import restoring
from wanda.tools.provenance import provenance
from wanda_course import fingerprint, protocol
from wanda_course.forward_passes import forward_seconds

RUNS = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "wanda, dense propagation": {"method": "wanda", "propagate": "dense"},
    "wanda 2:4": {"method": "wanda", "pattern": "2:4"},
    "sparsegpt": {"method": "sparsegpt"},
    "sparsegpt 2:4": {"method": "sparsegpt", "pattern": "2:4"},
}
EXTRA = {  # with weights in bfloat16, and from file to file
    "wanda, bfloat16": (torch.bfloat16, False),
    "wanda, streamed": (torch.float32, True),
    "wanda, bfloat16, streamed": (torch.bfloat16, True),
}


def extra(model, tokenizer, calibration, dtype, streamed, folder):
    """Prune a copy of the model to 50 % with Wanda. Returns the report and the pruned model."""
    source = Path(folder) / str(dtype)
    if not source.exists():
        wanda.save(copy.deepcopy(model).to(dtype), tokenizer, source)
    if not streamed:
        other, _ = wanda.load(source)
        return wanda.prune(other, calibration, progress=False), other
    report = wanda.prune_checkpoint(source, Path(folder) / f"{dtype} pruned", calibration, progress=False)
    return report, wanda.load(Path(folder) / f"{dtype} pruned")[0]


def differing(one, other):
    """Count the tensors of two models that are not bit-identical."""
    others = other.state_dict()
    return sum(not torch.equal(tensor, others[name]) for name, tensor in one.state_dict().items())


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--samples", type=int, default=protocol.CALIBRATION["samples"])
    parser.add_argument("--length", type=int, default=protocol.CALIBRATION["length"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    model, tokenizer = wanda.load(options.model)
    calibration = wanda.calibration_set(tokenizer, samples=options.samples, length=options.length)
    forwards, rows = [forward_seconds(model, calibration)], []
    for name, settings in RUNS.items():
        with restoring(model):
            data = None if settings["method"] == "magnitude" else calibration
            report = wanda.prune(model, data, progress=False, **settings)
        rows.append(_row(name, settings["method"], report))
        forwards.append(forward_seconds(model, calibration))
    with tempfile.TemporaryDirectory() as folder:
        pruned = {}
        for name, (dtype, streamed) in EXTRA.items():
            report, pruned[dtype, streamed] = extra(model, tokenizer, calibration, dtype, streamed, folder)
            rows.append(_row(name, "wanda", report))
            forwards.append(forward_seconds(model, calibration))
        differ = differing(pruned[torch.bfloat16, False], pruned[torch.bfloat16, True])
        print(f"bfloat16, streamed and not: {differ} tensors differ")
    forward = statistics.median(forwards)
    for row in rows:
        row["forwards"] = row["seconds"] / forward
    columns = ["forwards", "seconds", "capture", "statistics", "select", "recompute", "read", "write"]
    print(f"\none dense forward pass over {calibration.numel()} tokens: {forward:.1f} s", end=" ")
    print(f"(from {min(forwards):.1f} to {max(forwards):.1f} in this run)")
    print("time of each method in dense forward passes, and its seconds per phase:\n")
    print(pandas.DataFrame(rows).set_index("run")[columns].to_string(float_format="{:.2f}".format))
    if options.out:
        about = {"model": options.model, "weights": protocol.weights(options.model)}
        about |= {"calibration": f"news, {options.samples} windows of {options.length} tokens"}
        record = about | provenance(calibration=calibration) | {"forward_seconds": forwards, "rows": rows}
        with replacing(options.out) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")


def _row(name, method, report):
    print(f"{name:>25}  {report.seconds:6.1f} s", flush=True)
    return {"run": name, "seconds": report.seconds, **report.phases, "fingerprint": fingerprint.of(method)}


if __name__ == "__main__":
    main()
