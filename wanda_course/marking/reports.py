"""What the marker writes: the score sheet, feedback for each student, the summary of the class."""

from collections import Counter

import mistune
import pandas

from ..exercises import EXERCISES

SHOWN_STATUS = ("right", "wrong", "not attempted", "missing")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body {{ max-width: 50rem; margin: 2rem auto; padding: 0 1rem; font-family: sans-serif }}
table {{ border-collapse: collapse }} td, th {{ padding: 0.2rem 0.8rem; border-bottom: 1px solid #ccc }}
pre {{ overflow-x: auto; background: #f4f4f4; padding: 0.6rem }}</style></head>
<body>
{body}</body></html>
"""
_markdown = mistune.create_markdown(escape=True, plugins=["table"])  # what students write must not become markup


def write(marks, problems, open_doors, folder):
    """Write `scores.csv`, `feedback/STUDENT.md` and `.html`, and `summary.md`.

    Args:
        marks: list of `Mark`. problems: list of str, notebooks that could not be read. open_doors: list of str, what
            answers could reach on this system. folder: created if it is not there.
    """
    (folder / "feedback").mkdir(parents=True, exist_ok=True)
    scores(marks).to_csv(folder / "scores.csv")
    for student in {mark.student: None for mark in marks}:
        text = feedback([mark for mark in marks if mark.student == student])
        (folder / "feedback" / f"{student}.md").write_text(text, encoding="utf-8")
        page = PAGE.format(title=mistune.escape(f"Feedback: {student}"), body=_markdown(text))
        (folder / "feedback" / f"{student}.html").write_text(page, encoding="utf-8")
    (folder / "summary.md").write_text(summary(marks, problems, open_doors), encoding="utf-8")


def scores(marks):
    """The sheet: a row per student, a column per exercise, and the total."""
    rows = pandas.DataFrame(
        [(mark.student, mark.key, mark.points) for mark in marks], columns=["student", "key", "points"]
    )
    sheet = rows.pivot(index="student", columns="key", values="points")[list(dict.fromkeys(rows.key))]
    return sheet.assign(total=sheet.sum(axis=1))


def feedback(marks):
    """One student's feedback as Markdown: points, a line per exercise, and what was found in each that is not right."""
    lines = [f"# Feedback: {_inline(marks[0].student)}", "", f"**{_points(marks)}**", ""]
    lines += _table(
        ("exercise", "", "status", "points", "cases passed"),
        [
            (
                key,
                EXERCISES[key].title,
                v.status,
                f"{mark.points} of {EXERCISES[key].points}",
                f"{v.passed} of {v.cases}",
            )
            for mark in marks
            for key, v in [(mark.key, mark.verdict)]
        ],
    )
    for mark in marks:
        if mark.verdict.status in ("wrong", "missing"):
            text = mark.verdict.text.removeprefix(f"✘ {mark.key}: ")
            indented = [f"    {line}" for line in text.splitlines()]  # a code block, whatever the text holds
            lines += ["", f"## {mark.key} {EXERCISES[mark.key].title}", "", *indented]
    return "\n".join([*lines, ""])


def summary(marks, problems, open_doors):
    """The class as Markdown: how many are right in each exercise, and which misconceptions there were, most frequent first."""
    students = len({mark.student for mark in marks})
    totals = scores(marks).total
    possible = sum(EXERCISES[key].points for key in {mark.key for mark in marks})
    lines = ["# The class", "", f"{students} students; mean {totals.mean():.1f} of {possible} points.", ""]
    for heading, found in (
        ("Notebooks that could not be read", problems),
        ("Not contained on this system", open_doors),
    ):
        if found:
            lines += [f"**{heading}**", "", *(f"- {_inline(text)}" for text in found), ""]
    statuses = Counter((mark.key, mark.verdict.status) for mark in marks)
    rows = [
        (
            key,
            EXERCISES[key].title,
            f"{statuses[key, 'right'] / students:.0%}",
            *(statuses[key, s] for s in SHOWN_STATUS),
        )
        for key in dict.fromkeys(mark.key for mark in marks)
    ]
    lines += _table(("exercise", "", "share right", *SHOWN_STATUS), rows)
    told = [(mark.key, mark.verdict.misconception or mark.verdict.nearest) for mark in marks]
    ideas = Counter(one for one in told if one[1])
    in_part = Counter(one for one, mark in zip(told, marks, strict=True) if mark.verdict.nearest)
    lines += ["", "## Misconceptions", ""]
    if not ideas:
        return "\n".join([*lines, "No wrong answer resembles a known misconception; see the feedback.", ""])
    lines += ["In part: on the first case that is not right, but not on all.", ""]
    head = ("students", "of them in part", "exercise", "what they were told")
    lines += _table(head, [(n, in_part[idea], *idea) for idea, n in ideas.most_common()])
    return "\n".join([*lines, ""])


def _points(marks):
    earned, possible = (
        sum(numbers) for numbers in zip(*((m.points, EXERCISES[m.key].points) for m in marks), strict=True)
    )
    return f"{earned} of {possible} points"


def _table(head, rows):
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_inline(cell) for cell in row) + " |" for row in cells]


def _inline(value):
    """Text that is no markup, on one line."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<|" else letter for letter in text)
