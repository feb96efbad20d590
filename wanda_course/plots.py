"""One style for every figure: colours that colour-blind readers can distinguish, axes with units, alt text."""

import base64
import html
import io
import math
from pathlib import Path

import matplotlib
import matplotlib.ticker
import PIL.Image
from IPython.display import HTML, display
from matplotlib import pyplot

# Okabe and Ito's palette, distinguishable with any kind of colour blindness. A method has one colour in all notebooks.
# It is used for nothing else: ACCENT, OTHER and MUTED are for what is not a method.
COLORS = {"dense": "#000000", "magnitude": "#D55E00", "wanda": "#0072B2", "sparsegpt": "#009E73", "admm": "#56B4E9"}
ACCENT, OTHER, MUTED = "#CC79A7", "#6A3D9A", "#8C8C8C"
LABELS = {"dense": "dense", "magnitude": "magnitude", "wanda": "Wanda", "sparsegpt": "SparseGPT", "admm": "ADMM"}
LABEL_SIZE = 9  # points
SEQUENTIAL = "cividis"  # for heat maps

STYLE = {
    "figure.figsize": (7.0, 3.8),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=[ACCENT, OTHER, MUTED, *COLORS.values()]),
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
    # As HTML: JupyterLab drops the alt text of an image output.
    picture = base64.b64encode(buffer.getvalue()).decode()
    display(HTML(f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}" style="max-width: 100%">'))


def three_digits(perplexity):
    """A perplexity as text, "23.3" or "1,770": more than three digits mean nothing on a text of a few pages."""
    if perplexity < 100:
        return f"{perplexity:.2f}" if perplexity < 10 else f"{perplexity:.1f}"
    return f"{float(f'{perplexity:.3g}'):,.0f}"


def perplexity_dots(axes, rows, dense):
    """Draw perplexities as dots on a log scale, one per method, grouped by sparsity or pattern, with their values.

    Args:
        rows: dicts with method, amount (the group's label) and perplexity.
        dense: the dense model's perplexity, drawn as a line.
    """
    amounts = list(dict.fromkeys(row["amount"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    step = 0.7 / len(methods)
    for index, method in enumerate(methods):
        places = [amounts.index(row["amount"]) for row in rows if row["method"] == method]
        places = [place + (index - (len(methods) - 1) / 2) * step for place in places]
        values = [row["perplexity"] for row in rows if row["method"] == method]
        axes.plot(places, values, "o", color=COLORS[method], markersize=8, label=LABELS[method])
        for place, value in zip(places, values, strict=True):
            above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
            axes.annotate(three_digits(value), (place, value), color=COLORS[method], fontsize=9, **above)
    axes.axhline(dense, color=COLORS["dense"], linestyle="--", linewidth=1.2, label=f"dense ({dense:.1f})")
    plain_log(axes)
    axes.set_xticks(range(len(amounts)), amounts)
    axes.set_xlim(-0.5, len(amounts) - 0.5)
    axes.set_ylabel("perplexity (log scale; lower is better)")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.legend(ncols=len(methods) + 1, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def label_lines(axes, shift=4):
    """Write each line's label at its right end, in its colour, instead of a legend; labels are kept apart.

    Args:
        axes: with lines that have labels. shift: points between a line's end and its label.
    """
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    axes.figure.canvas.draw()  # the transforms below need the final limits
    ends = sorted((axes.transData.transform(line.get_xydata()[-1])[1], index) for index, line in enumerate(lines))
    places, lowest = {}, -math.inf  # heights in pixels
    for height, index in ends:
        lowest = max(height, lowest + 1.15 * LABEL_SIZE * axes.figure.dpi / 72)
        places[index] = (lowest, height)
    middle = sum(label - height for label, height in places.values()) / max(len(places), 1)
    for index, (label, height) in places.items():
        line = lines[index]
        axes.annotate(
            line.get_label(),
            line.get_xydata()[-1],
            xytext=(shift, (label - middle - height) * 72 / axes.figure.dpi),
            textcoords="offset points",
            color=line.get_color(),
            fontsize=LABEL_SIZE,
            va="center",
            annotation_clip=False,
        )


def plain_log(axes, steps=(1, 2, 5), axis="y"):
    """Make an axis logarithmic, with plain numbers only at these steps of each power of ten."""
    axes.set(**{f"{axis}scale": "log"})
    drawn = {"x": axes.xaxis, "y": axes.yaxis}[axis]
    drawn.set_major_locator(matplotlib.ticker.LogLocator(subs=steps, numticks=20))
    drawn.set_major_formatter("{x:,.10g}")
    drawn.set_minor_formatter(matplotlib.ticker.NullFormatter())


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
