"""The command line: which command, and the exit code.

Exit codes: 0 ok; 1 failure at run time, or the gate's "fail"; 2 bad flags or configuration; 3 state file corrupt or
locked by another process; 4 the gate's "unknown".
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = ("demo", "simulator", "gate", "inbox", "doctor")
"""Modules of ``commands``; the one without a name is ``serve``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the service is the one without a name. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments.pop(0) if arguments and arguments[0] in COMMANDS else "serve"
    try:
        # Imported by name, so that a gate need not import a server to start.
        command = importlib.import_module(f"patrolserver_exporter.commands.{name}")
        return int(command.main(arguments))
    except KeyboardInterrupt:
        # Ctrl-C needs no message. A gate without an answer is unknown.
        return 4 if name == "gate" else 1
