"""From a request to its handler: method, rights, parameters, body, the servers meant, and errors as problems."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response

from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreBusy, StoreError, queries
from patrolserver_exporter.store.queries import MAX_GLOBS, Selector
from patrolserver_exporter.store.queries import servers_meant as find
from patrolserver_exporter.web.access import Denied, authorise, header
from patrolserver_exporter.web.api.types import Cursor, time_of
from patrolserver_exporter.web.http.requests import PLAIN_HEADERS, ApiError, BodyError, ClientGone, Problem, read_body
from patrolserver_exporter.web.rooms import Room, Shared
from patrolserver_exporter.web.selection import Chosen, Labels, NoLabel, NoSuch, label_of, refuse_unknown
from patrolserver_exporter.web.spreadsheet import Streamed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import sqlalchemy as sa
    from starlette.types import Receive, Scope, Send

    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.store.queries import ServerKey
    from patrolserver_exporter.web.api.changes import Feed
    from patrolserver_exporter.web.api.refreshes import Refreshes
    from patrolserver_exporter.web.context import WebContext


MAX_BODY_BYTES = 256 * 1024
MAX_BODY_VALUES = 1_000_000
_SHORT = 16 * 1024
"""Bytes that are decoded at once; more is decoded outside of the event loop."""
T = TypeVar("T")


async def read_json(scope: Scope, receive: Receive, limit: int = MAX_BODY_BYTES) -> Any:
    """The decoded body; raises `ApiError` or `BodyError` with the answer for what is wrong with it."""
    media_type = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, "Send JSON, with Content-Type: application/json.", headers={"accept": "application/json"})
    raw = await read_body(scope, receive, limit)
    return decode(raw) if len(raw) <= _SHORT else await in_thread(decode, raw)


def decode(raw: bytes) -> Any:
    """The value of a JSON text; a 400 that says what is wrong."""
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_BODY_VALUES:
        raise ApiError(400, f"The body holds over {MAX_BODY_VALUES} values.")
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_float=_number, parse_constant=_no_number
        )
        # Only by an escape does text come in that is not Unicode, or a NUL.
        text = json.dumps(value, ensure_ascii=False) if b"\\u" in raw else ""
        text.encode("utf-8")
    except UnicodeError:
        raise ApiError(400, "The body holds text that is not Unicode.") from None
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    except ValueError as error:
        raise ApiError(400, f"The body cannot be taken: {error}.") from None
    if "\\u0000" in text:
        raise ApiError(400, "The body holds a NUL character.")
    return value


def convert(value: Any, kind: type[T]) -> T:
    """The value as that type; a 400 that names the place where it does not fit."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = where.strip("`.") or "the body"
        if "unknown field" in what:
            what += f"; there are: {', '.join(_members(kind, where.strip('`.')))}"
        raise ApiError(400, f"Wrong at {place}: {what}.", at=place) from None


def _members(kind: Any, place: str) -> tuple[str, ...]:
    """The members of the object at that place of a body, in which a step is a member's name or ``[…]``."""
    for step in (step for step in _STEP.split(place) if step):
        kinds = _structs_in(kind)
        kind = get_type_hints(kinds[0])[_attribute(kinds[0], step)]
    return _structs_in(kind)[0].__struct_encode_fields__


_STEP = re.compile(r"\.|\[[^\]]*\]")


def _attribute(kind: type[msgspec.Struct], member: str) -> str:
    return kind.__struct_fields__[kind.__struct_encode_fields__.index(member)]


def _structs_in(kind: Any) -> list[type[msgspec.Struct]]:
    """The structs that a type is, may be or holds."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [found for part in get_args(kind) for found in _structs_in(part)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _number(text: str) -> float:
    """JSON has one kind of number: 1.0 is as good as 1."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


MAX_PARAMETERS = 1000
_Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Text = Annotated[str, msgspec.Meta(max_length=1024)]
_Account = Annotated[str, msgspec.Meta(max_length=1024, extra_json_schema={"format": "account-name"})]
_Label = Annotated[str, msgspec.Meta(max_length=1024, extra_json_schema={"format": "label"})]
Q = TypeVar("Q", bound=msgspec.Struct)


class IssueState(StrEnum):
    """Which issues a list has."""

    OPEN = "open"
    FIXED = "fixed"
    ALL = "all"


class Waived(StrEnum):
    """Whether waived issues are wanted."""

    TRUE = "true"
    FALSE = "false"
    BOTH = "both"


class NoParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None."""


class OneServer(NoParameters, frozen=True, kw_only=True):
    """Which account's server is meant."""

    account: _Text | None = None


