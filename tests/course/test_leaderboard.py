"""The judge measures correctly, enforces the rules, and refuses a metric that can reach the evaluation text."""

import json
import math
import random
import re
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from conftest import VOCABULARY, tiny

import wanda
from wanda import find_blocks
from wanda.sources.text import eval_tokens as the_loader
from wanda.tools.compare import restoring
from wanda_course import leaderboard, leaks, standings
from wanda_course.exercises import checker

RULES = leaderboard.Rules(model="tiny", samples=2, length=16, sets=2, windows=3, window=40)
WORDS = [f"word{number:02} " for number in range(VOCABULARY)]


class Tokenizer:
    """The part of a tokenizer that the judge needs."""

    def decode(self, ids):
        return "".join(WORDS[number] for number in ids)


def ids(seed, *shape):
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


TEXTS = {"open": ids(10, 120), "held_out": ids(11, 120)}
CALIBRATIONS = [ids(seed, 2, 16) for seed in range(RULES.sets)]
STOLEN = TEXTS["held_out"][20:80]  # a global, for metrics that name it
PASSAGE = Tokenizer().decode(STOLEN.tolist())


@pytest.fixture
def bench():
    model = tiny()
    dense = {name: wanda.perplexity(model, text, RULES.window) for name, text in TEXTS.items()}
    return leaderboard.Bench(RULES, model, Tokenizer(), CALIBRATIONS, TEXTS, dense)


def score(weight, input_norm):
    return weight.abs() * input_norm


def layers(model):
    return [layer for block in find_blocks(model) for layer in block.layers]


def weights(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def unchanged(model, before):
    return all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))


# Measuring --------------------------------------------------------------------------------------------------------------


def test_an_entry_matches_pruning_and_measuring_by_hand(bench):
    before = weights(bench.model)
    entry = leaderboard.judge("by hand", bench, score)
    assert unchanged(bench.model, before)
    for index, windows in enumerate(CALIBRATIONS):
        with restoring(bench.model):
            wanda.prune(bench.model, windows, propagate="dense", progress=False)
            assert entry["sparsity"][index] == wanda.sparsity(bench.model) == 0.5
            for name, text in TEXTS.items():
                assert entry["perplexity"][name][index] == wanda.perplexity(bench.model, text, RULES.window)
    assert entry["perplexity"]["open"][0] != entry["perplexity"]["open"][1]  # seeds matter
    assert entry["dense"] == bench.dense
    assert entry["source"].startswith("def score(weight, input_norm):")


def test_a_named_method_a_score_and_a_prepared_score_are_the_same_metric(bench):
    named = leaderboard.judge("a", bench, "wanda")
    assert named["source"] is None
    prepared = leaderboard.judge("b", bench, prepare=lambda model, calibration: {"method": score})
    assert named["perplexity"] == prepared["perplexity"] == leaderboard.judge("c", bench, score)["perplexity"]
    assert named["perplexity"] != leaderboard.judge("d", bench, "magnitude")["perplexity"]


def test_prepare_is_given_the_dense_model_and_the_calibration_windows_of_each_seed(bench):
    seen = []

    def prepare(model, calibration):
        seen.append((wanda.sparsity(model), calibration))
        return {"method": score, "group": "layer"}

    leaderboard.judge("prepared", bench, prepare=prepare)
    assert [sparsity for sparsity, _ in seen] == [0, 0]
    assert all(torch.equal(*pair) for pair in zip([windows for _, windows in seen], CALIBRATIONS, strict=True))


def test_sparsity_may_vary_over_layers_if_the_total_meets_the_rules(bench):
    def uneven(model, calibration, last=0.25):
        return {"method": score, "sparsity": {"layers.0": 0.75, "layers.1": 0.5, "layers.2": last}}

    assert leaderboard.judge("uneven", bench, prepare=uneven)["sparsity"] == [0.5, 0.5]
    with pytest.raises(ValueError, match=r"'lazy' prunes 41\.67% of the weights; the rules require 50\.00%"):
        leaderboard.judge("lazy", bench, prepare=partial(uneven, last=0.0))


def doubling(weight, input_norm):
    return weight.mul_(2).abs() * input_norm


def retraining(model, calibration):
    model.get_input_embeddings().weight.data += 1
    for layer in layers(model):
        layer.module.weight.data *= -3
    return {"method": score}


