"""Judge the entries of the leaderboard, and draw docs/leaderboard.md.

    python -m benchmarks.leaderboard                                # every missing or outdated judgement (hours)
    python -m benchmarks.leaderboard --tracks smollm2-50-mask --minutes 30      # start no judgement after half an hour
    python -m benchmarks.leaderboard --draw                         # the page alone
    python -m benchmarks.leaderboard --again results/leaderboard/smollm2-50-mask/ria.json       # does it reproduce?

Entries are the files in benchmarks/entries/; judgements are final, and stand in results/leaderboard/TRACK/NAME.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from wanda_course import fingerprint, judging, leaderboard, results, standings
from wanda_course.tracks import AMOUNTS, MODELS, TRACKS, VERSION

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = ROOT / "benchmarks" / "entries"
PAGE = ROOT / "docs" / "leaderboard.md"
FIRST = "wanda.py"  # the baseline
BY_MASK = (
    "magnitude",
    "ria",
    "scarce_readers",
    "gblm",
    "wanda_plus_plus",
    "owl",
    "dsnot",
    "sparsegpt",
    "admm",
    "alps",
    "swaps",
)
BY_UPDATE = ("wanda_obs", "sparsegpt", "admm", "alps")
WITHOUT_PATTERN = {"owl", "dsnot"}  # these set sparsities or masks of their own
APART = 0.05  # most that a perplexity may differ on another processor: SparseGPT's at 2:4 does by up to 4 %
HEAD = """# Leaderboard

One-shot pruning methods under the same rules. The entries are the files in `benchmarks/entries/`; this page is drawn from their
judgements in `results/leaderboard/`.

## The rules

A track, such as `smollm2-50-mask`, fixes the model, how much is pruned ({amounts}), and whether the kept weights may
change (`mask`, `update`). `wanda-judge --help` lists all.

- **mask**: only the places of the zeros count. All other weights are the dense model's.
- **update**: the kept weights may change. Embeddings, norms and the head may not.
- **Data**: {sets} sets of {samples} calibration windows of {length} tokens of {calibration}; seeds 0, 1, 2. Without a pattern,
  the sparsity holds for the model as a whole.
- **Two texts**: {windows} windows of {window:,} tokens each, from {evaluation}. The open one is read at every try. The held-out
  one is read in a final judgement only, and "finals" counts how often that was done for an entry, which goes by its `NAME`.
- **Perplexity**: mean over the sets; in brackets, the lowest and the highest.
- **Ratio**: perplexity over Wanda's on the held-out text, a geometric mean over the sets; in brackets, where 95 % of it lies when
  sets and windows are drawn again. If the interval holds 1.00, call the two level.
- **Passes**: time to prune, in dense forward passes over the calibration windows, on the machine that judged; the mean over the
  sets.

The default model's weights were quantised to 4 bits and are dequantised; see the [README](../README.md).

## Enter

Write a file with a name and one function, and try it on the open text:

```python
NAME = "Root of the norm"


def score(weight, input_norm):  # [out, in], [in] -> [out, in]; the smallest are pruned
    return weight.abs() * input_norm**0.5
```

```sh
wanda-judge my_entry.py --track smollm2-50-mask
```

(In the environment: `source .venv/bin/activate`.) A try takes about as long as three runs of `wanda.prune` and four evaluations,
some minutes on two cores, and a final judgement four evaluations more. It prints Wanda's figures, a line per set and the result,
and writes `my_entries/TRACK/NAME.json`. The scores of a row (an output) are compared with each other; with a pattern, those
within each group of inputs.

Instead of `score`, the file may define `prepare(model, calibration, rules)`, which returns options for `wanda.prune` (`method`, and
if you like `group` ("output" or "layer"), `sparsity`, `update`, `propagate`), or `prune(model, calibration, rules)`, which prunes
the model itself. `rules.sparsity` is the track's, `rules.pattern` is None or such as "2:4", and `rules.amount` is the one of
them that `wanda.prune` takes; an uneven sparsity must come to the track's within 0.1 percentage points. The files in `benchmarks/entries/` are examples. What may be used is the model and the calibration windows.
An entry is refused if a search finds that it can reach an evaluation text ([11](../notebooks/11_your_own_metric.ipynb) shows what
the search finds, and what it does not).

When it is done, copy it to `benchmarks/entries/` under a name of its own, judge it once on both texts, and draw the page. A pull
request holds the file, the JSON that this writes, the page, the file's name in `BY_MASK` or `BY_UPDATE` of
`benchmarks/leaderboard.py`, and a test of its formula ([CONTRIBUTING.md](../CONTRIBUTING.md)):

```sh
wanda-judge benchmarks/entries/root_of_the_norm.py --track smollm2-50-mask --final --out results/leaderboard
python -m benchmarks.leaderboard --draw
```

The workflow judges it again: perplexities must agree within {apart:.0%}; time does not count.

