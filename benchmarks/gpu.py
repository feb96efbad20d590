"""Prune a model of LLaMA-7B's shape, with random weights, on a GPU: time, memory, and whether CPU and GPU agree.

    python -m benchmarks.gpu --device cuda --minutes 6 --out results/gpu.json

The steps go in order of importance, and each is written when it is measured: masks on the GPU and on the CPU, SparseGPT in
float32 and float64, each method in memory, `prune_checkpoint` in little GPU memory. Time and memory depend on the shapes
alone, so nothing is downloaded. The calibration is 128 windows of 2,048 random tokens.
"""

import argparse
import gc
import json
import shutil
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import wanda
from wanda import find_blocks
from wanda.devices.timing import Watch
from wanda.sources.download import replacing
from wanda.sparsegpt import PRECISION, inverse_factor, repair
from wanda.tools.provenance import provenance

RUNS = {  # the most telling first
    "wanda": {"method": "wanda"},
    "sparsegpt": {"method": "sparsegpt"},
    "admm": {"method": "admm"},
    "magnitude": {"method": "magnitude"},
    "wanda 2:4": {"method": "wanda", "pattern": "2:4"},
    "sparsegpt 2:4": {"method": "sparsegpt", "pattern": "2:4"},
    "admm 2:4": {"method": "admm", "pattern": "2:4"},
}
STREAMED = ("wanda", "sparsegpt", "admm")
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


def time_method(name, shape, calibration, device, dtype):
    """Time a method of `RUNS` on a new model. Returns a row: seconds, sparsity, seconds per phase, peak memory."""
    model = random_model(device, dtype, **shape)
    data = None if name == "magnitude" else calibration
    with peak_memory(device) as peak:
        report = wanda.prune(model, data, batch_size="auto", progress=False, **RUNS[name])
    row = {"run": name, "seconds": report.seconds, "sparsity": report.sparsity, **peak, **report.phases}
    print(f"{name:>20}  {report.seconds:7.1f} s  {_gib(peak)}", flush=True)
    del model
    _free(device)
    return row


def time_streamed(method, folder, shape, calibration, device, dtype, gib):
    """Time `prune_checkpoint` from folder to folder with at most `gib` GiB of GPU memory. Returns a row."""
    dense, pruned = Path(folder) / "dense", Path(folder) / method
    if not dense.exists():
        random_model(device, dtype, **shape).save_pretrained(dense)
        _free(device)
    options = {"method": method, "batch_size": "auto", "device": device, "progress": False}
    with limited(device, gib), peak_memory(device) as peak:
        report = wanda.prune_checkpoint(dense, pruned, calibration, **options)
    shutil.rmtree(pruned)  # no disk space needed for all of them
    print(f"{method + ', streamed':>20}  {report.seconds:7.1f} s  {_gib(peak)}", flush=True)
    return {"run": f"{method}, streamed", "limit_gib": gib, "seconds": report.seconds, **peak, **report.phases}


def precisions(device, width, tokens, seed=0):
    """SparseGPT on one square layer with its factor and its repair in float32 or float64, on a device.

    Returns: list of rows: the two dtypes, seconds of each part, and the share of the mask that equals float64's.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(width, width, generator=generator).to(device)
    inputs = torch.randn(tokens, width, generator=generator).to(device)
    inputs += 3 * inputs[:, :1]  # a shared component, so that the Hessian is ill-conditioned
    hessian, rows, masks = inputs.T @ inputs, [], []
    ways = [(torch.float64, torch.float64), (torch.float64, torch.float32), (torch.float32, torch.float32)]
    for number, (factor_dtype, repair_dtype) in enumerate([ways[0], *ways]):
        watch = Watch(hessian.device)
        with computing_in(factor_dtype):
            factor, dead = inverse_factor(hessian)
        watch.lap()
        mask = repair(weight, factor.to(repair_dtype), dead)[1]
        watch.lap()
        if number:  # the first one loads libraries
            seconds = dict(zip(("factor_seconds", "repair_seconds"), watch.laps(), strict=True))
            rows.append({"factor": _name(factor_dtype), "repair": _name(repair_dtype), **seconds})
            masks.append(mask)
    for row, mask in zip(rows, masks, strict=True):
        row["mask_as_float64"] = float((mask == masks[0]).double().mean())
        print(
            "factor {factor}, repair {repair}: {factor_seconds:.3f} + {repair_seconds:.3f} s".format(**row), flush=True
        )
    return rows


@contextmanager
def computing_in(dtype):
    """Within a `with`, SparseGPT's factor has this dtype on every device."""
    with patch.dict(PRECISION, dict.fromkeys(PRECISION, dtype)):
        yield


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def agreement(device, samples=8, length=256, shape=SMALL):
    """The fraction of mask entries on which a device and another way agree, for a small float32 model.

    Returns: dict from method to dict from the other way: "cpu"; "visiting": the model stays in main memory and each
    block visits the device; "streamed": `prune_checkpoint` on the device.
    """
    windows, found = random_windows(samples, length), {}
    for method in ("magnitude", "wanda", "sparsegpt", "admm"):
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
    parser.add_argument("--minutes", type=float, help="start no step after this many minutes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: this PyTorch finds no GPU")

    began, device, dtype = time.monotonic(), options.device, getattr(torch, options.dtype)
    shape = {name: getattr(options, name) for name in ("blocks", "hidden", "intermediate", "heads")}
    calibration = random_windows(options.samples, options.length)
    record = {
        "model": {"weights": "random", "dtype": options.dtype, **shape},
        "calibration": f"random tokens, {options.samples} windows of {options.length}",
        "device": device,
        **provenance(calibration=calibration),
        "tf32_errors": tf32_errors(),
        "rows": [],
        "left": [],
    }
    small = {name: min(SMALL[name], shape[name]) for name in SMALL}
    here = (shape | {"context": options.length}, calibration, device, dtype)
    with tempfile.TemporaryDirectory() as folder:
        steps = {"agreement": partial(agreement, device, shape=small)}
        steps |= {"precisions": partial(precisions, device, shape["hidden"], 2 * shape["hidden"])}
        steps |= {name: partial(time_method, name, *here) for name in RUNS}
        for method in STREAMED if options.stream_gib else ():
            steps[f"{method}, streamed"] = partial(time_streamed, method, folder, *here, options.stream_gib)
        for name, step in steps.items():
            if options.minutes is not None and time.monotonic() - began > 60 * options.minutes:
                record["left"].append(name)
                continue
            found = step()
            if name in ("agreement", "precisions"):
                record[name] = found
            else:
                record["rows"].append(found)
            _write(record, options.out)  # now: a later step may run out of memory or disk
    for method, same in record.get("agreement", {}).items():
        print(f"{method}: mask entries equal to the device's", {name: f"{part:.4%}" for name, part in same.items()})
    if record["left"]:
        print(f"no time left for: {'; '.join(record['left'])}")
        _write(record, options.out)


def _write(record, out):
    if out:
        with replacing(out) as partial_file:
            partial_file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
