"""Calibration and evaluation text: reproducible, disjoint, from every source."""

import gzip
import json

import pytest
import torch

import wanda
from wanda.sources import text, wikipedia


class Letters:
    """A tokenizer that maps each character to its code point."""

    def __call__(self, text, verbose=True):
        return type("Encoding", (), {"input_ids": [ord(character) for character in text]})


def back(tokens):
    return "".join(map(chr, tokens.tolist()))


@pytest.mark.parametrize("source", ["news", "wikipedia"])
def test_calibration_and_evaluation_text_never_overlap(source):
    """No sentence of the evaluation text occurs anywhere in the text that calibration windows are cut from."""
    calibration, evaluation = text._read(source, "calibration"), text._read(source, "evaluation")
    sentences = {sentence for sentence in evaluation.split(". ") if len(sentence) > 60}
    assert len(sentences) > 200
    repeated = [sentence for sentence in sentences if sentence in calibration]
    assert not repeated


@pytest.mark.parametrize("source", ["news", "wikipedia"])
def test_windows_come_from_the_calibration_text(source):
    whole = text._read(source, "calibration")
    for window in wanda.calibration_set(Letters(), source, samples=5, length=200):
        assert back(window) in whole


def test_same_seed_same_windows():
    first, again, other = (wanda.calibration_set(Letters(), "news", 4, 64, seed) for seed in (0, 0, 1))
    assert first.shape == (4, 64)
    assert first.dtype == torch.int64
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_real_tokens_of_the_default_model(smollm2):
    _, tokenizer = smollm2
    assert wanda.calibration_set(tokenizer).shape == (128, 512)
    tokens = wanda.eval_tokens(tokenizer)
    assert tokens.ndim == 1
    assert len(tokens) > 30_000
    assert tokens.max() < 49152


def test_articles_are_clean_prose():
    articles = wikipedia.articles()
    assert len(articles) > 80
    for _, prose in articles:
        for remnant in ("{{", "}}", "[[", "]]", "<ref", "File:", "Category:", "|-", "px|", "==", "''"):
            assert remnant not in prose
    assert dict(articles)["Aardvark"].startswith("The aardvark")


def test_cleaning():
    page = (
        "{{Infobox|name=x}}\n'''Moss''' ({{lang|la|Bryophyta}}) is a [[plant|small plant]]<ref>Smith</ref> that grows in "
        "dense green clumps or mats, often in damp or shady locations, and has no flowers.\n\n== History ==\n"
        "[[File:Moss.jpg|thumb|A long caption that goes on and on and on, to be longer than the shortest paragraph, as "
        "captions sometimes are.]]\n{| class=x\n| cell\n|}\n* item\n[[Category:Plants]]\n"
    )
    assert wikipedia.clean(page) == (
        "Moss is a small plant that grows in dense green clumps or mats, often in damp or shady locations, and has no flowers."
    )


def test_a_path_and_a_list_of_strings(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("abcdefgh", encoding="utf-8")
    assert back(wanda.eval_tokens(Letters(), file)) == back(wanda.eval_tokens(Letters(), str(file))) == "abcdefgh"
    assert back(wanda.eval_tokens(Letters(), ["ab", "cd"])) == "ab\n\ncd"
    assert back(wanda.calibration_set(Letters(), file, samples=1, length=8)[0]) == "abcdefgh"


def test_an_empty_evaluation_text_is_refused():
    with pytest.raises(ValueError, match="empty"):
        wanda.eval_tokens(Letters(), [])


def test_wikitext2_from_the_hub_and_from_a_local_copy_give_the_same_tokens(monkeypatch, tmp_path):
    raw = " \n = Title = \n \n Some text . \n"
    rows = ["", " = Title = \n", "", " Some text . \n"]  # as the hub's data set splits it
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        return {"text": rows}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setenv("WANDA_DATA", str(tmp_path))
    from_hub = wanda.eval_tokens(Letters(), "wikitext2")
    wanda.calibration_set(Letters(), "wikitext2", samples=1, length=8)
    assert asked == [
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "test"),
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "train"),
    ]
    (tmp_path / "wikitext-2-raw").mkdir()
    (tmp_path / "wikitext-2-raw" / "wiki.test.raw").write_text(raw, encoding="utf-8")
    assert torch.equal(wanda.eval_tokens(Letters(), "wikitext2"), from_hub)
    assert len(asked) == 2


class Stream(list):
    def shuffle(self, seed, buffer_size):
        assert seed == 4
        return Stream(reversed(self))


def test_c4_is_streamed_from_the_hub_one_shard_per_split(monkeypatch, tmp_path):
    asked = []

    def load_dataset(name, data_files, split, streaming):
        asked.append((name, data_files, split, streaming))
        return Stream({"text": letter * size} for letter, size in (("a", 30), ("b", 5), ("c", 40), ("d", 9)))

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setenv("WANDA_DATA", str(tmp_path))
    windows = wanda.calibration_set(Letters(), "c4", samples=2, length=8, seed=4)
    assert [back(window) for window in windows] == [
        "d" * 8,
        "c" * 8,
    ]  # one window per document, skipping the short one
    assert back(wanda.eval_tokens(Letters(), "c4")) == " ".join(["a" * 30, "b" * 5, "c" * 40, "d" * 9])
    assert asked == [
        ("allenai/c4", {"train": "en/c4-train.00000-of-01024.json.gz"}, "train", True),
        ("allenai/c4", {"validation": "en/c4-validation.00000-of-00008.json.gz"}, "validation", True),
    ]
    with pytest.raises(ValueError, match="only 3 documents are longer than 8"):
        wanda.calibration_set(Letters(), "c4", samples=4, length=8, seed=4)


def test_c4_from_a_local_copy(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: pytest.fail("asked the hub"))
    monkeypatch.setenv("WANDA_DATA", str(tmp_path))
    (tmp_path / "c4").mkdir()
    with gzip.open(tmp_path / "c4" / "c4-train.00000-of-01024.json.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": letter * 20}) + "\n" for letter in "abcdef")
    first, again = (wanda.calibration_set(Letters(), "c4", samples=3, length=8, seed=1) for _ in range(2))
    assert torch.equal(first, again)
    assert len({back(window) for window in first}) == 3


def test_a_damaged_cache_of_articles_is_built_again(tmp_path, monkeypatch):
    page = "A paragraph that is long enough to be kept as prose, with words that mean nothing. " * 30
    monkeypatch.setattr(wikipedia, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(wikipedia, "fetch", lambda name: None)
    monkeypatch.setattr(wikipedia, "_pages", lambda path: [("One", page)])
    before = wikipedia.articles()
    (cached,) = tmp_path.glob("*.json")
    for content in ("", "{", "\N{REPLACEMENT CHARACTER}"):
        cached.write_text(content, encoding="utf-8")
        assert wikipedia.articles() == before
        assert wikipedia.articles() == before  # from the new cache
