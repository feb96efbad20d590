"""Options: `method`, `sparsity`, `pattern`, `group`, `update` and `propagate`, checked and applied to a layer."""

from dataclasses import dataclass, replace

import torch

from . import admm
from .blocks.layers import matches
from .masks import check_group, check_sparsity, check_width, lowest, parse_pattern
from .scores import SCORES, magnitude
from .sparsegpt import inverse_factor, precision, repair
from .statistics import Hessian, InputNorm

METHODS = (*SCORES, "sparsegpt", "admm")
UPDATES = {"obs": "the OBS update", "obs-iterative": "the iterative OBS update"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the layers of a model are pruned: the arguments of `wanda.prune`, checked.

    Attributes:
        name: the method's name, for messages.
        score: function (weight, input_norm) -> score; None where SparseGPT or ADMM chooses the mask itself.
        sparsity: as given to `prune`; after `for_layers`, a dict from layer name to float.
        pattern, group: as in `prune_mask`.
        update: None, "obs", "obs-iterative" or a function; for SparseGPT "obs", for ADMM "admm".
        propagate: "pruned" or "dense".
        description: one line for reports, such as "wanda 2:4" or "magnitude 50%, group layer".
    """

    name: str
    score: object
    sparsity: object
    pattern: str | None
    group: str
    update: str | None
    propagate: str
    description: str

    @property
    def needs_data(self):
        """Whether pruning depends on the layers' inputs."""
        return self.score is not magnitude or self.update is not None

    @property
    def statistic(self):
        """The class of the statistic that the method needs."""
        return InputNorm if self.update is None else Hessian

    def for_layers(self, layers):
        """The same options with a sparsity for each of a list of `Linear`s.

        Raises: ValueError or TypeError naming the layer: its sparsity is invalid, the pattern does not fit its width, or
            the score function fails on its weights; or the update function fails on a small layer.
        """
        for layer in layers if self.pattern is not None else ():
            check_width(layer.weight.shape[1], self.pattern, layer.name)
        self._try_score(layers)
        self._try_update()
        return replace(self, sparsity=resolve_sparsity([layer.name for layer in layers], self.sparsity, self.pattern))

    def apply(self, name, weight, inputs):
        """The pruned weight [out, in] of layer `name`, given its weight in float32 and its `LayerInputs` (None: no data)."""
        sparsity = self.sparsity[name]
        if sparsity == 0 and self.pattern is None:
            return weight
        if inputs is None and self.needs_data:  # an expert that no token was routed to
            return weight.masked_fill(lowest(magnitude(weight), sparsity, self.pattern, "output"), 0)
        norm = inputs.statistic.norm() if inputs is not None else None  # [in]
        if self.update is None:
            return weight.masked_fill(self._mask(weight, norm, name), 0)
        if self.update == "admm":
            if "inverse" not in inputs.derived:  # shared by the layers that read this input
                hessian = inputs.statistic.matrix(precision(weight.device))
                inputs.derived["inverse"] = admm.normal_equations(hessian)
            return admm.solve(weight, *inputs.derived["inverse"], sparsity, self.pattern, self.group)[0]
        if callable(self.update):
            mask = self._mask(weight, norm, name)
            hessian = inputs.statistic.matrix(precision(weight.device))  # of its own: the function may change it
            return self._late(self._checked_update, weight, hessian, mask, name)
        mask, choice = None, {}
        if self.update == "obs-iterative":
            choice = {"price": lambda part, columns: self.score(part, norm[columns]), "group": self.group}
        elif self.score is not None:
            mask = self._mask(weight, norm, name)
        if "factor" not in inputs.derived:  # shared by the layers that read this input
            hessian = inputs.statistic.matrix(precision(weight.device))
            inputs.derived["factor"] = inverse_factor(hessian, layer=name)
        return repair(weight, *inputs.derived["factor"], sparsity, self.pattern, mask, **choice)[0]

    def _mask(self, weight, norm, name):
        return lowest(self._score(weight, norm, name), self.sparsity[name], self.pattern, self.group)

    def _score(self, weight, norm, name):
        if self.score in SCORES.values():
            return self.score(weight, norm)  # finite, as weights and norms are; a check would force a GPU sync
        return self._late(self._checked_score, weight, norm, name)

    @staticmethod
    def _late(check, *arguments):
        """Call a user's function, now that weights have changed: ValueError and TypeError would mean that none has.

        Other errors, such as that of a matrix that cannot be factorised, would not name the layer.
        """
        try:
            return check(*arguments)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, TypeError, RuntimeError) as error:
            name = arguments[-1]
            raise RuntimeError(f"{error} ({name}; earlier blocks are pruned already: load the model again)") from error

    def _try_score(self, layers):
        """Call a user's score function on one layer of each shape, with random norms, before any weight changes."""
        if self.score is None or self.score in SCORES.values():
            return
        first, generator = {}, torch.Generator().manual_seed(0)
        for layer in layers:
            first.setdefault(tuple(layer.weight.shape), layer)
        for shape, layer in first.items():
            # Random, not constant: a score may divide by the spread of weights or norms.
            norm = torch.rand(shape[1], generator=generator) + 0.5  # [in]
            if layer.weight.is_meta:
                weight = torch.randn(shape, generator=generator)  # [out, in]
            else:
                weight = layer.weight.to(torch.float32, copy=True)
            self._checked_score(weight, norm.to(weight.device), layer.name)

    def _try_update(self):
        """Call a user's update function on a small random layer before any weight changes."""
        if not callable(self.update):
            return
        generator = torch.Generator().manual_seed(0)
        width = 8 if self.pattern is None else 2 * parse_pattern(self.pattern)[1]
        weight = torch.randn(3, width, generator=generator)  # [out, in]
        inputs = torch.randn(4 * width, width, generator=generator, dtype=torch.float64)  # [tokens, in]
        mask = lowest(weight.abs(), 0.5, self.pattern, "output")
        self._checked_update(weight, inputs.T @ inputs, mask, "a small random layer, tried first")

    def _checked_update(self, weight, hessian, mask, name):
        update = _name(self.update)
        after = self.update(weight.clone(), hessian, mask)
        if not isinstance(after, torch.Tensor) or after.shape != weight.shape:
            got = tuple(after.shape) if isinstance(after, torch.Tensor) else type(after).__name__
            raise ValueError(
                f"update {update!r} must return a weight of shape {tuple(weight.shape)} for {name}, got {got}"
            )
        if not torch.isfinite(after).all():
            raise ValueError(f"update {update!r} gave NaN or infinite weights for {name}")
        size = mask.numel() if self.pattern is None else parse_pattern(self.pattern)[1]
        missing = mask.reshape(-1, size).sum(dim=1) - (after == 0).reshape(-1, size).sum(dim=1)
        if (missing > 0).any():
            raise ValueError(f"update {update!r} left fewer zeros than the mask has in {name}; it may only move them")
        return after.float()

    def _checked_score(self, weight, norm, name):
        score = self.score(weight, norm)
        if not isinstance(score, torch.Tensor) or score.shape != weight.shape:
            got = tuple(score.shape) if isinstance(score, torch.Tensor) else type(score).__name__
            raise ValueError(
                f"method {self.name!r} must return a score of shape {tuple(weight.shape)} for {name}, got {got}"
            )
        if torch.isnan(score).any():
            raise ValueError(f"method {self.name!r} gave NaN scores for {name}")
        return score


