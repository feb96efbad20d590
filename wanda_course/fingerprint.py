"""A fingerprint of the numerics: what each method computes on small fixed problems, as a few numbers.

A measured cell carries the fingerprint of its method. It depends on behaviour, not on files: moving code does not
change it; changing what is computed makes every earlier cell stale. Kernels and thread counts stay within tolerance.

    python -m wanda_course.fingerprint
"""

import functools
import json
import math

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import wanda
from wanda.admm import admm
from wanda.scores import magnitude
from wanda.scores import wanda as wanda_score
from wanda.sparsegpt import sparsegpt

from . import swaps

TOLERANCE = {"layer": 3e-8, "walk": 2e-4, "perplexity": 1e-5}  # relative
AMOUNTS = ({"sparsity": 0.5}, {"pattern": "2:4"})
METHODS = ("magnitude", "wanda", "sparsegpt")  # of the notebooks' claims
UPDATES = {"sparsegpt": sparsegpt, "admm": admm}


def of(method):
    """The fingerprint of a method ("dense": of perplexity alone). Returns a dict of dicts of numbers, ready for JSON.

    "layer": from the weights of one layer with ill-conditioned inputs, pruned at 50 % and 2:4, where float32 and
    float64 already differ; "walk": from the errors that `prune` reports for a model of two blocks.
    """
    found = {"perplexity": {"perplexity": _perplexity()}}
    return found if method == "dense" else found | {method: dict(_method(method))}


def same(one, other):
    """Whether two fingerprints agree, each kind of number within its tolerance."""
    if one is None or other is None or one.keys() != other.keys():
        return False
    return all(
        one[name].keys() == other[name].keys()
        and all(math.isclose(one[name][key], other[name][key], rel_tol=TOLERANCE[key.split()[0]]) for key in one[name])
        for name in one
    )


@functools.cache
def _method(method):
    weight, inputs = _layer()
    model, tokens = _model()
    found = {}
    for amount in AMOUNTS:
        name = amount.get("pattern", "50%")
        if method in UPDATES:
            after, _ = UPDATES[method](weight, inputs.T @ inputs, **amount)
        else:
            score = (magnitude if method == "magnitude" else wanda_score)(weight, inputs.norm(dim=0).float())
            group = "layer" if method == "magnitude" and "sparsity" in amount else "output"
            mask = wanda.prune_mask(score, group=group, **amount)
            after = weight.masked_fill(mask, 0)
            if method == "swaps":
                after = swaps.swap(weight, inputs.T @ inputs, mask, amount.get("pattern"))
        found[f"layer {name}"] = _digits(after.double().abs().sum(), 10)
        pruned = LlamaForCausalLM(model.config)
        pruned.load_state_dict(model.state_dict())
        report = wanda.prune(pruned, tokens, progress=False, **swaps.options(method, amount.get("pattern")))
        found[f"walk {name}"] = _digits(sum(layer.relative_error for layer in report.layers), 6)
    return tuple(found.items())


@functools.cache
def _perplexity():
    model, tokens = _model()
    return _digits(wanda.perplexity(model, tokens.flatten(), length=24), 7)


@functools.cache
def _layer():
    """A weight [64, 256] and inputs [300, 256] that share one large component: the damped Hessian is nearly singular."""
    generator = torch.Generator().manual_seed(0)
    shared, own = _integers(8, generator, 300, 1), _integers(8, generator, 300, 256)
    return _integers(999, generator, 64, 256).float() / 1000, 16 * shared + own


@functools.cache
def _model():
    """A model of two blocks whose embedding has outlier features, and calibration windows [6, 32] for it."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(_integers(99, generator, *parameter.shape) / 500)
        model.model.embed_tokens.weight[:, [3, 17]] *= 30
    return model, torch.randint(128, (6, 32), generator=generator)


def _integers(most, generator, *shape):
    """Random integers from -most to most as float64: the same on every processor, unlike normal draws."""
    return torch.randint(-most, most + 1, shape, generator=generator).double()


def _digits(value, digits):
    return float(f"{float(value):.{digits}g}")


def main():
    """Print the fingerprints of all methods."""
    print(json.dumps({method: of(method) for method in ("dense", "magnitude", "wanda", *UPDATES, "swaps")}, indent=1))


if __name__ == "__main__":
    main()
