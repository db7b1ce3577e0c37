"""What is freed is kept for the next step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.helpers import ROOT

COUNT = """
import resource, sys
from evonas.training.allocation import give_back_memory, keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def used() -> int:
    return int(open("/proc/self/statm").read().split()[1])

def step() -> None:
    blocks = [b"x" * (size << 20) for size in (4, 8, 40)]  # glibc always maps 32 MiB and more

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
kept = used()
give_back_memory()
print(faults, kept - used())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_is_used_again_until_it_is_given_back() -> None:
    counts = {}
    for mode in ("as it is", "kept"):
        command = [sys.executable, "-c", COUNT, mode]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        counts[mode] = [int(text) for text in done.stdout.split()]
    pages = 52 * 2**20 // 4096
    assert counts["as it is"][0] > 2 * pages
    assert counts["kept"][0] < pages
    assert counts["kept"][1] > 0.9 * pages
