"""Find a checkpoint's folder, and the files that belong to it besides its weights."""

from pathlib import Path

from .models import BUNDLED, prepare

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
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"there is no folder {name!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = [*COMPANIONS, *(WEIGHTS if weights else ())]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, HFValidationError) as error:  # OSError: a missing repository, or no network
        raise ValueError(
            f"could not get {name!r}: it must be {BUNDLED!r}, a folder with a safetensors checkpoint, or the id of a "
            f"reachable Hub repository ({str(error).splitlines()[0]})"
        ) from error


def companions(folder):
    """The paths of a checkpoint's companions, relative to its folder, sorted."""
    folder = Path(folder)
    found = {path for pattern in COMPANIONS for path in folder.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(folder) for path in found)


def copy_companions(source, target):
    """Copy, byte for byte, the companions of a folder that another lacks."""
    for path in companions(source):
        copy = Path(target) / path
        if not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes((Path(source) / path).read_bytes())
