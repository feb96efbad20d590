"""The functions in notebook 09's cells match the module's masks and peft's adapter, and its training loop resumes."""

import sys

import peft
import pytest
import torch
from cells import cell_function
from conftest import VOCABULARY, tiny
from test_finetuning import OPTIMISERS, train, weights
from torch.optim.optimizer import register_optimizer_step_post_hook
from tqdm import tqdm

import wanda
from wanda.sources.download import replacing
from wanda_course.exercises.checker import EXERCISES

NAME = "09_recovery"


@pytest.fixture(scope="module")
def hold_zeros():
    return cell_function(NAME, "hold_zeros", register_optimizer_step_post_hook=register_optimizer_step_post_hook)


@pytest.fixture(scope="module")
def adapted():
    return cell_function(NAME, "Adapted", lora_output=cell_function(NAME, "lora_output"))


def pruned(calibration):
    model = tiny()
    wanda.prune(model, calibration, progress=False)
    return model


# Masks ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_notebook_09_holds_the_zeros_as_the_module_does(hold_zeros, calibration, make, clip):
    ours, theirs = pruned(calibration), pruned(calibration)
    before = {name: weight.detach().clone() for name, weight in weights(ours).items()}
    handles = hold_zeros(list(weights(ours).values()))
    train(ours, calibration, make(ours.parameters()), clip=clip)
    for handle in handles:
        handle.remove()
    with wanda.keep_masks(theirs):
        train(theirs, calibration, make(theirs.parameters()), clip=clip)
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name
    for name, weight in weights(ours).items():
        assert torch.equal(weight == 0, before[name] == 0), name
        assert not torch.equal(weight, before[name]), name


def test_without_the_handles_of_notebook_09_the_zeros_are_lost(hold_zeros, calibration):
    model = pruned(calibration)
    for handle in hold_zeros(list(weights(model).values())):
        handle.remove()
    train(model, calibration, torch.optim.AdamW(model.parameters(), lr=0.01))
    assert wanda.sparsity(model) < 0.01


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_the_step_of_exercise_1_is_pytorchs_under_the_mask(hold_zeros, limit):
    old, first, second = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
    mask = wanda.prune_mask(old.abs())
    weight = torch.nn.Parameter(old.clone())
    optimiser = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.grad = first.clone()
    optimiser.step()  # the velocity is `first` now
    weight.data = old.masked_fill(mask, 0)
    handles = hold_zeros([weight])
    optimiser.zero_grad()
    (weight * second).sum().backward()  # the gradient is `second`
    torch.nn.utils.clip_grad_norm_([weight], limit)
    optimiser.step()
    for handle in handles:
        handle.remove()
    expected = EXERCISES["09.1"].solution(old.masked_fill(mask, 0), second, first, mask, 0.1, limit)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-5)


# LoRA -------------------------------------------------------------------------------------------------------------------


def test_the_adapter_of_notebook_09_is_pefts(adapted):
    layer, x = torch.nn.Linear(12, 7, bias=False), torch.randn(3, 5, 12)
    model = peft.get_peft_model(
        torch.nn.Sequential(layer), peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"], init_lora_weights=False)
    )
    theirs = model.base_model.model[0]
    ours = adapted(layer, 4, 6)
    assert torch.equal(ours(x), layer(x))
    assert not torch.allclose(theirs(x), layer(x))  # init_lora_weights=False: B is not zero
    ours.A.data, ours.B.data = (getattr(theirs, f"lora_{part}")["default"].weight.data for part in "AB")
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.scale * ours.B @ ours.A, theirs.get_delta_weight("default"))
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == EXERCISES["09.2"].solution([(7, 12)], 4)


