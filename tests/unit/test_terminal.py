"""What the commands print suits the terminal: narrow ones, and those without colours."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from evonas import catalogue, cli

NARROW = 40
COMMANDS = list(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(NARROW))


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, list(arguments), terminal_width=cli.telling.width())
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("narrow")
def test_help_and_lists_have_no_line_that_is_wider_than_a_narrow_terminal() -> None:
    assert cli._settings()["terminal_width"] == NARROW
    texts = [printed("--help"), printed("list")]
    texts += [printed(name, "--help") for name in COMMANDS]
    texts += [printed("list", kind) for kind in catalogue.KINDS]
    lines = [line for text in texts for line in text.splitlines() if "://" not in line]
    assert [line for line in lines if len(line) > NARROW] == []


def test_without_a_terminal_no_line_of_a_list_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(printed("list").splitlines()) == len(catalogue.KINDS)
    assert "terminal_width" not in cli._settings()


def test_the_help_of_every_command_has_an_example() -> None:
    for name in COMMANDS:
        assert f"Example: evonas {name} " in " ".join(printed(name, "--help").split()), name


def test_a_shell_completes_commands_and_names() -> None:
    environment = {
        "_EVONAS_COMPLETE": "complete_bash",
        "COMP_WORDS": "evonas sh",
        "COMP_CWORD": "1",
    }
    completed = CliRunner().invoke(cli.app, [], prog_name="evonas", env=environment)
    assert completed.output.split() == ["show"]
