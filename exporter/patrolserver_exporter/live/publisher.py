"""From committed effects to what is scraped: format and coding as the client asked.

Effects come on the store's thread, so that nothing overtakes a later commit.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.config.schema import labels_of
from patrolserver_exporter.issues.summary import cut_label
from patrolserver_exporter.live.account_series import AccountSeries
from patrolserver_exporter.live.effects import (
    AccountRestored,
    AccountShown,
    FeedGrew,
    FleetRestored,
    InboxMoved,
    NewsWaits,
    PollLost,
    ServerGone,
    ServerShown,
    TalliesShown,
)
from patrolserver_exporter.live.encoding import (
    EOF,
    accepts_gzip,
    batches,
    deflate,
    gzip_member,
    negotiate,
    plain,
)
from patrolserver_exporter.live.families import NO_LABELS
from patrolserver_exporter.live.fleet import FleetExposition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Metrics
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.live.encoding import Format, Piece, Shown
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store.fleet import AccountRecord


_log = logging.getLogger(__name__)
_EOF = deflate(EOF)


@dataclass(frozen=True, slots=True)
class ScrapeResponse:
    """What to send."""

    content_type: str
    content_encoding: str | None
    content_length: int
    """Bytes of the whole body."""
    body: Iterable[bytes]
    """Parts of some 64 KiB, to be sent one by one. To be read once: they are made while they are read, so that a large
    body is never in memory as a whole.
    """


class Scrape:
    """Answers scrapes. Blocks for as long as rendering takes: to be called in a thread, from as many as you like."""

    def __init__(self, fleet: FleetExposition, telemetry: Telemetry) -> None:
        self._fleet = fleet
        self._telemetry = telemetry

    def render(self, accept: str | None, accept_encoding: str | None, names: Sequence[str] = ()) -> ScrapeResponse:
        """Render for the request's Accept and Accept-Encoding headers; ``names`` are its ``name[]`` parameters."""
        chosen = negotiate(accept)
        wanted = frozenset(names) or None
        pieces = self._fleet.pieces(chosen, wanted)
        for shown in self._telemetry.shown:
            pieces += self._pieces_of(shown, chosen, wanted)
        if chosen.openmetrics:
            pieces.append(_EOF)
        if accepts_gzip(accept_encoding):
            body = gzip_member(pieces)
            return ScrapeResponse(chosen.content_type, "gzip", sum(map(len, body)), batches(body))
        length = sum([piece.length for piece in pieces])
        return ScrapeResponse(chosen.content_type, None, length, batches(plain(pieces)))

    def _pieces_of(self, shown: Shown, chosen: Format, names: frozenset[str] | None) -> list[Piece]:
        try:
            return shown.pieces(chosen, names)
        except Exception:  # noqa: BLE001  # whatever one raises, the others go on; it is logged and counted
            _log.exception("the exporter's own metrics are incomplete: %s raised", type(shown).__name__)
            self._telemetry.error("exposition")
            return []


