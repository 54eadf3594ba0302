"""The fleet's series, kept finished: a change costs the columns it touches, a scrape what changed since the last.

A block is up to 256 servers side by side, family by family, kept only as deflated text. A column is one family in one
block. It keeps no line that is in its piece: with the lengths of the lines it finds them again in the inflated text.
Inflating adds about half to what deflating costs anyway, and saves most of the memory that kept lines take.
"""

from __future__ import annotations

import heapq
from array import array
from threading import Lock
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.live.account_series import AccountCollector, AccountSums, SumsOfAccounts
from patrolserver_exporter.live.encoding import EMPTY, Piece, deflate, encode, inflate
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
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.live.account_series import AccountSeries
    from patrolserver_exporter.live.encoding import Format
    from patrolserver_exporter.live.own_metrics import DropReason
    from patrolserver_exporter.store.history import Tally


BLOCK_ROWS = 256
"""Measured: the texts of larger blocks leave the sizes that malloc keeps at hand, which makes a scrape a third slower
after changes all over the fleet; smaller ones compress worse, and cost more when nothing changed.
"""

_HASH_OF_NOTHING = hash(b"")


class Column:
    """One family's lines in one block, a row a server. A row may be empty, or hold several lines."""

    __slots__ = ("_changed", "_hashes", "_lengths", "_piece")

    def __init__(self) -> None:
        self._lengths = array("I")
        self._hashes = array("q")
        self._changed: dict[int, bytes] = {}
        self._piece = EMPTY

    def grow(self) -> None:
        """Add an empty row."""
        self._hashes.append(_HASH_OF_NOTHING)
        self._lengths.append(0)

    def put(self, row: int, lines: bytes) -> bool:
        """Set a row, and tell whether that changed it.

        What was there is known by its 64-bit hash, keyed at random in each process: a change goes unseen once in 2⁶⁴.
        """
        fingerprint = hash(lines)
        if self._hashes[row] == fingerprint:
            return False
        self._hashes[row] = fingerprint
        self._changed[row] = lines
        return True

    def lines(self, row: int) -> bytes:
        """What a row holds."""
        if row in self._changed:
            return self._changed[row]
        begin = sum(self._lengths[:row])
        return inflate(self._piece)[begin : begin + self._lengths[row]]

    def piece(self) -> Piece:
        """All rows, deflated."""
        if self._changed:
            self._piece = deflate(self._text())
            self._changed = {}
        return self._piece

    def _text(self) -> bytes:
        lengths, changed = self._lengths, self._changed
        kept = memoryview(inflate(self._piece))
        parts: list[bytes | memoryview] = []
        begin = next_row = 0
        for row in sorted(changed):
            end = begin + sum(lengths[next_row:row])
            parts += (kept[begin:end], changed[row])
            begin = end + lengths[row]
            next_row = row + 1
            lengths[row] = len(changed[row])
        parts.append(kept[begin:])
        return b"".join(parts)