def make_options(method="wanda", sparsity=0.5, pattern=None, group=None, update=None, propagate="pruned"):
    """Check the arguments of `wanda.prune` that say how to prune a layer. Returns `Options`.

    Raises: ValueError or TypeError saying what was given and what is allowed.
    """
    if not callable(method) and method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))} or a score function; got {method!r}")
    if not callable(update) and update not in (None, *UPDATES):
        raise ValueError(f"update must be None, {', '.join(map(repr, UPDATES))} or a function; got {update!r}")
    if callable(update) and method == "sparsegpt":
        raise ValueError("method='sparsegpt' has an update of its own; give yours to method='wanda' or another score")
    if propagate not in ("pruned", "dense"):
        raise ValueError(f"propagate must be 'pruned' or 'dense', got {propagate!r}")
    if pattern is not None:
        parse_pattern(pattern)
    if update == "obs-iterative" and callable(method):
        raise ValueError(
            "update='obs-iterative' scores a few columns at a time, but a score function may depend on whole rows; "
            "use update='obs' with your own function"
        )
    if method == "admm" and update is not None:
        raise ValueError(f"method='admm' solves for the kept weights itself, so update={update!r} does not apply")
    if method in ("sparsegpt", "admm"):
        update = {"sparsegpt": "obs", "admm": "admm"}[method]
    if update is not None and propagate == "dense":
        raise ValueError("propagate='dense' is for score methods; SparseGPT, ADMM and updates need propagate='pruned'")
    if method == "sparsegpt" and group is not None:
        raise ValueError(
            f"method='sparsegpt' compares weights within blocks of columns, so group={group!r} does not apply; "
            "for another group with the same repair, use method='wanda', update='obs'"
        )
    score = method if callable(method) else SCORES.get(method)
    usual = "layer" if score is magnitude and pattern is None else "output"
    if group is not None:
        check_group(group, pattern)
    name = _name(method) if callable(method) else method
    amount = pattern or (f"{sparsity:.0%}" if isinstance(sparsity, (int, float)) else "per layer")
    description = f"{name} {amount}"
    if group not in (None, usual):
        description += f", group {group}"
    if update is not None and method not in ("sparsegpt", "admm"):
        description += f", with {_name(update) if callable(update) else UPDATES[update]}"
    return Options(
        name=name,
        score=score,
        sparsity=sparsity,
        pattern=pattern,
        group=group or usual,
        update=update,
        propagate=propagate,
        description=description,
    )


