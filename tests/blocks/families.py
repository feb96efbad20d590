"""Every family of models that the installed transformers knows, built small and pruned; `docs/models.md` is the table.

PYTHONPATH=tests python tests/blocks/families.py        # measures all families (5 minutes on two idle cores) and writes the table
"""

import copy
import importlib.metadata
import inspect
import os
import re
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import transformers
from small_models import FAMILIES, KINDS, SIZES, batches_for, build
from watching import reference_walk, zeros

import wanda

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def outcome(kind, model, batches):
    """What becomes of a model, which is pruned: (outcome, detail).

    The outcome is "as the reference"; "by magnitude in part": so are some layers that the reference prunes by their
    inputs; "refused"; "not tested": the model itself fails on the batches; or "WRONG".
    """
    expected, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    try:
        report = wanda.prune(model, batches, progress=False)
    except (ValueError, TypeError) as error:
        same = all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())
        lacks = "fails on the first calibration batch" in str(error) or "a calibration batch needs" in str(error)
        return (("not tested" if lacks else "refused") if same else "WRONG"), _cell(error)
    except Exception as error:
        return "WRONG", f"{type(error).__name__}: {_cell(error)}"
    layers = {layer.parameter_name for block in wanda.find_blocks(model) for layer in block.layers}
    if any(not torch.equal(weight, before[key]) for key, weight in model.state_dict().items() if key not in layers):
        return "WRONG", "weights outside the layers changed"
    read = reference_walk(expected, batches)
    unreached = {layer.name for layer in report.layers if not layer.reached}
    found, wanted = zeros(model), zeros(expected)
    worst = min(float((found[layer] == wanted[layer]).double().mean()) for layer in found.keys() - (unreached & read))
    detail = f"{len(report.layers)} layers, {report.model_sparsity:.0%} of the model"
    # The reference prunes some layers otherwise, and what follows reads their outputs.
    if worst <= (0.99 if unreached & read else 0.999):
        return f"WRONG: {worst:.3f}", detail
    if unreached & read:  # weights that a block uses without calling their layer, such as Mamba's dt_proj
        names = ", ".join(sorted({layer.rpartition(".")[2] for layer in unreached & read}))
        return "by magnitude in part", f"{detail}: {names}, with a warning"
    if unreached:
        detail += f"; {len(unreached)} layers without calibration tokens, by magnitude, with a warning"
    return "as the reference", detail


def padded(kind, dense, batches):
    """Whether padding, on the left of a decoder and on the right of others, leaves the masks as they are.

    A window with padding and one without make a batch; without it, each is a batch of its own.
    """
    first, second = batches[:2]
    if "input_ids" not in first:
        return ""
    ids, other = (batch["input_ids"] for batch in (first, second))
    if any(value.shape[1] == ids.shape[1] for name, value in first.items() if name != "input_ids"):
        return "not tested"  # what else there is for each position would need padding too
    more, other = torch.full((1, 6), SIZES["pad_token_id"]), torch.cat([other, other[:, -6:]], dim=1)
    parts = [more, ids] if kind == "causal" else [ids, more]
    mask = torch.cat([torch.zeros_like(more) if part is more else torch.ones_like(ids) for part in parts], dim=1)
    both = {name: torch.cat([first[name], second[name]]) for name in first.keys() - {"input_ids"}}
    both["input_ids"] = torch.cat([torch.cat(parts, dim=1), other])
    both["attention_mask"] = torch.cat([mask, torch.ones_like(mask)])
    models = [copy.deepcopy(dense), copy.deepcopy(dense)]
    try:
        for model, given in zip(models, ([first, second | {"input_ids": other}], [both]), strict=True):
            wanda.prune(model, given, progress=False)
    except (ValueError, RuntimeError) as error:
        return f"refused: {_cell(error)}"
    plain, other = map(zeros, models)
    if min(float((plain[layer] == other[layer]).double().mean()) for layer in plain) > 0.99:
        return "same masks"
    with torch.no_grad():
        plain, other = dense(**first).logits.double(), dense(**both).logits[:1].double()
    if other.shape[1] == mask.shape[1]:
        other = other[:, mask[0].bool()]
    differs = plain.shape != other.shape or (plain - other).norm() > 1e-3 * plain.norm()
    return "the model reads it" if differs else "WRONG"


