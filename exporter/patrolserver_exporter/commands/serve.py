"""``patrolserver-exporter``: the service itself."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from patrolserver_exporter import __version__
from patrolserver_exporter.app.late_database import database_answers
from patrolserver_exporter.app.once import poll_once
from patrolserver_exporter.app.service import REVISION_VARIABLE, Service, ServiceOptions
from patrolserver_exporter.app.systemd import Supervisor
from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.commands import flags, output
from patrolserver_exporter.commands.files import load_files
from patrolserver_exporter.config.hidden import hidden_values
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.logs import log_fields, log_uncaught_exceptions, setup_logging
from patrolserver_exporter.store import LeaseLost, StoreCorrupt, StoreError, StoreLocked, rebuild, why_unusable
from patrolserver_exporter.web.http.server import ListenError, parse_address
from patrolserver_exporter.web.http.web_config import warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patrolserver_exporter.config.load import Loaded
    from patrolserver_exporter.logs import Redactor
    from patrolserver_exporter.web.http.addresses import Address

log = logging.getLogger(__name__)

OK, FAILED, BAD_CONFIG, BAD_STATE = 0, 1, 2, 3
SWITCH_INTERVAL = 0.0005
"""Seconds that a thread may compute while others wait for the interpreter. A delivery waits some ten times for it while
a gate judges the fleet for seconds; Python's own 5 ms would make that a tenth of a second."""

_DESCRIPTION = """\
Takes PatrolServer's webhooks, polls its API, and shows open issues and outdated software of every server to Prometheus.

Without --config.file the environment is enough: PATROLSERVER_KEY and PATROLSERVER_SECRET, and, if wanted,
PATROLSERVER_API_URL and PATROLSERVER_WEBHOOK_TOKEN. Each but the URL may be a file's: PATROLSERVER_KEY_FILE, …"""

_EPILOG = f"""\
commands:
{flags.list_of_commands()}

  patrolserver-exporter COMMAND --help tells more.

exit codes:
  0 ok; 1 failure at run time, or the gate says fail; 2 bad flags or configuration;
  3 state corrupt or in use by another process; 4 the gate says unknown"""


def listen_address(text: str) -> str:
    """Where to listen, as it was written."""
    try:
        parse_address(text)
    except ListenError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def parser() -> flags.Parser:
    """All flags of the service."""
    found = flags.Parser("patrolserver-exporter", _DESCRIPTION, _EPILOG)
    found.add_argument("--config.file", metavar="FILE", help="configuration in YAML (see docs/configuration.md)")
    found.add_argument(
        "--config.check", action="store_true", help="check the configuration, say what is wrong with it, and exit"
    )
    found.add_argument(
        "--web.listen-address",
        metavar="ADDRESS",
        type=listen_address,
        action="append",
        help="where to serve metrics, API, pages and webhook; may be repeated (default: :10058)",
    )
    found.switch(
        "--web.systemd-socket",
        default=False,
        help="listen on the sockets of a systemd socket unit instead; those named webhook take webhooks alone",
    )
    found.add_argument(
        "--webhook.listen-address",
        metavar="ADDRESS",
        type=listen_address,
        action="append",
        help="where to serve the webhook, and nothing else; it is then served nowhere else; may be repeated",
    )
    found.add_argument(
        "--web.config.file", metavar="FILE", help="TLS, basic auth, headers and rate limit (docs/web-config.md)"
    )
    found.add_argument(
        "--web.telemetry-path", metavar="PATH", default="/metrics", help="of the metrics (default: /metrics)"
    )
    found.add_argument(
        "--web.max-requests",
        metavar="N",
        type=flags.count,
        default=40,
        help="scrapes answered at the same time; 0 is no limit (default: 40)",
    )
    found.switch("--web.disable-exporter-metrics", default=False, help="leave out process_* and python_*")
    found.add_argument("--web.external-url", metavar="URL", default="", help="under which people reach the exporter")
    found.add_argument(
        "--web.route-prefix", metavar="PREFIX", help="in front of every path (default: the path of --web.external-url)"
    )
    found.switch("--web.enable-lifecycle", default=True, help="allow POST /-/reload to those who have the right")
    found.switch(
        "--store.rebuild",
        default=False,
        help="set a damaged state file aside and rebuild the state from the API; does nothing to a sound one",
    )
    found.add_argument(
        "--once",
        action="store_true",
        help="poll every server once, print the metrics and exit: 1 if something could not be polled; needs the state "
        "for itself, so that a running exporter refuses it",
    )
    found.log_flags()
    found.version_flag()
    return found


