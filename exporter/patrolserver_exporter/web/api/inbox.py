"""The inbox, for operators: list, show, replay and drop deliveries."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.patrolserver.models import MAX_ID
from patrolserver_exporter.store import replicas
from patrolserver_exporter.web.api import cursors, types
from patrolserver_exporter.web.api.endpoint import Api, Call, Reply
from patrolserver_exporter.web.http.requests import ApiError

if TYPE_CHECKING:
    from patrolserver_exporter.inbox.deliveries import Delivery
    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.web.api.endpoint import InboxQuery

_ID = re.compile(r"[0-9]{1,16}", re.ASCII)


async def inbox(api: Api, call: Call[InboxQuery]) -> Reply:
    """A page of deliveries."""
    query = call.query
    after = 0 if query.cursor is None else cursors.read(query.cursor, cursors.InboxCursor).row
    found = await api.read(
        lambda connection: deliveries.page(
            connection, after=after, limit=query.limit + 1, states=query.state, accounts=query.account
        )
    )
    items = found[: query.limit]
    next_cursor = cursors.write(cursors.InboxCursor(items[-1].id)) if len(found) > query.limit else None
    return Reply(types.InboxPage(items=tuple(_show(api, item) for item in items), next_cursor=next_cursor))


def _show(api: Api, delivery: Delivery) -> types.InboxItem:
    item = types.inbox_item_of(delivery)
    if item.last_error is None:
        return item
    return msgspec.structs.replace(item, last_error=api.context.redactor.redact(item.last_error))


async def show(api: Api, call: Call[Any]) -> Reply:
    """One delivery, and the reply that could not be understood."""
    delivery_id = _id(call)
    found = await api.read(lambda connection: deliveries.get(connection, delivery_id))
    if found is None:
        raise _no_delivery(delivery_id)
    delivery, body = found
    text = None if body is None else api.context.redactor.redact(body.decode("utf-8", "replace"))
    item = msgspec.structs.asdict(_show(api, delivery))
    return Reply(types.InboxItemWithBody(**item, body=text))


async def replay(api: Api, call: Call[Any]) -> Reply:
    """Make a delivery due again."""
    delivery_id = _id(call)
    configured = tuple(account.name for account in api.context.config().accounts)

    def work(unit: Unit) -> Delivery | None:
        unit.effects.append(InboxMoved())
        delivery = deliveries.replay(unit, delivery_id, now=api.now())
        if delivery is None or delivery.account in configured:
            return delivery
        # Nobody would ever take it, and it would fill the inbox. That is not said of the account's others: right after
        # the database was away for long, no exporter may have told yet of an account that it polls.
        if delivery.account not in replicas.configured_somewhere(unit.connection, configured, now=api.now()):
            deliveries.set_one_aside(unit, delivery_id, now=api.now())
        found = deliveries.get(unit.connection, delivery_id)
        return found and found[0]

    delivery = await api.write(work)
    if delivery is None:
        raise _no_delivery(delivery_id)
    return Reply(_show(api, delivery), 202)


async def drop(api: Api, call: Call[Any]) -> Reply:
    """Remove a delivery."""
    delivery_id = _id(call)
    was_there = False

    def work(unit: Unit) -> bool:
        nonlocal was_there
        unit.effects.append(InboxMoved())
        # It is done a second time where the end of the commit was not heard.
        was_there = deliveries.drop(unit, delivery_id) or was_there
        return was_there

    if not await api.write(work):
        raise _no_delivery(delivery_id)
    return Reply(status=204)


def _id(call: Call[Any]) -> int:
    text = call.path["delivery"]
    if not _ID.fullmatch(text) or not 0 < int(text) <= MAX_ID:
        raise ApiError(404, f"There is no delivery {text[:100]!r}: ids are numbers.")
    return int(text)


def _no_delivery(delivery_id: int) -> ApiError:
    return ApiError(404, f"There is no delivery {delivery_id}; it may have been purged.")
