"""The configuration in force, and how another one takes its place while the service runs."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.config.told import NEEDS_RESTART, changes, with_what_needs_a_restart
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What became of a reload."""

    failure: str | None = None
    """What is wrong with the configuration, a line for each mistake; ``None`` when it is in force."""
    changed: tuple[str, ...] = ()
    """The keys that have other values now."""
    needs_restart: tuple[str, ...] = ()
    """Those that will have them after a restart."""


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

    async def reload(self) -> Reloaded:
        """Read the configuration again and use it. Where something is wrong with it, nothing has changed."""
        async with self._reloading:
            try:
                reloaded = await asyncio.to_thread(self._reload)
            except (ConfigError, StoreError) as error:
                self._telemetry.config_failed()
                mistakes = (
                    [str(mistake) for mistake in error.errors] if isinstance(error, ConfigError) else [str(error)]
                )
                for mistake in mistakes:
                    log.error(  # noqa: TRY400  # The text names file, line and key; a traceback would bury it.
                        "The configuration was not reloaded; the old one stays in force", extra=log_fields(err=mistake)
                    )
                reloaded = Reloaded(failure="\n".join(mistakes))
            self._failure = reloaded.failure
            return reloaded

    def _reload(self) -> Reloaded:
        loaded = load_config(self._file, self._environ, clock=self._clock)
        self._masking.follow(loaded.config)
        wanted = changes(self._config, loaded.config)
        config = with_what_needs_a_restart(loaded.config, self._config)
        reloaded = Reloaded(
            changed=tuple(key for key in wanted if key not in NEEDS_RESTART),
            needs_restart=tuple(key for key in wanted if key in NEEDS_RESTART),
        )
        self._accounts.reload(config, self._config)
        self._adopt(replace(loaded, config=config))
        log.info("The configuration was reloaded", extra=log_fields(changed=_listed(reloaded.changed) or "nothing"))
        if reloaded.needs_restart:
            log.warning(
                "Some changes take effect after a restart; until then the old values hold",
                extra=log_fields(keys=_listed(reloaded.needs_restart)),
            )
        return reloaded


def _listed(keys: tuple[str, ...]) -> str:
    return ", ".join(keys)
