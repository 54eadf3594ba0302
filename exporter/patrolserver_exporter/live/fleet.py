"""The series of the fleet: those of all servers and accounts, kept finished in blocks."""

from __future__ import annotations

import heapq
import itertools
from array import array
from threading import Lock
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.live.account_series import AccountExposition
from patrolserver_exporter.live.blocks import Block
from patrolserver_exporter.live.encoding import Piece, deflate
from patrolserver_exporter.live.families import (
    EXPLOIT_INFO,
    NO_LABELS,
    POLL_SUCCESS,
    SERVER_FAMILIES,
    SOFTWARE_INFO,
    Family,
    render,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.live.account_series import AccountSeries
    from patrolserver_exporter.live.effects import NewsWaits
    from patrolserver_exporter.live.encoding import Format
    from patrolserver_exporter.live.own_metrics import DropReason
    from patrolserver_exporter.store.history import Tally


BLOCK_ROWS = 256
"""Measured: the texts of larger blocks leave the sizes that malloc keeps at hand, which makes a scrape a third slower
after changes all over the fleet; smaller ones compress worse, and cost more when nothing changed.
"""

_PENDING_LIMIT = 10_000
"""Changed rows that may wait for a scrape, each a few hundred bytes: bounds the memory while nobody scrapes."""


_CLOCK = SystemClock()
_Capped = Literal["software_info", "exploit_info"]
_CAPPED: tuple[_Capped, ...] = get_args(_Capped)


class FleetExposition:
    """All series of servers and accounts. Safe from many threads: one at a time gets in, the others wait."""

    def __init__(  # noqa: PLR0913  # What it is made of, by keyword.
        self,
        *,
        software_enabled: bool,
        exploits_enabled: bool = True,
        software_limit_total: int,
        clock: Clock = _CLOCK,
        on_dropped: Callable[[DropReason, int], None] | None = None,
        labels_of: Callable[[ServerSummary], Mapping[str, str]] = lambda _: NO_LABELS,
    ) -> None:
        """Start empty. ``software_limit_total`` bounds the series of software, and as many of exploits.

        ``labels_of`` tells the labels that the configuration gives a server.

        ``on_dropped`` is told, each time a server is shown, how many of these series fall to a limit:
        ``server_limit`` (cut off in the summary) or ``total_limit`` (cut off here, whole servers at a time). So what it
        counts rises for as long as a limit cuts. It must not call back.
        """
        self._lock = Lock()
        self._clock = clock
        self._labels_of = labels_of
        self._caps = tuple(
            _SeriesCap(field, software_limit_total, on_dropped)
            for field, enabled in zip(_CAPPED, (software_enabled, exploits_enabled), strict=True)
            if enabled
        )
        self._families: tuple[Family, ...] = (
            *SERVER_FAMILIES,
            *((SOFTWARE_INFO,) if software_enabled else ()),
            *((EXPLOIT_INFO,) if exploits_enabled else ()),
        )
        self._poll_success = [family.name for family in self._families].index(POLL_SUCCESS)
        self._headers = tuple(deflate(family.header) for family in self._families)
        self._blocks: list[Block] = []
        self._slots: dict[str, dict[int, int]] = {}
        self._free: list[int] = []
        self._used = 0
        self._pending = 0
        self._accounts = AccountExposition()

    def replace_all(self, summaries: Iterable[ServerSummary]) -> None:
        """Show exactly these servers. A scrape sees all of it or nothing."""
        with self._lock:
            if not self._blocks:
                self._load(iter(summaries))
                return
            gone = {account: set(slots) for account, slots in self._slots.items()}
            for summary in summaries:
                gone.get(summary.account, set()).discard(summary.server_id)
                self._update(summary)
            for account, server_ids in gone.items():
                for server_id in server_ids:
                    self._remove(account, server_id)

    def replace_account(self, account: str, summaries: Iterable[ServerSummary]) -> None:
        """Show exactly these servers of the account. A scrape sees all of it or nothing."""
        with self._lock:
            gone = set(self._slots.get(account, ()))
            for summary in summaries:
                gone.discard(summary.server_id)
                self._update(summary)
            for server_id in gone:
                self._remove(account, server_id)

    def _load(self, summaries: Iterator[ServerSummary]) -> None:
        """Show these servers where none is shown: a block at a time."""
        again = []
        while some := list(itertools.islice(summaries, BLOCK_ROWS)):
            rows = []
            block = Block(len(self._families))
            self._blocks.append(block)
            for summary in some:
                slots = self._slots.setdefault(summary.account, {})
                if summary.server_id in slots:
                    again.append(summary)
                    continue
                for cap in self._caps:
                    cap.grow()
                slots[summary.server_id] = self._used
                rows.append(self._lines(self._used, summary))
                self._used += 1
            if rows:
                block.load(rows)
            if again:
                # Its block is not full: the others go the usual way.
                break
        for summary in (*again, *summaries):
            self._update(summary)

    def update(self, summary: ServerSummary) -> None:
        """Show one server as it is now; a new one comes to the others."""
        with self._lock:
            self._update(summary)

    def remove(self, account: str, server_id: int) -> None:
        """End a server's series; nothing happens when it has none."""
        with self._lock:
            self._remove(account, server_id)

    def mark_lost(self, account: str, server_id: int) -> None:
        """Show that what the server's last turn brought was not kept, until the server is shown again."""
        with self._lock:
            slot = self._slots.get(account, {}).get(server_id)
            if slot is not None:
                self._accounts.doubt(account, server_id)
                block, row = self._blocks[slot // BLOCK_ROWS], slot % BLOCK_ROWS
                line = block.lines(row, self._poll_success)
                self._count(int(block.put_one(row, self._poll_success, line.rpartition(b" ")[0] + b" 0.0\n")))

    def count_servers(self, account: str) -> int:
        """How many of an account's servers are shown."""
        with self._lock:
            return len(self._slots.get(account, ()))

    def show_account(self, series: AccountSeries) -> None:
        """Show one account as it is now; its servers are distinguished from this."""
        with self._lock:
            self._accounts.show(series)

    def show_tallies(self, tallies: Iterable[Tally]) -> None:
        """Show these tallies, for the accounts that are shown; severities without one are zero."""
        with self._lock:
            self._accounts.tally(tallies)

    def show_news(self, news: NewsWaits) -> None:
        """Doubt the servers that deliveries may be about which are not confirmed yet."""
        with self._lock:
            self._accounts.doubt_by(news)

    def pieces(self, chosen: Format, names: frozenset[str] | None = None) -> list[Piece]:
        """Give all series, with their headers, in the format chosen; with ``names`` only samples so named."""
        with self._lock:
            return [*self._accounts.pieces(chosen, names, self._clock.now()), *self._server_pieces(names)]

    def _server_pieces(self, names: frozenset[str] | None) -> Iterator[Piece]:
        for index, family in enumerate(self._families):
            if names is not None and family.name not in names:
                continue
            pieces = [piece for block in self._blocks if (piece := block.piece(index)).length]
            # The library shows headers without samples, but not when it was asked for names.
            if pieces or names is None:
                yield self._headers[index]
                yield from pieces
        if names is None:
            self._pending = 0

    def _update(self, summary: ServerSummary) -> None:
        slots = self._slots.setdefault(summary.account, {})
        slot = slots.get(summary.server_id)
        if slot is None:
            slot = slots[summary.server_id] = self._take_slot()
        self._count(self._blocks[slot // BLOCK_ROWS].put(slot % BLOCK_ROWS, self._lines(slot, summary)))

    def _lines(self, slot: int, summary: ServerSummary) -> list[bytes]:
        self._accounts.count(summary)
        for cap in self._caps:
            summary = cap.apply(slot, summary)
        return render(self._families, summary, self._labels_of(summary))

    def _remove(self, account: str, server_id: int) -> None:
        slots = self._slots.get(account, {})
        slot = slots.pop(server_id, None)
        if slot is None:
            return
        if not slots:
            del self._slots[account]
        self._accounts.uncount(account, server_id)
        for cap in self._caps:
            cap.release(slot)
        self._count(self._blocks[slot // BLOCK_ROWS].clear(slot % BLOCK_ROWS))
        heapq.heappush(self._free, slot)

    def _take_slot(self) -> int:
        # The lowest hole first, so that what is used stays together.
        if self._free:
            return heapq.heappop(self._free)
        if self._used == len(self._blocks) * BLOCK_ROWS:
            self._blocks.append(Block(len(self._families)))
        self._blocks[-1].grow()
        for cap in self._caps:
            cap.grow()
        self._used += 1
        return self._used - 1

    def _count(self, changed: int) -> None:
        if not changed:
            return
        self._pending += changed
        if self._pending >= _PENDING_LIMIT:
            for block in self._blocks:
                block.deflate_changed()
            self._pending = 0


class _SeriesCap:
    """Bounds one kind of series over the whole fleet: a server that would exceed the limit shows none of its own."""

    def __init__(
        self,
        field: _Capped,
        limit: int,
        on_dropped: Callable[[DropReason, int], None] | None,
    ) -> None:
        self._field = field
        self._limit = limit
        self._on_dropped = on_dropped
        self._total = 0
        self._shown = array("I")

    def grow(self) -> None:
        """Add a slot."""
        self._shown.append(0)

    def apply(self, slot: int, summary: ServerSummary) -> ServerSummary:
        """Give the summary with what may be shown, and count what may not."""
        wanted = len(getattr(summary, self._field))
        others = self._total - self._shown[slot]
        shown = wanted if others + wanted <= self._limit else 0
        self._total = others + shown
        self._shown[slot] = shown
        self._drop("server_limit", getattr(summary, f"{self._field}_dropped"))
        self._drop("total_limit", wanted - shown)
        return summary if shown == wanted else msgspec.structs.replace(summary, **{self._field: ()})

    def release(self, slot: int) -> None:
        """Make room: the slot's server is gone."""
        self._total -= self._shown[slot]
        self._shown[slot] = 0

    def _drop(self, reason: DropReason, count: int) -> None:
        if count and self._on_dropped is not None:
            self._on_dropped(reason, count)