@pytest.mark.parametrize("metric", [{"method": doubling}, {"prepare": retraining}], ids=["score", "prepare"])
def test_a_metric_that_changes_weights_is_judged_by_its_mask_alone(bench, metric):
    """The kept weights are the dense model's, and the model is restored afterwards."""
    before = weights(bench.model)
    entry = leaderboard.judge("repair", bench, **metric)
    assert unchanged(bench.model, before)
    for windows, *found in zip(CALIBRATIONS, *entry["perplexity"].values(), strict=True):
        with restoring(bench.model):
            retraining(bench.model, windows) if "prepare" in metric else None
            wanda.prune(bench.model, windows, method=metric.get("method", score), propagate="dense", progress=False)
            masks = [layer.weight == 0 for layer in layers(bench.model)]
        for parameter, weight in zip(bench.model.parameters(), before, strict=True):
            parameter.data.copy_(weight)
        with restoring(bench.model):
            for layer, mask in zip(layers(bench.model), masks, strict=True):
                layer.replace(layer.weight.masked_fill(mask, 0))
            assert found == [wanda.perplexity(bench.model, text, RULES.window) for text in TEXTS.values()]


def test_the_model_is_restored_after_a_metric_fails(bench):
    def failing(model, calibration):
        retraining(model, calibration)
        raise ArithmeticError("no score today")

    before = weights(bench.model)
    with pytest.raises(ArithmeticError, match="no score today"):
        leaderboard.judge("failing", bench, prepare=failing)
    assert unchanged(bench.model, before)


@pytest.mark.parametrize("options", [{"pattern": "2:4"}, {"skip": "layers.0"}, {"calibration": ids(0, 2, 16)}])
def test_prepare_may_not_choose_what_the_rules_fix(bench, options):
    with pytest.raises(ValueError, match=rf"'x' chooses \['{next(iter(options))}'\]; it may choose"):
        leaderboard.judge("x", bench, prepare=lambda model, calibration: {"method": score} | options)


def test_one_of_method_prepare_and_prune(bench):
    for number, metric in enumerate([{}, {"method": score, "prepare": retraining}, {"prepare": score, "prune": score}]):
        with pytest.raises(TypeError, match=f"give one of method, prepare and prune, not {2 if number else 0}"):
            leaderboard.judge("x", bench, **metric)


def test_set_up_loads_what_the_rules_name_and_the_texts_do_not_overlap(monkeypatch):
    stream = torch.arange(250) % VOCABULARY
    monkeypatch.setattr(leaderboard, "load", lambda name, device: (tiny(), f"tokenizer of {name}"))
    monkeypatch.setattr(leaderboard, "eval_tokens", lambda tokenizer, source: stream)
    monkeypatch.setattr(leaderboard, "calibration_set", lambda *of, seed, **sizes: (*of, sizes, seed))
    found = leaderboard.set_up(RULES)
    assert found.calibrations[1] == ("tokenizer of tiny", "news", {"samples": 2, "length": 16}, 1)
    assert torch.equal(torch.cat([found.texts["open"], found.texts["held_out"]]), stream[:240])
    assert found.dense["open"] == wanda.perplexity(found.model, stream[:120], 40)
    tried = leaderboard.set_up(RULES, texts=["open"])  # the held-out text is not even kept
    assert (list(tried.texts), list(tried.dense)) == (["open"], ["open"])
    with pytest.raises(ValueError, match="'wikipedia' has 250 tokens; two texts of 160 tokens are needed"):
        leaderboard.set_up(leaderboard.Rules(windows=4, window=40, sets=0))


def pruning(model, calibration, extra=0.0, **options):
    """An entry of its own: it prunes with an update, and changes what it should not."""
    wanda.prune(model, calibration, method="sparsegpt", progress=False, **options)
    model.get_input_embeddings().weight.data += extra


def under(bench, **rules):
    return replace(bench, rules=replace(RULES, **rules))


def test_with_an_update_the_prunable_weights_count_and_nothing_else(bench):
    before = weights(bench.model)
    plain = leaderboard.judge("a", under(bench, update=True), prune=pruning)
    assert unchanged(bench.model, before)
    with restoring(bench.model):
        pruning(bench.model, CALIBRATIONS[0])
        expected = [wanda.perplexity(bench.model, text, RULES.window) for text in TEXTS.values()]
    assert [values[0] for values in plain["perplexity"].values()] == expected
    changing = leaderboard.judge("b", under(bench, update=True), prune=partial(pruning, extra=1.0))
    assert unchanged(bench.model, before)
    assert changing["perplexity"] == plain["perplexity"]  # the other weights are the dense model's
    by_options = leaderboard.judge(
        "c", under(bench, update=True, propagate="pruned"), prepare=lambda model, calibration: {"method": "sparsegpt"}
    )
    assert by_options["perplexity"] == plain["perplexity"]
    by_mask = leaderboard.judge("d", bench, prune=pruning)
    assert by_mask["sparsity"] == plain["sparsity"]
    assert by_mask["perplexity"] != plain["perplexity"]


