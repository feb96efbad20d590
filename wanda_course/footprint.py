"""The peak memory of a pruning run, measured in its own process.

    python -m wanda_course.footprint stream FOLDER 16 256

A notebook's own process would hide the peak: its other cells have already filled the memory. The new process first
prunes a small random model, so that the libraries' one-off memory (code, thread pools) is not counted.
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
    """Peak bytes of pruning a checkpoint to 50 % with Wanda, beyond the libraries' memory.

    Args:
        way: "whole": load, `prune`, save. "stream": `prune_checkpoint`.
        folder: holds the checkpoint, as safetensors.
        samples, length: of the calibration windows, which are random tokens: memory does not depend on the text.

    Returns: int; None except on Linux, the only system that reports it.

    Raises: ValueError: an unknown way. RuntimeError: the run failed, with its last line of stderr.
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
    """Run in the measured process. Returns the bytes."""
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
        CLEAR.write_text("5")  # reset the peak
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
    """A field of /proc/self/status, in bytes."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
