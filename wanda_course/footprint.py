"""The memory that a pruning run takes at its peak, measured in a process of its own.

    python -m wanda_course.footprint stream FOLDER 16 256

In a notebook's own process there would be nothing to see: what other cells have loaded is in memory already. The new
process prunes a small random model first, so that what the libraries take once and for all (code, thread pools) is not
charged to the run.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from wanda.pruning import prune
from wanda.streaming.run import prune_checkpoint

WAYS = ("whole", "stream")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(way, folder, samples, length):
    """Bytes that pruning a checkpoint by half with Wanda takes at its peak, over what the libraries take.

    Args:
        way: "whole": load, `prune`, save. "stream": `prune_checkpoint`.
        folder: with the checkpoint, as safetensors.
        samples, length: of the calibration windows, which are random tokens: what they say makes no difference here.

    Returns: int; None on a system that does not tell (only Linux does).

    Raises: ValueError: an unknown way. RuntimeError: the run failed, with what it said last.
    """
    if way not in WAYS:
        raise ValueError(f"way must be one of {', '.join(map(repr, WAYS))}; got {way!r}")
    if not (STATUS.is_file() and CLEAR.is_file()):
        return None
    arguments = [way, str(folder), str(samples), str(length), str(torch.get_num_threads())]
    run = subprocess.run(
        [sys.executable, "-m", "wanda_course.footprint", *arguments], capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        raise RuntimeError(f"the measured run failed: {(run.stderr.strip().splitlines() or ['no message'])[-1]}")
    return int(run.stdout.split()[-1])


def main(way, folder, samples, length, threads=1):
    """What happens in the process of its own. Returns the bytes."""
    from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(int(threads))
    vocabulary = AutoConfig.from_pretrained(folder).vocab_size
    generator = torch.Generator().manual_seed(0)
    calibration = torch.randint(vocabulary, (int(samples), int(length)), generator=generator)
    with tempfile.TemporaryDirectory() as temporary:
        small, rehearsal, target = (Path(temporary) / name for name in ("small", "rehearsal", "target"))
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=256, **sizes)).save_pretrained(small)
        _prune(way, small, rehearsal, calibration[:2, :32] % 256)
        CLEAR.write_text("5")  # the peak is counted from here
        before = _memory("VmRSS")
        _prune(way, folder, target, calibration)
        return _memory("VmHWM") - before


def _prune(way, folder, target, calibration):
    from transformers import AutoModelForCausalLM

    if way == "stream":
        prune_checkpoint(folder, target, calibration, progress=False)
        return
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    prune(model, calibration, progress=False)
    model.save_pretrained(target)


def _memory(field):
    """A line of what the system says of this process, in bytes."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
