from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
from starlette.responses import PlainTextResponse

from patrolserver_exporter.config.schema import ApiToken
from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.web.access import (
    MAX_CACHED,
    MAX_WAITING,
    BearerTokens,
    Guard,
    PasswordCheck,
    RateLimiter,
    principal_of,
)
from patrolserver_exporter.web.http.server import LOOPBACK_STATE
from patrolserver_exporter.web.http.web_config import RateLimit, WebConfigFile

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send


def hashed(password: bytes, cost: int = 4) -> str:
    return bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode()


@pytest.mark.parametrize("prefix", ["2a", "2b", "2y"])
def test_password(prefix: str) -> None:
    """The right password of a user is right, whatever tool made the hash; everything else is wrong."""
    users = {"alice": hashed(b"right").replace("$2b$", f"${prefix}$")}
    check = PasswordCheck()

    async def ask(name: str, password: bytes) -> bool | None:
        return await check.check(users, name, password)

    assert asyncio.run(ask("alice", b"right")) is True
    assert asyncio.run(ask("alice", b"wrong")) is False
    assert asyncio.run(ask("alice", b"")) is False
    assert asyncio.run(ask("bob", b"right")) is False
    assert asyncio.run(ask("\udcff", b"right")) is False
    assert asyncio.run(ask("bob", b"fakepassword")) is False


def test_long_password() -> None:
    """A password beyond bcrypt's 72 bytes is wrong, also when its beginning is right."""
    users = {"alice": hashed(b"x" * 72)}
    check = PasswordCheck()

    assert asyncio.run(check.check(users, "alice", b"x" * 72)) is True
    assert asyncio.run(check.check(users, "alice", b"x" * 73)) is False
    assert asyncio.run(check.check(users, "alice", b"x" * 100_000)) is False
    assert asyncio.run(check.check(users, "alice", b"a\0b")) is False


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What bcrypt was asked to do, in order: the cost of each hash, on which alone the time of a check depends."""
    asked: list[int] = []
    checkpw = bcrypt.checkpw

    def counted(password: bytes, hashed_password: bytes) -> bool:
        asked.append(int(hashed_password[4:6]))
        return checkpw(password, hashed_password)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    return asked


@pytest.mark.parametrize(
    ("name", "password"),
    [("bob", b"wrong"), ("bob", b"x" * 73), ("alice", b"x" * 73)],
    ids=["unknown", "unknown-too-long", "known-too-long"],
)
def test_unknown_user_takes_as_long(costs: list[int], name: str, password: bytes) -> None:
    """The time taken does not tell whether a user exists: each refusal costs one check of the costliest hash."""
    users = {"carol": hashed(b"right", 4), "alice": hashed(b"right", 6), "dave": hashed(b"right", 5)}
    check = PasswordCheck()

    assert asyncio.run(check.check(users, "alice", b"wrong")) is False
    assert asyncio.run(check.check(users, name, password)) is False
    assert asyncio.run(check.check(users, name, password)) is False
    assert costs == [6, 6, 6]


def test_a_cost_has_two_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown user costs as much as one whose hash is as costly as is usual today."""
    asked: list[str] = []
    monkeypatch.setattr(bcrypt, "checkpw", lambda _password, known: asked.append(known[4:6].decode()))
    users = {"alice": hashed(b"right").replace("$04$", "$12$")}

    assert asyncio.run(PasswordCheck().check(users, "bob", b"wrong")) is False
    assert asked == ["12"]


def test_right_password_is_checked_once(costs: list[int]) -> None:
    """A right password costs bcrypt's time once, for as long as the hash stays."""
    users = {"alice": hashed(b"right", 5)}
    check = PasswordCheck()

    async def ask() -> list[bool | None]:
        return [await check.check(users, "alice", b"right") for _ in range(100)]

    assert all(asyncio.run(ask()))
    assert costs == [5]
    assert asyncio.run(check.check({"alice": hashed(b"other")}, "alice", b"right")) is False
    assert costs == [5, 4]


def test_memory_of_passwords_is_bounded() -> None:
    """However many users there are, the memory of right passwords stays small, and all stay right."""
    one = hashed(b"right")
    users = {f"user{number}": one for number in range(MAX_CACHED + 20)}
    check = PasswordCheck()

    async def ask_all() -> list[bool | None]:
        return [await check.check(users, name, b"right") for name in users]

    assert all(asyncio.run(ask_all()))
    assert all(asyncio.run(ask_all()))
    assert len(check._right) == MAX_CACHED  # noqa: SLF001 - memory has no other window


def test_a_password_that_is_used_stays_in_memory(costs: list[int]) -> None:
    """What is forgotten first was used longest ago."""
    one = hashed(b"right")
    users = {f"user{number}": one for number in range(MAX_CACHED + 1)}
    check = PasswordCheck()

    async def ask() -> None:
        for name in [*list(users)[:-1], "user0", f"user{MAX_CACHED}"]:
            assert await check.check(users, name, b"right")
        costs.clear()
        assert await check.check(users, "user0", b"right")
        assert costs == []
        assert await check.check(users, "user1", b"right")
        assert costs == [4]

    asyncio.run(ask())


