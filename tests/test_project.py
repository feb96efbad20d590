"""The project's own promises: light import, one set of pins, no wrong advice."""

import ast
import graphlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [
    path
    for pattern in (
        "*.md",
        "*.toml",
        "*.yml",
        "*.txt",
        "Makefile",
        "wanda/**/*.py",
        "wanda_course/**/*.py",
        "benchmarks/*.py",
        "notebooks/*.ipynb",
        "data/*.toml",
    )
    for path in ROOT.glob(pattern)
]


WRONG_ADVICE = re.compile(
    r"pip\S* install (-\S+ )*[\\'\"]*wanda(?!-pruning)\b"
)  # in a notebook, quotes have backslashes


def test_importing_the_package_is_light():
    code = "import sys, wanda; print([m for m in ('datasets', 'gguf', 'peft', 'lm_eval', 'matplotlib', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_no_text_tells_readers_to_install_the_wrong_package():
    """The name `wanda` on the package index is a wallpaper program."""
    for path in TEXTS:
        assert not WRONG_ADVICE.search(path.read_text(encoding="utf-8")), path
    for advice in (
        "pip install wanda",
        "%pip install -q wanda",
        r"pip install -q \"wanda[x]\"",
        "pip3 install 'wanda'",
    ):
        assert WRONG_ADVICE.search(advice), advice
    assert not WRONG_ADVICE.search(r"%pip install -q \"wanda-pruning[notebooks]\"")


def test_the_conda_environment_installs_the_same_package_with_the_same_pins():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "--constraint constraints.txt" in text
    assert "--editable .[notebooks,test,finetune,zero-shot]" in text
    assert "torch==2.13.0\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_ci_calls_both_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "\nmake run\n" in script
    assert "\nmake test\n" in script
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make run\n" in readme
    assert "make test\n" in readme


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(("conda", "own"), [("", True), ("base", True), ("wanda", False)])
def test_make_uses_an_active_conda_environment(conda, own):
    environment = os.environ | {"CONDA_DEFAULT_ENV": conda}
    dry = subprocess.run(["make", "-n", "run"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert (".venv/bin/python -m wanda_course.main_job" in dry.stdout) == own
    assert ("\nwanda fetch\n" in dry.stdout) == (not own)


def test_the_example_in_the_readme_runs(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    small = example.replace("samples=32, length=512", "samples=2, length=64").replace("[:10_240]", "[:512]")
    assert small.count("samples=2") == small.count("[:512]") == 1
    subprocess.run([sys.executable, "-c", small], cwd=tmp_path, check=True)
    assert (tmp_path / "smollm2-half" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda p: p.name
)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_tables_of_the_readme_are_drawn_from_the_results_and_the_notebooks(tmp_path):
    from benchmarks import readme

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.table() in text, "run python -m benchmarks.readme"
    assert readme.course() in text, "run python -m benchmarks.readme"
    readme.figure(tmp_path / "figure.svg")
    drawn, committed = (path.read_text(encoding="utf-8") for path in (tmp_path / "figure.svg", readme.FIGURE))
    version = re.compile(r"Matplotlib v[\d.]+")
    if version.search(drawn)[0] == version.search(committed)[0]:
        assert drawn == committed, "run python -m benchmarks.readme"
    else:  # another version may place elements slightly differently
        assert re.findall(r">([^<>\s][^<>]*)</text>", drawn) == re.findall(r">([^<>\s][^<>]*)</text>", committed)


def imports_of(path):
    """The project's modules that a file imports, as dotted names."""
    name = path.relative_to(ROOT).with_suffix("").parts
    package, found = list(name[:-1]), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(start + ([node.module] if node.module else []))
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(MODULES)


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in ("wanda", "wanda_course", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if path.stem not in ("__init__", "__main__")
}


def test_imports_go_in_one_direction():
    graph = {name: imports_of(path) for name, path in MODULES.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    for name, imported in graph.items():
        if name.startswith("wanda."):
            assert not [other for other in imported if not other.startswith("wanda.")], name
    tensors = {"wanda.scores", "wanda.masks", "wanda.sparsegpt", "wanda.statistics"}
    for name in tensors:
        assert graph[name] <= tensors | {"wanda.devices.selection", "wanda.devices.sweep", "wanda.devices.tf32"}, name


def test_folders_of_the_package_stand_on_floors():
    folders = {}
    for name, path in MODULES.items():
        package, folder, *inside = name.split(".")
        if package == "wanda" and inside:
            imported = {other.split(".")[1] for other in imports_of(path) if other.count(".") == 2}
            folders.setdefault(folder, set()).update(imported - {folder})
    assert folders["devices"] == set()
    assert folders["sources"] == {"devices"}
    tuple(graphlib.TopologicalSorter(folders).static_order())