def test_a_pattern_holds_in_every_layer(bench):
    rules = {"pattern": "2:4", "update": True}
    entry = leaderboard.judge("a", under(bench, **rules), prune=partial(pruning, pattern="2:4"))
    assert entry["sparsity"] == [0.5, 0.5]
    with pytest.raises(ValueError, match=r"'b' breaks the pattern 2:4 in \d+ of 21 layers"):
        leaderboard.judge("b", under(bench, **rules), prune=pruning)


def test_a_ruined_model_is_not_an_entry(bench):
    def ruin(model, calibration):
        pruning(model, calibration)
        layers(model)[0].module.weight.data[0, :] = torch.nan

    with pytest.raises(ValueError, match="'ruined' leaves a model whose perplexity is nan"):
        leaderboard.judge("ruined", under(bench, update=True, sparsity=0.5), prune=ruin)


def test_losses_time_and_numerics_are_recorded(bench):
    entry = leaderboard.judge("a", bench, "magnitude")
    assert [len(values) for values in entry["losses"]["open"]] == [RULES.windows] * RULES.sets
    mean = sum(entry["losses"]["open"][0]) / RULES.windows
    assert entry["perplexity"]["open"][0] == pytest.approx(2.718281828**mean, rel=1e-4)
    assert len(entry["forwards"]) == RULES.sets
    assert all(passes > 0 for passes in entry["forwards"])
    assert set(entry["fingerprint"]) == {"magnitude", "wanda"}  # wanda's: of the walk
    own = leaderboard.judge("b", under(bench, update=True), prune=pruning)
    assert set(own["fingerprint"]) == {"admm", "magnitude", "sparsegpt", "wanda"}  # it may have run any of them
    assert "accuracy" not in entry


def test_tracks_for_models_of_the_hub_measure_zero_shot_tasks(bench, monkeypatch):
    asked = []
    monkeypatch.setattr(leaderboard, "zero_shot", lambda *of: asked.append(of) or {"arc_easy": 0.5})
    entry = leaderboard.judge("a", under(bench, zero_shot=True), "magnitude")
    assert entry["accuracy"] == [{"arc_easy": 0.5}] * RULES.sets
    assert asked[0] == (bench.model, bench.tokenizer, leaderboard.PAPER_TASKS)


# Keeping and comparing --------------------------------------------------------------------------------------------------


def test_an_entry_survives_a_round_trip_and_names_no_folder(bench, tmp_path):
    entry = leaderboard.judge("My metric, no. 2!", bench, score)
    file = standings.write(entry, tmp_path / "entries")
    assert file.name == "my-metric-no-2.json"
    assert standings.read(tmp_path / "entries", entry) == [entry]
    assert standings.read(tmp_path / "entries", entry | {"rules": entry["rules"] | {"windows": 4}}) == []
    other = {"provenance": {"data_sha256": entry["provenance"]["data_sha256"] | {"open": "another text"}}}
    assert standings.read(tmp_path / "entries", entry | other) == []
    assert standings.read(tmp_path / "entries") == [entry]
    assert str(tmp_path) not in file.read_text()
    assert not re.search(r"/(root|home|tmp|Users)/", file.read_text())
    assert set(entry["provenance"]["data_sha256"]) == {"calibration_0", "calibration_1", "open", "held_out"}
    assert json.loads(file.read_text())["rules"]["sets"] == 2


def test_an_entry_replaces_an_earlier_one(tmp_path):
    for value in (1.0, 2.0):
        file = standings.write({"name": "mine", "value": value}, tmp_path)
    assert json.loads(file.read_text()) == {"name": "mine", "value": 2.0}
    assert list(tmp_path.iterdir()) == [file]


def entry(name, opened, held_out=None, rules="the rules", data="the text"):
    perplexity = {"open": opened} | ({"held_out": held_out} if held_out else {})
    hashes = {"data_sha256": dict.fromkeys(perplexity, data)}
    return {"name": name, "rules": rules, "perplexity": perplexity, "provenance": hashes}


def test_entries_are_compared_pair_by_pair():
    found = standings.against(entry("a", [20.0, 80.0], [30.0, 30.0]), entry("b", [40.0, 40.0], [40.0, 30.0]))
    assert found["open"] == pytest.approx(1.0)
    assert found["held_out"] == pytest.approx(0.75**0.5)
    assert found["gap"] == pytest.approx(0.75**0.5)
    assert (found["wins"], found["pairs"]) == (2, 4)  # a tie is not a win
    for other in ({"rules": "others"}, {"data": "others"}):
        with pytest.raises(ValueError, match="'a' and 'b' were judged under different rules or on other texts"):
            standings.against(entry("a", [1.0], [1.0], **other), entry("b", [1.0], [1.0]))


