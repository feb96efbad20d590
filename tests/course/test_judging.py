"""`wanda-judge`: an entry's file in, one JSON out; the held-out text is read in a final judgement only."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import VOCABULARY, tiny

import wanda
from wanda_course import judging, leaderboard, protocol, standings, tracks

TRACK = "smollm2-50-mask"
SCORE = """NAME = "Root of the norm"


def score(weight, input_norm):
    return weight.abs() * input_norm**0.5
"""
PREPARE = """NAME = "Prepared"


def prepare(model, calibration, rules):
    return {"method": lambda weight, input_norm: weight.abs() * input_norm**0.5}
"""
PRUNE = """import wanda

NAME = "By itself"


def prune(model, calibration, rules):
    wanda.prune(model, calibration, method=lambda w, norm: w.abs() * norm**0.5, progress=False, **rules.amount)
"""
CHEAT = """NAME = "Cheat"
STOLEN = {stolen}


def score(weight, input_norm):
    return weight.abs() * len(STOLEN)
"""


class Tokenizer:
    def decode(self, ids):
        return " ".join(map(str, ids))


def ids(seed, *shape):
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs `wanda-judge` on an entry's text; every track is small, and its model is tiny. Returns the exit status."""
    small = {"samples": 2, "length": 16, "sets": 2, "windows": 3, "window": 40}
    monkeypatch.setattr(judging, "TRACKS", {name: replace(rules, **small) for name, rules in tracks.TRACKS.items()})
    monkeypatch.setattr(leaderboard, "load", lambda name, device: (tiny(), Tokenizer()))
    monkeypatch.setattr(leaderboard, "eval_tokens", lambda tokenizer, source: ids(10, 250))
    monkeypatch.setattr(leaderboard, "calibration_set", lambda *of, samples, length, seed: ids(seed, samples, length))

    def run(text, *options, track=TRACK):
        (tmp_path / "my_entry.py").write_text(text)
        return judging.main([str(tmp_path / "my_entry.py"), "--track", track, "--out", str(tmp_path / "out"), *options])

    return run


def written(tmp_path, name, track=TRACK):
    return json.loads((tmp_path / "out" / track / f"{name}.json").read_text())


def test_a_try_reads_the_open_text_alone(command, tmp_path, capsys):
    assert command(SCORE) == 0
    entry = written(tmp_path, "root-of-the-norm")
    assert list(entry["perplexity"]) == list(entry["losses"]) == list(entry["dense"]) == ["open"]
    assert set(entry["provenance"]["data_sha256"]) == {"calibration_0", "calibration_1", "open"}
    assert "finals" not in entry
    assert (entry["track"], entry["version"], entry["file"]) == (TRACK, tracks.VERSION, "my_entry.py")
    assert entry["source"] == SCORE
    out = capsys.readouterr().out
    assert "open text: perplexity" in out
    assert "held-out" not in out


def test_progress_is_told(command, capsys):
    command(SCORE)
    assert "set 2 of 2: perplexity 9" in capsys.readouterr().err


def test_final_judgements_read_the_other_text_too_and_are_counted(command, tmp_path, capsys):
    for count in (1, 2):
        assert command(SCORE, "--final") == 0
        entry = written(tmp_path, "root-of-the-norm")
        assert entry["finals"] == count
    assert list(entry["perplexity"]) == ["open", "held_out"]
    assert "held-out text: perplexity" in capsys.readouterr().out


def test_the_three_kinds_of_entries_are_judged_alike(command, tmp_path):
    found = []
    for text, name in ((SCORE, "root-of-the-norm"), (PREPARE, "prepared"), (PRUNE, "by-itself")):
        assert command(text) == 0
        found.append(written(tmp_path, name))
    assert found[0]["perplexity"] == found[1]["perplexity"] == found[2]["perplexity"]
    model = tiny()
    wanda.prune(model, ids(0, 2, 16), method=lambda weight, norm: weight.abs() * norm**0.5, progress=False)
    expected = wanda.perplexity(model, ids(10, 250)[:120], 40)
    assert found[0]["perplexity"]["open"][0] == pytest.approx(expected, rel=1e-6)


