"""The configuration in force, and how another one takes its place while the service runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from patrolserver_exporter.app.masking import Masking
    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.load import Loaded
    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.sync.accounts import Accounts

log = logging.getLogger(__name__)


class ConfigInForce:
    """Reloads the configuration on request, one reload at a time. ``on_change`` gets what is not the accounts'."""

    def __init__(  # noqa: PLR0913  # Who takes part in a reload, by keyword.
        self,
        loaded: Loaded,
        file: Path | None,
        environ: Mapping[str, str],
        *,
        accounts: Accounts,
        masking: Masking,
        telemetry: Telemetry,
        clock: Clock,
        on_change: Callable[[Config], None],
    ) -> None:
        self._config = loaded.config
        self._file = file
        self._environ = environ
        self._accounts = accounts
        self._masking = masking
        self._telemetry = telemetry
        self._clock = clock
        self._on_change = on_change
        self._reloading = asyncio.Lock()
        self._failure: str | None = None
        self._adopt(loaded)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    @property
    def failure(self) -> str | None:
        """Why the last reload failed; ``None`` when it did not."""
        return self._failure

    def _adopt(self, loaded: Loaded) -> None:
        self._config = loaded.config
        self._on_change(loaded.config)
        for warning in loaded.warnings:
            log.warning(warning)
        self._telemetry.config_loaded(self._clock.now())

    async def reload(self) -> str | None:
        """Read the configuration again and use it. Returns what is wrong with it; then nothing has changed."""
        async with self._reloading:
            try:
                await asyncio.to_thread(self._reload)
            except (ConfigError, StoreError) as error:
                self._telemetry.config_failed()
                log.error(  # noqa: TRY400  # The text names file, line and key; a traceback would bury it.
                    "The configuration was not reloaded; the old one stays in force", extra=log_fields(err=str(error))
                )
                self._failure = str(error)
            else:
                self._failure = None
            return self._failure

    def _reload(self) -> None:
        loaded = load_config(self._file, self._environ, clock=self._clock)
        self._masking.follow(loaded.config)
        if loaded.config.store.url != self._config.store.url:
            raise StoreError("store.url changed, which needs a restart; nothing was reloaded.")
        self._accounts.reload(loaded.config, self._config)
        self._adopt(loaded)
        log.info("The configuration was reloaded")
