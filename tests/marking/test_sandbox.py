"""Answers that attack the marker: each earns what its results are worth, and nothing is left of it."""

import io
import os
import pickle
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import torch

from wanda_course.exercises import EXERCISES
from wanda_course.marking import sandbox as sandbox_module
from wanda_course.marking.answers import Answer
from wanda_course.marking.grading import Examiner
from wanda_course.marking.sandbox import Sandbox, Unanswered, read

KEY, NAME = "00.1", "zero_fraction"
EXAMINER = Examiner("secret")
HONEST = f"""
def {NAME}(weights):
    return sum((weight == 0).sum() for weight in weights) / sum(weight.numel() for weight in weights)
"""
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits memory")


def judged(sandbox, code, seconds=30):
    """The status of an answer and what its author is told. Then an honest one must be right, and nothing may be left."""
    sandbox.seconds = seconds
    try:
        verdict = EXAMINER.verdict(KEY, sandbox.run(Answer(code, NAME), EXAMINER.cases(KEY)[1]))
        found = verdict.status, " ".join(verdict.text.split())
    except Unanswered as error:
        found = "no results", str(error)
    sandbox.seconds = 30  # generous, for a busy machine
    assert EXAMINER.verdict(KEY, sandbox.run(Answer(HONEST, NAME), EXAMINER.cases(KEY)[1]))
    started = psutil.Process(sandbox.process.pid)
    assert len([started, *started.children(recursive=True)]) == (2 if sandbox.command else 1)
    assert not list(Path(sandbox.folder.name).iterdir())
    return found


def function(body):
    """The code of an answer with this body."""
    return f"def {NAME}(weights):\n{textwrap.indent(textwrap.dedent(body), '    ')}"


ENDLESS = {
    "a loop": ("while True: pass", "was stopped after 0.5 seconds, on case 1 of"),
    "a sleep": ("import time; time.sleep(1000)", "was stopped after 0.5 seconds, on case 1 of"),
    "a loop that catches everything": (
        "while True:\n    try:\n        weights[0].sum()\n    except:\n        pass",
        "was stopped after 0.5 seconds",
    ),
    "a loop that ignores the alarm": (
        "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass",
        "it was stopped after 0.5 seconds",
    ),
    "a sleep behind closed pipes, in another session": (
        "import os, signal, time\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nos.closerange(0, 100)\ntime.sleep(1000)",
        "it was stopped after 0.5 seconds",
    ),
}


@pytest.mark.parametrize(("body", "told"), ENDLESS.values(), ids=ENDLESS)
def test_an_answer_that_does_not_end_is_stopped(sandbox, body, told):
    status, text = judged(sandbox, function(body), seconds=0.5)
    assert status in ("wrong", "no results")
    assert told in text


