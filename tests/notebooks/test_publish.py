"""One address: every badge, bootstrap cell and link has that of pyproject.toml; `make publish` changes them all."""

import json
import re
import shutil
from pathlib import Path

import anatomy
import nbformat
import pytest

from wanda_course import publish

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "_owner_"  # placeholder until there is an owner
TEXTS = ("*.md", "*.yml", "Makefile", "wanda/**/*.py", "benchmarks/*.py", "data/*.toml", "notebooks/**/*.yaml")


def complaints(root):
    """Where a checkout's files disagree with its pyproject.toml, or lack an address; as sentences."""
    home = publish.repository(root)
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    readme = (root / "README.md").read_text(encoding="utf-8")
    for file in (root / "README.md", *notebooks):
        text = file.read_text(encoding="utf-8")
        for found in publish.addresses(text):
            if found != home:
                yield f"{file.name} names {found}, pyproject.toml {home}"
        if text.replace(home, "").count(f"{NOWHERE}/"):
            yield f"{file.name} still names the placeholder"
    for file in notebooks:
        header, install = nbformat.read(file, as_version=4).cells[:2]
        link = f"https://colab.research.google.com/github/{home}/blob/main/notebooks/{file.name}"
        if header.source.count(f"[![Open in Colab]({anatomy.BADGE})]({link})") != 1:
            yield f"{file.name} has no badge, or several, for {link}"
        if install.source.count(f"git+https://github.com/{home}") != 1:
            yield f"{file.name} has no install command, or several, for {home}"
        if readme.count(f"(notebooks/{file.name})") != 1 or readme.count(f"[Colab]({link})") != 1:
            yield f"README.md does not have a row for {file.name} with its link to Colab"


@pytest.fixture
def checkout(tmp_path):
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def contents(root):
    return {file: file.read_bytes() for file in (root / "pyproject.toml", *publish.files(root))}


def test_all_addresses_are_the_one_of_pyproject():
    assert list(complaints(ROOT)) == []


def test_no_other_file_names_the_address():
    """Files that publish does not rewrite must not name it."""
    others = [path for pattern in TEXTS for path in ROOT.glob(pattern) if path not in publish.files()]
    assert len(others) > 20
    for path in others:
        text = path.read_text(encoding="utf-8")
        assert publish.repository() not in text, path
        assert publish.addresses(text) == [], path


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("notebooks/00_start_here.ipynb", "google.com/github/HOME", "google.com/github/eve/wanda", "names eve/wanda"),
        ("notebooks/00_start_here.ipynb", "git+https://github.com/HOME", "git+https://github.com/eve/x", "names eve/x"),
        ("notebooks/00_start_here.ipynb", "git+https://github.com/HOME", "HOME", "no install command"),
        ("notebooks/06_benchmark.ipynb", "main/notebooks/06_", "main/notebooks/05_", "no badge"),
        ("notebooks/06_benchmark.ipynb", "*One model", f"{NOWHERE}/else. *One model", "still names the placeholder"),
        ("README.md", "google.com/github/HOME", "google.com/github/eve/wanda", "README.md names eve/wanda"),
        ("README.md", "[Colab]", "[here]", "does not have a row for 00_start_here.ipynb"),
        ("pyproject.toml", "HOME", "ada/wanda", "pyproject.toml ada/wanda"),
    ],
)
def test_a_disagreement_is_found(checkout, file, old, new, expected):
    home = publish.repository(checkout)
    path, old, new = checkout / file, old.replace("HOME", home), new.replace("HOME", home)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert any(expected in text for text in complaints(checkout))


