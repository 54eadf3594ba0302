"""The command line: which command, and the exit code.

Exit codes: 0 ok; 1 failure at run time, or the gate's "fail"; 2 bad flags or configuration; 3 state file corrupt or
locked by another process; 4 the gate's "unknown".
"""

from __future__ import annotations

import difflib
import importlib
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from patrolserver_exporter.commands import output
from patrolserver_exporter.commands.flags import COMMANDS, list_of_commands
from patrolserver_exporter.structs import prepare_structs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

PROGRAM = "patrolserver-exporter"
HELP = "help"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the service is the one without a name. Returns the exit code."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    finally:
        if argv is None:
            # A late Ctrl-C must not take the place of the exit code that is decided.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    name = "serve"
    if first == HELP:
        # "help gate" is "gate --help".
        if len(arguments) == 1:
            return _show_commands()
        arguments = [*arguments[1:2], "--help"]
        first = arguments[0]
    if first and not first.startswith("-"):
        if first not in COMMANDS:
            _refuse(first)
        name = arguments.pop(0)
    try:
        # Imported by name, so that a gate need not import a server to start.
        command = importlib.import_module(f"patrolserver_exporter.commands.{name}")
        prepare_structs()
        return int(command.main(arguments))
    except KeyboardInterrupt:
        # Ctrl-C needs no message. A gate without an answer is unknown.
        return 4 if name == "gate" else 1


def _show_commands() -> int:
    output.show(f"""\
{PROGRAM} [FLAGS] runs the exporter. Other commands:

{list_of_commands()}

{PROGRAM} --help tells the flags of the exporter, {PROGRAM} COMMAND --help those of a command.
""")
    return 0


def _refuse(name: str) -> NoReturn:
    close = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"; did you mean {close[0]}?" if close else "."
    output.remark(
        f"{PROGRAM}: error: there is no command {output.quoted(name)}{hint} The commands are:\n\n{list_of_commands()}"
    )
    raise SystemExit(2)
