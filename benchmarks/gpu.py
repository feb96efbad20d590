"""Prune a model of LLaMA-7B's shape, with random weights, on a GPU: time, memory, and whether CPU and GPU agree.

    python -m benchmarks.gpu --device cuda --out results/gpu.json

Time and memory depend on the shapes alone, so nothing is downloaded. The calibration is 128 windows of 2,048 random
tokens. Targets on one H200: Wanda under 25 s, SparseGPT under 90 s, magnitude under 3 s.
"""

import argparse
import gc
import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import wanda
from wanda import find_blocks
from wanda.sources.download import replacing
from wanda.tools.provenance import provenance

RUNS = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "wanda 2:4": {"method": "wanda", "pattern": "2:4"},
    "sparsegpt": {"method": "sparsegpt"},
    "sparsegpt 2:4": {"method": "sparsegpt", "pattern": "2:4"},
}
GIB = 2**30
SMALL = {"blocks": 4, "hidden": 512, "intermediate": 1376, "heads": 8}  # for the comparison of CPU and GPU


def random_model(device, dtype, *, blocks, hidden, intermediate, heads, vocabulary=32_000, context=2048, seed=0):
    """A LLaMA with random weights, created on the device."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        max_position_embeddings=context,
    )
    torch.manual_seed(seed)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def random_windows(samples, length, vocabulary=32_000, seed=0):
    """LongTensor [samples, length]."""
    return torch.randint(vocabulary, (samples, length), generator=torch.Generator().manual_seed(seed))


def time_methods(shape, calibration, device, dtype):
    """Time each method on a new model. Returns a list of rows: seconds, seconds per phase, and peak memory."""
    rows = []
    for name, settings in {"warm-up": {"method": "sparsegpt"}, **RUNS}.items():
        first = name == "warm-up"  # libraries load and handles are created once per process
        model = random_model(device, dtype, **(shape | {"blocks": 1} if first else shape))
        data = None if settings["method"] == "magnitude" else calibration[:2] if first else calibration
        with peak_memory(device) as peak:
            report = wanda.prune(model, data, batch_size="auto", progress=False, **settings)
        if not first:
            rows.append({"run": name, "seconds": report.seconds, "sparsity": report.sparsity, **peak, **report.phases})
            print(f"{name:>15}  {report.seconds:7.1f} s  {_gib(peak)}", flush=True)
        del model
        _free(device)
    return rows


def stream(shape, calibration, device, dtype, gib):
    """Time `prune_checkpoint` from folder to folder with at most `gib` GiB of GPU memory. Returns a row per method."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        random_model(device, dtype, **shape).save_pretrained(Path(folder) / "dense")
        _free(device)
        for method in ("wanda", "sparsegpt"):
            with limited(device, gib), peak_memory(device) as peak:
                report = wanda.prune_checkpoint(
                    Path(folder) / "dense",
                    Path(folder) / method,
                    calibration,
                    method=method,
                    batch_size="auto",
                    device=device,
                    progress=False,
                )
            rows.append({"run": f"{method}, streamed", "limit_gib": gib, "seconds": report.seconds, **peak})
            rows[-1] |= report.phases
            shutil.rmtree(Path(folder) / method)  # no disk space needed for three models
            print(f"{method + ', streamed':>20}  {report.seconds:7.1f} s  {_gib(peak)}", flush=True)
    return rows


def agreement(device, samples=8, length=256, shape=SMALL):
    """The fraction of mask entries on which a device and another way agree, for a small float32 model.

    Returns: dict from method to dict from the other way: "cpu"; "visiting": the model stays in main memory and each
    block visits the device; "streamed": `prune_checkpoint` on the device.
    """
    windows, found = random_windows(samples, length), {}
    for method in ("magnitude", "wanda", "sparsegpt"):
        options = {"method": method, "progress": False}
        there, cpu, visiting = (random_model("cpu", torch.float32, **shape) for _ in range(3))
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "dense", Path(folder) / "pruned"
            cpu.save_pretrained(source)
            wanda.prune_checkpoint(source, target, windows, device=device, **options)
            streamed = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
        wanda.prune(there.to(device), windows, **options)
        wanda.prune(cpu, windows, **options)
        wanda.prune(visiting, windows, device=device, **options)
        masks, others = _masks(there), {"cpu": cpu, "visiting": visiting, "streamed": streamed}
        found[method] = {name: float((_masks(other) == masks).double().mean()) for name, other in others.items()}
    return found