class Block:
    """Some servers' lines in all families."""

    __slots__ = ("_columns",)

    def __init__(self, families: int) -> None:
        self._columns = tuple(Column() for _ in range(families))

    def grow(self) -> None:
        """Add an empty row to each family."""
        for column in self._columns:
            column.grow()

    def put(self, row: int, lines: Sequence[bytes]) -> int:
        """Set a server's lines, one item a family; how many families that changed."""
        return sum([column.put(row, text) for column, text in zip(self._columns, lines, strict=True)])

    def put_one(self, row: int, family: int, lines: bytes) -> bool:
        """Set a server's lines in one family, and tell whether that changed them."""
        return self._columns[family].put(row, lines)

    def lines(self, row: int, family: int) -> bytes:
        """A server's lines in one family."""
        return self._columns[family].lines(row)

    def clear(self, row: int) -> int:
        """Take a server's lines out; from how many families."""
        return sum([column.put(row, b"") for column in self._columns])

    def piece(self, family: int) -> Piece:
        """One family's lines of all servers here."""
        return self._columns[family].piece()

    def deflate_changed(self) -> None:
        """Deflate what changed, so that no line is kept beside."""
        for column in self._columns:
            column.piece()


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
        self._sums = SumsOfAccounts()
        self._shown_sums: dict[str, AccountSums] = {}
        self._accounts: tuple[AccountSeries, ...] = ()
        self._tallies: tuple[Tally, ...] = ()
        self._account_pieces: dict[bool, Piece] = {}

    def replace_all(self, summaries: Iterable[ServerSummary]) -> None:
        """Show exactly these servers. A scrape sees all of it or nothing."""
        with self._lock:
            gone = {account: set(slots) for account, slots in self._slots.items()}
            for summary in summaries:
                gone.get(summary.account, set()).discard(summary.server_id)
                self._update(summary)
            for account, server_ids in gone.items():
                for server_id in server_ids:
                    self._remove(account, server_id)

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
                self._sums.doubt(account, server_id)
                block, row = self._blocks[slot // BLOCK_ROWS], slot % BLOCK_ROWS
                line = block.lines(row, self._poll_success)
                self._count(int(block.put_one(row, self._poll_success, line.rpartition(b" ")[0] + b" 0.0\n")))

    def set_accounts(self, accounts: Iterable[AccountSeries]) -> None:
        """Show exactly these accounts, whose servers are distinguished from this."""
        with self._lock:
            self._set_accounts(tuple(accounts), self._tallies)

    def set_tallies(self, tallies: Iterable[Tally]) -> None:
        """Show these tallies, for the accounts that are set; severities without one are zero."""
        with self._lock:
            self._set_accounts(self._accounts, tuple(tallies))

    def pieces(self, chosen: Format, names: frozenset[str] | None = None) -> list[Piece]:
        """Give all series, with their headers, in the format chosen; with ``names`` only samples so named."""
        with self._lock:
            self._follow_sums()
            return [self._account_piece(chosen, names), *self._server_pieces(names)]

    def _follow_sums(self) -> None:
        now = self._clock.now()
        sums = {
            series.account: self._sums.of(series.account, now, reachable=series.up is not False)
            for series in self._accounts
        }
        if sums != self._shown_sums:
            self._shown_sums = sums
            self._account_pieces = {}

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

    def _account_piece(self, chosen: Format, names: frozenset[str] | None) -> Piece:
        if names is not None:
            return deflate(encode(self._account_collector().collect(), chosen, names))
        if chosen.openmetrics not in self._account_pieces:
            text = encode(self._account_collector().collect(), chosen, None)
            self._account_pieces[chosen.openmetrics] = deflate(text)
        return self._account_pieces[chosen.openmetrics]

    def _account_collector(self) -> AccountCollector:
        return AccountCollector(self._accounts, self._tallies, self._shown_sums)

    def _set_accounts(self, accounts: tuple[AccountSeries, ...], tallies: tuple[Tally, ...]) -> None:
        if (accounts, tallies) != (self._accounts, self._tallies):
            self._accounts, self._tallies = accounts, tallies
            self._account_pieces = {}

    def _update(self, summary: ServerSummary) -> None:
        slots = self._slots.setdefault(summary.account, {})
        slot = slots.get(summary.server_id)
        if slot is None:
            slot = slots[summary.server_id] = self._take_slot()
        self._sums.put(summary)
        for cap in self._caps:
            summary = cap.apply(slot, summary)
        lines = render(self._families, summary, self._labels_of(summary))
        self._count(self._blocks[slot // BLOCK_ROWS].put(slot % BLOCK_ROWS, lines))

    def _remove(self, account: str, server_id: int) -> None:
        slots = self._slots.get(account, {})
        slot = slots.pop(server_id, None)
        if slot is None:
            return
        if not slots:
            del self._slots[account]
        self._sums.remove(account, server_id)
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
