"""Every checker accepts the solution, knows a stub, and names the idea behind each wrong answer."""

import copy
import dataclasses
import functools
import inspect
import re
import signal
import sys
import threading
import warnings

import pytest
import torch

from wanda_course.exercises import checker, running
from wanda_course.exercises.types import Exercise
from wanda_course.exercises.values import same

EVERY = list(checker.EXERCISES.values())
WRONG = [(exercise, misconception) for exercise in EVERY for misconception in exercise.misconceptions]
KNOWN = {exercise.solution for exercise in EVERY} | {misconception.function for _, misconception in WRONG}


def keys(exercise):
    return exercise.key


def double(numbers, factor):
    return numbers * factor


EFFORT = {"difficulty": 1, "importance": 2, "minutes": 5}
TOY = Exercise(
    "99.1",
    "a toy",
    double,
    lambda generator: [
        (torch.tensor([1.0, 2.0]), 2.0),
        (torch.tensor([-1.0, 0.5]), 3.0),
        (torch.randn(40, generator=generator), 2.0),
    ],
    hints=("think twice", "times factor"),
    **EFFORT,
    wrong=[(lambda numbers, factor: numbers + factor, "you added")],
)


@TOY.misconception("you multiplied by three ones")
def by_three_ones(numbers, factor):
    return numbers @ torch.ones(3)


@functools.cache
def cases(make):
    """The cases that `check` has an exercise make, made once: it clones them before every use."""
    return make(torch.Generator().manual_seed(0))


def keeping_cases(exercise):
    return dataclasses.replace(exercise, cases=lambda generator: cases(exercise.cases))


QUICK = {exercise.key: keeping_cases(exercise) for exercise in EVERY} | {TOY.key: TOY}
run, remembered = checker.run, {}


def remembering_run(function, case):
    """Run solutions and misconceptions only once for each case."""
    if function not in KNOWN:  # the toy's: its cases are not kept
        return run(function, case)
    if (function, id(case)) not in remembered:
        remembered[function, id(case)] = run(function, case)
    return remembered[function, id(case)]


@pytest.fixture
def say(capsys, monkeypatch):
    """Check a function against an exercise, by default the toy, and return what is printed, on one line."""
    monkeypatch.setattr(checker, "EXERCISES", dict(QUICK))
    monkeypatch.setattr(checker, "run", remembering_run)

    def verdict(function, key=TOY.key):
        found = checker.check(key, lambda *arguments: function(*arguments))  # a learner's own, not a known one
        said = capsys.readouterr().out
        assert said == f"{found.text}\n"
        assert bool(found) == said.startswith("✔") == (found.passed == found.cases)
        assert " ".join(found.misconception.split()) in " ".join(said.split())
        return " ".join(said.split())

    return verdict


# Every exercise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notebook", sorted({exercise.key[:2] for exercise in EVERY} - {"00"}))
def test_each_notebook_has_three_exercises_and_a_piece_numbered_in_order(notebook):
    own = [exercise for exercise in EVERY if exercise.key.startswith(f"{notebook}.")]
    for prefix, pieces, least in (("", False, 3), ("b", True, 1)):
        found = [exercise.key for exercise in own if exercise.is_piece == pieces]
        assert found == [f"{notebook}.{prefix}{number}" for number in range(1, len(found) + 1)]
        assert len(found) >= least


@pytest.mark.parametrize("exercise", EVERY, ids=keys)
def test_its_effort_is_stated(exercise):
    assert {exercise.difficulty, exercise.importance} <= {1, 2, 3}
    assert 1 <= exercise.minutes <= 40


def test_every_exercise_of_a_file_is_found_under_a_key_of_its_own():
    written = [key for module in checker.SETS for key in re.findall(r'Exercise\(\s*"(.+?)"', inspect.getsource(module))]
    assert list(checker.EXERCISES) == written


@pytest.mark.parametrize("exercise", EVERY, ids=keys)
def test_the_solution_is_right(exercise, say):
    assert say(exercise.solution, exercise.key).startswith(f"✔ {exercise.key} {exercise.title}")


