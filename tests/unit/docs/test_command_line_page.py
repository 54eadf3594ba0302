from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import pytest

from patrolserver_exporter.cli import COMMANDS, main

PAGE = Path(__file__).parents[3] / "docs" / "command-line.md"
HELP = re.compile(r"(<!-- help: (\w+) -->\n)(?:\n```text\n.*?\n```\n)?", re.DOTALL)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def with_help(page: str) -> str:
    def text(match: re.Match[str]) -> str:
        module = importlib.import_module(f"patrolserver_exporter.commands.{match.group(2)}")
        return f"{match.group(1)}\n```text\n{module.parser().format_help().strip()}\n```\n"

    return HELP.sub(text, page)


def test_every_command_is_documented_with_its_help() -> None:
    """The page has each command's ``--help`` as it is; ``REGENERATE=1`` writes them."""
    if os.environ.get("REGENERATE"):
        PAGE.write_text(with_help(PAGE.read_text()))
    page = PAGE.read_text()
    assert page == with_help(page)
    assert [match[1] for match in HELP.findall(page)] == ["serve", *COMMANDS]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_exits_with_0(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` works for each command and says what it does."""
    with pytest.raises(SystemExit) as ended:
        main([*([command] if command else []), "--help"])
    assert ended.value.code == 0
    assert f"usage: patrolserver-exporter {command}".strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [["--no-such-flag"], ["nonsense"], ["demo", "--servers=many"], ["--web.listen-address=x"]], ids=" ".join
)
def test_bad_flags_exit_with_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is no flag, no command or no value is told on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints name and version."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.match(r"patrolserver-exporter, version \d+\.\d+\.\d+", capsys.readouterr().out)
