"""The required anatomy of the course's notebooks. Each check takes a notebook and yields its complaints, as sentences.

The checks work on notebooks as nbformat reads them. `test_notebooks.py` runs them on the real ones, and on broken ones
to show that each check can fail.
"""

import ast
import re
import statistics
from pathlib import Path

MAX_BYTES = 1_000_000
MAX_LINES = 30
MAX_WIDTH = 88  # characters of a line of code
MAX_MEDIAN_LINES = 8
MAX_BOOTSTRAP_LINES = 7
MIN_ALT = 30  # characters
MIN_CLAIMS = 3
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"

# A folder on somebody's machine. Web addresses do not match: something precedes their slash.
MACHINE_PATH = re.compile(r"(?<![\w./:~-])/(?:root|tmp|home|work|Users|var|opt|mnt)/[^\s\"')]*|\bC:\\+\w+")
LINK = re.compile(r"\]\(([^)\s]+)\)")
WORD = re.compile(r"[^\W\d_][\w'’-]*")


def code_cells(notebook):
    """The code cells that are not empty."""
    return [cell for _, cell in _numbered(notebook)]


def markdown(notebook):
    """The text of all markdown cells."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def lines(source):
    """The lines that are not blank."""
    return [line for line in source.splitlines() if line.strip()]


def outputs(notebook):
    """Pairs of a cell's number and one of its outputs."""
    return [(number, output) for number, cell in _numbered(notebook) for output in cell.outputs]


def pictures(output):
    """The alt texts of the pictures that an output shows: a list. A picture without one counts as an empty text."""
    data = output.get("data", {})
    shown = re.findall(r"<img\b[^>]*>", data.get("text/html", ""))
    alts = [re.search(r'\balt="([^"]*)"', tag) for tag in shown]
    return [alt[1] if alt else "" for alt in alts] + [""] * any(kind.startswith("image/") for kind in data)


def is_folded(cell):
    """Whether a reader sees a cell's output but not its code, in JupyterLab, in Colab and on the site."""
    return (
        cell.metadata.get("jupyter", {}).get("source_hidden", False)
        and cell.metadata.get("cellView") == "form"
        and "hide-input" in cell.metadata.get("tags", [])
    )


def bootstrap(notebook):
    """The source of the first code cell."""
    return next((cell.source for cell in notebook.cells if cell.cell_type == "code"), "")


def measured(notebook):
    """(cores, minutes, GiB of memory, MB to fetch) of a run, from the header; None if any is missing."""
    found = re.search(
        r"<!-- measured -->\s+Measured on (\d+) cores? [^\n]*?: ([\d.]+) minutes, ([\d.]+) GiB of memory; ([\d,]+) MB fetched once",
        notebook.cells[0].source,
    )
    return tuple(float(number.replace(",", "")) for number in found.groups()) if found else None


def core_minutes(notebook):
    """The minutes of a run times its cores, from the header; None if they are missing."""
    found = measured(notebook)
    return found[0] * found[1] if found else None


# The checks -------------------------------------------------------------------------------------------------------------


def executed_in_order(notebook):
    """Every code cell has run, once, from top to bottom."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the cells were not executed once each in order: their counts are {counts}"


def own_parameters(notebook):
    """The committed run used the notebook's own values: papermill injected no others."""
    for number, cell in _numbered(notebook):
        if "injected-parameters" in cell.metadata.get("tags", []):
            yield f"cell {number} holds parameters of a profile: execute the notebook in place"


def no_errors(notebook):
    """No output is an error, and nothing was written to stderr."""
    for number, output in outputs(notebook):
        if output.output_type == "error":
            yield f"cell {number} ended in {output.ename}: {output.evalue}"
        elif output.output_type == "stream" and output.name == "stderr":
            yield f"cell {number} wrote to stderr: {output.text[:80]!r}"


def alt_text(notebook):
    """Every image has alt text that says what it shows."""
    for number, output in outputs(notebook):
        for alt in pictures(output):
            if len(alt.strip()) < MIN_ALT:
                yield f"cell {number} shows an image with {alt!r} for alt text"
    for alt, address in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", markdown(notebook)):
        if not alt.strip():
            yield f"the image {address} in the text has no alt text"


