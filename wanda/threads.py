"""Several batches at once on a CPU, each on its own share of the cores.

A matrix product of one window is small: cores that share it wait for each other at its end, and at the end of each of
the many smaller operations around it. Cores with a window each do not. A window is computed as it would be alone on that
share of the cores.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from .blocks import device_of, is_hooked

MOST = 4  # batches at once: each takes memory for its activations, and large products keep several cores busy


def threads_for(block, batches):
    """How many threads should replay a block on its batches: one, unless it is on a CPU with cores for more.

    One as well where several windows were put in a batch, since whoever did so has said how much there is memory for; and
    where what a thread does not inherit, or what threads would do to each other, could change the result: under autocast
    and in inference mode, and where accelerate moves the block's weights about.

    Args: batches: list of dicts with `input_ids` [batch, length].
    """
    several_windows = any(len(batch["input_ids"]) > 1 for batch in batches)
    not_inherited = torch.is_autocast_enabled("cpu") or torch.is_inference_mode_enabled()
    if device_of(block).type != "cpu" or is_hooked(block) or several_windows or not_inherited:
        return 1
    cores, most = torch.get_num_threads(), max(1, min(MOST, len(batches)))
    return max(number for number in range(1, most + 1) if cores % number == 0)  # with others a core would be left over


def each(work, items, threads):
    """Yield work(item) for each item, in order.

    One thread takes an item when it is asked for its result. Several are given all items at the beginning, and each goes
    on with the next one as soon as it is done.
    """
    if threads == 1:
        yield from map(work, items)
    else:
        with _pool(threads) as pool:
            yield from pool.map(work, items)


@contextmanager
def _pool(threads):
    """Threads that share the cores, for the time of a `with`. Like the thread that asks for them, they may want no gradients."""
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "batches", torch.set_grad_enabled, (torch.is_grad_enabled(),))
    try:
        torch.set_num_threads(cores // threads)  # for every thread that has not computed yet, and for this one
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)