def main(arguments: Sequence[str]) -> int:
    """Check the configuration, poll once, or serve until a signal says stop."""
    flag_parser = parser()
    values = flags.read(flag_parser, arguments)
    options = _options(flag_parser, values)
    redactor = setup_logging(values["log.level"], values["log.format"])  # type: ignore[arg-type]
    log_uncaught_exceptions()
    try:
        loaded, web_config = load_files(options.config_file, options.web_config_file, options.environ)
        redactor.register(*hidden_values(loaded.config))
    except ConfigError as error:
        # One line a mistake, for people and editors.
        output.remark(str(error))
        return BAD_CONFIG
    if values["config.check"]:
        return _checked(loaded, warnings_of(web_config, options.web_config_file), redactor)
    config_file = "none: from the environment" if options.config_file is None else str(options.config_file)
    fields = log_fields(version=__version__, config=config_file, state=loaded.config.store.url)
    log.info("Starting", extra=fields)
    rebuild_state = bool(values["store.rebuild"])
    if values["once"]:
        return _exit_code(lambda: _once(options, loaded), loaded, rebuild_state=rebuild_state)
    return serve(options, loaded, redactor, rebuild_state=rebuild_state)


def _options(flag_parser: flags.Parser, values: dict[str, Any]) -> ServiceOptions:
    config_file, web_config_file = values["config.file"], values["web.config.file"]
    external_url = flags.external_url(flag_parser, values["web.external-url"])
    if values["web.systemd-socket"] and values["web.listen-address"]:
        flag_parser.error("--web.systemd-socket takes the place of --web.listen-address; leave one of them out")
    return ServiceOptions(
        config_file=Path(config_file) if config_file else None,
        listen_addresses=tuple(values["web.listen-address"] or (":10058",)),
        webhook_addresses=tuple(values["webhook.listen-address"] or ()),
        systemd_socket=bool(values["web.systemd-socket"]),
        web_config_file=Path(web_config_file) if web_config_file else None,
        telemetry_path=flags.telemetry_path(flag_parser, values["web.telemetry-path"]),
        max_requests=values["web.max-requests"],
        exporter_metrics=not values["web.disable-exporter-metrics"],
        external_url=external_url,
        route_prefix=flags.route_prefix(flag_parser, values["web.route-prefix"], external_url),
        lifecycle=values["web.enable-lifecycle"],
        environ=dict(os.environ),
    )


def _checked(loaded: Loaded, web_warnings: Sequence[str], redactor: Redactor) -> int:
    for warning in (*loaded.warnings, *web_warnings):
        output.remark(f"warning: {redactor.redact(warning)}")
    if (why := why_unusable(loaded.config.store.url, os.environ.get("STATE_DIRECTORY", ""))) is not None:
        output.remark(redactor.redact(why))
        return BAD_CONFIG
    accounts = ", ".join(account.name for account in loaded.config.accounts)
    output.show(f"The configuration is sound. Accounts: {accounts}.\n")
    return OK


def serve(
    options: ServiceOptions,
    loaded: Loaded,
    redactor: Redactor,
    *,
    rebuild_state: bool = False,
    on_started: Callable[[tuple[Address, ...]], None] = lambda _: None,
) -> int:
    """Run the service to its end; returns the exit code."""

    def run() -> int:
        sys.setswitchinterval(SWITCH_INTERVAL)
        # The code stays. To look through it again and again would stop all threads, each time for a tenth of a second.
        gc.freeze()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(options, loaded, redactor, on_started))
        return OK

    return _exit_code(run, loaded, rebuild_state=rebuild_state)


def _once(options: ServiceOptions, loaded: Loaded) -> int:
    """Poll everything, print the metrics, tell what is missing."""
    polled = poll_once(
        loaded.config,
        SystemClock(),
        revision=options.environ.get(REVISION_VARIABLE, "unknown"),
        process_metrics=options.exporter_metrics,
    )
    output.show(polled.exposition.decode())
    for failure in polled.failures:
        log.error("This could not be polled", extra=log_fields(err=failure))
    return FAILED if polled.failures else OK


def _exit_code(run: Callable[[], int], loaded: Loaded, *, rebuild_state: bool) -> int:
    """Run it to its end; what the store or the configuration refuse is told and has its own code."""
    try:
        if rebuild_state:
            for moved in rebuild(loaded.config.store.url):
                log.warning("The damaged state was set aside", extra=log_fields(file=str(moved)))
        code = run()
    except LeaseLost:
        # The store has said it.
        code = BAD_STATE
    except (StoreCorrupt, StoreLocked) as error:
        log.error(str(error))  # noqa: TRY400  # The text says all that helps.
        return BAD_STATE
    except ConfigError as error:
        for mistake in error.errors:
            log.error(str(mistake))  # noqa: TRY400
        return BAD_CONFIG
    except (StoreError, ListenError) as error:
        log.error(str(error))  # noqa: TRY400
        return FAILED
    _leave_behind_hanging_calls(code)
    return code


async def _run(
    options: ServiceOptions, loaded: Loaded, redactor: Redactor, on_started: Callable[[tuple[Address, ...]], None]
) -> None:
    if not await database_answers(loaded.config.store.url, Supervisor(options.environ)):
        return
    service = Service(options, loaded, clock=SystemClock(), redactor=redactor, on_started=on_started)
    await service.run()


def _leave_behind_hanging_calls(code: int) -> None:
    """Python would wait at its end for pool threads that still wait for a silent API; nothing of theirs is kept."""
    hanging = [thread for thread in threading.enumerate() if thread.name.startswith(("poll-", "event-"))]
    if hanging:
        logging.shutdown()
        os._exit(code)
