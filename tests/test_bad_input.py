"""Bad input, one line each: what is raised, and that its message names the culprit. Model and files stay as they were."""

import hashlib
from types import SimpleNamespace

import pytest
import torch
import transformers
from conftest import VOCABULARY, WORDS, tiny, word_tokenizer
from safetensors.torch import load_file, save_file
from torch import nn

import wanda

IDS = torch.randint(6, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(0))


def pruning(calibration=IDS, **options):
    return lambda here: wanda.prune(here.model, calibration, **options, progress=False)


def batch(**tensors):
    return pruning([{"input_ids": IDS} | tensors])


def pruning_a(make):
    return lambda here: wanda.prune(make(), IDS, progress=False)


def masking(score, **options):
    return lambda here: wanda.prune_mask(score, **options)


def reading(source="text.txt", **options):
    def call(here):
        path = here.folder / source if isinstance(source, str) and source.endswith((".txt", "empty")) else source
        return wanda.calibration_set(here.tokenizer, path, **options)

    return call


def reading_with(tokenizer):
    return lambda here: wanda.calibration_set(tokenizer, here.folder / "text.txt")


def judging(tokens=IDS[0], **options):
    return lambda here: wanda.perplexity(here.model, tokens, **options)


def loading(name, **options):
    return lambda here: wanda.load(here.folder / name, **options)


def saving(folder):
    return lambda here: wanda.save(here.model, None, here.folder / folder)


def streaming(calibration=IDS, source="model", target="new", **options):
    return lambda here: wanda.prune_checkpoint(
        here.folder / source, here.folder / target, calibration, **options, progress=False
    )


def with_a_nan():
    model = tiny()
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = torch.nan
    return model


def without_values():
    with torch.device("meta"):
        return tiny()


def judging_a(make):
    return lambda here: wanda.perplexity(make(), IDS[0])


def t5():
    sizes = {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=VOCABULARY, **sizes))


def decoding(mask):
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS, "decoder_attention_mask": mask}
    return lambda here: wanda.prune(t5(), [inputs], progress=False)


def bert():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=VOCABULARY, **sizes))


def vit():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return transformers.ViTModel(transformers.ViTConfig(**sizes))


