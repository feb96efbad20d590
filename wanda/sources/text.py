"""Text as tokens: windows for calibration and a stream for evaluation. The two never overlap.

| source        | calibration                         | evaluation                                |
|---------------|-------------------------------------|-------------------------------------------|
| "news"        | the first 250 stories               | the other 50                              |
| "wikipedia"   | every second article, whole         | the beginnings of the other articles      |
| "wikitext2"   | train split                         | test split                                |
| "c4"          | first shard of the train split      | first 1,100 documents of validation       |
| path or list  | your text                           | your text: keep the two apart yourself    |
"""

import gzip
import json
import os
import random
from pathlib import Path

import torch

from .download import fetch, local_folder
from .wikipedia import articles

NEWS_CALIBRATION = 250  # stories
ARTICLE_BEGINNING = 4000  # characters of each evaluation article, so that a short text still covers many topics
C4_EVALUATION = 1100  # documents, as in the code of the SparseGPT and Wanda papers
SOURCES = ("news", "wikipedia", "wikitext2", "c4")


def calibration_set(tokenizer, source="news", samples=128, length=512, seed=0):
    """Windows of text at random positions, from which a model's statistics are taken.

    Args:
        tokenizer: of the model to prune. It adds its special tokens itself, at most once per text.
        source: "news", "wikipedia" (fetched once), "wikitext2", "c4" (from the hub, or a local copy in $WANDA_DATA or
            data/local), the path of a text file, or a list of strings.
        samples, length: the number of windows, and the tokens in each.
        seed: same seed, same windows.

    Returns: LongTensor [samples, length].

    Raises: ValueError: unknown source, or not enough text for one window.
    """
    for name, value in (("samples", samples), ("length", length)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    generator = random.Random(seed)
    if source == "c4":
        return _windows_of_documents(tokenizer, _c4("train", seed), samples, length, generator)
    tokens = _tokenize(tokenizer, _read(source, "calibration"))
    if len(tokens) < length:
        raise ValueError(f"{_described(source)} has {len(tokens)} tokens, too few for a window of {length}")
    starts = [generator.randrange(len(tokens) - length + 1) for _ in range(samples)]
    return torch.stack([tokens[start : start + length] for start in starts])


def eval_tokens(tokenizer, source="wikipedia"):
    """Evaluation text, as one stream of tokens.

    Args:
        tokenizer, source: as in `calibration_set`.

    Returns: LongTensor [n]. A tokenizer that adds a BOS token adds it once, at the very start.
    """
    text = " ".join(_first(_c4("validation"), C4_EVALUATION)) if source == "c4" else _read(source, "evaluation")
    tokens = _tokenize(tokenizer, text)
    if not len(tokens):
        raise ValueError(f"{_described(source)} is empty")
    return tokens


def _tokenize(tokenizer, text):
    if not callable(tokenizer):
        raise TypeError(
            f"tokenizer must be a transformers tokenizer, got {type(tokenizer).__name__}; wanda.load opens one"
        )
    return torch.tensor(tokenizer(text, verbose=False).input_ids, dtype=torch.long)  # [n]


def _windows_of_documents(tokenizer, documents, samples, length, generator):
    """One window at a random position of each document that is long enough. [samples, length]"""
    windows = []
    for document in documents:
        tokens = _tokenize(tokenizer, document)
        if len(tokens) > length:
            start = generator.randrange(len(tokens) - length)
            windows.append(tokens[start : start + length])
            if len(windows) == samples:
                return torch.stack(windows)
    raise ValueError(f"only {len(windows)} documents are longer than {length} tokens; {samples} windows were requested")


def _read(source, purpose):
    """The text of a source for "calibration" or "evaluation"."""
    if isinstance(source, (list, tuple)) and all(isinstance(text, str) for text in source):
        return "\n\n".join(source)
    if source == "news":
        stories = fetch("news").read_text(encoding="utf-8").splitlines()
        return "\n\n".join(stories[:NEWS_CALIBRATION] if purpose == "calibration" else stories[NEWS_CALIBRATION:])
    if source == "wikipedia":
        texts = [text for _, text in articles()]
        if purpose == "calibration":
            return "\n\n".join(texts[1::2])
        return "\n\n".join(text[:ARTICLE_BEGINNING].rpartition("\n")[0] or text for text in texts[::2])
    if source == "wikitext2":
        return _wikitext2("train" if purpose == "calibration" else "test")
    if isinstance(source, (str, Path)) and os.path.isfile(os.path.expanduser(source)):
        try:
            return Path(source).expanduser().read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"source {str(source)!r} is not a text in UTF-8 ({error})") from error
    raise ValueError(
        f"source must be one of {', '.join(SOURCES)}, the path of an existing text file or a list of strings; "
        f"got {source!r:.80}"
    )


def _described(source):
    return f"source {str(source)!r}" if isinstance(source, (str, Path)) else "the given text"


def _wikitext2(split):
    """WikiText-2 (raw) as the literature tokenises it: the rows of the hub's data set, joined by blank lines."""
    local = local_folder() and local_folder() / "wikitext-2-raw" / f"wiki.{split}.raw"
    if local and local.is_file():
        lines = local.read_text(encoding="utf-8").splitlines(keepends=True)
        return "\n\n".join(line if line.strip() else "" for line in lines)
    from datasets import load_dataset

    return "\n\n".join(load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split=split)["text"])


def _c4(split, seed=None):
    """Yield the documents of the first shard of C4 (English), shuffled if there is a seed."""
    shard = {"train": "c4-train.00000-of-01024.json.gz", "validation": "c4-validation.00000-of-00008.json.gz"}[split]
    local = local_folder() and local_folder() / "c4" / shard
    if local and local.is_file():
        with gzip.open(local, "rt", encoding="utf-8") as file:
            documents = [json.loads(line)["text"] for line in file]
        if seed is not None:
            random.Random(seed).shuffle(documents)
        yield from documents
        return
    from datasets import load_dataset

    stream = load_dataset("allenai/c4", data_files={split: f"en/{shard}"}, split=split, streaming=True)
    if seed is not None:
        stream = stream.shuffle(seed=seed, buffer_size=10_000)
    yield from (document["text"] for document in stream)


def _first(items, count):
    return [item for _, item in zip(range(count), items, strict=False)]
