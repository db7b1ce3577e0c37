"""The commands, also as `python -m evonas.cli`."""

import sys

from evonas.cli import app

if __name__ == "__main__":
    sys.exit(app())