@pytest.mark.parametrize("exercise", EVERY, ids=keys)
def test_an_untouched_stub_is_not_attempted(exercise, say):
    def stub(*arguments):
        raise NotImplementedError

    assert say(stub, exercise.key) == f"{exercise.key} not attempted yet"


@pytest.mark.parametrize("exercise", EVERY, ids=keys)
def test_an_answer_without_a_return_is_told_so(exercise, say):
    for without in (lambda *arguments: None, lambda *arguments: ...):
        assert "Is a `return` missing?" in say(without, exercise.key)


@pytest.mark.parametrize("exercise", EVERY, ids=keys)
def test_there_are_three_misconceptions_each_with_its_own_diagnosis(exercise):
    diagnoses = {misconception.diagnosis for misconception in exercise.misconceptions}
    assert len(diagnoses) == len(exercise.misconceptions) >= 3
    assert all(len(diagnosis) > 20 for diagnosis in diagnoses)


@pytest.mark.parametrize(("exercise", "wrong"), WRONG, ids=[f"{e.key} {m.diagnosis[:40]}" for e, m in WRONG])
def test_each_misconception_gets_its_own_diagnosis(exercise, wrong, say):
    assert say(wrong.function, exercise.key) == f"✘ {exercise.key}: {' '.join(wrong.diagnosis.split())}"


@pytest.mark.parametrize("exercise", EVERY, ids=keys)
def test_an_answer_of_the_wrong_kind_is_named(exercise, say):
    said = say(lambda *arguments: "an answer", exercise.key)
    assert "on case 1 of" in said
    assert "'an answer' (str)" in said


def test_hooks_that_are_left_behind_are_noticed(say):
    def forgetful(block, batches, masks):
        for layer in block:
            layer.register_forward_pre_hook(lambda layer, args: None)
        return checker.EXERCISES["04.1"].solution(block, batches, masks)

    assert "leaves hooks behind in 'block'. Remove each handle." in say(forgetful, "04.1")


def test_hooks_that_an_error_leaves_behind_do_not_hide_it(say):
    def failing(block, batches, masks):
        for layer in block:
            layer.register_forward_pre_hook(lambda layer, args: None)
        return batches.sum()

    said = say(failing, "04.1")
    assert "Remove each handle, in a `finally`: here it raises AttributeError: 'list' object" in said
    assert "(in `return batches.sum()`)" in " ".join(said.split())


def test_digits_that_would_look_equal_are_shown(say, monkeypatch):
    third = dataclasses.replace(TOY, key="99.5", solution=lambda numbers, factor: numbers.double() / 3, tolerance=1e-12)
    monkeypatch.setitem(checker.EXERCISES, third.key, third)
    said = say(lambda numbers, factor: (numbers / 3).double(), "99.5")
    assert "returns 0.3333333433 where 0.3333333333 is right. Is a part of it computed with fewer digits?" in said


@pytest.mark.parametrize("numbers", [torch.tensor([123456]), torch.arange(123456, 123656)])
def test_a_count_that_is_off_by_one_is_shown_in_full_and_is_no_matter_of_digits(say, monkeypatch, numbers):
    counts = dataclasses.replace(TOY, key="99.6", solution=lambda n: n, cases=lambda g: [(numbers,)], wrong=[])
    monkeypatch.setitem(checker.EXERCISES, counts.key, counts)
    said = say(lambda n: n + 1, "99.6")
    assert "123457" in said
    assert "123456" in said
    assert "digits" not in said


def test_another_seed_adds_cases_of_its_own(say):
    assert checker.check("99.1", double, seed=5).cases == 6
    one, other = (TOY.draw(seed)[5][0] for seed in (5, 6))
    assert not torch.equal(one, other)
    assert torch.equal(TOY.draw(5)[2][0], TOY.draw()[2][0])


