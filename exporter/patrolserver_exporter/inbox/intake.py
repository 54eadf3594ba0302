"""The intake: a webhook's delivery is read, and on disk before anybody is told that it was accepted.

Its body may be JSON, a form or multipart, whatever its Content-Type claims (D, C).

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.message
import email.parser
import email.policy
import functools
import json
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.inbox.deliveries import WAITING, Acceptance, DeliveryState, NewDelivery
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.patrolserver.models import MAX_ID, Identifier
from patrolserver_exporter.store.database_time import now_in
from patrolserver_exporter.store.history import request_catch_up
from patrolserver_exporter.store.tables import inbox, insert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.store.threads import Unit


MAX_IDENTIFIER = 128
CHECKUP = "patrolserver_exporter_checkup"
"""The one member of a made-up delivery, with which ``doctor`` tries the webhook's URL from outside. It is not kept."""
_CHECKUP_BODY = re.compile(rb'\s*\{\s*"%s"\s*:\s*"([0-9a-f]{32})"\s*\}\s*' % CHECKUP.encode())
_MOST_FIELDS = 100
_BOUNDARY = re.compile(rb"--([!-~ ]{1,200})\r?\n")
_TRUE = (1, True, "1", "true", "yes", "on")
_FIELDS = ("webhook_patrolserver", "webhook_id", "event_id", "identifier")


class UnreadableDelivery(Exception):  # named for what happened
    """The body is no delivery; the text says why, and repeats nothing of it."""


class Payload(msgspec.Struct, frozen=True):
    """What a delivery says (D). ``identifier`` is only a hint: the API confirms what happened."""

    webhook_id: int
    event_id: int
    identifier: str


def read_payload(body: bytes, content_type: str | None) -> Payload:
    """Read a delivery's body; raises `UnreadableDelivery`."""
    fields = _fields(body.removeprefix(b"\xef\xbb\xbf").strip(), content_type or "")
    if fields.get("webhook_patrolserver") not in _TRUE:
        raise UnreadableDelivery("The field webhook_patrolserver is missing or not 1, so this is no delivery.")
    return Payload(_id(fields, "webhook_id"), _id(fields, "event_id"), _identifier(fields))


def read_checkup(body: bytes) -> str | None:
    """The nonce of a made-up delivery; ``None`` for any other body."""
    found = _CHECKUP_BODY.fullmatch(body)
    return None if found is None else found[1].decode()


def _fields(body: bytes, content_type: str) -> Mapping[str, Any]:
    if not body:
        raise UnreadableDelivery("The body is empty.")
    if body.startswith(b"{"):
        return _json(body)
    if body.startswith(b"--"):
        return _multipart(body)
    if b"=" in body:
        return _form(body)
    detail = "The body is neither a JSON object nor a form."
    if "json" in content_type.lower():
        detail = "The body is not a JSON object."
    raise UnreadableDelivery(detail)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The fields; of two events that one body names, neither is lost in silence."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in _FIELDS and fields.setdefault(name, value) != value:
            raise UnreadableDelivery(f"The field {name} is there twice, with two values.")
        fields[name] = value
    return fields


def _json(body: bytes) -> Mapping[str, Any]:
    fields = None
    if all(body.count(b'"%s"' % name.encode()) < 2 for name in _FIELDS):
        with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeError):
            fields = msgspec.json.decode(body)
    if fields is None:
        try:
            fields = json.loads(body.decode("utf-8", "replace"), object_pairs_hook=_once)
        except (ValueError, RecursionError):
            raise UnreadableDelivery("The body begins like JSON but is none.") from None
    if not isinstance(fields, dict):
        raise UnreadableDelivery("The body is not a JSON object.")
    return fields


def _form(body: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="replace"
        )
    except ValueError:
        raise UnreadableDelivery(f"The form has more than {_MOST_FIELDS} fields.") from None
    return _once(pairs)