def _masks(model):
    """All masks of a pruned model, concatenated."""
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    return torch.cat([(layer.weight == 0).flatten().cpu() for layer in layers])


def round_to_tf32(values):
    """Round float32 values to TF32's 10 bits after the leading one, to nearest, ties to even."""
    bits = values.float().view(torch.int32)
    bits = bits + 0xFFF + ((bits >> 13) & 1)  # half of the last kept place, minus one where that place is even
    return (bits & ~0x1FFF).view(torch.float32)


def tf32_errors(tokens=512, width=64, seed=0):
    """The errors of TF32 in the operands of a Hessian and in the Hessian itself, for inputs of each dtype.

    The operands' rounding is emulated; products and sums are in float64, so the error is TF32's alone.

    Returns: dict from dtype to the largest relative error of an operand and of a diagonal entry.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, errors = torch.randn(tokens, width, generator=generator), {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        exact = inputs.to(dtype).float()  # [tokens, width]
        rounded = round_to_tf32(exact)
        diagonal, approximate = exact.double().square().sum(dim=0), rounded.double().square().sum(dim=0)
        errors[str(dtype).removeprefix("torch.")] = {
            "operand": float(((rounded - exact) / exact).nan_to_num().abs().max()),
            "diagonal": float((approximate / diagonal - 1).abs().max()),
        }
    return errors


@contextmanager
def peak_memory(device):
    """Yield a dict that, after the `with`, holds the peak memory allocated on a GPU during it; null on a CPU."""
    peak, cuda = {"peak_gib": None, "before_gib": None}, torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        peak["before_gib"] = torch.cuda.memory_allocated(device) / GIB
    yield peak
    if cuda:
        peak["peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB


@contextmanager
def limited(device, gib):
    """Within a `with`, limit PyTorch to `gib` GiB of a GPU's memory."""
    if torch.device(device).type != "cuda":
        yield
        return
    number = torch.device(device).index
    if number is None:  # plain "cuda" is not accepted below
        number = torch.cuda.current_device()
    total = torch.cuda.get_device_properties(number).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total), number)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, number)


def _free(device):
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def _gib(peak):
    return "" if peak["peak_gib"] is None else f"{peak['peak_gib']:.1f} GiB"


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--intermediate", type=int, default=11008)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--stream-gib", type=float, default=16, help="GiB of the GPU for prune_checkpoint; 0 skips it")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: this PyTorch finds no GPU")

    dtype = getattr(torch, options.dtype)
    shape = {name: getattr(options, name) for name in ("blocks", "hidden", "intermediate", "heads")}
    calibration = random_windows(options.samples, options.length)
    shape_in_context = shape | {"context": options.length}
    record = {
        "model": {"weights": "random", "dtype": options.dtype, **shape},
        "calibration": f"random tokens, {options.samples} windows of {options.length}",
        "device": options.device,
        **provenance(calibration=calibration),
        "rows": time_methods(shape_in_context, calibration, options.device, dtype),
        "tf32_errors": tf32_errors(),
    }
    _write(record, options.out)  # save minutes of work: the next steps may run out of memory or disk
    small = {name: min(SMALL[name], shape[name]) for name in SMALL}
    record["agreement"] = agreement(options.device, shape=small)
    for method, same in record["agreement"].items():
        print(f"{method}: mask entries equal to the device's", {name: f"{part:.4%}" for name, part in same.items()})
    _write(record, options.out)
    if options.stream_gib:
        record["rows"] += stream(shape_in_context, calibration, options.device, dtype, options.stream_gib)
        _write(record, options.out)


def _write(record, out):
    if out:
        with replacing(out) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
