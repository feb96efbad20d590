"""Freed memory goes back to the system at once, where a run is to take little of it."""

import ctypes
import sys
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt


@contextmanager
def returning_freed_memory():
    """For the time of a `with`, have the C library hand a freed tensor back to the system at once.

    glibc keeps freed blocks for later, up to 64 MB at the end of a heap and any number between others, and gets greedier
    with each large block that it sees. Afterwards it is left at what that would have ended at.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 18)  # blocks from this size on are mappings of their own
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)


def trim():
    """Have the C library hand back what is free within its heaps.

    Large blocks too are taken from there, as long as something that large is free; their pages would stay afterwards.
    """
    malloc_trim = getattr(_libc(), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _libc():
    """The C library, on Linux; None elsewhere."""
    return ctypes.CDLL(None) if sys.platform == "linux" else None
