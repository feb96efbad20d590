"""What was measured before, from results/*.json: the scripts in benchmarks/ write it, tables and figures read it here."""

import json

from ..assets import CHECKOUT, PACKAGE

USUAL_GROUPS = {"magnitude": "layer", "wanda": "output"}  # what `wanda.prune` does unless told otherwise


def file(name):
    """The path of results/NAME.json, in the checkout or, where the package is installed, inside it; it may not be there."""
    return (CHECKOUT or PACKAGE) / "results" / f"{name}.json"


def read(name):
    """The content of results/NAME.json. Raises: FileNotFoundError: there is no such file."""
    return json.loads(file(name).read_text(encoding="utf-8"))


def quality(**wanted):
    """The cells of results/quality.json: one model, pruned in one way, judged by one text.

    Args:
        wanted: values that a cell must have, such as text="wikipedia", method="wanda", pattern="2:4" or seed=0 (of the
            calibration windows; the cells of methods that see none have None). A tuple or a list: any of these.

    Returns: list of dicts in the order of the file; each has the keys `method`, `amount` ("50%", "2:4"; "" for dense),
        `sparsity`, `pattern`, `group`, `usual` (whether the group is the method's own), `seed`, `text`, `perplexity`,
        `losses` (mean loss per window; None in old rows), and where it comes from (`date`, `machine`, `versions`, `command`, `data_sha256`).
    """
    cells = [_described(cell) for cell in read("quality")["cells"]]
    return [cell for cell in cells if all(_fits(cell[name], value) for name, value in wanted.items())]


def one(**wanted):
    """The one cell with these values, as in `quality`. Raises ValueError if there is none, or more than one."""
    found = quality(**wanted)
    if len(found) != 1:
        raise ValueError(f"{len(found)} cells of results/quality.json have {wanted}; one is wanted")
    return found[0]


def _described(cell):
    amount = "" if cell["method"] == "dense" else cell["pattern"] or f"{cell['sparsity']:.0%}"
    seed = cell["calibration"] and cell["calibration"]["seed"]
    usual = cell["group"] in (None, USUAL_GROUPS.get(cell["method"]))
    return {"losses": None, **cell, "amount": amount, "seed": seed, "usual": usual}


def _fits(value, wanted):
    return value in wanted if isinstance(wanted, (tuple, list)) else value == wanted
