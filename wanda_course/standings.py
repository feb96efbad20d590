"""Leaderboard entries: compared pair by pair, tabulated, and kept as files.

An entry is what `leaderboard.judge` returns, written as one JSON file to the learner's folder. To share one, send the
file: in another learner's folder it appears in their table if it was judged under the same rules, on the same texts. It
holds the metric's source, so that anyone who doubts a number can measure it again.
"""

import json
import math
import re
from pathlib import Path

import pandas
import torch


def _terms(entry):
    """What two entries must have in common to be compared."""
    return entry["rules"], entry["provenance"]["data_sha256"]


def against(entry, baseline):
    """Compare an entry with another under the same rules, pair by pair: same calibration windows, same text.

    Returns: dict of open and held_out (the geometric mean of the perplexity ratios: below 1 is better than the
        baseline), gap (held_out over open: above 1, the entry does better on the open text), wins (the pairs with a
        lower perplexity than the baseline) and pairs (their total).

    Raises: ValueError: the two were judged under different rules or on different texts.
    """
    if _terms(entry) != _terms(baseline):
        raise ValueError(
            f"{entry['name']!r} and {baseline['name']!r} were judged under different rules or on other texts"
        )
    ratios = {
        text: torch.tensor(values) / torch.tensor(baseline["perplexity"][text])
        for text, values in entry["perplexity"].items()
    }
    found = {text: math.exp(values.log().mean()) for text, values in ratios.items()}
    every = torch.cat(list(ratios.values()))
    return found | {"gap": found["held_out"] / found["open"], "wins": int((every < 1).sum()), "pairs": len(every)}


def table(entries, baseline):
    """The leaderboard: a DataFrame, best on the held-out text first.

    Columns: the mean perplexity over the sets of windows on each text, its ratio to the baseline, and the pairs won.
    """
    rows = []
    for entry in entries:
        pairs = against(entry, baseline)
        row = {"metric": entry["name"]}
        for text, values in entry["perplexity"].items():
            row |= {text: sum(values) / len(values), f"{text} ratio": pairs[text]}
        rows.append(row | {"won": f"{pairs['wins']} of {pairs['pairs']}"})
    return pandas.DataFrame(rows).set_index("metric").sort_values("held_out")


def write(entry, folder):
    """Write an entry to a JSON file named after it, replacing an earlier one. Returns its path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{re.sub('[^a-z0-9]+', '-', entry['name'].lower()).strip('-')}.json"
    file.write_text(json.dumps(entry, indent=1, allow_nan=False), encoding="utf-8")
    return file


def read(folder, baseline):
    """The entries in a folder that can be compared with a baseline: a list of dicts, in order of their file names."""
    entries = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(Path(folder).glob("*.json"))]
    return [entry for entry in entries if _terms(entry) == _terms(baseline)]
