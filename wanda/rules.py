"""How one layer is pruned: what `method`, `pattern`, `group` and `update` mean, checked and put together."""

import warnings
from dataclasses import dataclass

import torch

from .activations import Hessian, InputNorm
from .blocks import matches
from .masks import check_group, check_sparsity, lowest, parse_pattern
from .scores import SCORES, magnitude
from .sparsegpt import inverse_factor, precision, repair

METHODS = (*SCORES, "sparsegpt")
UPDATES = ("obs", "obs-iterative")


@dataclass(frozen=True)
class Rule:
    """A way to prune a layer.

    Attributes:
        name: of the method, for people.
        score: function (weight, input_norm) -> score; None where SparseGPT chooses the mask itself.
        pattern, group: as in `prune_mask`.
        repairs: whether the kept weights are updated.
        iterative: whether the repair chooses the mask on the way, by the score of the weights as they are by then.
        needs_data: whether the layer's inputs matter at all.
    """

    name: str
    score: object
    pattern: str | None
    group: str
    repairs: bool
    iterative: bool
    needs_data: bool

    @property
    def statistic(self):
        """What has to be known of a layer's inputs: the class that accumulates it."""
        return Hessian if self.repairs else InputNorm

    def apply(self, name, weight, inputs, sparsity):
        """The new weight [out, in] of the layer of that name, given its weight in float32 and `LayerInputs` (None: no data)."""
        if sparsity == 0 and self.pattern is None:
            return weight
        if inputs is None and self.needs_data:
            warnings.warn(
                f"{name} was never reached by the calibration data (an expert without tokens?); "
                "it is pruned by magnitude",
                stacklevel=2,
            )
            return weight.masked_fill(lowest(magnitude(weight), sparsity, self.pattern, "output"), 0)
        norm = inputs.statistic.norm() if inputs is not None else None  # [in]
        mask, chosen_on_the_way = None, {}
        if self.iterative:
            chosen_on_the_way = {"price": lambda part, columns: self.score(part, norm[columns]), "group": self.group}
        elif self.score is not None:
            mask = lowest(self._checked_score(weight, norm, name), sparsity, self.pattern, self.group)
        if not self.repairs:
            return weight.masked_fill(mask, 0)
        if "factor" not in inputs.derived:  # the layers that read this input share it
            hessian = inputs.statistic.matrix(precision(weight.device))
            inputs.derived["factor"] = inverse_factor(hessian, layer=name)
        repaired, _ = repair(weight, *inputs.derived["factor"], sparsity, self.pattern, mask, **chosen_on_the_way)
        return repaired

    def _checked_score(self, weight, norm, name):
        score = self.score(weight, norm)
        if self.score in SCORES.values():
            return score  # of finite weights and norms; to look would make the program wait for a GPU
        if not isinstance(score, torch.Tensor) or score.shape != weight.shape:
            got = tuple(score.shape) if isinstance(score, torch.Tensor) else type(score).__name__
            raise ValueError(
                f"method {self.name!r} must return a score of shape {tuple(weight.shape)} for {name}, got {got}"
            )
        if torch.isnan(score).any():
            raise ValueError(f"method {self.name!r} gave NaN scores for {name}")
        return score

    def describe(self, sparsity):
        """One line for people, such as 'wanda 2:4' or 'magnitude 50%, group layer'."""
        amount = self.pattern or (f"{sparsity:.0%}" if isinstance(sparsity, (int, float)) else "per layer")
        usual = "layer" if self.score is magnitude and self.pattern is None else "output"
        group = f", group {self.group}" if self.group != usual else ""
        kind = "iterative " if self.iterative else ""
        update = f", with the {kind}OBS update" if self.repairs and self.score is not None else ""
        return f"{self.name} {amount}{group}{update}"


def make_rule(method, pattern=None, group=None, update=None, propagate="pruned"):
    """Check the options of `wanda.prune` that say how a layer is pruned. Returns a `Rule`.

    Raises: ValueError or TypeError saying what was given and what is allowed.
    """
    if not callable(method) and method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))} or a score function; got {method!r}")
    if update not in (None, *UPDATES):
        raise ValueError(f"update must be None, {' or '.join(map(repr, UPDATES))}; got {update!r}")
    if propagate not in ("pruned", "dense"):
        raise ValueError(f"propagate must be 'pruned' or 'dense', got {propagate!r}")
    if pattern is not None:
        parse_pattern(pattern)
    score = method if callable(method) else SCORES.get(method)
    repairs = score is None or update is not None
    iterative = score is not None and update == "obs-iterative"
    if iterative and callable(method):
        raise ValueError(
            "update='obs-iterative' scores a few columns at a time, and a score function may look at whole rows; "
            "for a function of your own use update='obs'"
        )
    if repairs and propagate == "dense":
        raise ValueError("propagate='dense' is for score methods; SparseGPT and updates need propagate='pruned'")
    if score is None and group is not None:
        raise ValueError(
            f"method='sparsegpt' compares weights within blocks of columns, group={group!r} does not apply; "
            "for another group with the same repair use method='wanda', update='obs'"
        )
    if group is not None:
        check_group(group, pattern)
    elif score is magnitude and pattern is None:
        group = "layer"
    name = getattr(method, "__name__", type(method).__name__) if callable(method) else method
    return Rule(name, score, pattern, group or "output", repairs, iterative, score is not magnitude or repairs)


def resolve_sparsity(names, sparsity, pattern=None):
    """The sparsity of each layer. Returns a dict name -> float.

    Args:
        names: of the layers to prune.
        sparsity: a number, a dict from names or patterns (see `matches`) to numbers, or a function of the name.
        pattern: "N:M" fixes the sparsity by itself; only a number is then accepted, and not used.

    Raises: ValueError or TypeError naming the layer or the key.
    """
    per_layer = isinstance(sparsity, dict) or callable(sparsity)
    if not per_layer:
        check_sparsity(sparsity)
        return dict.fromkeys(names, sparsity)
    if pattern is not None:
        raise ValueError(
            f"pattern {pattern!r} fixes the sparsity of every layer; it cannot be joined with one per layer"
        )
    if callable(sparsity):
        resolved = {name: sparsity(name) for name in names}
    else:
        for key in sparsity:
            if not any(matches(name, key) for name in names):
                raise ValueError(
                    f"sparsity has a key {key!r} that matches no layer; layers are named like {names[0]!r}"
                )
        resolved = {}
        for name in names:
            found = [value for key, value in sparsity.items() if matches(name, key)]
            if not found:
                raise ValueError(f"sparsity is a dict without an entry for {name!r}; add one, or '*' for all others")
            resolved[name] = found[0]
    for name, value in resolved.items():
        check_sparsity(value, f"sparsity of {name}")
    return resolved
