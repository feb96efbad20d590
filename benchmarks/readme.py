"""Draw the README's table from results/: `python -m benchmarks.readme` rewrites it in place."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- table: drawn by benchmarks/readme.py -->", "<!-- end of table -->"
NAMES = {"dense": "dense", "magnitude": "magnitude", "wanda": "Wanda", "sparsegpt": "SparseGPT"}
RUNS = {"magnitude": "magnitude", "wanda": "wanda", "sparsegpt": "sparsegpt"}  # rows of results/speed.json


def table():
    """The table and the line under it, in Markdown."""
    quality = json.loads((ROOT / "results" / "quality-wikitext2.json").read_text())
    speed = json.loads((ROOT / "results" / "speed.json").read_text())
    perplexity = {(row["method"], row["pattern"]): row["perplexity"] for row in quality["rows"]}
    forwards = {row["run"]: row["forwards"] for row in speed["rows"]}
    lines = ["| | 50 % | 2:4 | time to prune |", "|---|---|---|---|"]
    dense = perplexity["dense", None]
    lines.append(f"| dense | {dense:.1f} | {dense:.1f} | |")
    for method, run in RUNS.items():
        half, pattern = perplexity[method, None], perplexity[method, "2:4"]
        lines.append(f"| {NAMES[method]} | {half:,.1f} | {pattern:,.1f} | {forwards[run]:.1f} forward passes |")
    setting, machine = quality["setting"], quality["machine"]
    lines += [
        "",
        f"Perplexity on WikiText-2, whole test split ({setting['evaluation'].split(', ', 1)[1]}), SmolLM2-135M-Instruct, "
        f"{setting['dtype']}; calibration: {setting['calibration']}. A forward pass is one of the dense model over the "
        f"calibration windows. Measured on {machine['cores']} cores without a GPU; "
        "sources: [quality](results/quality-wikitext2.json), [speed](results/speed.json).",
    ]
    return "\n".join(lines)


def main():
    """Rewrite the README."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
