"""`prune` on small random models, against independent references."""

import copy
from itertools import product

import pytest
import reference
import torch
from conftest import tiny
from transformers import AutoModelForCausalLM

import wanda
from wanda import find_blocks
from wanda.admm import admm
from wanda.sparsegpt import repair


def weights(model):
    return {layer.name: layer.weight.clone() for block in find_blocks(model) for layer in block.layers}


def wanda_reference(weight, inputs):
    score = weight.abs() * inputs.pow(2).sum(dim=0).sqrt()
    return weight.masked_fill(reference.prune_mask(score, 0.5), 0)


def test_wanda_matches_the_closed_form_block_by_block(model, calibration):
    expected = copy.deepcopy(model)
    reference.walk(expected, calibration, wanda_reference)
    report = wanda.prune(model, calibration, progress=False)
    for name, weight in weights(expected).items():
        assert torch.equal(weights(model)[name], weight), name
    assert report.sparsity == wanda.sparsity(model) == 0.5


def test_dense_propagation_takes_every_statistic_from_the_dense_model(model, calibration):
    expected, dense = copy.deepcopy(model), copy.deepcopy(model)
    for block, dense_block in zip(find_blocks(expected), find_blocks(dense), strict=True):
        inputs = reference.layer_inputs(dense, dense_block, calibration)
        for layer in block.layers:
            layer.replace(wanda_reference(layer.weight.double(), inputs[layer.name]).float())
    wanda.prune(model, calibration, propagate="dense", progress=False)
    assert all(torch.equal(weights(model)[name], weight) for name, weight in weights(expected).items())


def test_sparsegpt_matches_the_published_algorithm_block_by_block(model, calibration):
    expected = copy.deepcopy(model)
    reference.walk(expected, calibration, lambda w, x: reference.sparsegpt(w, x.T @ x, 0.5)[0])
    wanda.prune(model, calibration, method="sparsegpt", progress=False)
    for name, weight in weights(expected).items():
        assert ((weights(model)[name] == 0) == (weight == 0)).float().mean() > 0.999, (
            name
        )  # near ties may fall either way
        torch.testing.assert_close(weights(model)[name], weight, rtol=0.02, atol=1e-3)


def test_magnitude_needs_no_data_and_compares_within_the_layer(model):
    before = weights(model)
    report = wanda.prune(model, method="magnitude", sparsity=0.3, progress=False)
    for name, weight in weights(model).items():
        mask = reference.prune_mask(before[name].abs(), 0.3, group="layer")
        assert torch.equal(weight, before[name].masked_fill(mask, 0))
    assert all(layer.relative_error is None for layer in report.layers)


@pytest.mark.parametrize("group", ["output", "layer", "input"])
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_groups(model, calibration, method, group):
    wanda.prune(model, calibration, method=method, group=group, progress=False)
    dimension = {"output": 1, "input": 0, "layer": (0, 1)}[group]
    for weight in weights(model).values():
        zeros = (weight == 0).double().mean(dim=dimension)
        assert (zeros == 0.5).all()


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "admm"])
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4"])
def test_patterns(model, calibration, method, pattern):
    wanda.prune(model, calibration, method=method, pattern=pattern, progress=False)
    keep, size = map(int, pattern.split(":"))
    for weight in weights(model).values():
        assert ((weight != 0).reshape(-1, size).sum(dim=1) <= keep).all()
    assert wanda.sparsity(model) == 1 - keep / size


@pytest.mark.parametrize(
    ("method", "update"),
    [*product(["magnitude", "wanda", "sparsegpt"], [None, "obs", "obs-iterative"]), ("admm", None)],
)
def test_sparsity_zero_changes_nothing(model, calibration, method, update):
    before = weights(model)
    wanda.prune(model, calibration, method=method, sparsity=0, update=update, progress=False)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


