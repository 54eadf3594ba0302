"""The refreshes that were asked for, so that clients can follow them; kept in memory, for an hour."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from msgspec.structs import replace

from patrolserver_exporter.web.api.types import Operation, OperationState, time_of

if TYPE_CHECKING:
    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.web.context import Accounts

KEPT_FOR = 3600.0
MOST = 1000
_OPEN = (OperationState.PENDING, OperationState.RUNNING)


class Refreshes:
    """Starts refreshes and knows how they stand. A refresh may end on another thread."""

    def __init__(self, accounts: Accounts, clock: Clock) -> None:
        self._accounts = accounts
        self._clock = clock
        self._lock = threading.Lock()
        self._operations: dict[str, tuple[float, Operation]] = {}

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
        while self._operations:
            first = next(iter(self._operations))
            if self._operations[first][0] > before:
                return
            del self._operations[first]
