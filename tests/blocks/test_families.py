"""Each family of docs/models.md: its masks equal the reference's, or it is refused with its weights unchanged."""

import families
import pytest

# Whatever the version, these are built and equal the reference. They are the quick ones, part of `make test`.
NEVER_LESS = {
    "causal": "bloom deepseek_v3 falcon gemma2 gpt2 gpt_oss llama mistral mixtral olmoe opt phi3 qwen2 qwen2_moe qwen3 qwen3_moe",
    "encoder": "bert deberta-v2 modernbert roberta",
    "encoder-decoder": "bart t5",
    "image and text": "blip gemma4 llava qwen3_vl",
    "images": "convnext dinov2 vit",
    "sound": "wav2vec2",
}
QUICK = [(kind, name) for kind, names in NEVER_LESS.items() for name in names.split()]


def cells(line):
    """The cells of a line, without the number of experts that no token reached: with random routers, rounding may change it."""
    return [cell.partition(";")[0].strip() for cell in line.strip("|").split("|")]


def check(kind, name, whole):
    line = families.row(kind, name, whole)
    assert "WRONG" not in line
    assert (kind, name) not in QUICK or "| as the reference |" in line
    page = families.PAGE.read_text(encoding="utf-8")
    if f"transformers {families.version()} " in page:
        found = cells(line)
        lines = [cells(other)[: None if whole else len(found)] for other in page.splitlines()]
        assert found in lines, "run PYTHONPATH=tests python tests/blocks/families.py"


@pytest.mark.parametrize(("kind", "name"), QUICK, ids=str)
def test_no_common_family_is_pruned_wrongly(kind, name):
    check(kind, name, whole=False)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), families.FAMILIES, ids=str)
def test_no_family_is_pruned_wrongly_in_silence(kind, name):
    check(kind, name, whole=True)


def test_the_families_that_must_equal_the_reference_exist():
    assert set(families.FAMILIES) >= set(QUICK)
