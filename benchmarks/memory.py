"""Measure the peak memory of `prune_checkpoint` on a random 1 GB LLaMA of 40 blocks; compare the weights with `prune`.

    python -m benchmarks.memory --out results/memory.json

Each way runs in its own process. Memory is counted from the end of the imports. The process first prunes a tiny model:
that memory is the libraries' (code, thread pools, modules that transformers imports lazily), independent of the model,
and not freed. The model's own memory comes on top, and is compared with the formula of `wanda.memory_needed`. The model
is written block by block and compared tensor by tensor. Needs Linux, and disk space for three models.
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
from wanda.devices.cpu_threads import threads_on_cpu
from wanda.sources.download import replacing
from wanda.streaming.memory import memory_needed
from wanda.streaming.safetensors_files import read, stored_tensors, write_index, write_shard
from wanda.tools.provenance import provenance
from wanda_course import fingerprint

ROOT = Path(__file__).resolve().parent.parent
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
REPAIRS = ("sparsegpt", "admm")  # methods that keep a Hessian


def write_random_llama(folder, blocks, hidden, vocabulary, dtype=torch.float32):
    """Write a LLaMA with random weights, one shard per block."""
    heads, inner = max(hidden // 64, 1), max(hidden * 8 // 3 // 64 * 64, 64)
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": blocks, "vocab_size": vocabulary}
    config = LlamaConfig(**sizes, num_attention_heads=heads, dtype=dtype, architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    random = torch.Generator().manual_seed(0)
    layers = dict.fromkeys([f"self_attn.{name}_proj" for name in "qkvo"], (hidden, hidden))
    layers |= dict.fromkeys(["mlp.gate_proj", "mlp.up_proj"], (inner, hidden)) | {"mlp.down_proj": (hidden, inner)}
    layers |= dict.fromkeys(["input_layernorm", "post_attention_layernorm"], (hidden,))
    shards = [{"model.embed_tokens": (vocabulary, hidden), "lm_head": (vocabulary, hidden), "model.norm": (hidden,)}]
    shards += [{f"model.layers.{index}.{name}": shape for name, shape in layers.items()} for index in range(blocks)]
    names = [f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors" for number in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        tensors = {}
        for key, shape in shard.items():
            norm = len(shape) == 1
            values = torch.ones(shape) if norm else torch.randn(shape, generator=random) * shape[1] ** -0.5
            tensors[f"{key}.weight"] = values.to(dtype)
        write_shard(folder / name, tensors)
    write_index(folder, names)


def stream(source, target, calibration, method):
    """Prune from file to file."""
    wanda.prune_checkpoint(source, target, calibration, method=method, progress=False)


def whole(source, target, calibration, method):
    """For comparison: prune with the model in memory."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    wanda.prune(model, calibration, method=method, progress=False)
    model.save_pretrained(target)


def measure(run, source, target, calibration, method, dtype):
    """Run in the measured process. Returns bytes beyond the imports: the libraries' and the peak."""
    imports = _now()
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny"
        write_random_llama(tiny, 2, 64, 256, dtype)
        run(tiny, Path(folder) / "pruned", calibration % 256, method)
    libraries = _now() - imports
    CLEAR.write_text("5")  # reset the peak
    run(source, target, calibration, method)
    return {"libraries": libraries, "peak": _memory("VmHWM") - imports}


