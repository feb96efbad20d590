"""`prune_checkpoint` against `prune`: the same bits, from a checkpoint that is never in memory as a whole."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers
from conftest import VOCABULARY, on_cores, tiny
from filelock import FileLock
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import wanda
from wanda.devices.selection import PANEL
from wanda.sources import checkpoints
from wanda.streaming import activation_file, empty_model, safetensors_files
from wanda.streaming import run as streaming
from wanda.streaming.memory import memory_needed


def calibration_tokens():
    return torch.randint(VOCABULARY, (6, 24), generator=torch.Generator().manual_seed(1))


def write(model, folder, **options):
    model.save_pretrained(folder, **options)
    return folder


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def same_as_prune(source, target, calibration, **options):
    """Prune both ways and compare every tensor of the two models. Returns the two reports."""
    report = wanda.prune_checkpoint(source, target, calibration, progress=False, **options)
    expected = loaded(source)
    expected_report = wanda.prune(expected, calibration, progress=False, **options)
    pruned = loaded(target).state_dict()
    assert pruned.keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert tensor.dtype == pruned[name].dtype, name
        assert torch.equal(tensor, pruned[name]), name
    assert not (target / ".pruning").exists()
    assert [(r.name, r.shape, r.sparsity, r.relative_error) for r in report.layers] == [
        (r.name, r.shape, r.sparsity, r.relative_error) for r in expected_report.layers
    ]
    assert report.method == expected_report.method
    return report, expected_report


def padded():
    batch = {"input_ids": calibration_tokens()[:2], "attention_mask": torch.ones(2, 24, dtype=torch.long)}
    batch["attention_mask"][0, :7] = 0
    other = {"input_ids": calibration_tokens()[2:3, :9]}
    return [batch, other]


def my_score(weight, norm):
    return weight.abs() * norm.sqrt()


def my_update(weight, hessian, mask):
    return (weight + 0.01 * (hessian[0] / hessian[0, 0]).float()).masked_fill(mask, 0)  # any that depends on all three


@pytest.mark.parametrize(
    ("calibration", "options"),
    [
        (None, {"method": "magnitude"}),
        (calibration_tokens(), {"method": "magnitude", "sparsity": 0.3}),
        (calibration_tokens(), {}),
        (calibration_tokens(), {"batch_size": 4, "group": "layer"}),
        (calibration_tokens(), {"pattern": "2:4"}),
        (calibration_tokens(), {"propagate": "dense"}),
        (calibration_tokens(), {"update": "obs"}),
        (calibration_tokens(), {"update": "obs-iterative", "pattern": "2:4"}),
        (calibration_tokens(), {"update": my_update}),
        (calibration_tokens(), {"method": "sparsegpt"}),
        (calibration_tokens(), {"method": "sparsegpt", "pattern": "2:4", "skip": ("o_proj", "layers.1")}),
        (calibration_tokens(), {"sparsity": {"layers.0": 0.25, "down_proj": 0.75, "*": 0.5}, "skip": "q_proj"}),
        (calibration_tokens(), {"sparsity": lambda name: 0.5 if "mlp" in name else 0}),
        (calibration_tokens(), {"method": my_score, "device": "cpu"}),
        (padded(), {}),
        (calibration_tokens(), {"method": "admm"}),
        (calibration_tokens(), {"method": "admm", "pattern": "2:4", "skip": "q_proj"}),
        (padded(), {"method": "sparsegpt"}),
        (padded(), {"method": "admm", "group": "layer"}),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)) if isinstance(value, dict) else "",
)
def test_the_same_bits_as_prune(tmp_path, calibration, options):
    source = write(tiny().to(torch.bfloat16), tmp_path / "source", max_shard_size="20KB")
    assert len(list(source.glob("*.safetensors"))) > 2
    same_as_prune(source, tmp_path / "target", calibration, **options)


HEADS = {"head_dim": 8}
ARCHITECTURES = {
    "llama, tied": (transformers.LlamaConfig, {"tie_word_embeddings": True}),
    "mistral with a sliding window": (transformers.MistralConfig, {"sliding_window": 8}),
    "qwen3": (transformers.Qwen3Config, HEADS),
    "gemma3 with local and global layers": (
        transformers.Gemma3TextConfig,
        {**HEADS, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "opt": (transformers.OPTConfig, {"ffn_dim": 64, "word_embed_proj_dim": 32, "do_layer_norm_before": True}),
    "gpt2 with Conv1D": (transformers.GPT2Config, {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}),
    "bloom": (transformers.BloomConfig, {"n_layer": 3, "n_head": 4}),
    "gpt neox, saved under an older name": (transformers.GPTNeoXConfig, {}),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_same_bits_for_every_architecture(tmp_path, calibration, name, dtype):
    config, options = ARCHITECTURES[name]
    source = write(tiny(config, **options).to(dtype), tmp_path / "source")
    same_as_prune(source, tmp_path / "target", calibration)


# Files read and written -------------------------------------------------------------------------------------------------


def snapshot(folder):
    """The bytes of every file, and the modification time of all but the lock, which older releases of filelock touch."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in files if path.name != "lock"}
    return {path.relative_to(folder): (path.read_bytes(), times.get(path)) for path in files}


