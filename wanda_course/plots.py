"""One style for every figure: colours that colour-blind readers can distinguish, axes with units, alt text."""

import io
from pathlib import Path

import matplotlib
import matplotlib.ticker
import PIL.Image
from IPython.display import Image, display
from matplotlib import pyplot

# Okabe and Ito's palette, distinguishable with any kind of colour blindness. A method has one colour in all notebooks.
COLORS = {"dense": "#000000", "magnitude": "#D55E00", "wanda": "#0072B2", "sparsegpt": "#009E73"}
ACCENT, OTHER, MUTED = "#CC79A7", "#E69F00", "#8C8C8C"
LABELS = {"dense": "dense", "magnitude": "magnitude", "wanda": "Wanda", "sparsegpt": "SparseGPT"}
SEQUENTIAL = "cividis"  # for heat maps

STYLE = {
    "figure.figsize": (7.0, 3.8),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=[*COLORS.values(), ACCENT, OTHER]),
    "grid.color": "#E5E5E5",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def figure(rows=1, columns=1, size=None, **options):
    """A figure and its axes in the course's style. size: (width, height) in inches; options as for `pyplot.subplots`."""
    pyplot.rcParams.update(STYLE)
    return pyplot.subplots(rows, columns, figsize=size, **options)


def show(drawing, alt, file=None):
    """Display a figure with its alt text, and close it.

    Args:
        drawing: a matplotlib figure.
        alt: what it shows, in a sentence or two: the kind of plot, the axes, the finding.
        file: path of a PNG to write as well.

    Raises: ValueError if the alt text has fewer than 30 characters.
    """
    if len(alt) < 30:
        raise ValueError(f"the alt text must say what the figure shows; got {alt!r}")
    full, buffer = io.BytesIO(), io.BytesIO()
    drawing.savefig(full, format="png", dpi=110)
    pyplot.close(drawing)
    # 256 colours are enough for a drawing, and make the file in the notebook three times smaller.
    # "Max coverage" keeps rare colours, such as the upper end of a colour bar.
    options = {"method": PIL.Image.Quantize.MAXCOVERAGE, "dither": PIL.Image.Dither.NONE}
    PIL.Image.open(full).convert("RGB").quantize(256, **options).save(buffer, "png", optimize=True)
    if file is not None:
        Path(file).write_bytes(buffer.getvalue())
    display(Image(buffer.getvalue(), alt=alt))


def three_digits(perplexity):
    """A perplexity as text, "23.3" or "1,770": more than three digits mean nothing on a text of a few pages."""
    if perplexity < 100:
        return f"{perplexity:.2f}" if perplexity < 10 else f"{perplexity:.1f}"
    return f"{float(f'{perplexity:.3g}'):,.0f}"


def perplexity_bars(axes, rows, dense):
    """Draw bars of perplexity on a log scale, one per method, grouped by sparsity or pattern.

    Args:
        rows: dicts with method, amount (the group's label) and perplexity.
        dense: the dense model's perplexity, drawn as a line.
    """
    amounts = list(dict.fromkeys(row["amount"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        values = [
            next(row["perplexity"] for row in rows if (row["method"], row["amount"]) == (method, a)) for a in amounts
        ]
        places = [group + (index - (len(methods) - 1) / 2) * width for group in range(len(amounts))]
        bars = axes.bar(places, values, width * 0.92, color=COLORS[method], label=LABELS[method])
        axes.bar_label(bars, labels=[three_digits(value) for value in values], fontsize=9)
    axes.axhline(dense, color=COLORS["dense"], linestyle="--", linewidth=1.2, label=f"dense ({dense:.1f})")
    axes.set_yscale("log")
    axes.set_xticks(range(len(amounts)), amounts)
    axes.set_ylabel("perplexity (log scale; lower is better)")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.legend(ncols=len(methods) + 1, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def plain_log(axes, steps=(1, 2, 5)):
    """Make the y axis logarithmic, with plain numbers only at these steps of each power of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=steps, numticks=20))
    axes.yaxis.set_major_formatter("{x:,.10g}")
    axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def heat_map(axes, values, rows, columns, crossed=None):
    """Draw a matrix as colours, with its numbers.

    Args:
        values: Tensor [rows, columns].
        rows, columns: their names.
        crossed: bool [rows, columns], True where an entry is crossed out; or None.
    """
    low, high = float(values.min()), float(values.max())
    axes.imshow(values, cmap=SEQUENTIAL, vmin=low, vmax=high)
    for i, line in enumerate(values.tolist()):
        for j, value in enumerate(line):
            color = "white" if value < low + 0.55 * (high - low) else "black"
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", color=color)
            if crossed is not None and crossed[i, j]:
                for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1)):  # from each corner towards the number
                    axes.plot([j + 0.45 * x, j + 0.22 * x], [i + 0.45 * y, i + 0.22 * y], color=OTHER, linewidth=2.5)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
