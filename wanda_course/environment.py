"""Print what a notebook runs on, and silence the libraries."""

import os
import platform
from importlib.metadata import version

import torch
import transformers
from huggingface_hub.utils import disable_progress_bars


def prepare():
    """Silence the libraries' own messages, and print what this notebook runs on."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bars()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    packages = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in ("torch", "transformers"))
    print(f"{device}; Python {platform.python_version()}, {packages}")
