"""Every causal family that the installed transformers knows, built small and pruned; `docs/models.md` is its table.

PYTHONPATH=tests python tests/blocks/families.py        # measures all families and writes the table
"""

import copy
import importlib.metadata
import inspect
import sys
import warnings
from pathlib import Path

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from watching import reference_walk, zeros

import wanda

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
LARGEST = 3_000_000  # parameters; what a config cannot make smaller is listed as such
CALIBRATION = torch.randint(3, 128, (4, 24), generator=torch.Generator().manual_seed(1))
SIZES = {
    "vocab_size": 128,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_size": 32,
    "n_embd": 32,
    "d_model": 32,
    "intermediate_size": 64,
    "ffn_dim": 64,
    "n_positions": 128,
    "num_hidden_layers": 3,
    "n_layer": 3,
    "n_layers": 3,
    "rotary_dim": 4,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
}


class TooLarge(Exception):
    """The sizes above do not make this family small."""


def build(name):
    """A small random model of a family, in evaluation mode. Raises whatever its configuration does not accept."""
    config_class = CONFIG_MAPPING[name]
    default = config_class()
    sizes = {key: value for key, value in SIZES.items() if hasattr(default, key)}
    if getattr(default, "num_attention_heads", None) == getattr(default, "num_key_value_heads", 0):
        sizes["num_key_value_heads"] = 4
    config = config_class(**sizes)
    with torch.device("meta"):
        count = sum(weight.numel() for weight in transformers.AutoModelForCausalLM.from_config(config).parameters())
    if count > LARGEST:
        raise TooLarge(f"{count:,} parameters")
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def outcome(name):
    """What becomes of a family: (kind, detail).

    kind: "as the reference"; "by magnitude in part": so are some layers that the reference prunes by their inputs;
    "refused"; "not built small"; or "WRONG".
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = build(name)
        except Exception as error:  # whatever a configuration class raises
            return "not built small", type(error).__name__
        expected = copy.deepcopy(model)
        before = copy.deepcopy(model.state_dict())
        try:
            report = wanda.prune(model, CALIBRATION, progress=False)
        except ValueError as error:
            same = all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())
            return ("refused" if same else "WRONG"), str(error).partition(";")[0].replace("|", "")
        except Exception as error:
            return "WRONG", f"{type(error).__name__}: {error}"
        read = reference_walk(expected, CALIBRATION)
    unreached = {layer.name for layer in report.layers if not layer.reached}
    found, wanted = zeros(model), zeros(expected)
    worst = min(float((found[layer] == wanted[layer]).double().mean()) for layer in found.keys() - (unreached & read))
    detail = f"{len(report.layers)} layers, {report.model_sparsity:.0%} of the model"
    if worst <= 0.99:
        return f"WRONG: {worst:.3f}", detail
    if unreached & read:  # weights that a block uses without calling their layer, such as Mamba's dt_proj
        names = ", ".join(sorted({layer.rpartition(".")[2] for layer in unreached & read}))
        return "by magnitude in part", f"{detail}: {names}, with a warning"
    if unreached:
        detail += f"; {len(unreached)} layers without calibration tokens, by magnitude, with a warning"
    return "as the reference", detail


def row(name):
    """The line of the table for a family."""
    return f"| {name} | {' | '.join(outcome(name))} |"


def version():
    """Of transformers, as the page names it."""
    return importlib.metadata.version("transformers")


def main():
    """Measure all families and write the page."""
    lines = []
    for name in FAMILIES:
        lines.append(row(name))
        print(lines[-1], flush=True)
    kinds = [line.split(" | ")[1] for line in lines]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    text = inspect.cleandoc(
        f"""
        # Models

        Every causal family that transformers {version()} knows, built small with random weights, pruned by Wanda at 50 %, and
        compared mask by mask with a slow reference: whole forward passes, and a watch on the matrix products instead of hooks.
        {counts}. `PYTHONPATH=tests python tests/blocks/families.py` writes this page; `tests/blocks/test_families.py` holds each line of it.

        "By magnitude in part": a block uses the weights of some layers without calling them, so that their inputs are not seen.
        "Not built small": the sizes that the test sets do not suit the family's configuration, often because it nests others.

        | family | outcome | |
        |---|---|---|
        """
    )
    PAGE.write_text("\n".join([text, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    sys.exit(main())
