"""Measure perplexity after pruning, cell by cell, into results/quality.json.

    python -m benchmarks.quality                              # every missing cell
    python -m benchmarks.quality --only methods --minutes 5   # of one part; start no cell after five minutes

A cell is one way to prune, evaluated on one text; it is written when it is finished, with the date, the machine, the
versions, the command, hashes of its data and the fingerprint of its method's numerics. Interrupt at any time: a
finished cell is measured again only if its setting, its data or its fingerprint has changed. Several processes may
share a file, each with its own parts.

WikiText-2 comes from the hub, or from wikitext-2-raw/wiki.test.raw in $WANDA_DATA or data/local.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

import wanda
from wanda.sources.download import replacing
from wanda.tools.compare import restoring
from wanda.tools.perplexity import over_windows, window_losses
from wanda.tools.provenance import provenance
from wanda_course import fingerprint, protocol, swaps
from wanda_course.results import USUAL_GROUPS

METHODS = ("magnitude", "wanda", "sparsegpt")
OUT = Path(__file__).resolve().parent.parent / "results" / "quality.json"
LENGTH = protocol.EVALUATION["length"]  # tokens per window
TEXTS = {"wikipedia": protocol.EVALUATION["windows"], "wikitext2": None}  # windows of each; None: the whole text
DECIMALS = 5  # of the losses: finer than two machines agree


def setting(method, sparsity=None, pattern=None, *, group=None, seed=0, text="wikipedia", model="smollm2"):
    """A cell's setting in canonical form: options without effect are None, and defaults are written out."""
    dense = method == "dense"
    calibration = protocol.CALIBRATION | {"seed": seed}
    return {
        "model": model,
        "dtype": "float32",
        "text": text,
        "windows": TEXTS[text],
        "length": LENGTH,
        "method": method,
        "sparsity": None if dense or pattern else sparsity,
        "pattern": pattern,
        "group": None if dense or pattern else group or USUAL_GROUPS.get(method),
        "calibration": calibration if method not in ("dense", "magnitude") else None,
    }


def plan():
    """The cells to measure: dict from the name of a part to its settings. A setting may belong to several parts."""
    half, patterns = {"sparsity": 0.5}, [{"pattern": pattern} for pattern in ("4:8", "2:4")]
    amounts = [half, *patterns]
    sweep = [{"sparsity": sparsity} for sparsity in (0.5, 0.6, 0.7, 0.4, 0.3, 0.8, 0.2, 0.1)]  # the most telling first
    return {
        "methods": [setting("dense"), *(setting(method, **amount) for amount, method in product(amounts, METHODS))],
        "sweep": [setting(method, **amount) for amount, method in product(sweep, METHODS)],
        "groups": [
            setting(method, 0.5, group=group)
            for group, method in product(("output", "layer", "input"), ("magnitude", "wanda"))
        ],
        "seeds": [
            setting(method, **amount, seed=seed)
            for seed, amount, method in product((0, 1, 2), amounts, ("wanda", "sparsegpt"))
        ],
        "after": [  # of notebook 12, After Wanda
            setting(method, **amount, seed=seed)
            for method, seed, amount in product(
                ("admm", "wanda", "sparsegpt", "swaps"), (0, 1, 2), (half, {"pattern": "2:4"}, {"sparsity": 0.7})
            )
        ],
        "wikitext2": [
            setting("dense", text="wikitext2"),
            *(setting(method, **amount, text="wikitext2") for amount, method in product(amounts, METHODS)),
        ],
    }


