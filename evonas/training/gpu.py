"""A process's use of its GPU: repeatably, within its share, and given back between networks."""

from __future__ import annotations

import os

import torch
import torch.utils.deterministic

SHARE = "EVONAS_GPU_SHARE"  # the variable with a process's share of its GPU's memory, from 0 to 1


def take() -> None:
    """Let this process compute repeatably on its GPU, in no more memory than its share.

    With a share, whether memory runs out does not depend on the other processes of the GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill all new memory, to no effect on operations that write before they read.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if share := os.environ.get(SHARE):
        torch.cuda.set_per_process_memory_fraction(float(share))


def give_back() -> None:
    """Return the memory that no tensor uses to the GPU, for its other processes."""
    torch.cuda.empty_cache()