@pytest.fixture
def source(tmp_path):
    """A sharded checkpoint of three blocks, with its companion files and one other."""
    folder = write(tiny(), tmp_path / "source", max_shard_size="40KB")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 128}')
    (folder / "notes.md").write_text("about the dense model")
    return folder


def prune(source, target, calibration=None, **options):
    return wanda.prune_checkpoint(source, target, calibration, progress=False, **({"method": "magnitude"} | options))


def test_the_source_is_only_read(source, tmp_path, calibration):
    before = snapshot(source)
    prune(source, tmp_path / "target", calibration, method="wanda")
    assert snapshot(source) == before


def test_everything_that_is_not_pruned_is_copied_bit_for_bit(tmp_path, calibration):
    """Norms and embeddings in their own dtype, tensors that no model loads, and the files beside the weights."""
    model = tiny(transformers.GPT2Config, n_embd=32, n_layer=3, n_head=4, n_positions=128)
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in model.state_dict().items()}
    del tensors["lm_head.weight"]  # tied
    tensors = {name: t.half() if "weight" in name and ".ln" not in name else t for name, t in tensors.items()}
    tensors["h.1.attn.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool)  # old checkpoints hold causal masks
    source = tmp_path / "source"
    model.half().save_pretrained(source)
    (source / "tokenizer_config.json").write_text("{}")
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    before = load_file(source / "model.safetensors")
    report, _ = same_as_prune(source, tmp_path / "target", calibration)
    pruned = {f"{layer.name.removeprefix('transformer.')}.weight" for layer in report.layers}
    after = {}
    for shard in (tmp_path / "target").glob("*.safetensors"):
        after |= load_file(shard)
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        assert torch.equal(after[name], tensor) == (name not in pruned), name
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        assert (tmp_path / "target" / name).read_bytes() == (source / name).read_bytes()


def test_only_files_of_the_checkpoint_are_copied(source, tmp_path):
    prune(source, tmp_path / "target")
    names = {path.name for path in (tmp_path / "target").iterdir() if path.suffix != ".safetensors"}
    assert names == {"config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors.index.json"}
    index = json.loads((tmp_path / "target" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(p.numel() * 4 for p in tiny().parameters())
    assert len(set(index["weight_map"].values())) == 4


def test_a_checkpoint_whose_config_sets_another_dtype(tmp_path, calibration):
    """The files hold float32, the config says bfloat16: it is pruned in bfloat16, as `wanda.load` would load it."""
    source = write(tiny(), tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    same_as_prune(source, tmp_path / "target", calibration)
    index = json.loads((tmp_path / "target" / "model.safetensors.index.json").read_text())
    tensors = safetensors_files.stored_tensors(tmp_path / "target")
    assert {tensor.dtype for tensor in tensors.values()} == {"F32", "BF16"}  # the copied ones, the pruned ones
    assert index["metadata"]["total_size"] == sum(tensor.size for tensor in tensors.values())
    (source / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "dtype"}))
    same_as_prune(source, tmp_path / "another", calibration, method="sparsegpt")


def test_the_report_counts_reading_and_writing(source, tmp_path, calibration):
    report = prune(source, tmp_path / "target", calibration, method="wanda")
    assert set(report.phases) == {"capture", "read", "statistics", "select", "write", "recompute"}
    assert report.seconds >= sum(report.phases.values()) > 0


def test_a_hub_id_goes_to_the_hub_client(source, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **k: (asked.append((name, k)), source)[1])
    prune("someone/something", tmp_path / "target", revision="abc")
    ((name, options),) = asked
    assert (name, options["revision"]) == ("someone/something", "abc")
    wanted = [
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "chat_template.jinja",
    ]
    unwanted = ["pytorch_model.bin", "consolidated.safetensors", "original/model.pth", "model.gguf", "onnx/model.onnx"]
    chosen = list(
        huggingface_hub.utils.filter_repo_objects(wanted + unwanted, allow_patterns=options["allow_patterns"])
    )
    assert chosen == wanted


def test_the_default_model_has_a_name(source, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "prepare", lambda: source)
    assert prune("smollm2", tmp_path / "target").sparsity == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"pattern": "2:4"}, {"propagate": "dense"}, {"method": "sparsegpt"}], ids=str)