def test_obs_update_keeps_the_mask_of_the_score_and_lowers_the_error(model, calibration):
    repaired = copy.deepcopy(model)
    plain = wanda.prune(model, calibration, progress=False)
    report = wanda.prune(repaired, calibration, update="obs", progress=False)
    first = find_blocks(model)[0].layers
    for layer in first:  # later blocks read other inputs, so their masks may differ
        assert torch.equal(weights(repaired)[layer.name] == 0, layer.weight == 0)
        assert not torch.equal(weights(repaired)[layer.name], layer.weight)
    errors = [sum(layer.relative_error for layer in r.layers[: len(first)]) for r in (report, plain)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("options", [{}, {"pattern": "2:4"}, {"method": "magnitude"}])
def test_iterative_update_is_sparsegpt_with_another_score(model, calibration, options, monkeypatch):
    several_blocks = {**repair.__kwdefaults__, "block": 8}  # the model is narrower than the default block
    monkeypatch.setattr(repair, "__kwdefaults__", several_blocks)
    before = {name: weight.clone() for name, weight in weights(model).items()}
    block = find_blocks(model)[0]
    inputs = reference.layer_inputs(model, block, calibration)
    norms = {layer.name: inputs[layer.name].norm(dim=0) for layer in block.layers}
    report = wanda.prune(model, calibration, update="obs-iterative", **options, progress=False)
    assert "iterative OBS update" in str(report)
    magnitude = options.get("method") == "magnitude"
    for layer in block.layers:
        x, norm = inputs[layer.name], norms[layer.name]
        expected, mask = reference.sparsegpt(
            before[layer.name],
            x.T @ x,
            pattern=options.get("pattern"),
            block=8,
            score=lambda value, j, norm=norm: value.abs() * (1 if magnitude else norm[j]),
            group="layer" if magnitude else "output",
        )
        assert torch.equal(layer.weight == 0, mask)
        torch.testing.assert_close(layer.weight.double(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_a_custom_update_function(model, calibration, pattern):
    def solved(weight, hessian, mask):  # ADMM's solve for a mask that is given
        return admm(weight, hessian, mask=mask)[0]

    block, before = find_blocks(model)[0], copy.deepcopy(model)
    inputs = reference.layer_inputs(model, block, calibration)
    report = wanda.prune(model, calibration, pattern=pattern, update=solved, progress=False)
    assert "with solved" in str(report)
    for layer in block.layers:
        weight, x = weights(before)[layer.name], inputs[layer.name]
        mask = wanda.prune_mask(weight.abs() * x.norm(dim=0), pattern=pattern)
        torch.testing.assert_close(layer.weight, admm(weight, x.T @ x, mask=mask)[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("error", [ValueError, TypeError, torch.linalg.LinAlgError])
def test_an_update_that_fails_on_a_later_layer_names_it(model, calibration, error):
    def update(weight, hessian, mask):
        if len(weight) == 3:  # the layer that it is tried on
            return weight.masked_fill(mask, 0)
        raise error("no solution")

    with pytest.raises(RuntimeError, match=r"no solution \(model\.layers\.0\..*load the model again"):
        wanda.prune(model, calibration, update=update, progress=False)


def test_a_custom_score_function(model, calibration):
    other = copy.deepcopy(model)
    wanda.prune(model, calibration, method=lambda weight, norm: weight.abs() * norm, progress=False)
    wanda.prune(other, calibration, method="wanda", progress=False)
    assert all(torch.equal(weights(other)[name], weight) for name, weight in weights(model).items())


def test_sparsity_per_layer_and_skipped_layers(model, calibration):
    report = wanda.prune(
        model, calibration, sparsity={"layers.0": 0.25, "down_proj": 0.75, "*": 0.5}, skip=("o_proj",), progress=False
    )
    for name, weight in weights(model).items():
        expected = 0 if "o_proj" in name else 0.25 if "layers.0." in name else 0.75 if "down_proj" in name else 0.5
        assert (weight == 0).double().mean() == expected, name
    assert len(report.layers) == 18
    wanda.prune(model, calibration, sparsity=lambda name: 0.875 if "q_proj" in name else 0, progress=False)
    assert (weights(model)["model.layers.1.self_attn.q_proj"] == 0).double().mean() == 0.875


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "admm"])
def test_padding_does_not_change_the_result(model, calibration, method, side):
    padded = copy.deepcopy(model)
    ragged = [calibration[0:1, :20], calibration[1:2, :13], calibration[2:3, :24]]
    wanda.prune(model, ragged, method=method, progress=False)
    batch = {"input_ids": torch.full((3, 30), 5), "attention_mask": torch.zeros(3, 30, dtype=torch.long)}
    for row, window in enumerate(ragged):
        length = window.shape[1]
        place = slice(0, length) if side == "right" else slice(30 - length, 30)
        batch["input_ids"][row, place] = window[0]
        batch["attention_mask"][row, place] = 1
    wanda.prune(padded, [batch], method=method, progress=False)
    for name, weight in weights(model).items():
        same = ((weights(padded)[name] == 0) == (weight == 0)).double().mean()
        assert same > 0.998, name  # the sums differ only in their order
        torch.testing.assert_close(weights(padded)[name], weight, rtol=0.02, atol=2e-3)


def test_batches_of_any_size_give_the_same_masks(model, calibration):
    models = [copy.deepcopy(model) for _ in range(3)]
    for other, size in zip(models, (1, 4, 6), strict=True):
        wanda.prune(other, calibration, batch_size=size, progress=False)
    for name, weight in weights(models[0]).items():
        for other in models[1:]:
            assert ((weights(other)[name] == 0) == (weight == 0)).double().mean() > 0.998, name


def test_the_statistic_of_a_shared_input_is_computed_once(model, calibration, monkeypatch):
    made = []
    original = wanda.statistics.InputNorm.__init__
    monkeypatch.setattr(
        wanda.statistics.InputNorm, "__init__", lambda self, *a, **k: (made.append(a), original(self, *a, **k))[1]
    )
    wanda.prune(model, calibration, progress=False)
    assert len(made) == 4 * 3  # q/k/v, o, gate/up, down in each of three blocks


def test_the_relative_error_is_that_of_the_first_window(model, calibration):
    before = weights(model)
    name = "model.layers.0.mlp.down_proj"
    inputs = reference.layer_inputs(model, find_blocks(model)[0], calibration[:1])[name]
    report = wanda.prune(model, calibration, progress=False)
    change = inputs @ (before[name] - weights(model)[name]).double().T
    expected = change.norm() / (inputs @ before[name].double().T).norm()
    (layer,) = [layer for layer in report.layers if layer.name == name]
    assert layer.relative_error == pytest.approx(float(expected), rel=1e-4)


def test_the_report_can_be_displayed(model, calibration):
    report = wanda.prune(model, calibration, progress=False)
    frame = report.to_frame()
    assert len(frame) == 21
    assert frame.loc["model.layers.2.mlp.up_proj", "sparsity"] == 0.5
    assert "down_proj" in report._repr_html_()
    assert "50.00%" in str(report)
    assert report.seconds >= sum(report.phases.values()) > 0
    assert set(report.phases) == {"capture", "statistics", "select", "recompute"}


def test_only_the_weights_of_the_model_change(model, calibration):
    model.train()
    forwards = [block.module.__dict__.get("forward") for block in find_blocks(model)]
    wanda.prune(model, calibration, progress=False)
    assert model.training
    assert [block.module.__dict__.get("forward") for block in find_blocks(model)] == forwards
    assert not any(module._forward_pre_hooks for module in model.modules())
    model.eval()
    with torch.no_grad():
        assert torch.isfinite(model(calibration).logits).all()
    embedding = model.get_input_embeddings().weight
    assert (embedding[1:] != 0).all()  # row 0 is the padding token's


def test_tied_and_outer_weights_are_never_pruned(calibration):
    model = tiny(tie_word_embeddings=True)
    wanda.prune(model, calibration, sparsity=0.9, progress=False)
    assert (model.lm_head.weight[1:] != 0).all()
    model = tiny(tie_word_embeddings=False)
    wanda.prune(model, calibration, sparsity=0.9, progress=False)
    assert (model.lm_head.weight != 0).all()


def test_half_precision_weights_stay_half_precision(calibration):
    model = tiny().to(torch.bfloat16)
    before = weights(model)
    wanda.prune(model, calibration, method="wanda", progress=False)
    for name, weight in weights(model).items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight[weight != 0], before[name][weight != 0])
    assert wanda.sparsity(model) == 0.5


def test_a_score_may_divide_by_the_spread_of_weights_and_norms(model, calibration, tmp_path):
    def standard_score(weight, norm):
        return (weight / weight.std()).abs() * (norm - norm.mean()) / norm.std()

    model.save_pretrained(tmp_path / "dense")
    options = {"method": standard_score, "progress": False}
    wanda.prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", calibration, **options)
    wanda.prune(model, calibration, **options)
    assert wanda.sparsity(model) == wanda.sparsity(AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")) == 0.5


@pytest.mark.parametrize("failure", [None, ValueError("odd"), TypeError("odd")], ids=["NaN", "value", "type"])
def test_a_score_that_fails_midway_is_not_a_value_error(model, calibration, failure):
    """ValueError means that no weight has changed; here the first block is already pruned."""
    calls = []

    def score(weight, norm):
        calls.append(weight)
        if len(calls) > 15 and failure is not None:
            raise failure
        return weight * (float("nan") if len(calls) > 15 else norm)

    before = weights(model)
    with pytest.raises(RuntimeError, match=r"model\.layers\.1.*load the model again"):
        wanda.prune(model, calibration, method=score, progress=False)
    assert any(not torch.equal(weight, before[name]) for name, weight in weights(model).items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(model, calibration, value):
    model.model.layers[2].mlp.up_proj.weight.data[3, 4] = value
    with pytest.raises(ValueError, match=r"model\.layers\.2\.mlp\.up_proj"):
        wanda.prune(model, calibration, progress=False)
    assert (model.model.layers[0].mlp.up_proj.weight != 0).all()


def test_activations_that_are_not_finite_are_named(model, calibration):
    model.model.layers[1].post_attention_layernorm.weight.data[3] = float("inf")
    with pytest.raises(RuntimeError, match=r"model\.layers\.1\.mlp\.(gate|up)_proj.*NaN or infinite"):
        wanda.prune(model, calibration, progress=False)