Models from the hub have tracks too, under the papers' usual protocol (C4, WikiText-2, zero-shot tasks), for machines that reach
it: {hub}.
"""


def plan():
    """The judgements of this repository: list of (track, entry's file), the baseline of each track first."""
    found = []
    for amount, choice in AMOUNTS.items():
        for way, names in (("mask", BY_MASK), ("update", BY_UPDATE)):
            fits = [name for name in names if "pattern" not in choice or name not in WITHOUT_PATTERN]
            found += [(f"smollm2-{amount}-{way}", ENTRIES / file) for file in (FIRST, *(f"{name}.py" for name in fits))]
    return found


def folder(track):
    """Where the final judgements of a track stand."""
    return results.folder() / judging.FOLDER / track


def is_current(entry, path):
    """Whether a recorded judgement is of this very file, these rules and the current numerics."""
    return entry["source"] == path.read_text(encoding="utf-8") and not outdated(entry)


def outdated(entry):
    """Whether a recorded judgement is of another version of its track, or of numerics that have changed."""
    prints = entry["fingerprint"]
    return entry["version"] != VERSION or not all(
        fingerprint.same(prints[method], fingerprint.of(method)) for method in prints
    )


def run(wanted, minutes=None):
    """Judge what is missing or outdated. Returns how many judgements remain.

    Args:
        wanted: list of (track, path of an entry). minutes: start none after so many; None: no limit.
    """
    began, bench, missing = time.monotonic(), None, []
    for track, path in wanted:
        entry = judging.load(path)
        before = judging.recorded(track, entry.name)
        if before is None or not is_current(before, path):
            missing.append((track, entry, before or {}))
    for done, (track, entry, before) in enumerate(missing):
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            return len(missing) - done
        if bench is None or bench.rules != TRACKS[track]:
            bench = leaderboard.set_up(TRACKS[track])
        judged = judging.judge(entry, track, bench) | {"finals": before.get("finals", 0) + 1}
        standings.write(judged, folder(track))
        print(judging.summary(judged, judging.recorded(track)), flush=True)
    return 0


def again(file):
    """Judge a recorded entry again, from the source in its file. Returns a sentence per perplexity that differs."""
    recorded = json.loads(file.read_text(encoding="utf-8"))
    path = ENTRIES / recorded["file"]
    if not path.exists() or path.read_text(encoding="utf-8") != recorded["source"]:
        return [f"{file.name}: its source is not that of benchmarks/entries/{recorded['file']}"]
    judged = judging.judge(judging.load(path), recorded["track"], leaderboard.set_up(TRACKS[recorded["track"]]))
    print(judging.summary(judged, judging.recorded(recorded["track"])))
    return [
        f"{recorded['name']}, {text}, set {number}: perplexity {value:.5g}, recorded {before:.5g}"
        for text, values in recorded["perplexity"].items()
        for number, (before, value) in enumerate(zip(values, judged["perplexity"][text], strict=True))
        if abs(value / before - 1) > APART
    ]


def page():
    """The content of docs/leaderboard.md."""
    rules = TRACKS["smollm2-50-mask"]
    hub = ", ".join(f"`{model}-…`" for model in MODELS if model != "smollm2")
    parts = [HEAD.format(**vars(rules), hub=hub, amounts=", ".join(f"`{name}`" for name in AMOUNTS), apart=APART)]
    for track in TRACKS:
        entries = standings.read(folder(track))
        if entries:
            parts.append(f"## {track}\n\n{_table(entries)}\n")
            judged = {entry["file"] for entry in entries}
            waiting = [path.stem for of, path in plan() if of == track and path.name not in judged]
            if waiting:
                parts.append(f"Not judged yet: {', '.join(waiting)}.\n")
    return "\n".join(parts)


def _table(entries):
    """One track, best on the held-out text first."""
    (baseline,) = (entry for entry in entries if entry["name"] == judging.BASELINE)
    lines = ["| entry | held-out | ratio to Wanda | open | passes | finals |", "|---" * 6 + "|"]
    ratios = {entry["name"]: standings.against(entry, baseline)["held_out"] for entry in entries}
    for entry in sorted(entries, key=lambda entry: ratios[entry["name"]]):
        low, high = standings.interval(entry, baseline, "held_out")
        ratio = f"{ratios[entry['name']]:.3f} ({low:.3f} to {high:.3f})" if entry is not baseline else "1"
        held_out, opened = (_mean(entry["perplexity"][text]) for text in ("held_out", "open"))
        source = f"[{entry['name']}](../benchmarks/entries/{entry['file']})"
        forwards = f"{sum(entry['forwards']) / len(entry['forwards']):.1f}"
        lines.append(f"| {source} | {held_out} | {ratio} | {opened} | {forwards} | {entry['finals']} |")
    dense = baseline["dense"]
    lines.append(f"| dense | {dense['held_out']:.1f} | | {dense['open']:.1f} | | |")
    return "\n".join(lines)


def _mean(values):
    """Mean and range over the sets of calibration windows."""
    return f"{sum(values) / len(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"


def main(arguments=None):
    """Run the command line. Returns the exit status: 1 if a judgement was not reproduced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", nargs="+", choices=TRACKS, metavar="TRACK", help="some tracks only")
    parser.add_argument("--minutes", type=float, help="start no judgement after this many minutes")
    parser.add_argument("--draw", action="store_true", help="judge nothing, draw the page")
    parser.add_argument("--again", nargs="+", type=Path, metavar="FILE", help="judge these again, and compare")
    options = parser.parse_args(arguments)
    if options.again:
        differences = [sentence for file in options.again for sentence in again(file)]
        print(*differences, sep="\n")
        return int(bool(differences))
    if not options.draw:
        wanted = [(track, path) for track, path in plan() if options.tracks is None or track in options.tracks]
        left = run(wanted, options.minutes)
        print(f"{left} judgements left" + ("; run again to continue" if left else ""))
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written to {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
