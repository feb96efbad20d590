"""The report of a pruning run: sparsity, output error and seconds of each layer."""

import warnings
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LayerReport:
    """One pruned layer. `relative_error` is ||X (W - W')T|| / ||X WT|| for its inputs X in the first calibration window;
    None without any. `reached` is False if the method needs inputs and the layer had none: it is pruned by magnitude."""

    name: str
    shape: tuple
    sparsity: float
    relative_error: float | None
    seconds: float
    reached: bool = True


@dataclass
class PruneReport:
    """The result of `wanda.prune`.

    Attributes:
        method: description of method and options.
        layers: list of `LayerReport`, in the order of pruning.
        phases: dict of seconds per phase: capture (the first block's inputs), statistics (a forward pass of each dense
            block), select (masks and updates), recompute (a forward pass of each pruned block); for `prune_checkpoint`
            also read (waiting for weights) and write.
        seconds: of the whole run.
        parameters: number of parameters of the whole model, embeddings included.
    """

    method: str
    layers: list = field(default_factory=list)
    phases: dict = field(default_factory=dict)
    seconds: float = 0.0
    parameters: int = 0

    @property
    def sparsity(self):
        """Fraction of exact zeros among the weights of the pruned layers."""
        return self._zeros() / sum(layer.shape[0] * layer.shape[1] for layer in self.layers)

    @property
    def model_sparsity(self):
        """Zeros in the pruned layers as a fraction of all the model's parameters."""
        return self._zeros() / self.parameters

    def _zeros(self):
        return sum(layer.sparsity * layer.shape[0] * layer.shape[1] for layer in self.layers)

    def to_frame(self):
        """A pandas DataFrame with a row per layer; it has a column "reached" only if a layer was not."""
        import pandas

        frame = pandas.DataFrame([vars(layer) for layer in self.layers]).set_index("name")
        return frame.drop(columns="reached") if frame["reached"].all() else frame

    def warn_of_unreached(self):
        """Warn, once, if layers had no inputs in the calibration data."""
        names = [layer.name for layer in self.layers if not layer.reached]
        if names:
            warnings.warn(
                f"{len(names)} of {len(self.layers)} layers received no calibration tokens (experts that none was routed "
                "to? weights that are used without calling their layer?) and were pruned by magnitude: "
                f"{', '.join(names[:3])}{', ...' * (len(names) > 3)}",
                stacklevel=3,
            )

    def __str__(self):
        phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.phases.items())
        return (
            f"{self.method}: {self.sparsity:.2%} of the weights in {len(self.layers)} layers are zero, "
            f"{self.model_sparsity:.2%} of the model ({self.seconds:.1f} s: {phases})"
        )

    __repr__ = __str__

    def _repr_html_(self):
        """For notebooks: the summary, and the layers grouped by their role in a block."""
        frame = self.to_frame()
        frame["role"] = frame.index.str.rsplit(".", n=1).str[-1]
        columns = {"sparsity": "mean", "relative_error": "mean", "seconds": "sum"}
        table = frame.astype({"relative_error": float}).groupby("role", sort=False).agg(columns)
        table.insert(0, "layers", frame.groupby("role", sort=False).size())
        return f"<p>{self}</p>" + table.to_html(float_format="{:.3f}".format, na_rep="")