def test_several_windows_at_once_give_the_bits_of_prune(tmp_path, dtype, options):
    source = write(tiny().to(dtype), tmp_path / "source")
    with on_cores(3):
        same_as_prune(source, tmp_path / "target", calibration_tokens(), **options)


# Memory -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_memory_formula_equals_a_count_by_hand(tmp_path, dtype):
    """Sizes of the tiny model, counted by hand: hidden 32, inner 64, keys and values 16, vocabulary 97, three blocks."""
    needed = memory_needed(write(tiny().to(dtype), tmp_path / "source"), tokens=10, threads=1)
    item = dtype.itemsize
    assert needed["block"] == item * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32 + 2 * 32)
    assert needed["embeddings"] == item * (VOCABULARY * 32 + 32)
    assert memory_needed(tmp_path / "source", tokens=10, threads=3)["activations"] == 3 * needed["activations"]
    with on_cores(2):
        assert memory_needed(tmp_path / "source", tokens=10)["activations"] == 2 * needed["activations"]
    assert 64 * 32 * 4 * 2 < needed["layer"] < 64 * 32 * (4 * 3 + 1 + 20) + 1
    assert needed["hessians"] == 0
    assert needed["total"] == needed["block"] + needed["activations"] + max(
        needed[part] for part in ("embeddings", "layer", "block")
    )
    repairing = memory_needed(tmp_path / "source", tokens=10, hessians=True, threads=1)
    assert repairing["hessians"] > 16 * (3 * 32**2 + 64**2)
    solving = memory_needed(tmp_path / "source", tokens=10, hessians=True, admm=True, threads=1)
    assert solving["layer"] - repairing["layer"] == 64 * 32 * (4 * 8 + 4 + 1 - (8 + 2 * 4 + 2))
    assert solving["layer"] > repairing["layer"] > needed["layer"]
    assert memory_needed(tmp_path / "source")["activations"] == 0


