"""Load a model from the Hub, a folder or a GGUF file, and save it so that `from_pretrained` can open it."""

import json
import os
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import safe_open

from ..devices.offload import check_device
from .download import cache_folder, check_writable, fetch, replacing, sources
from .gguf_files import check_complete, load_gguf

BUNDLED = "smollm2"
QUANTIZED = (torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2)  # dtypes that only quantised weights have
MANIFEST = "checksums.json"  # of a prepared model: CRC-32 by file name


def load(name=BUNDLED, *, dtype="auto", device=None, revision=None):
    """Load a language model and its tokenizer. Models that take images or audio too are opened whole.

    Args:
        name: "smollm2" (the default model, fetched once), a local folder, a `.gguf` file, or a Hub id.
        dtype: a torch dtype, or "auto": the one the checkpoint was saved in (float32 for GGUF, which is dequantised).
        device: where to put it, such as "cuda"; "auto" spreads it over several GPUs; None leaves it in main memory.
        revision: branch, tag or commit, for a Hub id.

    Returns: (model in evaluation mode, tokenizer).

    Raises:
        ValueError: the model cannot be found or loaded, is no language model, or there is no such device.
        RuntimeError: the default model cannot be fetched.
    """
    check_device(device)
    if isinstance(dtype, str) and dtype != "auto":
        dtype = getattr(torch, dtype, dtype)
    if dtype != "auto" and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be 'auto' or a floating-point torch dtype, got {dtype!r}")
    name = str(name)
    source = prepare() if name == BUNDLED else Path(name).expanduser()
    is_file = source.suffix == ".gguf" and os.path.isfile(source)  # `os.path`: a long name is no error
    is_local = is_file or os.path.isdir(source)
    if not is_local and (os.path.exists(source) or looks_like_a_path(name)):
        raise ValueError(f"there is no folder or .gguf file {name!r}")
    if is_local and revision is not None:
        raise ValueError(f"revision={revision!r} is for Hub repositories; {name!r} is a local model")
    if not is_file:
        return _load_checkpoint(name, source if is_local else name, dtype, device, revision)
    try:
        model, tokenizer = load_gguf(source, torch.float32 if dtype == "auto" else dtype)
    except Exception as error:  # a damaged file fails anywhere in the reader, with any type of error
        raise ValueError(f"could not read {str(source)!r}; is it damaged? ({_first_line(error)})") from error
    return (model if device in (None, "auto") else model.to(device)), tokenizer


def _load_checkpoint(name, source, dtype, device, revision):
    from transformers import AutoTokenizer

    options = {"dtype": dtype, "revision": revision} | ({} if device is None else {"device_map": device})
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # both are errors below, by name
    with naming(repr(name)):
        config = _config(source, revision)
    auto = model_class(config, name)
    with naming(repr(name)):
        model, found = auto.from_pretrained(source, **options)
    folder = _folder_of(source, revision)
    if folder and not hasattr(
        config, "quantization_config"
    ):  # transformers casts codes to floats, without their scales
        for key, stored, shape in _stored_tensors(folder):
            if stored in QUANTIZED and len(shape) in (2, 3):
                raise ValueError(
                    f"{name!r} holds {key!r} as {str(stored).removeprefix('torch.')} (quantized?), but its config.json has no "
                    "quantization_config to read it by; use an unquantized checkpoint"
                )
    with naming(f"the tokenizer of {name!r}"):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    check_complete(model, found, repr(name))
    if unknown := sorted(found["unexpected_keys"]):
        warnings.warn(
            f"{name!r} holds {len(unknown)} tensors that {type(model).__name__} does not use, such as {unknown[0]!r}; "
            "wanda.save will leave them out",
            stacklevel=3,
        )
    return model.eval(), tokenizer


@contextmanager
def naming(what):
    """Raise a short ValueError that names what could not be loaded, instead of an error of transformers."""
    try:
        yield
    except OSError as error:  # a missing file or repository, or no network
        raise ValueError(
            f"could not load {what}: it must be {BUNDLED!r}, a folder with a transformers checkpoint, a .gguf file, or "
            f"the id of a reachable Hub repository ({_first_line(error)})"
        ) from error
    except RuntimeError:  # such as too little memory
        raise
    except Exception as error:  # a damaged or unknown config fails anywhere in transformers, with any type of error
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"could not load {what}: {kind}{_first_line(error)}") from error