def figures_explained(notebook):
    """After each figure, and before the next, a sentence says what to see in it."""
    waiting = None
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and "**What you should see" in cell.source:
            waiting = None
        elif any(pictures(output) for output in cell.get("outputs", [])):
            if waiting is not None:
                yield f"nothing says what to see in the figure of cell {waiting}"
            waiting = number
    if waiting is not None:
        yield f"nothing says what to see in the figure of cell {waiting}"


def predictions(notebook):
    """The reader is asked to predict before seeing the answer, can record it, and sees it beside the result."""
    if "**Predict" not in markdown(notebook):
        yield "the reader is never asked to predict"
    code = "\n".join(cell.source for cell in code_cells(notebook))
    asked = re.findall(r'\bpredict\("([^"]+)"', code)
    compared = re.findall(r'\bpredict\.compare\("([^"]+)"', code)
    number = notebook.cells[0].source[2:4]
    if f'predict = predictions.under("{number}")' not in code:
        yield f"predictions.under({number!r}) is missing"
    if asked != [f"{number}.p{place + 1}" for place in range(len(asked))] or not asked:
        yield f"the predictions are {', '.join(asked) or 'none'}; expected {number}.p1, {number}.p2, … in order"
    if sorted(asked) != sorted(compared):
        yield f"predictions {', '.join(asked)} are compared as {', '.join(compared)}: expected each once"
    if left := re.findall(r'\bpredict\("([^"]+)", (?!\.\.\.)', code):
        yield f"the predictions {', '.join(left)} are filled in"


def claims_made(notebook):
    """The notebook claims its measurements under its own number, sums them up at its end, and all match the text."""
    code = "\n".join(cell.source for cell in code_cells(notebook))
    number = notebook.cells[0].source[2:4]
    if f'claim = claims.under("{number}", globals())' not in code:
        yield f"nothing compares its claims: claims.under({number!r}, globals()) is missing"
    found = len(re.findall(r"\bclaim\(", code))
    if found < MIN_CLAIMS:
        yield f"{found} claims; {MIN_CLAIMS} are required"
    places = [place for place, cell in enumerate(notebook.cells) if cell.source.startswith("## Takeaways")]
    if not places or notebook.cells[places[0] - 1].source != "claim.summary()\npredict.summary()":
        yield "claim.summary() and predict.summary() are not the cell before the takeaways"
    for cell, output in outputs(notebook):
        if re.search(r"differs here|different here|claims not compared", str(output.get("text", ""))):
            yield f"cell {cell} was committed with a claim that differs from the text or was not compared"


def protocol_named(notebook):
    """The notebook shows its data, and says so if its protocol is not the course's."""
    said = "\n".join(str(output.get("text", "")) for _, output in outputs(notebook))
    if "the course's protocol" not in said:
        yield "protocol.show was not called"
    elif "Not the course's protocol" in said and "**Another protocol.**" not in markdown(notebook):
        yield "it has another protocol and does not say so"


def exercises_offered(notebook, exercises):
    """Each exercise is there, untouched and checked; its effort, hints and a solution are shown; no exercise is unknown.

    Args:
        exercises: those of the notebook's set, without the pieces of the notebook's own code.
    """
    keys = [exercise.key for exercise in exercises]
    for exercise in exercises:
        if not re.search(rf"Exercise {exercise.key} · [^\n]*\n\n{re.escape(exercise.effort)}\n", markdown(notebook)):
            yield f"below its heading, exercise {exercise.key} does not say: {exercise.effort}"
    code = "\n".join(cell.source for cell in code_cells(notebook))
    for key in sorted(set(re.findall(r'exercises\.\w+\("([\d.]+)"', code)) - set(keys)):
        yield f"there is no exercise {key}"
    said = "\n".join(str(output.get("text", "")) for _, output in outputs(notebook))
    for key in keys:
        if f'exercises.check("{key}", ' not in code:
            yield f"exercise {key} is not in the notebook"
        elif f"{key} not attempted yet" not in said:
            yield f"exercise {key} was not an untouched stub when the notebook was run"
    for ask in ("hint", "solution"):
        if keys and f"# exercises.{ask}(" not in code:
            yield f"no line that shows a {ask}"


