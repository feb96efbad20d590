"""The main job, `make run`: prune the default model three ways at 50 % and 2:4; table, figure, page and JSON in build/.

Each row is written to build/benchmark.json as soon as it is measured, and all files exist before any row is compared
with the recorded one. A row outside its recorded band is listed; it is a failure only under WANDA_STRICT=1. An
interrupted run resumes with the rows it has.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import pandas
import torch

import wanda
from wanda.sources.download import replacing
from wanda.tools.compare import compare, settings
from wanda.tools.provenance import provenance

from . import fingerprint, main_job_page, protocol, results
from .claims import short
from .forward_passes import window_seconds

PROMPT = "The most important thing to know about the ocean is"
UNIT_EVERY = 2  # rows after which the unit is timed anew: the machine may be faster or slower now than at the start
NEW_TOKENS = 16  # that each model generates
COLUMNS = ("sparsity", "perplexity", "forwards", "text")
FILES = ("benchmark.html", "benchmark.png", "benchmark.txt", "benchmark.json")


def run(folder, model_name="smollm2", samples=None, windows=None, new_tokens=NEW_TOKENS):
    """Measure all rows, or those that an interrupted run did not reach, and draw them. Returns the record.

    Args:
        folder: for the files.
        model_name: as for `wanda.load`.
        samples, windows: numbers of calibration and evaluation windows; None: the protocol's.
        new_tokens: number of tokens that each pruned model generates.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    log = _Log()
    rows = settings()
    recorded = results.load("main_job") if results.file("main_job").exists() else None
    log(f"{len(rows)} rows: {', '.join(map(str, rows))}")
    full = samples is None and windows is None and new_tokens == NEW_TOKENS
    if recorded and full:
        processor, minutes = recorded["machine"]["processor"], recorded["seconds"] / 60
        log(f"about {minutes:.1f} minutes in all where it was recorded ({processor}, {recorded['threads']} threads)")
    model, tokenizer = wanda.load(model_name)
    calibration = protocol.calibration(tokenizer, samples)
    tokens = protocol.evaluation(tokenizer, windows)
    about = _about(model_name, calibration, tokens, new_tokens)
    record = _resumed(folder, about, log)
    began = time.perf_counter() - record["seconds"]
    if not record["window_seconds"]:
        window_seconds(model, calibration[:1])  # a warm-up
        record["window_seconds"] = window_seconds(model, calibration[1:2])
    log(f"one forward pass of the dense model over the calibration windows: {_unit(record):.1f} s, the unit of time")
    expected = {row["row"]: row["forwards_in_all"] for row in recorded["rows"]} if recorded and full else {}
    missing = [row for row in rows if str(row) not in {done["row"] for done in record["rows"]}]
    prompt = tokenizer(PROMPT, return_tensors="pt")

    def write_on(model):
        ids = model.generate(**prompt, max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        return " ".join(tokenizer.decode(ids[0, prompt.input_ids.shape[1] :], skip_special_tokens=True).split())

    shared = {"length": protocol.EVALUATION["length"], "generate": write_on, "progress": sys.stderr.isatty()}
    measured = compare(model, calibration, tokens, missing, **shared)
    for place, row in enumerate(missing):
        left = [expected.get(str(other)) for other in missing[place:]]
        estimate = "" if None in left else f", about {_clock(sum(left) * _unit(record))} left"
        log(f"row {len(rows) - len(missing) + place + 1} of {len(rows)}: {row}{estimate}")
        row_began = time.perf_counter()
        result = next(measured)
        result.pop("report", None)
        if len(record["rows"]) % UNIT_EVERY == UNIT_EVERY - 1:
            record["window_seconds"] += window_seconds(model, calibration[place : place + 1])
        result |= {"row": str(row), "seconds_in_all": time.perf_counter() - row_began}
        record["rows"].append(result)
        record["seconds"] = time.perf_counter() - began
        _write(folder, record)
        log(f"  perplexity {short(result['perplexity'])}")
    record["forward_seconds"] = unit = _unit(record)
    record["forwards"] = record["seconds"] / unit
    for row in record["rows"]:
        row |= {"forwards": row["seconds"] / unit, "forwards_in_all": row["seconds_in_all"] / unit}
    (folder / "benchmark.txt").write_text(table(record["rows"]) + "\n", encoding="utf-8")
    main_job_page.draw(record, folder)
    record["finished"] = True
    _write(folder, record)
    return record


def _unit(record):
    return statistics.median(record["window_seconds"]) * record["samples"]


def table(rows):
    """The rows as text."""
    frame = pandas.DataFrame(rows).set_index("row")[list(COLUMNS)]
    frame["text"] = frame["text"].str.slice(0, 48)
    return frame.to_string(float_format="{:.2f}".format)


def differences(record, recorded):
    """The rows outside their recorded bands: a list of sentences, empty if there are none.

    Only for rows on the same calibration and evaluation windows.

    Args:
        record: the return value of `run`.
        recorded: the content of results/main_job.json: rows with "perplexity", "low" and "high".
    """
    known, found = {row["row"]: row for row in recorded["rows"]}, []
    for row in record["rows"]:
        expected, value = known[row["row"]], row["perplexity"]
        if not expected["low"] <= value <= expected["high"]:
            by = value / expected["perplexity"] - 1
            found.append(
                f"{row['row']}: perplexity {value:.4g}, {by:+.1%} of the {expected['perplexity']:.4g} recorded; "
                f"expected between {expected['low']:.4g} and {expected['high']:.4g}"
            )
    return found


def _about(model_name, calibration, tokens, new_tokens):
    """The conditions of a run: an interrupted run resumes only if they are the same."""
    about = provenance(calibration=calibration, evaluation=tokens)
    prints = {method: fingerprint.of(method) for method in fingerprint.METHODS}
    options = {
        "model": model_name,
        "weights": protocol.weights(model_name),
        "prompt": PROMPT,
        "samples": len(calibration),
        "new_tokens": new_tokens,
        "threads": torch.get_num_threads(),
    }
    return about | {"command": "make run", "fingerprint": prints} | options


def _resumed(folder, about, log):
    """A new record, or an interrupted run's with the same data, code and machine."""
    path, fresh = folder / "benchmark.json", {"finished": False, "window_seconds": [], "seconds": 0.0, "rows": []}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        same = [name for name in about if name not in ("date", "fingerprint")]
        agrees = all(found.get(name) == about[name] for name in same) and all(
            fingerprint.same(found["fingerprint"].get(name), value) for name, value in about["fingerprint"].items()
        )
        if not found.get("finished") and agrees:
            log(f"resuming an interrupted run: {len(found['rows'])} rows are measured already")
            return found
    return about | fresh


def _write(folder, record):
    with replacing(folder / "benchmark.json") as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


class _Log:
    """Prints lines, each after the time since the start."""

    def __init__(self):
        self.began = time.perf_counter()

    def __call__(self, line):
        print(f"[{_clock(time.perf_counter() - self.began)}] {line}", flush=True)


def _clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def main(arguments=None):
    """Run the command line. Returns the exit status: 0, or 1 if something differs under WANDA_STRICT=1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder for the files")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument(
        "--samples", type=int, help="number of calibration windows, fewer than the protocol's for a trial"
    )
    parser.add_argument("--windows", type=int, help="number of evaluation windows")
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS, help="number of tokens that each model generates")
    options = parser.parse_args(arguments)
    try:
        record = run(options.out, options.model, options.samples, options.windows, options.new_tokens)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command resumes with the rows in {options.out}/", file=sys.stderr)
        return 130
    print(f"\n{table(record['rows'])}\n")
    print(
        f"{_clock(record['seconds'])} minutes: {record['forwards']:.1f} dense forward passes over the calibration windows."
    )
    print(f"In {options.out}/: {', '.join(FILES)}")
    if not results.file("main_job").exists():
        return 0
    recorded = results.read("main_job")
    if record["data_sha256"] != recorded["data_sha256"]:
        print("\nThe calibration or evaluation windows differ from the recorded ones, so no row can be compared.")
        return int(results.is_strict())
    found = differences(record, recorded)
    print("\nOutside the recorded bands:" if found else "Every row is within its recorded band.")
    for sentence in found:
        print(f"- {sentence}")
    return int(bool(found) and results.is_strict())


if __name__ == "__main__":
    sys.exit(main())