def _name(function):
    """What to call a user's function in messages."""
    function = getattr(function, "func", function)  # of a functools.partial
    return getattr(function, "__name__", type(function).__name__)


def resolve_sparsity(names, sparsity, pattern=None):
    """The sparsity of each layer. Returns a dict name -> float.

    Args:
        names: names of the layers to prune.
        sparsity: a number, a dict from names or patterns (see `matches`) to numbers, or a function of the name.
        pattern: None, or "N:M", which sets the sparsity itself; `sparsity` must then agree, or be 0.5, the default.

    Raises: ValueError or TypeError naming the layer or the key.
    """
    per_layer = isinstance(sparsity, dict) or callable(sparsity)
    if not per_layer:
        check_sparsity(sparsity)
        if pattern is not None:
            keep, size = parse_pattern(pattern)
            if sparsity not in (0.5, 1 - keep / size):
                raise ValueError(
                    f"pattern {pattern!r} sets the sparsity to {1 - keep / size:g}; got sparsity={sparsity!r}"
                )
        return dict.fromkeys(names, sparsity)
    if pattern is not None:
        raise ValueError(
            f"pattern {pattern!r} sets the sparsity of every layer; it cannot be combined with one per layer"
        )
    if callable(sparsity):
        resolved = {name: sparsity(name) for name in names}
    else:
        resolved, used = {}, set()
        for key in sparsity:
            if not isinstance(key, str):
                raise TypeError(f"the keys of sparsity must be layer names or patterns, got {key!r}")
            matched = [name for name in names if matches(name, key)]
            if not matched:
                raise ValueError(
                    f"sparsity has a key {key!r} that matches no layer; layer names look like {names[0]!r}"
                )
            if set(matched) <= used:
                raise ValueError(f"sparsity has a key {key!r} without effect: earlier keys match all its layers")
            resolved = dict.fromkeys(matched, sparsity[key]) | resolved
            used.update(matched)
        for name in names:
            if name not in resolved:
                raise ValueError(f"sparsity has no entry for {name!r}; add one, or '*' for all others")
    for name, value in resolved.items():
        check_sparsity(value, f"sparsity of {name}")
    return resolved
