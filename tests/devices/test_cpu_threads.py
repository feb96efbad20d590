"""Several batches at once on a CPU give the same numbers as one at a time."""

import copy
import threading

import accelerate
import pandas
import pytest
import ranks
import torch
from conftest import on_cores, tiny

import wanda
from wanda.blocks.calibration import calibration_batches
from wanda.blocks.collect import collect
from wanda.blocks.layers import Linear
from wanda.blocks.replay import Call, capture
from wanda.blocks.stacks import Block, find_blocks
from wanda.devices.cpu_threads import MOST_THREADS, each, threads_for
from wanda.devices.offload import StatesOn
from wanda.statistics import Hessian, InputNorm

PATIENCE = 60  # seconds, generous: threads that never meet would wait forever


@pytest.fixture(params=[2, 3])
def cores(request):
    """Several cores, whose number a test must leave unchanged."""
    with on_cores(request.param):
        yield request.param
        assert torch.get_num_threads() == request.param


def pruned(model, calibration, **options):
    """The weights, and the report on the layers without the seconds."""
    model = copy.deepcopy(model)
    report = wanda.prune(model, calibration, progress=False, **options)
    return model.state_dict(), report.to_frame().drop(columns="seconds")


def padded(calibration):
    mask = torch.ones_like(calibration)
    mask[:, :5] = 0
    return [{"input_ids": calibration[i : i + 1], "attention_mask": mask[i : i + 1]} for i in range(len(calibration))]


def two_norms(weight, input_norm):
    return weight.abs() * input_norm.square()


OPTIONS = {
    "wanda": {},
    "2:4": {"pattern": "2:4"},
    "magnitude": {"method": "magnitude"},
    "own score": {"method": two_norms},
    "dense": {"propagate": "dense"},
    "sparsegpt": {"method": "sparsegpt"},
    "obs": {"update": "obs-iterative"},
    "visit": {"device": "cpu"},
}


@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_weights_and_errors_equal_those_of_one_core(model, calibration, cores, options, padding):
    data = padded(calibration) if padding else calibration
    weights, errors = pruned(model, data, **options)
    with on_cores(1):
        expected, expected_errors = pruned(model, data, **options)
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name
    pandas.testing.assert_frame_equal(errors, expected_errors)


@pytest.mark.filterwarnings("ignore:.*received no calibration tokens")
def test_experts_that_only_some_threads_see(cores):
    model, data = ranks.ExpertModel(), ranks.expert_batches()
    weights, errors = pruned(model, data)
    with on_cores(1):
        expected, expected_errors = pruned(model, data)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    pandas.testing.assert_frame_equal(errors, expected_errors)


def test_layers_share_a_statistic_only_if_they_share_an_input(cores):
    """Of five layers, q and k read the same tensor, v another; one batch reaches the expert, none the idle layer."""
    names = ("q", "k", "v", "expert", "idle")

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in names:
                setattr(self, name, torch.nn.Linear(5, 5))

        def forward(self, states):
            self.q(states), self.k(states), self.v(states + 1)
            if states[0, 0, 0] == 2:
                self.expert(states)
            return states

    module = Module()
    block = Block("block", module, tuple(Linear(name, getattr(module, name)) for name in names))
    hidden = [torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    for number, states in enumerate(hidden):
        states[0, 0, 0] = number
    outputs = []
    inputs = collect(block, hidden, [Call((), {})] * 5, [(None,)] * 5, InputNorm, outputs, threads=cores)
    rows = torch.cat(hidden)  # [batch, tokens, in]
    assert sorted(inputs) == ["expert", "k", "q", "v"]
    assert inputs["q"] is inputs["k"]
    for name, read in {"q": rows, "v": rows + 1, "expert": rows[2:3]}.items():
        torch.testing.assert_close(inputs[name].statistic.norm(), read.flatten(0, 1).norm(dim=0))
        assert inputs[name].statistic.tokens == read[..., 0].numel()
        assert torch.equal(inputs[name].sample, read[0])
    assert [inputs[name].first for name in ("q", "v", "expert")] == [0, 0, 2]
    assert all(map(torch.equal, outputs, hidden))


@pytest.mark.parametrize("case", ["key reads more", "value reads less"])
def test_layers_share_a_statistic_only_while_they_read_the_same(case):
    """DeBERTa's key projection reads the hidden states, as the value projection does, and then its relative positions."""

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.key, self.value = torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)

        def forward(self, states):
            self.key(states)
            if case == "key reads more":
                self.value(states), self.key(states + 1)
            elif states[0, 0, 0] == 0:  # in the first batch only
                self.value(states)
            return states

    module = Module()
    block = Block("block", module, (Linear("key", module.key), Linear("value", module.value)))
    hidden = [torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    for number, states in enumerate(hidden):
        states[0, 0, 0] = number
    inputs = collect(block, hidden, [Call((), {})] * 3, [(None,)] * 3, InputNorm)
    rows = torch.cat(hidden)  # [batch, tokens, in]
    expected = {"key": torch.cat([rows, rows + 1]), "value": rows}
    if case == "value reads less":
        expected = {"key": rows, "value": rows[:1]}
    for name, read in expected.items():
        torch.testing.assert_close(inputs[name].statistic.norm(), read.flatten(0, 1).norm(dim=0))
        assert inputs[name].statistic.tokens == read[..., 0].numel()


@pytest.mark.parametrize("statistic", [InputNorm, Hessian])
def test_batches_are_added_up_in_order(model, calibration, cores, statistic):
    """In any other order, float64 sums would differ in their last bits, and from run to run."""
    batches = calibration_batches(model, calibration)
    blocks = find_blocks(model)
    with torch.no_grad():
        hidden, calls = capture(model, blocks, batches)
        several = collect(blocks[0], hidden, calls[0], [(None,)] * len(batches), statistic, threads=cores)
        with on_cores(1):
            one = collect(blocks[0], hidden, calls[0], [(None,)] * len(batches), statistic)
    assert all(torch.equal(several[name].statistic.sums, one[name].statistic.sums) for name in one)


def test_prune_replays_blocks_in_several_threads_at_once(model, calibration, cores):
    """Each thread waits in its first block until all have arrived: a single thread would time out."""
    meeting, waited = threading.Barrier(cores, timeout=PATIENCE), set()

    def wait(module, args):
        if threading.current_thread() is not threading.main_thread() and threading.get_ident() not in waited:
            waited.add(threading.get_ident())
            meeting.wait()

    model.model.layers[2].register_forward_pre_hook(wait)  # the last block: it is replayed only once
    wanda.prune(model, calibration, progress=False)
    assert len(waited) == cores


def test_infinite_inputs_in_one_thread_name_the_layer(model, calibration, cores):
    only = set(calibration[4].tolist()) - set(calibration[[0, 1, 2, 3, 5]].flatten().tolist())
    model.model.embed_tokens.weight.data[only.pop()] = float("inf")
    with pytest.raises(RuntimeError, match=r"model\.layers\.0\.self_attn\.q_proj has NaN or infinite inputs"):
        wanda.prune(model, calibration, progress=False)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_an_error_in_a_thread_leaves_no_hook(model, calibration, cores):
    def fail(module, args):
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("deliberate failure")

    handle = model.model.layers[1].mlp.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="deliberate failure"):
        wanda.prune(model, calibration, progress=False)
    handle.remove()
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_an_error_in_the_consumer_ends_the_threads(cores):
    class Full(StatesOn):
        def append(self, states):
            raise MemoryError

    with pytest.raises(MemoryError) as caught:
        Full("cpu").extend(each(torch.zeros, range(20), cores))
    assert caught.traceback[-1].name == "append"  # its frames stay alive, as in a notebook after an error
    assert torch.get_num_threads() == cores


