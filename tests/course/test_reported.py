"""The published figures: entered once, each with its source, and compared only with measurements made the same way."""

import re

from wanda_course.reported import comparable, content, figures

FIGURES = figures()


def test_every_figure_has_its_setting_and_its_source():
    assert len(FIGURES) == 3 * 10 + 7 * 3
    for figure in FIGURES:
        assert figure["method"] in ("dense", "magnitude", "wanda", "sparsegpt")
        assert (figure["amount"] == "") == (figure["method"] == "dense")
        assert re.fullmatch(r"|50%|\d:\d", figure["amount"])
        assert figure["text"] == "wikitext2"
        assert figure["window"] in (2048, 4096)
        assert figure["source"]
        assert figure["link"].startswith("https://github.com/")


def test_no_figure_appears_twice():
    keys = {(f["model"], f["window"], f["method"], f["amount"]) for f in FIGURES}
    assert len(keys) == len(FIGURES)


def test_figures_are_plausible_so_that_a_misplaced_one_shows():
    by = {(f["model"], f["window"], f["method"], f["amount"]): f["perplexity"] for f in FIGURES}
    for (model, window, method, amount), perplexity in by.items():
        assert by[model, window, "dense", ""] <= perplexity  # pruning never helps
        if (model, 2048, method, amount) in by and window == 4096:
            assert perplexity < by[model, 2048, method, amount]  # longer windows make prediction easier
        if amount == "2:4":  # the tighter pattern costs more
            assert by[model, window, method, "50%"] < by[model, window, method, "4:8"] < perplexity


def test_a_measurement_is_compared_with_the_same_model_text_and_window_only():
    found = comparable("huggyllama/llama-7b", "wikitext2", 2048)
    assert {(f["method"], f["amount"]): f["perplexity"] for f in found} == {
        ("dense", ""): 5.68,
        ("sparsegpt", "50%"): 7.22,
        ("wanda", "50%"): 7.26,
    }
    assert len(comparable("meta-llama/Llama-2-70b-hf", "wikitext2", 4096)) == 10
    for other in (
        ("huggyllama/llama-7b", "wikitext2", 4096),
        ("huggyllama/llama-7b", "c4", 2048),
        ("smollm2", "wikitext2", 2048),
    ):
        assert comparable(*other) == []


def test_every_model_with_a_hub_id_has_figures():
    models = content()["models"]
    assert set(models.values()) == {figure["model"] for figure in FIGURES}
    for address in models:
        assert any(comparable(address, "wikitext2", window) for window in (2048, 4096))


def test_the_figures_are_in_the_wheel(request):
    pyproject = (request.config.rootpath / "pyproject.toml").read_text(encoding="utf-8")
    assert '"data/reported.toml" = "wanda_course/data/reported.toml"' in pyproject
