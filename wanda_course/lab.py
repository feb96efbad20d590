"""The lab as a notebook, with stubs or with its solution, from docs/teaching/lab.py.

python -m wanda_course.lab student --out lab.ipynb      # or: solution
"""

import argparse
import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from wanda.sources.download import CHECKOUT

SOLUTION = re.compile(r"^( *)# BEGIN SOLUTION\n.*?^ *# END SOLUTION$", re.MULTILINE | re.DOTALL)
MARKS = re.compile(r"^ *# (BEGIN|END) SOLUTION\n", re.MULTILINE)


def cells():
    """The cells of docs/teaching/lab.py: list of (kind, source); kind is what follows the percent signs."""
    text = (CHECKOUT / "docs" / "teaching" / "lab.py").read_text(encoding="utf-8")
    parts = re.split(r"^# %% ?(.*)\n", text, flags=re.MULTILINE)[1:]  # what comes before the first cell is left out
    return [(kind, source.strip()) for kind, source in zip(parts[::2], parts[1::2], strict=True)]


def notebook(solved):
    """The lab as a notebook without outputs. solved: whether with its solution."""
    found, answer = [], None
    for kind, source in cells():
        text = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        if kind == "[markdown]":
            found.append(new_markdown_cell(text))
            if text.startswith("## "):
                answer = new_markdown_cell("*Your written answer:*")
                found.append(answer)
        elif kind == "[markdown] solution":
            answer.source += f"\n\n{text}" if solved else ""
        else:
            source = MARKS.sub("", source) if solved else SOLUTION.sub(r"\1raise NotImplementedError", source)
            found.append(new_code_cell(source, metadata={"tags": [kind]} if kind else {}))
    return new_notebook(cells=found)


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edition", choices=("student", "solution"))
    parser.add_argument("--out", type=Path, help="the file (default: lab-EDITION.ipynb)")
    options = parser.parse_args(arguments)
    path = options.out or Path(f"lab-{options.edition}.ipynb")
    nbformat.write(notebook(solved=options.edition == "solution"), path)
    print(path)


if __name__ == "__main__":
    main()