def test_each_keeps_the_order_and_the_gradient_mode(cores):
    seen = []

    def work(number):
        seen.append((torch.is_grad_enabled(), torch.get_num_threads()))
        return number * number

    with torch.no_grad():
        assert list(each(work, range(20), cores)) == [number * number for number in range(20)]
    assert set(seen) == {(False, 1)}  # no more threads than cores
    assert list(each(work, iter(range(3)), cores)) == [0, 1, 4]
    assert seen[-1] == (True, 1)


def test_each_runs_only_a_few_items_ahead_of_its_consumer(cores):
    taken = []
    results = each(torch.tensor, (taken.append(number) or number for number in range(50)), cores)
    for number in range(5):
        assert next(results) == number
        assert len(taken) == number + cores + 1
    results.close()
    assert torch.get_num_threads() == cores


def test_perplexity_computes_windows_at_once_and_equals_that_of_one_core(model, calibration, cores):
    meeting, seen = threading.Barrier(cores, timeout=PATIENCE), set()

    def wait(module, args):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            meeting.wait()

    handle = model.model.register_forward_pre_hook(wait)
    several = wanda.perplexity(model, calibration.flatten(), length=24)
    handle.remove()
    assert len(seen) == cores
    with on_cores(1):
        assert several == pytest.approx(wanda.perplexity(model, calibration.flatten(), length=24), rel=1e-6)


def test_each_with_one_thread_takes_items_on_demand(cores):
    taken = []
    results = each(lambda number: -number, (taken.append(number) or number for number in range(5)), 1)
    assert (next(results), next(results), taken) == (0, -1, [0, 1])


def test_each_propagates_errors(cores):
    with pytest.raises(ZeroDivisionError):
        list(each(lambda number: 1 / number, [1, 0, 2], cores))


def test_how_many_threads(model, calibration, cores):
    block, batches = find_blocks(model)[0], calibration_batches(model, calibration)
    assert threads_for(block.module, batches) == cores
    assert threads_for(block.module, batches[:1]) == threads_for(block.module, []) == 1
    assert threads_for(block.module, calibration_batches(model, calibration, batch_size=2)) == 1
    for many, expected in ((1, 1), (2 * MOST_THREADS, MOST_THREADS), (6, 3), (7, 1)):  # no core idles
        with on_cores(many):
            assert threads_for(block.module, batches) == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a thread would not inherit it
        assert threads_for(block.module, batches) == 1
    with torch.inference_mode():
        assert threads_for(block.module, batches) == 1
    with torch.device("meta"):
        elsewhere = find_blocks(tiny())[0]
    assert threads_for(elsewhere.module, batches) == 1
    accelerate.cpu_offload(model, execution_device="cpu")  # weights are moved in and out with every forward pass
    assert threads_for(find_blocks(model)[0].module, batches) == 1
