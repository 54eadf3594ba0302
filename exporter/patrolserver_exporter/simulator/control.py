"""The simulator's own HTTP interface, under ``/-/simulator``: JSON in and out; see ``docs/simulator.md``.

An order is the body of such a call; a field that is not listed in it is refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route

from .faults import Fault
from .fleet import software_of
from .replies import ReplyRule
from .software import Change, Installed, Kind, Software, exploit_from, software_from
from .webhooks import NEVER, TEST_DATA, Format, Telling, Webhook, payload_of
from .wire import ApiError, Style, software_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from starlette.requests import Request

    from .server import Simulator
    from .webhooks import Event
    from .world import Server

    Path = Mapping[str, str]
    Handler = Callable[[Path, Any], object]

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Amount = Annotated[int, Meta(ge=0, le=1_000_000)]
Late = Seconds | Literal["never"]
ScanEvent = Literal["webhook.scan_started", "webhook.new_server_issues", "webhook.scan_finished"]


class Nothing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order without fields."""


class ServerOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new server; ``software`` is how much of it to draw, or the list itself; ``id`` that of a removed one."""

    name: str
    id: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None
    verified: bool = True
    software: Amount | list[dict[str, Any]] = 12


class RenameOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another name for a server."""

    name: str


class SoftwareOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More software: fields as the API has them, written as they are; ``count`` numbers as many copies."""

    software: dict[str, Any] | list[dict[str, Any]]
    count: Amount = 1


class ScanOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scan; ``events`` is what is told of it."""

    server: str | int
    seconds: Seconds | None = None
    events: tuple[ScanEvent, ...] = ("webhook.scan_started", "webhook.new_server_issues", "webhook.scan_finished")


class BreakOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Break software; ``software`` is a canonical name, without it the first that is fine.

    ``exploit`` is one that becomes known, written as it is given, whatever that is.
    """

    server: str | int
    kind: Kind = Kind.EXPLOITABLE
    software: str | None = None
    location: str | None = None
    risk: float = 9.8
    exploit: Any = msgspec.UNSET
    event: bool = True
    at_scan: bool = False


class MendOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mend software; without ``software`` all that is broken.

    With ``exploit``, an id or a CVE, only that one goes.
    """

    server: str | int
    software: str | None = None
    location: str | None = None
    exploit: str | int | None = None
    at_scan: bool = False


class EventOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events; without ``data`` they carry the id of ``server``, and without both a message.

    The API knows of them only ``late`` seconds after their delivery, which claims to be ``delivered_as``.
    """

    identifier: str
    server: str | int | None = None
    data: Any = msgspec.UNSET
    webhook_id: int | None = None
    count: Amount = 1
    deliver: bool = True
    late: Late | None = None
    delivered_as: str | None = None


class DelayOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How late the API knows of what happens from now on; ``count`` ends that after so many happenings."""

    late: Late = 0.0
    count: Amount | None = None


class DeliverOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deliveries of any content: forged, repeated, malformed. Without ``url`` to every webhook."""

    payload: dict[str, Any]
    url: str | None = None
    format: Format = Format.JSON
    count: Amount = 1


class WebhookOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A webhook of the demo account."""

    url: str | None = None
    format: Format = Format.JSON
    duplicates: Amount = 0
    ca_file: str | None = None


class AccountOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new account, or what logging in to one shall fail with."""

    email: str
    password: str = "demo"  # noqa: S105  the documented password of a simulation
    login_error: str | None = None


class CredentialsOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """New key and secret of the demo account: the old ones are revoked."""

    key: Annotated[str, Meta(min_length=1)]
    secret: Annotated[str, Meta(min_length=1)]


class ClockOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the clock ahead (seconds)."""

    advance: Seconds


class StyleOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Serve another style."""

    style: Style


class StoryOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Play the story, so many times as fast."""

    speed: Annotated[float, Meta(gt=0, le=1e6)] = 1.0