@pytest.mark.parametrize(
    ("sizes", "itemsize"),
    [((4096, 11008, 32, 4096), 2), ((8192, 28672, 80, 1024), 2), ((704, 1856, 40, 704), 4)],
    ids=["llama 7b", "llama 70b", "the benchmark's"],
)
def test_the_memory_formula_stays_under_its_bound(tmp_path, monkeypatch, sizes, itemsize):
    """3 S/B plus embeddings and activations, at the shapes of real models: from headers alone, without weights."""
    hidden, inner, blocks, keys = sizes
    config = transformers.LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=hidden // 64,
        num_key_value_heads=keys // 64,
        dtype=torch.bfloat16 if itemsize == 2 else torch.float32,
    )
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        parameters = dict(AutoModelForCausalLM.from_config(config, dtype=config.dtype).named_parameters())
    stored = {
        name: safetensors_files.Stored(
            tmp_path, 0, p.numel() * itemsize, safetensors_files.NAMES[p.dtype], tuple(p.shape)
        )
        for name, p in parameters.items()
    }
    monkeypatch.setattr(empty_model, "stored_tensors", lambda folder: stored)
    needed = memory_needed(tmp_path, tokens=2048)
    size = sum(tensor.size for tensor in stored.values())
    slack = 20 * torch.get_num_threads() * PANEL["cpu"]  # of a fixed size
    assert needed["total"] < 3 * size / blocks + needed["embeddings"] + needed["activations"] + slack


# Invalid input ----------------------------------------------------------------------------------------------------------


def remove_a_shard(source):
    (source / "model-00002-of-00004.safetensors").unlink()


def cut_a_shard(source):
    path = source / "model-00002-of-00004.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def scribble_over_a_header(source):
    (source / "model-00002-of-00004.safetensors").write_bytes(b"not a header at all")


def change_the_index(change):
    def damage(source):
        path = source / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index["weight_map"])
        path.write_text(json.dumps(index))

    return damage


def merge(change):
    """Merge the checkpoint into one file, with its tensors changed."""

    def damage(source):
        tensors = {}
        for shard in source.glob("*.safetensors"):
            tensors |= load_file(shard)
            shard.unlink()
        (source / "model.safetensors.index.json").unlink()
        change(tensors)
        save_file(tensors, source / "model.safetensors")

    return damage


def set_in_config(**entries):
    def damage(source):
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | entries))

    return damage


def only_bin(source):
    for path in source.glob("model*"):
        path.unlink()
    (source / "pytorch_model.bin").write_bytes(b"")


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_a_shard, "names the shard 'model-00002-of-00004.safetensors'"),
        (cut_a_shard, "model-00002-of-00004.safetensors' cannot be read as safetensors"),
        (scribble_over_a_header, "model-00002-of-00004.safetensors' cannot be read as safetensors"),
        (change_the_index(lambda m: m.update({Q: m["lm_head.weight"]})), rf"safetensors' does not hold '{Q}'"),
        (change_the_index(lambda m: m.pop(Q)), rf"source' has no tensor for '{Q}'"),
        (lambda s: (s / "model.safetensors.index.json").write_text("[]"), "index.json' is not an index"),
        (
            merge(lambda t: t.update(more=torch.ones(2))),
            "model.safetensors' holds 'more', which cannot .* LlamaForCausalLM: the model has no",
        ),
        (merge(lambda t: t.update({Q: torch.ones(3, 3)})), rf"'{Q}' has shape \(3, 3\), but the config gives"),
        (merge(lambda t: t.update({Q: t[Q].to(torch.int8)})), rf"'{Q}' holds I8 \(quantized\?\)"),
        (set_in_config(quantization_config={"quant_method": "gptq", "bits": 4}), "quantized weights"),
        (set_in_config(model_type="no such model"), "no config.json that transformers supports"),
        (only_bin, "neither model.safetensors nor .*'pytorch_model.bin'.*wanda.load .*wanda.save"),
    ],
)
def test_a_checkpoint_that_cannot_be_streamed_is_refused_naming_the_file_or_key(source, tmp_path, damage, message):
    damage(source)
    before = snapshot(source)
    with pytest.raises(ValueError, match=message):
        prune(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert snapshot(source) == before


@pytest.mark.parametrize("name", ["./nowhere", "model.gguf", "folder/of/mine", "someone/no-such-model"])
def test_a_missing_source_is_named(name, tmp_path):
    with pytest.raises(ValueError, match=name):
        prune(name, tmp_path / "target")


def test_a_target_that_is_taken_or_inside_the_source_is_refused(source, tmp_path):
    for target in (source, source / "pruned", source / "deep" / "pruned", tmp_path / "x" / ".." / "source" / "y"):
        with pytest.raises(ValueError, match="lies in the source"):
            prune(source, target)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        prune(source, tmp_path / "file")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="not an empty folder$"):
        prune(source, tmp_path / "taken")
    prune(source, tmp_path / "target")
    with pytest.raises(ValueError, match="a finished run"):
        prune(source, tmp_path / "target")


