"""The site: `make site`. Sphinx reads the repository as it is, so that links between its files work on GitHub and here.

The README is the front page, and the notebooks are shown with the outputs that they were committed with.
"""

import importlib.resources
import re
import shutil
from pathlib import Path

from docutils import nodes

from wanda import __version__ as release
from wanda_course.publish import GITHUB, repository

ROOT = Path(__file__).resolve().parents[1]
# MathJax in one file, out of a package, so that the site works offline. Its SVG output needs no fonts.
MATHJAX = importlib.resources.files("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg.js"
CONTENTS = {
    "The course": ["notebooks/*.ipynb"],
    "To look up": ["docs/glossary.md", "docs/notation.md", "docs/references.md", "docs/leaderboard.md"],
    "To use it": ["docs/install.md", "docs/practice.md", "docs/models.md", "docs/api.md", "data/tasks/README.md"],
    "Teaching": ["docs/teaching/*.md"],
    "To contribute": ["CONTRIBUTING.md", "docs/style.md", "CHANGELOG.md"],
}

project = "Wanda"
author = "The contributors of wanda-tutorial"
copyright = f"{author}. Text: CC BY 4.0. Code: MIT"
version = release

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.bibtex"]
root_doc = "README"
include_patterns = ["README.md", *(pattern for patterns in CONTENTS.values() for pattern in patterns)]
nb_execution_mode = "off"
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
mathjax_path = MATHJAX.name
bibtex_bibfiles = ["references.bib"]

autodoc_member_order = "bysource"
default_role = "literal"  # `code` in docstrings
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"

html_title = "Wanda: prune a language model"
html_theme = "sphinx_book_theme"
html_theme_options = {
    "repository_url": GITHUB + repository(),
    "use_repository_button": True,
    "navbar_persistent": [],  # the search field stands in the sidebar
    "show_toc_level": 2,
}
html_context = {"default_mode": "auto"}
html_static_path = ["_static", str(MATHJAX)]
html_css_files = ["custom.css"]
html_favicon = "_static/favicon.svg"
html_show_sphinx = False


def add_contents(app, docname, source):
    """Append the table of contents to the README; GitHub would show it as code."""
    if docname == root_doc:
        for caption, patterns in CONTENTS.items():
            files = [file.relative_to(ROOT) for pattern in patterns for file in sorted(ROOT.glob(pattern))]
            if files:
                pages = "\n".join(file.with_suffix("").as_posix() for file in files)
                source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def lower_anchors(app, docname, source):
    """Rewrite a notebook's links within the page: JupyterLab's anchors keep capitals, those here are as GitHub's."""
    if docname.startswith("notebooks/"):
        source[0] = re.sub(r"\]\(#[\w-]+\)", lambda link: link[0].lower(), source[0])


def load_nothing(app, doctree):
    """Show a picture from another server, Colab's badge, as its alt text."""
    for picture in list(doctree.findall(nodes.image)):
        if "://" in picture["uri"]:
            picture.replace_self(nodes.Text(picture["alt"]))


def mend_roles(app, page, template, context, doctree):
    """Undo two faults for screen readers: a label that hides the line of a folded cell, a list that is none."""
    for fault in (' aria-label="Toggle hidden content"', ' role="list" class="citation-list"'):
        context["body"] = context.get("body", "").replace(fault, "")


def add_front_page(app, error):
    """Web servers show index.html."""
    if error is None:
        shutil.copy(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("source-read", lower_anchors)
    app.connect("doctree-read", load_nothing)
    app.connect("html-page-context", mend_roles)
    app.connect("build-finished", add_front_page)
