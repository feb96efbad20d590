"""The question bank as a GIFT file, which Moodle and other quiz tools import.

    python -m wanda_course.questions --seed 7 --out FOLDER

The fixed questions are read from data/questions.toml, the numerical ones drawn from templates: another seed, other numbers.
"""

import argparse
import random
import re
from pathlib import Path

from wanda.sources.download import CHECKOUT, tomllib

from . import PACKAGE
from .numerical_questions import TEMPLATES

FILE = "questions.gift"


def fixed():
    """The questions of data/questions.toml, as dicts."""
    file = (CHECKOUT or PACKAGE) / "data" / "questions.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))["question"]


def drawn(seed):
    """The numerical questions, as dicts. A question's numbers depend on the seed and its id, not on the other questions."""
    found = []
    for key, (title, function) in TEMPLATES.items():
        draw = function(random.Random(f"{seed}-{key}"))
        found.append({"id": key, "kind": "numerical", "title": title, **draw._asdict()})
    return found


def escape(text):
    """Text with GIFT's special characters escaped."""
    return re.sub(r"([\\~=#{}:])", r"\\\1", text)


def gift(question):
    """One question in GIFT. question: dict as in data/questions.toml, or as `drawn` makes it."""
    lines = KINDS[question["kind"]](question)
    if "why" in question:  # shown to everybody afterwards
        lines = [*lines, f"####{escape(question['why'])}"]
    name = escape(f"{question['id']} {question['title']}")
    head = f"// [id:{question['id']}]\n::{name}::[plain]{escape(question['text'])} {{"
    return "\n".join([head, *(f"\t{line}" for line in lines), "}"])


def _choice(question):
    """Options in alphabetical order, so that the place of the right one says nothing."""
    options = [("=", question["right"], question["because"])]
    options += [("~", text, feedback) for text, feedback in question["wrong"]]
    options.sort(key=lambda option: option[1].lower())
    return [f"{sign}{escape(text)}#{escape(feedback)}" for sign, text, feedback in options]


def _true_false(question):
    """GIFT has the feedback to a wrong answer first."""
    said = "TRUE" if question["answer"] else "FALSE"
    return [f"{said}#{escape(question['if_wrong'])}#{escape(question['if_right'])}"]


def _matching(question):
    return [f"={escape(left)} -> {escape(right)}" for left, right in question["pairs"]]


def _short(question):
    return [f"={escape(answer)}#{escape(question['because'])}" for answer in question["answers"]]


def _numerical(question):
    return [f"#{question['answer']:.10g}:{question['tolerance']:.10g}"]


KINDS = {
    "choice": _choice,
    "true/false": _true_false,
    "matching": _matching,
    "short": _short,
    "numerical": _numerical,
}


def bank(seed=0):
    """The whole bank as GIFT: a category for each notebook, the fixed questions first."""
    questions = sorted([*fixed(), *drawn(seed)], key=lambda question: question["id"])
    parts = [f"// Questions on Wanda and its relatives; numbers drawn with seed {seed}. Text: CC BY 4.0."]
    category = None
    for question in questions:
        if question["id"][:2] != category:
            category = question["id"][:2]
            parts.append(f"$CATEGORY: wanda/{category}")
        parts.append(gift(question))
    return "\n\n".join(parts) + "\n"


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the numerical questions (default: 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=f"where to write {FILE}")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / FILE).write_text(bank(options.seed), encoding="utf-8")
    print(options.out / FILE)


if __name__ == "__main__":
    main()
