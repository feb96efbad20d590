"""Each entry of the leaderboard against a slow statement of its formula, on a small model."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import VOCABULARY, tiny

import wanda
from benchmarks import leaderboard as board
from wanda_course import judging, leaderboard, results, standings, swaps, tracks

CALIBRATION = torch.randint(VOCABULARY, (3, 16), generator=torch.Generator().manual_seed(0))
RULES = tracks.TRACKS["smollm2-50-mask"]


def layers(model):
    return [layer for block in wanda.find_blocks(model) for layer in block.layers]


def options(name, model, rules=RULES):
    """What an entry's `prepare` gives to `wanda.prune`."""
    entry = judging.load(board.ENTRIES / f"{name}.py")
    return {"method": entry.function} if entry.way == "score" else entry.function(model, CALIBRATION, rules)


def inputs(model, windows=CALIBRATION):
    """What each layer of the dense model reads: dict from name to a list of [tokens, in], one per window."""
    found = {layer.name: [] for layer in layers(model)}
    for layer in layers(model):
        layer.module.register_forward_pre_hook(lambda _, args, name=layer.name: found[name].append(args[0][0].double()))
    with torch.no_grad():
        for window in windows:
            model(window[None])
    return found


@pytest.fixture
def layer():
    """A weight [4, 6] and a norm [6]."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 6, generator=generator), torch.rand(6, generator=generator) + 0.5


def by_entry(function, *shape):
    """A matrix whose entry (i, j) is function(i, j)."""
    return torch.tensor([[float(function(i, j)) for j in range(shape[1])] for i in range(shape[0])])


def test_wanda(layer):
    weight, norm = layer
    score = options("wanda", None)["method"](weight, norm)
    assert torch.allclose(score, by_entry(lambda i, j: abs(weight[i, j]) * norm[j], 4, 6))


def test_ria(layer):
    weight, norm = layer
    found = options("ria", None)
    assert found["group"] == "layer"
    assert "group" not in options("ria", None, tracks.TRACKS["smollm2-2of4-mask"])

    def relative(i, j):
        row, column = sum(abs(weight[i])), sum(abs(weight[:, j]))
        return (abs(weight[i, j]) / row + abs(weight[i, j]) / column) * norm[j] ** 0.5

    assert torch.allclose(found["method"](weight, norm), by_entry(relative, 4, 6))


def test_scarce_readers(layer):
    weight, norm = layer
    score = options("scarce_readers", None)["method"](weight, norm)

    def raised(i, j):
        column = sum(float(weight[k, j]) ** 2 for k in range(4)) / 4
        return abs(weight[i, j]) * norm[j] / column**0.125

    assert torch.allclose(score, by_entry(raised, 4, 6))


def test_gblm():
    model = tiny()
    score, layer = options("gblm", model)["method"], layers(model)[3]
    gradients = []
    for window in CALIBRATION:
        model.zero_grad()
        logits = model(window[None]).logits[0]
        torch.nn.functional.cross_entropy(logits[:-1], window[1:]).backward()
        gradients.append(layer.module.weight.grad.clone())
    weight, norm = layer.weight.clone(), torch.rand(layer.weight.shape[1])

    def blended(i, j):
        size = sum(float(gradient[i, j]) ** 2 for gradient in gradients) ** 0.5
        return abs(weight[i, j]) * (norm[j] / 3**0.5 + 100 * size)

    assert torch.allclose(score(weight, norm), by_entry(blended, *weight.shape), rtol=1e-4)


def test_owl():
    model = tiny()
    found = options("owl", model)
    shares, read = {}, inputs(model)
    for block in wanda.find_blocks(model):
        scores = []
        for layer in block.layers:
            norm = torch.cat(read[layer.name]).norm(dim=0).float()  # [in]
            scores += (layer.weight.abs() * norm).flatten().tolist()
        shares[block.name] = sum(score > 5 * sum(scores) / len(scores) for score in scores) / len(scores)
    low, high = min(shares.values()), max(shares.values())
    spared = {name: 0.16 * (share - low) / (high - low) for name, share in shares.items()}
    mean = sum(spared.values()) / len(spared)
    expected = {name: 0.5 - (value - mean) for name, value in spared.items()}
    assert high > low
    assert found == {"method": "wanda", "sparsity": pytest.approx(expected, abs=1e-6)}


def test_wanda_plus_plus():
    """The gradient of the norm of a block's output, with the block's input held fixed."""
    model = tiny()
    score, place = options("wanda_plus_plus", model)["method"], 8
    layer = layers(model)[place]
    block = next(block for block in wanda.find_blocks(model) if layer.name in [own.name for own in block.layers])
    squares, outputs = torch.zeros_like(layer.weight), []

    def detached(module, args, kwargs):
        return (args[0].detach(), *args[1:]), kwargs

    handles = [
        block.module.register_forward_pre_hook(detached, with_kwargs=True),
        block.module.register_forward_hook(lambda _, args, output: outputs.append(output)),
    ]
    for window in CALIBRATION:
        model(window[None])
        states = outputs[-1][0] if isinstance(outputs[-1], tuple) else outputs[-1]
        model.zero_grad()
        states.square().sum().sqrt().backward()
        squares += layer.module.weight.grad.square() / len(CALIBRATION)
    for handle in handles:
        handle.remove()
    weight, norm = layer.weight.clone(), torch.rand(layer.weight.shape[1])
    assert torch.allclose(score(weight, norm), weight.abs() * (100 * squares.sqrt() + norm), rtol=1e-4)
    assert not block.module._forward_hooks


def test_dsnot_brings_the_expected_output_closer_in_attention_layers():
    model = tiny()
    score, read = options("dsnot", model)["method"], inputs(model)
    changed = 0
    for layer in layers(model):
        tokens = torch.cat(read[layer.name])  # [tokens, in]
        norm, mean = tokens.norm(dim=0).float(), tokens.mean(dim=0).float()
        wandas = layer.weight.abs() * norm
        mask, before = (wanda.prune_mask(scores) for scores in (score(layer.weight, norm), wandas))
        if "self_attn" not in layer.name:
            assert torch.equal(mask, before)
            continue
        lost, lost_before = (((layer.weight * pruned) @ mean).abs() for pruned in (mask, before))  # [out]
        assert (lost <= lost_before + 1e-6).all()
        changed += int((mask != before).sum())
    assert changed > 0


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_alps(pattern):
    """The penalty grows until the mask stays; the kept weights are then the least-squares solution for that mask."""
    generator = torch.Generator().manual_seed(2)
    read = torch.randn(200, 8, generator=generator) @ torch.randn(8, 8, generator=generator)  # [tokens, in]
    weight = torch.randn(6, 8, generator=generator)  # [out, in]
    hessian = (read.T @ read).double()
    group = {"group": "layer"} if pattern is None else {"pattern": pattern}
    start = wanda.prune_mask(weight.abs() * hessian.diagonal().sqrt(), **group)
    found = options("alps", None, replace(RULES, pattern=pattern))["update"](weight, hessian, start)

    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(8)
    norm = damped.diagonal().sqrt()  # [in]
    gram, dense = damped / torch.outer(norm, norm), weight * norm
    pruned, kept, dual, penalty = start, dense * ~start, torch.zeros_like(dense), 0.1
    for round_ in range(100):
        before = pruned
        for _ in range(3):
            right = dense @ gram - dual + penalty * kept
            full = torch.linalg.solve(gram + penalty * torch.eye(8), right.T).T
            wanted = full + dual / penalty
            rows = wanted.abs().reshape(1 if pattern is None else -1, 48 if pattern is None else 4)
            places = rows.argsort(dim=1)[:, : rows.shape[1] // 2]
            pruned = torch.zeros_like(rows, dtype=torch.bool).scatter(1, places, True).reshape(6, 8)
            kept = wanted * ~pruned
            dual = dual + penalty * (full - kept)
        changed = int((pruned != before).sum()) / 24
        if changed == 0 or (round_ >= 10 and changed < 0.0003):
            break
        penalty *= 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
    assert round_ > 0
    assert torch.equal(found == 0, pruned)
    for row, mask, dense_row in zip(found.double(), ~pruned, weight.double(), strict=True):
        exact = torch.linalg.solve(damped[mask][:, mask], damped[mask] @ dense_row)
        assert torch.allclose(row[mask], exact, atol=1e-3)


@pytest.mark.parametrize("name", ["magnitude", "sparsegpt", "admm", "wanda_obs", "swaps"])
def test_entries_that_are_methods_of_their_own_are_pruned_by_them(name):
    model, own = tiny(), tiny()
    wanda.prune(model, CALIBRATION, progress=False, **options(name, model))
    ways = {"wanda_obs": {"method": "wanda", "update": "obs"}, "swaps": {"method": "wanda", "update": swaps.swap}}
    wanda.prune(own, CALIBRATION, progress=False, **ways.get(name, {"method": name}))
    assert all(torch.equal(one.weight, other.weight) for one, other in zip(layers(model), layers(own), strict=True))


# The judgements and their page ------------------------------------------------------------------------------------------


def test_every_entry_is_planned_and_short():
    planned = {path for _, path in board.plan()}
    assert planned == set(board.ENTRIES.glob("*.py"))
    offline = {f"smollm2-{amount}-{way}" for amount in tracks.AMOUNTS for way in tracks.WAYS}
    assert {track for track, _ in board.plan()} == offline
    for path in planned:
        assert len(path.read_text().splitlines()) <= 50, path.name


def test_judgements_are_current_and_the_page_is_drawn_from_them():
    files = sorted((results.folder() / judging.FOLDER).glob("*/*.json"))
    assert files
    for file in files:
        entry = json.loads(file.read_text())
        assert entry["source"] == (board.ENTRIES / entry["file"]).read_text(), f"{file.name} is of another source"
        assert not board.outdated(entry), f"{file.name}: judge it again"
        assert entry["track"] == file.parent.name
        assert entry["rules"] == vars(tracks.TRACKS[entry["track"]])
        assert list(entry["perplexity"]) == ["open", "held_out"]
    assert board.page() == board.PAGE.read_text()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The benchmark on a tiny model, with two entries, in an empty folder."""
    (tmp_path / "entries").mkdir()
    (tmp_path / "entries" / "wanda.py").write_text((board.ENTRIES / "wanda.py").read_text())
    text = (board.ENTRIES / "ria.py").read_text()
    (tmp_path / "entries" / "ria.py").write_text(text)
    rules = replace(RULES, samples=3, length=16, sets=2, windows=3, window=40)
    monkeypatch.setattr(board, "TRACKS", {"smollm2-50-mask": rules})
    monkeypatch.setattr(board, "ENTRIES", tmp_path / "entries")
    monkeypatch.setattr(board, "PAGE", tmp_path / "leaderboard.md")
    monkeypatch.setattr(board.results, "folder", lambda: tmp_path)
    monkeypatch.setattr(
        board, "plan", lambda: [("smollm2-50-mask", board.ENTRIES / name) for name in ("wanda.py", "ria.py")]
    )
    tokens = {
        "open": CALIBRATION.repeat(3, 1).flatten()[:120],
        "held_out": CALIBRATION.flip(1).repeat(3, 1).flatten()[:120],
    }

    class Tokenizer:
        def decode(self, ids):
            return " ".join(map(str, ids))

    def set_up(rules, texts=leaderboard.TEXTS):
        model = tiny()
        dense = {text: wanda.perplexity(model, part, 40) for text, part in tokens.items()}
        return leaderboard.Bench(rules, model, Tokenizer(), [CALIBRATION, CALIBRATION.flip(0)[:2]], tokens, dense)

    monkeypatch.setattr(board.leaderboard, "set_up", set_up)
    return tmp_path


