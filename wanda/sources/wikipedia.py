"""The packaged extract of Wikipedia, as plain prose."""

import bz2
import json
import re
from xml.etree import ElementTree

from .download import cache_folder, fetch, replacing, sources

SHORTEST_PARAGRAPH = 100  # characters; shorter ones are mostly headings, captions and template remnants
SHORTEST_ARTICLE = 2000  # characters; shorter ones are mostly lists of links
BACK_MATTER = (
    r"^\s*(see also|references|notes|footnotes|citations|sources|bibliography|further reading|external links|works)"
)
CLEANING = 3  # the version of the cleaning; increment it with every change, so that older caches are not used


def articles():
    """The articles of the dump, cleaned: a list of (title, text), in the dump's order. Cleaned once and kept."""
    cleaned = cache_folder() / f"wikipedia-{sources()['wikipedia']['sha256'][:12]}-{CLEANING}.json"
    try:
        return [tuple(article) for article in json.loads(cleaned.read_text(encoding="utf-8"))]
    except (OSError, ValueError):  # not there yet, or damaged
        found = [(title, clean(wikitext)) for title, wikitext in _pages(fetch("wikipedia"))]
    found = [(title, text) for title, text in found if len(text) >= SHORTEST_ARTICLE]
    with replacing(cleaned) as partial:
        partial.write_text(json.dumps(found), encoding="utf-8")
    return found


def clean(wikitext):
    """The prose paragraphs of a page in wikitext, without markup, tables, notes, captions or lists."""
    import mwparserfromhell

    prose = _prose(mwparserfromhell.parse(wikitext))
    if "<ref" in prose:  # unclosed italics hid other markup from the parser: ignore italics
        prose = _prose(mwparserfromhell.parse(wikitext, skip_style_tags=True))
    return prose


def _prose(code):
    for section in code.get_sections(levels=[2], matches=BACK_MATTER):
        _remove(code, section)
    for link in code.filter_wikilinks(matches=r"^\[\[\s*(File|Image|Category)\s*:"):
        _remove(code, link)
    for tag in code.filter_tags(matches=lambda node: str(node.tag).lower() in ("ref", "table", "gallery", "math")):
        _remove(code, tag)
    paragraphs = []
    for line in code.strip_code(normalize=True, collapse=True).splitlines():
        line = line.replace("'''", "").replace("''", "")  # bold and italics that the parser missed
        line = re.sub(r"\s+", " ", re.sub(r"\(\s*[,;:]?\s*\)", "", line)).strip()
        line = re.sub(r" ([,.;:)])", r"\1", re.sub(r"\(\s*[,;:]\s*", "(", line))
        if len(line) >= SHORTEST_PARAGRAPH and line[-1] in ".!?\"'”)":
            paragraphs.append(line)
    return "\n".join(paragraphs)


def _remove(code, node):
    if code.contains(node):  # else it was removed with its parent
        code.remove(node)


def _pages(dump):
    """(title, wikitext) of each article of a dump, without redirects or disambiguation pages."""
    with bz2.open(dump) as file:
        for _, page in ElementTree.iterparse(file):
            if page.tag.rpartition("}")[2] != "page":
                continue
            space = page.tag.rpartition("}")[0] + "}"
            title, wikitext = page.findtext(f"{space}title"), page.findtext(f"{space}revision/{space}text") or ""
            is_article = page.findtext(f"{space}ns") == "0" and page.find(f"{space}redirect") is None
            if is_article and "(disambiguation)" not in title:
                yield title, wikitext
