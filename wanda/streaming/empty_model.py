"""A model without weights, mapped to the tensors of its checkpoint: blocks are loaded and cleared one at a time."""

import torch

from ..blocks.stacks import find_blocks
from ..sources.models import model_class
from .safetensors_files import DTYPES, read, stored_tensors
from .transformers_internals import CONVERTED, is_ignored, renaming, stays_float32


class Skeleton:
    """A causal language model on the meta device, and the checkpoint that holds its weights.

    Attributes:
        model: has parameters of the shapes and dtypes that `wanda.load` gives, without values; its buffers have values.
        stored: dict from the checkpoint's keys to `Stored`.
        keys: dict from the model's names of parameters and saved buffers to the checkpoint's keys: a tuple, of several
            where the checkpoint holds the experts of a fused tensor apart.

    Raises: ValueError: no checkpoint, or a tensor, which is named, that does not match the model.
    """

    def __init__(self, folder):
        self.folder = folder
        self.stored = stored_tensors(folder)
        self.model = _empty_model(folder, self.stored)
        self.keys = self._match()

    def _match(self):
        tensors = self.model.state_dict(keep_vars=True)
        rename = renaming(self.model, tensors)
        keys, parts = {}, {}
        for key, stored in self.stored.items():
            name, place = rename(key)
            if name in tensors and place is None:
                _check_tensor(name, tensors[name], key, stored)
                keys[name] = (key,)
            elif name in tensors and place != CONVERTED:
                parts.setdefault(name, {})[place] = key
            elif place is not None or not is_ignored(self.model, key):
                problem = "loading converts it" if place else "the model has no parameter of that name"
                raise ValueError(
                    f"{str(stored.file)!r} holds {key!r}, which cannot be streamed into {type(self.model).__name__}: "
                    f"{problem}. Use wanda.load and wanda.prune if the whole model fits in memory"
                )
        for name, found in parts.items():
            keys[name] = tuple(found[place] for place in sorted(found))
            _check_parts(name, tensors[name], found, self.stored)
        tied = {id(tensors[name]): found for name, found in keys.items()}
        for name, tensor in tensors.items():
            if id(tensor) not in tied:
                raise ValueError(f"{str(self.folder)!r} has no tensor for {name!r} of {type(self.model).__name__}")
            keys.setdefault(name, tied[id(tensor)])
        return keys

    def blocks(self, skip=()):
        """The model's blocks, see `find_blocks`.

        Raises: ValueError: two of them share weights.
        """
        blocks, owners = find_blocks(self.model, skip), {}
        for block in blocks:
            for name in self.inside(block):
                owner = owners.setdefault(self.keys[name], block)
                if owner is not block:
                    raise ValueError(
                        f"{name!r} is shared with {owner.name!r}; blocks that share weights cannot be streamed"
                    )
        return blocks

    def inside(self, block):
        """The names of a block's tensors."""
        return [name for name in self.keys if name.startswith(f"{block.name}.")]

    def outside(self, blocks):
        """The names of the tensors outside the blocks that their inputs depend on: all but the output head's."""
        head = self.model.get_output_embeddings()
        heads = {id(parameter) for parameter in head.parameters()} if head is not None else set()
        embedding = self.model.get_input_embeddings()
        heads -= {id(parameter) for parameter in embedding.parameters()}
        in_blocks = {name for block in blocks for name in self.inside(block)}
        tensors = self.model.state_dict(keep_vars=True)
        return [name for name in self.keys if name not in in_blocks and id(tensors[name]) not in heads]

    def read(self, names, pin=False):
        """Read some of the model's tensors. Returns: dict from name to tensor, in the stored dtype."""
        values = read({self.keys[name]: [self.stored[key] for key in self.keys[name]] for name in names}, pin)
        shapes = self.model.state_dict()
        return {name: values[self.keys[name]].reshape(shapes[name].shape) for name in names}  # tied ones share a value

    def as_stored(self, name, tensor):
        """The tensors that the checkpoint holds for one of the model's: dict from key to a view of `tensor`."""
        keys = self.keys[name]
        if len(keys) == 1:
            return {keys[0]: tensor}
        rows = [self.stored[key].shape[0] for key in keys]  # of experts, one after the other
        return dict(zip(keys, tensor.flatten(0, 1).split(rows), strict=True))

    def place(self, values, device=None):
        """Assign values to parameters and buffers, in the model's dtypes, on a device (None: the values' own)."""
        own = self.model.state_dict()
        values = {
            name: (value if device is None else value.to(device, non_blocking=value.is_pinned())).to(own[name].dtype)
            for name, value in values.items()
        }
        self.model.load_state_dict(values, strict=False, assign=True)

    def move_buffers(self, device):
        """Move the buffers that have values, such as rotary frequencies, to a device."""
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if not buffer.is_meta:
                    setattr(module, name, buffer.to(device))

    def clear(self, names):
        """Free the values of the named tensors."""
        own = self.model.state_dict()
        self.model.load_state_dict({name: own[name].to("meta") for name in names}, strict=False, assign=True)


def _check_tensor(name, tensor, key, stored):
    if stored.shape != tuple(tensor.shape):
        raise ValueError(
            f"{str(stored.file)!r}: {key!r} has shape {stored.shape}, but the config gives {name!r} {tuple(tensor.shape)}"
        )
    if stored.dtype not in DTYPES or DTYPES[stored.dtype].is_floating_point != tensor.is_floating_point():
        raise ValueError(
            f"{str(stored.file)!r}: {key!r} holds {stored.dtype} (quantized?) values, but the model has {tensor.dtype}; "
            "use an unquantized checkpoint"
        )


def _check_parts(name, tensor, parts, stored):
    """Check that parts, a dict from (expert, projection) to key, make up a fused tensor [experts, sum of out, in]."""
    numbers = {expert for expert, _ in parts}
    for expert in sorted(numbers | set(range(len(tensor)))):
        shapes = [stored[key].shape for (number, _), key in sorted(parts.items()) if number == expert]
        fits = all(len(shape) == 2 and shape[1] == tensor.shape[2] for shape in shapes)
        if expert >= len(tensor) or not fits or sum(shape[0] for shape in shapes) != tensor.shape[1]:
            held = ", ".join(map(str, shapes)) or "nothing"
            raise ValueError(f"{name!r} is {tuple(tensor.shape)}, but the checkpoint holds {held} for expert {expert}")
    dtypes = {stored[key].dtype for key in parts.values()}
    if len(dtypes) > 1 or not dtypes <= DTYPES.keys() or not DTYPES[min(dtypes)].is_floating_point:
        raise ValueError(
            f"the experts of {name!r} hold {', '.join(sorted(dtypes))} values; one floating-point type is needed"
        )


def _empty_model(folder, stored):
    from accelerate import init_empty_weights
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(folder)!r} has no config.json that transformers supports ({error})") from error
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{str(folder)!r} holds quantized weights; use the unquantized checkpoint")
    dtype = config.dtype  # as with `dtype="auto"`: the config's, else that of the first floating-point tensor
    if dtype is None:
        dtypes = (DTYPES.get(tensor.dtype) for tensor in stored.values())
        dtype = next((dtype for dtype in dtypes if dtype is not None and dtype.is_floating_point), torch.float32)
    with init_empty_weights(include_buffers=False):
        model = model_class(config, folder).from_config(config, dtype=dtype)
    model.tie_weights()  # emptying the parameters untied them
    for name, parameter in model.named_parameters():
        if stays_float32(model, name, dtype):
            parameter.data = parameter.data.float()
    return model.eval()
