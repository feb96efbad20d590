"""The figure and the page of `make run`."""

import base64
import html

from matplotlib import pyplot

from . import plots, protocol

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Three ways to prune a language model</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }}
th:first-child, td:first-child {{ text-align: left; white-space: nowrap; }}
h1 {{ font-size: 1.6rem; }}
h2 {{ font-size: 1.2rem; }}
dd {{ margin-left: 1rem; }}
dt {{ font-weight: 600; margin-top: .6rem; }}
img {{ max-width: 100%; height: auto; }}
</style></head><body>
<h1>Three ways to prune a language model</h1>
<p>{model}. Half of the weights in its blocks are pruned, anywhere (50&nbsp;%) or two of every four (2:4). No weight
is trained.</p>
<p><img src="data:image/png;base64,{picture}" alt="{alt}"></p>
<table>
<thead><tr><th></th><th>perplexity</th><th>forward passes to prune</th></tr></thead>
<tbody>
{rows}
</tbody></table>
<p>Perplexity on {evaluation}; lower is better. Calibration: {calibration}. A forward pass is the dense model's over
the calibration windows: {forward:.1f}&nbsp;s here. The whole job took {forwards:.1f} of them, on {processor},
{threads}, torch {torch}, {date}. Everything is in benchmark.json.</p>
<h2>“{prompt} …”</h2>
<dl>
{texts}
</dl>
<h2>What it is good for</h2>
<p>The pruned weights are zeros in a dense file, which by itself is neither smaller nor faster. The 4-bit file that this
model comes from is smaller and better than any half-pruned 16-bit model. The course explains what pruning is for.</p>
</body></html>
"""


def draw(record, folder):
    """Write benchmark.png and benchmark.html. record: as `main_job.run` makes it."""
    alt = figure(record["rows"], folder / "benchmark.png")
    rows = "\n".join(
        f"<tr><td>{_name(row)}</td><td>{plots.three_digits(row['perplexity'])}</td><td>{row['forwards']:.1f}</td></tr>"
        for row in record["rows"]
    )
    texts = "\n".join(f"<dt>{_name(row)}</dt><dd>{html.escape(row['text'])}</dd>" for row in record["rows"])
    calibration, evaluation = protocol.CALIBRATION, protocol.EVALUATION
    page = PAGE.format(
        model=html.escape(record["weights"]),
        picture=base64.b64encode((folder / "benchmark.png").read_bytes()).decode(),
        alt=html.escape(alt, quote=True),
        rows=rows,
        texts=texts,
        prompt=html.escape(record["prompt"]),
        evaluation=f"{evaluation['source']}, windows of {evaluation['length']:,} tokens",
        calibration=f"{calibration['source']}, windows of {calibration['length']} tokens, seed {calibration['seed']}",
        forward=record["forward_seconds"],
        forwards=record["forwards"],
        processor=html.escape(record["machine"]["processor"]),
        threads=f"{record['threads']} thread{'s' * (record['threads'] > 1)}",
        torch=record["versions"]["torch"],
        date=record["date"],
    )
    (folder / "benchmark.html").write_text(page, encoding="utf-8")


def figure(rows, path):
    """Draw perplexity as dots on a log axis, one column per amount. Writes a PNG and returns its alt text."""
    dense, pruned = rows[0]["perplexity"], rows[1:]
    amounts = list(dict.fromkeys(row["pattern"] or "50 %" for row in pruned))
    drawing, axes = plots.figure(size=(6.4, 3.8))
    for place, amount in enumerate(amounts):
        there = sorted(
            (row for row in pruned if (row["pattern"] or "50 %") == amount), key=lambda row: row["perplexity"]
        )
        for rank, row in enumerate(there):
            name, color = plots.LABELS[row["method"]], plots.COLORS[row["method"]]
            axes.plot(place, row["perplexity"], "o", color=color, markersize=9)
            side = {"xytext": (-10, 0), "ha": "right"} if rank == 0 else {"xytext": (10, 0), "ha": "left"}
            text = (
                f"{name} {plots.three_digits(row['perplexity'])}"  # the lowest on the left: it may be close to the next
            )
            axes.annotate(
                text, (place, row["perplexity"]), textcoords="offset points", va="center", color=color, **side
            )
    axes.axhline(dense, color=plots.COLORS["dense"], linestyle="--", linewidth=1.2)
    axes.annotate(f"dense {plots.three_digits(dense)}", (0.5, dense), (0, 5), textcoords="offset points", ha="center")
    plots.plain_log(axes)
    axes.set_xticks(range(len(amounts)), amounts)
    axes.set(xlim=(-0.5, len(amounts) - 0.5), ylabel="perplexity (log scale; lower is better)")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12)
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)
    found = ", ".join(f"{_name(row)} {plots.three_digits(row['perplexity'])}" for row in pruned)
    return f"Dots of perplexity on a log scale at {' and '.join(amounts)}: {found}; the dense model has {dense:.1f}."


def _name(row):
    """A row's display name, such as "Wanda 50 %"."""
    amount = "" if row["method"] == "dense" else f" {row['pattern'] or '50 %'}"
    return plots.LABELS[row["method"]] + amount
