"""Entries of the leaderboard: compared pair by pair, in a table, and kept as files.

An entry is what `leaderboard.judge` returns. It is written to a folder of the learner's as one JSON file. To share one,
send the file: in another learner's folder it shows in their table if it was judged under the same rules, on the same
texts. It holds the metric's source, so that whoever doubts a number can measure it again.
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
    """An entry next to another one under the same rules, pair by pair: same calibration windows, same text.

    Returns: dict of open and held_out (the geometric mean of the ratios of perplexity: below 1 is better than the
        baseline), gap (held_out over open: above 1, the entry does better on the text that all can see), wins and
        pairs (how many of all pairs have the lower perplexity).

    Raises: ValueError: the two were judged under different rules, or on texts that are not the same.
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

    Columns: on each text the mean perplexity over the sets of windows, and the ratio to the baseline; won pairs.
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
    """Keep an entry as a JSON file named after it, in place of any before it. Returns its path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{re.sub('[^a-z0-9]+', '-', entry['name'].lower()).strip('-')}.json"
    file.write_text(json.dumps(entry, indent=1, allow_nan=False), encoding="utf-8")
    return file


def read(folder, baseline):
    """The entries in a folder that may be compared with a baseline: a list of dicts, in order of their file names."""
    entries = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(Path(folder).glob("*.json"))]
    return [entry for entry in entries if _terms(entry) == _terms(baseline)]
