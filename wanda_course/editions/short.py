"""The short form of a notebook: its exercises and the code that they need, without the experiments around them."""

import ast

from .build import solution_source

READY = "environment.prepare()"  # in the cell with a notebook's imports
DEFINES = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def shortened(cells, tasks):
    """The cells up to the imports; the exercises with their texts, checks and hints; the functions that they call.

    Args:
        cells: of an edition whose checks have cells of their own. tasks: as `assignment.tasks` finds them.
    """
    ready = next(place for place, cell in enumerate(cells) if READY in cell.source) + 1
    answers = {id(task.answer): task for task in tasks}
    checks = {id(task.check): task for task in tasks}
    kept, needed = [], set()
    for place in reversed(range(ready, len(cells))):  # what is called is defined further up
        cell, below = cells[place], cells[place + 1 : place + 2]
        if id(cell) in answers:
            needed |= _names(cell.source) | _names(solution_source(answers[id(cell)].exercise))
        elif task := checks.get(id(cell)):
            if cell.source.startswith("if "):  # it goes on with the experiments' results
                cell.source = f'exercises.check("{task.exercise.key}", {task.name})'
        elif cell.cell_type == "markdown":
            if not (below and id(below[0]) in answers):
                continue
            cell.source = cell.source[max(cell.source.find("### Exercise"), 0) :]
        elif "# exercises.hint(" not in cell.source:
            cell.source = _definitions(cell.source, needed)
            if not cell.source:
                continue
        kept.append(cell)
    return cells[:ready] + kept[::-1]


def _definitions(source, needed):
    """The needed functions, classes and imports of a cell, as source. The names that they use are added to `needed`."""
    if source.lstrip().startswith("%"):
        return ""
    lines, parts = source.splitlines(), []
    for node in reversed(ast.parse(source).body):
        if isinstance(node, DEFINES) and _defined(node) & needed:
            start = min(part.lineno for part in (node, *getattr(node, "decorator_list", ())))
            parts.append("\n".join(lines[start - 1 : node.end_lineno]))
            needed |= _names(parts[-1])
    return "\n\n\n".join(parts[::-1])


def _defined(node):
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return {node.name}


def _names(source):
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
