"""GPUs and models spread over devices, as far as a machine without a GPU can test them."""

import copy
import warnings
import weakref

import accelerate
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from conftest import on_cores, tiny
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

import wanda
from wanda import find_blocks, pruning
from wanda.blocks.calibration import TOKENS, calibration_batches, windows_per_batch
from wanda.devices.tf32 import tf32
from wanda.devices.timing import Clock
from wanda.statistics import Hessian


def weights(model):
    return {layer.name: layer.weight.clone() for block in find_blocks(model) for layer in block.layers}


def same(model, other):
    expected = weights(other)
    return all(torch.equal(weight, expected[name]) for name, weight in weights(model).items())


# TF32 ------------------------------------------------------------------------------------------------------------------


def switch():
    """The state of PyTorch's TF32 switch, in the API that this version prefers."""
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision if hasattr(matmul, "fp32_precision") else matmul.allow_tf32


@pytest.mark.parametrize("before", ["highest", "high"])
@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_switched_inside_a_with_and_restored_after_it(before, allowed):
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    state = switch()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with tf32(allowed):
                assert switch() in (("tf32", True) if allowed else ("ieee", False))
        assert switch() == state
        assert torch.get_float32_matmul_precision() == before  # the old API still works, and returns the old value
    finally:
        torch.set_float32_matmul_precision(usual)


def test_on_a_cpu_the_switch_is_not_touched(monkeypatch):
    monkeypatch.setattr("wanda.statistics.tf32", None)
    inputs = torch.randn(8, 4).bfloat16()
    hessian = Hessian(4)
    hessian.add(inputs)
    torch.testing.assert_close(hessian.matrix(), inputs.float().T @ inputs.float())


# Batches by tokens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "length", "device", "expected"),
    [
        (128, 2048, "cpu", 1),
        (128, 2048, "meta", 1),
        (128, 2048, "cuda", 8),
        (128, 2048, torch.device("cuda", 1), 8),
        (128, 512, "cuda", 32),
        (4, 512, "cuda", 4),
        (4, 40_000, "cuda", 1),
        (128, 3000, "cuda", 5),
    ],
)
def test_automatic_batches(samples, length, device, expected):
    assert windows_per_batch(samples, length, device) == expected
    assert expected * length <= TOKENS or expected == 1


def test_automatic_batches_leave_at_least_one_for_every_process(monkeypatch):
    monkeypatch.setattr("wanda.blocks.calibration.size", lambda: 8)
    assert windows_per_batch(16, 512, "cuda") == 2
    assert windows_per_batch(7, 512, "cuda") == 1  # too few: `share` raises


def test_automatic_batches_in_prune(model, calibration):
    assert [len(batch["input_ids"]) for batch in calibration_batches(model, calibration, "auto")] == [1] * 6
    assert [len(batch["input_ids"]) for batch in calibration_batches(model, calibration, "auto", "cuda")] == [6]
    with pytest.raises(ValueError, match="'auto' or a whole number.*'big'"):
        wanda.prune(model, calibration, batch_size="big")
    other = copy.deepcopy(model)
    wanda.prune(model, calibration, batch_size="auto", progress=False)
    wanda.prune(other, calibration, batch_size=1, progress=False)
    assert same(model, other)


# GPU syncs -------------------------------------------------------------------------------------------------------------


class Reads(TorchDispatchMode):
    """Counts the operations that read a tensor's value, or the number of its non-zeros to size a result.

    Each of them would force a GPU sync.
    """

    aten = torch.ops.aten
    LOOKS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        by_mask = function is self.aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += function in self.LOOKS or by_mask
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"method": "magnitude"}, 0),
        ({"method": "wanda"}, 0),
        ({"method": "wanda", "pattern": "2:4"}, 0),
        ({"method": "admm"}, 0),
        ({"method": "sparsegpt"}, 4),  # four factorisations, each checked for success
        ({"method": "wanda", "calibration": "padded"}, 6),  # the positions of the tokens, once per batch, not per layer
        ({"update": "obs-iterative", "pattern": "2:4"}, 4),
    ],
)
def test_pruning_a_block_forces_no_avoidable_sync(model, calibration, monkeypatch, options, allowed):
    counts, options = {"collect": [], "prune_layers": []}, dict(options)
    if options.pop("calibration", None):
        masks = torch.ones_like(calibration)
        masks[:, :3] = 0
        calibration = [
            {"input_ids": i[None], "attention_mask": m[None]} for i, m in zip(calibration, masks, strict=True)
        ]

    def counting(name, original):
        def counted(*arguments):
            with Reads() as reads:
                result = original(*arguments)
            counts[name].append(reads.count)
            return result

        return counted

    for name in counts:
        monkeypatch.setattr(pruning, name, counting(name, getattr(pruning, name)))
    report = wanda.prune(model, calibration, progress=False, **options)
    in_blocks = [sum(pair) for pair in zip(*counts.values(), strict=True)]
    assert len(in_blocks) == 3
    assert max(in_blocks) <= allowed
    assert all(layer.relative_error > 0 and layer.seconds > 0 for layer in report.layers)
    with Reads() as reads:
        values = torch.ones(3)
        float(values[0])
        values[values > 0]
        values[torch.tensor([1])]
        values.nonzero()
    assert reads.count == 3


