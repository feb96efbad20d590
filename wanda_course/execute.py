"""Run notebooks with papermill under a profile: `python -m wanda_course.execute 06 --profile ci --out build/06.ipynb`.

A profile is a file notebooks/profiles/NAME.yaml: for each notebook, the parameters that differ from its own. The
`cpu` profile is a notebook's own parameters. A parameter that the notebook does not have is an error.
"""

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
import yaml
from nbclient import NotebookClient

from wanda.sources.download import CHECKOUT, default_assets, sources

from . import claims, controls, replicates, results

NOTEBOOKS = (CHECKOUT or Path()) / "notebooks"


def parameters(notebook, profile, **others):
    """The parameters of a notebook under a profile, overridden by `others`.

    Raises: ValueError for a profile that does not exist or a parameter that the notebook does not have.
    """
    file = NOTEBOOKS / "profiles" / f"{profile}.yaml"
    if not file.is_file():
        raise ValueError(
            f"no profile {profile!r}; the profiles are {', '.join(sorted(p.stem for p in file.parent.iterdir()))}"
        )
    chosen = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get(notebook.stem) or {}
    chosen = {**chosen, **others}
    known = papermill.inspect_notebook(str(notebook))
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ValueError(f"{notebook.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
    return chosen


def given(items, notebook):
    """Parse NAME=VALUE items as YAML; what the notebook holds as a string stays one ("2:4" is a number in YAML).

    Raises: ValueError for an item without an equals sign.
    """
    for item in items:
        if "=" not in item:
            raise ValueError(f"--set takes NAME=VALUE; got {item!r}")
    known = papermill.inspect_notebook(str(notebook))
    texts = {name for name, parameter in known.items() if parameter["default"].startswith(("'", '"'))}
    pairs = (item.partition("=") for item in items)
    return {name: value if name in texts else yaml.safe_load(value) for name, _, value in pairs}


def execute(notebook, out, profile="cpu", **others):
    """Run a notebook in its own folder with a profile's parameters; write the result to `out`. Prints as it goes."""
    chosen = parameters(notebook, profile, **others)
    out.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(notebook), str(out), chosen, cwd=str(notebook.parent), kernel_name="python3", log_output=True
    )


def executed(notebook, strict, environment=None):
    """Run a notebook unchanged in a fresh kernel.

    Args:
        strict: whether a claim outside its band ends the run.
        environment: dict of environment variables for its kernel, in addition to this process's.

    Returns: (content, seconds, claims): the notebook with its outputs, and its claims as `replicates.keep` takes them.
    """
    content = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        content,
        timeout=3600,
        kernel_name="python3",
        resources={"metadata": {"path": notebook.parent}},
        coalesce_streams=True,  # one output for everything that a cell prints
    )
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "claims.jsonl"
        lines.touch()
        began = time.perf_counter()
        own = {results.STRICT: str(int(strict)), claims.RECORD: str(lines), controls.STATIC: "1"}
        client.execute(env=os.environ | (environment or {}) | own)
        seconds = time.perf_counter() - began
        return content, seconds, [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]


def execute_in_place(notebook, strict=True):
    """Run a notebook in a fresh kernel, and save its outputs, time and memory in it, to be committed.

    Its claims go to results/claims.json.
    """
    replicates.announce(notebook)
    content, seconds, lines = executed(notebook, strict)
    replicates.keep(notebook, lines)
    for cell in content.cells:
        cell.metadata.pop("execution", None)  # execution times differ with every run
        if cell.cell_type == "code":
            _fold(cell)
    content.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if sys.platform != "win32":  # Windows does not report a child's usage
        first, line = content.cells[0], f"<!-- measured -->\n{_measured(seconds)}"
        first.source = re.sub(r"<!-- measured -->.*(\nMeasured .*)?", line, first.source)
    nbformat.write(content, notebook)


def _fold(cell):
    """Hide the code of a cell that plots or compares claims: in JupyterLab, in Colab and, by the tag, on the site."""
    tags = [tag for tag in cell.metadata.get("tags", []) if tag != "hide-input"]
    cell.metadata.pop("jupyter", None)
    cell.metadata.pop("cellView", None)
    if "claims" in tags or "plots.show(" in cell.source:
        tags.append("hide-input")
        cell.metadata.update(jupyter={"source_hidden": True}, cellView="form")
    if tags:
        cell.metadata["tags"] = tags


def _measured(seconds):
    """The line with a run's time and memory. The kernel must be the only child this process has had.

    On one core the line gives CPU time: the rest of the seconds went to other programs on that core.
    """
    import resource

    units = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    memory = used.ru_maxrss * units / 2**30
    wheels = {wheel["requirement"]: wheel["bytes"] for wheel in (sources()[name]["wheel"] for name in default_assets())}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # usable ones
    minutes = (used.ru_utime + used.ru_stime if cores == 1 else seconds) / 60
    return (
        f"Measured on {cores} core{'s' * (cores > 1)} without a GPU: {minutes:.1f} minutes, {memory:.1f} GiB of memory; "
        f"{sum(wheels.values()) / 1e6:.0f} MB fetched once."
    )


def main(arguments=None):
    """Run the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", help="the number of a notebook, such as 06, or 'all'")
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set a parameter")
    parser.add_argument("--out", type=Path, help="file for the executed notebook (default: build/NAME.ipynb)")
    parser.add_argument(
        "--in-place", action="store_true", help="save the outputs in the notebook itself; its claims must hold"
    )
    parser.add_argument("--lenient", action="store_true", help="in place, continue past a claim that does not hold")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # papermill logs what the cells print
    logging.getLogger("papermill").addFilter(
        lambda record: " Cell " not in record.getMessage()
    )  # but hide its own steps
    pattern = "*.ipynb" if options.notebook == "all" else f"{options.notebook}_*.ipynb"
    notebooks = sorted(NOTEBOOKS.glob(pattern))
    if not notebooks:
        parser.error(f"no notebook {options.notebook!r} in {NOTEBOOKS}")
    for notebook in notebooks:
        print(notebook.name, flush=True)
        if options.in_place and len(notebooks) > 1:  # one process each: the memory measured is one notebook's
            number = notebook.stem.partition("_")[0]
            command = [sys.executable, "-m", "wanda_course.execute", number, "--in-place"]
            subprocess.run([*command, *["--lenient"] * options.lenient], check=True)
        elif options.in_place:
            execute_in_place(notebook, strict=not options.lenient)
        else:
            out = (options.out or Path("build") / notebook.name).resolve()
            execute(notebook, out, options.profile, **given(options.set, notebook))
    return 0


if __name__ == "__main__":
    sys.exit(main())
