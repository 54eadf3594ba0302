"""The API over HTTP: paths with and without their prefix, credentials, forms, envelopes, faults, a log of the calls."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from .endpoints import OPEN, READ_BY_WGET, ROUTES, Call, request_api_credentials
from .exchange import Answer, Exchange
from .faults import FaultKind, Faults, faulty, misbehave
from .replies import Request, altered_reply
from .wire import ApiError, Style, not_found, php_json, styled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from .replies import Replies
    from .world import World

CONTROL = "/-/simulator"
MAX_BODY = 64 * 1024 * 1024
_PREFIX = ["extern", "api"]
_NESTED = re.compile(r"([^\[]+)((?:\[[^\]]*\])+)")
MAX_FIELDS = 2_000_000


@dataclass(frozen=True, slots=True)
class Route:
    """A call that docs/patrolserver-api.md lists."""

    label: str
    """``GET servers/:server/software``: what the log counts it as."""
    parts: tuple[str, ...]
    endpoint: Callable[[Call], bytes]


class RequestLog:
    """How often each call came, and the last of them; never their query, which holds the secret."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, int]] = Counter()
        self._recent: deque[dict[str, object]] = deque(maxlen=1000)

    def note(self, label: str, path: str, status: int, at: float) -> None:
        """One call; ``status`` 0 when it got no answer."""
        with self._lock:
            self._counts[label, status] += 1
            self._recent.append({"at": at, "endpoint": label, "path": path, "status": status})

    def document(self) -> dict[str, object]:
        """``{total, by_endpoint: {label: {count, statuses}}, recent}``."""
        by_endpoint: dict[str, dict[str, object]] = {}
        with self._lock:
            for label in sorted({label for label, _ in self._counts}):
                statuses = {str(status): n for (one, status), n in self._counts.items() if one == label}
                by_endpoint[label] = {"count": sum(statuses.values()), "statuses": statuses}
            return {"total": self._counts.total(), "by_endpoint": by_endpoint, "recent": list(self._recent)}

    def count(self, label: str) -> int:
        """How often that call came, whatever became of it."""
        with self._lock:
            return sum(n for (one, _), n in self._counts.items() if one == label)

    def clear(self) -> None:
        """Start counting from 0."""
        with self._lock:
            self._counts.clear()
            self._recent.clear()


