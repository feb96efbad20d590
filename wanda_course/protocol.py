"""The course's protocol: its calibration and evaluation windows, unless a notebook or a table says otherwise.

A model has one perplexity under it. `benchmarks/quality.py`, `make run` and the notebooks take their windows from here.
"""

import wanda
from wanda.tools.provenance import tokens_sha256

CALIBRATION = {"source": "news", "samples": 32, "length": 512, "seed": 0}  # see `wanda.calibration_set`
EVALUATION = {"source": "wikipedia", "windows": 10, "length": 1024}  # the first windows, without overlap or BOS
DATA_SHA256 = {  # of the token ids under the default model's tokenizer
    "calibration": "2a87e0440731d903ef8a21d6a4c7a94be0b054cfedf73e21b886f64bb14d54ec",
    "evaluation": "111d0cb0b8af3cdb9bce8f0058128e6875e618c348895d886b457b177140454f",
}
MODEL = (
    "SmolLM2-135M-Instruct, whose weights were quantised to 4 bits (Q4_1: at most 16 values per 32 weights) "
    "and are dequantised to float32 here"
)


def weights(model_name):
    """Describe a model's weights for records: a sentence for the default model, else its name."""
    return MODEL if model_name == "smollm2" else model_name


def show(calibration=None, tokens=None, length=None):
    """Print a notebook's calibration and evaluation data, with hashes, and whether it follows the course's protocol.

    Args:
        calibration: LongTensor [windows, length], or None where the notebook needs none.
        tokens: the evaluation tokens, LongTensor [n], or None.
        length: tokens per evaluation window.
    """
    own = True
    if calibration is not None:
        digest = tokens_sha256(calibration)
        own = digest == DATA_SHA256["calibration"]
        print(f"calibration: {calibration.shape[0]} windows of {calibration.shape[1]:,} tokens, sha256 {digest[:8]}")
    if tokens is not None:
        digest = tokens_sha256(tokens)
        own = own and digest == DATA_SHA256["evaluation"] and length == EVALUATION["length"]
        print(f"evaluation:  {tokens.numel():,} tokens in windows of {length:,}, sha256 {digest[:8]}")
    print("This is the course's protocol." if own else "Not the course's protocol: compare within this notebook only.")


def calibration(tokenizer, samples=None):
    """The calibration windows: LongTensor [samples, length]. samples: None for the protocol's number."""
    options = CALIBRATION if samples is None else CALIBRATION | {"samples": samples}
    return wanda.calibration_set(tokenizer, **options)


def evaluation(tokenizer, windows=None):
    """The evaluation tokens: LongTensor [n]. windows: None for the protocol's number."""
    count = EVALUATION["windows"] if windows is None else windows
    return wanda.eval_tokens(tokenizer, EVALUATION["source"])[: count * EVALUATION["length"]]
