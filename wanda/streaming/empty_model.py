"""A model without its weights, and which tensor of its checkpoint belongs where: blocks come and go one at a time."""

import re
from pathlib import Path

import torch

from ..layers import find_blocks
from ..sources.models import BUNDLED, prepare
from .safetensors_files import DTYPES, read, stored_tensors

HUB_FILES = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json", "*.txt", "*.model")
HUB_FILES += ("*.tiktoken", "*.jinja", "LICENSE*", "NOTICE*", "*config.json", "*token*.json", "vocab.json")


def find_folder(source, revision=None):
    """The folder of a checkpoint: a local one, the default model's, or a Hub repository's, downloaded where needed.

    Raises: ValueError saying what there is instead, or why the Hub did not give it.
    """
    name = str(source)
    if name == BUNDLED:
        return prepare()
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.suffix == ".gguf" or path.is_file():
        raise ValueError(
            f"{name!r} is a file; a folder with safetensors is needed to stream from. A .gguf file is opened with "
            "wanda.load and written as such a folder with wanda.save"
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"there is no folder {name!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES)))
    except (OSError, HFValidationError) as error:  # OSError: whatever is wrong with the repository or the network
        raise ValueError(
            f"could not get {name!r}: it must be {BUNDLED!r}, a folder with a safetensors checkpoint, or the id of a Hub "
            f"repository that can be reached ({str(error).splitlines()[0]})"
        ) from error


class Skeleton:
    """A causal language model on the meta device, beside the checkpoint that holds its weights.

    Attributes:
        model: its parameters have shapes and dtypes, as `wanda.load` would give them, and no values; its buffers are real.
        stored: dict from the checkpoint's keys to `Stored`.
        keys: dict from the model's names of parameters and saved buffers to the checkpoint's keys.

    Raises: ValueError: no checkpoint there, or one that does not match the model tensor by tensor: the first is named.
    """

    def __init__(self, folder):
        self.folder = folder
        self.stored = stored_tensors(folder)
        self.model = _empty_model(folder, self.stored)
        self.keys = self._match()

    def _match(self):
        tensors = self.model.state_dict(keep_vars=True)
        rename = _renaming(self.model, tensors)
        ignored = [*(self.model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$"]
        keys = {}
        for key, stored in self.stored.items():
            name, converted = rename(key)
            if name in tensors and not converted:
                _check_tensor(name, tensors[name], key, stored)
                keys[name] = key
            elif converted or not any(re.search(pattern, key) for pattern in ignored):
                problem = (
                    "it is converted when it is loaded" if converted else "the model has no parameter of that name"
                )
                raise ValueError(
                    f"{str(stored.file)!r} holds {key!r}, which cannot be streamed into {type(self.model).__name__}: "
                    f"{problem}. Use wanda.load and wanda.prune, where the whole model fits in memory"
                )
        tied = {id(tensors[name]): key for name, key in keys.items()}
        for name, tensor in tensors.items():
            if id(tensor) not in tied:
                raise ValueError(f"{str(self.folder)!r} has no tensor for {name!r} of {type(self.model).__name__}")
            keys.setdefault(name, tied[id(tensor)])
        return keys

    def blocks(self, skip=()):
        """The model's blocks, see `find_blocks`; refused if two of them share weights."""
        blocks, owners = find_blocks(self.model, skip), {}
        for block in blocks:
            for name in self.inside(block):
                owner = owners.setdefault(self.keys[name], block)
                if owner is not block:
                    raise ValueError(f"{name!r} is shared with {owner.name!r}; such blocks cannot be pruned one by one")
        return blocks

    def inside(self, block):
        """The names of a block's tensors."""
        return [name for name in self.keys if name.startswith(f"{block.name}.")]

    def outside(self, blocks):
        """The names of what the blocks' inputs are made from: everything but blocks and output head."""
        head = self.model.get_output_embeddings()
        heads = {id(parameter) for parameter in head.parameters()} if head is not None else set()
        embedding = self.model.get_input_embeddings()
        heads -= {id(parameter) for parameter in embedding.parameters()}
        in_blocks = {name for block in blocks for name in self.inside(block)}
        tensors = self.model.state_dict(keep_vars=True)
        return [name for name in self.keys if name not in in_blocks and id(tensors[name]) not in heads]

    def read(self, names, pin=False):
        """The values of some of the model's tensors, dict from name to tensor, as they are stored."""
        values = read({self.keys[name]: self.stored[self.keys[name]] for name in names}, pin)
        return {name: values[self.keys[name]] for name in names}  # tied ones share a value

    def place(self, values, device=None):
        """Give parameters and buffers values, in the model's dtypes, on a device (None: where they are)."""
        own = self.model.state_dict()
        values = {
            name: (value if device is None else value.to(device, non_blocking=value.is_pinned())).to(own[name].dtype)
            for name, value in values.items()
        }
        self.model.load_state_dict(values, strict=False, assign=True)

    def move_buffers(self, device):
        """Take the buffers that have values, such as rotary frequencies, to a device."""
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if not buffer.is_meta:
                    setattr(module, name, buffer.to(device))

    def clear(self, names):
        """Take the values away again, and with them the memory."""
        own = self.model.state_dict()
        self.model.load_state_dict({name: own[name].to("meta") for name in names}, strict=False, assign=True)


def _renaming(model, tensors):
    """The function from a checkpoint's key to (the model's name, whether the values change on the way), as transformers
    applies it: some families are saved under older names, some with several tensors merged into one."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    mapping = get_model_conversion_mapping(model) or []
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]

    def rename(key):
        name, pattern = rename_source_key(key, renamings, converters, model.base_model_prefix, tensors)
        if name not in tensors and key in tensors:
            return key, False
        return name, pattern is not None

    return rename


def _check_tensor(name, tensor, key, stored):
    if stored.shape != tuple(tensor.shape):
        raise ValueError(
            f"{str(stored.file)!r}: {key!r} has shape {stored.shape}, but the config makes {name!r} {tuple(tensor.shape)}"
        )
    if stored.dtype not in DTYPES or DTYPES[stored.dtype].is_floating_point != tensor.is_floating_point():
        raise ValueError(
            f"{str(stored.file)!r}: {key!r} holds {stored.dtype} (quantized?) values where the model has {tensor.dtype}; "
            "use an unquantized checkpoint"
        )


def _empty_model(folder, stored):
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(folder)!r} has no config.json that transformers knows ({error})") from error
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{str(folder)!r} holds quantized weights; use the unquantized checkpoint")
    dtype = config.dtype  # as `dtype="auto"` does: the config's, else that of the first floating-point tensor
    if dtype is None:
        dtypes = (DTYPES.get(tensor.dtype) for tensor in stored.values())
        dtype = next((dtype for dtype in dtypes if dtype is not None and dtype.is_floating_point), torch.float32)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.tie_weights()  # making parameters empty had separated them
    # Some families keep a few small tensors in float32 whatever the dtype of the rest.
    wide = set(model._keep_in_fp32_modules_strict or ()) if dtype in (torch.float16, torch.bfloat16) else set()
    wide |= set(model._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()
    for name, parameter in model.named_parameters():
        if any(re.search(pattern.replace(".", r"\."), name) for pattern in wide):
            parameter.data = parameter.data.float()
    return model.eval()