def saved(kind, model):
    """Whether a pruned model comes back from the disk as it was."""
    auto = getattr(transformers, KINDS[kind][0])
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder)
            transformers_can = _equal(auto.from_pretrained(folder), model)
        except Exception:
            transformers_can = False
    if not transformers_can:
        return "not by transformers either"
    with tempfile.TemporaryDirectory() as folder:
        wanda.save(model, None, folder)
        return "same" if _equal(auto.from_pretrained(folder), model) else "WRONG"


def streamed(kind, dense, pruned, batches):
    """Whether `prune_checkpoint` gives the same bits."""
    if kind not in ("causal", "image and text"):
        return ""
    auto = getattr(transformers, KINDS[kind][0])
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/source", f"{folder}/target"
        dense.save_pretrained(source)
        try:
            wanda.prune_checkpoint(source, target, batches, progress=False)
        except (ValueError, RuntimeError) as error:
            return f"refused: {_cell(error)}"
        return "same bits" if _equal(auto.from_pretrained(target), pruned) else "WRONG"


def row(kind, name, whole=True):
    """The line of the table for a family; if not `whole`, without what is measured on the disk and with padding."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = build(kind, name)
        except Exception as error:  # whatever a configuration class raises
            return f"| {name} | {kind} | not built small | {type(error).__name__} |"
        batches, dense = batches_for(kind, model), copy.deepcopy(model)
        cells = [name, kind, *outcome(kind, model, batches)]
        if whole and cells[2] in ("as the reference", "by magnitude in part"):
            cells += [padded(kind, dense, batches), saved(kind, model), streamed(kind, dense, model, batches)]
    return f"| {' | '.join(cells)} |"


def version():
    """Of transformers, as the page names it."""
    return importlib.metadata.version("transformers")


def _cell(error):
    """An error's message up to its first semicolon, short enough for a table."""
    text = re.sub(r"'[^']*/source", "'source", " ".join(str(error).partition(";")[0].replace("|", "").split()))
    return text if len(text) <= 160 else text[:157] + "..."


def _equal(one, other):
    weights = other.state_dict()
    return all(torch.equal(weight, weights[name]) for name, weight in one.state_dict().items())


def main():
    """Measure all families and write the page."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        lines = []
        for line in pool.map(row, *zip(*FAMILIES, strict=True)):
            lines.append(line)
            print(line, flush=True)
    write(lines)


def write(lines):
    """Write the page. lines: of the table, one for each family."""
    kinds = [line.split(" | ")[2] for line in lines]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    text = inspect.cleandoc(
        f"""
        # Models

        Every family that transformers {version()} lists under six of its auto classes, built small with random weights, pruned by
        Wanda at 50 %, and compared mask by mask with a slow reference: whole forward passes, and a watch on the
        matrix products instead of hooks. {counts}.

        `PYTHONPATH=tests python tests/blocks/families.py` writes this page; `tests/blocks/test_families.py` holds each line of it.

        - "By magnitude in part": a block uses the weights of some layers without calling them, so that their inputs are not seen.
        - "Not built small": the sizes that the test sets do not suit the family's configuration.
        - "Not tested": the small model fails on the test's batches, for lack of an input or because of its sizes.
        - Padded: whether a padded window, in a batch with a longer one, gives the masks of both without padding. Saved: whether `save` and
          `from_pretrained` give the pruned model back. Streamed: whether `prune_checkpoint` gives the same bits.

        | family | kind | outcome | detail | padded | saved | streamed |
        |---|---|---|---|---|---|---|
        """
    )
    PAGE.write_text("\n".join([text, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
