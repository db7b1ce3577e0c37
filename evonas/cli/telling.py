"""What commands say: errors with their exit status, and how to continue after a signal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from evonas import files, interrupts, plugins
from evonas.core import SearchFailed, UserError
from evonas.markdown import counted


def echo(text: str, *, err: bool = False) -> None:
    """Print a text without the control characters that files may have put into it."""
    typer.echo(files.escaped(text, keep="\n\t"), err=err)


def width() -> int | None:
    """Return how many columns there are to print in; None where no line need be broken."""
    told = "COLUMNS" in os.environ or sys.stdout.isatty()
    return shutil.get_terminal_size().columns if told else None


@contextmanager
def reported() -> Iterator[None]:
    """Report errors in a few lines, and exit with their status."""
    try:
        with interrupts.heard():
            yield
    except UserError as error:
        echo(f"evonas: {error}", err=True)
        raise typer.Exit(2) from None
    except SearchFailed as error:
        echo(f"evonas: the run failed: {error}", err=True)
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        echo(interrupts.words(), err=True)
        raise typer.Exit(interrupts.STATUS) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except OSError as error:
        echo(f"evonas: {files.failure(error)}", err=True)
        raise typer.Exit(3) from None
    except Exception as error:  # a bug of ours: exit with a status too, and show the traceback
        echo(traceback.format_exc(), err=True)
        echo(f"evonas: internal error: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(3) from error


@contextmanager
def interruptible(path: Path, command: str = "") -> Iterator[None]:
    """Tell how to continue after Ctrl-C, or SIGTERM as schedulers send it.

    Args:
        command: the command that continues; without it, `evonas resume` once a run has begun.
    """

    def words() -> str:
        return f"interrupted; {saved(path)} saved. To continue: {onward(path, command)}"

    with interrupts.saying(words):
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            moved = "" if path.exists() else f"evonas resume {path}{plugin_options(path)}"
            raise files.failure(error, f"continue: {onward(path, command or moved)}") from None


def plugin_options(path: Path) -> str:
    """Return the options that permit again the user's own files that a folder has on record.

    Of a folder that is gone, they are all that this command may import.
    """
    from evonas.records.folder import environment

    allowed = plugins.all_allowed()
    recorded: Collection[str] = ()
    with suppress(UserError, OSError):  # what is damaged, a resume will tell
        recorded = environment(path).get("plugins", {}) if path.exists() else allowed
    paths = [code.path for file, code in allowed.items() if file in recorded]
    return "".join(f" --plugin {shlex.quote(str(path))}" for path in paths)


def onward(path: Path, command: str) -> str:
    """Return the command that continues."""
    begun = any((path / name).exists() for name in ("training.yaml", "config.yaml"))
    resume = f"evonas resume {path}{plugin_options(path)}"
    return command or (resume if begun else "the same command")


def saved(path: Path) -> str:
    """Count what a run, or a full training, has saved so far."""

    def lines(name: str) -> int:
        file = path / name
        return files.read(file).count(b"\n") if file.exists() else 0

    if (path / "training.yaml").exists():
        return counted(max(lines("curve.csv") - 1, 0), "epoch")
    if lines("runs.csv"):
        return counted(lines("runs.csv") - 1, "run")
    parts = [counted(lines("journal"), "result")] if lines("journal") else []
    if lines("supernet/curve.csv"):
        parts += [f"{counted(lines('supernet/curve.csv') - 1, 'epoch')} of the supernet"]
    return " and ".join(parts) or counted(0, "result")