def looks_like_a_path(name):
    """Whether a model's name cannot be a Hub id."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".gguf")


def _first_line(error):
    return str(error).strip().partition("\n")[0]


def model_class(config, name):
    """The transformers class that opens a language model: a causal one, or one that takes images or audio too.

    Raises: ValueError: the configuration of another kind of model.
    """
    import transformers

    causal, others = transformers.MODEL_FOR_CAUSAL_LM_MAPPING, transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING
    known = {
        kind.__name__ for mapping in (causal, others) if type(config) in mapping for kind in _classes(mapping, config)
    }
    saved = next(iter(getattr(config, "architectures", None) or ()), "")
    another = (
        "For" in saved and not saved.endswith("ForCausalLM") and saved not in known and hasattr(transformers, saved)
    )
    if known and not another:
        return transformers.AutoModelForCausalLM if type(config) in causal else transformers.AutoModelForMultimodalLM
    kind = f"model of type {config.model_type!r}" if not another else saved
    raise ValueError(
        f"{str(name)!r} holds a {kind}, which is not a generative language model; open it with transformers, and give it to "
        "wanda.prune"
    )


def _classes(mapping, config):
    """The classes that a mapping of transformers has for a configuration."""
    found = mapping[type(config)]
    return found if isinstance(found, tuple) else (found,)


def save(model, tokenizer, folder):
    """Write a model and its tokenizer as safetensors; `AutoModelForCausalLM.from_pretrained(folder)` opens them.

    What is written is what is in memory, whatever form the model was loaded from. Zeros are stored like any other number:
    the files do not get smaller. A licence or further templates are copied by the command line only.

    Args:
        tokenizer: None leaves it out.
    """
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

    folder = Path(folder).expanduser()
    check_writable(folder)
    model.save_pretrained(folder)
    if {dtype for _, dtype, _ in _stored_tensors(folder)} - {tensor.dtype for tensor in model.state_dict().values()}:
        # The model was dequantised on loading, and transformers wrote its weights as codes again.
        model.save_pretrained(folder, save_original_format=False)
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        (folder / SAFE_WEIGHTS_INDEX_NAME).unlink(missing_ok=True)  # of a model in shards that was saved here before
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _config(source, revision):
    """The configuration of a checkpoint, or of the model that an adapter's folder names."""
    from transformers import AutoConfig
    from transformers.utils import find_adapter_config_file

    adapter = find_adapter_config_file(source, revision=revision)
    if adapter is not None:
        source, revision = json.loads(Path(adapter).read_text(encoding="utf-8"))["base_model_name_or_path"], None
    return AutoConfig.from_pretrained(source, revision=revision)


def _folder_of(source, revision):
    """The folder of a checkpoint that transformers has just loaded; None if the Hub's cache does not have it."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(source, Path):
        return source
    cached = try_to_load_from_cache(source, "config.json", revision=revision)
    return Path(cached).parent if isinstance(cached, str) else None


def _stored_tensors(folder):
    """Yield (key, dtype, shape) of a checkpoint's tensors, from the files' headers. Scalars are left out."""
    for path in sorted(folder.glob("model.safetensors")) or sorted(folder.glob("model-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                tensor = file.get_slice(key)
                if tensor.get_shape():
                    yield key, tensor[:0].dtype, tuple(tensor.get_shape())


def prepare():
    """The folder of the default model, as safetensors in float32: fetched and dequantised once, then kept."""
    folder = cache_folder() / f"smollm2-{sources()[BUNDLED]['sha256'][:12]}"
    if _is_whole(folder):
        return folder
    gguf = fetch(BUNDLED)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not _is_whole(folder):  # another process may have built it meanwhile
            with replacing(folder) as partial:
                save(*load_gguf(gguf, torch.float32), partial)
                checksums = {file.name: _crc32(file) for file in partial.iterdir()}
                (partial / MANIFEST).write_text(json.dumps(checksums))
    return folder


def _is_whole(folder):
    """Whether a prepared model is there and its files are as they were written."""
    try:
        checksums = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all(_crc32(folder / name) == expected for name, expected in checksums.items())
    except (OSError, ValueError, AttributeError):  # a file or the manifest is missing or damaged
        return False


def _crc32(path):
    value = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 24):
            value = zlib.crc32(chunk, value)
    return value