class Bench:
    """One model with its evaluation and calibration texts, each read once."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer, self.texts, self.windows = model, tokenizer, {}, {}

    def data(self, cell):
        """A cell's tokens: dict with evaluation [n] and, if the method uses data, calibration."""
        if cell["text"] not in self.texts:
            self.texts[cell["text"]] = wanda.eval_tokens(self.tokenizer, cell["text"])
        tokens = self.texts[cell["text"]]
        found = {"evaluation": tokens if cell["windows"] is None else tokens[: cell["windows"] * cell["length"]]}
        if cell["calibration"]:
            key = tuple(cell["calibration"].values())
            if key not in self.windows:
                self.windows[key] = wanda.calibration_set(self.tokenizer, **cell["calibration"])
            found["calibration"] = self.windows[key]
        return found

    def measure(self, cell, data, progress=True):
        """Prune, evaluate, restore. Returns a dict: zeros (their fraction), perplexity, losses (mean per window)."""
        options = swaps.options(cell["method"], cell["pattern"]) | {"group": cell["group"]}
        zeros = 0.0
        with restoring(self.model):
            if cell["method"] != "dense":
                sparsity = 0.5 if cell["sparsity"] is None else cell["sparsity"]
                calibration = data.get("calibration")
                zeros = wanda.prune(self.model, calibration, sparsity=sparsity, progress=progress, **options).sparsity
            losses = window_losses(self.model, data["evaluation"], cell["length"], progress=progress)
        rounded = [round(loss / count, DECIMALS) for loss, count in losses]
        return {"zeros": zeros, "perplexity": over_windows(losses), "losses": rounded}


def read(path):
    """The cells measured so far."""
    return json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []


def write(path, cells):
    """Write the cells atomically, one per line."""
    lines = ",\n".join(json.dumps(cell) for cell in cells)
    with replacing(path) as partial:
        head = f'"smollm2": {json.dumps(protocol.MODEL)}'
        partial.write_text(f'{{{head}, "cells": [\n{lines}\n]}}\n', encoding="utf-8")


def place(cells, wanted):
    """The index of a setting's cell in a list of cells, or None."""
    found = (index for index, cell in enumerate(cells) if all(cell[name] == wanted[name] for name in wanted))
    return next(found, None)


def is_current(cell, about):
    """Whether a cell was measured on the current data and with the current numerics.

    Args:
        cell: from the file, or None. about: dict with the current `data_sha256` and `fingerprint`.
    """
    return (
        cell is not None
        and cell["data_sha256"] == about["data_sha256"]
        and fingerprint.same(cell.get("fingerprint"), about["fingerprint"])
    )


def run(bench, settings, path, minutes=None, progress=True):
    """Measure the settings that are missing or not current. Returns how many remain.

    Args:
        bench: a `Bench`. settings: list of dicts as from `setting`. path: of the JSON file.
        minutes: start no cell after this many; None: no limit.
    """
    began, cells, missing = time.monotonic(), read(path), []
    for wanted in settings:
        about = provenance(**bench.data(wanted)) | {"fingerprint": fingerprint.of(wanted["method"])}
        index = place(cells, wanted)
        if not is_current(None if index is None else cells[index], about):
            missing.append((wanted, about))
    bar = tqdm(missing, "cells", unit="cell", disable=not progress)
    for done, (wanted, about) in enumerate(bar):
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            return len(missing) - done
        result = bench.measure(wanted, bench.data(wanted), progress)
        cell = {**wanted, **result, **about}
        with FileLock(f"{path}.lock"):  # another process may measure other parts
            cells = read(path)
            index = place(cells, wanted)
            write(path, [*cells, cell] if index is None else [*cells[:index], cell, *cells[index + 1 :]])
        amount = wanted["pattern"] or wanted["sparsity"] or ""
        bar.write(f"{wanted['text']:>9} {wanted['method']:>9} {amount:>4}  {result['perplexity']:8.2f}")
    return 0


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=plan(), default=list(plan()), metavar="PART", help=", ".join(plan())
    )
    parser.add_argument("--minutes", type=float, help="start no cell after this many minutes")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    parts = plan()
    settings = [wanted for part in options.only for wanted in parts[part]]
    distinct = [wanted for index, wanted in enumerate(settings) if wanted not in settings[:index]]
    left = run(Bench(*wanda.load("smollm2")), distinct, options.out, options.minutes)
    print(f"{len(distinct) - left} of {len(distinct)} cells are measured" + ("; run again to continue" if left else ""))


if __name__ == "__main__":
    main()