class Format(StrEnum):
    """How a list is given: pages of JSON, or whole as CSV."""

    JSON = "json"
    CSV = "csv"


class Paging(NoParameters, frozen=True, kw_only=True):
    """A page of a list."""

    limit: _Limit = 100
    cursor: Cursor | None = None


class Listing(Paging, frozen=True, kw_only=True):
    """A page of a list, or all of it as CSV, where limit and cursor mean nothing."""

    format: Format = Format.JSON


class SoftwareQuery(Listing, frozen=True, kw_only=True):
    """A page of a server's software."""

    account: _Text | None = None


class ServerIssuesQuery(Listing, frozen=True, kw_only=True):
    """Which issues of a server a list has."""

    account: _Text | None = None
    severity: tuple[Severity, ...] = ()
    kind: tuple[Kind, ...] = ()
    software: tuple[_Text, ...] = ()
    """Globs on the canonical name."""
    exploit: tuple[_Text, ...] = ()
    """Globs on the id or the CVE of an exploit."""
    waived: Waived | None = None
    state: IssueState = IssueState.OPEN


class Selection(NoParameters, frozen=True, kw_only=True):
    """The filters that all lists over the fleet take alike. What is given several times is one or the other."""

    account: tuple[_Account, ...] = ()
    """Those that are watched."""
    server: tuple[_Text, ...] = ()
    """Ids, names or globs on names."""
    label: tuple[_Label, ...] = ()
    """Labels of accounts[].labels, as name=value or name=glob."""
    severity: tuple[Severity, ...] = ()
    kind: tuple[Kind, ...] = ()
    software: tuple[_Text, ...] = ()
    """Globs on the canonical name."""
    exploit: tuple[_Text, ...] = ()
    """Globs on the id or the CVE of an exploit."""
    waived: Waived | None = None


class FleetQuery(Selection, frozen=True, kw_only=True):
    """Which items a list over the fleet has, and which page of it."""

    limit: _Limit = 100
    cursor: Cursor | None = None
    format: Format = Format.JSON


class IssuesQuery(FleetQuery, frozen=True, kw_only=True):
    """Which issues a list has."""

    state: IssueState = IssueState.OPEN


class ChangesQuery(NoParameters, frozen=True, kw_only=True):
    """Where the feed goes on, and how long to wait for something new."""

    after: Cursor | None = None
    """A cursor, or ``latest``; without it the feed starts with the oldest change that is kept."""
    wait: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    """Seconds."""
    limit: _Limit = 100


class InboxQuery(Paging, frozen=True, kw_only=True):
    """Which deliveries a list has."""

    state: tuple[DeliveryState, ...] = ()
    account: tuple[_Text, ...] = ()


def is_repeatable(kind: type[msgspec.Struct], name: str) -> bool:
    """Whether the parameter may be given several times."""
    return get_origin(get_type_hints(kind)[name]) is tuple


def read(query_string: bytes, kind: type[Q]) -> Q:
    """The parameters; a 400 that names what is unknown, doubled or wrong."""
    given: dict[str, list[str]] = defaultdict(list)
    try:
        pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise ApiError(400, f"There are over {MAX_PARAMETERS} query parameters.") from None
    for name, value in pairs:
        given[name].append(value)
    known = kind.__struct_fields__
    unknown = sorted(set(given) - set(known))
    if unknown:
        names = ", ".join(known) or "none"
        raise ApiError(400, f"Unknown query parameter {unknown[0][:100]!r}; there are: {names}.", unknown=unknown[:20])
    return _converted({name: _values(kind, name, values) for name, values in given.items()}, kind)


def _values(kind: type[msgspec.Struct], name: str, values: list[str]) -> str | list[str]:
    if any("\0" in value for value in values):
        raise ApiError(400, f"Query parameter {name} holds a NUL character.")
    if is_repeatable(kind, name):
        return values
    if len(values) > 1:
        raise ApiError(400, f"Query parameter {name} is given {len(values)} times; give it once.")
    return values[0]


def _choices(kind: type[msgspec.Struct], name: str) -> list[str]:
    """The words that a parameter takes; empty when it takes others too."""
    hint = get_type_hints(kind).get(name)
    enums = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, StrEnum)]
    return [choice.value for enum in enums for choice in enum]


