"""The perplexity of a language model."""

import math
from numbers import Integral

import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..blocks.replay import evaluating
from ..blocks.stacks import has_encoder, reads_tokens
from ..devices.cpu_threads import each, threads_for


def perplexity(model, tokens, length=1024, stride=None, *, progress=False):
    """exp of the mean negative log-likelihood per predicted token, in nats.

    The text is cut into windows of `length` tokens; the last one holds the remainder, so the tail counts. With
    `stride=None` windows do not overlap, and the first token of each is context only (the convention of GPTQ,
    SparseGPT and Wanda, except that they drop the tail). With a smaller stride, windows overlap and each scores only
    tokens that no earlier window scored. No BOS token is added: `tokens` is used unchanged.

    Args:
        model: a causal language model. On a CPU up to four windows are computed at once, each on a share of the cores.
        tokens: LongTensor [n] or [1, n], of at least 2 tokens.
        length: tokens per window; at most the model's context.
        stride: tokens from one window's start to the next one's, at most `length`; None means `length`.
        progress: whether to show a bar over the windows.

    Returns: float.

    Raises: ValueError, TypeError: no causal language model, or invalid tokens, length or stride.
    """
    return over_windows(window_losses(model, tokens, length, stride, progress=progress))


def window_losses(model, tokens, length=1024, stride=None, *, progress=False):
    """The summed loss of each window, in nats, and the number of tokens that it scores: list of (float, int).

    The arguments are those of `perplexity`.
    """
    tokens = _checked(model, tokens, length, stride)
    stride = stride or length
    device = model.get_input_embeddings().weight.device
    windows, scored = [], 1  # tokens before `scored` are context only, or already scored
    for start in range(0, max(len(tokens) - length, 0) + stride, stride):
        window = tokens[start : start + length]
        first = max(scored - start, 1)  # within the window: the first token to predict
        if first < len(window):
            windows.append((window, first))
        scored = start + len(window)

    def loss(window_and_first):
        window, first = window_and_first
        window = window.to(device)
        logits = model(input_ids=window[None], use_cache=False).logits[0]  # [window, vocabulary]
        return _loss(logits[first - 1 : -1], window[first:].to(logits.device))

    threads = threads_for(model, [{"input_ids": window[None]} for window, _ in windows])
    with evaluating(model), torch.no_grad():
        results = each(loss, windows, threads)
        losses = list(tqdm(results, "perplexity", len(windows), unit="window", disable=not progress))
    return [(loss, len(window) - first) for loss, (window, first) in zip(losses, windows, strict=True)]


def over_windows(losses):
    """The perplexity over all windows, given their losses as `window_losses` returns them."""
    mean = math.fsum(loss for loss, _ in losses) / sum(count for _, count in losses)
    return math.inf if mean >= 700 else math.exp(mean)  # NaN stays NaN


def _loss(logits, targets):
    """Summed negative log-likelihood, float. 128 tokens at a time: a whole window of logits would not fit the cache."""
    slices = zip(logits.split(128), targets.split(128), strict=True)
    parts = [cross_entropy(part.float(), target, reduction="sum") for part, target in slices]
    return math.fsum(torch.stack(parts).tolist())


def _checked(model, tokens, length, stride):
    if not reads_tokens(model) or has_encoder(model) or not model.can_generate():
        raise TypeError(
            f"perplexity needs a causal language model, which predicts the next token; {type(model).__name__} is none"
        )
    if not isinstance(tokens, torch.Tensor) or tokens.is_floating_point():
        raise TypeError(f"tokens must be a LongTensor [n], got {getattr(tokens, 'dtype', type(tokens).__name__)}")
    if tokens.ndim == 2 and len(tokens) == 1:
        tokens = tokens[0]
    if tokens.ndim != 1 or len(tokens) < 2:
        raise ValueError(f"tokens must be one stream [n] of at least 2 tokens, got shape {tuple(tokens.shape)}")
    if not isinstance(length, Integral) or length < 2:
        raise ValueError(
            f"length must be a whole number of at least 2: one token of context, one to predict; got {length!r}"
        )
    if stride is not None and (not isinstance(stride, Integral) or not 1 <= stride <= length):
        raise ValueError(f"stride must be a whole number from 1 to the window length {length}, got {stride!r}")
    vocabulary = model.get_input_embeddings().num_embeddings
    if int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary:
        raise ValueError(
            f"tokens holds ids from {int(tokens.min())} to {int(tokens.max())}, but the vocabulary is 0 to {vocabulary - 1}"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    if context and length > context:
        raise ValueError(f"length {length} is longer than the model's context of {context}")
    return tokens
