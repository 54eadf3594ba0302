"""The refreshes that were asked for, so that clients can follow them, for an hour.

They are rows of the store, so each of several exporters knows all of them, and a restart forgets none.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from patrolserver_exporter.sync import operations
from patrolserver_exporter.web.api.types import FleetRefresh, Operation, OperationState, RefreshedServer, time_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.store import Store
    from patrolserver_exporter.store.queries import NamedServer
    from patrolserver_exporter.web.context import Accounts


class Refreshes:
    """Starts refreshes on whatever exporter polls, and knows how they stand."""

    def __init__(self, store: Store, accounts: Accounts) -> None:
        self._store = store
        self._accounts = accounts

    async def start(self, account: str, server_id: int) -> Operation | None:
        """Have a server polled now; ``None`` when too many refreshes are under way."""
        refresh_id = secrets.token_hex(8)
        asked = self._store.submit_anywhere(lambda unit: operations.ask(unit, refresh_id, account, server_id))
        found = await asyncio.shield(asyncio.wrap_future(asked))
        if found is None:
            return None
        self._accounts.begin_refreshes()
        return _operation(found)

    async def find(self, operation_id: str) -> Operation | None:
        """How it stands; ``None`` if there never was such a one, or it is forgotten."""
        found = await self._store.read_async(lambda connection: operations.find(connection, operation_id))
        return None if found is None else _operation(found)

    def start_many(self, servers: Iterable[NamedServer]) -> FleetRefresh | None:
        """Have servers polled now, each once; ``None`` when too many are under way. Takes a while for a fleet."""
        refresh_id, wanted = secrets.token_hex(8), tuple(servers)
        asked = self._store.submit_anywhere(lambda unit: operations.ask_for_many(unit, refresh_id, wanted)).result()
        if asked is None:
            return None
        self._accounts.begin_refreshes()
        return _of_many(refresh_id, asked)

    def find_many(self, refresh_id: str) -> FleetRefresh | None:
        """How it stands; ``None`` if there never was such a one, or it is forgotten."""
        found = self._store.read(lambda connection: operations.find_many(connection, refresh_id))
        return _of_many(refresh_id, found) if found else None


def _of_many(refresh_id: str, found: Sequence[operations.Refresh]) -> FleetRefresh:
    is_over = all(one.finished_at is not None for one in found)
    failed = any(one.error is not None for one in found)
    over = OperationState.FAILED if failed else OperationState.DONE
    return FleetRefresh(
        id=refresh_id,
        state=over if is_over else OperationState.RUNNING,
        created_at=time_of(max((one.created_at for one in found), default=0.0)),
        finished_at=time_of(max((one.finished_at or 0.0 for one in found), default=0.0)) if is_over else None,
        servers=tuple(
            RefreshedServer(
                account=one.account,
                server_id=one.server_id,
                server=one.server or "",
                state=OperationState.RUNNING if one.finished_at is None else OperationState(one.state),
                error=one.error,
            )
            for one in found
        ),
    )


def _operation(found: operations.Refresh) -> Operation:
    return Operation(
        id=found.id,
        state=OperationState(found.state),
        account=found.account,
        server_id=found.server_id,
        created_at=time_of(found.created_at),
        finished_at=None if found.finished_at is None else time_of(found.finished_at),
        error=found.error,
    )