def pieces_given(notebook, pieces):
    """Each piece of the notebook's own code stands in one tagged cell, right by its own checker.

    Args:
        pieces: the exercises of the notebook's set that are pieces.
    """
    cells = {}
    for cell in code_cells(notebook):
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("build-"):
                cells.setdefault(tag.removeprefix("build-"), []).append(cell)
    for key in cells.keys() - {exercise.key for exercise in pieces}:
        yield f"there is no piece {key}"
    for exercise in pieces:
        name, found = exercise.solution.__name__, cells.get(exercise.key, [])
        nodes = [node for cell in found for node in ast.parse(cell.source).body if getattr(node, "name", None) == name]
        if len(found) != 1 or len(nodes) != 1:
            yield f"piece {exercise.key}: {len(found)} cells with its tag, {len(nodes)} functions {name}; expected one"
        elif ast.get_docstring(nodes[0]) is None:
            yield f"piece {exercise.key}: {name} has no docstring, so its stub would not say what to write"


def folded(notebook):
    """Cells that plot or compare claims are folded; others are not."""
    for number, cell in _numbered(notebook):
        tags = cell.metadata.get("tags", [])
        if is_folded(cell) != ("claims" in tags or "plots.show(" in cell.source):
            yield f"cell {number} is {'' if is_folded(cell) else 'not '}folded"


def narrow_code(notebook):
    """No line of code is wider than a page shows."""
    for number, cell in _numbered(notebook):
        for line in cell.source.splitlines():
            if len(line) > MAX_WIDTH and "github.com" not in line:
                yield f"cell {number} has a line of {len(line)} characters; {MAX_WIDTH} are allowed"


def one_parameters_cell(notebook):
    """Papermill needs one cell tagged as parameters, and a Colab user needs a form for each parameter."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells are tagged parameters; expected one"
    for cell in tagged:
        for line in lines(cell.source):
            if "# @param" not in line:
                yield f"the parameter {line.partition('=')[0].strip()!r} has no Colab form (# @param)"


def short_bootstrap(notebook):
    """The first code cell installs the package only if it is missing, in a few lines, and nothing else."""
    source = bootstrap(notebook)
    if len(lines(source)) > MAX_BOOTSTRAP_LINES:
        yield f"the bootstrap cell has {len(lines(source))} lines; {MAX_BOOTSTRAP_LINES} are allowed"
    if 'find_spec("wanda_course")' not in source:
        yield "the first code cell does not look for the package (find_spec) before installing it"
    for word in re.findall(
        r"\b(?:torch|numpy|transformers)\b|--?(?:U|upgrade|force-reinstall)\b|wanda-pruning\[", source
    ):
        yield f"the bootstrap cell says {word!r}: it could replace a platform's own packages"


def short_cells(notebook):
    """Cells are small enough to read at a glance."""
    sizes = {number: len(lines(cell.source)) for number, cell in _numbered(notebook)}
    for number, size in sizes.items():
        if size > MAX_LINES:
            yield f"cell {number} has {size} lines of code; {MAX_LINES} are allowed"
    if sizes and (median := statistics.median(sizes.values())) > MAX_MEDIAN_LINES:
        yield f"the median code cell has {median} lines; {MAX_MEDIAN_LINES} are allowed"


def more_prose_than_code(notebook):
    """There are at least as many words of text as of code. Addresses, formulas and markup do not count."""
    text = re.sub(r"\]\([^)]*\)|<[^>]*>|\$\$.*?\$\$|\$[^$]*\$", " ", markdown(notebook), flags=re.DOTALL)
    prose = len(WORD.findall(text))
    code = sum(len(WORD.findall(cell.source)) for cell in code_cells(notebook))
    if prose < code:
        yield f"{prose} words of prose, {code} of code"


def links_resolve(notebook, folder):
    """Relative links lead to files of the repository, anchors to headings. folder: the notebook's."""
    text = markdown(notebook)
    anchors = {
        heading.strip().replace(" ", "-").lower() for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    }
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        if path and not (Path(folder) / path).exists():
            yield f"the link {target} leads nowhere"
        elif not path and anchor.lower() not in anchors:
            yield f"the link {target} leads to no heading"


