"""The built site is whole: every link and picture is there, every equation has its renderer, nothing comes from elsewhere."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from bs4 import BeautifulSoup

import wanda

ROOT = Path(__file__).resolve().parents[2]
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
ARXIV = re.compile(r"arXiv\s+(\d{4}\.\d{5})")


@cache
def read(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(page):
    return {tag.get("id") for tag in read(page).find_all(id=True)} | {
        tag["name"] for tag in read(page).select("a[name]")
    }


def links(page):
    """Pairs of an address and whether the browser loads it by itself."""
    for name, attribute in LOADED.items():
        for tag in read(page).find_all(name, **{attribute: True}):
            yield tag[attribute], "search" not in tag.get("rel", [])
    for tag in read(page).find_all("a", href=True):
        yield tag["href"], False


def complaints(site):
    """What is wrong with a built site; as sentences."""
    for page in sorted(set(site.rglob("*.html")) - set(site.glob("_static/*.html"))):  # the theme's templates
        name = page.relative_to(site)
        for address, loaded in links(page):
            if address.startswith(("http:", "https:", "//")):
                if loaded:
                    yield f"{name} loads {address}"
            elif not address.startswith(("data:", "mailto:")):
                path, anchor = urldefrag(address)
                path = unquote(path.partition("?")[0])
                target = (page.parent / path).resolve() if path else page
                if not target.is_file():
                    yield f"{name} names {address}, which is not there"
                elif anchor and target.suffix == ".html" and unquote(anchor) not in anchors(target):
                    yield f"{name} names {address}, which has no such anchor"
        for picture in read(page).find_all("img"):
            if not picture.get("alt", "").strip():
                yield f"{name} shows {picture['src'][:60]} without alt text"
        scripts = [Path(tag["src"].partition("?")[0]).name for tag in read(page).find_all("script", src=True)]
        if read(page).select(".math") and "tex-svg.js" not in scripts:
            yield f"{name} has equations but not MathJax"
        for text in read(page).find_all(string=re.compile(r"\$[^$]+\$")):
            if not text.find_parent(["code", "pre", "script", "style"]):
                yield f"{name} shows {text.strip()[:60]!r} as text"
    for sheet in sorted(site.rglob("*.css")):
        for address in re.findall(
            r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)", sheet.read_text(encoding="utf-8")
        ):
            yield f"{sheet.relative_to(site)} loads {address}"


@pytest.mark.slow
def test_the_site_is_whole(tmp_path):
    pytest.importorskip("myst_nb", reason="the site needs the extra `site`")
    folders = ["-d", tmp_path / "doctrees", ".", tmp_path / "site"]
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs", *folders]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    site = tmp_path / "site"
    assert list(complaints(site)) == []
    assert read(site / "index.html") == read(site / "README.html")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = site / "notebooks" / f"{notebook.stem}.html"
        assert (site / "_sources" / "notebooks" / notebook.name).is_file()
        assert f'notebooks/{notebook.stem}"' in (site / "searchindex.js").read_text(encoding="utf-8")
        colab = f"https://colab.research.google.com/github/.*/blob/main/notebooks/{notebook.name}"
        assert read(page).find("a", href=re.compile(colab), string="Open in Colab")
        outputs = [o for cell in nbformat.read(notebook, 4).cells for o in cell.get("outputs", [])]
        pictures = sum(output.get("data", {}).get("text/html", "").count("<img ") for output in outputs)
        assert len(read(page).select(".cell_output img")) == pictures > 0
    assert {f"wanda.{name}" for name in wanda.__all__} <= anchors(site / "docs" / "api.html")


WHOLE = """<html><head><script src="a/tex-svg.js?v=1"></script></head><body><h1 id="top">T</h1><a href="#top">up</a>
<a href="other.html?x=1#there">o</a><img src="a/b%20c.png" alt="b"><a href="https://example.org">e</a>
<span class="math">\\(x\\)</span><code>$a$</code></body></html>"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("WHOLE", "", None),
        ("#top", "#bottom", "index.html names #bottom, which has no such anchor"),
        ("other.html", "none.html", "index.html names none.html?x=1#there, which is not there"),
        ("#there", "#nowhere", "index.html names other.html?x=1#nowhere, which has no such anchor"),
        ("a/b%20c.png", "a/c.png", "index.html names a/c.png, which is not there"),
        ("a/b%20c.png", "https://example.org/c.png", "index.html loads https://example.org/c.png"),
        ("a/tex-svg.js?v=1", "//cdn.org/tex-svg.js", "index.html loads //cdn.org/tex-svg.js"),
        ("tex-svg.js", "x.js", "index.html has equations but not MathJax"),
        ('alt="b"', 'alt=" "', "index.html shows a/b%20c.png without alt text"),
        ("<code>$a$</code>", "$a$", "index.html shows '$a$' as text"),
        ("url(c.woff)", "url('https://example.org/c.woff')", "s.css loads https://example.org/c.woff"),
    ],
)
def test_a_fault_is_found(tmp_path, old, new, expected):
    (tmp_path / "a").mkdir()
    for name in ("tex-svg.js", "x.js", "b c.png"):
        (tmp_path / "a" / name).touch()
    files = {"index.html": WHOLE, "other.html": '<p id="there">', "s.css": "@font-face {src: url(c.woff)}"}
    for name, text in files.items():
        (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
    assert list(complaints(tmp_path)) == ([expected] if expected else [])


def test_every_paper_that_is_cited_by_number_is_in_the_references():
    notebooks = [nbformat.read(path, 4) for path in (ROOT / "notebooks").glob("*.ipynb")]
    texts = [cell.source for notebook in notebooks for cell in notebook.cells if cell.cell_type == "markdown"]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    cited = {number for text in texts for number in ARXIV.findall(text)}
    listed = re.findall(r"eprint = \{([\d.]+)\}", (ROOT / "docs" / "references.bib").read_text(encoding="utf-8"))
    assert len(listed) == len(set(listed))
    assert cited == set(listed)
