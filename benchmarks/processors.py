"""Emulate other processors: run the main job's rows and the notebooks' claims under other kernels and thread counts.

    python -m benchmarks.processors --rows                       # all settings: replicates of the rows
    python -m benchmarks.processors --notebooks 02 03 --settings "avx2, 1 thread"

The rows go to results/main_job.json, with bands; the values of the notebooks' claims are added to results/claims.json.
A band is the range of the replicates, extended on either side by its width, at least by MARGIN. Settings with one
thread may run in parallel.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from wanda.sources.download import replacing
from wanda_course import execute, fingerprint, replicates, results

ROOT = Path(__file__).resolve().parent.parent
MARGIN = 0.003  # of a row's perplexity, on either side of its replicates
KERNELS = {  # environment variables that PyTorch, oneDNN and MKL read when they are loaded
    "baseline": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "native": {},
}
SETTINGS = {
    f"{kernel}, {threads} thread{'s' * (threads > 1)}": variables | {"OMP_NUM_THREADS": str(threads)}
    for kernel, variables in KERNELS.items()
    for threads in (1, 2)
}
KEPT = (
    "date",
    "command",
    "machine",
    "versions",
    "data_sha256",
    "model",
    "weights",
    "threads",
    "forward_seconds",
    "seconds",
    "forwards",
)


def rows(setting):
    """Run the main job under a setting. Returns its record."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "wanda_course.main_job", "--out", folder]
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | SETTINGS[setting] | {"WANDA_STRICT": "0"})
        return json.loads((Path(folder) / "benchmark.json").read_text(encoding="utf-8"))


def merged(recorded, setting, record):
    """The content of results/main_job.json with one more run. Replicates of other data or other numerics are dropped.

    Args:
        recorded: the content so far, or None.
    """
    if recorded is None or recorded["data_sha256"] != record["data_sha256"]:
        recorded = {"rows": []}
    before = {row["row"]: row for row in recorded["rows"]}
    lines = []
    for row in record["rows"]:
        own = fingerprint.of(row["method"])
        known = before.get(row["row"], {})
        replicate = known.get("replicates", {}) if fingerprint.same(known.get("fingerprint"), own) else {}
        replicate = {**replicate, setting: round(row["perplexity"], 4)}
        low, high = band(replicate.values())
        line = {name: row[name] for name in ("row", "method", "pattern", "sparsity", "forwards", "forwards_in_all")}
        line |= {"perplexity": statistics.median(replicate.values()), "low": low, "high": high}
        lines.append(line | {"replicates": replicate, "fingerprint": own})
    return {name: record[name] for name in KEPT} | {"rows": lines}


def band(values):
    """(low, high): the range of the values, extended on either side by its width, at least by MARGIN."""
    values = list(values)
    low, high = min(values), max(values)
    return round(low - max(high - low, MARGIN * low), 4), round(high + max(high - low, MARGIN * high), 4)


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", action="store_true", help="the main job's rows")
    parser.add_argument("--notebooks", nargs="*", default=[], metavar="NN", help="numbers of notebooks")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME")
    options = parser.parse_args(arguments)
    for setting in options.settings:
        print(f"== {setting}", flush=True)
        if options.rows:
            record, path = rows(setting), results.file("main_job")
            with FileLock(f"{path}.lock"), replacing(path) as partial:
                content = merged(results.load("main_job") if path.exists() else None, setting, record)
                partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        for number in options.notebooks:
            (notebook,) = execute.NOTEBOOKS.glob(f"{number}_*.ipynb")
            _, seconds, lines = execute.executed(notebook, strict=False, environment=SETTINGS[setting])
            replicates.add(notebook, setting, lines)
            print(f"{notebook.stem}: {len(lines)} claims in {seconds / 60:.1f} minutes", flush=True)
    if results.file("claims").exists():
        for key, setting, value in replicates.outside(results.load("claims")):
            print(f"{key} is outside its band under {setting!r}: {value:.4g}")


if __name__ == "__main__":
    main()
