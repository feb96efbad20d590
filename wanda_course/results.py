"""Recorded measurements, from results/*.json: the scripts in benchmarks/ write them, tables and figures read them."""

import json
import os
import re

from wanda.sources.download import CHECKOUT

from . import PACKAGE, fingerprint

STRICT = "WANDA_STRICT"  # environment variable: "1" makes deviations errors; all our checks set it
MEASURED = {
    "quality": "cells",
    "main_job": "rows",
    "speed": "rows",
    "peers": "rows",
    "memory": "rows",
    "sentences": "rows",
}  # file: its list
# The defaults of `wanda.prune`; SparseGPT has groups of its own.
USUAL_GROUPS = {"magnitude": "layer", "wanda": "output", "admm": "output", "swaps": "output"}


def folder():
    """The folder results/, in the checkout or else in the installed package."""
    return (CHECKOUT or PACKAGE) / "results"


def file(name):
    """The path of results/NAME.json; the file may not exist."""
    return folder() / f"{name}.json"


def is_strict():
    """Whether deviations raise, as in all checks of this repository, instead of being printed."""
    return os.environ.get(STRICT, "") == "1"


def load(name):
    """The unchecked content of results/NAME.json. Raises: FileNotFoundError: there is no such file."""
    return json.loads(file(name).read_text(encoding="utf-8"))


def read(name):
    """The content of results/NAME.json, to show or compare with.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: under WANDA_STRICT=1, it holds cells whose numerics have since changed.
    """
    content = load(name)
    if is_strict():
        old = stale(name, content)
        if old:
            raise ValueError(f"results/{name}.json: stale cells, measure them again (`make results`): {', '.join(old)}")
    return content


def stale(name, content):
    """The cells of a results file whose fingerprint differs from the current numerics: list of descriptions.

    gpu.json and speed24.json hold GPU times, and no figure that depends on a method's numerics.
    """
    if name == "claims":
        found = [(number, record["fingerprint"]) for number, record in content.items() if "fingerprint" in record]
        return [
            f"the claims of notebook {number}"
            for number, prints in found
            if not all(fingerprint.same(prints.get(method), fingerprint.of(method)) for method in fingerprint.METHODS)
        ]
    cells = content[MEASURED[name]] if name in MEASURED else []
    return [
        _label(cell) for cell in cells if not fingerprint.same(cell.get("fingerprint"), fingerprint.of(_method(cell)))
    ]


def quality(**wanted):
    """The cells of results/quality.json: one model, pruned one way, evaluated on one text.

    Args:
        wanted: values that a cell must have, such as text="wikipedia", method="wanda", pattern="2:4" or seed=0 (of the
            calibration windows; None for methods that use none). A tuple or a list matches any of its values.

    Returns: list of dicts in the order of the file; each has the keys `method`, `amount` ("50%", "2:4"; "" for dense),
        `sparsity`, `pattern`, `group`, `usual` (whether the group is the method's own), `seed`, `text`, `perplexity`,
        `losses` (mean loss per window; None in old rows), and its provenance (`date`, `machine`, `versions`, `command`,
        `data_sha256`).
    """
    cells = [_described(cell) for cell in read("quality")["cells"]]
    return [cell for cell in cells if all(_fits(cell[name], value) for name, value in wanted.items())]


def one(**wanted):
    """The one cell with these values, as in `quality`. Raises ValueError if there is none, or more than one."""
    found = quality(**wanted)
    if len(found) != 1:
        raise ValueError(f"{len(found)} cells of results/quality.json have {wanted}; expected one")
    return found[0]


def _method(cell):
    """The method of a cell; a timing row names a run ("wanda 2:4"), which starts with the method."""
    return cell.get("method") or re.match(r"\w+", cell.get("run") or cell["way"])[0]


def _label(cell):
    named = cell.get("row") or cell.get("run") or cell.get("way")
    amount = cell.get("pattern") or cell.get("sparsity") or ""
    return named or f"{cell['method']} {amount} {cell.get('text', '')}".strip()


def _described(cell):
    amount = "" if cell["method"] == "dense" else cell["pattern"] or f"{cell['sparsity']:.0%}"
    seed = cell["calibration"] and cell["calibration"]["seed"]
    usual = cell["group"] in (None, USUAL_GROUPS.get(cell["method"]))
    return {"losses": None, **cell, "amount": amount, "seed": seed, "usual": usual}


def _fits(value, wanted):
    return value in wanted if isinstance(wanted, (tuple, list)) else value == wanted
