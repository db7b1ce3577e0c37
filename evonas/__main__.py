"""The command `evonas`, and `python -m evonas`."""

import logging
import os

from evonas import interrupts

QUIET = {
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",  # joblib's process that cleans up
}


def main() -> None:
    """Run the command. Its screen is for what it says itself: warnings go to the run's log."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.captureWarnings(True)
    from evonas.cli import app

    try:
        app()
    finally:
        interrupts.ignore(*interrupts.SIGNALS)


if __name__ == "__main__":
    main()
