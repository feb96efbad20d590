"""Claims: a notebook's statements about its measurements, compared with the reader's run without stopping it.

An `assert` is for what holds on every machine: shapes, counts, formulas. A measured value depends on the processor, so
the notebook claims it with a band:

    claim = claims.under("06", globals())  # once, after the parameters
    claim("06.3", ratio, 1.8, 2.4, "SparseGPT beats Wanda at 2:4")
    claim.summary()  # at the end

Bands cover replicates measured under several kernels and thread counts (`benchmarks/processors.py`). The replicates,
the value that the committed notebook shows and the parameters of its run are recorded in results/claims.json.
"""

import json
import math
import os

from . import results

RECORD = "WANDA_CLAIMS"  # environment variable: the file to which each claim is appended as a line of JSON


class ClaimError(AssertionError):
    """A measured value lies outside its band, and WANDA_STRICT is set."""


def under(notebook, namespace):
    """Return the function `claim(key, value, low, high, text)` for one notebook; see `Claims`.

    Args:
        notebook: its number, such as "06".
        namespace: dict with its parameters: the notebook's `globals()`.
    """
    recorded = results.load("claims") if results.file("claims").exists() else {}
    return Claims(notebook, namespace, recorded.get(notebook, {}))


class Claims:
    """Compares measured values with their bands.

    Args:
        notebook, namespace: as for `under`.
        recorded: this notebook's part of results/claims.json: "parameters" and "claims". Values measured with other
            parameters are shown but not compared.
    """

    def __init__(self, notebook, namespace, recorded):
        self.notebook, self.recorded = notebook, recorded.get("claims", {})
        committed = recorded.get("parameters")
        self.changed = [name for name, value in (committed or {}).items() if namespace.get(name) != value]
        self.compares = committed is not None and not self.changed
        self.held, self.differing = [], []

    def __call__(self, key, value, low, high, text):
        """Compare a value with the band from `low` to `high` (None: open on that side) and print one line.

        Args:
            key: the notebook's number and the claim's name, such as "06.3"; unique.
            value: a number.
            text: the claim, as a sentence without a full stop.

        Raises:
            ValueError: the key is not new or not this notebook's.
            ClaimError: the value is outside the band, under WANDA_STRICT=1 and the committed parameters.
        """
        if not key.startswith(f"{self.notebook}.") or key in self.held or key in self.differing:
            raise ValueError(f"claim {key!r}: the key must be new and start with '{self.notebook}.'")
        value = float(value)
        holds = (low is None or low <= value) and (high is None or value <= high) and not math.isnan(value)
        (self.held if holds else self.differing).append(key)
        _append({"key": key, "value": value, "low": low, "high": high, "text": text, "compared": self.compares})
        found = self.recorded.get(key, {}).get("value")
        if not self.compares:
            theirs = "" if found is None else f"; in the text {short(found)}, with other parameters"
            print(f"{key}  here {short(value)}{theirs}: {text}")
            return
        if holds:
            print(f"{key}  as in the text: {text}")
            return
        theirs = "" if found is None else f" {short(found)},"
        message = f"{short(value)}; the authors found{theirs} {band(low, high)}"
        if results.is_strict():
            raise ClaimError(f"{key}: {message}: {text}")
        print(f"{key}  differs here: {message}; the text describes theirs: {text}")

    def summary(self):
        """Print how many claims agree with the text, and which differ."""
        total = len(self.held) + len(self.differing)
        if not self.compares:
            reason = f"{', '.join(self.changed)} differ from the text's" if self.changed else "nothing is recorded"
            print(f"{total} claims not compared: {reason}")
        elif self.differing:
            print(f"{len(self.held)} of {total} claims as in the text; different here: {', '.join(self.differing)}")
        else:
            print(f"all {total} claims as in the text")


def band(low, high):
    """A band as words, such as 'between 1.8 and 2.4'."""
    if low is None:
        return "any number" if high is None else f"at most {short(high)}"
    return f"at least {short(low)}" if high is None else f"between {short(low)} and {short(high)}"


def short(value):
    """A number with three significant digits, such as '2.08' or '1,770'."""
    return f"{float(f'{value:.3g}'):,.6g}"


def _append(line):
    if os.environ.get(RECORD):
        with open(os.environ[RECORD], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
