"""Time 2:4 products against dense ones on a GPU, at the shapes of a 7B model: single matrices, and a whole model.

    python -m benchmarks.speed24 --out results/speed24.json

Weights are random: time and memory depend on the shapes alone. A whole model is timed reading a prompt (prefill) and
generating one token after it (decode).
"""

import argparse
import json
from functools import partial
from pathlib import Path

import pandas
import torch
from torch.nn.functional import linear
from transformers import DynamicCache

import wanda
from benchmarks.gpu import random_model
from wanda.sources.download import replacing
from wanda.tools.provenance import provenance
from wanda.tools.sparse24 import convert, time_products

GIB = 2**30
COPIES = 8  # of each shape: too many to stay in a GPU's cache


def random_24(outputs, width, dtype, device):
    """A random weight [out, in], 2:4 by magnitude."""
    weight = torch.randn(outputs, width, dtype=dtype, device=device)
    return weight.masked_fill(wanda.prune_mask(weight.abs(), pattern="2:4"), 0)


def multiply(inputs, weights):
    """Multiply the inputs [tokens, in] by each of the weights [out, in] in turn."""
    for weight in weights:
        linear(inputs, weight)


def replayed(call):
    """Record the GPU work of a call as a CUDA graph. Returns a function that replays it without Python."""
    call()  # warm up: the libraries' initialisation must not be recorded
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


@torch.no_grad()
def time_matrices(shapes, tokens, dtype, device, seconds):
    """Time each shape [out, in] with each number of tokens. Returns rows: dense and 2:4 seconds, and their ratio.

    Both are called from Python, one product after the other, and on a GPU also replayed from a graph, as inference
    engines do, which removes the launch overhead. The weights take turns, so that none is in the cache.
    """
    rows, on_gpu = [], torch.device(device).type == "cuda"
    for outputs, width in shapes:
        weights = [random_24(outputs, width, dtype, device) for _ in range(COPIES)]
        sparse = [torch.sparse.to_sparse_semi_structured(weight) for weight in weights]
        for count in tokens:
            inputs = torch.randn(count, width, dtype=dtype, device=device)
            torch.testing.assert_close(linear(inputs, sparse[0]), linear(inputs, weights[0]), rtol=2e-2, atol=2e-1)
            calls = {"dense": partial(multiply, inputs, weights), "sparse": partial(multiply, inputs, sparse)}
            if on_gpu:
                calls |= {f"{form}_replayed": replayed(call) for form, call in calls.items()}
            row = {form: total / COPIES for form, total in time_products(calls, seconds).items()}
            row["speedup"] = row["dense"] / row["sparse"]
            said = f"{outputs:>6} x {width:<6} {count:>5} tokens: {row['speedup']:.2f} times as fast"
            if on_gpu:
                row["speedup_replayed"] = row["dense_replayed"] / row["sparse_replayed"]
                said += f", {row['speedup_replayed']:.2f} when replayed"
            rows.append({"shape": f"{outputs} x {width}", "tokens": count, **row})
            print(said, flush=True)
    return rows


@torch.no_grad()
def time_model(shape, batches, context, dtype, device, seconds):
    """Time a whole model, dense and converted: prefill of `context` tokens and decode of one more, per batch size.

    Returns: list of rows.
    """
    model = random_model(device, dtype, **shape, context=context + 1)
    wanda.prune(model, method="magnitude", pattern="2:4", progress=False)
    rows = []
    for form in ("dense", "2:4"):
        converted = [row.sparse for row in convert(model)] if form == "2:4" else []
        for batch in batches:
            windows = torch.randint(shape.get("vocabulary", 32_000), (batch, context), device=device)
            cache = DynamicCache(config=model.config)
            model(windows, past_key_values=cache)

            def write(windows=windows, cache=cache):
                model(windows[:, -1:], past_key_values=cache)
                cache.crop(-1)  # forget the token that was just written

            calls = {"prefill": lambda windows=windows: model(windows, use_cache=False), "decode": write}
            rows.append({"form": form, "batch": batch, "context": context, **time_products(calls, seconds)})
            rows[-1] |= {"layers_converted": sum(converted), "weights_gib": _allocated(device)}
            print(
                f"{form:>6}, batch {batch}: {rows[-1]['prefill']:.3f} s prefill, {rows[-1]['decode']:.4f} s a token",
                flush=True,
            )
            del windows, cache, calls, write
    return rows


def _allocated(device):
    """GiB allocated on a GPU (the weights and a batch's tensors); None on a CPU."""
    return torch.cuda.memory_allocated(device) / GIB if torch.device(device).type == "cuda" else None


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16"))
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--intermediate", type=int, default=11008)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 8, 64, 512, 4096])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=0.5, help="of repeated calls behind each measured time")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: this PyTorch finds no GPU")

    torch.manual_seed(0)
    dtype, hidden, inner = getattr(torch, options.dtype), options.hidden, options.intermediate
    shape = {name: getattr(options, name) for name in ("blocks", "hidden", "intermediate", "heads")}
    shapes = [(hidden, hidden), (inner, hidden), (hidden, inner)]
    record = {"model": {"weights": "random", "dtype": options.dtype, **shape}, "device": options.device, **provenance()}
    record["rows"] = time_matrices(shapes, options.tokens, dtype, options.device, options.seconds)
    record["whole_model"] = time_model(shape, options.batches, options.context, dtype, options.device, options.seconds)
    print(pandas.DataFrame(record["whole_model"]).to_string(index=False))
    if options.out:
        with replacing(options.out) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
