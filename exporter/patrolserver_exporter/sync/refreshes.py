"""Refreshes that were asked for, on whatever exporter: begun by the one that polls the account, and ended there."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from patrolserver_exporter.sync import operations

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from concurrent.futures import Future

    from patrolserver_exporter.store import Store, Unit


class Refreshes:
    """Those of the accounts that this process polls.

    ``accounts`` tells their names, and ``refresh`` polls a server, as `Accounts.refresh`. ``goes_on_elsewhere``:
    another exporter polls that account from now on.
    """

    def __init__(
        self,
        store: Store,
        accounts: Callable[[], Collection[str]],
        refresh: Callable[[str, int, Callable[[str | None], None]], None],
        goes_on_elsewhere: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._refresh = refresh
        self._goes_on_elsewhere = goes_on_elsewhere
        self._wait = False
        """Some could not be begun."""
        self._in_hand: set[str] = set()
        self._unended: dict[str, tuple[str, str | None]] = {}
        """Those whose end could not be written, with account and error."""

    def begin_later(self) -> None:
        """Begin those that wait with the next `catch_up`."""
        self._wait = True

    def begin(self, names: Iterable[str] | None = None) -> None:
        """Have servers polled whose refresh was asked for, on whatever exporter; not waited for."""
        names = tuple(self._accounts() if names is None else names)
        failed, self._wait = self._wait, False

        def work(unit: Unit) -> list[operations.Refresh]:
            if failed:
                # They may have been begun by a commit whose end was not heard.
                operations.begin_again(unit, names, but=tuple(self._in_hand))
            return operations.begin(unit, operations.pending(unit.connection, names))

        if names:
            self._store.submit(work, *names).add_done_callback(self._poll_all)

    def _poll_all(self, begun: Future[list[operations.Refresh]]) -> None:
        if begun.exception() is not None:
            self._wait = True
            return
        for asked in begun.result():
            end = functools.partial(self._end, asked.account)
            self._in_hand.add(asked.id)
            self._refresh(asked.account, asked.server_id, operations.AskedFor(asked.id, end))
        if len(begun.result()) == operations.AT_ONCE:
            self.begin()

    def _end(self, account: str, refresh_id: str, error: str | None) -> None:
        self._in_hand.discard(refresh_id)
        # Where another one polls the account from now on, that one does it.
        if error is None or self._goes_on_elsewhere(account):
            return

        def look_at(future: Future[None]) -> None:
            if future.exception() is not None:
                self._unended[refresh_id] = account, error

        self._store.submit(lambda unit: operations.finish(unit, [refresh_id], error), account).add_done_callback(
            look_at
        )

    def catch_up(self) -> None:
        """Begin those that could not be begun, and write the ends that could not be written."""
        if self._wait:
            self.begin()
        for refresh_id, (account, error) in list(self._unended.items()):
            del self._unended[refresh_id]
            self._end(account, refresh_id, error)
