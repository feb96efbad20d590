"""Zero-shot accuracy on multiple-choice tasks, through EleutherAI's lm-evaluation-harness as released (`lm-eval`).

Each choice of an item is appended to the prompt; the one with the highest log-likelihood is the model's answer. Nothing
is generated, and no example is shown.
"""

import copy
import io
import logging
import random
import sys
from contextlib import contextmanager, redirect_stderr
from functools import cache

from ..sources.download import CHECKOUT, PACKAGE

SKILLS = ("wanda_facts", "wanda_physics", "wanda_grammar", "wanda_arithmetic", "wanda_reading")
"""Our own tasks, in data/tasks. They need no hub. The group "wanda_skills" is all of them."""

PAPER_TASKS = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
"""The seven tasks of the paper (section 4.1), by lm-eval's names. Their items come from the datasets hub."""


def zero_shot(model, tokenizer, tasks=SKILLS, limit=None, *, metric="acc", batch_size=16, progress=False):
    """The fraction of items that a model answers correctly, without examples in the prompt.

    Args:
        model: a causal language model, on the device to run on.
        tokenizer: its tokenizer.
        tasks: names of tasks or groups that lm-eval knows, or one name. Ours (`SKILLS`) and the paper's (`PAPER_TASKS`).
        limit: take only the first `limit` items of each task; a float below 1 is a fraction. None takes all.
        metric: "acc": the choice with the highest log-likelihood; "acc_norm": with the highest log-likelihood per
            character, so that long choices are not at a disadvantage. Not every task has "acc_norm".
        batch_size: choices per forward pass.
        progress: whether to show lm-eval's progress bars.

    Returns: dict from a task's name to its accuracy, in [0, 1]. A group is listed beside its tasks.

    Raises:
        ImportError: lm-eval is missing. ValueError: an unknown task, a metric that a task does not have, a non-positive
        limit. RuntimeError: the items of a task cannot be fetched.
    """
    found = zero_shot_results(model, tokenizer, tasks, limit, batch_size=batch_size, progress=progress)["results"]
    lacking = [task for task, row in found.items() if f"{metric},none" not in row]
    if lacking:
        names = sorted(
            key.partition(",")[0] for key in found[lacking[0]] if key.endswith(",none") and "stderr" not in key
        )
        raise ValueError(f"{lacking[0]} has no metric {metric!r}; it has {', '.join(names) or 'none of its own'}")
    return {task: float(row[f"{metric},none"]) for task, row in found.items()}


def zero_shot_results(model, tokenizer, tasks=SKILLS, limit=None, *, batch_size=16, progress=False):
    """lm-eval's own result, with standard errors and the answer to every item. Arguments as for `zero_shot`.

    Returns: lm-eval's dict. `["results"][task]` holds "acc,none" and "acc_stderr,none" (and more, by task);
        `["samples"][task]` a list with a dict per item: "doc" (the item), "target" (the right choice),
        "filtered_resps" (per choice a pair of log-likelihood and whether greedy decoding would produce it), "acc".

    The model, the tokenizer and the state of the random number generators stay unchanged.
    """
    if limit is not None and not limit > 0:
        raise ValueError(f"limit must be positive, or None for all items; got {limit!r}")
    training, drawn = model.training, random.getstate()
    try:
        manager, found = _load(tasks)
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with _bars(progress), _quiet():
            harness = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size)
            seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed"))  # None: leave them alone
            return simple_evaluate(harness, tasks=found, limit=limit, task_manager=manager, **seeds)
    finally:
        model.train(training)
        random.setstate(drawn)  # `datasets` draws a random name


def tasks_folder():
    """The folder with our own tasks, for `lm_eval --include_path`: in a checkout, or in the installed package."""
    return (CHECKOUT or PACKAGE) / "data" / "tasks"


def _load(tasks):
    """lm-eval's task manager, which includes our folder, and the named tasks with their items."""
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    if not names:
        raise ValueError("tasks is empty; name at least one")
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        if not error.name.startswith("lm_eval"):
            raise  # lm-eval is installed, but one of its dependencies is not
        raise ImportError(
            "zero-shot accuracy needs lm-eval: pip install 'wanda-pruning[zero-shot]', or pip install lm-eval"
        ) from error
    manager = _manager(TaskManager, others=False)
    if not set(names) <= set(manager.all_tasks):
        manager = _manager(TaskManager, others=True)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ValueError(
            f"lm-eval knows no task {', '.join(map(repr, unknown))}; the course has {', '.join((*SKILLS, 'wanda_skills'))}, "
            f"the paper {', '.join(PAPER_TASKS)}"
        )
    return manager, [part for name in names for part in _items(manager, name)]


@cache
def _manager(kind, others):
    """An index of our tasks, optionally with the thousands that lm-eval brings; indexing those takes some seconds."""
    return kind(include_path=str(tasks_folder()), include_defaults=others)


def _items(manager, name):
    """A task or a group with its items: what lm-eval evaluates."""
    try:
        with _quiet():
            loaded = manager.load([name])
    except OSError as error:  # what datasets raises without a hub, ConnectionError included
        raise RuntimeError(
            f"the items of {name!r} come from the datasets hub, which failed ({str(error).splitlines()[0]}). "
            f"Tasks that need no hub: {', '.join(SKILLS)}"
        ) from error
    return [loaded["groups"][name]] if name in loaded["groups"] else list(loaded["tasks"].values())


@contextmanager
def _quiet():
    """Suppress lm-eval's warnings about what we do on purpose: items from a function, a model already loaded."""

    def wanted(record):
        said = record.getMessage()
        return not any(known in said for known in ("Custom kwargs can be passed", "`pretrained`"))

    loggers = [logging.getLogger(name) for name in ("lm_eval.api.task", "lm_eval.models.huggingface")]
    for logger in loggers:
        logger.addFilter(wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(wanted)


@contextmanager
def _bars(shown):
    """Show or hide progress bars, which lm-eval has no single switch for. Other output is kept."""
    with redirect_stderr(sys.stderr if shown else _WithoutBars(sys.stderr)):
        yield


class _WithoutBars(io.TextIOBase):
    """A stream that drops progress bars: text that begins with a carriage return, and the newline after it."""

    def __init__(self, stream):
        self.stream, self.in_bar = stream, False

    def write(self, text):
        """Write text unless it belongs to a progress bar."""
        self.in_bar = text.startswith("\r") or (self.in_bar and not text.strip())
        if not self.in_bar:
            self.stream.write(text)
        return len(text)

    def flush(self):
        """Flush the underlying stream."""
        self.stream.flush()
