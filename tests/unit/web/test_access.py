from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.config.schema import ApiToken
from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.web.access import (
    ALL_RIGHTS,
    PRINCIPAL_STATE,
    BearerTokens,
    Denied,
    Principal,
    authorise,
    authorise_known,
    authorise_scrape,
    client_address,
    deny_foreign_host,
    is_allowed,
    is_loopback_listener,
    open_reading_warning,
    principal_of,
    useless_closing_warning,
)
from patrolserver_exporter.web.http.server import LOOPBACK_STATE

if TYPE_CHECKING:
    from collections.abc import Callable

READ = ApiToken(name="grafana", token=Secret.literal("token-to-read"), scopes=frozenset({Right.READ}))
REFRESH = ApiToken(name="ansible", token=Secret.literal("token-to-refresh"), scopes=frozenset({Right.REFRESH}))
OPERATOR = Secret.literal("token-of-the-operator")


def request(
    *headers: tuple[str, str],
    client: str | None = "192.0.2.1",
    loopback: bool = False,
    principal: Principal | None = None,
) -> dict[str, Any]:
    state: dict[str, Any] = {LOOPBACK_STATE: loopback}
    if principal:
        state[PRINCIPAL_STATE] = principal
    return {
        "type": "http",
        "client": (client, 1234) if client else None,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "state": state,
    }


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1,10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ['"198.51.100.1", "10.0.0.2"'], "198.51.100.1"),
        ("10.0.0.1", ['"[2001:db8::1]:4711"'], "2001:db8::1"),
        ("10.0.0.1", ["198.51.100.1:47:11"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["' OR 1=1 --, \xff"], "10.0.0.1"),
    ],
)
def test_client_address(client: str, forwarded: list[str], expected: str) -> None:
    """The client is what the last trusted proxy saw; no client can name itself."""
    scope = request(*(("X-Forwarded-For", value) for value in forwarded), client=client)

    assert client_address(scope, [ip_network("10.0.0.0/8")]) == ip_address(expected)


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_client_address_of_rubbish(value: str) -> None:
    """Whatever stands in the header, there is an address."""
    assert client_address(request(("X-Forwarded-For", value), client="10.0.0.1"), [ip_network("10.0.0.0/8")])


