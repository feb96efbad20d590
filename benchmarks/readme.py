"""Draw the README's table from results/: `python -m benchmarks.readme` rewrites it in place."""

from pathlib import Path

from wanda.course import gpu_results, protocol
from wanda.course.results import quality, read

README = Path(__file__).resolve().parent.parent / "README.md"
START, END = "<!-- table: drawn by benchmarks/readme.py -->", "<!-- end of table -->"
NAMES = {"magnitude": "magnitude", "wanda": "Wanda", "sparsegpt": "SparseGPT"}
AMOUNTS = ("50%", "4:8", "2:4")
TEXT = "wikitext2"


def table():
    """The tables and what is said under them, in Markdown."""
    record = read("main_job")
    return "\n\n".join(
        [main_job(record), _protocol(record), wikitext2(), beside(read("peers")["rows"]), on_gpu(read("gpu"))]
    )


def main_job(record):
    """The rows of `make run`, and what each method takes. record: the content of results/main_job.json."""
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
        f"{calibration['seed']}. Model: {protocol.MODEL}. A forward pass is one of the dense model over the calibration "
        f"windows; `make run` takes about {record['forwards']:.0f} of them ({record['seconds'] / 60:.1f} minutes on "
        f"{record['threads']} cores of {record['machine']['processor']}). Each figure is the median of "
        f"runs under {settings} or more settings of kernels and threads, which are at most {moved:.1%} apart, and for "
        f"SparseGPT at 2:4 {moved_most:.1%}. Sources: [rows](results/main_job.json), [speed](results/speed.json)."
    )


def wikitext2():
    """The table of WikiText-2 and the line under it. A column is there as soon as all its cells are measured."""
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


def beside(rows):
    """What the comparison with the peer found, as a sentence. rows: of results/peers.json."""
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
        f"Beside llmcompressor {version} (in brackets), with the same windows, perplexity on the packaged text and median time: "
        f"{', '.join(found)}, on {machine['threads']} threads of {machine['processor']}; source: [peers](results/peers.json)."
    )


def on_gpu(content):
    """What pruning took on a GPU, as a sentence. content: of results/gpu.json."""
    taken = [f"{name} {gpu_results.seconds(content, method):.2g} s" for method, name in NAMES.items()]
    return f"On a GPU: {', '.join(taken)}. {gpu_results.caption(content)} Source: [gpu](results/gpu.json)."


def _row(*entries):
    return f"| {' | '.join(entries)} |"


def _explained(cell):
    calibration = cell["calibration"]
    return (
        f"The same model and calibration ({calibration['source']}, seed {calibration['seed']}), the whole test split in windows "
        f"of {cell['length']:,} tokens. Source: [quality](results/quality.json)."
    )


def main():
    """Rewrite the README."""
    before, _, rest = README.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{START}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