class Control:
    """Turns orders into calls of the simulator's parts."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._world = simulator.world

    def application(self) -> Starlette:
        """The ASGI application."""
        table: tuple[tuple[str, str, type[msgspec.Struct], Handler], ...] = (
            ("GET", "/healthy", Nothing, lambda _path, _order: {"status": "ok"}),
            ("GET", "/state", Nothing, self.state),
            ("GET", "/servers", Nothing, self.servers),
            ("POST", "/servers", ServerOrder, self.add_server),
            ("GET", "/servers/{server}", Nothing, self.server),
            ("DELETE", "/servers/{server}", Nothing, self.remove_server),
            ("POST", "/servers/{server}/rename", RenameOrder, self.rename_server),
            ("POST", "/servers/{server}/software", SoftwareOrder, self.add_software),
            ("DELETE", "/servers/{server}/software/{software:int}", Nothing, self.remove_software),
            ("POST", "/scan", ScanOrder, self.scan),
            ("POST", "/break", BreakOrder, self.break_software),
            ("POST", "/mend", MendOrder, self.mend_software),
            ("POST", "/events", EventOrder, self.add_events),
            ("POST", "/events/delay", DelayOrder, self.delay_events),
            ("POST", "/deliver", DeliverOrder, self.deliver),
            ("GET", "/deliveries", Nothing, self.deliveries),
            ("DELETE", "/deliveries", Nothing, self.forget_deliveries),
            ("GET", "/webhooks", Nothing, self.webhooks),
            ("POST", "/webhooks", WebhookOrder, self.add_webhook),
            ("DELETE", "/webhooks/{webhook:int}", Nothing, self.remove_webhook),
            ("GET", "/faults", Nothing, self.faults),
            ("POST", "/faults", Fault, self.add_fault),
            ("DELETE", "/faults", Nothing, self.clear_faults),
            ("DELETE", "/faults/{fault:int}", Nothing, self.clear_faults),
            ("GET", "/replies", Nothing, self.replies),
            ("POST", "/replies", ReplyRule, self.add_reply),
            ("DELETE", "/replies", Nothing, self.clear_replies),
            ("DELETE", "/replies/{reply:int}", Nothing, self.clear_replies),
            ("GET", "/requests", Nothing, lambda _path, _order: self._simulator.requests.document()),
            ("DELETE", "/requests", Nothing, self.forget_requests),
            ("POST", "/accounts", AccountOrder, self.add_account),
            ("POST", "/credentials", CredentialsOrder, self.rotate),
            ("POST", "/clock", ClockOrder, self.advance),
            ("POST", "/style", StyleOrder, self.restyle),
            ("POST", "/story/start", StoryOrder, self.start_story),
            ("POST", "/story/stop", Nothing, self.stop_story),
        )
        return Starlette(
            routes=[
                Route(f"/-/simulator{path}", _endpoint(order, handler), methods=[method])
                for method, path, order, handler in table
            ]
        )

    def state(self, _path: Path, _order: Nothing) -> object:
        """What is going on."""
        world, simulator = self._world, self._simulator
        return {
            "now": world.now(),
            "style": simulator.api.style,
            "servers": len(world.servers(world.demo)),
            "scanning": world.scanning(),
            "events": len(world.outbox),
            "deliveries": simulator.postman.counts(),
            "webhooks": [webhook.document() for webhook in world.outbox.webhooks()],
            "faults": simulator.faults.documents(),
            "replies": simulator.replies.documents(),
            "story": {"playing": simulator.story.playing, "lines": simulator.story.lines()},
        }

    def servers(self, _path: Path, _order: Nothing) -> object:
        """The demo account's servers."""
        return {"servers": [_server_document(server) for server in self._world.servers(self._world.demo)]}

    def server(self, path: Path, _order: Nothing) -> object:
        """One server with all that is true of it."""
        server = self._world.named(path["server"])
        return {**_server_document(server), "software": _software_documents(self._world.installed(server))}

    def add_server(self, _path: Path, order: ServerOrder) -> object:
        """A new server of the demo account."""
        world = self._world
        if isinstance(order.software, int):
            drawn = software_of(world.options.seed, world.list_version + len(order.name), order.software)
            server = world.add_server(
                world.demo, order.name, software=drawn, verified=order.verified, server_id=order.id
            )
        else:
            server = world.add_server(world.demo, order.name, verified=order.verified, server_id=order.id)
            world.install(server, self._installed(order.software))
        return _server_document(server)

    def remove_server(self, path: Path, _order: Nothing) -> object:
        """A server is gone."""
        self._world.remove_server(self._world.named(path["server"]))
        return {}

    def rename_server(self, path: Path, order: RenameOrder) -> object:
        """A server has another name."""
        server = self._world.named(path["server"])
        self._world.rename(server, order.name)
        return _server_document(server)

    def add_software(self, path: Path, order: SoftwareOrder) -> object:
        """More software on a server."""
        server = self._world.named(path["server"])
        listed = order.software if isinstance(order.software, list) else [order.software]
        copies = listed if order.count == 1 else [_numbered(one, n) for n in range(order.count) for one in listed]
        fresh = self._installed(copies)
        with self._world.lock:
            self._world.install(server, (*self._world.installed(server), *fresh))
        return {"ids": [one.id for one in fresh]}

    def remove_software(self, path: Path, _order: Nothing) -> object:
        """A software is gone from a server."""
        server, gone = self._world.named(path["server"]), int(path["software"])
        with self._world.lock:
            self._world.install(server, [one for one in self._world.installed(server) if one.id != gone])
        return {}

    def scan(self, _path: Path, order: ScanOrder) -> object:
        """A scan starts."""
        server = self._world.named(str(order.server))
        self._world.start_scan(server, order.seconds, events=frozenset(order.events))
        return _server_document(server)

    def break_software(self, _path: Path, order: BreakOrder) -> object:
        """Something breaks."""
        found = None
        if order.exploit is not msgspec.UNSET:
            if order.kind is not Kind.EXPLOITABLE:
                raise ValueError(
                    f'an exploit makes software exploitable, not {order.kind}: leave out "kind" or "exploit"'
                )
            found = exploit_from(order.exploit, self._world.new_exploit_id())
        change = Change(order.kind, order.software, order.location, order.risk, found)
        return self._change(str(order.server), change, at_scan=order.at_scan, tell=order.event)

    def mend_software(self, _path: Path, order: MendOrder) -> object:
        """Something is mended."""
        gone = None if order.exploit is None else str(order.exploit)
        change = Change(Kind.MENDED, order.software, order.location, gone=gone)
        return self._change(str(order.server), change, at_scan=order.at_scan, tell=False)

    def _change(self, name: str, change: Change, *, at_scan: bool, tell: bool) -> object:
        server = self._world.named(name)
        touched = self._world.change(server, change, at_scan=at_scan, tell=tell)
        return {"server": _server_document(server), "software": _software_documents(touched)}

    def add_events(self, _path: Path, order: EventOrder) -> object:
        """Events happen."""
        world = self._world
        server = world.named(str(order.server)) if order.server is not None else None
        data = order.data
        if data is msgspec.UNSET:
            data = {"server_id": server.id} if server is not None else TEST_DATA
        account = server.account_id if server is not None else world.demo.id
        telling = Telling(webhook_id=order.webhook_id, late=_seconds(order.late), delivered_as=order.delivered_as)
        events: list[Event] = []
        for _ in range(order.count):
            events += world.outbox.emit(
                account,
                order.identifier,
                data,
                deliver=order.deliver,
                telling=telling,
            )
        return {"events": [payload_of(event) for event in events]}

    def delay_events(self, _path: Path, order: DelayOrder) -> object:
        """The API lags behind its webhooks."""
        self._world.outbox.delay(_seconds(order.late) or 0.0, order.count)
        return {}

    def deliver(self, _path: Path, order: DeliverOrder) -> object:
        """Deliveries of any content."""
        if order.url is None:
            hooks = [webhook for webhook in self._world.outbox.webhooks() if webhook.url is not None]
        else:
            hooks = [Webhook(0, 0, order.url, order.format)]
        for webhook in hooks:
            for _ in range(order.count):
                self._simulator.postman.post(webhook, order.payload)
        return {"deliveries": order.count * len(hooks)}

    def deliveries(self, _path: Path, _order: Nothing) -> object:
        """What became of the deliveries, once none is under way (or after ten seconds)."""
        postman = self._simulator.postman
        return {"drained": postman.drain(10.0), "counts": postman.counts(), "deliveries": postman.outcomes()}

    def forget_deliveries(self, _path: Path, _order: Nothing) -> object:
        """Count deliveries from 0."""
        self._simulator.postman.forget()
        return {}

    def webhooks(self, _path: Path, _order: Nothing) -> object:
        """The webhooks, their URLs without the token."""
        return {"webhooks": [webhook.document() for webhook in self._world.outbox.webhooks()]}

    def add_webhook(self, _path: Path, order: WebhookOrder) -> object:
        """A new webhook."""
        return self._world.outbox.add_webhook(
            self._world.demo.id, order.url, order.format, duplicates=order.duplicates, ca_file=order.ca_file
        ).document()

    def remove_webhook(self, path: Path, _order: Nothing) -> object:
        """A webhook is gone."""
        self._world.outbox.remove_webhook(int(path["webhook"]))
        return {}

    def faults(self, _path: Path, _order: Nothing) -> object:
        """The faults in force."""
        return {"faults": self._simulator.faults.documents()}

    def add_fault(self, _path: Path, fault: Fault) -> object:
        """A fault comes into force."""
        return {"id": self._simulator.faults.add(fault)}

    def clear_faults(self, path: Path, _order: Nothing) -> object:
        """One fault ends, or all."""
        self._simulator.faults.clear(int(path["fault"]) if "fault" in path else None)
        return {}

    def replies(self, _path: Path, _order: Nothing) -> object:
        """The rules for replies that are in force."""
        return {"replies": self._simulator.replies.documents()}

    def add_reply(self, _path: Path, rule: ReplyRule) -> object:
        """A rule for replies comes into force."""
        if rule.server is not None:
            rule = replace(rule, server=self._world.named(str(rule.server)).id)
        return {"id": self._simulator.replies.add(rule)}

    def clear_replies(self, path: Path, _order: Nothing) -> object:
        """One rule ends, or all."""
        self._simulator.replies.clear(int(path["reply"]) if "reply" in path else None)
        return {}

    def forget_requests(self, _path: Path, _order: Nothing) -> object:
        """Count requests from 0."""
        self._simulator.requests.clear()
        return {}

    def add_account(self, _path: Path, order: AccountOrder) -> object:
        """A new account; for one that exists only its ``login_error`` is set."""
        accounts = self._world.accounts
        try:
            account = accounts.by_email(order.email)
        except ApiError:
            account = accounts.add(order.email, order.password)
        account.login_error = order.login_error
        return account.document()

    def rotate(self, _path: Path, order: CredentialsOrder) -> object:
        """The demo account's key and secret change."""
        self._world.demo.key, self._world.demo.secret = order.key, order.secret
        return {}

    def advance(self, _path: Path, order: ClockOrder) -> object:
        """The clock is set ahead."""
        self._world.advance(order.advance)
        return {"now": self._world.now()}

    def restyle(self, _path: Path, order: StyleOrder) -> object:
        """Another style is served."""
        self._simulator.api.style = order.style
        return {"style": order.style}

    def start_story(self, _path: Path, order: StoryOrder) -> object:
        """The story plays."""
        self._simulator.story.start(order.speed)
        return {}

    def stop_story(self, _path: Path, _order: Nothing) -> object:
        """The story plays no more."""
        self._simulator.story.stop()
        return {}

    def _installed(self, listed: Iterable[dict[str, Any]]) -> list[Installed]:
        read: list[tuple[Software, dict[str, Any]]] = [software_from(fields) for fields in listed]
        return [Installed(self._world.new_software_id(), software, fields) for software, fields in read]


