"""The memory measurement that notebook 13 shows."""

import pytest
from conftest import tiny

from wanda_course import footprint

pytestmark = pytest.mark.long

needs_linux = pytest.mark.skipif(not footprint.CLEAR.is_file(), reason="only Linux reports a process's peak memory")


@needs_linux
def test_streaming_takes_less_than_the_whole_model_and_both_peaks_are_plausible(tmp_path):
    model = tiny(hidden_size=256, intermediate_size=1024, num_hidden_layers=24)
    model.save_pretrained(tmp_path / "model")
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    peaks = {way: footprint.peak(way, tmp_path / "model", 2, 32) for way in footprint.WAYS}
    assert weights <= peaks["whole"] < 4 * weights
    assert 0 < peaks["stream"] < weights / 2


def test_an_unknown_way_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'whole', 'stream'; got 'both'"):
        footprint.peak("both", tmp_path, 1, 8)


@needs_linux
def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="the measured run failed: .*config"):
        footprint.peak("stream", tmp_path, 1, 8)


def test_the_peak_is_none_where_the_system_does_not_report_it(tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "CLEAR", tmp_path / "not here")
    assert footprint.peak("stream", tmp_path, 1, 8) is None
