"""The quality benchmark resumes, and its cells can be found in a checkout and in the wheel."""

import copy
import json
import math

import pytest
import torch
from conftest import VOCABULARY

import wanda
from benchmarks import quality
from benchmarks.quality import Bench, plan, setting
from wanda.tools.compare import restoring
from wanda_course import results

TOKENS = torch.randint(VOCABULARY, (200,), generator=torch.Generator().manual_seed(2))


class Counting(Bench):
    """A bench with given texts that records what it measures."""

    def __init__(self, model, tokens, calibration):
        super().__init__(model, tokenizer=None)
        self.texts, self.windows, self.measured = {"wikipedia": tokens}, {}, []
        for seed in range(3):
            self.windows["news", 32, 512, seed] = calibration.roll(seed, 0)

    def measure(self, cell, data, progress=True):
        self.measured.append(cell["method"])
        return super().measure(cell, data, progress)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(quality, "LENGTH", 64)
    monkeypatch.setitem(quality.TEXTS, "wikipedia", 3)  # of 64 tokens; 8 are unused
    return [setting("dense"), setting("magnitude", 0.5), setting("wanda", pattern="2:4")]


def test_finished_cells_are_not_measured_again_and_changed_data_makes_new_ones(model, calibration, small, tmp_path):
    path = tmp_path / "quality.json"
    bench = Counting(model, TOKENS, calibration)
    assert quality.run(bench, small[:2], path, progress=False) == 0
    before = path.read_text()
    assert quality.run(bench, small, path, progress=False) == 0
    assert bench.measured == ["dense", "magnitude", "wanda"]
    assert path.read_text().startswith(before.rpartition("\n]}")[0])  # earlier cells are unchanged

    other = Counting(model, TOKENS, calibration.flip(1))  # only Wanda uses the calibration windows
    assert quality.run(other, small, path, progress=False) == 0
    assert other.measured == ["wanda"]
    assert [cell["method"] for cell in quality.read(path)] == ["dense", "magnitude", "wanda"]
    assert quality.run(Counting(model, TOKENS.flip(0), calibration.flip(1)), small, path, progress=False) == 0
    assert len(quality.read(path)) == 3


def test_no_cell_starts_after_the_time_is_up(model, calibration, small, tmp_path):
    path = tmp_path / "quality.json"
    assert quality.run(Counting(model, TOKENS, calibration), small, path, minutes=-1, progress=False) == 3
    assert not path.exists()


def test_an_interrupted_cell_leaves_the_file_whole(model, calibration, small, tmp_path, monkeypatch):
    path = tmp_path / "quality.json"
    bench = Counting(model, TOKENS, calibration)

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    quality.run(bench, small[:1], path, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(wanda, "prune", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quality.run(bench, small, path, progress=False)
    assert [cell["method"] for cell in quality.read(path)] == ["dense"]
    assert {entry.name for entry in tmp_path.iterdir()} <= {path.name, f"{path.name}.lock"}


def test_a_cell_holds_its_measurements_and_their_provenance(model, calibration, small, tmp_path):
    path = tmp_path / "quality.json"
    quality.run(Counting(model, TOKENS, calibration), small, path, progress=False)
    cell = quality.read(path)[-1]
    with restoring(model):
        wanda.prune(model, calibration, pattern="2:4", progress=False)
        expected = wanda.perplexity(model, TOKENS[: 3 * 64], 64)
    assert cell["perplexity"] == pytest.approx(expected, rel=1e-6)
    assert math.exp(sum(cell["losses"]) / 3) == pytest.approx(expected, rel=1e-4)
    assert cell["zeros"] == 0.5
    assert {"date", "command", "machine", "versions"} <= cell.keys()
    assert cell["data_sha256"].keys() == {"evaluation", "calibration"}
    assert "calibration" not in quality.read(path)[0]["data_sha256"]  # the dense model uses none


def test_the_tail_of_a_text_counts_by_its_length(model, calibration, small, tmp_path, monkeypatch):
    monkeypatch.setitem(quality.TEXTS, "wikipedia", None)
    result = Bench(model, None).measure(setting("dense"), {"evaluation": TOKENS}, progress=False)
    assert len(result["losses"]) == 4
    assert result["perplexity"] == pytest.approx(wanda.perplexity(model, TOKENS, 64), rel=1e-6)


@pytest.mark.parametrize("amount", [{"sparsity": 0.5}, {"pattern": "2:4"}])
def test_swaps_are_a_method_of_the_bench(model, calibration, small, amount):
    bench, data = Bench(model, None), {"evaluation": TOKENS, "calibration": calibration}
    results = [bench.measure(setting(method, **amount), data, progress=False) for method in ("swaps", "wanda")]
    assert results[0]["zeros"] == results[1]["zeros"]
    assert results[0]["losses"] != results[1]["losses"]


def test_the_plan_has_every_cell_once_in_canonical_form():
    parts = plan()
    assert [len(cells) for cells in parts.values()] == [10, 24, 6, 18, 36, 10]
    assert setting("wanda", 0.5) in parts["groups"]  # an explicit default group and an omitted one are the same
    assert all(wanted in parts["methods"] for wanted in parts["seeds"] if wanted["calibration"]["seed"] == 0)
    assert setting("magnitude", 0.5, seed=1) == setting("magnitude", 0.5, seed=2)  # it uses no windows
    for cells in parts.values():
        assert len({json.dumps(cell) for cell in cells}) == len(cells)


def test_the_committed_cells_are_cells_of_the_plan():
    wanted = [cell for cells in plan().values() for cell in cells]
    measured = results.read("quality")["cells"]
    for cell in measured:
        assert {name: cell[name] for name in wanted[0]} in wanted
    assert len({json.dumps({name: cell[name] for name in wanted[0]}) for cell in measured}) == len(measured)
    for cell in results.quality(text="wikipedia"):
        assert len(cell["losses"]) == cell["windows"]
        assert cell["perplexity"] == pytest.approx(math.exp(sum(cell["losses"]) / cell["windows"]), rel=1e-4)


def test_cells_are_found_by_their_settings():
    (cell,) = results.quality(text="wikitext2", method="wanda", amount="2:4")
    assert (cell["pattern"], cell["sparsity"], cell["seed"]) == ("2:4", None, 0)
    assert results.one(text="wikitext2", method="dense")["amount"] == ""
    assert len(results.quality(text="wikitext2", method=("magnitude", "wanda"), amount=("50%", "2:4"))) == 4
    with pytest.raises(ValueError, match=r"0 cells .*expected one"):
        results.one(text="wikitext2", method="wanda", amount="3:4")
    with pytest.raises(FileNotFoundError):
        results.read("no such results")


def test_an_installed_package_reads_the_results_inside_it(tmp_path, monkeypatch, request):
    content = copy.deepcopy(results.read("speed"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "speed.json").write_text(json.dumps(content))
    monkeypatch.setattr(results, "CHECKOUT", None)
    monkeypatch.setattr(results, "PACKAGE", tmp_path)
    assert results.read("speed") == content
    pyproject = (request.config.rootpath / "pyproject.toml").read_text(encoding="utf-8")
    assert '"results" = "wanda_course/results"' in pyproject