def _endpoint(order: type[msgspec.Struct], handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        body = await request.body()
        try:
            # The standard reader, because it takes the lone surrogates that tests want to see on the wire.
            told = msgspec.convert(json.loads(body) if body.strip() else {}, order)
            return _reply(200, await run_in_threadpool(handler, request.path_params, told))
        except (ValueError, msgspec.ValidationError) as error:
            return _reply(422, {"error": {"code": "invalid", "message": str(error)}})
        except ApiError as error:
            return _reply(error.status, {"error": error.document()})

    return endpoint


def _reply(status: int, document: object) -> Response:
    return Response(json.dumps(document), status, media_type="application/json")


def _seconds(late: float | str | None) -> float | None:
    return NEVER if isinstance(late, str) else late


def _server_document(server: Server) -> dict[str, object]:
    return {
        "id": server.id,
        "name": server.name,
        "verified": server.verified,
        "scanning": server.scanning_until is not None,
        "last_scan": server.last_scan,
    }


def _software_documents(installed: Iterable[Installed]) -> list[object]:
    return [json.loads(software_document(one, Style.PLAIN, exploits=True)) for one in installed]


def _numbered(fields: dict[str, Any], number: int) -> dict[str, Any]:
    name = fields.get("canonical_name", fields.get("name", "software"))
    return {**fields, "canonical_name": f"{name}-{number}"}
