"""The slides: every figure and number comes from the notebooks or results/, every slide has its notes, and fits."""

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO

import nbformat
import PIL.Image
import pytest
import torch

from wanda.sources.download import CHECKOUT
from wanda_course import figures, plots, slides

DECKS = {path.name: path.read_text(encoding="utf-8") for path in sorted(slides.FOLDER.glob("*.md"))}
THEME = slides.FOLDER / "course.css"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# Content ends above the footer, and a figure can be read from the last row.
MEASURE = """<script>
const found = [...document.querySelectorAll("section")].map(section => {
  const parts = [...section.children].filter(part => part.tagName !== "FOOTER");
  return {
    bottom: Math.max(...parts.map(part => part.offsetTop + part.offsetHeight)),
    wide: parts.some(part => part.scrollWidth > 1152),
    figure: Math.min(...parts.filter(part => part.className === "figure").map(part => part.offsetHeight), 720),
  };
});
document.body.innerText = "MEASURED" + JSON.stringify(found) + "END";
</script>"""


def cut(text):
    """The slides of a deck, without its front matter: list of (what is shown, note)."""
    found = []
    for slide in re.split(r"^---$", text.split("\n---\n", 1)[1], flags=re.MULTILINE):
        comments = re.findall(r"<!--\n(.*?)-->", slide, re.DOTALL)
        assert len(comments) == 1, slide
        found.append((re.sub(r"<!--\n.*?-->", "", slide, flags=re.DOTALL), comments[0]))
    return found


