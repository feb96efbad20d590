"""Compare our module with a maintained peer: the same model, windows, text and threads, in turns within one run.

    python -m benchmarks.peers

The peer is llmcompressor, pinned, in its own environment (build/peers/environment, created on the first run). Both
programs run each way to prune, each time in a fresh process; one function judges the pruned weights of both. Machines
drift, so the programs take turns, and the median of each program's times is reported. Every turn has its own draw of
calibration windows, the same for both: SparseGPT's perplexity varies with the draw, and even with the rounding of sums,
by more than the difference between the programs, so the mean over the draws is reported. A way that results/peers.json
already holds is not rerun.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path

import pandas
import torch
from safetensors.torch import load_file, save_file

import wanda
from wanda import find_blocks
from wanda.sources.download import replacing
from wanda.tools.compare import restoring
from wanda.tools.provenance import provenance
from wanda_course import fingerprint

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).with_name("peer_worker.py")
# Torch first: otherwise the installer might choose another build than the one tested.
REQUIREMENTS = ("torch==2.13.0", "transformers==5.17.0", "llmcompressor==0.14.0.1")
WAYS = {
    "wanda 50%": {"method": "wanda", "sparsity": 0.5, "pattern": None},
    "wanda 2:4": {"method": "wanda", "sparsity": 0.5, "pattern": "2:4"},
    "sparsegpt 50%": {"method": "sparsegpt", "sparsity": 0.5, "pattern": None},
}


def environment(folder):
    """The interpreter of the peer's environment, which is created unless it is complete."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = "\n".join(REQUIREMENTS)
    ready = folder / "ready"
    if not ready.is_file() or ready.read_text(encoding="utf-8") != wanted:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        ready.write_text(wanted, encoding="utf-8")
    return python


def run(program, python, job, folder):
    """Run a program's job in a fresh process. Returns the worker's measurements and the file of pruned weights."""
    name = f"{program}-{job['method']}-{(job['pattern'] or 'row').replace(':', 'of')}"
    job = {**job, "out": str(folder / f"{name}.safetensors")}
    file = folder / f"{name}.job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])] if program == "ours" else []
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    # The peer writes logs to its working directory: the folder under build/.
    done = subprocess.run([python, WORKER, program, file], cwd=folder, env=settings, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{program} failed at {name}:\n{done.stderr[-3000:]}")
    return json.loads(Path(job["out"]).with_suffix(".json").read_text(encoding="utf-8")), Path(job["out"])


def judge(model, file, tokens, length):
    """The perplexity and the fraction of zeros of pruned weights from a file.

    Raises: RuntimeError: the file's tensors are not the model's, or a tensor that must not be pruned has changed.
    """
    weights, before = load_file(file), model.state_dict()
    prunable = {f"{layer.name}.weight" for block in find_blocks(model) for layer in block.layers}
    for name in (weights.keys() & before.keys()) - prunable:  # such as the embedding, which is also the output head
        if not torch.equal(weights[name], before[name]):
            raise RuntimeError(
                f"{file.name}: {name} differs from the dense model's; only linear layers inside blocks may be pruned: "
                "exclude it in peer_worker.py"
            )
    with restoring(model):
        found = model.load_state_dict(weights, strict=False)
        if found.unexpected_keys or set(found.missing_keys) - {"lm_head.weight"}:  # tied to the embedding
            raise RuntimeError(f"{file.name} does not hold the model's weights: {found}")
        return {"perplexity": wanda.perplexity(model, tokens, length), "zeros": wanda.sparsity(model)}


def typical(turns):
    """Combine several turns of a program in one dict: median times, mean perplexity, and each turn's own values."""
    medians = {name: statistics.median(turn[name] for turn in turns) for name in ("seconds", "cpu_seconds")}
    perplexities = [turn["perplexity"] for turn in turns]
    each = {"turns": [turn["seconds"] for turn in turns], "perplexities": perplexities}
    return turns[0] | medians | {"perplexity": statistics.mean(perplexities)} | each


def compared(rows):
    """Both programs side by side, one row per way: perplexities, seconds, and their ratios (above 1: ours is ahead).

    Args:
        rows: dicts of way, ours and llmcompressor, each of these two with perplexity, seconds and cpu_seconds.

    Returns: DataFrame. `faster` is the ratio of wall time; `less work` is the ratio of CPU time, which other programs
        on the same cores do not affect.
    """
    table = []
    for row in rows:
        one, other = row["ours"], row["llmcompressor"]
        entry = {"way": row["way"]}
        for name in ("perplexity", "seconds", "cpu_seconds"):
            entry |= {f"{name}, ours": one[name], f"{name}, peer": other[name]}
        ratios = {"ratio": "perplexity", "faster": "seconds", "less work": "cpu_seconds"}
        table.append(entry | {label: other[name] / one[name] for label, name in ratios.items()})
    return pandas.DataFrame(table).set_index("way")


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="as for wanda.load")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=512, help="tokens per calibration window")
    parser.add_argument("--windows", type=int, default=10, help="windows of the evaluation text")
    parser.add_argument("--window-length", type=int, default=1024)
    parser.add_argument(
        "--turns",
        type=int,
        default=3,
        help="runs of each program per way, each with another draw of windows",
    )
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "peers", help="for the workers' files")
    parser.add_argument("--environment", type=Path, help="the peer's (default: environment/ in the folder)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "peers.json")
    options = parser.parse_args(arguments)

    model, tokenizer = wanda.load(options.model)
    draws = [
        wanda.calibration_set(tokenizer, samples=options.samples, length=options.length, seed=seed)
        for seed in range(options.turns)
    ]
    tokens = wanda.eval_tokens(tokenizer)[: options.windows * options.window_length]
    about = provenance(calibration=torch.stack(draws), evaluation=tokens)
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.is_file() else []
    prints = {way: fingerprint.of(WAYS[way]["method"]) for way in WAYS}
    measured_already = {
        row["way"]
        for row in rows
        if row["data_sha256"] == about["data_sha256"] and fingerprint.same(row.get("fingerprint"), prints[row["way"]])
    }
    missing = [way for way in options.only if way not in measured_already]
    if missing:
        options.folder.mkdir(parents=True, exist_ok=True)
        wanda.save(model, tokenizer, options.folder / "model")
        job = {"model": str(options.folder / "model"), "windows": str(options.folder / "windows.safetensors")}
        peer = environment(options.environment or options.folder / "environment")
        python = {"ours": sys.executable, "llmcompressor": peer}
    for way in missing:
        turns = {program: [] for program in python}
        for windows in draws:
            save_file({"windows": windows}, job["windows"])
            for program, interpreter in python.items():
                measured, file = run(program, interpreter, {**job, **WAYS[way]}, options.folder)
                measured |= judge(model, file, tokens, options.window_length)
                turns[program].append(measured)
                file.unlink()
                print(
                    f"{way:>13}  {program:>13}  {measured['seconds']:6.1f} s  {measured['perplexity']:.2f}", flush=True
                )
        row = {"way": way, **{program: typical(several) for program, several in turns.items()}, **about}
        row["fingerprint"] = prints[way]
        rows = [other for other in rows if other["way"] != way] + [row]
        with replacing(options.out) as partial:
            partial.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    threads = {row[program]["threads"] for row in rows for program in ("ours", "llmcompressor")}
    print(f"\n{options.model}, {' or '.join(map(str, sorted(threads)))} threads, {', '.join(REQUIREMENTS)}\n")
    print(compared(rows).T.to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