def test_the_merge_of_exercise_4_is_the_modules(calibration):
    config = peft.LoraConfig(r=4, lora_alpha=3, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = peft.get_peft_model(pruned(calibration), config)
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    expected = {
        name: EXERCISES["09.4"].solution(
            module.base_layer.weight.detach().clone(),
            module.lora_A["default"].weight.detach(),
            module.lora_B["default"].weight.detach(),
            3,
        )
        for name, module in layers.items()
    }
    merged, lost = wanda.merge_lora(model)
    assert lost.keys() == expected.keys()
    for name, (weight, share) in expected.items():
        found = merged.get_submodule(name.removeprefix("base_model.model.")).weight
        torch.testing.assert_close(found.detach(), weight)
        assert lost[name] == pytest.approx(share, rel=1e-3)


# The loop ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def loop():
    """The names that the notebook's `fine_tune` uses, with random windows."""
    windows = torch.randint(VOCABULARY, (20, 12), generator=torch.Generator().manual_seed(5))
    known = {"windows": windows, "batch_size": 3, "windows_at_once": 2, "seed": 0, "tqdm": tqdm, "sys": sys}
    known |= {"model_name": "tiny", "sparsity": 0.5, "training_source": "random", "calibration_source": "random"}
    known |= {"replacing": replacing}
    for name in ("save_state", "load_state", "run_settings", "rate_share", "learn"):
        known[name] = cell_function(NAME, name, **known)
    return known


def run(loop, calibration, watch=lambda model: None, file=None, rate=0.01, draw=0):
    model = pruned(calibration)
    with wanda.keep_masks(model):
        history = cell_function(NAME, "fine_tune", **loop)(model, rate, 7, watch, file=file, draw=draw)
    return model.state_dict(), history


def test_gradients_of_a_batch_do_not_depend_on_the_windows_at_once(loop, model):
    batch = loop["windows"][:3]
    loss = loop["learn"](model, batch)
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    expected = model(input_ids=batch, labels=batch).loss
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for grad, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("call", [2, 3, 4])
def test_an_interrupted_run_is_bit_identical_to_an_uninterrupted_one(loop, calibration, tmp_path, call):
    calls = []

    def interrupt(model):
        calls.append(model)
        if len(calls) == call:
            raise KeyboardInterrupt

    straight, history = run(loop, calibration)
    with pytest.raises(KeyboardInterrupt):
        run(loop, calibration, interrupt, tmp_path / "state.pt")
    saved = len(torch.load(tmp_path / "state.pt")["history"]["loss"])
    assert saved == round(7 * (call - 2) / 3)
    resumed, again = run(loop, calibration, file=tmp_path / "state.pt")
    assert again == history
    assert len(history["loss"]) == 7
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.parametrize("forgotten", ["optimiser", "generator"])
def test_the_saved_state_is_needed(loop, calibration, tmp_path, forgotten):
    """The comparison above fails if the optimiser's state, or the generator's that draws the batches, is lost."""
    straight, _ = run(loop, calibration)
    file, seen = tmp_path / "state.pt", []

    def interrupt(model):
        seen.append(model)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(loop, calibration, interrupt, file)
    state = torch.load(file)
    if forgotten == "generator":
        state["generator"] = torch.Generator().manual_seed(0).get_state()
    else:
        state["optimiser"]["state"] = {}
    torch.save(state, file)
    resumed, _ = run(loop, calibration, file=file)
    assert not all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_a_file_from_other_settings_is_refused(loop, calibration, tmp_path):
    run(loop, calibration, file=tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt belongs to a run with .*'rate': 0.01.*, not .*'rate': 0.02"):
        run(loop, calibration, file=tmp_path / "state.pt", rate=0.02)


def test_another_draw_has_other_batches_and_takes_up_no_state_of_the_first(loop, calibration, tmp_path):
    _, first = run(loop, calibration, file=tmp_path / "state.pt")
    _, second = run(loop, calibration, draw=1)
    assert first["loss"] != second["loss"]
    with pytest.raises(ValueError, match=r"'seed': 0.*, not .*'seed': 1"):
        run(loop, calibration, file=tmp_path / "state.pt", draw=1)


@pytest.mark.parametrize("count", [24, 31])  # 31: the last window is short
def test_the_token_losses_give_the_modules_perplexity(model, count):
    losses = cell_function(NAME, "token_losses", cross_entropy=torch.nn.functional.cross_entropy, evaluation_length=12)
    text = torch.randint(VOCABULARY, (count,), generator=torch.Generator().manual_seed(3))
    expected = wanda.perplexity(model, text, 12)
    assert losses(model, text).double().mean().exp().item() == pytest.approx(expected, rel=1e-5)


def test_the_rate_rises_and_falls_to_zero(loop):
    shares = [loop["rate_share"](step, 20) for step in range(20)]
    assert min(shares) > 0
    assert max(shares) == shares[3]
    assert shares[:4] == sorted(shares[:4])
    assert shares[3:] == sorted(shares[3:], reverse=True)
    assert loop["rate_share"](20, 20) == 0
