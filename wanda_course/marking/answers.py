"""Take the answers out of a notebook: the functions that exercises ask for, with what of the notebook they use.

An answer is its function, and all functions, classes, imports and constants of the notebook whose names it uses, and
those that these use. Nothing else of a cell is run: no call, no plot, no model. Where an answer uses a piece of the
notebook's own code that is an exercise itself, it gets the reference, as `exercises.build` does in the notebook.
"""

import ast
import inspect
import textwrap
from typing import NamedTuple

from IPython.core.inputtransformer2 import TransformerManager

from ..exercises import EXERCISES

PARSING = (SyntaxError, ValueError, RecursionError, MemoryError)  # what ast raises, depending on what is wrong


class Answer(NamedTuple):
    """The code of an answer. source: of everything that it needs, in order. name: of its function."""

    source: str
    name: str


class Definition(NamedTuple):
    """A statement at the top level of a cell that gives names a meaning. place: (cell, statement)."""

    place: tuple
    node: ast.stmt
    source: str  # of the whole cell


class Notebook:
    """The code of a submitted notebook.

    Args:
        sources: of the code cells, in order. number: of the notebook, such as "05".
    """

    def __init__(self, sources, number):
        self.pieces = {e.solution.__name__: e for e in EXERCISES.values() if e.is_piece and e.key[:2] == number}
        self.definitions = {}  # name -> list of `Definition`, in order
        self.checked = {}  # key -> name of the last function that the notebook's own check, build or grade is given
        self.broken = []  # (source, what is wrong)
        for cell, source in enumerate(sources):
            try:
                source, tree = _parsed(source)
            except PARSING as error:
                self.broken.append((source, f"{type(error).__name__}: {error}"))
                continue
            for index, node in enumerate(tree.body):
                for name in _names_defined(node):
                    self.definitions.setdefault(name, []).append(Definition((cell, index), node, source))
            self.checked |= {key: name for key, name in _checks(tree) if key in EXERCISES}

    def answer(self, key):
        """The answer to an exercise.

        Returns: `Answer`.

        Raises: LookupError: the notebook has none; the message says why.
        """
        wanted = EXERCISES[key].solution.__name__
        name = next((name for name in (wanted, self.checked.get(key)) if name in self.definitions), None)
        if name is None:
            for source, problem in self.broken:
                if f"def {wanted}" in source:
                    raise LookupError(f"the cell that defines `{wanted}` is not valid Python ({problem})")
            raise LookupError(f"no cell defines `{wanted}`")
        own = self.definitions[name][-1]
        needed, names = {own.place: own}, [*_names_used(own.node)]
        seen = {name}
        while names:
            found = names.pop()
            if found in seen:
                continue
            seen.add(found)
            definition = self._meaning(found, own.place[0])
            if definition is not None and definition.place not in needed:
                needed[definition.place] = definition
                names += _names_used(definition.node)
        return Answer("\n\n".join(_text(needed[place]) for place in sorted(needed)), name)

    def _meaning(self, name, cell):
        """What a name stands for in a cell's code; None for a built-in, an argument, or what no cell defines."""
        found = self.definitions.get(name, [])
        here = [definition for definition in found if definition.place[0] == cell]
        if not here and name in self.pieces:
            source = textwrap.dedent(inspect.getsource(self.pieces[name].solution))
            return Definition((-1, list(self.pieces).index(name)), ast.parse(source).body[0], source)
        constant = [definition for definition in here or found if here or _is_harmless(definition.node)]
        return constant[-1] if constant else None


def _parsed(source):
    """A cell as Python. Magics such as `%timeit` and `!ls` become calls, which are not run.

    Returns: (source, tree).

    Raises: one of `PARSING`.
    """
    try:
        return source, ast.parse(source)
    except SyntaxError:
        source = TransformerManager().transform_cell(source)
        return source, ast.parse(source)


def _names_defined(node):
    """The names that a statement at the top level gives a meaning."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    if isinstance(getattr(node, "value", None), ast.Call) and _key_of(node.value):  # f = exercises.build("NN.bn", f)
        return []
    return [part.id for target in targets for part in ast.walk(target) if _is_stored(part)]


def _is_stored(node):
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _names_used(node):
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def _is_harmless(node):
    """Whether a statement of another cell may be run for an answer: a definition, an import, or a written constant."""
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or isinstance(node.value, ast.Lambda):
        return True
    try:
        ast.literal_eval(node.value)
    except (*PARSING, TypeError):
        return False
    return True


def _checks(tree):
    """The (key, name of the function) of each `exercises.check`, `build` or `grade` in a cell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _key_of(node) and len(node.args) > 1 and isinstance(node.args[1], ast.Name):
            yield _key_of(node), node.args[1].id


def _key_of(call):
    """The key of the exercise that a call checks; "" for any other call."""
    is_check = isinstance(call.func, ast.Attribute) and call.func.attr in ("check", "build", "grade")
    first = call.args[0] if is_check and call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _text(definition):
    """The statement as written, so that a line of it can be quoted."""
    node = definition.node
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return ast.unparse(node)
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(definition.source.splitlines()[start - 1 : node.end_lineno])
