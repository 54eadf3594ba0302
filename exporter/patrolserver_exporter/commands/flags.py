"""Flags in the manner of the Prometheus exporters, shared by the commands that serve."""

from __future__ import annotations

import argparse
import platform
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from patrolserver_exporter import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVELS = ("debug", "info", "warn", "error")
FORMATS = ("logfmt", "json")


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations: a flag that is added later must not change what one means."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def switch(self, flag: str, *, default: bool, help: str) -> None:  # noqa: A002  # argparse's own word
        """Add ``--flag`` and ``--no-flag``."""
        text = f"{help} (default: {'on' if default else 'off'})"
        self.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)

    def log_flags(self) -> None:
        """Add the two log flags."""
        self.add_argument(
            "--log.level", choices=LEVELS, default="info", help="least severe lines to log (default: info)"
        )
        self.add_argument(
            "--log.format", choices=FORMATS, default="logfmt", help="of the log on stderr (default: logfmt)"
        )

    def version_flag(self) -> None:
        """Add ``--version``."""
        text = f"patrolserver-exporter, version {__version__}, Python {platform.python_version()}"
        self.add_argument("--version", action="version", version=text)


def read(parser: Parser, arguments: Sequence[str]) -> dict[str, object]:
    """Parse; the values by flag, without the dashes. Exits with 2 on a bad flag."""
    return {name.replace("_", "-"): value for name, value in vars(parser.parse_args(list(arguments))).items()}


def route_prefix(parser: Parser, prefix: str | None, external_url: str) -> str:
    """The prefix that is given, or the path of the external URL; begins with a slash and does not end with one."""
    if external_url and urlsplit(external_url).scheme not in {"http", "https"}:
        parser.error("--web.external-url has to begin with http:// or https://")
    path = urlsplit(external_url).path if prefix is None else prefix
    stripped = path.strip("/")
    return f"/{stripped}" if stripped else ""
