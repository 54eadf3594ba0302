"""Units of work on a delivery, after its event was asked for. Times are seconds since the epoch."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.inbox import transitions
from patrolserver_exporter.inbox.delivery import DeliveryState
from patrolserver_exporter.inbox.intake import request_catch_up
from patrolserver_exporter.inbox.retry import Fate
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.patrolserver.models import Identifier
from patrolserver_exporter.sync import scans, server_updates

if TYPE_CHECKING:
    from patrolserver_exporter.inbox.delivery import Delivery
    from patrolserver_exporter.patrolserver.models import Event, Parsed
    from patrolserver_exporter.store.writer import Unit
    from patrolserver_exporter.sync.rules import Rules


class FollowUp(StrEnum):
    """What has to happen next for the event's server."""

    NOTHING = "nothing"
    POLL = "poll"
    CHECK_SCAN = "check scan"
    POLL_AND_CHECK_SCAN = "poll and check scan"
    LIST = "list"
    """The server is not known: the account's list has to be asked for first. Nothing was written."""


_UNCONFIRMED = frozenset({DeliveryState.UNVERIFIED, DeliveryState.REJECTED, DeliveryState.EXPIRED, DeliveryState.DEAD})
_ABOUT_A_SERVER = frozenset({Identifier.SCAN_STARTED, Identifier.SCAN_FINISHED, Identifier.NEW_SERVER_ISSUES})


def note_failure(  # noqa: PLR0913  # What a failure brings, by keyword.
    unit: Unit,
    delivery: Delivery,
    fate: Fate,
    *,
    now: float,
    error: str,
    settle: float,
    body: bytes | None = None,
) -> None:
    """Write what becomes of a delivery whose event was not confirmed; raises ``ClaimLost``.

    What the API does not know may be forged, or it may be known late, and what nobody understands may be anything.
    Either way polls find what it would have told, once they start ``settle`` seconds after its reception. A test tells
    of nothing.
    """
    transitions.settle(
        unit,
        delivery,
        fate.state,
        now=now,
        attempts=fate.attempts,
        next_attempt_at=None if fate.wait is None else now + fate.wait,
        error=error,
        body=body,
    )
    if fate.state in _UNCONFIRMED and delivery.identifier != Identifier.TEST:
        request_catch_up(unit.connection, delivery.account, min(delivery.received_at, now) + settle)
    unit.effects.append(InboxMoved())


def conclude(  # noqa: PLR0913  # What a fetch brings, by keyword.
    unit: Unit, delivery: Delivery, parsed: Parsed[Event], *, list_is_fresh: bool, now: float, rules: Rules
) -> FollowUp:
    """Let the API's answer to a fetch take effect, or keep it for the operator; raises ``ClaimLost``."""
    event = parsed.value
    if needs_server(delivery.identifier) and event.server_id is None:
        note = "The API's reply names no server" + "".join(f"; {oddity}" for oddity in parsed.oddities)
        body = parsed.body or msgspec.json.encode(event)
        fate = Fate(DeliveryState.DEAD, delivery.attempts + 1, None)
        note_failure(unit, delivery, fate, now=now, error=note, settle=rules.settle, body=body)
        return FollowUp.NOTHING
    follow_up = apply_event(unit, delivery, event, list_is_fresh=list_is_fresh, now=now, rules=rules)
    if follow_up is FollowUp.LIST:
        # A server that was added a moment ago: the list has to come first.
        fate = Fate(DeliveryState.RETRY, delivery.attempts + 1, min(5.0 * (delivery.attempts + 1), 300.0))
        note = f"Server {event.server_id} is not known yet"
        note_failure(unit, delivery, fate, now=now, error=note, settle=rules.settle)
    elif event.server_id is not None and not parsed.complete:
        # What the part does not tell, polls find.
        request_catch_up(unit.connection, delivery.account, min(delivery.received_at, now) + rules.settle)
    return follow_up


def needs_server(identifier: str) -> bool:
    """Whether an event of this kind says nothing without a server."""
    return identifier in _ABOUT_A_SERVER


def apply_event(  # noqa: PLR0913  # What an event brings, by keyword.
    unit: Unit, delivery: Delivery, event: Event, *, list_is_fresh: bool, now: float, rules: Rules
) -> FollowUp:
    """Let a confirmed event take effect and end its delivery, both or neither.

    ``list_is_fresh``: the account's server list was read after the reception, so a server that is not in the state is
    none of ours. Raises ``ClaimLost`` when somebody else holds the delivery by now.
    """
    # The identifier is only the sender's word: what is done is decided by what the API says.
    server_id = event.server_id
    record = None if server_id is None else server_updates.find(unit, delivery.account, server_id)
    if server_id is not None and record is None and not list_is_fresh:
        return FollowUp.LIST
    note = None if server_id is None or record is not None else f"Server {server_id} is not in this account."
    transitions.settle(unit, delivery, DeliveryState.APPLIED, now=now, server_id=server_id, error=note)
    unit.effects.append(InboxMoved())
    if record is None:
        return FollowUp.NOTHING
    # The clock may have been set back while the event was fetched, and nothing was received in the future.
    received_at = min(delivery.received_at, now)
    if event.new_issues or delivery.identifier == Identifier.NEW_SERVER_ISSUES:
        server_updates.apply_reported(unit, record, event.new_issues, received_at=received_at, now=now, rules=rules)
        return FollowUp.POLL
    if delivery.identifier == Identifier.SCAN_STARTED:
        state, follow_up = scans.started(record.state, received_at), FollowUp.CHECK_SCAN
    else:
        state, follow_up = scans.finished(record.state, received_at), FollowUp.POLL_AND_CHECK_SCAN
    if state != record.state:
        server_updates.show(unit, server_updates.with_state(record, state), received_at=received_at)
    return follow_up
