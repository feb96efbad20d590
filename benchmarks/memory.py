"""The peak memory of `prune_checkpoint`, against its formula and against `prune`, on a random model; and the same bits.

    python -m benchmarks.memory

Each run has a process of its own, which prunes a small model first: what the libraries take once and for all (code,
thread pools) is not charged. A random LLaMA is written block by block, so that this script needs no memory either.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import wanda
from wanda.assets import replacing
from wanda.checkpoint import read, stored_tensors, write_index, write_shard
from wanda.memory import memory_needed
from wanda.provenance import provenance

MB = 1e6
ROOT = Path(__file__).resolve().parent.parent


def write_random_llama(folder, blocks, hidden, vocabulary=4096, dtype=torch.float32):
    """A LLaMA with random weights, a shard per block."""
    heads, inner = max(hidden // 64, 1), hidden * 8 // 3 // 64 * 64
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": blocks, "vocab_size": vocabulary}
    LlamaConfig(**sizes, num_attention_heads=heads, dtype=dtype, architectures=["LlamaForCausalLM"]).save_pretrained(
        folder
    )
    random = torch.Generator().manual_seed(0)
    attention = dict.fromkeys([f"self_attn.{name}_proj" for name in "qkvo"], (hidden, hidden))
    shapes = attention | {
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shards = [{"model.embed_tokens": (vocabulary, hidden), "lm_head": (vocabulary, hidden), "model.norm": (hidden,)}]
    for index in range(blocks):
        norms = dict.fromkeys(["input_layernorm", "post_attention_layernorm"], (hidden,))
        shards.append({f"model.layers.{index}.{name}": shape for name, shape in (shapes | norms).items()})
    names = [f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors" for number in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        tensors = {
            f"{key}.weight": torch.ones(shape, dtype=dtype)
            if len(shape) == 1
            else (torch.randn(shape, generator=random) * shape[1] ** -0.5).to(dtype)
            for key, shape in shard.items()
        }
        write_shard(folder / name, tensors)
    write_index(folder, names)


def stream(source, target, calibration, **options):
    """The measured run: from file to file."""
    wanda.prune_checkpoint(source, target, calibration, progress=False, **options)


def whole(source, target, calibration, **options):
    """For contrast: the model in memory."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    wanda.prune(model, calibration, progress=False, **options)
    model.save_pretrained(target)


def same(source, target, calibration=None, **options):
    """Count the tensors that differ between two checkpoints, reading one at a time."""
    first, second = stored_tensors(source), stored_tensors(target)
    if first.keys() != second.keys():
        return len(first.keys() ^ second.keys())
    return sum(not torch.equal(*(read({key: stored[key]})[key] for stored in (first, second))) for key in first)


def _memory(field):
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def child(run, source, target, calibration, **options):
    """Run a function after a rehearsal on a small model. Returns its result and the memory it took at its peak."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder)
        write_random_llama(small / "source", blocks=2, hidden=64, vocabulary=4096)
        for number, function in enumerate((stream, whole)):
            function(small / "source", small / str(number), calibration, **options)
        same(small / "0", small / "1")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _memory("VmRSS")
    result = run(source, target, calibration, **options)
    return {"result": result, "bytes": _memory("VmHWM") - before}


def in_child(run, source, target, *, samples, length, threads, **options):
    """`child` in a new process."""
    code = (
        "import json, sys, torch; from benchmarks import memory as m; run, source, target, options = json.loads(sys.argv[1]);"
        "torch.set_num_threads(options.pop('threads'));"
        "shape = options.pop('samples'), options.pop('length');"
        "calibration = torch.randint(4096, shape, generator=torch.Generator().manual_seed(1));"
        "print(json.dumps(m.child(getattr(m, run), m.Path(source), m.Path(target), calibration, **options)))"
    )
    settings = options | {"samples": samples, "length": length, "threads": threads}
    command = [sys.executable, "-c", code, json.dumps([run.__name__, str(source), str(target), settings])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=704)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--method", nargs="+", default=["wanda"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        write_random_llama(source, options.blocks, options.hidden, dtype=getattr(torch, options.dtype))
        size = sum(tensor.size for tensor in stored_tensors(source).values())
        print(f"{size / MB:.0f} MB of {options.dtype} in {options.blocks} blocks")
        for method in options.method:
            settings = {"samples": options.samples, "length": options.length, "threads": torch.get_num_threads()}
            settings["method"] = method
            targets = [Path(folder) / method / name for name in ("stream", "whole")]
            needed = memory_needed(source, options.length, hessians=method == "sparsegpt")
            goal = 3 * size / options.blocks + needed["embeddings"] + needed["activations"] + needed["hessians"]
            row = {"method": method, "formula": needed, "goal": round(goal)}
            for run, target in zip((stream, whole), targets, strict=True):
                row[run.__name__] = in_child(run, source, target, **settings)["bytes"]
            row["tensors_that_differ"] = in_child(same, *targets, **settings)["result"]
            rows.append(row)
            print(
                f"{method}: prune_checkpoint {row['stream'] / MB:.0f} MB ({row['stream'] / size:.3f} of the model's size), "
                f"formula {needed['total'] / MB:.0f} MB, goal {goal / MB:.0f} MB; prune {row['whole'] / MB:.0f} MB; "
                f"{row['tensors_that_differ']} tensors differ"
            )
    if options.out:
        settings = {name: getattr(options, name) for name in ("blocks", "hidden", "dtype", "samples", "length")}
        record = {"model": "random LLaMA", "bytes": size} | settings | provenance() | {"rows": rows}
        with replacing(options.out) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
