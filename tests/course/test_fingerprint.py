"""The fingerprint changes when a method computes something else, but not with kernels, threads or moved code."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import on_cores

from wanda import options
from wanda import sparsegpt as repair
from wanda_course import fingerprint, results

KERNELS = {"default": {"ATEN_CPU_CAPABILITY": "default"}, "avx2": {"ATEN_CPU_CAPABILITY": "avx2"}}


@pytest.fixture
def fresh():
    """Clear the cached fingerprints before and after the test."""
    caches = (fingerprint._method, fingerprint._perplexity)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("kernel", KERNELS)
def test_other_kernels_have_the_same_fingerprint(kernel):
    command = [sys.executable, "-m", "wanda_course.fingerprint"]
    run = subprocess.run(command, env=os.environ | KERNELS[kernel], capture_output=True, text=True, check=True)
    for method, found in json.loads(run.stdout).items():
        assert fingerprint.same(found, fingerprint.of(method)), method


def test_several_threads_have_the_same_fingerprint(fresh):
    with on_cores(1):
        one = fingerprint.of("sparsegpt")
    fingerprint._method.cache_clear()
    with on_cores(3):
        assert fingerprint.same(fingerprint.of("sparsegpt"), one)


def other_damping(monkeypatch):
    monkeypatch.setattr(options, "inverse_factor", lambda h, layer: repair.inverse_factor(h, 0.011, layer))


def single_precision(monkeypatch):
    monkeypatch.setattr(repair, "PRECISION", {"other": torch.float32})


def square_of_the_norm(monkeypatch):
    monkeypatch.setattr(fingerprint, "wanda_score", lambda weight, norm: weight.abs() * norm.square())


def dense_propagation(monkeypatch):
    original = fingerprint.wanda.prune
    monkeypatch.setattr(
        fingerprint.wanda, "prune", lambda *args, **options: original(*args, propagate="dense", **options)
    )


def a_dropped_tail(monkeypatch):
    original = fingerprint.wanda.perplexity
    monkeypatch.setattr(fingerprint.wanda, "perplexity", lambda m, t, length: original(m, t[:-8], length))


@pytest.mark.parametrize(
    ("change", "method"),
    [
        (other_damping, "sparsegpt"),
        (single_precision, "sparsegpt"),
        (square_of_the_norm, "wanda"),
        (dense_propagation, "wanda"),
        (a_dropped_tail, "dense"),
    ],
)
def test_other_numerics_have_another_fingerprint(change, method, fresh, monkeypatch):
    before = fingerprint.of(method)
    fingerprint._method.cache_clear()
    fingerprint._perplexity.cache_clear()
    change(monkeypatch)
    assert not fingerprint.same(fingerprint.of(method), before)


def test_a_missing_fingerprint_never_matches():
    assert not fingerprint.same(None, fingerprint.of("dense"))
    assert not fingerprint.same(fingerprint.of("wanda"), fingerprint.of("dense"))


# The recorded results ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*results.MEASURED, "claims"])
def test_no_recorded_cell_is_stale(name):
    assert results.stale(name, results.load(name)) == []


@pytest.mark.parametrize("name", [*results.MEASURED, "claims"])
def test_a_stale_cell_is_found_and_refused_under_strict(name, monkeypatch, tmp_path):
    content = results.load(name)
    first = next(iter(content.values())) if name == "claims" else content[results.MEASURED[name]][-1]
    first["fingerprint"] = {}
    assert len(results.stale(name, content)) == 1
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    monkeypatch.setattr(results, "file", lambda _: path)
    monkeypatch.setenv(results.STRICT, "1")
    with pytest.raises(ValueError, match=rf"results/{name}\.json: stale cells"):
        results.read(name)
    monkeypatch.setenv(results.STRICT, "0")
    assert results.read(name) == content