def test_no_client_address() -> None:
    """A connection without an address has no client's, and is in no network."""
    assert client_address(request(client=None), []) is None
    assert not is_allowed(None, [ip_network("0.0.0.0/0")])
    assert is_allowed(None, [])


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("192.0.2.1", True),
        ("::ffff:192.0.2.1", True),
        ("192.0.3.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
    ],
)
def test_is_allowed(address: str, allowed: bool) -> None:  # noqa: FBT001 - what is expected
    """An address is allowed when a network of its own version holds it, mapped or not."""
    networks = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")]

    assert is_allowed(ip_address(address), networks) is allowed


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("LOCALHOST:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        (":1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("example.org:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_is_loopback_listener(address: str, loopback: bool) -> None:  # noqa: FBT001 - what is expected
    """Only what nobody else can reach is loopback."""
    assert is_loopback_listener(address) is loopback


def test_bearer_tokens() -> None:
    """Each of the tokens tells its name and rights; nothing else does; a reload replaces all but the operator's."""
    tokens = BearerTokens([READ, REFRESH], operator=OPERATOR)

    assert tokens.principal("token-to-read") == Principal("grafana", READ.scopes, is_token=True)
    assert tokens.principal("token-to-refresh") == Principal("ansible", REFRESH.scopes, is_token=True)
    for wrong in ("", "token-to-rea", "token-to-read ", "TOKEN-TO-READ", "\udcff"):
        assert tokens.principal(wrong) is None
    tokens.replace([REFRESH])
    assert tokens.principal("token-to-read") is None
    operator = tokens.principal("token-of-the-operator")
    assert operator is not None
    assert operator.rights == ALL_RIGHTS


def test_the_operators_token_closes_nothing() -> None:
    """It is always there, and reading stays open without others."""
    tokens = BearerTokens(operator=OPERATOR)

    assert not tokens
    assert not tokens.guards_reading


def test_a_reload_closes_and_opens_the_metrics() -> None:
    """As it says, and they are open where it says nothing."""
    tokens = BearerTokens([READ])
    guarded = [tokens.guards_metrics]
    tokens.replace([READ], guards_metrics=True)
    guarded.append(tokens.guards_metrics)
    tokens.replace([READ])
    assert [*guarded, tokens.guards_metrics] == [False, True, False]


def test_nobody_is_known_by_what_others_leave_in_the_state() -> None:
    """Only a principal of `Guard` is one; a scope without a state has none."""
    assert principal_of({"headers": []}) is None
    assert principal_of({"headers": [], "state": {PRINCIPAL_STATE: "alice"}}) is None
    assert principal_of(request(principal=Principal("alice", ALL_RIGHTS))) == Principal("alice", ALL_RIGHTS)
    assert deny_foreign_host({"headers": []}, "") is None


def status(verdict: Principal | Denied) -> int:
    return verdict.status if isinstance(verdict, Denied) else 200


NOBODY: tuple[ApiToken, ...] = ()


@pytest.mark.parametrize(
    ("tokens", "right", "expected"),
    [
        (NOBODY, Right.READ, 200),
        (NOBODY, Right.REFRESH, 401),
        (NOBODY, Right.RELOAD, 401),
        ((READ,), Right.READ, 401),
        ((READ,), Right.INBOX, 401),
        ((REFRESH,), Right.READ, 200),
        ((REFRESH,), Right.REFRESH, 401),
    ],
)
@pytest.mark.parametrize("loopback", [False, True])
def test_without_credentials(
    tokens: tuple[ApiToken, ...],
    loopback: bool,  # noqa: FBT001 - a parameter of the test
    right: Right,
    expected: int,
) -> None:
    """Reading is open unless a token is meant for it, and nothing else ever is, also not on loopback."""
    known = BearerTokens(tokens, operator=OPERATOR)
    verdict = authorise(request(("Host", "localhost:10058"), loopback=loopback), right, known)

    assert status(verdict) == expected
    if isinstance(verdict, Denied):
        assert verdict.headers["www-authenticate"] == "Bearer"
        assert "patrolserver-exporter.token" in verdict.detail


@pytest.mark.parametrize("judge", [authorise, authorise_known])
@pytest.mark.parametrize("tokens", [(), (REFRESH,)])
def test_an_unknown_token_is_told_to_be_unknown(
    judge: Callable[..., Principal | Denied], tokens: tuple[ApiToken, ...]
) -> None:
    """Also without api.tokens: who read the operator's file before the last start is told to read it again."""
    asked = request(("Authorization", "bearer of-the-start-before"))
    denied = judge(asked, Right.REFRESH, BearerTokens(tokens, operator=OPERATOR))
    assert isinstance(denied, Denied)
    assert denied.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert denied.detail.startswith(
        "The token that was sent is unknown. Needed is a token of api.tokens with the scope refresh."
    )
    assert "read it again" in denied.detail

    without_file = judge(asked, Right.REFRESH, BearerTokens(tokens))
    assert isinstance(without_file, Denied)
    assert "patrolserver-exporter.token" not in without_file.detail


@pytest.mark.parametrize(
    ("tokens", "principal", "expected"),
    [
        (NOBODY, None, 401),
        ((READ,), None, 401),
        ((READ,), Principal("ansible", REFRESH.scopes, is_token=True), 403),
        (NOBODY, Principal("grafana", READ.scopes, is_token=True), 200),
    ],
)
def test_what_only_the_known_may_read(tokens: tuple[ApiToken, ...], principal: Principal | None, expected: int) -> None:
    """It needs the scope read, also where reading is open to all."""
    verdict = authorise_known(request(principal=principal), Right.READ, BearerTokens(tokens))

    assert status(verdict) == expected
    if expected == 401:
        assert isinstance(verdict, Denied)
        assert verdict.detail.startswith("Send a token of api.tokens with the scope read, as Authorization: Bearer")


@pytest.mark.parametrize(
    ("guarded", "principal", "expected"),
    [
        (False, None, 200),
        (False, Principal("ansible", REFRESH.scopes, is_token=True), 200),
        (True, None, 401),
        (True, Principal("ansible", REFRESH.scopes, is_token=True), 403),
        (True, Principal("prometheus", READ.scopes, is_token=True), 200),
        (True, Principal("alice", ALL_RIGHTS), 200),
    ],
)
def test_scrapes(
    guarded: bool,  # noqa: FBT001 - a parameter of the test
    principal: Principal | None,
    expected: int,
) -> None:
    """A token for somebody else breaks no scrape; only `web.metrics_need_token` makes a scrape need one."""
    verdict = authorise_scrape(request(principal=principal), BearerTokens([READ, REFRESH], guards_metrics=guarded))

    assert status(verdict) == expected


def test_rights() -> None:
    """A token may do what its scopes say, a user everything."""
    tokens = BearerTokens([READ, REFRESH])
    reader = Principal("grafana", READ.scopes, is_token=True)

    assert authorise(request(principal=reader), Right.READ, tokens) == reader
    denied = authorise(request(principal=reader, loopback=True), Right.RELOAD, tokens)
    assert isinstance(denied, Denied)
    assert denied.status == 403
    assert "grafana lacks the scope reload" in denied.detail
    assert all(
        status(authorise(request(principal=Principal("alice", ALL_RIGHTS)), right, tokens)) == 200 for right in Right
    )


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:10058", True),
        ("LOCALHOST", True),
        ("127.0.0.1:10058", True),
        ("[::1]:10058", True),
        ("patrol.example.org", True),
        ("Patrol.Example.Org:443", True),
        (None, False),
        ("", False),
        ("attacker.example.org", False),
        ("localhost.attacker.example.org", False),
        ("192.0.2.1:10058", False),
        ("[::1", False),
        ("attacker.example.org@127.0.0.1", False),
        ("attacker.example.org\\@localhost", False),
        ("localhost/attacker.example.org", False),
        ("localhost#attacker.example.org", False),
        ("127.0.0.1:attacker", False),
        ("127.0.0.1, attacker.example.org", False),
    ],
)
def test_the_host_of_a_loopback_listener(host: str | None, allowed: bool) -> None:  # noqa: FBT001 - what is expected
    """It is a name of loopback or that of the external URL; elsewhere any will do."""
    headers = () if host is None else (("Host", host),)

    denied = deny_foreign_host(request(*headers, loopback=True), "https://patrol.example.org/ps")
    assert (denied is None) is allowed
    if denied is not None:
        assert denied.status == 403
        assert "--web.external-url" in denied.detail
    assert deny_foreign_host(request(*headers), "") is None
    if host is not None and "example" in host:
        assert deny_foreign_host(request(*headers, loopback=True), "") is not None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("Host", "localhost:10058")], 200),
        ([("Host", "127.0.0.1:10058")], 200),
        ([("Host", "[::1]:10058"), ("Origin", "http://[::1]:10058")], 200),
        ([("Host", "localhost:10058"), ("Origin", "http://LOCALHOST:10058")], 200),
        ([("Host", "Localhost:10058"), ("Origin", "https://localhost:10058")], 200),
        ([("Host", "localhost:10058"), ("Sec-Fetch-Site", "same-origin")], 200),
        ([("Host", "localhost:10058"), ("Origin", "http://localhost:10058"), ("Sec-Fetch-Site", "cross-site")], 403),
        ([("Host", "localhost:10058"), ("Sec-Fetch-Site", "none")], 200),
        ([("Host", "localhost:10058"), ("Origin", "http://localhost:3000")], 403),
        ([("Host", "localhost:10058"), ("Origin", "https://attacker.example.org")], 403),
        ([("Host", "localhost:10058"), ("Origin", "null")], 403),
        ([("Host", "localhost:10058"), ("Sec-Fetch-Site", "cross-site")], 403),
        ([("Host", "localhost:10058"), ("Sec-Fetch-Site", "same-site")], 403),
    ],
)
def test_other_web_sites(headers: list[tuple[str, str]], expected: int) -> None:
    """Another site cannot use a browser that knows a password to change something."""
    user = Principal("alice", ALL_RIGHTS)

    assert status(authorise(request(*headers, principal=user), Right.REFRESH, BearerTokens())) == expected
    assert status(authorise(request(*headers, loopback=True), Right.READ, BearerTokens())) == 200
    assert (
        status(
            authorise(
                request(*headers, principal=Principal("x", ALL_RIGHTS, is_token=True)), Right.REFRESH, BearerTokens()
            )
        )
        == 200
    )