def in_new_process(run, source, target, options, method):
    """Call `measure` in a new process, with as many threads as this one."""
    code = (
        "import json, sys, torch; from benchmarks import memory; name, source, target, threads, *data = json.loads(sys.argv[1]);"
        "torch.set_num_threads(threads); samples, length, vocabulary, method, dtype = data;"
        "print(json.dumps(memory.measure(getattr(memory, name), memory.Path(source), memory.Path(target),"
        " memory.windows(samples, length, vocabulary), method, getattr(torch, dtype))))"
    )
    data = (options.samples, options.length, options.vocabulary, method, options.dtype)
    arguments = json.dumps([run.__name__, str(source), str(target), torch.get_num_threads(), *data])
    done = subprocess.run(
        [sys.executable, "-c", code, arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def windows(samples, length, vocabulary):
    """Random windows, LongTensor [samples, length]: memory does not depend on the text."""
    return torch.randint(vocabulary, (samples, length), generator=torch.Generator().manual_seed(1))


def differing(source, target):
    """Count the tensors that differ between two checkpoints, reading one at a time."""
    first, second = stored_tensors(source), stored_tensors(target)
    odd = len(first.keys() ^ second.keys())
    for key in first.keys() & second.keys():
        odd += not torch.equal(*(read({key: [stored[key]]})[key] for stored in (first, second)))
    return odd


def fraction_zero(folder):
    """The fraction of zeros in a checkpoint's blocks, norms included."""
    zeros = total = 0
    for key, stored in stored_tensors(folder).items():
        if ".layers." in key:
            tensor = read({key: [stored]})[key]
            zeros, total = zeros + int((tensor == 0).sum()), total + tensor.numel()
    return zeros / total


def _now():
    return _memory("VmRSS")


def _memory(field):
    """A field of /proc/self/status, in bytes."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def compare(folder, source, size, options, method):
    """Measure one method both ways. Returns a row of numbers, in bytes unless the name says otherwise."""
    threads = threads_on_cpu(options.samples)
    needed = memory_needed(source, options.length, hessians=method in REPAIRS, admm=method == "admm", threads=threads)
    goal = 3 * size / options.blocks + needed["embeddings"] + needed["activations"] + needed["hessians"]
    row = {"method": method, "fingerprint": fingerprint.of(method), "formula": needed, "goal": round(goal)}
    targets = {run.__name__: Path(folder) / method / run.__name__ for run in (stream, whole)}
    for run in (stream, whole):
        row[run.__name__] = in_new_process(run, source, targets[run.__name__], options, method)
    row["share_of_model"] = row["stream"]["peak"] / size
    row["tensors_that_differ"] = differing(*targets.values())
    row["fraction_zero"] = fraction_zero(targets["stream"])
    return row


def report(row, limit):
    """Print a row. Returns its problems, as sentences."""
    mb = {name: row["stream"][name] / 1e6 for name in ("libraries", "peak")}
    own = mb["peak"] - mb["libraries"]
    print(
        f"{row['method']}: prune_checkpoint {mb['peak']:.0f} MB over the imports ({row['share_of_model']:.3f} of the model's "
        f"size), of which the libraries {mb['libraries']:.0f} MB and the model {own:.0f} MB; formula "
        f"{row['formula']['total'] / 1e6:.0f} MB, goal {row['goal'] / 1e6:.0f} MB; prune {row['whole']['peak'] / 1e6:.0f} MB; "
        f"{row['tensors_that_differ']} tensors differ",
        flush=True,
    )
    wrong = []
    if row["share_of_model"] > limit:
        wrong.append(f"{row['method']}: over {limit} of the model's size")
    if row["tensors_that_differ"]:
        wrong.append(f"{row['method']}: {row['tensors_that_differ']} tensors are not those of prune")
    return wrong


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if the limit is exceeded or weights differ from `prune`'s."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=704)
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--method", nargs="+", default=["wanda"], choices=("magnitude", "wanda", *REPAIRS))
    parser.add_argument("--limit", type=float, default=0.35, help="of the model's size, for the peak over the imports")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if not (STATUS.is_file() and CLEAR.is_file()):
        parser.error("only Linux reports a process's peak memory")

    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        write_random_llama(source, options.blocks, options.hidden, options.vocabulary, getattr(torch, options.dtype))
        size = sum(tensor.size for tensor in stored_tensors(source).values())
        print(f"{size / 1e6:.0f} MB of {options.dtype} in {options.blocks} blocks", flush=True)
        for method in options.method:
            rows.append(compare(folder, source, size, options, method))
            wrong += report(rows[-1], options.limit)
    if options.out:
        names = ("blocks", "hidden", "vocabulary", "dtype", "samples", "length", "limit")
        settings = {name: getattr(options, name) for name in names}
        calibration = windows(options.samples, options.length, options.vocabulary)
        record = {"model": "random LLaMA", "bytes": size} | settings | provenance(calibration=calibration)
        with replacing(options.out) as partial:
            partial.write_text(json.dumps(record | {"rows": rows}, indent=1) + "\n")
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
