"""GPU measurements from results/gpu.json, written by `benchmarks/gpu.py`."""

import pandas

from . import results

COLUMNS = {"run": "run", "seconds": "seconds", "peak_gib": "peak memory (GiB)"}
PHASES = ("read", "capture", "statistics", "select", "recompute", "write")  # in seconds; "read" and "write": streamed


def record():
    """The content of results/gpu.json, a dict; None if there is no such file."""
    return results.read("gpu") if results.file("gpu").is_file() else None


def caption(content):
    """A sentence that says what was measured, on which GPU. Raises: ValueError if it was not measured on a GPU."""
    machine, model = content["machine"], content["model"]
    if not machine["gpu"]:
        raise ValueError(f"results/gpu.json was measured on {machine['processor']}, not on a GPU; measure it again")
    shape = f"{model['blocks']} blocks of width {model['hidden']} and {model['intermediate']}"
    return (
        f"Measured on one {machine['gpu']}, {content['date']}: {model['weights']} weights in {model['dtype']}, {shape}; "
        f"{content['calibration']}."
    )


def table(content):
    """The runs, one per row: pandas DataFrame with seconds, peak memory of the GPU in GiB, and seconds per phase."""
    frame = pandas.DataFrame(content["rows"]).rename(columns=COLUMNS)
    phases = [phase for phase in PHASES if phase in frame]
    return frame.set_index("run")[["seconds", "peak memory (GiB)", *phases]].astype(float).round(1)


def seconds(content, run):
    """The seconds of one run, such as "wanda" or "sparsegpt 2:4". Raises: KeyError: it was not measured."""
    return {row["run"]: row["seconds"] for row in content["rows"]}[run]


def agreement(content):
    """For each method, the fraction of a small model's mask entries on which a GPU and a CPU agree. Dict of floats,
    empty if the benchmark did not get that far."""
    return {method: others["cpu"] for method, others in content.get("agreement", {}).items()}