def _converted(given: dict[str, str | list[str]], kind: type[Q]) -> Q:
    try:
        read = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`")
        choices = _choices(kind, name.partition("[")[0])
        what = f"it has to be one of {', '.join(choices)}" if choices else what
        raise ApiError(400, f"Query parameter {name or '?'} is wrong: {what}.") from None
    for name, value in msgspec.structs.asdict(read).items():
        if value is None and name in given:
            # The text "null" is no word of any parameter.
            raise ApiError(400, f"Query parameter {name} is wrong: null is no value; leave it out.")
        if isinstance(value, float) and not math.isfinite(value):
            raise ApiError(400, f"Query parameter {name} has to be a number.")
    return read


def selectors_of(asked: Iterable[int | str]) -> tuple[Selector, ...]:
    """Read them, each once; a 400 when there are too many globs."""
    try:
        return queries.selectors_of(asked)
    except queries.TooManyGlobs as error:
        raise ApiError(400, str(error)) from None


def only_one(connection: sa.Connection, asked: str, account: str | None, watched: Sequence[str] = ()) -> ServerKey:
    """The server that a path means; a 404 when there is none, a 409 that tells them apart when there are several.

    ``watched`` are the accounts that there are.
    """
    selector = Selector.of(asked, globs=False)
    servers = find(connection, [selector], watched if account is None else (account,))[selector]
    # The id goes before the name: a server whose name is another's id can still be found by its own id.
    servers = [server for server in servers if server.server_id == selector.number] or servers
    if not servers:
        raise _missing(connection, selector, account, watched)
    if len(servers) > 1:
        accounts = sorted({server.account for server in servers})
        ids = sorted({server.server_id for server in servers})
        ask = "say which with ?account=" if len(accounts) > 1 else "ask by id"
        detail = f"There are {len(servers)} servers {asked!r}; {ask}."
        raise ApiError(409, detail, accounts=accounts, ids=ids)
    return servers[0].key


def _missing(connection: sa.Connection, selector: Selector, account: str | None, watched: Sequence[str]) -> ApiError:
    """A 404, that tells of a server that was there once."""
    accounts = watched if account is None else (account,)
    gone = [] if selector.name is None else queries.gone_servers(connection, selector.number, selector.name, accounts)
    where = "" if account is None else f" in account {account!r}"
    if not gone:
        return ApiError(404, f"There is no server {selector.asked!r}{where}; /api/v1/servers lists them.")
    removed = [
        {"account": server.account, "id": server.server_id, "name": server.name, "removed_at": _rfc3339(at)}
        for server, at in gone
    ]
    detail = (
        f"There is no server {selector.asked!r}{where} any more: account {removed[0]['account']} lost it at"
        f" {removed[0]['removed_at']}. It was removed at PatrolServer, or servers.include and servers.exclude leave it"
        " out."
    )
    return ApiError(404, detail, removed=removed)


def _rfc3339(at: float) -> str:
    return time_of(at).isoformat(timespec="seconds").replace("+00:00", "Z")


_WAIVED = {None: None, Waived.BOTH: None, Waived.TRUE: True, Waived.FALSE: False}


def chosen_by(query: Selection | ServerIssuesQuery) -> Chosen:
    """What a list's filters ask for, whose accounts and labels there are; a 400 for too many globs."""
    labels: tuple[tuple[str, str], ...] = ()
    accounts: tuple[str, ...] = ()
    servers: tuple[Selector, ...] = ()
    if isinstance(query, Selection):
        accounts, servers = query.account, selectors_of(query.server)
        labels = tuple(label_of(text) for text in query.label)
    globs = len(labels) + len(query.software) + len(query.exploit)
    if globs > MAX_GLOBS:
        raise ApiError(400, f"There are {globs} globs, and {MAX_GLOBS} are allowed.")
    return Chosen(
        accounts=accounts,
        servers=servers,
        labels=labels,
        severities=query.severity,
        kinds=query.kind,
        software=query.software,
        exploits=query.exploit,
        waived=_WAIVED[query.waived],
    )


def servers_chosen_by(query: Selection) -> Chosen:
    """The same for a list of servers: an issue that is waived does not count, unless that was asked for."""
    chosen = chosen_by(query)
    if query.waived is None and chosen.by_issue:
        return msgspec.structs.replace(chosen, waived=False)
    return chosen


Q_co = TypeVar("Q_co", bound=msgspec.Struct, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """What the handlers share."""

    context: WebContext
    feed: Feed
    refreshes: Refreshes
    gates: Shared = field(default_factory=lambda: Shared(Room("the gate", at_once=2, queue=64)))
    """Of a few servers."""
    fleet_gates: Shared = field(default_factory=lambda: Shared(Room("the gate for many servers", at_once=1, queue=32)))
    """Of many: the few do not wait for these."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.context.clock.now()

    def accounts(self) -> tuple[str, ...]:
        """The accounts that are watched."""
        return tuple(status.name for status in self.context.accounts.statuses())

    def labels(self) -> Labels:
        """The labels that the configuration in force gives servers."""
        return Labels(self.context.config())

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Read one state of the store; raises what the work raises."""
        return await self.context.store.read_async(work)

    async def write(self, work: Callable[[Unit], T]) -> T:
        """Do a unit of work that needs no lease, and wait for it; raises what it raises."""
        # Shielded, so that a client that hangs up does not take back what is being written.
        return await asyncio.shield(asyncio.wrap_future(self.context.store.submit_anywhere(work)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Q_co]):
    """One request."""

    query: Q_co
    path: Mapping[str, str]
    """The variable parts of the path, decoded."""
    scope: Scope = field(repr=False)
    receive: Receive = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a value that is written as JSON, or JSON that is ready as bytes, or nothing, or parts one by one."""

    value: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: AsyncIterator[bytes] | None = None
    """Of a body too long to be held as a whole; its type stands in the headers."""


Handler = Callable[[Api, Call[Any]], Awaitable[Reply]]
"""Answers one kind of call; the query's type is the operation's."""


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Do what takes a while outside of the event loop."""
    return await asyncio.to_thread(work, *arguments)


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """One thing that the API can do. Routes and the OpenAPI document are made from these."""

    name: str
    method: str
    path: str
    """Below ``/api/v1``; variable parts in braces."""
    summary: str
    handler: Handler
    right: Right = Right.READ
    query: type[msgspec.Struct] = NoParameters
    body: Any = None
    """The type of the JSON body; ``None``: a body is not looked at."""
    status: int = 200
    answer: Any = None
    """The type of the answer; ``None``: nothing, or JSON without a type of its own."""
    problems: tuple[int, ...] = ()
    """Further errors, beyond those that every operation may have."""
    csv: str | None = None
    """The first line of the answer as CSV; ``None``: there is none."""
    example: Any = None
    body_example: Any = None


class Endpoint:
    """ASGI application of one path: its operations, by method."""

    def __init__(self, api: Api, operations: Sequence[Operation]) -> None:
        self._api = api
        self._by_method = {operation.method: operation for operation in operations}
        if "GET" in self._by_method:
            self._by_method["HEAD"] = self._by_method["GET"]
        self._allow = ", ".join(sorted(self._by_method))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            response = await self._answer(scope, receive)
        except ApiError as error:
            response = error.problem()
        except ClientGone:
            return
        except BodyError as error:
            response = error.problem()
        except StoreBusy as error:
            detail = f"{error} Nothing is wrong; ask again later."
            response = Problem(503, detail=detail, headers={"retry-after": "5"})
        except StoreError as error:
            log.warning("The API cannot read the store", extra=log_fields(err=str(error)))
            detail = "The store cannot serve right now; the exporter's log has the reason. Try again later."
            response = Problem(503, detail=detail, headers={"retry-after": "5"}, trouble="store")
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        operation = self._by_method.get(scope["method"])
        if operation is None:
            return Problem(405, detail=f"Allowed here: {self._allow}.", headers={"allow": self._allow})
        allowed = authorise(scope, operation.right, self._api.context.tokens)
        if isinstance(allowed, Denied):
            return allowed.problem()
        path = scope["path_params"]
        if any("\0" in part for part in path.values()):
            raise ApiError(404, "A path never holds a NUL character.")
        query = read(scope["query_string"], operation.query)
        if isinstance(query, Selection) and (query.account or query.label):
            _refuse_unknown(query, self._api)
        return _response(await operation.handler(self._api, Call(query=query, path=path, scope=scope, receive=receive)))


def _refuse_unknown(query: Selection, api: Api) -> None:
    try:
        refuse_unknown(query.account, query.label, api.accounts(), api.labels())
    except NoLabel as error:
        raise ApiError(400, f"Query parameter label is wrong: {error}") from None
    except NoSuch as error:
        raise ApiError(400, str(error)) from None


def _response(reply: Reply) -> Response:
    headers = {**PLAIN_HEADERS, **reply.headers}
    if reply.parts is not None:
        return Streamed(reply.parts, headers, reply.status)
    if reply.value is None:
        return Response(status_code=reply.status, headers=headers)
    content = reply.value if isinstance(reply.value, bytes) else msgspec.json.encode(reply.value)
    return Response(content, reply.status, headers, media_type="application/json")