def test_several_processes_are_refused(source, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process"):
        prune(source, tmp_path / "target")


def test_infinite_or_nan_weights_are_named_when_they_are_reached(source, tmp_path):
    merge(lambda tensors: tensors[Q].view(-1)[5:6].fill_(float("nan")))(source)
    with pytest.raises(ValueError, match=Q.removesuffix(".weight").replace(".", r"\.")):
        prune(source, tmp_path / "target")


# Full and failing disks -------------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RuntimeError, match="target' needs .* GB more, but its disk has 0.0 GB left"):
        prune(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.durability
def test_every_file_is_synced_before_it_gets_its_name_and_its_folder_afterwards(
    source, tmp_path, calibration, monkeypatch
):
    """A power failure then leaves either the old file or the complete new one."""
    log, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        fsync(descriptor)
        log.append(os.fstat(descriptor).st_ino)

    def renamed(before, after):
        log.append({"file": os.stat(before).st_ino, "folder": os.stat(Path(after).parent).st_ino})
        replace(before, after)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    prune(source, tmp_path / "target", calibration, method="wanda")
    places = [place for place, entry in enumerate(log) if isinstance(entry, dict)]
    assert len(places) >= len(list((tmp_path / "target").glob("*.safetensors"))) > 2
    for place in places:
        assert log[place - 1] == log[place]["file"]
        assert log[place + 1] == log[place]["folder"]


@pytest.mark.durability
def test_a_file_that_a_full_disk_cuts_off_is_named_and_the_run_resumes_once_there_is_room(
    source, tmp_path, calibration, monkeypatch
):
    """The operating system's limit on file sizes stands in for a full disk: large files hit it."""
    resource = pytest.importorskip("resource")  # Windows has none
    before, limits = snapshot(source), resource.getrlimit(resource.RLIMIT_FSIZE)
    calibration = calibration.repeat(20, 1)  # so that activations are larger than any shard
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(RuntimeError, match=r"could not write .*activations-00000'"):
            prune(source, tmp_path / "target", calibration, method="wanda")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "target").rglob("*.partial"))

    original, written = safetensors_files.os.fsync, []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(safetensors_files.os, "fsync", full)
    with pytest.raises(RuntimeError, match=r"could not write .*: No space left on device"):
        prune(source, tmp_path / "target", calibration, method="wanda")
    monkeypatch.undo()
    same_as_prune(source, tmp_path / "target", calibration)
    assert snapshot(source) == before


def test_a_shard_that_is_truncated_during_the_run_is_named(source, tmp_path, monkeypatch):
    original = streaming.collect

    def cut(block, *arguments):
        if block.name.endswith(".0"):
            with open(source / "model-00003-of-00004.safetensors", "r+b") as file:
                file.truncate(2000)
        return original(block, *arguments)

    monkeypatch.setattr(streaming, "collect", cut)
    with pytest.raises(RuntimeError, match=r"could not read .*source/model-00003-of-00004.safetensors'"):
        prune(source, tmp_path / "target")


