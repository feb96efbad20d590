"""Read a model from a GGUF file."""

import numpy as np
import torch


def load_gguf(path, dtype=torch.float32):
    """Read a GGUF file as an ordinary dense model.

    Args:
        path: of the file. dtype: of the model; the values are dequantised.

    Returns: (model in evaluation mode, tokenizer).

    Raises: ValueError: tensors are missing or overlap; or, from a damaged file, any other error of the reader.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_layout(path)
    options = {"gguf_file": path.name, "dtype": dtype, "output_loading_info": True}
    model, found = AutoModelForCausalLM.from_pretrained(path.parent, **options)
    check_complete(model, found, "the file")
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # The weights are plain floats now, but the model is still marked as quantized and could not be saved.
    model.is_quantized = False
    for attribute in ("hf_quantizer", "quantization_method"):
        if hasattr(model, attribute):
            delattr(model, attribute)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.eval(), tokenizer


def check_complete(model, found, name):
    """Raise ValueError if a checkpoint lacked some of a model's tensors: transformers gives them random values.

    Args:
        found: the loading info of `from_pretrained`. name: of the checkpoint, for the message.
    """
    missing = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} tensors of {type(model).__name__}, or holds them in another shape: {missing[0]!r}"
        )


def _check_layout(path):
    """Raise ValueError if tensors share bytes of the file, or do not match its block count: its header is damaged."""
    from gguf import GGUFReader

    class Reader(GGUFReader):
        """Stops at the end of the file, where the library goes on with nothing: a damaged length would fill the memory."""

        def _get(self, offset, dtype, count=1, override_order=None):
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError("its header points beyond the end of the file")
            return super()._get(offset, dtype, count, override_order)

    reader, end = Reader(path), 0
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.data_offset):
        if tensor.data_offset < end:
            raise ValueError(f"the tensor {tensor.name!r} overlaps another")
        end = tensor.data_offset + tensor.n_bytes
    blocks = {tensor.name.split(".")[1] for tensor in reader.tensors if tensor.name.startswith("blk.")}
    for name, field in reader.fields.items():
        if name.endswith(".block_count") and field.contents() != len(blocks):
            raise ValueError(f"the file announces {field.contents()} blocks and holds {len(blocks)}")
