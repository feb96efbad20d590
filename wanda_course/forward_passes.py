"""The course's unit of time: a forward pass of the dense model over the calibration windows, timed in the same run."""

import statistics
import time

import torch

WINDOWS = 8  # that `forward_seconds` times; all of them would cost a whole pass


def forward_seconds(model, calibration):
    """Seconds of a forward pass over the calibration windows one at a time: from the median of a few, after a warm-up."""
    taken = window_seconds(model, calibration[: WINDOWS + 1])
    return statistics.median(taken[1:] or taken) * len(calibration)


@torch.no_grad()
def window_seconds(model, windows):
    """Seconds of the forward pass, logits included, of each of some windows [number, length]: a list."""
    device, taken = model.get_input_embeddings().weight.device, []
    for window in windows:
        began = time.perf_counter()
        model(window[None].to(device), use_cache=False)  # [1, length]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return taken