@pytest.mark.parametrize("exercise", EVERY, ids=keys)
def test_the_solution_is_right_with_another_seed_too_and_raises_only_where_it_should(exercise, capsys):
    assert checker.check(exercise.key, lambda *arguments: exercise.solution(*arguments), seed=20261129)
    cases = exercise.draw(20261129)
    raised = [outcome.error for outcome in checker.outcomes(exercise.solution, cases)]
    assert raised[: len(cases) // 2] == raised[len(cases) // 2 :]


def swallowing(numbers, factor):
    while True:
        try:  # noqa: SIM105
            sum(numbers.tolist())
        except:  # noqa: E722 (as a learner might)
            pass


def swallowing_errors(numbers, factor):
    while True:
        try:
            numbers.sum()
        except Exception:
            continue


def endless_on_the_second(numbers, factor):
    while factor == 3:
        factor = 3
    return numbers * factor


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
@pytest.mark.parametrize("function", [swallowing, swallowing_errors, endless_on_the_second])
def test_an_endless_loop_is_stopped_and_its_line_named(function, say, capsys):
    handler, tracing = signal.getsignal(signal.SIGALRM), sys.gettrace()
    verdict = checker.check("99.1", function, seconds=0.1)
    assert (signal.getsignal(signal.SIGALRM), sys.gettrace()) == (handler, tracing)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    case = 2 if function is endless_on_the_second else 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"✘ 99.1: your function was stopped after 0.1 seconds, on case {case} of 3 (in `")
    assert said.endswith("`). Does a loop never end?")
    assert (verdict.status, verdict.passed, verdict.misconception) == ("wrong", case - 1, "")


def test_elsewhere_than_in_the_main_thread_there_is_no_limit(say, capsys):
    found = []
    thread = threading.Thread(target=lambda: found.append(checker.check("99.1", double, seconds=1e-9)))
    thread.start()
    thread.join()
    assert found[0]


def test_the_reference_is_not_taken_for_the_learners_own(say, capsys):
    meanwhile = checker.build("99.1", lambda numbers, factor: numbers)
    capsys.readouterr()
    assert checker.build("99.1", meanwhile) is TOY.solution
    assert capsys.readouterr().out == "99.1: this is the reference. Run the cell with your own function first.\n"


