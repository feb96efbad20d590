"""Claims of notebooks: what they print, when they raise, and what is recorded."""

import json

import pytest

from wanda_course import claims, results

RECORDED = {
    "parameters": {"model_name": "smollm2", "samples": 32},
    "claims": {"06.1": {"value": 2.0814}, "06.2": {"value": 1768.3}},
}
COMMITTED = {"model_name": "smollm2", "samples": 32, "another": "ignored"}
TEXT = "SparseGPT beats Wanda at 2:4"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.delenv(results.STRICT, raising=False)
    monkeypatch.delenv(claims.RECORD, raising=False)


def claim_under(**parameters):
    return claims.Claims("06", COMMITTED | parameters, RECORDED)


@pytest.mark.parametrize("strict", ["0", "1"])
@pytest.mark.parametrize(
    ("value", "low", "high"),
    [(2, 1.8, 2.4), (1.8, 1.8, 2.4), (2.4, 1.8, 2.4), (0, 0, 0), (1e9, 1.8, None), (-1e9, None, 2.4), (3, None, None)],
)
def test_a_value_in_its_band_is_as_in_the_text(monkeypatch, capsys, strict, value, low, high):
    monkeypatch.setenv(results.STRICT, strict)
    claim_under()("06.1", value, low, high, TEXT)
    assert capsys.readouterr().out == f"06.1  as in the text: {TEXT}\n"


DIFFERING = [
    (1.7999, 1.8, 2.4, "1.8; the authors found 2.08, between 1.8 and 2.4"),
    (2.5, 1.8, 2.4, "2.5; the authors found 2.08, between 1.8 and 2.4"),
    (1, 1.8, None, "1; the authors found 2.08, at least 1.8"),
    (12345, None, 2.4, "12,300; the authors found 2.08, at most 2.4"),
    (float("nan"), 1.8, 2.4, "nan; the authors found 2.08, between 1.8 and 2.4"),
    (float("nan"), None, 2.4, "nan; the authors found 2.08, at most 2.4"),
]


@pytest.mark.parametrize(("value", "low", "high", "told"), DIFFERING)
def test_a_value_outside_its_band_is_printed_and_raises_only_under_strict(monkeypatch, capsys, value, low, high, told):
    claim_under()("06.1", value, low, high, TEXT)
    assert capsys.readouterr().out == f"06.1  differs here: {told}; the text describes theirs: {TEXT}\n"
    monkeypatch.setenv(results.STRICT, "1")
    with pytest.raises(claims.ClaimError) as error:
        claim_under()("06.1", value, low, high, TEXT)
    assert str(error.value) == f"06.1: {told}: {TEXT}"
    assert capsys.readouterr().out == ""


def test_a_claim_without_a_record_is_compared_with_its_band_alone(capsys):
    claim_under()("06.9", 3, 1.8, 2.4, TEXT)
    assert "differs here: 3; the authors found between 1.8 and 2.4;" in capsys.readouterr().out


@pytest.mark.parametrize("value", [2.0, 99.0, float("nan")])
@pytest.mark.parametrize("parameters", [{"samples": 8}, {"samples": 8, "model_name": "tiny"}])
def test_under_other_parameters_nothing_is_compared(monkeypatch, capsys, parameters, value):
    monkeypatch.setenv(results.STRICT, "1")
    claim = claim_under(**parameters)
    claim("06.1", value, 1.8, 2.4, TEXT)
    claim.summary()
    line, summary = capsys.readouterr().out.splitlines()
    assert line == f"06.1  here {claims.short(value)}; in the text 2.08, with other parameters: {TEXT}"
    changed = ", ".join(name for name in RECORDED["parameters"] if name in parameters)
    assert summary == f"1 claims not compared: {changed} differ from the text's"


def test_a_missing_parameter_counts_as_changed():
    assert claims.Claims("06", {"model_name": "smollm2"}, RECORDED).changed == ["samples"]


@pytest.mark.parametrize(
    ("values", "summary"),
    [
        ([2.0, 2.1, 2.2], "all 3 claims as in the text"),
        ([2.0, 9.0, 9.0], "1 of 3 claims as in the text; different here: 06.2, 06.3"),
    ],
)
def test_the_summary_counts_and_names(capsys, values, summary):
    claim = claim_under()
    for number, value in enumerate(values, start=1):
        claim(f"06.{number}", value, 1.8, 2.4, TEXT)
    claim.summary()
    assert capsys.readouterr().out.splitlines()[-1] == summary


@pytest.mark.parametrize("key", ["06.1", "06.2", "07.1", "6.3", "067.1", "06"])
@pytest.mark.parametrize("parameters", [{}, {"samples": 8}])
def test_a_key_must_be_new_and_the_notebooks_own(parameters, key):
    claim = claim_under(**parameters)
    claim("06.1", 2, 1.8, 2.4, TEXT)
    claim("06.2", 3, 1.8, 2.4, TEXT)
    with pytest.raises(ValueError, match=f"{key!r}: the key must be new and start with '06.'"):
        claim(key, 2, 1.8, 2.4, TEXT)
    assert claim.held + claim.differing == ["06.1", "06.2"]


@pytest.mark.parametrize(("parameters", "compared"), [({}, True), ({"samples": 8}, False)])
def test_each_claim_is_one_line_of_json(monkeypatch, tmp_path, parameters, compared):
    file = tmp_path / "claims.jsonl"
    monkeypatch.setenv(claims.RECORD, str(file))
    claim = claim_under(**parameters)
    claim("06.1", 2, 1.8, None, TEXT)
    claim("06.2", 3, None, 2.4, "λ")
    shared = {"compared": compared}
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == [
        {"key": "06.1", "value": 2.0, "low": 1.8, "high": None, "text": TEXT} | shared,
        {"key": "06.2", "value": 3.0, "low": None, "high": 2.4, "text": "λ"} | shared,
    ]


def test_a_claim_that_raises_is_recorded_too(monkeypatch, tmp_path):
    file = tmp_path / "claims.jsonl"
    monkeypatch.setenv(claims.RECORD, str(file))
    monkeypatch.setenv(results.STRICT, "1")
    with pytest.raises(claims.ClaimError):
        claim_under()("06.1", 3, 1.8, 2.4, TEXT)
    assert json.loads(file.read_text(encoding="utf-8"))["value"] == 3


def test_the_record_is_read_from_the_results(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "file", lambda name: tmp_path / f"{name}.json")
    assert claims.under("06", COMMITTED).recorded == {}
    (tmp_path / "claims.json").write_text(json.dumps({"06": RECORDED}), encoding="utf-8")
    assert claims.under("06", COMMITTED).recorded == RECORDED["claims"]
    assert claims.under("06", COMMITTED | {"samples": 8}).changed == ["samples"]
    assert claims.under("07", COMMITTED).recorded == {}


@pytest.mark.parametrize(("value", "said"), [(2.0814, "2.08"), (1768.3, "1,770"), (0.5, "0.5"), (-0.012345, "-0.0123")])
def test_numbers_are_short(value, said):
    assert claims.short(value) == said
