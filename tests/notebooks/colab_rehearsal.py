"""Simulate Colab locally: `make colab-rehearsal`. Runs notebooks 00 and 04 as committed, each alone.

A fresh environment gets what Colab preinstalls (torch, matplotlib, a kernel), but not the course. Each notebook of HEAD
is copied alone into an empty folder and runs under the smallest profile; its bootstrap cell installs the course from
this repository, over git, as it would from the public address. The rehearsal then checks that the course was imported
from where it was installed, that the commit is HEAD, and that no preinstalled package was replaced.

It cannot show Colab itself: its versions (here those of constraints.txt), its GPU, its rendering of widgets.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill

from wanda_course import execute
from wanda_course.publish import INSTALL

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "colab"
WANTED, REQUIRED, PROFILE = ("00", "04"), ("00", "04"), "ci"
PREINSTALLED = ("pip>=24.1", "torch", "numpy", "matplotlib", "ipykernel", "ipywidgets")  # an older pip refuses git+file
HIDDEN = ("PYTHONPATH", "PYTHONHOME", "WANDA_CACHE", "WANDA_DATA")  # these would expose the checkout
WITNESS = """import json, sys
from importlib.metadata import distribution
from wanda.sources import download
print(json.dumps({
    "package": str(download.PACKAGE), "checkout": str(download.CHECKOUT), "cache": str(download.cache_folder()),
    "colab": "google.colab" in sys.modules, "url": distribution("wanda-pruning").read_text("direct_url.json"),
}))"""  # the last cell: the notebook's own kernel says where the course came from


# Preparing --------------------------------------------------------------------------------------------------------------


def chosen(paths):
    """The notebooks to rehearse, from the paths in a commit.

    Raises: ValueError if a required one is missing.
    """
    found = {number: path for number in WANTED for path in paths if path.startswith(f"notebooks/{number}_")}
    missing = [number for number in REQUIRED if number not in found]
    if missing:
        raise ValueError(f"notebook {', '.join(missing)} is not committed; HEAD has {', '.join(paths) or 'none'}")
    return [found[number] for number in WANTED if number in found]


def redirected(notebook, address):
    """Point a notebook's bootstrap cell (the first code cell) to another git address, in place.

    Raises: ValueError if that cell does not hold exactly one install command with the public address.
    """
    cell = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    commands = INSTALL.findall(cell.source) if cell else []
    if len(commands) != 1:
        raise ValueError(
            f"the first code cell has {len(commands)} install commands with the public address; expected one"
        )
    cell.source = INSTALL.sub(lambda found: found[1].replace("https://github.com/", address), cell.source)


def testified(notebook):
    """The output of the last cell, WITNESS: a dict."""
    return json.loads("".join(output.text for output in notebook.cells[-1].outputs))


def stub_colab(site):
    """Put an empty module google.colab into a site-packages folder. Add here whatever a notebook uses of it."""
    folder = site / "google" / "colab"  # no __init__.py in google: other packages share that name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""Stands for Google\'s module in a rehearsal."""\n')


def kernel(python, folder, environment):
    """Write a kernel `colab` under `folder`, and make Jupyter look for kernels there first."""
    place = folder / "jupyter" / "kernels" / "colab"
    place.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    content = {"argv": command, "display_name": "Colab", "language": "python", "env": environment}
    (place / "kernel.json").write_text(json.dumps(content))
    startup = folder / "ipython" / "profile_default" / "startup"  # Colab's kernels import it at startup
    startup.mkdir(parents=True)
    (startup / "colab.py").write_text("import google.colab\n")
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")