@pytest.mark.parametrize("exercise", EVERY, ids=keys)
def test_the_cases_are_the_same_every_time_and_do_not_touch_the_global_generator(exercise):
    state = torch.get_rng_state()
    first, second = (exercise.cases(torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first) == len(second) >= 2
    for one, other in zip(first, second, strict=True):
        assert len(one) == len(inspect.signature(exercise.solution).parameters)
        assert all(map(running.unchanged, one, other))


@pytest.mark.parametrize("exercise", EVERY, ids=keys)
def test_there_are_two_hints_and_a_solution_to_read(exercise, capsys):
    for level in (1, 2):
        checker.hint(exercise.key, level)
        assert capsys.readouterr().out.startswith(f"{exercise.key} hint {level} of 2: ")
    checker.solution(exercise.key)
    source = capsys.readouterr().out
    assert source.startswith("def ")
    compile(source, exercise.key, "exec")


# The machinery, on a toy ------------------------------------------------------------------------------------------------


def test_wrong_ideas_are_listed_or_added_by_the_decorator_which_leaves_the_function_as_it_is():
    assert [misconception.diagnosis for misconception in TOY.misconceptions] == [
        "you added",
        "you multiplied by three ones",
    ]
    assert TOY.misconceptions[1].function is by_three_ones


def test_a_right_answer_counts_as_tensor_of_any_precision(say):
    assert say(double) == "✔ 99.1 a toy: right on all 3 cases"
    assert say(lambda numbers, factor: numbers.double() * factor).startswith("✔")


def test_an_exception_names_the_case_and_the_error(say):
    def fails_on_the_second(numbers, factor):
        if factor == 3:
            raise KeyError("nothing here")
        return numbers * factor

    said = say(fails_on_the_second)
    where = '(in `raise KeyError("nothing here")`)'
    assert said.startswith(f"✘ 99.1: on case 2 of 3 your function raises KeyError: 'nothing here' {where}")
    assert "numbers = [-1. , 0.5] factor = 3.0" in said


def test_a_stub_that_raises_only_later_is_an_exception_not_a_stub(say):
    def unfinished(numbers, factor):
        if factor == 3:
            raise NotImplementedError
        return numbers * factor

    assert "on case 2 of 3 your function raises NotImplementedError" in say(unfinished)


def test_leaving_the_program_is_an_answer_like_any_other(say):
    assert "raises SystemExit: 3" in say(lambda numbers, factor: sys.exit(3))


def test_a_mistake_that_shows_only_on_the_first_failing_case_is_suggested(say):
    said = say(lambda numbers, factor: numbers + factor if factor == 3 else numbers * factor)
    assert said.startswith("✘ 99.1: on case 2 of 3 your function returns")
    assert said.endswith("On that case it does what this mistake would: you added")


def test_an_exception_that_a_misconception_raises_too_gets_its_diagnosis(say):
    assert say(lambda numbers, factor: numbers @ torch.ones(3)) == "✘ 99.1: you multiplied by three ones"


def test_which_bad_index_an_error_names_does_not_matter():
    """Of several, PyTorch names the one that one of its threads meets first."""
    said = (
        "index 3 is out of bounds for dimension 0 with size 2",
        "index 4 is out of bounds for dimension 0 with size 2",
    )
    one, other = (running.Outcome(error="IndexError", message=message) for message in said)
    assert same(one, other, 0)
    assert not same(one, running.Outcome(error="IndexError", message=said[0].replace("size 2", "size 3")), 0)
    assert not same(one, running.Outcome(error="ValueError", message=said[0]), 0)


def test_a_wrong_shape_is_named(say):
    assert "a tensor of shape [1, 2]; a tensor of shape [2] is wanted" in say(lambda n, f: (n * f)[None])
    assert "a single float; a tensor of shape [2] is wanted" in say(lambda n, f: 1.0)


def test_a_wrong_dtype_is_named(say):
    assert "dtype bool; float32 is wanted" in say(lambda n, f: n > f)


def test_nothing_returned_later_is_named(say):
    assert "on case 2 of 3 your function returns None (NoneType)" in say(lambda n, f: n * f if f == 2 else None)


def test_a_wrong_value_is_shown_with_the_right_one(say):
    assert "returns [3., 6.] but this is right: [2., 4.] The case was numbers = [1., 2.]" in say(lambda n, f: 3 * n)
    said = say(lambda n, f: n * f if len(n) == 2 else n * f + (torch.arange(40) == 7))
    assert "on case 3 of 3" in said
    assert re.search(r"at \[7\], where .* is right; 1 of 40 entries differ", said)


def test_what_is_shown_of_a_case_is_true_to_it(say, monkeypatch):
    """A weight of 1e-6 must not be printed as a zero, a list not as a tuple, and a model not with all its parts."""
    cases = [([torch.tensor([0.0, 1e-6, 0.5])], torch.nn.Linear(2, 2))]
    shown = Exercise("99.3", "shown", lambda weights, model: torch.tensor([1]), lambda g: cases, hints=(), **EFFORT)
    monkeypatch.setitem(checker.EXERCISES, shown.key, shown)
    assert say(lambda w, m: torch.tensor([2]), "99.3").endswith("weights = [[0, 1e-06, 0.5]] model = a Linear")


def test_a_function_that_changes_its_input_is_told_so_though_its_values_are_right(say):
    assert "changes its argument 'numbers' in place" in say(lambda numbers, factor: numbers.mul_(factor))
    assert say(double).startswith("✔")  # and nobody else sees the change


def test_numbers_are_right_as_floats_or_tensors_and_tuples_are_compared_by_item(say, monkeypatch):
    pair = Exercise("99.2", "a pair", lambda n: (n / 2, n), lambda g: [(3,), (5,)], hints=(), **EFFORT)
    monkeypatch.setitem(checker.EXERCISES, pair.key, pair)
    assert say(lambda n: (torch.tensor(n / 2), n), "99.2").startswith("✔")
    assert say(lambda n: [n / 2, n], "99.2").startswith("✔")
    assert "but this is right: 3 (item 1)" in say(lambda n: (n / 2, n + 1), "99.2")
    assert "dtype float64; int64 is wanted (item 1)" in say(lambda n: (n / 2, float(n)), "99.2")
    assert "returns a list or tuple of 3; a list or tuple of 2 is wanted" in say(lambda n: (n, n, n), "99.2")


def test_a_piece_returns_what_its_reference_does(monkeypatch, capsys):
    """The cells below a piece format its results, store them in a table or compare them with tensors."""

    def built(function, solution):
        piece = Exercise("99.b1", "a half", solution, lambda g: [(3,), (5,)], hints=(), **EFFORT)
        monkeypatch.setitem(checker.EXERCISES, piece.key, piece)
        found = checker.build(piece.key, function)
        assert found in (function, solution)
        return found is function, " ".join(capsys.readouterr().out.split())  # it is wrapped

    assert built(lambda n: [n / 2, n], lambda n: (n / 2, n))[0]
    kept, said = built(lambda n: (torch.tensor(n / 2), n), lambda n: (n / 2, n))
    assert not kept
    assert "right on all" in said
    assert "a tensor where the docstring asks for a number" in said
    assert "on case 1 of" in built(lambda n: (torch.tensor(n / 3), n), lambda n: (n / 2, n))[1]
    assert built(lambda n: n / 2, lambda n: torch.tensor(n / 2))[0]
    kept, said = built(lambda n: torch.tensor(n / 2), lambda n: torch.tensor(n / 2, dtype=torch.float64))
    assert not kept
    assert "a tensor of torch.float32 where the reference's is of torch.float64" in said


def test_an_unknown_key_is_an_error():
    for ask in (
        lambda: checker.check("77.1", double),
        lambda: checker.hint("77.1"),
        lambda: checker.solution(""),
    ):
        with pytest.raises(ValueError, match=r"there is no exercise .*03\.1"):
            ask()


def test_a_result_instead_of_a_function_is_told_so(capsys):
    assert not checker.check("03.1", torch.ones(3))
    assert "without brackets: exercises.check('03.1', my_function)" in capsys.readouterr().out


def test_a_piece_is_used_if_it_is_right_and_replaced_by_the_reference_if_not(say, capsys):
    assert checker.build("99.1", double) is double
    for other in (by_three_ones, lambda numbers, factor: numbers):
        capsys.readouterr()
        assert checker.build("99.1", other) is double
        assert "The cells below use the reference" in capsys.readouterr().out


def test_hints_come_one_after_the_other(say, capsys):
    said = []
    for level in (None, None, None, 1):
        checker.hint("99.1", level)
        said.append(capsys.readouterr().out.strip())
    first, second = "99.1 hint 1 of 2: think twice", "99.1 hint 2 of 2: times factor"
    assert said == [first, second, second, first]
    with pytest.raises(ValueError, match="hints 1 to 2"):
        checker.hint("99.1", 3)


@pytest.mark.parametrize(("key", "module"), [("03.5", 0), ("04.b2", 0)])
def test_a_copy_in_place_of_the_module_that_was_given_is_noticed(key, module, say):
    def on_a_copy(*arguments):
        arguments = list(arguments)
        arguments[module] = copy.deepcopy(arguments[module])
        return checker.EXERCISES[key].solution(*arguments)

    said = say(on_a_copy, key)
    assert said.startswith(f"✘ {key}")
    assert "copy" in said


def test_what_is_printed_fits_in_a_notebook(say, capsys, monkeypatch):
    monkeypatch.setattr(checker, "EXERCISES", {TOY.key: dataclasses.replace(TOY, wrong=[(by_three_ones, "you " * 60)])})
    checker.check(TOY.key, by_three_ones)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 88


def test_a_warning_of_ours_is_not_the_learners(say, recwarn):
    def warning(numbers, factor):
        warnings.warn("ours", stacklevel=1)
        return numbers

    toy = dataclasses.replace(TOY, key="99.4", wrong=[(warning, "you did nothing")])
    checker.EXERCISES["99.4"] = toy
    assert "you did nothing" in say(lambda numbers, factor: numbers, "99.4")
    assert not recwarn.list


def test_the_solution_is_its_source(say, capsys):
    checker.solution("99.1")
    assert capsys.readouterr().out == "def double(numbers, factor):\n    return numbers * factor\n"
