"""Fuzzing: files that are cut or have a byte changed give a clear error that names them, or the right model; never another."""

import shutil
import struct

import gguf
import pytest
import torch
from conftest import tiny, word_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import wanda
from wanda.streaming.safetensors_files import stored_tensors

fuzzing = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DAMAGE = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))  # where, and the byte that is put there


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint in shards, and what streaming makes of it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny(num_hidden_layers=1).save_pretrained(folder / "source", max_shard_size="20KB")
    word_tokenizer().save_pretrained(folder / "source")
    return folder / "source", streamed(folder / "source", folder / "target")


def streamed(source, target):
    """The tensors of a checkpoint, pruned by magnitude."""
    wanda.prune_checkpoint(source, target, method="magnitude", progress=False)
    return tensors_of(target)


def tensors_of(folder):
    return {name: tensor.clone() for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def check(checkpoint, tmp_path, damage, name):
    """Damage a file of a copy of the checkpoint and stream it: the same tensors, or a message with the file or a tensor."""
    message = outcome(checkpoint, tmp_path, damage, name)
    culprits = (str(tmp_path / "source"), *checkpoint[1])
    assert message is None or any(culprit in message for culprit in culprits), message


def outcome(checkpoint, tmp_path, damage, name):
    """Stream the damaged copy. Returns the error's message, or None if the tensors are the expected ones."""
    source, expected = checkpoint
    shutil.rmtree(tmp_path / "source", ignore_errors=True)
    shutil.rmtree(tmp_path / "target", ignore_errors=True)
    shutil.copytree(source, tmp_path / "source")
    file = tmp_path / "source" / name
    file.write_bytes(damage(file.read_bytes()))
    try:
        found = streamed(tmp_path / "source", tmp_path / "target")
    except ValueError as error:
        return str(error)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    return None


def with_byte(content, where, byte):
    place = int(where * len(content))
    return content[:place] + bytes([byte]) + content[place + 1 :]


@fuzzing
@given(DAMAGE)
def test_a_changed_byte_in_a_header(checkpoint, tmp_path, damage):
    """Headers only: of the values themselves the format keeps no checksum."""
    source, _ = checkpoint
    shard = min(source.glob("*.safetensors"))
    header = min(stored.start for stored in stored_tensors(source).values() if stored.file == shard)
    check(checkpoint, tmp_path, lambda content: with_byte(content[:header], *damage) + content[header:], shard.name)


@fuzzing
@given(st.floats(0, 1, exclude_max=True))
def test_a_shard_that_is_cut(checkpoint, tmp_path, where):
    shard = max(checkpoint[0].glob("*.safetensors")).name
    check(checkpoint, tmp_path, lambda content: content[: int(where * len(content))], shard)


@fuzzing
@given(DAMAGE)
def test_a_changed_byte_in_the_index(checkpoint, tmp_path, damage):
    name = "model.safetensors.index.json"
    check(checkpoint, tmp_path, lambda content: with_byte(content, *damage), name)


@fuzzing
@given(DAMAGE)
def test_a_changed_byte_in_the_config(checkpoint, tmp_path, damage):
    """A number in it may be another valid one, which gives another, valid model."""
    source, _ = checkpoint
    dense = tensors_of(source)
    shutil.rmtree(tmp_path / "source", ignore_errors=True)
    shutil.copytree(source, tmp_path / "source")
    file = tmp_path / "source" / "config.json"
    file.write_bytes(with_byte(file.read_bytes(), *damage))
    try:
        model, _ = wanda.load(tmp_path / "source")
    except ValueError as error:
        message = str(error)
    else:  # then all tensors are the checkpoint's
        message = str(tmp_path / "source")
        assert all(torch.equal(tensor, dense[name]) for name, tensor in model.state_dict().items())
    assert str(tmp_path / "source") in message


@fuzzing
@given(st.text(max_size=40) | st.sampled_from(['{"weight_map": []}', '{"weight_map": {"a": 1}}', "[]", "{}", "null"]))
def test_an_index_of_anything(checkpoint, tmp_path, text):
    check(checkpoint, tmp_path, lambda content: text.encode(), "model.safetensors.index.json")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A .gguf file, its dense tensors, and where its header ends."""
    path, model = tmp_path_factory.mktemp("gguf") / "model.gguf", tiny(num_hidden_layers=1)
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab", "ba", *(f"<{number}>" for number in range(4, config.vocab_size))])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["a b", "b a"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, wanda.load(path)[0].state_dict(), gguf.GGUFReader(path).data_offset


def check_gguf(gguf_file, tmp_path, damage):
    """Load a damaged copy: the same tensors, or a message with the file."""
    original, expected, _ = gguf_file
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damage(original.read_bytes()))
    try:
        found, message = wanda.load(path)[0].state_dict(), str(path)
    except ValueError as error:
        found, message = expected, str(error)
    assert str(path) in message
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@fuzzing
@given(DAMAGE)
@pytest.mark.filterwarnings("ignore")
def test_a_changed_byte_in_the_header_of_a_gguf_file(gguf_file, tmp_path, damage):
    end = gguf_file[2]
    check_gguf(gguf_file, tmp_path, lambda content: with_byte(content[:end], *damage) + content[end:])


def test_a_length_beyond_the_end_of_a_gguf_file(tmp_path):
    """The library would append nothing to a list, that many times, until the memory is full."""
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_token_types([1, 2, 3])
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    content = (tmp_path / "model.gguf").read_bytes()
    array, integers = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32
    found, damaged = (struct.pack("<IIQ", array, integers, length) for length in (3, 2**40))
    assert content.count(found) == 1
    start = content.index(found) + len(found)
    whole = content.replace(found, damaged) + bytes(-(len(content) - start) % 4)  # no entry is cut in the middle
    (tmp_path / "model.gguf").write_bytes(whole)
    with pytest.raises(ValueError, match="its header points beyond the end of the file"):
        wanda.load(tmp_path / "model.gguf")


@fuzzing
@given(st.floats(0, 1, exclude_max=True))
@pytest.mark.filterwarnings("ignore")
def test_a_gguf_file_that_is_cut(gguf_file, tmp_path, where):
    check_gguf(gguf_file, tmp_path, lambda content: content[: int(where * len(content))])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"blk.0.ffn_up.weight", b"blk.0.ffn_xx.weight", "lacks 1 tensors of LlamaForCausalLM.*up_proj"),
        (
            b"llama.block_count\x04\x00\x00\x00\x01",
            b"llama.block_count\x04\x00\x00\x00\x09",
            "announces 9 blocks and holds 1",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_gguf_file_without_all_its_tensors_is_refused(gguf_file, tmp_path, old, new, message):
    path = tmp_path / "damaged.gguf"
    path.write_bytes(gguf_file[0].read_bytes().replace(old, new))
    with pytest.raises(ValueError, match=message):
        wanda.load(path)