def environment(python, folder, pip_cache):
    """The variables of a kernel's environment beyond this process's: its own programs first, and an empty cache."""
    return dict.fromkeys(HIDDEN, "") | {
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
        "VIRTUAL_ENV": str(python.parent.parent),
        "IPYTHONDIR": str(folder / "ipython"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PIP_CACHE_DIR": pip_cache,  # reuses wheels fetched before: the only help it gets
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
    }


# Judging ----------------------------------------------------------------------------------------------------------------


def installed(site):
    """The distributions in a site-packages folder: dict from name to (version, time of installation)."""
    found = {}
    for folder in site.glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
        found[re.sub(r"[-_.]+", "-", name).lower()] = (version, (folder / "RECORD").stat().st_mtime_ns)
    return found


def replaced(before, after):
    """The distributions of `before` that were removed or reinstalled, as sentences."""
    for name, (version, _) in before.items():
        if name not in after:
            yield f"{name} {version} was removed"
        elif after[name] != before[name]:
            yield f"{name} {version} was replaced by {after[name][0]}"


def doubts(witness, site, folder, head):
    """The problems with where the course came from, as sentences. witness: the output of WITNESS."""
    if Path(witness["package"]).parent.resolve() != site.resolve() or witness["checkout"] != "None":
        yield f"the course was imported from {witness['package']} (checkout: {witness['checkout']}), not from {site}"
    if not Path(witness["cache"]).resolve().is_relative_to(folder.resolve()):
        yield f"the cache was {witness['cache']}, not a fresh one"
    if not witness["colab"]:
        yield "google.colab was not imported: the notebook did not run as it would in Colab"
    commit = json.loads(witness["url"] or "{}").get("vcs_info", {}).get("commit_id")
    if commit != head:
        yield f"commit {commit} was installed, HEAD is {head}"


# Running ----------------------------------------------------------------------------------------------------------------


def git(*arguments):
    """The output of a git command in this repository."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def step(what):
    """Print the name of a step and the minutes it took."""
    print(f"{what} ...", flush=True)
    began = time.perf_counter()
    yield
    print(f"    {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)


def prepare(folder):
    """Create the environment that simulates Colab. Returns its python and its site-packages folder."""
    for name in HIDDEN:
        os.environ.pop(name, None)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [python, "-m", "pip"]
    subprocess.run([*pip, "install", "-q", "-c", ROOT / "constraints.txt", *PREINSTALLED], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    cache = subprocess.run([*pip, "cache", "dir"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    stub_colab(site)
    kernel(python, folder, environment(python, folder, cache))
    return python, site


def rehearse(path, folder, python, site):
    """Run one notebook of HEAD alone, from its bootstrap cell to its end. Returns the problems, as sentences."""
    if "wanda-pruning" in installed(site):  # from the previous notebook; in Colab each starts without it
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "wanda-pruning"], check=True)
    before = installed(site)
    content = folder / "content" / Path(path).stem
    content.mkdir(parents=True)
    copy, out = content / Path(path).name, BUILD / Path(path).name
    notebook = nbformat.reads(git("show", f"HEAD:{path}"), as_version=4)
    redirected(notebook, ROOT.as_uri())
    notebook.cells.append(nbformat.v4.new_code_cell(WITNESS))
    nbformat.write(notebook, copy)
    parameters = execute.parameters(copy, PROFILE)
    BUILD.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(copy), str(out), parameters, cwd=str(content), kernel_name="colab", progress_bar=False
    )
    after = installed(site)
    added = sorted(set(after) - set(before))
    left = sorted(str(file.relative_to(content)) for file in content.rglob("*") if file != copy and file.is_file())
    print(
        f"    the bootstrap added {len(added)} packages; the notebook left {', '.join(left) or 'no files'}; see {out}"
    )
    problems = list(doubts(testified(nbformat.read(out, as_version=4)), site, folder, git("rev-parse", "HEAD").strip()))
    problems += replaced(before, after)
    if "wanda-pruning" in before or "wanda-pruning" not in added:
        problems.append("the bootstrap did not install the course")
    return [f"{copy.name}: {problem}" for problem in problems]


def main(arguments=None):
    """Rehearse. Returns the exit status: 1 if there are problems, else 0."""
    argparse.ArgumentParser(prog="colab_rehearsal", description=__doc__.partition("\n")[0]).parse_args(arguments)
    began = time.perf_counter()
    head = git("rev-parse", "--short", "HEAD").strip()
    print(f"Rehearsing commit {head}: {git('log', '-1', '--format=%s').strip()}")
    if changed := git("status", "--porcelain").splitlines():
        print(f"NOT rehearsed: {len(changed)} uncommitted changes, such as {changed[0].strip()}")
    paths = chosen(git("ls-tree", "--name-only", "HEAD", "notebooks/").split())
    absent = [number for number in WANTED if not any(f"/{number}_" in path for path in paths)]
    if absent:
        print(f"Skipped, not committed yet: notebook {', '.join(absent)}")
    problems = []
    with tempfile.TemporaryDirectory(prefix="colab-") as name:
        folder = Path(name).resolve()
        with step(f"A fresh environment with {', '.join(PREINSTALLED)}"):
            python, site = prepare(folder)
        for path in paths:
            with step(f"{path}, alone in an empty folder, profile {PROFILE}"):
                try:
                    problems += rehearse(path, folder, python, site)
                except papermill.PapermillExecutionError as error:
                    problems.append(f"{path} stopped: {error}")
    for problem in problems:
        print(f"WRONG: {problem}")
    result = f"failed (problems: {len(problems)})" if problems else f"passed (notebooks: {len(paths)})"
    print(f"The rehearsal {result}, {(time.perf_counter() - began) / 60:.1f} minutes in total")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
