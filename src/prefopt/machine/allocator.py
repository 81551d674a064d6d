"""Memory of a CPU run stays with the process between steps.

A step allocates and frees the same few hundred megabytes again and again. glibc gives them back to the system when
enough is free at the end of its heap, and the pages of the next step are then faulted in and cleared anew. Within
`kept_memory` they wait in the process. Blocks of 32 MiB and more have mappings of their own and are given back as ever:
kept, they would leave holes that the next ones do not fit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
# bytes from which a block has a mapping of its own: the most that glibc takes, to which it goes by itself
LARGEST = 32 * 2**20
NEVER = 2**31 - 1


@contextlib.contextmanager
def kept_memory(device: str) -> Iterator[None]:
    """Within it, what a CPU run frees is kept for what it allocates next; afterwards it is given back.

    Left alone: other devices, other C libraries than glibc, and processes whose user has set the
    allocator through the environment (`MALLOC_...`, `GLIBC_TUNABLES`). Another allocator that is preloaded takes
    no notice.

    Example:
        >>> with kept_memory("cpu"):
        ...     _ = bytearray(2**26)
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if device != "cpu" or chosen or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        libc.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST)  # what glibc takes by itself
        libc.malloc_trim(0)