def test_a_password_is_right_for_its_user_and_hash_alone() -> None:
    """Whatever of it is in memory; and so is that an unknown user's is wrong."""
    hash_of_all = hashed(b"right")
    check = PasswordCheck()

    async def ask(users: dict[str, str], name: str, password: bytes) -> bool | None:
        return await check.check(users, name, password)

    assert asyncio.run(ask({"alice": hash_of_all}, "alice", b"right")) is True
    assert asyncio.run(ask({"alice": hash_of_all}, "alic", b"right")) is False
    assert asyncio.run(ask({"bob": hash_of_all}, "alice", b"right")) is False
    assert asyncio.run(ask({"bob": hash_of_all}, "alice", b"right")) is False


def test_so_many_passwords_wait_at_most() -> None:
    """Who comes then is told so at once, and is served later; a right password that is in memory always is."""
    users = {"alice": hashed(b"right")}
    check = PasswordCheck()

    async def ask() -> None:
        assert await check.check(users, "alice", b"right") is True
        together = [check.check(users, "alice", b"wrong%d" % number) for number in range(MAX_WAITING + 2)]
        answers = await asyncio.gather(*together, check.check(users, "alice", b"right"))
        assert answers == [False] * MAX_WAITING + [None, None, True]
        assert await check.check(users, "alice", b"wrong") is False

    asyncio.run(ask())


def test_rate_limiter() -> None:
    """The burst is let through, then one an interval; a long silence saves up no more than the burst."""
    now = [0.0]
    limiter = RateLimiter(lambda: now[0])
    limit = RateLimit(interval=2.0, burst=3)

    assert [limiter.wait(limit) for _ in range(4)] == [0, 0, 0, 2.0]
    now[0] = 1.0
    assert limiter.wait(limit) == 1.0
    now[0] = 2.0
    assert [limiter.wait(limit) for _ in range(2)] == [0, 2.0]
    now[0] = 1000.0
    assert [limiter.wait(limit) for _ in range(4)] == [0, 0, 0, 2.0]
    assert limiter.wait(RateLimit()) == 0
    assert limiter.wait(limit) == 2.0
    assert [limiter.wait(RateLimit(interval=4.0, burst=1)) for _ in range(2)] == [0, 4.0]


READER = ApiToken(name="grafana", token=Secret.literal("token-to-read"), scopes=frozenset({Right.READ}))
REFRESHER = ApiToken(name="ansible", token=Secret.literal("token-to-refresh"), scopes=frozenset({Right.REFRESH}))
BASIC = "Basic " + base64.b64encode(b"alice:right").decode()


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    principal = principal_of(scope)
    await PlainTextResponse(principal.name if principal else "nobody")(scope, receive, send)


@pytest.fixture
def with_users(tmp_path: Path) -> WebConfigFile:
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{alice: {hashed(b'right')}}}\n")
    return WebConfigFile(tmp_path / "web.yml")


def ask(
    guard: Guard, path: str, authorization: str | None = None, *, loopback_host: bytes | None = None
) -> tuple[int, dict[str, str], str]:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    state = {}
    if loopback_host is not None:
        headers.append((b"host", loopback_host))
        state[LOOPBACK_STATE] = True
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "headers": headers, "state": state}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    answer = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answer, sent[1]["body"].decode()


@pytest.mark.parametrize(
    ("path", "authorization", "status", "name"),
    [
        ("/metrics", None, 401, None),
        ("/metrics", BASIC, 200, "alice"),
        ("/metrics", BASIC.replace("Basic", "bAsIc"), 200, "alice"),
        ("/metrics", "Basic ", 401, None),
        ("/metrics", "Basic !!!", 401, None),
        ("/metrics", "Basic \xe9", 401, None),
        ("/metrics", "Basic " + base64.b64encode(b"no colon").decode(), 401, None),
        ("/metrics", "Basic " + base64.b64encode(b"alice:wrong").decode(), 401, None),
        ("/metrics", "Basic " + base64.b64encode(b"\xff:right").decode(), 401, None),
        ("/metrics", "Digest x", 401, None),
        ("/metrics", "Bearer token-to-read", 200, "grafana"),
        ("/metrics", "Bearer token-to-refresh", 403, None),
        ("/metrics", "  bEARER   token-to-read  ", 200, "grafana"),
        ("/metrics", "Token token-to-read", 401, None),
        ("/metrics", "Bearer wrong", 401, None),
        ("/api/v1/servers/1/refresh", "Bearer token-to-refresh", 200, "ansible"),
        ("/-/reload", "Bearer token-to-refresh", 200, "ansible"),
        ("/-/reload", None, 401, None),
        ("/-/healthy", None, 200, "nobody"),
        ("/-/ready", "Basic !!!", 200, "nobody"),
        ("/-/ready/", None, 401, None),
        ("/webhook/token", None, 200, "nobody"),
        ("/webhook", None, 401, None),
        ("/webhooks", None, 401, None),
    ],
)
def test_guard(with_users: WebConfigFile, path: str, authorization: str | None, status: int, name: str | None) -> None:
    """With users all but health and the webhook needs one of them, or a token."""
    guard = Guard(who, with_users, BearerTokens([READER, REFRESHER]))
    got, headers, body = ask(guard, path, authorization)

    assert got == status
    if name is not None:
        assert body == name
    if status == 401:
        assert headers["www-authenticate"].startswith("Bearer" if "Bearer" in str(authorization) else "Basic")
        assert headers["content-type"] == "application/problem+json"