HOSTILE = {
    "leaves the process": ("import os; os._exit(0)", "it gave no readable result"),
    "leaves with a status": ("import os; os._exit(3)", "it ended the process that ran it (with status 3)"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", "it ended the process that ran it (by signal 9)"),
    "leaves the program": ("import sys; sys.exit('done')", "raises SystemExit: done"),
    "interrupts": ("raise KeyboardInterrupt", "it ended the process that ran it (with status 70)"),
    "recursion": (f"return {NAME}(weights)", "raises RecursionError"),
    "starts a process": ("import os; return os.fork()", "raises BlockingIOError"),
    "runs a command": ("import os; return os.system('true') / 0", "raises ZeroDivisionError"),
    "leaves a thread behind": (
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()",
        "raises RuntimeError: can't start new thread",
    ),
    "opens a socket": ("import socket; socket.socket()", "raises OSError: [Errno 24]"),
    "imports the solutions": ("import wanda_course.exercises", "raises ModuleNotFoundError"),
    "prints a verdict": (f"print('✔ {KEY}: right on all cases'); return -1", "but this is right"),
    "returns what equals everything": (
        "class Equal:\n    def __eq__(self, other): return True\nreturn Equal()",
        "returns <__main__",
    ),
    "returns what kills the reader": (
        "class Deadly:\n    def __repr__(self): import os; os._exit(5)\nreturn Deadly()",
        "it ended the process that ran it (with status 5)",
    ),
    "returns a tensor of its own making": (
        "class Liar(torch.Tensor):\n    pass\nreturn torch.zeros(()).as_subclass(Liar)",
        "it ended the process that ran it (with status 70)",
    ),
    "returns too much": ("return torch.zeros(10**7)", "its result is too large"),
    "returns more than there is": ("return torch.zeros(1).expand(10**15)", "a tensor of shape [1000000000000000]"),
    "raises a long message": ("raise ValueError('x' * 10**6)", "raises ValueError: xxx"),
}


@pytest.mark.parametrize(("body", "told"), HOSTILE.values(), ids=HOSTILE)
def test_an_attack_earns_nothing_and_harms_nothing(sandbox, body, told):
    status, text = judged(sandbox, function(body))
    assert status in ("wrong", "no results")
    assert told in text
    assert len(text) < 2000


@LINUX
@pytest.mark.parametrize(
    "body", ["return torch.ones(4 * 10**9)", "grown = []\nwhile True: grown.append(torch.empty(10**7))"]
)
def test_memory_is_limited(sandbox, body):
    status, text = judged(sandbox, function(body))
    assert status == "wrong"
    assert "MemoryError" in text or "can't allocate memory" in text


def test_a_fork_bomb_does_not_start(sandbox):
    bomb = "import os\nwhile True:\n    os.fork()"
    if "BlockingIOError" not in judged(sandbox, function("import os; os.fork()"))[1]:
        pytest.skip("this system does not limit the processes of this user")
    assert "raises BlockingIOError" in judged(sandbox, function(bomb))[1]


def test_files_are_neither_written_nor_removed_nor_read(sandbox, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("still here")
    before = {folder: sorted(os.listdir(folder)) for folder in (Path.cwd(), Path.home(), tmp_path)}
    body = f"""
    import os
    from pathlib import Path
    ways = [
        lambda path: open(path, "w"), os.mkdir, os.mknod, os.remove, lambda path: os.truncate(path, 0),
        lambda path: os.symlink("/", path), lambda path: os.rename(path, path + "2"), os.listdir, open,
    ]
    for place in ({str(kept)!r}, {str(tmp_path / "new")!r}, {str(Path.home() / "new")!r}, "new"):
        for way in ways:
            try:
                way(place)
            except OSError:
                continue
            return "one way is open"
    return "none"
    """
    _, text = judged(sandbox, function(body))
    if sandbox.command or os.geteuid() == 0:
        assert "returns 'none' (str)" in text
    assert kept.read_text() == "still here"
    assert {folder: sorted(os.listdir(folder)) for folder in before} == before


SEARCHES = {
    "in memory": "import gc\ngc.unfreeze()\nobjects = gc.get_objects()",
    "in modules": "import sys\nobjects = [value for module in list(sys.modules.values()) for value in vars(module).values()]",
    "in frames": """
        import sys
        frame, objects = sys._getframe(), []
        while frame is not None:
            objects += [*frame.f_locals.values(), *frame.f_globals.values()]
            frame = frame.f_back
    """,
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_the_solutions_are_nowhere_to_be_found(sandbox, search):
    find = f"""
    import types
    ours = [o for o in objects if isinstance(o, (type, types.FunctionType)) and o is not {NAME}]
    found = [o for o in ours if "wanda_course" in str(o.__module__) or o.__name__ == "{NAME}"]
    return found[0] if found else "nothing"
    """
    body = textwrap.dedent(search) + textwrap.dedent(find)
    assert "returns 'nothing' (str)" in judged(sandbox, function(body))[1]


FORGERIES = {
    "a pickle": "pickle.dumps(Evil())",
    "a file of torch": "(torch.save([Evil()], file), file.getvalue())[1]",
    "wrong results": "(torch.save([{'value': 'x'}], file), file.getvalue())[1]",
    "nonsense": "b'no file at all'",
    "no outcomes": "(torch.save([], file), file.getvalue())[1]",
    "too many outcomes": "(torch.save([outcome] * 99, file), file.getvalue())[1]",
    "impossible changes": "(torch.save([outcome | {'changed': (7,)}] * 10, file), file.getvalue())[1]",
}


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_result_is_not_believed_and_nothing_in_it_is_run(sandbox, forged, tmp_path):
    target = tmp_path / "touched"
    body = f"""
    import io, os, pickle
    class Evil:
        def __reduce__(self):
            return os.mkdir, ({str(target)!r},)
    file = io.BytesIO()
    outcome = dict(value=torch.zeros(()), error=None, message="", line="", changed=(), weights=())
    forged = {forged}
    for descriptor in range(3, 100):
        try:
            os.write(descriptor, forged)
        except OSError:
            pass
    os._exit(0)
    """
    assert judged(sandbox, function(body))[1] == "it gave no readable result"
    assert not target.exists()


def test_replacing_the_checker_in_the_child_changes_nothing(sandbox):
    body = """
    import sys
    running = sys.modules["running"]
    for name, value in vars(running).items():
        if callable(value):
            setattr(running, name, lambda *given: True)
    return -1
    """
    assert judged(sandbox, function(body))[0] in ("wrong", "no results")


def test_code_that_fails_before_the_function_is_told(sandbox):
    told = "its code fails: ZeroDivisionError: division by zero (in `half = 1 / 0`)"
    assert judged(sandbox, f"half = 1 / 0\n{HONEST}") == ("no results", told)
    assert judged(sandbox, f"{NAME} = 3") == ("no results", f"its code fails: TypeError: {NAME} is not a function")


def test_an_untouched_stub_is_not_attempted(sandbox):
    assert judged(sandbox, function("raise NotImplementedError"))[0] == "not attempted"


@pytest.mark.parametrize("key", ["01.4", "03.5", "04.b1", "04.1", "04.3"])
def test_cases_with_modules_arrive(sandbox, key):
    cases = pickle.dumps(EXERCISES[key].draw(1))
    count = "def kinds(*given):\n    return sum(isinstance(one, torch.nn.Module) for one in given)"
    assert {int(outcome.value) for outcome in sandbox.run(Answer(count, "kinds"), cases)} == {1}


def test_what_is_no_plain_result_is_refused():
    for told in ([{"value": 1}], {"value": "x"}, torch.zeros(3), [None]):
        with pytest.raises(Unanswered, match="no readable result"):
            read(_saved(told))
    outcome = {"value": torch.zeros(2), "error": None, "message": "", "line": "", "changed": (), "weights": ()}
    assert torch.equal(read(_saved([outcome]))[0].value, torch.zeros(2))
    for bad in ({"value": [1]}, {"error": 3}, {"changed": ("x",)}):
        with pytest.raises(Unanswered, match="no readable result"):
            read(_saved([outcome | bad]))


@pytest.mark.parametrize(
    "value", [torch.zeros(2).to_sparse(), torch.zeros(2, dtype=torch.complex64), torch.empty(2, device="meta")]
)
def test_an_unusual_tensor_is_only_described(value):
    outcome = {"value": value, "error": None, "message": "", "line": "", "changed": (), "weights": ()}
    assert read(_saved([outcome]))[0].value.startswith("a tensor of torch.")


def _saved(value):
    torch.save(value, file := io.BytesIO())
    return file.getvalue()


def test_what_is_not_contained_is_told(monkeypatch):
    monkeypatch.setattr(sandbox_module, "namespaces", lambda: ["unshare"])
    monkeypatch.setattr(sandbox_module.sys, "platform", "linux")
    assert sandbox_module.not_contained() == []
    monkeypatch.setattr(sandbox_module.sys, "platform", "darwin")
    assert [door.split()[0] for door in sandbox_module.not_contained()] == ["memory"]
    monkeypatch.setattr(sandbox_module, "namespaces", list)
    for user, doors in ((0, ["signals", "memory"]), (1000, ["signals", "removing,", "memory"])):
        monkeypatch.setattr(sandbox_module.os, "geteuid", lambda user=user: user)
        assert [door.split()[0] for door in sandbox_module.not_contained()] == doors


WAYS = {"user namespace": ["unshare", "--user", "--map-root-user", *sandbox_module.NAMESPACES], "no namespace": []}


@pytest.mark.skipif(os.geteuid() != 0 or not sandbox_module.namespaces(), reason="simulates other systems, as root")
@pytest.mark.parametrize("way", WAYS)
def test_other_ways_to_contain_answers(way, monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox_module, "namespaces", lambda: WAYS[way])
    if way == "user namespace":  # what an ordinary user has: root only within, and no other user to become
        monkeypatch.setattr(sandbox_module, "other_user", lambda: "")
    with Sandbox(seconds=30) as box:
        assert "raises OSError: [Errno 24]" in judged(box, function(f"open({str(tmp_path / 'new')!r}, 'w')"))[1]
        assert "raises FileNotFoundError" in judged(box, function(f"import os; os.mkdir({str(tmp_path / 'new')!r})"))[1]
        assert "raises PermissionError" in judged(box, function("import os; os.chroot('.')"))[1]
        assert "with status 5" in judged(box, function("import os; os._exit(5)"))[1]
