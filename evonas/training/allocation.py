"""The memory that the C library keeps for the next step instead of giving it back each time."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

# Of mallopt(3)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
LARGEST = 2**31 - 1
PAD = 64 * 2**20  # bytes


def keep_freed_memory() -> None:
    """Have this process keep the memory of freed tensors for new ones, where it runs on glibc.

    By default glibc gives large blocks back to the kernel, which then has to fill those of each
    step with zeros anew: a tenth of the time of a training on a CPU.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, LARGEST)
        mallopt(M_TOP_PAD, PAD)


def give_back_memory() -> None:
    """Give freed memory back to the kernel, as between two trainings."""
    if (malloc_trim := _of_glibc("malloc_trim")) is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    """Return a function of glibc; None on other systems and C libraries."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
