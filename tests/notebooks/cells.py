"""The functions that notebooks define in cells, for the tests that compare them with the module's."""

import ast
import json
import math
from pathlib import Path

import torch

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SHAPES = [(1, 1), (3, 4), (8, 5), (16, 33), (40, 64)]


def cell_function(notebook, name, **known):
    """The function (or class) `name` from the one cell of a notebook that defines it, with `known` in scope."""
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (source,) = [source for source in sources if f"def {name}(" in source or f"class {name}(" in source]
    namespace = {"torch": torch, "math": math, **known}
    exec(source, namespace)
    return namespace[name]


def cell_definition(notebook, name):
    """A function from its definition alone, out of a cell that does other things too."""
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    trees = [ast.parse("".join(cell["source"])) for cell in cells if f"def {name}(" in "".join(cell["source"])]
    (function,) = [node for tree in trees for node in tree.body if getattr(node, "name", None) == name]
    namespace = {"torch": torch, "math": math}
    exec(ast.unparse(function), namespace)
    return namespace[name]


def scores(outputs, width, levels=None):
    """A random score; with few levels, most of its entries are tied."""
    generator = torch.Generator().manual_seed(outputs * width)
    if levels is None:
        return torch.randn(outputs, width, generator=generator)
    return torch.randint(levels, (outputs, width), generator=generator).float()
