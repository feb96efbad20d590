"""results/claims.json: the parameters, values and replicates of each notebook's claims.

A notebook executed in place records its parameters and values; runs under other kernels and thread counts
(`benchmarks/processors.py`) add replicates. `wanda_course.claims` compares a reader's run with this file.
"""

import ast
import json
from pathlib import Path

import nbformat
from filelock import FileLock

from wanda.sources.download import replacing

from . import fingerprint, results


def parameters(notebook):
    """A notebook's own parameters: dict from names to values. notebook: its path."""
    cells = nbformat.read(notebook, as_version=4).cells
    (source,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(source).body}


def number(notebook):
    """The number of a notebook, such as "06"."""
    return Path(notebook).stem.partition("_")[0]


def announce(notebook):
    """Record a notebook's parameters before it is executed in place. Changed parameters discard its recorded claims."""

    def change(record):
        if record.get("parameters") != parameters(notebook):
            record.clear()
        record["parameters"] = parameters(notebook)

    _change(notebook, change)


def keep(notebook, lines):
    """Record the claims of a notebook executed in place. Replicates under the same numerics stay with their claims.

    Args:
        lines: dicts as `wanda_course.claims` appends them to the file named by WANDA_CLAIMS.
    """
    prints = {method: fingerprint.of(method) for method in fingerprint.METHODS}

    def change(record):
        before = record.get("claims", {})
        same = all(fingerprint.same(record.get("fingerprint", {}).get(name), prints[name]) for name in prints)
        replicates = {key: claim.get("replicates", {}) for key, claim in before.items() if same}
        record["fingerprint"] = prints
        record["claims"] = {
            line["key"]: {
                **{name: line[name] for name in ("text", "low", "high")},
                "value": _rounded(line["value"]),
                "replicates": replicates.get(line["key"], {}),
            }
            for line in lines
        }

    _change(notebook, change)


def add(notebook, setting, lines):
    """Add the values of a run under other kernels or threads to the recorded claims.

    Args:
        setting: its name, such as "avx2, 1 thread".
    """

    def change(record):
        for line in lines:
            if line["key"] in record["claims"]:
                record["claims"][line["key"]]["replicates"][setting] = _rounded(line["value"])

    _change(notebook, change)


def outside(content):
    """The recorded values and replicates that lie outside their claim's band: list of (key, setting, value).

    Args:
        content: of results/claims.json.
    """
    found = []
    for record in content.values():
        for key, claim in record.get("claims", {}).items():
            for setting, value in {"in the text": claim["value"], **claim["replicates"]}.items():
                low, high = claim["low"], claim["high"]
                if not ((low is None or low <= value) and (high is None or value <= high)):
                    found.append((key, setting, value))
    return found


def _change(notebook, change):
    path = results.file("claims")
    with FileLock(f"{path}.lock"):
        content = results.load("claims") if path.exists() else {}
        change(content.setdefault(number(notebook), {}))
        with replacing(path) as partial:
            text = json.dumps(dict(sorted(content.items())), indent=1, ensure_ascii=False)
            partial.write_text(text + "\n", encoding="utf-8")


def _rounded(value):
    return float(f"{value:.5g}")
