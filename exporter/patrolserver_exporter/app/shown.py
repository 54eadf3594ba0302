"""The series of what only the service as a whole knows: asked for at each scrape."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from patrolserver_exporter.live.account_series import AccountNow, accounts_now
from patrolserver_exporter.live.gate_series import gate_series
from patrolserver_exporter.live.waiver_series import WaiverCollector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patrolserver_exporter.app.gate_sweep import GateSweep
    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.inbox.intake import Intake
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.sync.accounts import Accounts


def show_service(  # noqa: PLR0913  # The parts that know something, by keyword.
    telemetry: Telemetry,
    clock: Clock,
    *,
    store: Store,
    accounts: Accounts,
    intake: Intake,
    sweep: GateSweep,
    config: Callable[[], Config],
) -> None:
    """Register them."""

    def known_accounts() -> Iterator[AccountNow]:
        for one in accounts.glimpses():
            yield AccountNow(
                account=one.name,
                webhook_enabled=one.webhook,
                owned=accounts.owns(one.name),
                last_delivery_at=intake.last_delivery_at(one.name),
                pause_until=one.pause_until,
                clock_offset=one.clock_offset,
            )

    telemetry.show(accounts_now(known_accounts))
    telemetry.show(gate_series(lambda: sweep.judged))
    telemetry.show(WaiverCollector(lambda: config().issues.waivers))
    telemetry.watch_store(
        writable=lambda: store.trouble is None,
        # Whatever the store's thread has committed by then, it has shown as well. A store that is away or another
        # one's by now is not followed.
        # Where somebody else writes, whatever the last look has found is shown.
        last_follow_at=lambda: clock.now() - (time.monotonic() - (accounts.last_look_at or store.last_success)),
        replicas=lambda: accounts.replicas,
    )