class Pictures(HTMLParser):
    """Collects (alt, source) of every picture."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.found.append((dict(attributes)["alt"], dict(attributes)["src"]))


def drawn():
    """The pictures of all committed notebooks: dict from alt text to source."""
    found = {}
    for path in (CHECKOUT / "notebooks").glob("[0-9]*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", ()):
                found |= dict(Pictures(output.get("data", {}).get("text/html", "")).found)
    return found


def picture(source):
    return PIL.Image.open(BytesIO(base64.b64decode(source.split(",", 1)[1]))).convert("RGB")


@pytest.fixture(scope="module")
def filled():
    return {name: slides.fill(text) for name, text in DECKS.items()}


def test_every_figure_is_a_notebooks_own_with_its_alt_text(filled):
    known = drawn()
    for name, text in filled.items():
        shown = Pictures(text).found
        assert len(shown) == DECKS[name].count("{{figure ") > 10
        for alt, source in shown:
            ours, theirs = picture(source), picture(known[alt])
            assert ours.width == theirs.width
            assert ours.height < theirs.height or source == known[alt]


def test_a_part_of_a_figure_is_its_rows():
    whole = PIL.Image.new("RGB", (2, 4))
    whole.putdata([(row, 0, 0) for row in range(4) for _ in range(2)])
    buffer = BytesIO()
    whole.save(buffer, "png")
    part = PIL.Image.open(BytesIO(slides._cut(buffer.getvalue(), [0, 0.25, 0.5, 1])))
    assert [part.getpixel((0, row))[0] for row in range(part.height)] == [0, 2, 3]


@pytest.mark.parametrize(
    "placeholder",
    [
        "{{figure 02: No such figure}}",
        "{{figure 02: }}",  # several
        "{{value 02: no such output ([0-9]+)}}",
        "{{value 02: perplexity ([0-9.]+)}}",  # several
    ],
)
def test_what_has_no_single_source_is_refused(placeholder):
    with pytest.raises(ValueError, match="expected one"):
        slides.fill(placeholder)


def test_no_number_is_typed_in():
    """Outside placeholders and formulas stand only design facts: sparsities, counts below 100, powers of ten."""
    scores = slides.WEIGHT.abs() * slides.NORMS
    toy = {f"{abs(value):g}" for value in [*slides.WEIGHT.flatten().tolist(), *slides.NORMS.tolist()]}
    toy |= {f"{value:.3g}" for value in scores.flatten().tolist()}
    rounds = {"100", "300", "1,000", "10,000", "20,000"}  # definitions, and orders of magnitude
    protocol = {"1,024", "2,048", "4,096", "16,384"}  # tokens, in footers
    design = {"128", "507", "512", "576", "1,536"}  # shapes, and the feature that a value placeholder checks
    for name, text in DECKS.items():
        prose = slides.PLACEHOLDER.sub("", text)
        prose = re.sub(
            r"arXiv [\d.]+|CC BY [\d.]+|\$\$.*?\$\$|\$[^$\n]+\$|```.*?```|\b(?:19|20)\d\d\b", "", prose, flags=re.DOTALL
        )
        prose = re.sub(r"\b(?:notebook |exercise |Prediction |prediction[s]? |and |of these )?\d\d\.p?\d\b", "", prose)
        numbers = set(re.findall(r"\d+(?:[.,]\d+)+|\b\d{3,}\b", prose))
        assert numbers <= toy | rounds | protocol | design, (name, numbers - toy - rounds - protocol - design)
        assert set(re.findall(r"(\d+) ?%", prose)) <= {"10", "40", "50", "30"}, name


def test_the_toy_is_the_notebooks():
    path = next((CHECKOUT / "notebooks").glob("03_*.ipynb"))
    source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    rows = json.loads(re.search(r"^rows = (.*)$", source, re.MULTILINE)[1])
    norms = json.loads(re.search(r"^norms = torch.tensor\((\[.*?\])\)", source, re.MULTILINE)[1])
    torch.testing.assert_close(slides.WEIGHT, torch.tensor(rows))
    torch.testing.assert_close(slides.NORMS, torch.tensor(norms))
    printed = {
        "magnitude": ("02", r"threshold 0\.40 tensor\((\[\[.*?\]\])\)"),
        "rescaled": ("02", r"threshold 0\.10 tensor\((\[\[.*?\]\])\)"),
        "scores": ("03", r"tensor\((\[\[.*?\]\])\)"),
        "2:4": ("07", r"tensor\((\[\[.*?\]\])\)"),
        "wanda": ("09", r"tensor\((\[\[.*?\]\])\)"),
    }
    for name, (number, pattern) in printed.items():
        kept = torch.tensor(json.loads(re.search(pattern, figures.printed(number))[1])).flatten()
        entries = re.findall(r"(\\cancel\{)?(-?[\d.]+)", slides._toy(name))
        assert [0 if crossed else float(entry) for crossed, entry in entries] == pytest.approx(kept.tolist())


def test_a_method_has_the_colour_of_the_notebooks():
    shown = dict(re.findall(r"--(\w+): (#\w{6});", THEME.read_text(encoding="utf-8")))
    assert shown == plots.COLORS
    for text in DECKS.values():
        assert set(re.findall(r'<b class="(\w+)">', text)) <= set(shown)


def test_nothing_is_fetched(filled):
    for text in [THEME.read_text(encoding="utf-8"), *filled.values()]:
        assert not re.search(r"https?:|@import|url\(", text)


@pytest.mark.parametrize("name", DECKS)
def test_ninety_minutes_of_notes_with_a_question_every_ten(name):
    parts = cut(DECKS[name])
    assert 40 <= len(parts) <= 50
    end, asked = 0, [0]
    for shown, note in parts:
        start, stop = map(int, re.match(r"(\d+)–(\d+) min\.\n", note).groups())
        assert start == end < stop, shown
        assert len(note.split()) >= 15, shown
        if "_class: ask" in shown:
            asked.append(start)
        end = stop
    assert end == 90
    assert max(later - earlier for earlier, later in zip(asked, [*asked[1:], 80], strict=True)) <= 12
    assert "## Sources" in parts[-1][0]


@pytest.mark.parametrize("name", DECKS)
def test_the_predictions_are_the_notebooks(name):
    keys = re.findall(r"\b\d\d\.p\d\b", DECKS[name])
    assert len(keys) >= 7
    for key in keys:
        path = next((CHECKOUT / "notebooks").glob(f"{key[:2]}_*.ipynb"))
        assert f'predict(\\"{key}\\"' in path.read_text(encoding="utf-8")


def test_few_words_on_a_slide(filled):
    for name, text in filled.items():
        for shown, _ in cut(text)[:-1]:
            words = re.sub(r"<!--.*?-->|<[^>]*>|\$\$.*?\$\$|\$.*?\$", " ", shown, flags=re.DOTALL).split()
            assert len(words) <= 75, (name, shown[:200])


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("npx") and BROWSER), reason="needs Node.js and Chromium")
@pytest.mark.parametrize("name", DECKS)
def test_built_by_marp_every_slide_fits(name, filled, tmp_path):
    deck = tmp_path / name
    deck.write_text(filled[name], encoding="utf-8")
    command = ["npx", "--yes", "@marp-team/marp-cli@4", "--theme-set", THEME, "--no-stdin", "--html", deck]
    count = len(cut(DECKS[name]))

    page = tmp_path / "full.html"
    subprocess.run([*command, "-o", page], check=True, timeout=300)
    text = page.read_text(encoding="utf-8")
    assert text.count('class="bespoke-marp-note"') == count  # none was read as a directive
    assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"|url\([^)]*//[^)]*\)', text)

    page = tmp_path / "bare.html"
    subprocess.run([*command, "--template", "bare", "-o", page], check=True, timeout=300)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    browser = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    dumped = subprocess.run(
        [*browser, f"--user-data-dir={tmp_path}", "--dump-dom", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=300,
    ).stdout.decode()
    measured = json.loads(html.unescape(re.search(r"MEASURED(\[.*\])END", dumped, re.DOTALL)[1]))
    assert len(measured) == count
    for number, slide in enumerate(measured, start=1):
        assert slide["bottom"] <= 680, (number, slide)
        assert not slide["wide"], number
        assert slide["figure"] >= 400, (number, slide)
