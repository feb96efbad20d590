"""Generate parts of the README: the tables and the figure from results/, the list of notebooks from their first cells.

`python -m benchmarks.readme` rewrites README.md and docs/sparsity.svg.
"""

import re
import statistics
from pathlib import Path

import nbformat
from matplotlib import pyplot, rc_context

from wanda_course import gpu_results, plots, protocol, publish
from wanda_course.results import quality, read

ROOT = Path(__file__).resolve().parent.parent
README, FIGURE = ROOT / "README.md", ROOT / "docs" / "sparsity.svg"
START, END = "<!-- {}: drawn by benchmarks/readme.py -->", "<!-- end of {} -->"
NAMES = {"magnitude": "magnitude", "wanda": "Wanda", "sparsegpt": "SparseGPT"}
AMOUNTS = ("50%", "4:8", "2:4")
TEXT = "wikitext2"
MOST_SHOWN = 0.7  # highest sparsity in the figure; beyond it every model is ruined


def table():
    """The tables and their notes, in Markdown."""
    record = read("main_job")
    after = quality(text="wikipedia", method="admm", amount=("50%", "2:4"))
    parts = [main_job(record), _protocol(record), after_wanda(after), wikitext2()]
    return "\n\n".join([*parts, beside(read("peers")["rows"]), on_gpu(read("gpu"))])


def main_job(record):
    """The rows of `make run`, and the time of each method. record: the content of results/main_job.json."""
    forwards = {row["run"]: row["forwards"] for row in read("speed")["rows"]}
    rows = {row["row"]: row["perplexity"] for row in record["rows"]}
    lines = [_row("", "50 %", "2:4", "time to prune"), "|---" * 4 + "|"]
    lines.append(_row("dense", f"{rows['dense']:.1f}", f"{rows['dense']:.1f}", ""))
    for method, name in NAMES.items():
        values = [f"{rows[f'{method} {amount}']:,.1f}" for amount in ("50%", "2:4")]
        lines.append(_row(name, *values, f"{forwards[method]:.2g} forward passes"))
    return "\n".join(lines)


def _protocol(record):
    calibration, evaluation = protocol.CALIBRATION, protocol.EVALUATION
    replicates = {row["row"]: list(row["replicates"].values()) for row in record["rows"]}
    settings = min(map(len, replicates.values()))
    apart = {row: max(values) / min(values) - 1 for row, values in replicates.items()}
    moved_most = apart.pop("sparsegpt 2:4")
    moved = max(apart.values())
    return (
        f"Perplexity on {evaluation['windows']} windows of {evaluation['length']:,} tokens of Wikipedia (no overlap, no BOS); "
        f"calibration: {calibration['source']}, {calibration['samples']} windows of {calibration['length']} tokens, seed "
        f"{calibration['seed']}. Model: {protocol.MODEL}. One forward pass runs the dense model over the calibration windows; "
        f"`make run` takes about {record['forwards']:.0f} of them ({record['seconds'] / 60:.1f} minutes on "
        f"{record['threads']} cores of {record['machine']['processor']}). Each figure is the median over {settings} settings "
        f"of kernels and threads; the runs differ by at most {100 * moved:.1f} % (SparseGPT at 2:4: "
        f"{100 * moved_most:.1f} %). Sources: [rows](results/main_job.json), [speed](results/speed.json)."
    )


def wikitext2():
    """The WikiText-2 table and its note. A column appears once all its cells are measured."""
    cells = {(cell["method"], cell["amount"]): cell for cell in quality(text=TEXT, seed=(0, None))}
    amounts = [amount for amount in AMOUNTS if all((method, amount) in cells for method in NAMES)]
    dense = f"{cells['dense', '']['perplexity']:.1f}"
    lines = [
        _row("WikiText-2", *(amount.replace("%", " %") for amount in amounts)),
        "|---" * (len(amounts) + 1) + "|",
        _row("dense", *[dense] * len(amounts)),
    ]
    for method, name in NAMES.items():
        values = [f"{cells[method, amount]['perplexity']:,.1f}" for amount in amounts]
        lines.append(_row(name, *values))
    return "\n\n".join(["\n".join(lines), _explained(cells["wanda", "50%"])])


def after_wanda(cells):
    """The figures of ADMM, as a sentence. cells: from `quality`, of all seeds."""
    drawn = {}
    for cell in cells:
        drawn.setdefault(cell["amount"].replace("%", " %"), []).append(cell["perplexity"])
    figures = [f"{statistics.mean(values):.1f} at {amount}" for amount, values in drawn.items()]
    seeds = min(map(len, drawn.values()))
    return (
        f'What came after Wanda: `method="admm"` reaches {" and ".join(figures)} on the packaged text, the mean of {seeds} '
        "calibration seeds; notebook 12 builds it. Source: [quality](results/quality.json)."
    )