def test_publish_rewrites_every_address_and_nothing_else(checkout):
    before, old, new = contents(checkout), publish.repository(checkout), "Ada-L/half.of_it"
    assert publish.publish(new, checkout) == list(before)
    assert publish.repository(checkout) == new
    assert list(complaints(checkout)) == []
    for file, after in contents(checkout).items():
        assert after != before[file]
        assert after.replace(new.encode(), old.encode()) == before[file]
        pairs = list(zip(before[file].split(b"\n"), after.split(b"\n"), strict=True))
        changed = [one for one, other in pairs if one != other]
        notebooks = len(before) - 2
        assert len(changed) == {".ipynb": 2, ".md": notebooks, ".toml": 1}[file.suffix], file


def test_publishing_twice_changes_nothing(checkout):
    publish.publish("ada/wanda", checkout)
    before = contents(checkout)
    assert publish.publish("ada/wanda", checkout) == []
    assert contents(checkout) == before


def test_publishing_corrects_a_single_wrong_address(checkout):
    file = checkout / "notebooks" / "06_benchmark.ipynb"
    publish.publish("ada/wanda", checkout)
    file.write_text(file.read_text(encoding="utf-8").replace("ada/wanda", "eve/wanda", 1), encoding="utf-8")
    assert publish.publish("ada/wanda", checkout) == [file]
    assert list(complaints(checkout)) == []


def test_a_published_notebook_reads_as_before(checkout):
    file = checkout / "notebooks" / "00_start_here.ipynb"
    old, before = publish.repository(checkout), nbformat.read(file, as_version=4)
    publish.publish("ada/wanda", checkout)
    after = nbformat.read(file, as_version=4)
    assert json.dumps(after).replace("ada/wanda", old) == json.dumps(before)


NONSENSE = [
    "",
    " ",
    "wanda",
    "a/b/c",
    "/wanda",
    "ada/",
    "https://github.com/ada/wanda",
    "ada/wanda.git",
    "_owner_/wanda",
    "-ada/wanda",
    "ada--l/wanda",
    "ada/..",
    'ada/wanda"',
    "ada/wan da",
    r"ada/\g<1>",
    "a" * 40 + "/wanda",
]


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_and_changes_nothing(checkout, name):
    before = contents(checkout)
    with pytest.raises(ValueError, match=r"given as owner/name, such as .*; got " + re.escape(repr(name))):
        publish.publish(name, checkout)
    assert contents(checkout) == before


@pytest.mark.parametrize("name", ["ada/wanda", "a/b", "Ada-Lovelace-1/w.a_n-da", "a" * 39 + "/wanda", "ada/.github"])
def test_valid_repository_names_are_accepted(checkout, name):
    publish.publish(name, checkout)
    assert publish.repository(checkout) == name
    assert list(complaints(checkout)) == []


def test_plain_links_are_rewritten_and_those_to_other_repositories_are_not(checkout):
    readme = checkout / "README.md"
    home = publish.repository(checkout)
    links = "[a](https://github.com/{0}) [b](https://github.com/{0}/issues) [c](https://github.com/{0}-data) [d](https://github.com/o/n)"
    readme.write_text(readme.read_text(encoding="utf-8") + links.format(home), encoding="utf-8")
    publish.publish("ada/wanda", checkout)
    kept = links.format("ada/wanda").replace("ada/wanda-data", f"{home}-data")
    assert readme.read_text(encoding="utf-8").endswith(kept)


def test_a_checkout_without_an_address_is_an_error(checkout):
    text = (checkout / "pyproject.toml").read_text(encoding="utf-8")
    (checkout / "pyproject.toml").write_text(text.replace("https://github.com/", "https://example.org/"))
    with pytest.raises(ValueError, match=r"needs a line Repository = .*example\.org"):
        publish.publish("ada/wanda", checkout)


@pytest.mark.parametrize("arguments", [[], [""], ["wanda"]])
def test_the_command_without_a_repository_says_what_is_missing(arguments, capsys):
    before = contents(ROOT)
    with pytest.raises(SystemExit) as stopped:
        publish.main(arguments)
    assert stopped.value.code == 2
    assert "make publish REPO=ada/wanda-tutorial; got" in capsys.readouterr().err
    assert contents(ROOT) == before
