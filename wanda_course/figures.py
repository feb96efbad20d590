"""The figures and the printed results of the committed notebooks, for the slides."""

import base64
import html
import re
from functools import cache
from typing import NamedTuple

import nbformat

from .execute import NOTEBOOKS

# As `plots.show` writes it.
PICTURE = re.compile(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"')


class Figure(NamedTuple):
    """A figure of a notebook: its alt text, and its PNG as bytes."""

    alt: str
    png: bytes


@cache
def outputs(number):
    """The outputs of a notebook, in order. number: such as "02". Returns: list of strings, HTML or plain text."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            found.append(data.get("text/html") or data.get("text/plain") or output.get("text", ""))
    return found


def figures(number):
    """All figures of a notebook, in order."""
    pictures = [picture for text in outputs(number) for picture in PICTURE.findall(text)]
    return [Figure(html.unescape(alt), base64.b64decode(data)) for alt, data in pictures]


def figure(number, start):
    """The one figure of a notebook whose alt text begins like this. Raises ValueError if there is none, or several."""
    found = [each for each in figures(number) if each.alt.startswith(start)]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} figures of notebook {number} have an alt text that begins {start!r}; expected one"
        )
    return found[0]


@cache
def printed(number):
    """What a notebook's outputs say: tags removed, spaces and line breaks as one space each, alt texts left out."""
    text = "\n".join(re.sub(r"<style.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL) for text in outputs(number))
    return " ".join(html.unescape(text).split())


def value(number, pattern):
    """What the one group of a regular expression matches in a notebook's printed outputs.

    Raises: ValueError if the expression does not match, or if its matches differ.
    """
    found = set(re.findall(pattern, printed(number)))
    if len(found) != 1:
        raise ValueError(f"notebook {number}: {pattern!r} matches {sorted(found)}; expected one value")
    return found.pop()
