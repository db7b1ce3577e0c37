"""Where a number comes from, besides its experiment: the processor, and the code that ran."""

from __future__ import annotations

import hashlib
import platform
import sys
import sysconfig
from functools import cache
from pathlib import Path

import genomes

__version__ = "0.1.0"

PYTHON = tuple(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib"))
PACKAGES = frozenset({"site-packages", "dist-packages"})


@cache
def processor() -> str:
    """Return the kind of processor, as the system names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def is_installed(file: Path) -> bool:
    """Return whether a file is Python's own or of a package, in whatever environment that is.

    An environment may use the packages of another one, of the system, or of the user's home.
    """
    of_python = any(file.is_relative_to(folder) for folder in PYTHON)
    return of_python or not PACKAGES.isdisjoint(file.parts)


@cache
def code(*modules: str) -> str:
    """Return a digest of the source of evonas, genomes and these modules, 16 hexadecimal digits.

    A user's module may also be given as a file, for it may not be imported yet.

    Unlike a version number it is always current: a checkout or a user's own space changes without a
    new version.
    """
    roots = [Path(__file__).parent, Path(genomes.__file__).parent]
    files = {file for root in roots for file in root.rglob("*.py")}
    for module in modules:
        path = getattr(sys.modules.get(module), "__file__", None)
        path = module if module.endswith(".py") else path
        files |= set() if path is None else {Path(path)}
    contents = sorted(hashlib.blake2b(file.read_bytes()).digest() for file in files)
    return hashlib.blake2b(b"".join(contents), digest_size=8).hexdigest()