def test_a_try_is_compared_on_the_open_text_alone():
    found = standings.against(entry("a", [20.0, 80.0]), entry("b", [40.0, 40.0], [40.0, 30.0]))
    assert found == {"open": pytest.approx(1.0), "wins": 1, "pairs": 2}


def test_the_interval_is_that_of_a_slow_bootstrap():
    ours, theirs = (torch.randn(3, 10, generator=torch.Generator().manual_seed(seed)) / 10 for seed in (0, 1))
    low, high = standings.interval(*({"losses": {"open": losses.tolist()}} for losses in (ours, theirs)), "open")
    draw, means = random.Random(0), []
    for _ in range(4000):
        sets, windows = draw.choices(range(3), k=3), draw.choices(range(10), k=10)
        means.append(sum(float(ours[s, w] - theirs[s, w]) for s in sets for w in windows) / 30)
    means.sort()
    assert (low, high) == pytest.approx((math.exp(means[100]), math.exp(means[3900])), abs=0.01)
    same = {"losses": {"open": ours.tolist()}}
    assert standings.interval(same, same, "open") == (1, 1)


def test_the_exercise_on_pairs_is_what_the_leaderboard_does():
    ours, baseline = [20.0, 90.0, 31.0], [40.0, 40.0, 32.0]
    found = standings.against(entry("a", ours, ours), entry("b", baseline, baseline))
    ratio, wins = checker.EXERCISES["11.1"].solution(torch.tensor(ours), torch.tensor(baseline))
    assert found["open"] == found["held_out"] == pytest.approx(float(ratio))
    assert found["wins"] == 2 * int(wins)


def test_the_table_is_sorted_by_the_held_out_text():
    entries = [entry("a", [20.0, 30.0], [40.0, 60.0]), entry("b", [40.0, 40.0], [20.0, 22.0])]
    table = standings.table(entries, entries[0])
    assert list(table.index) == ["b", "a"]
    assert list(table.loc["a", ["open", "open ratio", "held_out", "held_out ratio"]]) == [25, 1, 50, 1]
    assert table.loc["a", "won"] == "0 of 4"
    assert table.loc["b", "won"] == "2 of 4"


# Cheats -----------------------------------------------------------------------------------------------------------------


def names_a_global(weight, input_norm):
    return weight.abs() * input_norm + STOLEN.sum()


def names_it_inside(weight, input_norm):
    return [[STOLEN for _ in range(1)] for _ in range(1)] and weight.abs()


def calls_another(weight, input_norm):
    return names_a_global(weight, input_norm)


def has_a_default(weight, input_norm, hidden=STOLEN):
    return weight.abs()


def has_a_keyword(weight, input_norm, *, hidden=STOLEN):
    return weight.abs()


def loads(weight, input_norm):
    return weight.abs() * len(wanda.eval_tokens(None, "wikipedia"))


def loads_by_another_name(weight, input_norm):
    return weight.abs() * len(the_loader(None, "wikipedia"))


def quotes(weight, input_norm):
    return weight.abs() * len(PASSAGE)


def encloses(hidden):
    return lambda weight, input_norm: weight.abs() * len(hidden)


class Holder:
    def __init__(self, hidden):
        self.hidden = {"deep": [hidden]}

    def __call__(self, weight, input_norm):
        return weight.abs()

    def method(self, weight, input_norm):
        return weight.abs()


class Namer:
    def __call__(self, weight, input_norm):
        return weight.abs() * len(STOLEN)


class Owner:
    hidden = STOLEN

    def __call__(self, weight, input_norm):
        return weight.abs() * len(self.hidden)


def attributed(weight, input_norm):
    return weight.abs()


attributed.hidden = STOLEN


@lru_cache
def decorated(weight, input_norm, hidden=STOLEN):
    return weight.abs()


def imports(weight, input_norm):
    from wanda.sources.text import eval_tokens

    return weight.abs() * len(eval_tokens(None, "wikipedia"))


