"""The refreshes that were asked for, so that clients can follow them, for an hour.

Kept in memory; where several exporters share a store, in rows of it, so that each of them knows all.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from patrolserver_exporter.sync import operations
from patrolserver_exporter.web.api.types import FleetRefresh, Operation, OperationState, RefreshedServer, time_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.store.queries import NamedServer, ServerKey
    from patrolserver_exporter.web.context import Accounts

KEPT_FOR = 3600.0
MOST = 1000
MOST_SERVERS = 20_000
"""Of all refreshes of many."""
_OPEN = (OperationState.PENDING, OperationState.RUNNING)


class SharedRefreshes:
    """Starts refreshes on whatever exporter polls, and knows how they stand."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def start(self, account: str, server_id: int) -> Operation | None:
        """Have a server polled now; ``None`` when too many refreshes are under way."""
        refresh_id = secrets.token_hex(8)
        asked = self._store.submit_anywhere(lambda unit: operations.ask(unit, refresh_id, account, server_id))
        found = await asyncio.shield(asyncio.wrap_future(asked))
        return None if found is None else _operation(found)

    async def find(self, operation_id: str) -> Operation | None:
        """How it stands; ``None`` if there never was such a one, or it is forgotten."""
        found = await self._store.read_async(lambda connection: operations.find(connection, operation_id))
        return None if found is None else _operation(found)

    def start_many(self, servers: Iterable[NamedServer]) -> FleetRefresh | None:
        """Have servers polled now, each once; ``None`` when too many are under way. Takes a while for a fleet."""
        refresh_id, wanted = secrets.token_hex(8), tuple(servers)
        asked = self._store.submit_anywhere(lambda unit: operations.ask_for_many(unit, refresh_id, wanted)).result()
        return None if asked is None else _of_many(refresh_id, asked)

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


class Refreshes:
    """Starts refreshes and knows how they stand. A refresh may end on another thread."""

    def __init__(self, accounts: Accounts, clock: Clock) -> None:
        self._accounts = accounts
        self._clock = clock
        self._lock = threading.Lock()
        self._operations: dict[str, tuple[float, Operation]] = {}
        self._of_many: dict[str, _Many] = {}

    def start(self, account: str, server_id: int) -> Operation | None:
        """Have a server polled now; ``None`` when too many refreshes are under way."""
        operation = Operation(
            id=secrets.token_hex(8),
            state=OperationState.PENDING,
            account=account,
            server_id=server_id,
            created_at=time_of(self._clock.now()),
        )
        with self._lock:
            if not self._make_room():
                return None
            self._operations[operation.id] = (self._clock.monotonic(), operation)
        self._accounts.refresh(account, server_id, lambda error: self._finish(operation.id, error))
        with self._lock:
            began, operation = self._operations[operation.id]
            if operation.state is OperationState.PENDING:
                operation = replace(operation, state=OperationState.RUNNING)
                self._operations[operation.id] = (began, operation)
        return operation

    def find(self, operation_id: str) -> Operation | None:
        """How it stands; ``None`` if there never was such a one, or it is forgotten."""
        with self._lock:
            self._forget_old()
            found = self._operations.get(operation_id)
        return None if found is None else found[1]

    def start_many(self, servers: Iterable[NamedServer]) -> FleetRefresh | None:
        """Have servers polled now, each once; ``None`` when too many are under way. Takes a while for a fleet."""
        many = _Many(secrets.token_hex(8), {server.key: server.name for server in servers}, self._clock)
        with self._lock:
            if not self._make_room_for_many(len(many.names)):
                return None
            self._of_many[many.id] = many
        for key in many.names:
            self._accounts.refresh(key.account, key.server_id, partial(self._finish_one, many, key))
        with self._lock:
            return many.stands()

    def find_many(self, refresh_id: str) -> FleetRefresh | None:
        """How it stands; ``None`` if there never was such a one, or it is forgotten."""
        with self._lock:
            self._forget_old()
            found = self._of_many.get(refresh_id)
            return None if found is None else found.stands()

    def _finish_one(self, many: _Many, key: ServerKey, error: str | None) -> None:
        with self._lock:
            many.finish(key, error, self._clock.now())

    def _make_room_for_many(self, wanted: int) -> bool:
        self._forget_old()
        kept = sum(len(one.names) for one in self._of_many.values())
        for one in [one for one in self._of_many.values() if one.is_over]:
            if kept + wanted <= MOST_SERVERS:
                break
            kept -= len(one.names)
            del self._of_many[one.id]
        return kept + wanted <= MOST_SERVERS

    def _finish(self, operation_id: str, error: str | None) -> None:
        with self._lock:
            found = self._operations.get(operation_id)
            if found is None:
                return
            began, operation = found
            state = OperationState.DONE if error is None else OperationState.FAILED
            ended = replace(operation, state=state, finished_at=time_of(self._clock.now()), error=error)
            self._operations[operation_id] = (began, ended)

    def _make_room(self) -> bool:
        """Forget what is old, and the oldest that ended; False if all that is left is under way."""
        self._forget_old()
        if len(self._operations) < MOST:
            return True
        oldest = next((i for i, (_, operation) in self._operations.items() if operation.state not in _OPEN), None)
        if oldest is None:
            return False
        del self._operations[oldest]
        return True

    def _forget_old(self) -> None:
        before = self._clock.monotonic() - KEPT_FOR
        for old in [id_ for id_, (began, _) in self._operations.items() if began <= before]:
            del self._operations[old]
        for old in [id_ for id_, many in self._of_many.items() if many.began <= before]:
            del self._of_many[old]


class _Many:
    """A refresh of many servers; the lock of `Refreshes` guards it."""

    def __init__(self, id_: str, names: dict[ServerKey, str], clock: Clock) -> None:
        self.id = id_
        self.names = names
        self.began = clock.monotonic()
        self._created_at = clock.now()
        self._finished_at = self._created_at
        self._ended: dict[ServerKey, str | None] = {}

    @property
    def is_over(self) -> bool:
        return len(self._ended) == len(self.names)

    def finish(self, key: ServerKey, error: str | None, now: float) -> None:
        self._ended[key] = error
        self._finished_at = now

    def stands(self) -> FleetRefresh:
        servers = tuple(
            RefreshedServer(
                account=key.account,
                server_id=key.server_id,
                server=name,
                state=self._state_of(key),
                error=self._ended.get(key),
            )
            for key, name in self.names.items()
        )
        failed = any(error is not None for error in self._ended.values())
        over = OperationState.FAILED if failed else OperationState.DONE
        return FleetRefresh(
            id=self.id,
            state=over if self.is_over else OperationState.RUNNING,
            created_at=time_of(self._created_at),
            finished_at=time_of(self._finished_at) if self.is_over else None,
            servers=servers,
        )

    def _state_of(self, key: ServerKey) -> OperationState:
        if key not in self._ended:
            return OperationState.RUNNING
        return OperationState.DONE if self._ended[key] is None else OperationState.FAILED
