"""Shared by the tests: small models, data, and the distribution over workers. Nothing here uses the network."""

import importlib.util
import os
from contextlib import contextmanager

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ["WANDA_STRICT"] = "1"  # here and in notebook kernels: a claim outside its band is an error
os.environ["WANDA_STATIC"] = "1"  # no sliders in the notebooks that tests execute
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"  # one core for each worker and its notebook kernels
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # tests that set a thread count do not spin on other workers' cores

import pytest
import torch
from filelock import FileLock
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

VOCABULARY = 97
WORDS = ["[unk]", *(f"w{number}" for number in range(1, VOCABULARY))]  # of `word_tokenizer`


collect_ignore_glob = [] if importlib.util.find_spec("resource") else ["marking/*"]  # the marker needs a POSIX system


@pytest.fixture(scope="session")
def sandbox():
    """One for all tests that run answers in it: it takes seconds to start."""
    from wanda_course.marking.sandbox import Sandbox

    with Sandbox() as box:
        yield box


def pytest_collection_modifyitems(items):
    """Start long tests first, so that all workers finish together."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Distribute tests to workers by group. (`--dist loadgroup` of pytest-xdist 3.8 has no effect with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid)

    config.option.loadscopereorder = False  # keep the collection order
    return ByGroup(config, log)


def group(nodeid):
    """What one worker gets at once: one run of a notebook, all tests on the real model, or a file's other tests."""
    file, _, name = nodeid.partition("::")
    if name.startswith(("test_it_runs_to_the_end", "test_its_committed_outputs")):
        return nodeid
    return "real model" if file.endswith(("test_models.py", "test_protocol.py", "test_text.py")) else file


def tiny(config_class=LlamaConfig, seed=0, **options):
    """A random model of small blocks, three by default, in evaluation mode."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    torch.manual_seed(seed)
    config = config_class(**(sizes | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | options))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def tiny_llava():
    """An image-text model whose tower is larger than its language model."""
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    text = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=4, image_size=16, patch_size=8
    )
    torch.manual_seed(0)
    config = LlavaConfig(
        text_config=text, vision_config=vision, image_token_id=5, vision_feature_select_strategy="full"
    )
    return LlavaForConditionalGeneration(config).eval()


def word_tokenizer():
    """A tokenizer whose token i is the word "wi"."""
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[unk]")


@contextmanager
def on_cores(number):
    """Within a `with`, compute as on a machine with `number` cores, whatever this one has."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_fsync(request):
    """Replace fsync, which is slow and protects only from power cuts, except in tests marked `durability`."""
    with pytest.MonkeyPatch.context() as patch:  # a separate patch: a test may undo its `monkeypatch`
        if request.node.get_closest_marker("durability") is None:
            patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def model():
    return tiny()


@pytest.fixture
def calibration():
    return torch.randint(VOCABULARY, (6, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def smollm2():
    """The real default model and its tokenizer, loaded once. Tests restore the weights (`restoring`)."""
    import wanda

    return wanda.load("smollm2")


@pytest.fixture(scope="session")
def four_blocks(tmp_path_factory):
    """The folder of a random four-block model with the default model's tokenizer; created once for all workers."""
    import wanda
    from wanda.sources.download import replacing
    from wanda.sources.models import prepare

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "four_blocks"
    with FileLock(shared / "four_blocks.lock"):
        if not folder.exists():
            tokenizer = AutoTokenizer.from_pretrained(prepare())
            special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
            sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
            sizes |= {"max_position_embeddings": 2048, "tie_word_embeddings": True}
            with replacing(folder) as partial:
                wanda.save(tiny(vocab_size=len(tokenizer), **sizes, **special), tokenizer, partial)
    return folder