def test_truncated_activations_are_named(tmp_path):
    path = tmp_path / "activations"
    with open(path, "wb") as file, activation_file.Appender(file) as states:
        states.append(torch.ones(2, 3, 4))
    for end in (40, 3):
        path.write_bytes(path.read_bytes()[:end])
        with pytest.raises(RuntimeError, match="could not read .*activations': it ends before its tensors do"):
            list(activation_file.Stream(path, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_activations_read_from_the_file_equal_those_written(tmp_path, dtype):
    batches = [torch.randn(2, 3, 4).to(dtype), torch.randn(1, 5, 4).to(dtype).transpose(1, 2)]
    with open(tmp_path / "activations", "wb") as file, activation_file.Appender(file) as states:
        for batch in batches:
            states.append(batch)
    stream = activation_file.Stream(tmp_path / "activations", 2)
    for _ in range(2):  # it can be read repeatedly
        for batch, found in zip(batches, stream, strict=True):
            assert found.dtype == dtype
            assert torch.equal(found, batch)


def test_a_batch_from_a_gpu_is_written_after_its_copy_ends(tmp_path, monkeypatch):
    """A mock GPU that records its calls: the wait for each batch follows the start of the next copy."""
    told = []

    class OnGPU:
        is_cuda, device = True, "cuda:0"

        def __init__(self, number):
            self.number = number

        def detach(self):
            return self

        def to(self, device, non_blocking):
            assert (device, non_blocking) == ("cpu", True)
            told.append(f"fetch {self.number}")
            return torch.full((1, 2), float(self.number))

    class Event:
        def __init__(self):
            self.number = sum("fetch" in line for line in told)

        def synchronize(self):
            told.append(f"wait {self.number}")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(record_event=Event))
    path = tmp_path / "activations"
    with open(path, "wb") as file, activation_file.Appender(file) as states:
        for number in (1, 2, 3):
            states.append(OnGPU(number))
    assert told == ["fetch 1", "fetch 2", "wait 1", "fetch 3", "wait 2", "wait 3"]
    assert [batch.tolist() for batch in activation_file.Stream(path, 3)] == [[[1, 1]], [[2, 2]], [[3, 3]]]


# Interrupted runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(source, tmp_path, calibration, monkeypatch):
    """The folder of a run that was interrupted in its second block."""
    original, seen = streaming.collect, []

    def fail(block, *arguments):
        seen.append(block.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(block, *arguments)

    monkeypatch.setattr(streaming, "collect", fail)
    with pytest.raises(KeyboardInterrupt):
        prune(source, tmp_path / "target", calibration, method=my_score)
    monkeypatch.undo()
    return tmp_path / "target"


def test_a_run_resumes_after_the_last_finished_block(source, interrupted, calibration, monkeypatch):
    with pytest.raises((OSError, ValueError)):
        loaded(interrupted)  # not a model yet
    original, seen = streaming.collect, []
    monkeypatch.setattr(streaming, "collect", lambda block, *a: (seen.append(block.name), original(block, *a))[1])
    report, _ = same_as_prune(source, interrupted, calibration, method=my_score)
    assert seen == ["model.layers.1", "model.layers.2"]
    assert report.seconds >= sum(report.phases.values())


def test_another_run_into_the_same_target_is_refused_naming_what_differs(source, interrupted, calibration, monkeypatch):
    before = {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()}
    for changed, message in (
        ({"sparsity": 0.4}, r"sparsity of model\.layers\.0\.self_attn\.q_proj was 0\.5, now 0\.4"),
        ({"method": "wanda"}, r"method was 'test_streaming\.my_score', now 'wanda'"),
        ({"pattern": "2:4"}, "pattern was None, now '2:4'"),
        ({"propagate": "dense"}, "propagate was 'pruned', now 'dense'"),
        ({"skip": "o_proj"}, r"skip was \[\], now \['o_proj'\]"),
        ({"calibration": calibration[:5]}, "calibration data differs"),
        ({"batch_size": 2}, "calibration data differs"),
    ):
        with pytest.raises(ValueError, match=f"differs from this one: .*{message}.*remove the folder"):
            prune(source, interrupted, **({"calibration": calibration, "method": my_score} | changed))
    os.utime(source / "model-00001-of-00004.safetensors")
    with pytest.raises(ValueError, match=r"has changed \(model-00001-of-00004\.safetensors\)"):
        prune(source, interrupted, calibration, method=my_score)
    with FileLock(interrupted / ".pruning" / "lock"), pytest.raises(ValueError, match="another process"):
        prune(source, interrupted, calibration, method=my_score)
    assert before.items() <= {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()}.items()


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "least"), [("operation", 15), pytest.param("random", 10, marks=pytest.mark.slow)], ids=["step", "moment"]
)
def test_a_run_killed_at_any_point_ends_with_the_same_bits(tmp_path, kind, least):
    """By SIGKILL, at every step that changes a folder or at random moments: see interruptions.py."""
    source = write(tiny(num_hidden_layers=2), tmp_path / "source")
    command = [sys.executable, Path(__file__).with_name("interruptions.py"), kind, source, tmp_path / "runs"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(wanda.__file__).parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert all(entry["same"] for entry in record), [entry for entry in record if not entry["same"]]
    assert all(entry["again"] in (0, None) for entry in record)
    assert {entry["status"] for entry in record} <= {0, -signal.SIGKILL}
    killed = [entry for entry in record if entry["status"] == -signal.SIGKILL]
    assert len(killed) >= least
    if kind == "operation":
        assert {entry["blocks"] for entry in killed} == {None, 0, 1, 2}  # before, between and after all blocks


@pytest.mark.parametrize("place", [0, 5, 30, 60, 90, -1])
def test_a_flipped_bit_in_the_activations_is_found(tmp_path, place):
    path = tmp_path / "target" / ".pruning" / "activations-00001"
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file, activation_file.Appender(file) as states:
        states.append(torch.ones(2, 3, 4))
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"activations-00001' (is damaged; remove '.*target' and|ends)"):
        list(activation_file.Stream(path, 1))