Q = r"model\.layers\.0\.self_attn\.q_proj"
FRACTION = r"must be in \[0, 1\): the fraction of weights to remove; got "
NUMBER = r"must be a number in \[0, 1\), got "
SCORE = torch.rand(4, 8)
CALIBRATION = "calibration must be a LongTensor .*; wanda.calibration_set.* makes one"
CASES = {
    # Options
    "a method misspelt": (pruning(method="wand"), ValueError, "'admm' or a score function; got 'wand'"),
    "a method that is a number": (pruning(method=3), ValueError, "method must be .*; got 3"),
    "all weights": (pruning(sparsity=1.0), ValueError, f"sparsity {FRACTION}1.0"),
    "a negative sparsity": (pruning(sparsity=-0.5), ValueError, f"sparsity {FRACTION}-0.5"),
    "a percentage": (pruning(sparsity=50), ValueError, f"sparsity {FRACTION}50"),
    "sparsity as text": (pruning(sparsity="0.5"), TypeError, f"sparsity {NUMBER}'0.5'"),
    "no sparsity": (pruning(sparsity=None), TypeError, f"sparsity {NUMBER}None"),
    "too much for a layer": (pruning(sparsity={"*": 1.5}), ValueError, f"sparsity of {Q} {FRACTION}1.5"),
    "a layer left out": (pruning(sparsity={"up_proj": 0.5}), ValueError, f"no entry for '{Q}'; add one, or '\\*'"),
    "a layer that is not there": (pruning(sparsity={"nowhere": 0.5}), ValueError, "'nowhere' .*matches no layer"),
    "a layer by number": (
        pruning(sparsity={0: 0.3}),
        TypeError,
        "keys of sparsity must be layer names or patterns, got 0",
    ),
    "a key that another hides": (pruning(sparsity={"*": 0.5, "up_proj": 0.3}), ValueError, "'up_proj' without effect"),
    "no layer at all": (pruning(sparsity={}), ValueError, f"no entry for '{Q}'"),
    "a function without result": (pruning(sparsity=lambda name: None), TypeError, f"sparsity of {Q} {NUMBER}None"),
    "a list of sparsities": (pruning(sparsity=[0.5]), TypeError, rf"sparsity {NUMBER}\[0.5\]"),
    "a pattern with a hyphen": (pruning(pattern="2-4"), ValueError, "'N:M' such as '2:4', got '2-4'"),
    "a pattern as numbers": (pruning(pattern=(2, 4)), ValueError, r"such as '2:4', got \(2, 4\)"),
    "more kept than there are": (pruning(pattern="4:2"), ValueError, "needs 1 <= N <= M; got '4:2'"),
    "nothing of nothing": (pruning(pattern="0:0"), ValueError, "needs 1 <= N <= M; got '0:0'"),
    "a width that M does not divide": (
        pruning(pattern="2:5"),
        ValueError,
        f"'2:5' .*divisible by 5; {Q} has 32 inputs",
    ),
    "a pattern and another sparsity": (
        pruning(pattern="2:4", sparsity=0.7),
        ValueError,
        r"'2:4' sets the sparsity to 0\.5; got sparsity=0\.7",
    ),
    "the sparsity of what is kept": (pruning(pattern="1:4", sparsity=0.25), ValueError, r"'1:4' sets .* 0\.75"),
    "a pattern and sparsities by layer": (
        pruning(pattern="2:4", sparsity={"*": 0.5}),
        ValueError,
        "'2:4' sets the sparsity of every layer; it cannot be combined",
    ),
    "an unknown group": (pruning(group="row"), ValueError, "'output', 'layer', 'input'; got 'row'"),
    "a pattern by layer": (pruning(group="layer", pattern="2:4"), ValueError, "'2:4' .* combined with group='layer'"),
    "SparseGPT by output": (
        pruning(method="sparsegpt", group="output"),
        ValueError,
        "use method='wanda', update='obs'",
    ),
    "an unknown update": (
        pruning(update=True),
        ValueError,
        "update must be None, 'obs', 'obs-iterative' or a function; got True",
    ),
    "an unknown propagation": (pruning(propagate="both"), ValueError, "'pruned' or 'dense', got 'both'"),
    "SparseGPT on dense inputs": (
        pruning(method="sparsegpt", propagate="dense"),
        ValueError,
        "SparseGPT, ADMM and updates need propagate='pruned'",
    ),
    "ADMM on dense inputs": (
        pruning(method="admm", propagate="dense"),
        ValueError,
        "SparseGPT, ADMM and updates need propagate='pruned'",
    ),
    "an update of ADMM's": (
        pruning(method="admm", update="obs"),
        ValueError,
        "method='admm' solves for the kept weights itself, so update='obs' does not apply",
    ),
    "an update of one's own for SparseGPT": (
        pruning(method="sparsegpt", update=lambda weight, hessian, mask: weight),
        ValueError,
        "method='sparsegpt' has an update of its own",
    ),
    "an update that leaves too few zeros": (
        pruning(update=lambda weight, hessian, mask: weight),
        ValueError,
        "update '<lambda>' left fewer zeros than the mask has in a small random layer",
    ),
    "an update that breaks the pattern": (
        pruning(pattern="2:4", update=lambda weight, hessian, mask: weight * (torch.arange(8) < 4)),
        ValueError,
        "left fewer zeros than the mask has",
    ),
    "an update of another shape": (
        pruning(update=lambda weight, hessian, mask: weight[:1]),
        ValueError,
        r"update '<lambda>' must return a weight of shape \(3, 8\)",
    ),
    "an update that is not finite": (
        pruning(update=lambda weight, hessian, mask: weight / 0),
        ValueError,
        "gave NaN or infinite weights",
    ),
    "an update on dense inputs": (
        pruning(update="obs-iterative", propagate="dense"),
        ValueError,
        "SparseGPT, ADMM and updates need propagate='pruned'",
    ),
    "own scores, iteratively": (
        pruning(method=lambda weight, norm: weight.abs(), update="obs-iterative"),
        ValueError,
        "whole rows; use update='obs' with your own function",
    ),
    "a skip that matches nothing": (pruning(skip="qproj"), ValueError, f"'qproj' matches no layer; .* like '{Q}'"),
    "a skip that matches all": (pruning(skip="*"), ValueError, "leaves no linear layer to prune"),
    "a skip that is a number": (pruning(skip=3), TypeError, r"skip must hold names or patterns, got \(3,\)"),
    "a skip in a tuple": (pruning(skip=("q_prj",)), ValueError, "'q_prj' matches no layer"),
    "numbers to skip": (pruning(skip=(0, 1)), TypeError, r"skip must hold names or patterns, got \(0, 1\)"),
    "no skip": (pruning(skip=None), TypeError, r"skip must hold names or patterns, got \(None,\)"),
    "batches of none": (pruning(batch_size=0), ValueError, "'auto' or a whole number of at least 1, got 0"),
    "batches of a half": (pruning(batch_size=1.5), ValueError, "batch_size must be .*got 1.5"),
    "an unknown device": (pruning(device="gpu"), ValueError, "a torch device such as 'cuda', got 'gpu'"),
    # Score functions
    "scores of another shape": (
        pruning(method=lambda weight, norm: norm),
        ValueError,
        rf"\(32, 32\) for {Q}, got \(32,\)",
    ),
    "scores of another shape for wide layers": (
        pruning(method=lambda weight, norm: weight if weight.shape[1] == 32 else norm),
        ValueError,
        r"shape \(32, 64\) for .*mlp\.down_proj, got \(64,\)",
    ),
    "no scores": (pruning(method=lambda weight, norm: None), ValueError, f"score of shape .* for {Q}, got NoneType"),
    "scores without rank": (pruning(method=lambda weight, norm: weight * torch.nan), ValueError, f"NaN scores for {Q}"),
    "scores of numpy": (pruning(method=lambda weight, norm: weight.numpy()), ValueError, f"for {Q}, got ndarray"),
    # Calibration data
    "no calibration": (pruning(None), TypeError, CALIBRATION),
    "the name of a source": (pruning("news"), TypeError, "got str; wanda.calibration_set"),
    "a number as calibration": (pruning(5), TypeError, "got int; wanda.calibration_set"),
    "texts as calibration": (pruning(["some text"]), TypeError, "'input_ids' as str; it must be a tensor"),
    "lists of numbers": (pruning([[1, 2, 3]]), TypeError, "'input_ids' as list; it must be a tensor"),
    "a numpy array": (pruning(IDS.numpy()), TypeError, "'input_ids' as ndarray; it must be a tensor"),
    "floats": (pruning(IDS.float()), TypeError, r"token ids \(int64 tensors\), got torch.float32"),
    "one window without its axis": (pruning(IDS[0]), ValueError, r"\[samples, length\] .* got shape \(16,\)"),
    "an axis too many": (pruning(IDS[None]), ValueError, r"\[samples, length\] .* got shape \(1, 2, 16\)"),
    "no windows": (pruning(IDS[:0]), ValueError, "calibration is empty; it needs at least one window"),
    "no batches": (pruning([]), ValueError, "calibration is empty"),
    "windows without tokens": (pruning(IDS[:, :0]), ValueError, r"not empty, got shape \(1, 0\)"),
    "another vocabulary": (
        pruning(IDS + 1000),
        ValueError,
        "ids from 10.. to 10.., but the model's vocabulary is 0 to 96; was it made with another",
    ),
    "negative ids": (pruning(IDS - 100), ValueError, "ids from -.* vocabulary is 0 to 96"),
    "windows beyond the context": (
        pruning(IDS.repeat(1, 10)),
        ValueError,
        "are 160 tokens long; the model's context is 128",
    ),
    "embeddings instead of tokens": (
        pruning([{"inputs_embeds": torch.zeros(1, 4, 32)}]),
        ValueError,
        "needs input_ids; it has 'inputs_embeds'",
    ),
    "an empty batch": (pruning([{}]), ValueError, "needs input_ids; it has nothing"),
    "a mask in lists": (
        batch(attention_mask=[[1] * 16] * 2),
        TypeError,
        "'attention_mask' as list; it must be a tensor",
    ),
    "only padding": (
        batch(attention_mask=torch.zeros_like(IDS)),
        ValueError,
        "only padding: its attention_mask has no 1",
    ),
    "a mask of another shape": (batch(attention_mask=IDS[:, :8]), ValueError, r"\(2, 8\), input_ids \(2, 16\)"),
    "a decoder's mask of other values": (
        decoding(IDS),
        ValueError,
        "decoder_attention_mask must hold 1 for tokens and 0 for padding",
    ),
    "a decoder's mask of another shape": (
        decoding(torch.ones_like(IDS[:, :8])),
        ValueError,
        r"decoder_attention_mask has shape \(2, 8\), decoder_input_ids \(2, 16\)",
    ),
    "a mask of other values": (batch(attention_mask=IDS), ValueError, "must hold 1 for tokens and 0 for padding"),
    "an unknown key": (
        batch(pixel_values=torch.ones(1)),
        ValueError,
        "'pixel_values', which LlamaForCausalLM .*; remove it",
    ),
    # Models
    "a name as the model": (
        pruning_a(lambda: "smollm2"),
        TypeError,
        "transformers model, got str; wanda.load opens one",
    ),
    "no model": (lambda here: wanda.sparsity(None), TypeError, "got NoneType; wanda.load opens one"),
    "a single layer": (pruning_a(lambda: nn.Linear(3, 3)), ValueError, "Linear has no single embedding of tokens"),
    "no inputs for the decoder": (
        pruning_a(t5),
        ValueError,
        "T5ForConditionalGeneration fails on the first calibration batch, which holds input_ids",
    ),
    "tokens for a model of images": (pruning_a(vit), ValueError, "ViTModel fails on the first .*holds pixel_values"),
    "a weight that is NaN": (pruning_a(with_a_nan), ValueError, r"model\.layers\.1\.mlp\.up_proj has NaN or infinite"),
    "weights without values": (
        pruning_a(without_values),
        ValueError,
        f"{Q} has no weights in memory .*prune_checkpoint",
    ),
    "masks of a dense model": (
        lambda here: wanda.keep_masks(here.model),
        ValueError,
        "no zeros to hold .*; prune it first",
    ),
    "a merge without adapters": (lambda here: wanda.merge_lora(here.model), ValueError, "no LoRA adapters; peft.get"),
    # Masks
    "scores in a list": (masking([[1.0, 2.0]]), TypeError, r"tensor \[out, in\], got list"),
    "scores in a row": (masking(torch.ones(4)), ValueError, r"matrix \[out, in\], got shape \(4,\)"),
    "a score without rank": (masking(torch.tensor([[1.0, torch.nan]])), ValueError, "score has NaN entries"),
    "a mask of everything": (masking(SCORE, sparsity=1.0), ValueError, f"sparsity {FRACTION}1.0"),
    "a mask of less than nothing": (masking(SCORE, sparsity=-0.1), ValueError, f"sparsity {FRACTION}-0.1"),
    "a mask of NaN": (masking(SCORE, sparsity=torch.nan), ValueError, f"sparsity {FRACTION}nan"),
    "a mask of half": (masking(SCORE, sparsity="half"), TypeError, f"sparsity {NUMBER}'half'"),
    "a mask, yes": (masking(SCORE, sparsity=True), TypeError, f"sparsity {NUMBER}True"),
    "a mask of more than M": (masking(SCORE, pattern="4:2"), ValueError, "needs 1 <= N <= M; got '4:2'"),
    "a mask that keeps nothing": (masking(SCORE, pattern="0:4"), ValueError, "needs 1 <= N <= M; got '0:4'"),
    "a mask by a fraction": (masking(SCORE, pattern="2/4"), ValueError, "'N:M' such as '2:4', got '2/4'"),
    "a mask by a number": (masking(SCORE, pattern=24), ValueError, "'N:M' such as '2:4', got 24"),
    "a mask of a width that M does not divide": (
        masking(SCORE, pattern="2:5"),
        ValueError,
        "divisible by 5; .* 8 inputs",
    ),
    "a mask by row": (masking(SCORE, group="row"), ValueError, "'output', 'layer', 'input'; got 'row'"),
    "a pattern by layer in a mask": (masking(SCORE, pattern="2:4", group="layer"), ValueError, "cannot be combined"),
    # Texts
    "no windows of text": (reading(samples=0), ValueError, "samples must be a whole number of at least 1, got 0"),
    "a number as text": (reading(samples="4"), ValueError, "samples must be .* got '4'"),
    "a negative length": (reading(length=-4), ValueError, "length must be .* got -4"),
    "a length that is no whole number": (reading(length=2.5), ValueError, "length must be .* got 2.5"),
    "too little text in a list": (
        reading(["w1 w2"], length=6),
        ValueError,
        "given text has 2 tokens, too few for a window of 6",
    ),
    "no text in a list": (reading([]), ValueError, "the given text has 0 tokens"),
    "too little text": (reading(length=9999), ValueError, r"text\.txt' has 288 tokens, too few for a window of 9999"),
    "a source misspelt": (reading("wikitext"), ValueError, "one of news, wikipedia, .*; got 'wikitext'"),
    "a folder as text": (reading("empty"), ValueError, "the path of an existing text file"),
    "no source": (reading(None), ValueError, "or a list of strings; got None"),
    "an empty file": (reading("empty.txt"), ValueError, r"empty\.txt' has 0 tokens"),
    "another encoding": (reading("latin.txt"), ValueError, r"latin\.txt' is not a text in UTF-8"),
    "a list of numbers": (reading([1, 2]), ValueError, r"or a list of strings; got \[1, 2\]"),
    "a seed that is a list": (reading(seed=[1]), TypeError, r"seed must be a whole number, got \[1\]"),
    "no tokenizer": (reading_with(None), TypeError, "tokenizer, got NoneType; wanda.load opens one"),
    # Perplexity
    "two streams": (judging(IDS), ValueError, r"one stream \[n\] of at least 2 tokens, got shape \(2, 16\)"),
    "one token": (judging(IDS[0, :1]), ValueError, r"at least 2 tokens, got shape \(1,\)"),
    "floats for tokens": (judging(IDS[0].float()), TypeError, r"LongTensor \[n\], got torch.float32"),
    "a list for tokens": (judging([1, 2, 3]), TypeError, r"LongTensor \[n\], got list"),
    "a text": (judging("some text"), TypeError, r"LongTensor \[n\], got str"),
    "windows of one token": (judging(length=1), ValueError, "one token of context, one to predict; got 1"),
    "a length as text": (judging(length="8"), ValueError, "length must be a whole number of at least 2: .*; got '8'"),
    "longer than the context": (judging(length=1000), ValueError, "length 1000 .* context of 128"),
    "no stride": (judging(length=8, stride=0), ValueError, "from 1 to the window length 8, got 0"),
    "gaps between windows": (judging(length=8, stride=9), ValueError, "from 1 to the window length 8, got 9"),
    "the perplexity of a masked language model": (judging_a(bert), TypeError, "BertForMaskedLM is none"),
    "the perplexity of an encoder-decoder": (judging_a(t5), TypeError, "T5ForConditionalGeneration is none"),
    "the perplexity of a model of images": (judging_a(vit), TypeError, "a causal language model.*ViTModel is none"),
    "tokens of another model": (judging(IDS[0] + 100, length=8), ValueError, "vocabulary is 0 to 96"),
    # Loading and saving
    "an empty folder": (loading("empty"), ValueError, "could not load '.*empty': Unrecognized model"),
    "no model file": (loading("text.txt"), ValueError, r"no folder or .gguf file '.*text\.txt'"),
    "codes without a way to read them": (
        loading("codes"),
        ValueError,
        r"codes' holds 'model\.layers\.0\.mlp\.up_proj\.weight' as int8 \(quantized\?\), .*no quantization_config",
    ),
    "a .gguf file of garbage": (
        loading("garbage.gguf"),
        ValueError,
        r"could not read '.*garbage\.gguf'; is it damaged\?",
    ),
    "a dtype misspelt": (
        loading("model", dtype="float33"),
        ValueError,
        "'auto' or a floating-point torch dtype, got 'float33'",
    ),
    "a dtype of integers": (
        loading("model", dtype=torch.int8),
        ValueError,
        "floating-point torch dtype, got torch.int8",
    ),
    "a device misspelt": (loading("model", device="tpu"), ValueError, "torch device such as 'cuda', got 'tpu'"),
    "a revision of a folder": (loading("model", revision="v1"), ValueError, "revision='v1' is for Hub repositories"),
    "a damaged config": (loading("bad config"), ValueError, "could not load '.*bad config'"),
    "an unknown architecture": (loading("unknown"), ValueError, "could not load '.*unknown': .*`zzz`"),
    "a truncated checkpoint": (loading("truncated"), ValueError, "could not load '.*truncated': "),
    "a tensor missing": (
        loading("incomplete"),
        ValueError,
        r"lacks 1 tensors of Llama.*: 'model\.layers\.1\.mlp\.up_proj",
    ),
    "no tokenizer in the folder": (loading("mute"), ValueError, "could not load the tokenizer of '.*mute'"),
    "saving to a file": (saving("text.txt"), ValueError, r"cannot be created: '.*text\.txt' is a file"),
    "saving under a file": (saving("text.txt/new"), ValueError, r"new' cannot be created: '.*text\.txt' is a file"),
    # Streaming
    "the source as target": (streaming(target="model"), ValueError, "lies in the source .* never written to"),
    "a target inside the source": (streaming(target="model/new"), ValueError, "lies in the source"),
    "a target that is in use": (streaming(target="truncated"), ValueError, "exists already and is not an empty folder"),
    "a target under a file": (streaming(target="text.txt/new"), ValueError, "cannot be created: .* is a file"),
    "a name that is too long": (streaming(target="x" * 300), ValueError, "xxx' cannot be created: "),
    "an empty source": (streaming(source="empty"), ValueError, "holds neither model.safetensors nor .*wanda.load"),
    "a .gguf source": (
        streaming(source="garbage.gguf"),
        ValueError,
        "convert a .gguf file .* with wanda.load and wanda.save",
    ),
    "a source that is not there": (streaming(source="nowhere"), ValueError, "there is no folder '.*nowhere'"),
    "a truncated source": (streaming(source="truncated"), ValueError, r"truncated/model\.safetensors"),
    "an incomplete source": (
        streaming(source="incomplete"),
        ValueError,
        r"no tensor for 'model\.layers\.1\.mlp\.up_proj",
    ),
    "a stream without calibration": (streaming(None), TypeError, CALIBRATION),
    "all weights of a stream": (streaming(sparsity=1), ValueError, f"sparsity {FRACTION}1"),
    "a method misspelt in a stream": (streaming(method="wander"), ValueError, "or a score function; got 'wander'"),
    "a stream whose width M does not divide": (streaming(pattern="2:5"), ValueError, f"divisible by 5; {Q} has 32"),
    "a skip that matches nothing in a stream": (streaming(skip="q_prj"), ValueError, "'q_prj' matches no layer"),
    "another vocabulary in a stream": (streaming(IDS + 1000), ValueError, "vocabulary is 0 to 96"),
    "memory for less than nothing": (
        lambda here: wanda.memory_needed(here.folder / "model", -5),
        ValueError,
        "tokens must be a whole number .*; got -5",
    ),
}
if not torch.cuda.is_available():
    CASES["a device that is not there"] = (pruning(device="cuda"), ValueError, "finds no CUDA; device=None computes on")
    CASES["a stream to a device that is not there"] = (streaming(device="cuda"), ValueError, "finds no CUDA")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A good model and bad files. Nothing may change them."""
    folder = tmp_path_factory.mktemp("here")
    model, tokenizer = tiny(), word_tokenizer()
    for name in ("model", "truncated", "incomplete", "codes"):
        wanda.save(model, tokenizer, folder / name)
    wanda.save(model, None, folder / "mute")
    weights = folder / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    tensors = load_file(folder / "incomplete" / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "incomplete" / "model.safetensors", {"format": "pt"})
    tensors = load_file(folder / "codes" / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.ones(64, 32, dtype=torch.int8)
    save_file(tensors, folder / "codes" / "model.safetensors", {"format": "pt"})
    for name in ("empty", "bad config", "unknown"):
        (folder / name).mkdir()
    (folder / "bad config" / "config.json").write_text("{")
    (folder / "unknown" / "config.json").write_text('{"model_type": "zzz"}')
    (folder / "text.txt").write_text(" ".join(WORDS[1:] * 3))
    (folder / "empty.txt").write_text("")
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    (folder / "garbage.gguf").write_bytes(b"GGUF" + bytes(range(200)))
    return SimpleNamespace(folder=folder, model=model, tokenizer=tokenizer)


def state_of(here):
    """Hashes of the model's tensors and of all files."""
    tensors = {name: hash(weight.numpy().tobytes()) for name, weight in here.model.state_dict().items()}
    files = {path: path.is_file() and hashlib.sha256(path.read_bytes()).digest() for path in here.folder.rglob("*")}
    return tensors, files


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_and_changes_nothing(here, case):
    call, error, message = CASES[case]
    before = state_of(here)
    with pytest.raises(error, match=f"(?s){message}") as caught:
        call(here)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 700
    assert state_of(here) == before
