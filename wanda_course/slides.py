r"""The decks of docs/teaching/slides with their figures, numbers and toy matrices filled in, for Marp.

    python -m wanda_course.slides --out build/slides

A deck names a figure or a number by its source, so that none is typed in twice:

    {{figure 02: Line plot of perplexity}}   the figure of notebook 02 whose alt text begins like this
    {{figure 04 0.5 1: Top: share}}          the same, only the lower half; more pairs of heights: further parts
    {{value 02: threshold ([\d.]+)}}          what the group of the expression matches in the notebook's outputs
    {{claim 02.17}}, {{percent 02.17}}       the recorded value of a claim
    {{perplexity wanda 2:4}}                 the row of results/main_job.json
    {{quality admm 2:4}}                     the mean over the seeds, from results/quality.json
    {{forwards wanda}}                       the time to prune, in forward passes, from results/speed.json
    {{seconds wanda}}                        the same in seconds on one GPU, from results/gpu.json
    {{reported Llama-2-7B wanda 2:4}}        reported by others, on windows of 4,096 tokens
    {{toy wanda}}                            the 3 x 4 matrix of the notebooks, pruned weights crossed out
"""

import argparse
import base64
import html
import io
import re
import statistics
from pathlib import Path

import PIL.Image
import torch

import wanda
from wanda.sources.download import CHECKOUT

from . import figures, reported, results
from .claims import short
from .plots import three_digits

FOLDER = CHECKOUT / "docs" / "teaching" / "slides"
PLACEHOLDER = re.compile(r"\{\{(\w+) (.+?)\}\}")

# The toy of notebooks 02 and 03; a test compares.
WEIGHT = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
NORMS = torch.tensor([1.0, 2.0, 8.0, 0.5])  # [in]


def fill(text):
    """A deck with every placeholder replaced. Raises ValueError or KeyError if one has no source."""
    return PLACEHOLDER.sub(lambda match: SOURCES[match[1]](match[2]), text)


def _figure(argument):
    """As one element that holds the picture, so that the deck is a single file."""
    source, start = argument.split(": ", 1)
    number, *edges = source.split()
    found = figures.figure(number, start)
    png = _cut(found.png, [float(edge) for edge in edges]) if edges else found.png
    data = base64.b64encode(png).decode()
    return f'<div class="figure"><img alt="{html.escape(found.alt)}" src="data:image/png;base64,{data}"></div>'


def _cut(png, edges):
    """The parts of a picture between pairs of heights, as fractions, one below the other.

    One of several panels, and the axis that they share, fill a slide; all of them could not be read from the last row.
    """
    picture = PIL.Image.open(io.BytesIO(png)).convert("RGB")
    rows = [round(edge * picture.height) for edge in edges]
    parts = [picture.crop((0, top, picture.width, bottom)) for top, bottom in zip(rows[::2], rows[1::2], strict=True)]
    cut = PIL.Image.new("RGB", (picture.width, sum(part.height for part in parts)))
    top = 0
    for part in parts:
        cut.paste(part, (0, top))
        top += part.height
    buffer = io.BytesIO()
    cut.save(buffer, "png")
    return buffer.getvalue()


def _value(argument):
    return figures.value(*argument.split(": ", 1))


def _claimed(key):
    return results.read("claims")[key[:2]]["claims"][key]["value"]


def _perplexity(row):
    return three_digits({each["row"]: each["perplexity"] for each in results.read("main_job")["rows"]}[row])


def _quality(argument):
    method, amount = argument.split()
    cells = results.quality(method=method, amount=amount, text="wikipedia", usual=True)
    return three_digits(statistics.mean(cell["perplexity"] for cell in cells))


def _run(file, key):
    """A function from the name of a run to this number of its row, with two digits."""
    return lambda run: f"{ {row['run']: row[key] for row in results.read(file)['rows']}[run]:.2g}"


def _reported(argument):
    model, method, *amount = argument.split()
    wanted = {"model": model, "method": method, "amount": "".join(amount), "window": 4096}
    (found,) = [each for each in reported.figures() if wanted.items() <= each.items()]
    return f"{found['perplexity']:.2f}"


def _toy(name):
    """As a LaTeX matrix."""
    score = WEIGHT.abs() * NORMS
    rescaled = WEIGHT * torch.tensor([[1.0], [0.1], [1.0]])
    values, mask = {
        "weights": (WEIGHT, None),
        "sizes": (WEIGHT.abs(), None),
        "scores": (score, None),
        "magnitude": (WEIGHT, wanda.prune_mask(WEIGHT.abs(), 0.5, group="layer")),
        "rescaled": (rescaled, wanda.prune_mask(rescaled.abs(), 0.5, group="layer")),
        "wanda": (WEIGHT, wanda.prune_mask(score, 0.5)),
        "2:4": (WEIGHT, wanda.prune_mask(score, pattern="2:4")),
    }[name]
    mask = torch.zeros_like(values, dtype=torch.bool) if mask is None else mask
    rows = [
        " & ".join(rf"\cancel{{{entry:.3g}}}" if pruned else f"{entry:.3g}" for entry, pruned in zip(*row, strict=True))
        for row in zip(values.tolist(), mask.tolist(), strict=True)
    ]
    return r"\begin{bmatrix}" + r" \\ ".join(rows) + r"\end{bmatrix}"


SOURCES = {
    "figure": _figure,
    "value": _value,
    "claim": lambda key: short(_claimed(key)),
    "percent": lambda key: f"{_claimed(key):.0%}".replace("%", " %"),
    "perplexity": _perplexity,
    "quality": _quality,
    "forwards": _run("speed", "forwards"),
    "seconds": _run("gpu", "seconds"),
    "reported": _reported,
    "toy": _toy,
}


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="fill in the decks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the filled decks")
    folder = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    for deck in sorted(FOLDER.glob("*.md")):
        (folder / deck.name).write_text(fill(deck.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
