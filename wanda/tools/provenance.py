"""Where a measured number comes from: machine, versions, command, data."""

import datetime
import hashlib
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "transformers", "numpy", "tokenizers", "safetensors")


def provenance(**data):
    """The provenance of a measurement, as a dict ready for JSON.

    Args:
        data: tensors of token ids, by name; their sha256 (of the int64 values, in order) is recorded.
    """
    command = [Path(part).name if os.path.isabs(part) else part for part in sys.argv]  # no paths of this machine
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(command),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_gib": _memory_gib(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "data_sha256": {name: tokens_sha256(tokens) for name, tokens in data.items()},
    }


def tokens_sha256(tokens):
    """The sha256 of a tensor of token ids (as int64, in order), in hexadecimal."""
    return hashlib.sha256(tokens.long().numpy().tobytes()).hexdigest()


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib():
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
