"""Zero-shot accuracy against a slow, obvious implementation and against the lm-eval command line. No hub is needed."""

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny

import wanda
from wanda.sources.models import prepare
from wanda.tools.zeroshot import PAPER_TASKS, SKILLS, _manager, _WithoutBars, tasks_folder

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(prepare())


@pytest.fixture(scope="module")
def random_model(tokenizer):
    """A random model with a real vocabulary. Its weights are large, so that its answers are far apart."""
    model = tiny(vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=512, initializer_range=0.3)
    wanda.prune(model, torch.randint(len(tokenizer), (2, 16)), progress=False)
    return model


@torch.no_grad()
def obvious(model, tokenizer, prompt, choice):
    """The log-likelihood of a choice after a prompt, with a separate forward pass for each token."""
    start, whole = tokenizer(prompt).input_ids, tokenizer(f"{prompt} {choice}").input_ids
    assert whole[: len(start)] == start
    total = 0.0
    for place in range(len(start), len(whole)):
        logits = model(torch.tensor([whole[:place]])).logits[0, -1].double()
        total += float(logits.log_softmax(dim=-1)[whole[place]])
    return total


def prompt_of(skill, item):
    """As data/tasks/README.md states it."""
    if skill in ("wanda_facts", "wanda_physics", "wanda_grammar"):
        return item["question"]
    return (f"{item['passage']}\n" if skill == "wanda_reading" else "") + f"Question: {item['question']}\nAnswer:"


def test_accuracy_equals_the_slow_and_obvious_one(random_model, tokenizer):
    results = wanda.zero_shot_results(random_model, tokenizer, limit=3)
    accuracy = wanda.zero_shot(random_model, tokenizer, limit=3)
    normalised = wanda.zero_shot(random_model, tokenizer, limit=3, metric="acc_norm")
    assert set(accuracy) == set(normalised) == set(SKILLS)
    for skill in SKILLS:
        file = tasks_folder() / f"{skill.removeprefix('wanda_')}.jsonl"
        items = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:3]]
        right, right_per_character = [], []
        for item, sample in zip(items, results["samples"][skill], strict=True):
            found = [obvious(random_model, tokenizer, prompt_of(skill, item), choice) for choice in item["choices"]]
            assert [value for value, _ in sample["filtered_resps"]] == pytest.approx(found, rel=1e-4)
            per_character = [value / len(choice) for value, choice in zip(found, item["choices"], strict=True)]
            right.append(int(np.argmax(found)) == item["answer"])
            right_per_character.append(int(np.argmax(per_character)) == item["answer"])
        assert accuracy[skill] == pytest.approx(sum(right) / 3)
        assert normalised[skill] == pytest.approx(sum(right_per_character) / 3)


def test_a_group_is_listed_beside_its_tasks_and_is_their_mean(random_model, tokenizer):
    accuracy = wanda.zero_shot(random_model, tokenizer, "wanda_skills", limit=2)
    assert set(accuracy) == {*SKILLS, "wanda_skills"}
    assert accuracy["wanda_skills"] == pytest.approx(sum(accuracy[skill] for skill in SKILLS) / 5)


def test_the_standard_error_is_that_of_a_mean(random_model, tokenizer):
    results = wanda.zero_shot_results(random_model, tokenizer, ["wanda_grammar"], limit=8)
    right = np.array([sample["acc"] for sample in results["samples"]["wanda_grammar"]])
    assert 0 < right.mean() < 1
    expected = right.std(ddof=1) / len(right) ** 0.5
    assert results["results"]["wanda_grammar"]["acc_stderr,none"] == pytest.approx(expected)


def test_all_state_is_restored_and_nothing_is_printed(random_model, tokenizer, capsys):
    def states():
        legacy = np.random.get_state()[1].tolist()  # noqa: NPY002 (the state that lm-eval would seed)
        return random.getstate(), legacy, torch.get_rng_state().tolist()

    weights = {name: value.clone() for name, value in random_model.state_dict().items()}
    padding, before = tokenizer.pad_token, states()
    random_model.train()
    wanda.zero_shot(random_model, tokenizer, ["wanda_facts"], limit=1)
    assert random_model.training
    random_model.eval()
    assert states() == before
    assert tokenizer.pad_token == padding
    assert all(torch.equal(weights[name], value) for name, value in random_model.state_dict().items())
    assert capsys.readouterr() == ("", "")
    wanda.zero_shot(random_model, tokenizer, ["wanda_facts"], limit=1, progress=True)
    assert "loglikelihood" in capsys.readouterr().err


def test_the_command_line_of_lm_eval_runs_our_tasks_on_a_saved_pruned_model(random_model, tokenizer, tmp_path):
    wanda.save(random_model, tokenizer, tmp_path / "pruned")
    command = [Path(sys.executable).with_name("lm_eval"), "--model", "hf", "--tasks", "wanda_skills", "--limit", "2"]
    command += ["--model_args", f"pretrained={tmp_path / 'pruned'}", "--include_path", "data/tasks"]
    command += ["--device", "cpu", "--output_path", tmp_path / "out"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, cwd=ROOT, env=offline, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    (file,) = (tmp_path / "out").rglob("results*.json")
    results = json.loads(file.read_text(encoding="utf-8"))["results"]
    ours = wanda.zero_shot(random_model, tokenizer, "wanda_skills", limit=2)
    assert {task: row["acc,none"] for task, row in results.items()} == pytest.approx(ours)


# Invalid requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["wanda_facts", "wanda_music"]}, r"no task 'wanda_music'; the course has wanda_facts, .*boolq"),
        ({"tasks": []}, "tasks is empty"),
        ({"limit": 0}, "limit must be positive"),
        ({"limit": -1}, "limit must be positive"),
        (
            {"tasks": ["wanda_facts"], "limit": 1, "metric": "f1"},
            "wanda_facts has no metric 'f1'; it has acc, acc_norm",
        ),
    ],
)
def test_an_invalid_request_is_refused(random_model, tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        wanda.zero_shot(random_model, tokenizer, **options)


def test_without_lm_eval_the_message_says_what_to_install(random_model, tokenizer, monkeypatch):
    for name in ("lm_eval", "lm_eval.tasks"):
        monkeypatch.setitem(sys.modules, name, None)  # makes the import fail as if it were not installed
    with pytest.raises(ImportError, match=r"pip install 'wanda-pruning\[zero-shot\]'"):
        wanda.zero_shot(random_model, tokenizer)


def test_without_a_hub_the_message_names_the_tasks_that_need_none(random_model, tokenizer, monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)  # an empty cache
    with pytest.raises(RuntimeError, match="'boolq' come from the datasets hub.*Tasks that need no hub: wanda_facts"):
        wanda.zero_shot(random_model, tokenizer, ["boolq"], limit=1)


def test_lm_eval_has_the_tasks_of_the_paper_under_these_names():
    from lm_eval.tasks import TaskManager

    assert len(PAPER_TASKS) == 7
    assert set(PAPER_TASKS) <= set(_manager(TaskManager, others=True).all_subtasks)


def test_the_tasks_are_in_the_wheel():
    assert '"data/tasks" = "wanda/data/tasks"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_without_bars_messages_keep_their_line_ends():
    stream = io.StringIO()
    quiet = _WithoutBars(stream)
    print("one", file=quiet)
    for part in ("\r 50%|", "\r100%|", "\n"):
        quiet.write(part)
    print("two", file=quiet)
    assert stream.getvalue() == "one\ntwo\n"