def test_a_wrong_token_is_nobody_where_users_are_asked_for(with_users: WebConfigFile) -> None:
    """Also where there are no tokens at all, or only that of the operator."""
    operators = Guard(who, with_users, BearerTokens(operator=Secret.literal("token-of-the-operator")))
    for guard in (Guard(who, with_users), operators):
        status, headers, body = ask(guard, "/metrics", "Bearer wrong")
        assert (status, headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
        assert "The token that was sent is unknown." in body
    assert ask(operators, "/-/reload", "Bearer token-of-the-operator")[2] == "of the machine's operator"


def test_who_comes_when_too_many_passwords_are_checked(with_users: WebConfigFile) -> None:
    """It is neither let in nor told that its password is wrong."""
    guard = Guard(who, with_users)
    guard._passwords._waiting = MAX_WAITING  # noqa: SLF001 - as if so many waited
    status, headers, body = ask(guard, "/metrics", BASIC)
    assert (status, headers["retry-after"]) == (503, "5")
    assert "Too many passwords are being checked; try again." in body


def test_a_rate_limit_holds_for_all_but_health_and_the_webhook(tmp_path: Path) -> None:
    """Who is over it is told when to come again, in whole seconds and never sooner."""
    (tmp_path / "web.yml").write_text("rate_limit: {interval: 10s, burst: 1}\n")
    now = [0.0]
    guard = Guard(who, WebConfigFile(tmp_path / "web.yml"), monotonic=lambda: now[0])
    assert ask(guard, "/metrics")[0] == 200
    for passed, wait in ((0.0, "10"), (0.6, "10"), (9.9, "1")):
        now[0] = passed
        status, headers, body = ask(guard, "/metrics")
        assert (status, headers["retry-after"]) == (429, wait)
        assert "more requests than rate_limit of the web configuration file allows" in body
        for path in ("/-/healthy", "/-/ready", "/webhook/token"):
            assert ask(guard, path)[0] == 200
    now[0] = 10.0
    assert ask(guard, "/metrics")[0] == 200


def test_configured_headers_take_the_place_of_our_own(tmp_path: Path) -> None:
    """On every answer, a refusal too; all others stay."""
    text = (
        f"basic_auth_users: {{alice: {hashed(b'right')}}}\nhttp_server_config:\n  headers: {{X-Frame-Options: deny}}\n"
    )
    (tmp_path / "web.yml").write_text(text)

    async def framed(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("", headers={"X-FRAME-options": "sameorigin", "x-other": "1"})(scope, receive, send)

    guard = Guard(framed, WebConfigFile(tmp_path / "web.yml"))
    allowed, denied = ask(guard, "/metrics", BASIC), ask(guard, "/metrics")
    assert (allowed[0], denied[0]) == (200, 401)
    assert (allowed[1]["x-frame-options"], allowed[1]["x-other"]) == ("deny", "1")
    assert denied[1]["x-frame-options"] == "deny"


def test_guard_below_a_prefix(with_users: WebConfigFile) -> None:
    """A route prefix moves the paths that need nobody."""
    guard = Guard(who, with_users, route_prefix="/patrol/")

    assert ask(guard, "/patrol/-/healthy")[0] == 200
    assert ask(guard, "/patrol/webhook/token")[0] == 200
    assert ask(guard, "/patrol/metrics")[0] == 401


def test_guard_without_users() -> None:
    """Without users all is open, and who sends a token is known by it; a wrong one is refused."""
    guard = Guard(who, None, BearerTokens([READER]))

    assert ask(guard, "/metrics")[2] == "nobody"
    assert ask(guard, "/metrics", "Bearer token-to-read")[2] == "grafana"
    assert ask(guard, "/metrics", "Bearer wrong")[0] == 401
    assert ask(guard, "/metrics", BASIC)[2] == "nobody"
    assert ask(Guard(who), "/metrics", "Bearer wrong")[2] == "nobody"


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/servers", "/-/reload", "/-/healthy", "/webhook/token"])
def test_guard_of_a_loopback_listener(path: str) -> None:
    """A foreign Host comes to health and the webhook only; that of the external URL is at home."""
    guard = Guard(who, external_url="https://patrol.example.org")
    open_to_all = path in {"/-/healthy", "/webhook/token"}

    assert ask(guard, path, loopback_host=b"attacker.example.org")[0] == (200 if open_to_all else 403)
    for known in (b"patrol.example.org", b"localhost:10058"):
        assert ask(guard, path, loopback_host=known)[0] == 200


def test_guard_lets_other_scopes_pass() -> None:
    """What is not HTTP is not the guard's business."""
    seen = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_args: Any) -> Any:
        raise AssertionError

    asyncio.run(Guard(app)({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"]
