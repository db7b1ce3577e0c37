"""Where in the user's own code an exception comes from."""

from __future__ import annotations

import traceback
from pathlib import Path

import genomes
from evonas.provenance import is_installed

OURS = (Path(__file__).parent, Path(genomes.__file__).parent)


def place_of(error: BaseException) -> str:
    """Return the innermost place in the user's code, as ` (ops.py, line 12)`; "" if there is none.

    The user's code is all that is neither evonas nor installed.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        own = not any(path.is_relative_to(folder) for folder in OURS)
        if own and not is_installed(path) and not frame.filename.startswith("<frozen"):
            shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
            return f" ({shown}, line {frame.lineno})"
    return ""
