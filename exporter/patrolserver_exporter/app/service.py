"""The service: store, accounts and listeners, from start to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from patrolserver_exporter import __version__
from patrolserver_exporter.app.gate_sweep import GateSweep
from patrolserver_exporter.app.masking import Masking
from patrolserver_exporter.app.reload import ConfigInForce
from patrolserver_exporter.app.shown import show_service
from patrolserver_exporter.app.systemd import WEBHOOK, Supervisor, inherited_sockets
from patrolserver_exporter.app.troubles import Troubles
from patrolserver_exporter.app.watchdog import Watchdog
from patrolserver_exporter.clock import SteadyClock
from patrolserver_exporter.inbox.intake import Intake
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.live.publisher import Publisher
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import LeaseLost, Store, database_time
from patrolserver_exporter.store.database_time import DatabaseTime
from patrolserver_exporter.store.engines import database_file
from patrolserver_exporter.sync.accounts import Accounts
from patrolserver_exporter.sync.ticker import Dispatcher
from patrolserver_exporter.web import operator_token
from patrolserver_exporter.web.access import BearerTokens, Guard, open_reading_warning, useless_closing_warning
from patrolserver_exporter.web.access_log import AccessLog
from patrolserver_exporter.web.api import api_routes
from patrolserver_exporter.web.config_in_force import config_route
from patrolserver_exporter.web.context import WebContext
from patrolserver_exporter.web.http.protocol import ConnectionLimits, WebEvent
from patrolserver_exporter.web.http.requests import main_app, webhook_app
from patrolserver_exporter.web.http.server import Listener, WebServer, bound_address
from patrolserver_exporter.web.http.web_config import WebConfigFile, warnings_of
from patrolserver_exporter.web.lifecycle import Lifecycle
from patrolserver_exporter.web.metrics import MetricsApp
from patrolserver_exporter.web.pages import Pages
from patrolserver_exporter.web.rooms import Rooms
from patrolserver_exporter.web.webhook import StrayDeliveries, WebhookApp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from starlette.types import ASGIApp

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.load import Loaded
    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.logs import Redactor
    from patrolserver_exporter.web.http.addresses import Address

log = logging.getLogger(__name__)

REVISION_VARIABLE = "PATROLSERVER_EXPORTER_REVISION"
"""The commit that an image was built from; the image's build sets it."""
_BEAT = 1.0
_GRACE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """What the command line says of the service."""

    config_file: Path | None = None
    listen_addresses: tuple[str, ...] = (":10058",)
    webhook_addresses: tuple[str, ...] = ()
    systemd_socket: bool = False
    """Listen on the sockets of systemd instead of ``listen_addresses``."""
    web_config_file: Path | None = None
    telemetry_path: str = "/metrics"
    max_requests: int = 40
    exporter_metrics: bool = True
    external_url: str = ""
    route_prefix: str = ""
    lifecycle: bool = True
    hangs_after: float = 30.0
    """Seconds without progress after which a part counts as hanging, so that the watchdog is no longer fed."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)


Places = list[tuple[str, socket.socket | None]]
"""Addresses to listen on, with the socket where there is one already."""


def _places(options: ServiceOptions) -> tuple[Places, Places]:
    """Where to serve everything, and where webhooks alone; raises `ListenError`."""
    main: Places = [] if options.systemd_socket else [(address, None) for address in options.listen_addresses]
    webhooks: Places = [(address, None) for address in options.webhook_addresses]
    for name, sock in inherited_sockets(options.environ) if options.systemd_socket else ():
        (webhooks if name == WEBHOOK else main).append((str(bound_address(sock)), sock))
    return main, webhooks


class Service:
    """One exporter. Build it (opens the store, may raise `StoreError`), then `run` it in an event loop.

    ``on_started`` hears the addresses of the listeners, main ones first.
    """

    def __init__(
        self,
        options: ServiceOptions,
        loaded: Loaded,
        *,
        clock: Clock,
        redactor: Redactor,
        on_started: Callable[[tuple[Address, ...]], None] = lambda _: None,
    ) -> None:
        self._options = options
        is_shared = database_file(loaded.config.store.url) is None
        time = DatabaseTime(clock) if is_shared else None
        clock = self._clock = SteadyClock(clock) if time is None else time.steady()
        self._redactor = redactor
        self._on_started = on_started
        self._main, self._webhooks = _places(options)
        self._web_config = WebConfigFile(options.web_config_file) if options.web_config_file else None
        revision = options.environ.get(REVISION_VARIABLE, "unknown")
        self._telemetry = Telemetry(version=__version__, revision=revision, process_metrics=options.exporter_metrics)
        self._publisher = Publisher(self._telemetry, clock, loaded.config.metrics)
        self._store = Store(
            loaded.config.store.url,
            self._publisher.publish,
            name=loaded.config.store.replica_name or "",
            time=time,
            shared=True,
        )
        self._intake = Intake(self._store, self._telemetry, dated_by_database=is_shared)
        self._accounts = Accounts(
            self._store,
            self._publisher,
            self._telemetry,
            clock,
            redactor.known,
            on_deliveries=self._intake.heard,
        )
        self._dispatcher = Dispatcher(self._accounts.tick, lambda: self._telemetry.error("poller"))
        self._database_time = database_time.read if is_shared else None
        self._webhook = WebhookApp(self._intake, self._telemetry, clock)
        self._operator_token = operator_token.new_token()
        redactor.register(self._operator_token.reveal())
        self._tokens = BearerTokens(operator=self._operator_token)
        self._renderers = ThreadPoolExecutor(2, thread_name_prefix="scrape")
        self._masking = Masking(redactor, loaded.config)
        self._config = ConfigInForce(
            loaded,
            options.config_file,
            options.environ,
            accounts=self._accounts,
            masking=self._masking,
            telemetry=self._telemetry,
            clock=clock,
            on_change=self._configure,
        )
        self._troubles = Troubles(self.context())
        self._gate_sweep = GateSweep(
            self._store, self._accounts, lambda: self._config.config, clock=clock, telemetry=self._telemetry
        )
        show_service(
            self._telemetry,
            clock,
            store=self._store,
            accounts=self._accounts,
            intake=self._intake,
            sweep=self._gate_sweep,
            config=lambda: self._config.config,
        )
        self._server = WebServer(
            self._listeners(), self._web_config, limits=ConnectionLimits(observe=self._observe_web)
        )
        self._stop = asyncio.Event()
        self._supervisor = Supervisor(options.environ)
        self._watchdog = Watchdog(self._store, self._accounts, options.hangs_after)

    def _listeners(self) -> list[Listener]:
        options = self._options
        context = self.context()
        pages = Pages(context)
        routes = [*self._lifecycle().routes(), config_route(context), *api_routes(context), *pages.routes()]
        metrics = MetricsApp(self._publisher.render, self._renderers, self._tokens, max_requests=options.max_requests)
        app = main_app(
            routes,
            metrics=metrics,
            webhook=None if self._webhooks else self._webhook,
            telemetry_path=options.telemetry_path,
            prefix=options.route_prefix,
            readers=Rooms,
            not_found=pages.not_found,
        )
        hook = webhook_app(self._webhook, options.route_prefix)
        return [
            *(Listener(address, self._guarded(app, only_webhook=False), sock) for address, sock in self._main),
            *(Listener(address, self._guarded(hook, only_webhook=True), sock) for address, sock in self._webhooks),
        ]

    def _observe_web(self, event: WebEvent) -> None:
        if event is WebEvent.INTERNAL_ERROR:
            self._telemetry.error("web")

    def _guarded(self, app: ASGIApp, *, only_webhook: bool) -> ASGIApp:
        options = self._options
        guard = Guard(
            app, self._web_config, self._tokens, route_prefix=options.route_prefix, external_url=options.external_url
        )
        stray = StrayDeliveries(
            guard,
            self._webhook.note_stray,
            route_prefix=options.route_prefix,
            webhook_here=only_webhook or not self._webhooks,
            only_webhook=only_webhook,
        )
        return AccessLog(stray, route_prefix=options.route_prefix, telemetry_path=options.telemetry_path)

    def _lifecycle(self) -> Lifecycle:
        return Lifecycle(
            is_ready=lambda: self._accounts.ready,
            follows=lambda: self._accounts.follows,
            can_take_in=self._troubles.can_take_in,
            troubles=self._troubles.for_anybody,
            reload=self._config.reload,
            tokens=self._tokens,
            reload_enabled=self._options.lifecycle,
        )

    async def _tell_troubles(self) -> tuple[str, ...]:
        return await self._troubles.for_readers()

    def context(self) -> WebContext:
        """What the routes may use."""
        return WebContext(
            store=self._store,
            accounts=self._accounts,
            tokens=self._tokens,
            clock=self._clock,
            database_time=self._database_time,
            config=lambda: self._config.config,
            reload_failure=lambda: self._config.failure,
            troubles=self._tell_troubles,
            differing=lambda: self._accounts.differing,
            exporters=lambda: self._accounts.exporters,
            last_refusal=lambda: self._webhook.last_refusal,
            last_delivery_at=self._intake.last_delivery_at,
            redactor=self._redactor,
            on_feed=self._publisher.on_feed,
            on_inbox=self._publisher.on_inbox,
            external_url=self._options.external_url.rstrip("/"),
            route_prefix=self._options.route_prefix.rstrip("/"),
            telemetry_path=self._options.telemetry_path,
            webhook_here=not self._webhooks,
        )

    def _configure(self, config: Config) -> None:
        self._tokens.replace(config.api.tokens, guards_metrics=config.web.metrics_need_token)
        self._intake.set_limit(config.webhook.inbox_limit)
        self._webhook.configure(config)

    async def run(self) -> None:
        """Serve until `stop` is called or a signal says so; everything acknowledged is on disk at the end."""
        try:
            await self._start()
            await self._beat()
        finally:
            await self._end()

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        # First, so that a port that is taken is all that is told of.
        await self._server.bind()
        await asyncio.to_thread(self._write_operator_token)
        await asyncio.to_thread(self._accounts.start, self._config.config)
        # Now that a shared database is followed: what was seen at its opening may be too old by now.
        await asyncio.to_thread(self._intake.recall)
        await self._server.start()
        self._dispatcher.start()
        self._gate_sweep.start()
        # Not before everything runs: nothing ticks yet during a long start.
        self._store.watch(self._watchdog.nothing_hangs)
        self._warn_of_access()
        self._on_started(self._server.addresses)
        self._supervisor.ready()

    def _write_operator_token(self) -> None:
        """Before anything is answered, so that whoever sees the service run finds the file."""
        options = self._options
        main = self._server.addresses[: len(self._main)]
        url = operator_token.local_url(main, self._server.scheme, options.route_prefix)
        folder = operator_token.folder_for(database_file(self._config.config.store.url), options.environ)
        try:
            operator_token.write(folder, url, self._operator_token)
        except OSError as error:
            log.warning(
                "The token for command lines on this machine cannot be written; they need one of api.tokens",
                extra=log_fields(file=str(folder / operator_token.FILE_NAME), err=error.strerror or str(error)),
            )

    def _warn_of_access(self) -> None:
        web_config = None if self._web_config is None else self._web_config.current()
        has_users = web_config is not None and bool(web_config.basic_auth_users)
        for warning in (
            open_reading_warning([address for address, _ in self._main], self._tokens, has_users=has_users),
            useless_closing_warning(self._tokens, has_users=has_users),
            *(() if web_config is None else warnings_of(web_config, self._options.web_config_file)),
        ):
            if warning:
                log.warning(warning)

    async def _beat(self) -> None:
        """Once a second: keep the dispatcher aligned, and feed the watchdog while everything makes progress.

        Raises `LeaseLost` when another process took the store over.
        """
        while not self._stop.is_set():
            if self._store.lost is not None:
                raise LeaseLost(self._store.lost)
            if self._accounts.refusal is not None:
                raise self._accounts.refusal
            self._dispatcher.realign()
            self._masking.follow(self._config.config)
            if self._watchdog.sees_progress():
                self._supervisor.alive()
            try:
                await asyncio.wait_for(self._stop.wait(), _BEAT)
            except TimeoutError:
                continue

    def stop(self) -> None:
        """End `run`; to be called in its event loop."""
        if not self._stop.is_set():
            log.info("Stopping")
        self._stop.set()

    async def _end(self) -> None:
        self._supervisor.stopping()
        # First, so that other exporters poll the accounts while this one still answers.
        await asyncio.to_thread(self._accounts.leave)
        await self._server.stop(_GRACE)
        await asyncio.to_thread(self._end_threads)

    def _end_threads(self) -> None:
        self._dispatcher.stop()
        self._gate_sweep.stop()
        self._accounts.stop(_GRACE)
        self._renderers.shutdown(wait=False, cancel_futures=True)
        self._store.close()
        if self._stop.is_set():
            log.info("Stopped")

    def _reload_soon(self) -> None:
        task = asyncio.ensure_future(self._config.reload())
        self._reload_task = task