@pytest.mark.parametrize(
    "header",
    [
        b"garbage",
        b"x" * 5000,
        b'{"dtype": "F32", "shape": [1, 16000000, 16000000], "checksum": 0}\n',
        b'{"dtype": "F32", "shape": [-1, -1, 4], "checksum": 0}\n',
        b'{"dtype": "F99", "shape": [1], "checksum": 0}\n',
        b"[" * 900 + b"\n",
        b"{}\n",
    ],
)
def test_an_activation_file_of_something_else_is_damaged(tmp_path, header):
    path = tmp_path / "target" / ".pruning" / "activations-00001"
    path.parent.mkdir(parents=True)
    path.write_bytes(header)
    with pytest.raises(RuntimeError, match=r"activations-00001'.*(is damaged|ends before)"):
        list(activation_file.Stream(path, 1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"q_proj", b"q_prok", 1),
        lambda content: content.replace(b'"seconds"', b'"secondz"', 1),
        lambda content: b"\xff" + content,
        lambda content: b"[" * 100_000,
        lambda content: b"[]",
        lambda content: b"{}",
    ],
)
def test_a_damaged_journal_is_named_and_changes_nothing(source, tmp_path, calibration, monkeypatch, damage):
    with monkeypatch.context() as patch:
        patch.setattr(streaming, "write_shard", failing_after(2, streaming.write_shard))
        with pytest.raises(KeyboardInterrupt):
            prune(source, tmp_path / "target", calibration, method="wanda")
    journal = tmp_path / "target" / ".pruning" / "journal.json"
    assert b"q_proj" in journal.read_bytes()
    journal.write_bytes(damage(journal.read_bytes()))
    before = snapshot(tmp_path / "target")
    with pytest.raises(ValueError, match=r"journal\.json' is damaged; remove '.*target' to start again"):
        prune(source, tmp_path / "target", calibration, method="wanda")
    assert snapshot(tmp_path / "target") == before


def failing_after(count, function):
    """A function that is interrupted at its call number `count`, counted from 0."""
    calls = []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) > count:
            raise KeyboardInterrupt
        return function(*arguments)

    return failing
