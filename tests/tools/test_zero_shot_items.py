"""Our own multiple-choice items: format, balance, no duplicates, and correct sums."""

import json
import re
from collections import Counter

import pytest
import yaml

from wanda.tools.zeroshot import SKILLS, tasks_folder

FILES = sorted(tasks_folder().glob("*.jsonl"))
ITEMS = {file.stem: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in FILES}
skills = pytest.mark.parametrize("skill", sorted(ITEMS))


def normal(text):
    """A text without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", " ", text).strip().lower()


def test_there_are_five_skills_and_three_hundred_items():
    assert {f"wanda_{skill}" for skill in ITEMS} == set(SKILLS)
    assert all(len(items) >= 60 for items in ITEMS.values())
    assert sum(map(len, ITEMS.values())) >= 300


@skills
def test_every_item_has_the_format_of_the_card(skill):
    names = ["id", *(["passage"] if skill == "reading" else []), "question", "choices", "answer"]
    for number, item in enumerate(ITEMS[skill], start=1):
        assert list(item) == names
        assert item["id"] == f"{skill}-{number:02d}"
        texts = [item["question"], *item["choices"], *filter(None, [item.get("passage")])]
        assert all(isinstance(text, str) and text and text == " ".join(text.split()) for text in texts), item
        assert len({normal(choice) for choice in item["choices"]}) == len(item["choices"]) == 4, item
        assert type(item["answer"]) is int
        assert item["answer"] in range(4)


@skills
def test_the_right_answer_is_at_each_position_equally_often(skill):
    places = Counter(item["answer"] for item in ITEMS[skill])
    assert max(places.values()) - min(places[place] for place in range(4)) <= 1


def test_no_item_occurs_twice():
    seen = Counter(
        normal(f"{item.get('passage', '')} {item['question']}") for items in ITEMS.values() for item in items
    )
    assert len(seen) == sum(map(len, ITEMS.values())), seen.most_common(3)
    answers = Counter(
        (skill, normal(item.get("passage", "")), *sorted(map(normal, item["choices"])))
        for skill, items in ITEMS.items()
        if skill != "arithmetic"
        for item in items
    )
    assert max(answers.values()) == 1, answers.most_common(3)


@skills
def test_the_length_of_a_choice_does_not_give_the_answer_away(skill):
    for pick in (max, min):
        hits = 0.0
        for item in ITEMS[skill]:
            lengths = [len(choice) for choice in item["choices"]]
            wanted = [place for place, length in enumerate(lengths) if length == pick(lengths)]
            hits += (item["answer"] in wanted) / len(wanted)  # the chance of a hit, with ties drawn at random
        assert hits / len(ITEMS[skill]) < 0.35, f"the {pick.__name__} length is right too often"


def test_the_sums_are_correct():
    does = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__, "divided by": int.__floordiv__}
    checked = 0
    for item in ITEMS["arithmetic"]:
        found = re.fullmatch(r"What is (\d+) (plus|minus|times|divided by) (\d+)\?", item["question"])
        if found:
            first, second = int(found[1]), int(found[3])
            result = int(item["choices"][item["answer"]])
            assert does[found[2]](first, second) == result, item
            assert found[2] != "divided by" or second * result == first, item
            checked += 1
    assert checked >= 40


def test_the_right_number_has_each_rank_equally_often():
    ranks = Counter()
    for item in ITEMS["arithmetic"]:
        numbers = [int(choice) for choice in item["choices"]]
        ranks[sorted(numbers).index(numbers[item["answer"]])] += 1
    assert max(ranks.values()) - min(ranks[rank] for rank in range(4)) <= 1


def test_each_passage_has_four_consecutive_questions():
    passages = [item["passage"] for item in ITEMS["reading"]]
    assert all(count == 4 for count in Counter(passages).values())
    assert passages == sorted(passages, key=passages.index)


def test_each_skill_is_a_task_and_the_group_holds_them_all():
    group = yaml.safe_load((tasks_folder() / "wanda_skills.yaml").read_text(encoding="utf-8"))
    assert group["task"] == list(SKILLS)
    for task in SKILLS:
        file = yaml.safe_load((tasks_folder() / f"{task}.yaml").read_text(encoding="utf-8"))
        assert (file["task"], file["dataset_kwargs"]) == (task, {"skill": task.removeprefix("wanda_")})


def test_the_counts_on_the_card_are_correct():
    card = (tasks_folder() / "README.md").read_text(encoding="utf-8")
    for skill, items in ITEMS.items():
        assert f"| `wanda_{skill}` | {len(items)} |" in card
    assert f"{sum(map(len, ITEMS.values()))} items" in card
