"""Reads the items for lm-eval: the task files name this function, so the tasks are found from any working folder."""

import json
from pathlib import Path

from datasets import Dataset


def load(skill, **_):
    """The items of a skill, in the order of the file. lm-eval passes metadata of its own besides, which is not needed."""
    lines = (Path(__file__).parent / f"{skill}.jsonl").read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
