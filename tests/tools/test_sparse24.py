import importlib

import pytest
import torch
from conftest import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils import benchmark
from torch.utils._python_dispatch import TorchDispatchMode

import wanda
from wanda import find_blocks
from wanda.tools import sparse24

# The format in plain tensors --------------------------------------------------------------------------------------------


def weight_24(outputs, groups, seed, zeros=0.0, dtype=torch.float32):
    """A random 2:4 weight [outputs, 4 * groups]; a fraction `zeros` of the kept weights is zero as well."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, 4 * groups, generator=generator)
    weight[wanda.prune_mask(weight.abs(), pattern="2:4")] = 0
    weight[torch.rand(weight.shape, generator=generator) < zeros] = 0
    return weight.to(dtype)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 1.0]))
def test_unpacking_inverts_packing(outputs, groups, seed, zeros):
    weight = weight_24(outputs, groups, seed, zeros)
    values, places = sparse24.pack(weight)
    assert values.shape == (outputs, 2 * groups)
    assert places.shape == (outputs, -(-groups // 2))
    assert places.dtype == torch.uint8
    assert torch.equal(sparse24.unpack(values, places), weight)


def test_the_bits_encode_the_positions_of_the_kept_values():
    values, places = sparse24.pack(torch.tensor([[0.0, 5.0, 0.0, 7.0, 1.0, 0.0, 2.0, 0.0]]))
    assert values.tolist() == [[5.0, 7.0, 1.0, 2.0]]
    assert places.tolist() == [[0b1000_1101]]  # from the right: 1, 3 of the first group; 0, 2 of the second


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8])
def test_any_dtype_can_be_packed(dtype):
    weight = weight_24(3, 4, 0).mul(10).to(dtype)
    values, places = sparse24.pack(weight)
    assert values.dtype == dtype
    assert torch.equal(sparse24.unpack(values, places), weight)


def test_a_packed_half_precision_weight_takes_nine_bits_per_weight():
    weight = weight_24(16, 32, 0, dtype=torch.float16)
    taken = sum(tensor.numel() * tensor.element_size() for tensor in sparse24.pack(weight))
    assert 8 * taken == 9 * weight.numel()


def test_groups_with_three_numbers_are_counted_and_refused():
    weight = weight_24(4, 4, 0)
    assert sparse24.violations(weight) == 0
    weight[1, 4:7], weight[3, 12:] = 1.0, 1.0
    assert sparse24.violations(weight) == 2
    with pytest.raises(ValueError, match="2 groups of four hold more than two non-zeros"):
        sparse24.pack(weight)


def test_groups_do_not_overlap():
    assert sparse24.violations(torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])) == 0


def test_a_width_not_divisible_by_four_is_refused():
    with pytest.raises(ValueError, match=r"divisible by 4, got shape \(2, 6\)"):
        sparse24.pack(torch.zeros(2, 6))


# A model's layers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pruned():
    """A model that is 2:4, in half precision."""
    model = tiny(hidden_size=64, intermediate_size=128)
    wanda.prune(model, method="magnitude", pattern="2:4", progress=False)
    return model.half()


@pytest.fixture
def gpu(monkeypatch):
    """Make the CPU look like a GPU of compute capability 8.0 to `convert`. Returns the weights passed to PyTorch."""
    given = []
    monkeypatch.setattr(sparse24, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(
        torch.sparse, "to_sparse_semi_structured", lambda weight: given.append(weight) or weight.clone()
    )
    return given


def layers_of(model):
    return [layer for block in find_blocks(model) for layer in block.layers]


def test_a_layer_on_a_cpu_is_refused(pruned):
    before = {name: value.clone() for name, value in pruned.state_dict().items()}
    with pytest.raises(ValueError, match=r"q_proj is on 'cpu'; .* CUDA devices only"):
        sparse24.convert(pruned)
    assert all(torch.equal(value, before[name]) for name, value in pruned.state_dict().items())


def test_every_supported_layer_is_converted_and_computes_the_same(pruned, gpu):
    pruned = pruned.float().bfloat16()
    windows = torch.arange(24)[None] % 32
    with torch.no_grad():
        before = pruned(windows).logits
        found = sparse24.convert(pruned)
        after = pruned(windows).logits
    assert [row.name for row in found] == [layer.name for layer in layers_of(pruned)]
    assert all(row.sparse and not row.reason for row in found)
    assert len(gpu) == len(found)
    assert all(weight.is_contiguous() for weight in gpu)
    assert torch.equal(before, after)
    assert not any(layer.module.weight.requires_grad for layer in layers_of(pruned))


class Products(TorchDispatchMode):
    """Records the matrix products inside a `with`: "mm" and "addmm" of matrices, "bmm" of batches."""

    def __enter__(self):
        self.seen = []
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if (name := function.overloadpacket.__name__).endswith("mm"):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("bias", "strides", "hidden"),
    [
        (False, (64, 7, 1), True),
        (False, (1, 7, 16), True),
        (False, (64, 64, 1), False),
        (True, (1, 7, 16), True),
        (True, (64, 64, 1), False),
    ],
)
def test_a_converted_layer_multiplies_matrices_whatever_the_strides(gpu, bias, strides, hidden):
    """The 2:4 kernels support nothing else. On a GPU, a batch of single tokens had such strides."""
    model = tiny(hidden_size=64, intermediate_size=96, attention_bias=bias)
    wanda.prune(model, method="magnitude", pattern="2:4", progress=False)
    layer = model.bfloat16().requires_grad_(False).model.layers[0].self_attn.q_proj
    inputs = torch.randn(16, 64).bfloat16().as_strided((16, 1, 64), strides)  # the stride of a size of 1 is arbitrary
    with torch.no_grad(), Products() as before:
        expected = layer(inputs)
    assert ("bmm" in before.seen) == hidden  # what plain `Linear` calls
    sparse24.convert(model)
    with torch.no_grad(), Products() as after:
        got = layer(inputs)
    assert after.seen == ["addmm" if bias else "mm"]
    torch.testing.assert_close(got, expected)
    assert layer(inputs[:, 0]).shape == (16, 64)
    assert layer(inputs[0, 0]).shape == (64,)


def test_a_layer_of_unsupported_shape_stays_dense_and_gives_the_reason(gpu):
    model = tiny(hidden_size=64, intermediate_size=100)
    wanda.prune(model, method="magnitude", pattern="2:4", progress=False)
    rows, columns = sparse24.least_sizes(torch.float16)
    assert 100 % rows or 100 % columns
    found = {row.name: row for row in sparse24.convert(model.half())}
    dense = {name for name, row in found.items() if not row.sparse}
    assert dense == {name for name in found if ".mlp." in name}
    assert found["model.layers.0.mlp.up_proj"].reason == f"shape 100 x 64 is not in multiples of {rows} x {columns}"
    assert len(gpu) == len(found) - len(dense)


def test_a_layer_that_is_not_24_is_refused_before_anything_changes(pruned, gpu):
    last = layers_of(pruned)[-1]
    last.module.weight.data[0, :4] = 1
    with pytest.raises(ValueError, match=r"layers\.\d+\.mlp\.down_proj is not 2:4: 1 of its 2,048 groups"):
        sparse24.convert(pruned)
    assert not gpu
    assert sparse24.convert(pruned, skip=last.name)[-1].name != last.name


def test_other_dtypes_and_older_gpus_are_refused(pruned, gpu, monkeypatch):
    with pytest.raises(ValueError, match=r"has torch\.float32 weights; float16 or bfloat16"):
        sparse24.convert(pruned.float())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(RuntimeError, match=r"a GPU does not support 2:4; compute capability 8\.0"):
        sparse24.convert(pruned.half())
    assert not gpu


def test_a_transposed_layer_stays_dense(gpu):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=40, n_positions=32)).eval()
    wanda.prune(model, method="magnitude", pattern="2:4", progress=False)
    found = sparse24.convert(model.half())
    assert found
    assert {row.reason for row in found} == {"Conv1D stores its weight transposed"}
    assert not gpu


# Time -------------------------------------------------------------------------------------------------------------------


def test_each_product_is_timed_separately(monkeypatch):
    """With a clock that advances only when a product is computed."""
    now, timer = 0.0, benchmark.Timer

    def taking(seconds):
        def product():
            nonlocal now
            now += seconds

        return product

    monkeypatch.setattr(benchmark, "Timer", lambda *arguments, **o: timer(*arguments, **o, timer=lambda: now))
    found = sparse24.time_products({"small": taking(0.001), "large": taking(0.003)}, seconds=0.01)
    assert found == pytest.approx({"small": 0.001, "large": 0.003})


def test_the_given_products_are_timed():
    calls = []
    assert list(sparse24.time_products({"one": lambda: calls.append(1)}, seconds=0.001)) == ["one"]
    assert len(calls) > 1


def test_modules_outside_the_blocks_stay_unchanged(pruned, gpu):
    head = pruned.get_output_embeddings()
    sparse24.convert(pruned)
    assert isinstance(head, nn.Linear)
    assert not any(weight.data_ptr() == head.weight.data_ptr() for weight in gpu)


def test_the_speed_benchmark_runs_with_the_cpu_as_a_mock_gpu(gpu, tmp_path):
    """Both sides are dense then: this tests the script, not the speed."""
    import json

    from benchmarks import speed24

    small = (
        "--blocks 2 --hidden 64 --intermediate 128 --heads 4 --tokens 1 8 --batches 1 2 --context 16 --seconds 0.001"
    )
    speed24.main([*small.split(), "--device", "cpu", "--out", str(tmp_path / "speed24.json")])
    record = json.loads((tmp_path / "speed24.json").read_text())
    assert [(row["shape"], row["tokens"]) for row in record["rows"]][:2] == [("64 x 64", 1), ("64 x 64", 8)]
    assert len(record["rows"]) == 6
    assert [(row["form"], row["batch"]) for row in record["whole_model"]] == [
        ("dense", 1),
        ("dense", 2),
        ("2:4", 1),
        ("2:4", 2),
    ]
    assert [row["layers_converted"] for row in record["whole_model"]] == [0, 0, 14, 14]
    assert len(gpu) == 3 * speed24.COPIES + 14
    assert record["versions"]["torch"]
    assert not any("replayed" in key for row in record["rows"] for key in row)  # a CPU has no graphs to replay


@pytest.mark.parametrize("script", ["speed24", "gpu"])
def test_benchmarks_say_that_there_is_no_gpu(script, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        importlib.import_module(f"benchmarks.{script}").main([])
    assert "this PyTorch finds no GPU" in capsys.readouterr().err
