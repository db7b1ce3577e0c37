"""What is the user's own code, and what is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evonas.provenance import is_installed


@pytest.mark.parametrize(
    ("file", "installed"),
    [
        (np.__file__, True),
        (pytest.__file__, True),
        (np.linalg.__file__, True),
        ("/usr/lib/python3/dist-packages/torch/_tensor.py", True),
        ("/home/me/.local/lib/python3.12/site-packages/torch/_tensor.py", True),
        ("/home/me/project/layers.py", False),
        ("<ipython-input-1>", False),
    ],
)
def test_packages_are_installed_in_whatever_environment_they_are(
    file: str, installed: bool
) -> None:
    assert is_installed(Path(file)) == installed
