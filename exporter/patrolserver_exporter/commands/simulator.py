"""``patrolserver-exporter simulator``: the stand-in for PatrolServer's API, alone."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from patrolserver_exporter.commands import flags
from patrolserver_exporter.logs import setup_logging
from patrolserver_exporter.simulator.options import MOST_SERVERS, MOST_SOFTWARE, SimulatorOptions
from patrolserver_exporter.simulator.server import serve
from patrolserver_exporter.simulator.webhooks import Format
from patrolserver_exporter.simulator.wire import Style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DESCRIPTION = """\
Serves every call of PatrolServer's API from a made-up fleet, lets scans run, breaks and mends software, and delivers
webhooks. Key and secret are demo and demo, unless PATROLSERVER_SIMULATOR_KEY and PATROLSERVER_SIMULATOR_SECRET are set.
Control it under /-/simulator/ (see docs/simulator.md)."""


def simulator_address(text: str) -> str:
    """Where the simulator listens, as it was written."""
    try:
        SimulatorOptions(listen_address=flags.text(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _webhook_url(text: str) -> str:
    try:
        parts = urlsplit(flags.text(text))
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        # It holds the token, and is not repeated.
        raise argparse.ArgumentTypeError("needs a URL like http://127.0.0.1:10058/webhook/TOKEN")
    return text


def _count_up_to(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if (number := flags.count(text)) > most:
            raise argparse.ArgumentTypeError(f"needs a whole number from 0 to {most:,}")
        return number

    return read


def add_fleet_flags(parser: flags.Parser) -> None:
    """Which fleet the simulator has."""
    parser.add_argument(
        "--servers", metavar="N", type=_count_up_to(MOST_SERVERS), default=25, help="in the fleet (default: 25)"
    )
    parser.add_argument(
        "--software", metavar="N", type=_count_up_to(MOST_SOFTWARE), default=12, help="on each server (default: 12)"
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=flags.whole_number,
        default=1,
        help="the same seed gives the same fleet (default: 1)",
    )


def parser() -> flags.Parser:
    """All flags of the simulator."""
    found = flags.Parser("patrolserver-exporter simulator", _DESCRIPTION)
    found.add_argument(
        "--web.listen-address",
        metavar="ADDRESS",
        type=simulator_address,
        default="127.0.0.1:10059",
        help="where to serve (default: 127.0.0.1:10059)",
    )
    add_fleet_flags(found)
    found.add_argument(
        "--style",
        choices=[style.value for style in Style],
        default=Style.PLAIN.value,
        help="of the replies: plain as the vendor's clients see them; strings for numbers; bare for events without the "
        "envelope (default: plain)",
    )
    found.add_argument(
        "--webhook.url",
        metavar="URL",
        type=_webhook_url,
        action="append",
        default=[],
        help="where to deliver webhooks; may be repeated",
    )
    found.add_argument(
        "--webhook.format",
        choices=[format_.value for format_ in Format],
        default=Format.JSON.value,
        help="of the deliveries (default: json)",
    )
    found.switch("--story", default=False, help="let scans, new issues and fixes happen by themselves")
    found.log_flags()
    found.version_flag()
    return found


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal says stop."""
    flag_parser = parser()
    values: dict[str, Any] = flags.read(flag_parser, arguments)
    setup_logging(values["log.level"], values["log.format"])
    try:
        options = SimulatorOptions(
            listen_address=values["web.listen-address"],
            servers=values["servers"],
            software=values["software"],
            seed=values["seed"],
            key=os.environ.get("PATROLSERVER_SIMULATOR_KEY", "demo"),
            secret=os.environ.get("PATROLSERVER_SIMULATOR_SECRET", "demo"),
            style=Style(values["style"]),
            webhook_urls=tuple(values["webhook.url"]),
            webhook_format=Format(values["webhook.format"]),
            story=values["story"],
        )
    except ValueError as error:
        flag_parser.error(str(error))
    return serve(options) or 0