CHEATS = {
    "a global": names_a_global,
    "a global in a comprehension": names_it_inside,
    "through another function": calls_another,
    "a default": has_a_default,
    "a keyword default": has_a_keyword,
    "the loader": loads,
    "the loader by another name": loads_by_another_name,
    "a string": quotes,
    "a closure": encloses(STOLEN),
    "a batch": encloses(STOLEN.reshape(2, 30)[None]),
    "a list": encloses(STOLEN.tolist()),
    "an array": encloses(STOLEN.numpy().astype(np.uint16)),
    "floats": encloses(STOLEN.to(torch.bfloat16)),
    "hidden among others": encloses(torch.cat([ids(5, 500), TEXTS["held_out"][32:64], ids(6, 500)])),
    "from any place on": encloses(TEXTS["open"][23 : 23 + 63]),
    "a set of tuples": encloses({tuple(STOLEN.tolist())}),
    "a partial": partial(has_a_default, hidden=STOLEN),
    "an object": Holder(STOLEN),
    "a method": Holder(STOLEN).method,
    "an object's call": Namer(),
    "an attribute of a class": Owner(),
    "an attribute of a function": attributed,
    "a decorated function": decorated,
    "a bound method of a library": encloses(STOLEN.tolist().count),
    "imported inside": imports,
    "the bench itself": encloses(leaderboard.Bench(RULES, None, None, CALIBRATIONS, TEXTS, {})),
}


@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS)
def test_a_metric_that_holds_the_evaluation_text_is_refused(cheat, bench):
    before = weights(bench.model)
    with pytest.raises(ValueError, match=r"'cheat' is not judged: .* (holds|loads) .*the evaluation text"):
        leaderboard.judge("cheat", bench, cheat)
    with pytest.raises(ValueError, match="'cheat' is not judged"):
        leaderboard.judge("cheat", bench, prepare=lambda model, calibration: {"method": cheat})
    assert unchanged(bench.model, before)


def unpacks(model, calibration, packed=STOLEN.flip(0)):  # noqa: B008 (reversed, it is not the text yet)
    return {"method": encloses(packed.flip(0))}


def test_the_score_that_prepare_returns_is_searched_too(bench):
    assert leaks.find(unpacks, list(TEXTS.values())) == []
    with pytest.raises(ValueError, match="'late' is not judged: <lambda> → hidden holds 32 or more"):
        leaderboard.judge("late", bench, prepare=unpacks)


INNOCENT = {
    "a score": score,
    "calibration windows": encloses(CALIBRATIONS),
    "fewer tokens than tell a text": encloses(torch.cat([TEXTS["open"][32:63], ids(7, 31)])),
    "weights": encloses(torch.randn(50, 50, generator=torch.Generator().manual_seed(0))),
    "no numbers": encloses(torch.full((50,), torch.nan)),
    "infinite numbers": encloses(torch.full((50,), torch.inf)),
    "numbers too large for tokens": encloses([2**80] * 40),
    "masks": encloses(TEXTS["open"] > 5),
    "libraries": encloses([wanda, torch, np, tiny().forward]),
    "a circle": Holder(None),
}
INNOCENT["a circle"].hidden["itself"] = INNOCENT["a circle"]


@pytest.mark.parametrize("innocent", INNOCENT.values(), ids=INNOCENT)
def test_honest_metrics_pass(innocent):
    assert leaks.find(innocent, list(TEXTS.values()), [PASSAGE]) == []


def test_invalid_arguments_of_the_search_are_errors():
    with pytest.raises(TypeError, match="must be callable, got Tensor"):
        leaks.find(STOLEN, [STOLEN])
    with pytest.raises(ValueError, match="at least 32 tokens .* got 31"):
        leaks.find(score, [STOLEN[:31]])


def laundered(model, tokens, strength):
    """A score made from the gradient of the loss on a text: the score holds no token of the text."""
    found = layers(model)
    with torch.enable_grad():
        loss = model(tokens[None], labels=tokens[None], use_cache=False).loss
        gradients = torch.autograd.grad(loss, [layer.module.weight for layer in found])
    rows = list(zip(found, gradients, strict=True))

    def score(weight, input_norm):
        (gradient,) = [gradient for layer, gradient in rows if torch.equal(layer.weight, weight)]
        return weight.abs() * input_norm - strength * weight * gradient

    return score


def test_the_held_out_text_reveals_a_laundered_text_that_the_search_misses(bench):
    cheat = laundered(bench.model, TEXTS["open"], strength=1e4)
    assert leaks.find(cheat, list(TEXTS.values())) == []
    honest = leaderboard.judge("honest", bench, "wanda")
    found = standings.against(leaderboard.judge("cheat", bench, cheat), honest)
    assert found["open"] < 0.97
    assert found["gap"] > 1.03
    mirror = standings.against(leaderboard.judge("m", bench, laundered(bench.model, TEXTS["held_out"], 1e4)), honest)
    assert mirror["gap"] < 0.97  # with the other text, the gap is reversed
