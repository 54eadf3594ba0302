"""The exporter itself: ``/api/v1/status`` and ``/api/v1/openapi.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patrolserver_exporter import __version__
from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.store import fleet
from patrolserver_exporter.web.api import types
from patrolserver_exporter.web.api.endpoint import Api, Call, Reply

if TYPE_CHECKING:
    import sqlalchemy as sa

    from patrolserver_exporter.inbox.deliveries import StateCount
    from patrolserver_exporter.store.fleet import AccountRecord
    from patrolserver_exporter.sync.exporters import LivingExporter
    from patrolserver_exporter.sync.statuses import AccountStatus


async def status(api: Api, _call: Call[Any]) -> Reply:
    """Accounts, the exporters that poll them, and the inbox by state."""

    def work(connection: sa.Connection) -> tuple[dict[str, AccountRecord], list[StateCount]]:
        return fleet.account_records(connection), deliveries.census(connection)

    records, census = await api.read(work)
    accounts = (_account(api, one, records.get(one.name)) for one in api.context.accounts.statuses())
    by_state = dict.fromkeys((state.value for state in DeliveryState), 0)
    by_state |= {counted.state: counted.count for counted in census}
    trouble = api.context.store.trouble
    redact = api.context.redactor.redact
    return Reply(
        types.Status(
            version=__version__,
            accounts=tuple(accounts),
            replicas=tuple(map(_replica, api.context.exporters())),
            inbox=by_state,
            store=types.StoreReport(
                writable=trouble is None, trouble=None if trouble is None else redact(trouble.reason)
            ),
            troubles=tuple(await api.context.troubles()),
        )
    )


def _replica(one: LivingExporter) -> types.ReplicaReport:
    return types.ReplicaReport(
        name=one.name or None,
        host=one.host,
        pid=one.pid,
        version=one.version,
        this=one.is_this,
        accounts=one.accounts,
        config_differs=one.config_differs,
    )


def _account(api: Api, status: AccountStatus, record: AccountRecord | None) -> types.AccountReport:
    return types.AccountReport(
        name=status.name,
        up=None if record is None else record.up,
        last_success_at=None if record is None else types.maybe_time(record.last_success_at),
        servers=status.servers,
        poll_interval_seconds=status.poll_interval,
        trouble=None if status.trouble is None else api.context.redactor.redact(status.trouble),
        credentials_refused=status.credentials_refused,
        webhook=status.webhook,
        list_complete=status.list_complete,
        list_partial_because=tuple(map(api.context.redactor.redact, status.list_partial_because)),
        servers_missing=status.servers_missing,
        paused_until=types.maybe_time(status.pause_until),
        pause_reason=None if status.pause_reason is None else api.context.redactor.redact(status.pause_reason),
        proxy=None if status.proxy is None else api.context.redactor.redact(status.proxy),
    )
