"""What others have to see once a unit of work is committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from patrolserver_exporter.config.schema import Metrics
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.store.fleet import AccountRecord
from patrolserver_exporter.store.history import Tally


class ServerShown(msgspec.Struct, frozen=True):
    """A server is new or changed. ``received_at`` is that of the delivery that did it, in seconds since the epoch."""

    summary: ServerSummary
    received_at: float | None = None


class ServerGone(msgspec.Struct, frozen=True):
    """The account no longer has the server."""

    account: str
    server_id: int


class AccountRestored(msgspec.Struct, frozen=True):
    """Everything of one account is shown again: another exporter began or ended to poll it."""

    record: AccountRecord
    summaries: Iterable[ServerSummary]
    tallies: tuple[Tally, ...]


class PollLost(msgspec.Struct, frozen=True):
    """What a server's last turn brought could not be kept."""

    account: str
    server_id: int


class AccountShown(msgspec.Struct, frozen=True):
    """An account's reachability or the number of its servers changed."""

    record: AccountRecord
    servers: int | None = None
    """``None``: those that are shown by then."""


class TalliesShown(msgspec.Struct, frozen=True):
    """Counters of an account rose."""

    tallies: tuple[Tally, ...]


class FeedGrew(msgspec.Struct, frozen=True):
    """The change feed has new entries."""


class InboxMoved(msgspec.Struct, frozen=True):
    """Deliveries came or changed their state."""


class NewsWaits(msgspec.Struct, frozen=True):
    """Which accounts' servers may be worse than they are shown, because deliveries are not confirmed yet."""

    waiting: frozenset[str]
    """Nobody could look at some of theirs yet."""
    since: Mapping[str, float]
    """A poll has to start after that time (seconds since the epoch) to tell what they would have told."""


class Summaries:
    """Those of many servers, packed until each is shown: 100,000 of them would take three times as much room."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []

    def append(self, summary: ServerSummary) -> None:
        """Add one more."""
        self._packed.append(_pack(summary))

    def __iter__(self) -> Iterator[ServerSummary]:
        """Each of them, in order."""
        return map(_unpack, self._packed)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._packed)


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(ServerSummary).decode


class FleetRestored(msgspec.Struct, frozen=True):
    """Everything is shown again: at start, and when the limits on the series changed."""

    metrics: Metrics
    accounts: tuple[tuple[AccountRecord, int], ...]
    summaries: Iterable[ServerSummary]
    tallies: tuple[Tally, ...]
    labels: Mapping[str, Mapping[str, Mapping[str, str]]] = msgspec.field(default_factory=dict)
    """By account, its globs on servers' names, each with labels."""
