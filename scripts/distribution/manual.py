"""Manual pages and shell completions, from the commands' own parsers."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Final

import shtab
from argparse_manpage.manpage import Manpage

from patrolserver_exporter import __version__
from patrolserver_exporter.cli import COMMANDS

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator
    from pathlib import Path

    from patrolserver_exporter.commands.flags import Parser

PROGRAM: Final = "patrolserver-exporter"
_WHAT: Final = {
    "serve": "shows PatrolServer's issues and outdated software to Prometheus",
    "demo": "simulator and exporter in one process, with live changes",
    "simulator": "stand-in for PatrolServer's API",
    "gate": "asks whether servers may be deployed to",
    "inbox": "lists, shows, replays or drops webhook deliveries",
    "doctor": "says what is wrong with an exporter, and what to do",
    "store": "copies a state from one store to another",
}
_SHELLS: Final = {"bash": PROGRAM, "zsh": f"_{PROGRAM}"}


def _parser(command: str) -> Parser:
    parser: Parser = importlib.import_module(f"patrolserver_exporter.commands.{command}").parser()
    return parser


def manual_pages(date: dt.date) -> Iterator[tuple[str, str]]:
    """Names and texts of the pages, one for the service and one for each command."""
    for command in ("serve", *COMMANDS):
        name = PROGRAM if command == "serve" else f"{PROGRAM}-{command}"
        about = {
            "date": date.isoformat(),
            "version": __version__,
            "project_name": PROGRAM,
            "manual_title": "PatrolServer exporter",
            "description": _WHAT[command],
        }
        page = Manpage(_parser(command), about)
        page.prog = name
        yield f"{name}.1", str(page)


def completions() -> Iterator[tuple[str, str, str]]:
    """Shell, name of the file, and its text."""
    for shell, name in _SHELLS.items():
        yield shell, name, shtab.complete(_combined(), shell=shell)


def _combined() -> argparse.ArgumentParser:
    """All commands under the service's flags, as shells complete them."""
    top = _parser("serve")
    commands = top.add_subparsers(parser_class=argparse.ArgumentParser)
    for command in COMMANDS:
        own = commands.add_parser(command, help=_WHAT[command], parents=[_parser(command)], add_help=False)
        _complete_files(own)
    _complete_files(top)
    return top


def _complete_files(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:  # noqa: SLF001  # argparse has no public way to its actions
        if action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own way to say it


def write(folder: Path, date: dt.date) -> None:
    """Write ``man1`` and ``completions`` below the folder."""
    for kind in ("man1", "completions"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, text in manual_pages(date):
        (folder / "man1" / name).write_text(text, "utf-8")
    for shell, name, text in completions():
        (folder / "completions" / shell).mkdir(exist_ok=True)
        (folder / "completions" / shell / name).write_text(text, "utf-8")
