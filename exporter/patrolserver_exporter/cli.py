"""The command line: flags, subcommands and exit codes.

Exit codes: 0 ok; 1 failure at run time, or the gate's "fail"; 2 bad flags or configuration; 3 state file corrupt or
locked by another process; 4 the gate's "unknown".
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the service is the one without a name. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    if name and name in COMMANDS:
        return COMMANDS[name](arguments[1:])
    return _serve(arguments)


def _serve(arguments: Sequence[str]) -> int:
    from patrolserver_exporter.commands import serve  # noqa: PLC0415  # A gate need not import a server to start.

    return serve.main(arguments)


def _demo(arguments: Sequence[str]) -> int:
    from patrolserver_exporter.commands import demo  # noqa: PLC0415

    return demo.main(arguments)


def _simulator(arguments: Sequence[str]) -> int:
    from patrolserver_exporter.commands import simulator  # noqa: PLC0415

    return simulator.main(arguments)


def _gate(arguments: Sequence[str]) -> int:
    from patrolserver_exporter.commands import gate  # noqa: PLC0415

    return gate.main(arguments)


def _inbox(arguments: Sequence[str]) -> int:
    from patrolserver_exporter.commands import inbox  # noqa: PLC0415

    return inbox.main(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "demo": _demo,
    "simulator": _simulator,
    "gate": _gate,
    "inbox": _inbox,
}
