import peft
import pytest
import torch
from conftest import tiny
from transformers import GPT2Config

import wanda
from wanda import find_blocks
from wanda.tools import finetuning


def weights(model):
    return {layer.name: layer.module.weight for block in find_blocks(model) for layer in block.layers}


class Mixing(torch.optim.Optimizer):
    """An optimiser whose update of an entry depends on all entries of the matrix, as Muon's or Shampoo's does."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= 0.01 * (1 + parameter.grad.abs().mean())


OPTIMISERS = {
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "one that mixes entries": Mixing,
}


@pytest.fixture(params=["llama", "gpt2"])
def pruned(request, calibration):
    model = tiny() if request.param == "llama" else tiny(GPT2Config, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    wanda.prune(model, calibration, progress=False)
    return model


def train(model, calibration, optimiser, steps=3, clip=None):
    for _ in range(steps):
        optimiser.zero_grad()
        model(calibration[:2], labels=calibration[:2]).loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_every_pruned_weight_stays_zero(pruned, calibration, make):
    before = {name: weight.detach().clone() for name, weight in weights(pruned).items()}
    with wanda.keep_masks(pruned):
        train(pruned, calibration, make(pruned.parameters()))
    for name, weight in weights(pruned).items():
        assert (weight[before[name] == 0] == 0).all(), name
        assert (weight != before[name])[before[name] != 0].any(), name  # the others were trained


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_without_keep_masks_pruned_weights_do_not_stay_zero(pruned, calibration, make):
    train(pruned, calibration, make(pruned.parameters()))
    assert wanda.sparsity(pruned) < 0.01


def test_earlier_momentum_does_not_move_pruned_weights(pruned, calibration):
    model = tiny()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, calibration, optimiser)
    wanda.prune(model, calibration, progress=False)
    with wanda.keep_masks(model) as kept:
        train(model, calibration, optimiser)
        assert all((weight[kept.masks[name]] == 0).all() for name, weight in weights(model).items())
    assert wanda.sparsity(model) == pytest.approx(0.5)


def test_held_weights_have_no_gradient(pruned, calibration):
    with wanda.keep_masks(pruned) as kept:
        pruned(calibration, labels=calibration).loss.backward()
        for name, weight in weights(pruned).items():
            assert (weight.grad[kept.masks[name]] == 0).all()
            assert (weight.grad[~kept.masks[name]] != 0).any()


def test_after_remove_all_weights_may_change(pruned, calibration):
    kept = wanda.keep_masks(pruned)
    kept.remove()
    train(pruned, calibration, torch.optim.AdamW(pruned.parameters(), lr=0.01))
    assert wanda.sparsity(pruned) < 0.01


def test_skipped_layers_may_change(pruned, calibration):
    first = next(iter(weights(pruned)))
    with wanda.keep_masks(pruned, skip=first) as kept:
        train(pruned, calibration, torch.optim.AdamW(pruned.parameters(), lr=0.01))
    assert first not in kept.masks
    assert (weights(pruned)[first] == 0).double().mean() < 0.01


def test_a_frozen_layer_needs_no_gradient(pruned, calibration):
    next(iter(weights(pruned).values())).requires_grad_(False)
    with wanda.keep_masks(pruned):
        train(pruned, calibration, torch.optim.AdamW([p for p in pruned.parameters() if p.requires_grad]))
    assert wanda.sparsity(pruned) == pytest.approx(0.5, abs=0.01)


def test_a_dense_model_has_nothing_to_hold(model):
    with pytest.raises(ValueError, match=r"LlamaForCausalLM has no zeros to hold in its 21 layers; prune it first"):
        wanda.keep_masks(model)


# LoRA -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(calibration):
    """A pruned model with trained adapters, and its weights before training."""
    model = tiny()
    wanda.prune(model, calibration, progress=False)
    before = {name: weight.detach().clone() for name, weight in weights(model).items()}
    torch.manual_seed(0)
    with_adapters = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    optimiser = torch.optim.AdamW([p for p in with_adapters.parameters() if p.requires_grad], lr=0.05)
    train(with_adapters, calibration, optimiser)
    return with_adapters, before


def test_a_plain_merge_loses_the_zeros(adapted):
    model, before = adapted
    merged = weights(model.merge_and_unload())
    for name in before:
        expected = 0.0 if name.endswith(("q_proj", "down_proj")) else 0.5
        assert (merged[name] == 0).double().mean() == pytest.approx(expected, abs=0.01)


def test_the_merge_keeps_every_zero_and_adds_the_rest(adapted):
    model, before = adapted
    updates = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    merged, lost = finetuning.merge_lora(model)
    after = weights(merged)
    for name, old in before.items():
        pruned = old == 0
        assert (after[name][pruned] == 0).all()
        expected = old + updates[name] if name in updates else old
        torch.testing.assert_close(after[name][~pruned], expected[~pruned])
    assert {name.removeprefix("base_model.model.") for name in lost} == updates.keys()
    for name, share in lost.items():
        update = updates[name.removeprefix("base_model.model.")]
        pruned = before[name.removeprefix("base_model.model.")] == 0
        assert share == pytest.approx(float(update[pruned].square().sum() / update.square().sum()), rel=1e-3)
        assert 0.2 < share < 0.8


def test_a_model_without_adapters_is_refused(model):
    with pytest.raises(ValueError, match="no LoRA adapters"):
        finetuning.merge_lora(model)