def test_weights_are_checked_with_at_most_one_sync(model):
    layers = [layer for block in find_blocks(model) for layer in block.layers]
    with Reads() as reads:
        pruning.check_weights(layers)
    assert reads.count <= 1
    layers[3].weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match=layers[3].name):
        pruning.check_weights(layers)


def test_a_clock_synchronises_only_its_devices(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock = Clock({}, (torch.device("cuda", 1), "cpu"))
    with clock("select"):
        assert not waited
    assert waited == [torch.device("cuda", 1)]
    assert clock.phases["select"] > 0


def test_pruning_on_a_cpu_does_not_touch_a_gpu(model, calibration, monkeypatch):
    """Even if there is one: a sync would initialise CUDA and take GPU memory."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", None)
    wanda.prune(model, calibration, progress=False)


# Devices of models and blocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("propagate", ["pruned", "dense"])
def test_hidden_states_return_to_their_original_device(model, calibration, monkeypatch, propagate):
    other, homes = copy.deepcopy(model), []
    original = pruning.StatesOn

    class Noted(original):
        def append(self, states):
            homes.append(self.device)
            super().append(states)

    monkeypatch.setattr(pruning, "StatesOn", Noted)
    wanda.prune(model, calibration, propagate=propagate, device="cpu", progress=False)
    wanda.prune(other, calibration, propagate=propagate, progress=False)
    assert same(model, other)
    blocks = 3 if propagate == "dense" else 2  # the outputs of the last block are not needed
    assert homes == [torch.device("cpu")] * (2 * blocks * len(calibration))


@pytest.mark.parametrize("threads", [1, 2])
def test_hidden_states_of_two_blocks_are_never_in_memory_together(model, calibration, monkeypatch, threads):
    original, alive, most = pruning.replay, weakref.WeakValueDictionary(), []

    def replay(block, states, call):
        output = original(block, states, call)
        alive.update({id(states): states, id(output): output})
        most.append(len(alive))
        return output

    monkeypatch.setattr(pruning, "replay", replay)
    monkeypatch.setattr(pruning, "threads_for", lambda module, batches: threads)
    with on_cores(threads):
        wanda.prune(model, calibration, progress=False)
    # One for each batch, and one for each that is being replaced.
    assert len(calibration) + 1 <= max(most) <= len(calibration) + threads


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "admm"])
def test_a_model_dispatched_by_accelerate_is_pruned_like_any_other(model, calibration, method):
    """Hooks on every module, as for a model spread over several GPUs; here all on one CPU."""
    plain = copy.deepcopy(model)
    device_map = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    device_map |= {f"model.layers.{index}": "cpu" for index in range(3)}
    accelerate.dispatch_model(model, device_map, main_device="cpu", force_hooks=True)
    assert all(hasattr(block.module, "_hf_hook") for block in find_blocks(model))
    forwards = [block.module.forward for block in find_blocks(model)]
    wanda.prune(model, calibration, method=method, progress=False)
    wanda.prune(plain, calibration, method=method, progress=False)
    assert same(model, plain)
    assert [block.module.forward for block in find_blocks(model)] == forwards
    assert torch.equal(model(calibration).logits, plain(calibration).logits)


def test_a_model_that_was_loaded_with_a_device_map(model, calibration, tmp_path):
    """A device for each module, as `device_map="auto"` assigns them on several GPUs; here each is the CPU."""
    model.save_pretrained(tmp_path)
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{index}": "cpu" for index in range(3)}
    mapped = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=places)
    for one in (model, mapped):
        wanda.prune(one, calibration, progress=False)
    assert same(model, mapped)


def test_hooks_on_single_modules(model, calibration):
    plain = copy.deepcopy(model)
    for block in find_blocks(model):
        add_hook_to_module(block.module.mlp, AlignDevicesHook("cpu", io_same_device=True))
    wanda.prune(model, calibration, progress=False)
    wanda.prune(plain, calibration, progress=False)
    assert same(model, plain)
    with pytest.raises(ValueError, match=r"device is 'cpu', but model\.layers\.0 is tied.*device_map"):
        wanda.prune(model, calibration, device="cpu")


def test_offloaded_weights_are_refused_with_a_remedy(calibration):
    model = tiny()
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"model\.layers\.0\.self_attn\.q_proj.*meta device.*wanda\.prune_checkpoint"):
        wanda.prune(model, calibration)
