"""Judge an entry of the leaderboard: `wanda-judge entry.py --track smollm2-50-mask`.

An entry is a Python file with a name and one of three functions; everything else in it is its own:

    NAME = "My score"                                  # in the table
    def score(weight, input_norm): ...                 # [out, in], [in] -> score [out, in]: the smallest are pruned
    def prepare(model, calibration, rules): ...        # -> options for wanda.prune, such as {"method": ..., "update": ...}
    def prune(model, calibration, rules): ...          # prunes the model in place

`rules.amount` holds how much to prune, as arguments of `wanda.prune`. A mask track counts the zeros alone: the kept
weights are the dense model's. While you try ideas, only the open text is read. With --final the held-out text is read as
well, and the entry says how often that was done. Commit the file to benchmarks/entries/ and the JSON of the final
judgement to results/leaderboard/TRACK/, and the table in docs/leaderboard.md takes it in.
"""

import argparse
import difflib
import functools
import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

import torch

from . import leaderboard, results, standings
from .tracks import TRACKS, VERSION

BASELINE = "Wanda"
WAYS = ("score", "prepare", "prune")
FOLDER = "leaderboard"  # in results/


class Entry(NamedTuple):
    """An entry's file, imported. way: which of `WAYS` its function is."""

    path: Path
    name: str
    way: str
    function: object


def load(path):
    """Import an entry's file. Returns: `Entry`.

    Raises: ValueError: the file cannot be imported, or does not define a name and exactly one of the three functions.
    """
    specification = importlib.util.spec_from_file_location("entry", path)
    if specification is None:
        raise ValueError(f"{path} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["entry"] = module
    try:
        specification.loader.exec_module(module)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever the file's own code raises
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    ways = [way for way in WAYS if callable(getattr(module, way, None))]
    name = getattr(module, "NAME", None)
    if not isinstance(name, str) or not name.strip() or len(ways) != 1:
        raise ValueError(
            f"{path} must define NAME, a string, and exactly one of the functions {', '.join(WAYS)}; it defines "
            f"{', '.join(ways) or 'none of them'}" + (" and no NAME" if not isinstance(name, str) else "")
        )
    return Entry(Path(path), name.strip(), ways[0], getattr(module, ways[0]))


def judge(entry, track, bench, say=None):
    """Judge an `Entry` under a track, on a bench that `leaderboard.set_up` made for it. Returns the judgement.

    Beside what `leaderboard.judge` returns: track, version, file (its name), source (the whole file), sha256 (of it).
    """
    given = {"method": entry.function}
    if entry.way != "score":
        given = {entry.way: functools.partial(entry.function, rules=bench.rules)}
    judged = leaderboard.judge(entry.name, bench, **given, say=say)
    source, file = entry.path.read_text(encoding="utf-8"), entry.path.name
    digest = hashlib.sha256(source.encode()).hexdigest()
    final = " --final" * (leaderboard.TEXTS[-1] in bench.texts)
    judged["provenance"]["command"] = f"wanda-judge {file} --track {track}{final}"
    return judged | {"track": track, "version": VERSION, "file": file, "source": source, "sha256": digest}


def recorded(track, name=BASELINE):
    """The recorded final judgement of an entry under a track, or None."""
    found = standings.read(results.folder() / FOLDER / track)
    return next((entry for entry in found if entry["name"] == name), None)


def summary(entry, baseline):
    """An entry in a few lines, beside a baseline's if there is one to compare with."""
    lines = [f"{entry['name']}, {entry['track']}: {sum(entry['sparsity']) / len(entry['sparsity']):.2%} zeros"]
    beside = baseline is not None and standings.comparable(entry, baseline)
    ratios = standings.against(entry, baseline) if beside else {}
    for text, values in entry["perplexity"].items():
        line = f"{_called(text)}: perplexity {sum(values) / len(values):.4g}"
        line += f" ({', '.join(f'{value:.4g}' for value in values)}; dense {entry['dense'][text]:.4g})"
        if text in ratios:
            low, high = standings.interval(entry, baseline, text)
            line += f", ×{ratios[text]:.3f} of {baseline['name']}'s ({low:.3f} to {high:.3f})"
        lines.append(line)
    mean = sum(entry["forwards"]) / len(entry["forwards"])
    return "\n".join([*lines, f"time to prune: {mean:.1f} dense forward passes over the calibration windows"])


def _called(text):
    return f"{text.replace('_', '-')} text"


def _try(score):
    """Raise ValueError unless a score function returns a score of the right shape for a small layer."""
    found = score(torch.rand(8, 6), torch.rand(6))
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if shape != (8, 6):
        raise ValueError(f"score must return a tensor of shape [out, in]; for a weight of shape (8, 6) it gave {shape}")


def _track(name):
    if name not in TRACKS:
        near = difflib.get_close_matches(name, TRACKS, n=3)
        raise argparse.ArgumentTypeError(
            f"no track {name!r}; {'near it: ' + ', '.join(near) if near else 'see --help'}"
        )
    return name


def _line(error, path):
    """The line of an entry's file that an error, or its cause, came from; None if it came from elsewhere."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        if lines:
            return lines[-1]
        error = error.__cause__
    return None


def main(arguments=None):
    """Run the command line. Returns the exit status: 0, or 2 if the entry is not judged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", type=Path, help="a Python file")
    parser.add_argument("--track", required=True, type=_track, help=", ".join(TRACKS))
    parser.add_argument("--final", action="store_true", help="read the held-out text as well")
    parser.add_argument(
        "--out", type=Path, default=Path("my_entries"), help="folder for TRACK/NAME.json (default: my_entries)"
    )
    options = parser.parse_args(arguments)
    rules, say = TRACKS[options.track], functools.partial(print, file=sys.stderr, flush=True)
    texts = leaderboard.TEXTS if options.final else leaderboard.TEXTS[:1]
    try:
        entry = load(options.entry)
        if entry.way == "score":
            _try(entry.function)  # before the model: that takes minutes
        say("loading the model, and measuring it dense")
        bench = leaderboard.set_up(rules, texts, device="cuda" if torch.cuda.is_available() else None)
        baseline = recorded(options.track)
        for text in texts if baseline and baseline["rules"] == vars(rules) else ():
            say(f"{BASELINE}, {_called(text)}: {', '.join(f'{value:.4g}' for value in baseline['perplexity'][text])}")
        say(f"pruning for set 1 of {len(bench.calibrations)}")
        judged = judge(entry, options.track, bench, say)
    except Exception as error:
        line = _line(error, options.entry)
        if line is None and not isinstance(error, (ValueError, TypeError, OSError)):
            raise  # a fault of ours
        where = "" if line is None else f" ({options.entry.name}, line {line})"
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        print(f"not judged: {said}{where}", file=sys.stderr)
        return 2
    folder = options.out / options.track
    if options.final:
        before = next((one for one in standings.read(folder) if one["name"] == judged["name"]), {})
        judged["finals"] = before.get("finals", 0) + 1
    file = standings.write(judged, folder)
    print(summary(judged, baseline))
    print(f"written to {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