def no_machine_paths(notebook):
    """Nothing reveals on whose machine, or in which folder, the notebook was run. Images are not searched."""
    for number, cell in enumerate(notebook.cells):
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
            texts += [str(text) for kind, text in output.get("data", {}).items() if not kind.startswith("image/p")]
            texts.append(str(output.get("metadata", "")))
        for found in MACHINE_PATH.findall("\n".join(texts)):
            yield f"cell {number} names a path of a machine: {found}"


def small(size):
    """The file is small. size: in bytes."""
    if size > MAX_BYTES:
        yield f"the file has {size:,} bytes; {MAX_BYTES:,} are allowed"


def first_cell(notebook, name, before=None, after=None):
    """The first cell has a title, promise, badge, objectives, prerequisites, measured cost and links to neighbours.

    Args:
        name: of the notebook, without folder and suffix. before, after: names of the neighbours, if any.
    """
    cell = notebook.cells[0]
    if cell.cell_type != "markdown":
        yield "the first cell is not markdown"
        return
    source, number = cell.source, name.partition("_")[0]
    text = lines(source)
    if not text or not re.match(rf"# {number} · \S", text[0]):
        yield f"the title is not '# {number} · …'"
    if len(text) < 2 or not re.fullmatch(r"\*[^*].*\*", text[1]):
        yield "no promise in italics below the title"
    if BADGE not in source or f"/notebooks/{name}.ipynb)" not in source:
        yield f"no Colab badge that opens {name}.ipynb"
    for part in ("**You will**", "**You need**"):
        if part not in source:
            yield f"no {part} in the first cell"
    if not re.search(r"^Reading: about \d+ minutes\b", source, flags=re.MULTILINE):
        yield "the first cell does not say how long reading takes"
    if measured(notebook) is None:
        yield "the first cell does not say what a run takes (minutes, memory, download): execute the notebook in place"
    for arrow, neighbour in (("←", before), ("→", after)):
        if neighbour and (f"({neighbour}.ipynb)" not in source or arrow not in source):
            yield f"no {arrow} link to {neighbour}.ipynb"


def last_parts(notebook):
    """The notebook has takeaways, self-check questions with folded answers, and references."""
    for part in ("## Takeaways", "**Ask yourself**", "**References.**"):
        if not re.search(rf"^{re.escape(part)}", markdown(notebook), flags=re.MULTILINE):
            yield f"no {part}"
    open_question = markdown(notebook).partition("**Discuss.**")[2]
    if len(WORD.findall(open_question.partition("**References.**")[0])) < 10:
        yield "no open question: **Discuss.** before the references"
    asked = markdown(notebook).partition("**Ask yourself**")[2]
    questions = len(re.findall(r"^\d+\. ", asked, flags=re.MULTILINE))
    folded = len(re.findall(r"<details><summary>.*?</summary>.+?</details>", asked, flags=re.DOTALL))
    if not questions == folded >= 1:
        yield f"{questions} self-check questions, {folded} folded answers"


def portable_outputs(notebook):
    """Outputs that are compared neither name the machine nor hold the random id that pandas gives a styled table."""
    for number, cell in _numbered(notebook):
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            continue
        if "environment.prepare()" in cell.source:
            yield f"cell {number} calls environment.prepare() and lacks the tag nbval-ignore-output"
        for output in cell.outputs:
            if found := re.search(r'id="(T_[0-9a-f]{5})"', output.get("data", {}).get("text/html", "")):
                yield f"cell {number} shows a styled table with a random id, {found[1]}: name it with set_uuid"


CHECKS = (
    executed_in_order,
    own_parameters,
    no_errors,
    alt_text,
    figures_explained,
    predictions,
    claims_made,
    protocol_named,
    one_parameters_cell,
    short_bootstrap,
    short_cells,
    more_prose_than_code,
    no_machine_paths,
    last_parts,
    portable_outputs,
    folded,
    narrow_code,
)
"""The checks that need only the notebook."""


def _numbered(notebook):
    return [
        (number, cell) for number, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()
    ]
