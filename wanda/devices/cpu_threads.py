"""Several pieces of work at once on a CPU, each on its own share of the cores.

A matrix product of one window is small: cores that share it wait for each other at its end, and after each of the many
smaller operations around it. Cores with a window each do not. Each piece is computed as it would be alone on its share
of the cores.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from .offload import is_hooked

MOST_THREADS = 4  # batches at once: each takes memory for its activations, and large products keep several cores busy


def each(work, items, threads):
    """Yield work(item) for each item, in order.

    A single thread takes an item when the consumer requests its result. Several run ahead of the consumer, each on its
    own cores; at most `threads` + 1 items are in flight, so that a stream from a file does not fill the memory.
    """
    if threads == 1:
        yield from map(work, items)
        return
    with _pool(threads) as pool:
        ahead = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            del item  # drop the reference, so that it can be freed when its worker is done
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def threads_for(module, batches):
    """How many batches to run a module on at once: several on a CPU with several cores, else one.

    Also one if a batch holds several windows, since the user chose its size by the memory available, and if something
    that threads do not inherit would change the result: autocast, inference mode, weights that accelerate moves.

    Args:
        module: a block's module, or a whole model.
        batches: list of dicts with `input_ids` [batch, length], or another first input [batch, ...].
    """
    several_windows = any(len(batch.get("input_ids", next(iter(batch.values())))) > 1 for batch in batches)
    not_inherited = torch.is_autocast_enabled("cpu") or torch.is_inference_mode_enabled()
    device = next(module.parameters()).device
    if device.type != "cpu" or is_hooked(module) or several_windows or not_inherited:
        return 1
    return threads_on_cpu(len(batches))


def threads_on_cpu(batches=MOST_THREADS):
    """How many of these batches a CPU computes at once: only divisors of its core count, so that no core idles."""
    cores, most = torch.get_num_threads(), max(1, min(MOST_THREADS, batches))
    return max(number for number in range(1, most + 1) if cores % number == 0)


@contextmanager
def _pool(threads):
    """Threads that share the cores, inside a `with`. Gradients are on or off as in the calling thread."""
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "share", torch.set_grad_enabled, (torch.is_grad_enabled(),))
    try:
        torch.set_num_threads(max(1, cores // threads))  # for this thread, and for threads that have not computed yet
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)