class Publisher:
    """Keeps the exposition as the store is."""

    def __init__(self, telemetry: Telemetry, clock: Clock, metrics: Metrics) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._listeners: dict[type, list[Callable[[], None]]] = {FeedGrew: [], InboxMoved: []}
        self._labels: Mapping[str, Mapping[str, Mapping[str, str]]] = {}
        """By account, its globs on servers' names, each with labels."""
        self._max_label_length = metrics.max_label_length
        self._news = NewsWaits(frozenset(), {})
        self._fleet = self._new_fleet(metrics)
        self._scrape = Scrape(self._fleet, telemetry)

    def render(self, accept: str | None, accept_encoding: str | None, names: Sequence[str] = ()) -> ScrapeResponse:
        """Answer a scrape; to be called in a thread."""
        return self._scrape.render(accept, accept_encoding, names)

    def count_servers(self, account: str) -> int:
        """How many of an account's servers are shown."""
        return self._fleet.count_servers(account)

    def on_feed(self, listener: Callable[[], None]) -> None:
        """Call this, on the store's thread, when the change feed grew."""
        self._listeners[FeedGrew].append(listener)

    def on_inbox(self, listener: Callable[[], None]) -> None:
        """Call this, on the store's thread, when deliveries came or moved."""
        self._listeners[InboxMoved].append(listener)

    def publish(self, effects: list[object]) -> None:
        """Show what was committed; what cannot be shown keeps nothing else back, is counted, and raised at the end.

        A server whose news cannot be shown is shown as not polled: what its series say may be old.
        """
        heard: set[type] = set()
        failures: list[Exception] = []
        for effect in effects:
            is_shown = self._tried(functools.partial(self._show, effect, heard), failures)
            if not is_shown and isinstance(effect, ServerShown):
                lost = PollLost(effect.summary.account, effect.summary.server_id)
                self._tried(functools.partial(self._show, lost, heard), failures)
        for kind in heard:
            for listener in self._listeners[kind]:
                self._tried(listener, failures)
        if failures:
            raise failures[0]

    def _tried(self, step: Callable[[], None], failures: list[Exception]) -> bool:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # The first one is raised at the end.
            self._telemetry.error("exposition")
            failures.append(error)
            return False
        return True

    def _show(self, effect: object, heard: set[type]) -> None:
        match effect:
            case ServerShown():
                self._show_server(effect)
            case ServerGone(account, server_id):
                self._fleet.remove(account, server_id)
            case PollLost(account, server_id):
                self._fleet.mark_lost(account, server_id)
            case AccountShown(record, servers):
                self._show_accounts([(record, servers)])
            case TalliesShown(tallies):
                self._fleet.show_tallies(tallies)
            case AccountRestored(record, summaries, tallies):
                self._fleet.replace_account(record.name, summaries)
                self._show_accounts([(record, None)])
                self._fleet.show_tallies(tallies)
            case FleetRestored():
                self._restore(effect)
            case NewsWaits():
                self._news = effect
                self._fleet.show_news(effect)
            case FeedGrew() | InboxMoved():
                heard.add(type(effect))
            case _:
                raise TypeError(f"There is no way to show a {type(effect).__name__}.")

    def _show_server(self, effect: ServerShown) -> None:
        self._fleet.update(effect.summary)
        if effect.received_at is not None:
            self._telemetry.event_visible(max(self._clock.now() - effect.received_at, 0.0))

    def _show_accounts(self, shown: Iterable[tuple[AccountRecord, int | None]]) -> None:
        for record, given in shown:
            servers = self._fleet.count_servers(record.name) if given is None else given
            # Before the first list nobody knows how many there are, and a zero would say that there are none.
            known = bool(servers) or record.last_success_at is not None
            self._fleet.show_account(
                AccountSeries(
                    account=record.name,
                    up=record.up,
                    last_success_at=record.last_success_at,
                    servers=servers if known else None,
                    list_complete=record.state.list_complete,
                )
            )

    def _restore(self, effect: FleetRestored) -> None:
        self._labels, self._max_label_length = effect.labels, effect.metrics.max_label_length
        self._fleet = self._new_fleet(effect.metrics)
        self._show_accounts(effect.accounts)
        self._fleet.show_tallies(effect.tallies)
        self._fleet.replace_all(effect.summaries)
        self._fleet.show_news(self._news)
        self._scrape = Scrape(self._fleet, self._telemetry)

    def _new_fleet(self, metrics: Metrics) -> FleetExposition:
        return FleetExposition(
            software_enabled=metrics.software,
            exploits_enabled=metrics.exploits,
            software_limit_total=metrics.software_limit_total,
            clock=self._clock,
            on_dropped=self._telemetry.series_dropped,
            labels_of=self._labels_of,
        )

    def _labels_of(self, summary: ServerSummary) -> Mapping[str, str]:
        rules = self._labels.get(summary.account)
        if not rules:
            return NO_LABELS
        found = labels_of(rules, summary.name)
        return {name: cut_label(value, self._max_label_length) for name, value in found.items()}