class Api:
    """The ASGI application; what is not the API goes to ``control``."""

    def __init__(
        self,
        world: World,
        *,
        style: Style,
        faults: Faults,
        replies: Replies,
        control: ASGIApp,
    ) -> None:
        self.world = world
        self.style = style
        self.requests = RequestLog()
        self.closing = asyncio.Event()
        """Set on the loop when the simulator stops: faults that wait stop waiting."""
        self._faults, self._replies, self._control = faults, replies, control
        self._routes: dict[tuple[str, int], list[Route]] = {}
        for method, path, endpoint in ROUTES:
            parts = tuple(path.split("/"))
            self._routes.setdefault((method, len(parts)), []).append(Route(f"{method} {path}", parts, endpoint))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        if scope["path"].startswith(CONTROL):
            await self._control(scope, receive, send)
            return
        method = scope["method"]
        prefix, parts = _split(scope["raw_path"].partition(b"?")[0].decode("latin-1"))
        path = "/".join(parts)
        exchange = Exchange(scope, receive, send)
        try:
            body = await _body(receive)
        except ApiError as error:
            await exchange.answer(self._refusal(error))
            return
        struck = self._faults.striking(method, path)
        await self._pause(sum(fault.seconds for fault in struck if fault.kind is FaultKind.LATENCY))
        label, answer = self._answer(scope, prefix, parts, body)
        fault = next((one for one in struck if one.kind is not FaultKind.LATENCY), None)
        if fault is not None:
            answer = faulty(fault, answer)
        # Counted before it is sent: a client that has the answer finds it counted.
        status = 0 if fault is not None and fault.kind is FaultKind.HANG else answer.status
        self.requests.note(label, path, status, self.world.now())
        if fault is None:
            await exchange.answer(answer)
        else:
            await misbehave(fault, answer, exchange, self._pause)

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        try:
            await asyncio.wait_for(self.closing.wait(), seconds)
        except TimeoutError:
            return

    def _answer(self, scope: Scope, prefix: str, parts: Sequence[str], body: bytes) -> tuple[str, Answer]:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        label, forgiving = "other", b"x-ps-bash" in headers
        try:
            route, path = self._route(scope["method"], prefix, parts)
            label, forgiving = route.label, forgiving or route.endpoint in READ_BY_WGET
            query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
            answer = Answer(200, self._called(route, path, query, headers, body))
            return label, self._as_ordered(Request(label, path, query, _url(scope, headers)), answer)
        except ApiError as error:
            return label, self._refusal(error, forgiving=forgiving)

    def _as_ordered(self, request: Request, answer: Answer) -> Answer:
        rule = self._replies.rule_for(request, answer.body)
        return answer if rule is None else altered_reply(rule, request, answer.body, self.style)

    def _refusal(self, error: ApiError, *, forgiving: bool = False) -> Answer:
        document = styled({"error": error.document()}, self.style)
        return Answer(200 if forgiving else error.status, php_json(document))

    def _called(
        self, route: Route, path: Mapping[str, str], query: Mapping[str, str], headers: Mapping[bytes, str], body: bytes
    ) -> bytes:
        world = self.world
        if route.endpoint in OPEN:
            account = world.demo
        else:
            account = world.accounts.authenticated(query.get("key", ""), query.get("secret", ""))
        fields = form(body, headers.get(b"content-type", "")) if body else {}
        return route.endpoint(Call(world, self.style, account, path, query, fields))

    def _route(self, method: str, prefix: str, parts: Sequence[str]) -> tuple[Route, dict[str, str]]:
        for route in self._routes.get((method, len(parts)), ()):
            if all(part == wanted or wanted.startswith(":") for part, wanted in zip(parts, route.parts, strict=True)):
                if prefix == "api" and route.endpoint is not request_api_credentials:
                    break
                pairs = zip(route.parts, parts, strict=True)
                return route, {wanted[1:]: part for wanted, part in pairs if wanted.startswith(":")}
        raise not_found("The call")


def _url(scope: Scope, headers: Mapping[bytes, str]) -> str:
    """Where the call went, without its query."""
    return f"http://{headers.get(b'host', '')}{scope['raw_path'].partition(b'?')[0].decode('latin-1')}"


def _split(raw_path: str) -> tuple[str, list[str]]:
    parts = [unquote(part) for part in raw_path.split("/") if part]
    if parts[:2] == _PREFIX:
        return "extern/api", parts[2:]
    if parts[:1] == _PREFIX[1:]:
        return "api", parts[1:]
    return "", parts


async def _body(receive: Receive) -> bytes:
    """The body; of a client that goes away as far as it came.

    Raises:
        ApiError: 413, it is too large.
    """
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY:
            raise ApiError(413, "too_large", "The body is too large.")
        more = message.get("more_body", False)
    return b"".join(chunks)


def form(body: bytes, content_type: str) -> dict[str, Any]:
    """The posted fields: ``a=1`` and ``a[0][n]=php`` as PHP would see them; a JSON object is taken as well.

    Raises:
        ApiError: 400, the body is neither.
    """
    if content_type.partition(";")[0].strip().lower() == "application/json":
        return _json_object(body)
    fields: dict[str, Any] = {}
    try:
        pairs = parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise ApiError(400, "invalid", "The body has too many fields.") from None
    for name, value in pairs:
        nested = _NESTED.fullmatch(name)
        if nested:
            _put(fields, [nested[1], *re.findall(r"\[([^\]]*)\]", nested[2])], value)
        else:
            fields[name] = value
    return fields


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body or b"{}")
    except ValueError:
        raise ApiError(400, "invalid", "The body is not JSON.") from None
    if not isinstance(document, dict):
        raise ApiError(400, "invalid", "The body is not a JSON object.")
    return document


def _put(fields: dict[str, Any], path: list[str], value: str) -> None:
    for step in path[:-1]:
        inner = fields.get(step)
        if not isinstance(inner, dict):
            inner = fields[step] = {}
        fields = inner
    fields[path[-1] or str(len(fields))] = value
