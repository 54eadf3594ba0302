"""Flags in the manner of the Prometheus exporters, shared by the commands that serve."""

from __future__ import annotations

import argparse
import difflib
import math
import platform
import re
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from patrolserver_exporter import __version__
from patrolserver_exporter.commands import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import SupportsWrite

COMMANDS = {
    "demo": "simulator and exporter in one process, with live changes; no account needed",
    "simulator": "a stand-in for PatrolServer's API, for tests and trials",
    "gate": "ask the running exporter whether servers may be deployed to",
    "inbox": "list, show, replay or drop webhook deliveries of the running exporter",
    "doctor": "look at everything that the exporter needs, and say what is wrong",
    "store": "copy a state from one store to another, as from SQLite to PostgreSQL",
}
"""Each is a module of this package; the one without a name is ``serve``."""
LEVELS = ("debug", "info", "warn", "error")
FORMATS = ("logfmt", "json")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
_EXPLICIT = re.compile(r"ignored explicit argument .*", re.DOTALL)
"""What argparse says of a switch that is given a value."""
_TAKEN = ("", "-", "api", "config", "servers", "webhook")
"""First parts of the paths of everything but the metrics."""


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
        self.has_actions = False

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Show the help, as far as somebody reads it (``--help | head``)."""
        if file is None:
            output.show(self.format_help())
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """End with 2 on a flag that is wrong. The usage of all flags would bury what is wrong with one."""
        self.refuse(f"{_EXPLICIT.sub('takes no value', message)}\nSee {self.prog} --help.")

    def refuse(self, message: str) -> NoReturn:
        """End with 2 on what a flag leads to, such as a file that is wrong."""
        output.remark(f"{self.prog}: error: {message}")
        raise SystemExit(2)

    def meant_by(self, unknown: Sequence[str]) -> str:
        """What to say of flags that are like one of ours; nothing where none is."""
        if command := next((one for one in unknown if one in COMMANDS), None):
            return f"; a command comes first, and its flags behind it: patrolserver-exporter {command} …"
        # With one dash, as Go's programs take them, too.
        written = [f"--{one.lstrip('-').partition('=')[0]}" for one in unknown if re.match("--|-..", one)]
        close = [difflib.get_close_matches(flag[:80], self._option_string_actions, 1) for flag in written]
        meant = dict.fromkeys(flag for flags in close for flag in flags)
        return f"; did you mean {' and '.join(meant)}?" if meant else ""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Refuse a word that is none of the choices, and name the one that is most like it."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        close = difflib.get_close_matches(str(value)[:80].lower(), known, 1)
        hint = f"did you mean {close[0]}? There are" if close else "there are"
        raise argparse.ArgumentError(action, f"there is no {output.quoted(str(value))}; {hint}: {', '.join(known)}")

    def actions(self, *names: str) -> None:
        """Add the word that says what to do; where it is missing, argparse names what it may be."""
        self.has_actions = True
        self.add_argument("action", metavar=f"{{{','.join(names)}}}", choices=names, help="what to do")

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

    def version_flag(self, distribution: str = "patrolserver-exporter") -> None:
        """Add ``--version``, of what is installed."""
        text = f"{distribution}, version {__version__}, Python {platform.python_version()}"
        self.add_argument("--version", action="version", version=text)


def list_of_commands() -> str:
    """Return the commands, each on a line with what it does."""
    return "\n".join(f"  {name:<11} {what}" for name, what in COMMANDS.items())


def read(parser: Parser, arguments: Sequence[str]) -> dict[str, object]:
    """Parse; the values by flag, without the dashes. Exits with 2 on a bad flag."""
    if parser.has_actions and list(arguments) == ["help"]:
        arguments = ["--help"]
    # Flags may stand anywhere, also between two servers or ids; behind a "--" there are none.
    parse = parser.parse_known_args if "--" in arguments else parser.parse_known_intermixed_args
    values, unknown = parse(list(arguments))
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{parser.meant_by(unknown)}")
    return {name.replace("_", "-"): value for name, value in vars(values).items()}


def external_url(parser: Parser, url: str) -> str:
    """The URL, which may be empty; ends the program with 2 when it leads nowhere."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, sound = urlsplit(""), False
    if url and (not sound or "@" in parts.netloc or parts.query or parts.fragment or not _PATH.fullmatch(parts.path)):
        parser.error("--web.external-url has to be like https://exporter.example.org or https://example.org/exporter")
    return url


def route_prefix(parser: Parser, prefix: str | None, external_url: str) -> str:
    """The prefix that is given, or the path of the external URL; begins with a slash and does not end with one."""
    path = urlsplit(external_url).path if prefix is None else prefix
    stripped = path.strip("/")
    if not _PATH.fullmatch(f"/{stripped}"):
        parser.error("--web.route-prefix has to be a path like /exporter: letters, digits and - . _ ~ between slashes")
    return f"/{stripped}" if stripped else ""


def telemetry_path(parser: Parser, path: str) -> str:
    """The path; ends the program with 2 when it is none, or when something else is there."""
    if not path.startswith("/") or not _PATH.fullmatch(path):
        parser.error("--web.telemetry-path has to be a path like /metrics: a slash, letters, digits and - . _ ~")
    first = path.split("/")[1]
    if first in _TAKEN:
        parser.error(f"--web.telemetry-path may not be / or below {', '.join(f'/{name}' for name in _TAKEN if name)}")
    return path


def count(text: str) -> int:
    """A whole number, 0 or more."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError("needs a whole number, 0 or more")
    return int(text)


def whole_number(text: str) -> int:
    """A whole number, which may be below 0."""
    sign = -1 if text.startswith("-") else 1
    return sign * count(text.removeprefix("-"))


def above_zero(text: str) -> float:
    """A number, more than 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("needs a number, more than 0")
    return number


def text(written: str) -> str:
    """Text that travels to the exporter, so that it has to be Unicode, as not every argument is."""
    try:
        written.encode("utf-8")
    except UnicodeError:
        raise argparse.ArgumentTypeError("needs text in UTF-8") from None
    return written