def test_an_entry_under_a_pattern_with_an_update(command, tmp_path):
    text = PREPARE.replace("**0.5", "**0.5").replace("}\n", ', "update": "obs"}\n')
    assert command(text, track="smollm2-2of4-update") == 0
    assert written(tmp_path, "prepared", "smollm2-2of4-update")["rules"]["pattern"] == "2:4"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            SCORE.replace("score(", "metric("),
            "must define NAME, a string, and exactly one of the functions score",
        ),
        (SCORE + PREPARE.partition("\n")[2], "it defines score, prepare"),
        (SCORE.replace("NAME", "TITLE"), "and no NAME"),
        (CHEAT.format(stolen=ids(10, 250)[20:90].tolist()), "consecutive tokens of the evaluation text"),
        (PREPARE.replace('{"method"', '{"pattern": "1:2", "method"'), "it may choose"),
        (SCORE.replace("input_norm):", "input_norm)"), "my_entry.py cannot be imported: SyntaxError: expected ':'"),
        (
            SCORE.replace("weight, input_norm)", "weight)"),
            "TypeError: score() takes 1 positional argument but 2 were given",
        ),
        (SCORE.replace("input_norm**0.5", "input_norm[:5]"), "RuntimeError: The size of tensor a (6) must match"),
        (SCORE.replace("weight.abs() * ", ""), "for a weight of shape (8, 6) it gave (6,)"),
        (PRUNE.replace("    wanda.prune(", "    [][1] if calibration.ndim else wanda.prune("), "(my_entry.py, line 7)"),
    ],
    ids=[
        "no function",
        "two functions",
        "no name",
        "a leak",
        "a rule",
        "syntax",
        "arguments",
        "shapes",
        "a vector",
        "an index",
    ],
)
def test_what_is_no_entry_is_not_judged(command, tmp_path, capsys, text, words):
    assert command(text) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_wrong_track_or_file_is_named(command, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(SCORE, track="smollm2-50-masks")
    assert "no track 'smollm2-50-masks'; near it: smollm2-50-mask" in capsys.readouterr().err
    (tmp_path / "entry.txt").write_text(SCORE)
    for file, words in (("entry.txt", "its name must end in .py"), ("none.py", "No such file")):
        assert judging.main([str(tmp_path / file), "--track", TRACK]) == 2
        assert words in capsys.readouterr().err


def test_a_fault_that_is_not_the_entrys_is_not_hidden(command, monkeypatch):
    monkeypatch.setattr(leaderboard, "fingerprint", None)
    with pytest.raises(AttributeError):
        command(PREPARE)


def test_a_stolen_piece_of_the_held_out_text_is_found_when_it_is_read(command, capsys):
    """A try does not load the held-out text, so that it cannot be searched for either; nor does it help there."""
    text = CHEAT.format(stolen=ids(10, 250)[130:200].tolist())
    assert command(text) == 0
    assert command(text, "--final") == 2
    assert "not judged: 'Cheat'" in capsys.readouterr().err


def test_a_recorded_baseline_is_shown_beside(command, tmp_path, monkeypatch, capsys):
    assert command(SCORE.replace("Root of the norm", "Wanda").replace("**0.5", ""), "--final") == 0
    monkeypatch.setattr(judging.results, "folder", lambda: tmp_path)
    (tmp_path / "out").rename(tmp_path / "leaderboard")
    capsys.readouterr()
    assert command(SCORE) == 0
    entry, baseline = written(tmp_path, "root-of-the-norm"), judging.recorded(TRACK)
    ratio = standings.against(entry, baseline)["open"]
    said = capsys.readouterr()
    assert f"×{ratio:.3f} of Wanda's (" in said.out
    assert f"Wanda, open text: {baseline['perplexity']['open'][0]:.4g}, " in said.err


def test_offline_tracks_follow_the_courses_protocol():
    rules = tracks.TRACKS["smollm2-2of4-update"]
    assert (rules.samples, rules.length, rules.calibration) == (32, 512, "news")
    assert (rules.windows, rules.window, rules.evaluation) == (10, 1024, "wikipedia")
    assert (rules.pattern, rules.update, rules.sets, rules.zero_shot) == ("2:4", True, 3, False)
    assert protocol.EVALUATION["windows"] == rules.windows
    assert len(tracks.TRACKS) == 5 * 5 * 2
    assert tracks.TRACKS["llama-3.2-1b-70-mask"].amount == {"sparsity": 0.7}
