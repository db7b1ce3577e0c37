"""The command `evonas`, and `python -m evonas`."""

from evonas import interrupts


def main() -> None:
    interrupts.leave_at_once()  # before the imports, which take a second
    from evonas.cli import app

    try:
        app()
    finally:
        interrupts.ignore(*interrupts.SIGNALS)


if __name__ == "__main__":
    main()
