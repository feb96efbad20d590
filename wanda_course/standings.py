"""Leaderboard entries: compared pair by pair, tabulated, and kept as files.

An entry is what `leaderboard.judge` returns, written as one JSON file. To share one, send the file: in another folder it
appears in the table if it was judged under the same rules, on the same texts. It holds the entry's source, so that anyone
who doubts a number can measure it again.
"""

import json
import math
import re
from pathlib import Path

import pandas
import torch

DRAWS = 2000  # of the bootstrap
COVERED = 0.95  # of its draws lie inside the interval


def comparable(entry, other):
    """Whether two entries were judged under the same rules, on the same calibration windows and texts.

    An entry that was not judged on the held-out text can still be compared on the open one.
    """
    ours, theirs = (one["provenance"]["data_sha256"] for one in (entry, other))
    same = all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())
    return entry["rules"] == other["rules"] and "open" in ours and "open" in theirs and same


def against(entry, baseline):
    """Compare an entry with another under the same rules, pair by pair: same calibration windows, same text.

    Returns: dict of open and, if both were judged on it, held_out (the geometric mean of the perplexity ratios: below 1
        is better than the baseline), gap (held_out over open: above 1, the entry does better on the open text), wins (the
        pairs with a lower perplexity than the baseline) and pairs (their total).

    Raises: ValueError: the two were judged under different rules or on different texts.
    """
    if not comparable(entry, baseline):
        raise ValueError(
            f"{entry['name']!r} and {baseline['name']!r} were judged under different rules or on other texts"
        )
    ratios = {
        text: torch.tensor(values) / torch.tensor(baseline["perplexity"][text])
        for text, values in entry["perplexity"].items()
        if text in baseline["perplexity"]
    }
    found = {text: math.exp(values.log().mean()) for text, values in ratios.items()}
    if "held_out" in found:
        found["gap"] = found["held_out"] / found["open"]
    every = torch.cat(list(ratios.values()))
    return found | {"wins": int((every < 1).sum()), "pairs": len(every)}


def interval(entry, baseline, text):
    """How far the ratio to a baseline on a text may be luck: (low, high), by a bootstrap of sets and windows.

    Both are drawn again with replacement, the same ones for both entries; 95 % of the ratios lie in the interval. All
    windows of a text predict the same number of tokens.
    """
    ours, theirs = (torch.tensor(one["losses"][text], dtype=torch.float64) for one in (entry, baseline))
    apart = ours - theirs  # [sets, windows], of the logarithms
    generator = torch.Generator().manual_seed(0)
    sets, windows = (torch.randint(size, (DRAWS, size), generator=generator) for size in apart.shape)
    means = apart[sets[:, :, None], windows[:, None]].mean(dim=(1, 2))  # [draws]
    ends = torch.tensor([(1 - COVERED) / 2, (1 + COVERED) / 2], dtype=torch.float64)
    return tuple(means.quantile(ends).exp().tolist())


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
    file = folder / f"{_slug(entry['name'])}.json"
    file.write_text(json.dumps(entry, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return file


def _slug(name):
    """The name of an entry's file, without .json."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def read(folder, baseline=None):
    """The entries in a folder, or those that can be compared with a baseline: dicts, in order of their file names."""
    entries = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(Path(folder).glob("*.json"))]
    return [entry for entry in entries if baseline is None or comparable(entry, baseline)]
