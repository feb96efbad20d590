"""Which code of a notebook is an answer."""

import pytest

from wanda_course.exercises import EXERCISES
from wanda_course.marking.answers import Notebook

KEY, NAME = "02.3", "output_error"
STUB = f"def {NAME}(weight, inputs, mask):\n    raise NotImplementedError"
CHECK = f'exercises.check("{KEY}", {NAME})'


def source(*cells, key=KEY):
    return Notebook(cells, key[:2]).answer(key).source


def test_an_answer_is_its_function_and_what_it_uses_of_the_notebook():
    cells = (
        "import math\nimport torch\nfrom functools import cache as remembered\nmodel = wanda.load('smollm2')",
        "EPS, LIMIT = 1e-8, 3\nother = 4\nsquare = lambda x: x * x",
        "class Base:\n    pass\n\n\ndef helper(x):\n    return Later(square(x))",
        f"print(model)\n\n\n@remembered\ndef {NAME}(w, x, m):  # mine\n    return helper(w) + EPS\n\n\n{CHECK}\n1 / 0",
        "class Later(Base):\n    pass",
    )
    assert source(*cells) == "\n\n".join(
        [
            "from functools import cache as remembered",
            "EPS, LIMIT = (1e-08, 3)",
            "square = lambda x: x * x",
            "class Base:\n    pass",
            "def helper(x):\n    return Later(square(x))",
            f"@remembered\ndef {NAME}(w, x, m):  # mine\n    return helper(w) + EPS",
            "class Later(Base):\n    pass",
        ]
    )


def test_a_value_that_must_be_computed_is_taken_from_the_answers_own_cell_only():
    function = f"def {NAME}(w, x, m):\n    return table"
    assert source("table = build()", function) == function
    assert source(f"table = build()\n{function}") == f"table = build()\n\n{function}"


def test_the_last_definition_counts():
    assert source(STUB, f"{NAME} = 1", f"def {NAME}(): return 2", CHECK) == f"def {NAME}(): return 2"


def test_a_renamed_function_is_found_by_the_notebooks_own_check():
    answer = Notebook(["def mine(): return 1", f'exercises.check("{KEY}", mine)'], "02").answer(KEY)
    assert (answer.name, answer.source) == ("mine", "def mine(): return 1")
    both = Notebook([STUB, "def mine(): return 1", f'exercises.check("{KEY}", mine)'], "02").answer(KEY)
    assert both.name == NAME  # notebooks check other functions too, to show what the checker says


def test_magics_and_other_broken_cells_are_passed_over():
    assert source("%timeit f()\n!ls", "def broken(:", STUB) == STUB
    assert source(f"%matplotlib inline\n{STUB}") == STUB


def test_why_there_is_no_answer_is_told():
    with pytest.raises(LookupError, match=f"no cell defines `{NAME}`"):
        source("x = 1")
    with pytest.raises(LookupError, match=f"defines `{NAME}` is not valid Python .SyntaxError"):
        source(f"def {NAME}(w:\n    return w")


def test_an_answer_gets_the_reference_of_a_piece_that_it_uses():
    key, name, used = "02.b2", "magnitude_mask", "smallest"
    code = f"def {name}(weight, sparsity, row_wise=False):\n    return {used}(weight, 1)"
    wrong = f"def {used}(rows, count):\n    return rows"
    build = f'{used} = exercises.build("02.b1", {used})'
    found = source("import torch", wrong, build, code, key=key)
    assert found.startswith(f"def {used}(rows, count):\n    order = ")
    assert found.endswith(code)
    assert "return rows" not in found
    assert source(wrong, build, code, key="02.b1") == wrong
    assert source(f"{wrong}\n{code}", key=key) == f"{wrong}\n\n{code}"  # unless it stands in the same cell


def test_which_exercises_a_notebook_checks_is_known():
    cells = ['f = exercises.build("02.b1", f)', CHECK, 'exercises.check("77.7", f)', "exercises.check(key, f)"]
    assert Notebook(cells, "02").checked == {"02.b1": "f", KEY: NAME}


@pytest.mark.parametrize("key", [e.key for e in EXERCISES.values() if e.is_piece])
def test_no_other_exercise_of_its_notebook_has_a_pieces_name(key):
    name = EXERCISES[key].solution.__name__
    assert [e.key for e in EXERCISES.values() if e.solution.__name__ == name and e.key[:2] == key[:2]] == [key]