def beside(rows):
    """The comparison with the peer, as a sentence. rows: of results/peers.json."""
    found = []
    for row in rows:
        one, other = row["ours"], row["llmcompressor"]
        method, amount = row["way"].replace("%", " %").split(" ", 1)
        draws = f" (mean of {len(one['perplexities'])} draws of windows)" if "perplexities" in one else ""
        found.append(
            f"{NAMES[method]} at {amount}{draws} {one['perplexity']:.1f} in {one['seconds']:.0f} s "
            f"({other['perplexity']:.1f} in {other['seconds']:.0f} s)"
        )
    machine, version = rows[0]["machine"], rows[0]["llmcompressor"]["versions"]["llmcompressor"]
    return (
        f"Compared with llmcompressor {version} (in brackets), on the same windows: perplexity on the packaged text and median "
        f"time of {', '.join(found)}, on {machine['threads']} threads of {machine['processor']}; source: [peers](results/peers.json)."
    )


def on_gpu(content):
    """The times of pruning on a GPU, as a sentence. content: of results/gpu.json."""
    taken = [f"{name} {gpu_results.seconds(content, method):.2g} s" for method, name in NAMES.items()]
    return f"On a GPU: {', '.join(taken)}. {gpu_results.caption(content)} Source: [gpu](results/gpu.json)."


def _row(*entries):
    return f"| {' | '.join(entries)} |"


def _explained(cell):
    calibration = cell["calibration"]
    return (
        f"Same model and calibration ({calibration['source']}, seed {calibration['seed']}); the whole test split, in windows "
        f"of {cell['length']:,} tokens. Source: [quality](results/quality.json)."
    )


def course():
    """The notebooks in order, with the minutes of a run, as a Markdown table."""
    home = publish.repository(ROOT)
    lines = ["| | notebook | minutes | |", "|---|---|---|---|"]
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        header = nbformat.read(path, as_version=4).cells[0].source
        number, title = re.match(r"# (\d\d) · (.*)", header).groups()
        minutes = re.search(r"Measured on .*?: ([\d.]+) minutes", header)[1]
        colab = f"[Colab](https://colab.research.google.com/github/{home}/blob/main/notebooks/{path.name})"
        lines.append(_row(number, f"[{title}](notebooks/{path.name})", f"{float(minutes):.0f}", colab))
    return "\n".join(lines)


def figure(path):
    """Draw perplexity over sparsity, one line per method, from results/quality.json, as an SVG file."""
    drawing, axes = plots.figure(size=(7.0, 3.4))
    cells = quality(text="wikipedia", usual=True, seed=(0, None), pattern=None)
    (dense,) = [cell["perplexity"] for cell in cells if cell["method"] == "dense"]
    for method, name in NAMES.items():
        shown = [cell for cell in cells if cell["method"] == method and cell["sparsity"] <= MOST_SHOWN]
        line = sorted((100 * cell["sparsity"], cell["perplexity"]) for cell in shown)
        axes.plot(*zip(*line, strict=True), "o-", color=plots.COLORS[method], markersize=4)
        axes.annotate(name, line[-1], (6, 0), textcoords="offset points", va="center", color=plots.COLORS[method])
    axes.plot((8, 70), (dense, dense), "--", color=plots.COLORS["dense"], linewidth=1.2)
    axes.annotate(f"dense {dense:.1f}", (70, dense), (6, -4), textcoords="offset points")
    plots.plain_log(axes, steps=(1,))
    axes.set(
        xlabel="weights removed (%)", ylabel="perplexity (lower is better)", xlim=(8, 79), ylim=(dense / 1.5, None)
    )
    axes.grid(axis="x", visible=False)
    with rc_context({"svg.hashsalt": "wanda", "svg.fonttype": "none"}):  # reproducible bytes
        drawing.savefig(path, metadata={"Date": None})
    pyplot.close(drawing)


def main():
    """Rewrite the README and the figure."""
    text = README.read_text(encoding="utf-8")
    for name, content in (("table", table()), ("course", course())):
        start, end = START.format(name), END.format(name)
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{content}\n{end}{rest.partition(end)[2]}"
    README.write_text(text, encoding="utf-8")
    figure(FIGURE)


if __name__ == "__main__":
    main()
