"""The parts of the rehearsal that need no installation; `make colab-rehearsal` runs all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anatomy
import colab_rehearsal as rehearsal
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def test_the_notebooks_to_rehearse_are_chosen_in_order():
    paths = ["notebooks/04_b.ipynb", "notebooks/00_a.ipynb", "notebooks/06_c.ipynb", "notebooks/profiles"]
    assert rehearsal.chosen(paths) == ["notebooks/00_a.ipynb", "notebooks/04_b.ipynb"]


@pytest.mark.parametrize(
    ("paths", "missing"),
    [([], "00, 04"), (["notebooks/04_b.ipynb"], "00"), (["notebooks/00_a.ipynb", "notebooks/06_c.ipynb"], "04")],
)
def test_without_both_notebooks_there_is_no_rehearsal(paths, missing):
    has = ", ".join(paths) or "none"
    with pytest.raises(ValueError, match=f"notebook {missing} is not committed; HEAD has {has}"):
        rehearsal.chosen(paths)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_bootstrap_of_every_notebook_can_be_redirected(path):
    notebook, before = (nbformat.read(path, as_version=4) for _ in range(2))
    rehearsal.redirected(notebook, "file:///a/copy")
    changed = [(old, new) for old, new in zip(before.cells, notebook.cells, strict=True) if old.source != new.source]
    ((old, new),) = changed
    assert old.source == anatomy.bootstrap(before)
    assert '"wanda-pruning @ git+file:///a/copy"' in new.source
    assert "github.com" not in new.source
    lines = zip(old.source.splitlines(), new.source.splitlines(), strict=True)
    assert [one for one, other in lines if one != other] == [line for line in old.source.splitlines() if "%pip" in line]


@pytest.mark.parametrize(
    ("cells", "count"),
    [
        ([], 0),
        ([new_markdown_cell('"wanda-pruning @ git+https://github.com/o/n"')], 0),
        (
            [new_code_cell("import wanda"), new_code_cell('%pip install "wanda-pruning @ git+https://github.com/o/n"')],
            0,
        ),
        ([new_code_cell('%pip install "wanda-pruning @ git+https://github.com/o/n"\n' * 2)], 2),
        ([new_code_cell('%pip install "wanda-pruning @ git+https://example.org/o/n"')], 0),
    ],
)
def test_a_notebook_without_one_public_address_is_refused(cells, count):
    with pytest.raises(ValueError, match=f"the first code cell has {count} install commands"):
        rehearsal.redirected(new_notebook(cells=cells), "file:///a/copy")


def test_the_stub_is_imported_as_google_colab_and_leaves_the_name_google_to_others(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    rehearsal.stub_colab(tmp_path / "one")
    (tmp_path / "two" / "google" / "other").mkdir(parents=True)
    (tmp_path / "two" / "google" / "other" / "__init__.py").touch()
    search = os.pathsep.join(str(tmp_path / folder) for folder in ("one", "two"))
    code = "import google.colab, google.other; print(google.colab.__file__)"
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": search}, capture_output=True)
    assert run.returncode == 0, run.stderr
    assert str(tmp_path / "one") in run.stdout.decode()


def test_the_kernel_is_the_fresh_environments_with_an_empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "elsewhere")
    python = tmp_path / "venv" / "bin" / "python"
    rehearsal.kernel(python, tmp_path, rehearsal.environment(python, tmp_path, "pip"))
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("colab")
    assert spec.argv[0] == str(python)
    assert spec.env["PATH"].startswith(str(python.parent))
    assert Path(spec.env["XDG_CACHE_HOME"]).parent == tmp_path
    assert Path(spec.env["PIP_CONSTRAINT"]).is_file()
    assert (Path(spec.env["IPYTHONDIR"]) / "profile_default" / "startup" / "colab.py").is_file()


def distribution(site, name, version, second):
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "RECORD").touch()
    os.utime(folder / "RECORD", (second, second))
    return folder


def test_replaced_removed_and_reinstalled_packages_are_noticed(tmp_path):
    torch = distribution(tmp_path, "torch", "2.13.0+cpu", 100)
    distribution(tmp_path, "numpy", "2.4.6", 100)
    distribution(tmp_path, "jupyter_core", "5.9.1", 100)
    before = rehearsal.installed(tmp_path)
    assert before["torch"][0] == "2.13.0+cpu"
    assert set(before) == {"torch", "numpy", "jupyter-core"}
    distribution(tmp_path, "wanda_pruning", "0.1.0", 200)
    assert list(rehearsal.replaced(before, rehearsal.installed(tmp_path))) == []

    os.utime(torch / "RECORD", (200, 200))  # the same version, reinstalled
    assert list(rehearsal.replaced(before, rehearsal.installed(tmp_path))) == [
        "torch 2.13.0+cpu was replaced by 2.13.0+cpu"
    ]
    (tmp_path / "numpy-2.4.6.dist-info").rename(tmp_path / "numpy-2.5.0.dist-info")
    (tmp_path / "jupyter_core-5.9.1.dist-info").rename(tmp_path / "elsewhere")
    assert {*rehearsal.replaced(before, rehearsal.installed(tmp_path))} == {
        "torch 2.13.0+cpu was replaced by 2.13.0+cpu",
        "numpy 2.4.6 was replaced by 2.5.0",
        "jupyter-core 5.9.1 was removed",
    }


def witness(folder, **others):
    site = folder / "site"
    url = json.dumps({"vcs_info": {"commit_id": "abc"}})
    sound = {
        "package": str(site / "wanda"),
        "checkout": "None",
        "cache": str(folder / "cache"),
        "colab": True,
        "url": url,
    }
    return list(rehearsal.doubts(sound | others, site, folder, "abc"))


def test_a_course_that_came_from_elsewhere_is_doubted(tmp_path):
    assert witness(tmp_path) == []
    assert "imported from" in witness(tmp_path, package=str(ROOT / "wanda"))[0]
    assert "imported from" in witness(tmp_path, checkout=str(ROOT))[0]
    assert "not a fresh one" in witness(tmp_path, cache=str(ROOT / "data" / "cache"))[0]
    assert "google.colab" in witness(tmp_path, colab=False)[0]
    assert "commit None was installed, HEAD is abc" in witness(tmp_path, url=None)
    assert "commit old was installed" in witness(tmp_path, url='{"vcs_info": {"commit_id": "old"}}')[0]


def test_the_last_cell_testifies_where_the_course_came_from(tmp_path):
    """WITNESS run in this checkout, where every doubt is justified."""
    code = (
        "from importlib import metadata\n"
        "true = metadata.distribution\n"
        "nowhere = metadata.Distribution.at('nowhere')\n"
        "metadata.distribution = lambda name: nowhere if name == 'wanda-pruning' else true(name)\n"
    )
    run = subprocess.run([sys.executable, "-c", code + rehearsal.WITNESS], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    cell = new_code_cell(rehearsal.WITNESS, outputs=[new_output("stream", name="stdout", text=run.stdout)])
    said = rehearsal.testified(new_notebook(cells=[cell]))
    assert len(list(rehearsal.doubts(said, tmp_path / "site", tmp_path, "abc"))) == 4