def judgement(folder, name):
    return json.loads((folder / "leaderboard" / "smollm2-50-mask" / f"{name}.json").read_text())


def test_what_is_missing_or_changed_is_judged_and_drawn(small, monkeypatch, capsys):
    assert board.main([]) == 0
    assert "0 judgements left" in capsys.readouterr().out
    lines = [line for line in (small / "leaderboard.md").read_text().splitlines() if line.startswith("| [")]
    assert sorted(line.split("]")[0] for line in lines) == ["| [RIA", "| [Wanda"]
    assert judgement(small, "ria")["finals"] == 1
    monkeypatch.setattr(judging, "judge", None)  # nothing is judged twice
    assert board.main([]) == 0
    monkeypatch.undo()


def test_the_page_names_what_is_not_judged_yet(small, capsys):
    board.main([])
    assert "Not judged yet" not in board.PAGE.read_text()
    (small / "leaderboard" / "smollm2-50-mask" / "ria.json").unlink()
    board.main(["--draw"])
    assert "\nNot judged yet: ria.\n" in board.PAGE.read_text()


def test_a_changed_entry_is_judged_again_and_counted(small, capsys):
    assert board.main(["--minutes", "0"]) == 0
    assert "2 judgements left; run again" in capsys.readouterr().out
    board.main([])
    path = board.ENTRIES / "ria.py"
    path.write_text(path.read_text().replace("POWER = 0.5", "POWER = 0.25"))
    before = judgement(small, "wanda")
    board.main([])
    assert (judgement(small, "ria")["finals"], judgement(small, "wanda")) == (2, before)


def test_a_judgement_that_does_not_reproduce_is_told(small, capsys):
    board.main([])
    file = small / "leaderboard" / "smollm2-50-mask" / "ria.json"
    assert board.main(["--again", str(file)]) == 0
    entry = judgement(small, "ria")
    entry["perplexity"]["held_out"][1] *= 0.9
    standings.write(entry, file.parent)
    capsys.readouterr()
    assert board.main(["--again", str(file)]) == 1
    assert "RIA, held_out, set 1: perplexity" in capsys.readouterr().out
    (board.ENTRIES / "ria.py").write_text("# another")
    assert board.main(["--again", str(file)]) == 1
    assert "its source is not that of" in capsys.readouterr().out