def _multipart(body: bytes) -> Mapping[str, str]:
    boundary = _BOUNDARY.match(body)
    if boundary is None:
        raise UnreadableDelivery("The body begins like multipart but has no boundary.")
    head = b'Content-Type: multipart/form-data; boundary="' + boundary[1].rstrip() + b'"\r\n\r\n'
    try:
        message = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(head + body)
        parts = [part for part in message.walk() if not part.is_multipart()]
        fields = _once(_part(part) for part in parts[:_MOST_FIELDS])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UnreadableDelivery("The multipart body cannot be read.") from None
    return {name: value for name, value in fields.items() if name}


def _part(part: email.message.Message) -> tuple[str, str]:
    name = part.get_param("name", "", header="content-disposition")
    content = part.get_payload(decode=True)
    return str(name), content.decode("utf-8", "replace").strip() if isinstance(content, bytes) else ""


def _id(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if isinstance(value, str):
        digits = value.strip()
        value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 16 else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_ID:
        raise UnreadableDelivery(f"The field {name} is missing or no id: digits, from 1 to 2^53-1.")
    return value


def _identifier(fields: Mapping[str, Any]) -> str:
    value = fields.get("identifier")
    if not isinstance(value, str) or not 0 < len(value) <= MAX_IDENTIFIER or not value.isprintable():
        raise UnreadableDelivery(
            f"The field identifier is missing, or not printable text of at most {MAX_IDENTIFIER} characters."
        )
    return value


_RECOUNT_EVERY = 1.0
"""Seconds after which the deliveries that wait are counted again, where others take some in, too."""
STORE_TIMEOUT = 8.0
"""Seconds until a delivery that the store has not taken in is refused: before the ten that senders usually wait."""


class Intake:
    """Takes deliveries in, together with all that arrive meanwhile."""

    def __init__(self, store: Store, telemetry: Telemetry, limit: int = 0, *, dated_by_database: bool = False) -> None:
        self._store = store
        self._telemetry = telemetry
        self._dated_by_database = dated_by_database
        self.set_limit(limit)
        self._last_delivery_at: dict[str, float] = {}

    def last_delivery_at(self, account: str) -> float | None:
        """Reception of the account's last delivery that was accepted, in seconds since the epoch."""
        return self._last_delivery_at.get(account)

    def recall(self) -> None:
        """Take from the inbox when the last deliveries before this start came; raises ``StoreError``."""
        for account, at in self._store.read(newest_receptions).items():
            self._accepted(account, at)

    def heard(self, account: str, at: float) -> None:
        """Another exporter took a delivery in."""
        self._accepted(account, at)

    def _accepted(self, account: str, at: float) -> None:
        self._last_delivery_at[account] = max(at, self._last_delivery_at.get(account, at))

    def set_limit(self, limit: int) -> None:
        """Let so many deliveries wait at most."""
        self._inbox = BoundedInbox(limit, dated_by_database=self._dated_by_database)

    async def take_in(self, delivery: NewDelivery) -> Acceptance:
        """Write a delivery; ends after the disk has it.

        Raises ``StoreError`` when it could not be written, and ``TimeoutError`` when the store is silent: what it still
        takes in then is a duplicate when it is sent again.
        """
        async with asyncio.timeout(STORE_TIMEOUT):
            acceptance = await self._store.run_together(delivery, self._accept)
        self._accepted(delivery.account, delivery.received_at)
        if acceptance is Acceptance.OVERFLOW:
            self._telemetry.inbox_overflow(delivery.account)
        return acceptance

    def _accept(self, unit: Unit, deliveries: list[NewDelivery]) -> list[Acceptance]:
        unit.effects.append(InboxMoved())
        return self._inbox.accept(unit, deliveries)


class BoundedInbox:
    """Writes deliveries, as long as fewer than ``limit`` wait.

    It remembers an upper bound of how many wait, so that not every delivery pays for counting them.
    ``dated_by_database``: a delivery was received when the database's clock says so as it is written.
    """

    def __init__(self, limit: int, *, dated_by_database: bool = False) -> None:
        self.limit = limit
        self._dated_by_database = dated_by_database
        self._waiting_at_most = limit
        self._counted_at = float("-inf")

    def accept(self, unit: Unit, deliveries: list[NewDelivery]) -> list[Acceptance]:
        """Take deliveries in; one that is known already, or came twice in this batch, is a duplicate.

        One that was rejected is not known: else a forged id, sent ahead, would keep the real event out. For the same
        reason one that the API did not know at the last try is looked at again, and one that comes under another
        identifier: the identifier is only the sender's word. But while it waits, it keeps an identifier that leaves
        more in doubt: a forged test, sent after it, would end that.
        """
        known = _known(unit.connection, deliveries)
        # Others may take deliveries in as well, and the limit is for all of them together.
        is_old = self._dated_by_database and time.monotonic() - self._counted_at > _RECOUNT_EVERY
        if is_old or self._waiting_at_most + len(deliveries) > self.limit:
            self._waiting_at_most = count_waiting(unit.connection)
            self._counted_at = time.monotonic()
        rows: list[dict[str, Any]] = []
        overflown: dict[str, float] = {}
        outcomes: list[Acceptance] = []
        for delivery in deliveries:
            key = (delivery.account, delivery.webhook_id, delivery.event_id)
            if (before := known.get(key)) is not None and not before.gives_way_to(delivery.identifier):
                outcomes.append(Acceptance.DUPLICATE)
            elif self._waiting_at_most >= self.limit:
                overflown[delivery.account] = max(delivery.received_at, overflown.get(delivery.account, 0.0))
                outcomes.append(Acceptance.OVERFLOW)
            else:
                known[key] = _Known(delivery.identifier, DeliveryState.RECEIVED)
                self._waiting_at_most += 1
                rows.append(_new_row(delivery, dated=not self._dated_by_database))
                outcomes.append(Acceptance.ACCEPTED)
        # In one order everywhere, so that two that write at the same time cannot wait for each other.
        for account, received_at in sorted(overflown.items()):
            at = now_in(unit.connection.dialect.name) if self._dated_by_database else received_at
            request_catch_up(unit.connection, account, at)
        if rows:
            rows.sort(key=lambda row: (row["account"], row["webhook_id"], row["event_id"]))
            statement = _entry(unit.connection.dialect.name, dated_by_database=self._dated_by_database)
            unit.connection.execute(statement, rows)
        return outcomes


_ABOUT_ISSUES, _ABOUT_A_SERVER, _ABOUT_ANYTHING, _ABOUT_NOTHING = 3, 2, 1, 0
_DOUBT = {
    Identifier.NEW_SERVER_ISSUES.value: _ABOUT_ISSUES,
    Identifier.SCAN_STARTED.value: _ABOUT_A_SERVER,
    Identifier.SCAN_FINISHED.value: _ABOUT_A_SERVER,
    Identifier.TEST.value: _ABOUT_NOTHING,
}
"""What an event leaves in doubt until it is confirmed, by its identifier; of others `_ABOUT_ANYTHING`."""


class _Known(NamedTuple):
    """A delivery that is in the inbox, or will be."""

    identifier: str
    state: str

    def gives_way_to(self, identifier: str) -> bool:
        """Whether the same event under this identifier takes its place; as in `_entry`."""
        is_other = identifier != self.identifier
        if self.state not in WAITING:
            return is_other
        before, then = (_DOUBT.get(one, _ABOUT_ANYTHING) for one in (self.identifier, identifier))
        return then >= before and (is_other or self.state == DeliveryState.UNVERIFIED)


def _constant(value: str | int) -> sa.ColumnElement[Any]:
    """Written into a statement: a parameter would be made anew for each delivery, and there are some thirty."""
    return sa.literal_column(str(value) if isinstance(value, int) else f"'{value}'")


def _doubt_of(identifier: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
    cases = [(identifier == _constant(name), _constant(doubt)) for name, doubt in _DOUBT.items()]
    return sa.case(*cases, else_=_constant(_ABOUT_ANYTHING))


# Built once: building these statements costs more than running them.
_KNOWN = sa.select(inbox.c.account, inbox.c.webhook_id, inbox.c.event_id, inbox.c.identifier, inbox.c.state).where(
    inbox.c.account.in_(sa.bindparam("accounts", expanding=True)),
    inbox.c.webhook_id.in_(sa.bindparam("webhook_ids", expanding=True)),
    inbox.c.event_id.in_(sa.bindparam("event_ids", expanding=True)),
    inbox.c.state != DeliveryState.REJECTED,
)
_BROUGHT = ("account", "webhook_id", "event_id", "identifier", "state", "updated_at")
_UNTRIED: dict[str, sa.ColumnElement[Any]] = {
    "attempts": _constant(0),
    **dict.fromkeys(("next_attempt_at", "claim", "lease_until", "server_id", "last_error", "body"), sa.null()),
}


@functools.cache
def _entry(dialect: str, *, dated_by_database: bool) -> sa.Insert:
    statement = insert(dialect, inbox)
    if dated_by_database:
        statement = statement.values(received_at=now_in(dialect), updated_at=now_in(dialect))
    # An event that was confirmed before takes effect as of then: sent again under another name, it opens nothing again.
    received_at = sa.case(
        (inbox.c.state == _constant(DeliveryState.APPLIED.value), inbox.c.received_at),
        else_=statement.excluded.received_at,
    )
    is_other = inbox.c.identifier != statement.excluded.identifier
    return statement.on_conflict_do_update(
        index_elements=["account", "webhook_id", "event_id"],
        set_={name: statement.excluded[name] for name in _BROUGHT} | {"received_at": received_at} | _UNTRIED,
        where=sa.or_(
            inbox.c.state == _constant(DeliveryState.REJECTED.value),
            sa.and_(is_other, *(inbox.c.state != _constant(one.value) for one in WAITING)),
            sa.and_(
                sa.or_(is_other, inbox.c.state == _constant(DeliveryState.UNVERIFIED.value)),
                _doubt_of(inbox.c.identifier) <= _doubt_of(statement.excluded.identifier),
            ),
        ),
    )


def _new_row(delivery: NewDelivery, *, dated: bool) -> dict[str, object]:
    row: dict[str, object] = {
        "account": delivery.account,
        "webhook_id": delivery.webhook_id,
        "event_id": delivery.event_id,
        "identifier": delivery.identifier,
        "state": DeliveryState.RECEIVED.value,
    }
    if dated:
        row |= {"received_at": delivery.received_at, "updated_at": delivery.received_at}
    return row


def _known(connection: sa.Connection, deliveries: Sequence[NewDelivery]) -> dict[tuple[str, int, int], _Known]:
    wanted = {
        "accounts": sorted({d.account for d in deliveries}),
        "webhook_ids": sorted({d.webhook_id for d in deliveries}),
        "event_ids": [d.event_id for d in deliveries],
    }
    rows = connection.execute(_KNOWN, wanted)
    return {(row[0], row[1], row[2]): _Known(row[3], row[4]) for row in rows}


def newest_receptions(connection: sa.Connection) -> dict[str, float]:
    """When the newest delivery of each account was received."""
    rows = connection.execute(sa.select(inbox.c.account, sa.func.max(inbox.c.received_at)).group_by(inbox.c.account))
    return {row[0]: row[1] for row in rows}


def count_waiting(connection: sa.Connection) -> int:
    """How many deliveries wait."""
    return connection.execute(sa.select(sa.func.count()).where(inbox.c.state.in_(WAITING))).scalar_one()