def test_open_reading_warning() -> None:
    """That reading is open is worth a warning, unless only the machine itself can read or somebody is asked for."""
    warning = open_reading_warning([":10058", "127.0.0.1:1"], BearerTokens([REFRESH]), has_users=False)

    assert warning is not None
    assert "reaches :10058 can" in warning
    for address in (":10058", "127.0.0.1:10058"):
        of_metrics = open_reading_warning([address], BearerTokens([READ]), has_users=False)
        assert of_metrics is not None
        assert "can read the metrics" in of_metrics
        assert "web.metrics_need_token" in of_metrics
    assert open_reading_warning([":10058"], BearerTokens([READ], guards_metrics=True), has_users=False) is None
    assert open_reading_warning([":10058"], BearerTokens(), has_users=True) is None
    assert open_reading_warning([":10058"], BearerTokens([READ]), has_users=True) is None
    assert open_reading_warning([":10058"], BearerTokens([REFRESH], guards_metrics=True), has_users=False) is not None
    assert "reaches :1, :2 can" in str(open_reading_warning([":1", ":2"], BearerTokens(), has_users=False))
    assert "reaches :1, :2 can" in str(open_reading_warning([":1", ":2"], BearerTokens([READ]), has_users=False))
    assert open_reading_warning(["127.0.0.1:1"], BearerTokens(), has_users=False) is None


def test_useless_closing_warning() -> None:
    """Metrics that no Prometheus can read are worth a warning."""
    warning = useless_closing_warning(BearerTokens([REFRESH], guards_metrics=True), has_users=False)

    assert warning is not None
    assert "web.metrics_need_token" in warning
    assert useless_closing_warning(BearerTokens([READ], guards_metrics=True), has_users=False) is None
    assert useless_closing_warning(BearerTokens(guards_metrics=True), has_users=True) is None
    assert useless_closing_warning(BearerTokens(), has_users=False) is None
