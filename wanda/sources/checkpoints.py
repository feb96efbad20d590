"""Find a checkpoint's folder, and the files that belong to it besides its weights."""

import shutil
from pathlib import Path

from .models import BUNDLED, looks_like_a_path, naming, prepare

WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
# Configs, tokenizer, processor, chat templates, licence.
COMPANIONS = ("config.json", "generation_config.json", "*token*.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken")
COMPANIONS += ("chat_template*", "additional_chat_templates/*", "*processor_config.json", "LICENSE*", "NOTICE*")


def find_folder(source, revision=None, weights=True):
    """The folder of a checkpoint: a local one, the default model's, or a Hub repository's, downloaded if needed.

    Args:
        source, revision: as for `wanda.load`.
        weights: whether to download a repository's weights too, not only its companions.

    Raises: ValueError: a file or nothing is there, or the download failed.
    """
    name = str(source)
    if name == BUNDLED:
        return prepare()
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.suffix == ".gguf" or path.is_file():
        raise ValueError(
            f"{name!r} is a file, but streaming needs a folder with safetensors; "
            "convert a .gguf file to one with wanda.load and wanda.save"
        )
    if looks_like_a_path(name):
        raise ValueError(f"there is no folder {name!r}")
    from huggingface_hub import snapshot_download

    patterns = [*COMPANIONS, *(WEIGHTS if weights else ())]
    with naming(repr(name)):
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))


def companions(folder):
    """The paths of a checkpoint's companions, relative to its folder, sorted."""
    folder = Path(folder)
    found = {path for pattern in COMPANIONS for path in folder.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(folder) for path in found)


def copy_companions(source, target, copy=shutil.copyfile):
    """Copy the companions of a folder that another lacks. copy: function (from, to) for one file."""
    for path in companions(source):
        if not (target / path).exists():
            (target / path).parent.mkdir(exist_ok=True)
            copy(source / path, target / path)
