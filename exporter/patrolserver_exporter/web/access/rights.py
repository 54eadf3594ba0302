"""Who asks, from where, and whether they may: networks, proxies, bearer tokens and requests that browsers forge.

That a connection comes over loopback gives no right: behind a proxy on the machine everybody's does.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from patrolserver_exporter.config.schema import ApiToken
from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.web.http.problems import Problem
from patrolserver_exporter.web.http.server import LOOPBACK_STATE, is_loopback, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from starlette.types import Scope

    from patrolserver_exporter.config.schema import Network
    from patrolserver_exporter.config.secret import Secret

Address = IPv4Address | IPv6Address

PRINCIPAL_STATE = "principal"
ALL_RIGHTS = frozenset(Right)
OPERATOR = "of the machine's operator"
"""The name of the token that the exporter itself makes up."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a token or a user by name, and what they may do."""

    name: str
    rights: frozenset[Right]
    is_token: bool = False


ANYONE = Principal("", frozenset({Right.READ}))
"""The principal when no authentication is required."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request is refused."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def problem(self) -> Problem:
        """Return the answer."""
        return Problem(self.status, detail=self.detail, headers=self.headers)


class BearerTokens:
    """The API's tokens, and that of the machine's operator, which may do everything.

    Several may be valid at once; a reload replaces those of the API.
    """

    def __init__(
        self, tokens: Iterable[ApiToken] = (), *, operator: Secret | None = None, guards_metrics: bool = False
    ) -> None:
        self._tokens = tuple(tokens)
        self._operators = () if operator is None else (ApiToken(name=OPERATOR, token=operator, scopes=ALL_RIGHTS),)
        self._guards_metrics = guards_metrics

    def replace(self, tokens: Iterable[ApiToken], *, guards_metrics: bool = False) -> None:
        """Take these tokens from now on."""
        self._tokens = tuple(tokens)
        self._guards_metrics = guards_metrics

    def __bool__(self) -> bool:
        """Whether there are tokens of the API."""
        return bool(self._tokens)

    @property
    def guards_metrics(self) -> bool:
        """Whether a scrape needs a token."""
        return self._guards_metrics

    @property
    def guards_reading(self) -> bool:
        """Whether a token is meant for reading, so that reading is not open to all."""
        return any(Right.READ in token.scopes for token in self._tokens)

    def principal(self, candidate: str) -> Principal | None:
        """Return whose token that is. All are compared, by their hashes, so that the time taken tells nothing."""
        found = None
        given = _digest(candidate)
        for token in (*self._tokens, *self._operators):
            if hmac.compare_digest(given, _digest(token.token.reveal())):
                found = Principal(token.name, token.scopes, is_token=True)
        return found


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of that lower-case name, as Latin-1."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def principal_of(scope: Scope) -> Principal | None:
    """Return whom `Guard` found to be asking; None for nobody."""
    found = scope.get("state", {}).get(PRINCIPAL_STATE)
    return found if isinstance(found, Principal) else None


def authorise(scope: Scope, right: Right, tokens: BearerTokens) -> Principal | Denied:
    """Return who may do it, or why not. `Guard` has to stand before the application.

    A token needs the right; a user of basic auth has all. Without either, reading is open unless a token is meant
    for it, and nothing else is. What changes something is refused to other web sites, which could make a browser send
    it with the password that it knows.
    """
    principal = principal_of(scope)
    if principal is None:
        if right is Right.READ and not tokens.guards_reading:
            return ANYONE
        return _needs_token(f"a token of api.tokens with the scope {right}")
    if right is not Right.READ and not principal.is_token and _is_cross_site(scope):
        return Denied(403, "Another web site may not do this in your browser's name.")
    if right in principal.rights:
        return principal
    return Denied(403, f"The token {principal.name} lacks the scope {right}; add it in api.tokens.")


def authorise_scrape(scope: Scope, tokens: BearerTokens) -> Principal | Denied:
    """Return who may read the metrics, or why not. Tokens of the API alone close them to nobody."""
    if not tokens.guards_metrics:
        return ANYONE
    if principal_of(scope) is None:
        return _needs_token("a token of api.tokens with the scope read (web.metrics_need_token)")
    return authorise(scope, Right.READ, tokens)


def _needs_token(what: str) -> Denied:
    detail = (
        f"Send {what}, as Authorization: Bearer, or be a user of basic_auth_users. On the exporter's own machine"
        " patrolserver-exporter.token, beside its state, holds one."
    )
    return Denied(401, detail, {"www-authenticate": "Bearer"})


def deny_foreign_host(scope: Scope, external_url: str) -> Denied | None:
    """Return why a request to a loopback listener is refused for its Host; None when it is not.

    A web site can have its name point to 127.0.0.1; the browser then takes what is read there for the site's own.
    """
    if not scope.get("state", {}).get(LOOPBACK_STATE, False):
        return None
    name = _host_name(header(scope, b"host") or "")
    if is_loopback(name) or (name and name == _external_name(external_url)):
        return None
    detail = (
        "The Host of a request to a listener on loopback has to be a name of loopback, such as 127.0.0.1 or localhost,"
        " or that of --web.external-url: set it to the address under which people reach the exporter."
    )
    return Denied(403, detail)


def _external_name(url: str) -> str:
    return urlsplit(url).hostname or ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_cross_site(scope: Scope) -> bool:
    if (header(scope, b"sec-fetch-site") or "none") not in {"none", "same-origin"}:
        return True
    origin = header(scope, b"origin")
    if origin is None:
        return False
    host = header(scope, b"host") or ""
    return origin.lower() not in {f"http://{host.lower()}", f"https://{host.lower()}"}


def open_reading_warning(addresses: Iterable[str], tokens: BearerTokens, *, has_users: bool) -> str | None:
    """Return what to log once at the start when whoever reaches the listeners may read; None when that is not so."""
    if has_users or (tokens.guards_reading and tokens.guards_metrics):
        return None
    if tokens.guards_reading:
        # On loopback too: whoever closes the rest has others on the machine, or a proxy there.
        return (
            f"everybody who reaches {', '.join(addresses)} can read the metrics, and in them which software is"
            " outdated: tokens with the scope read close the API and the pages alone; set web.metrics_need_token and"
            " give Prometheus a token, or set basic_auth_users in the web configuration file"
        )
    open_to_all = [address for address in addresses if not is_loopback_listener(address)]
    if not open_to_all:
        return None
    return (
        f"everybody who reaches {', '.join(open_to_all)} can read which software is outdated; set api.tokens with the"
        " scope read, or basic_auth_users in the web configuration file, or listen on loopback"
    )


def useless_closing_warning(tokens: BearerTokens, *, has_users: bool) -> str | None:
    """Return what to log once at the start when no Prometheus can read the metrics; None when one can."""
    if not tokens.guards_metrics or tokens.guards_reading or has_users:
        return None
    return (
        "web.metrics_need_token is set, and no token of api.tokens has the scope read, so that no Prometheus can read"
        " the metrics: add one, and give it to Prometheus"
    )


def is_loopback_listener(address: str) -> bool:
    """Whether an address to listen on is only reached from the machine itself; raises `ListenError`."""
    return is_loopback(parse_address(address).host)


def client_address(scope: Scope, trusted_proxies: Sequence[Network]) -> Address | None:
    """Return who really asks; None when the connection has no address.

    X-Forwarded-For is read from right to left for as long as what stands there is a trusted proxy; it is never read
    when the connection itself is not from one. What is no address ends the reading.
    """
    client = scope.get("client")
    address = _parse_ip(client[0]) if client else None
    if address is None:
        return None
    for hop in reversed(_hops(scope)):
        if not _is_within(address, trusted_proxies):
            break
        before = _parse_ip(hop)
        if before is None:
            break
        address = before
    return address


def _hops(scope: Scope) -> list[str]:
    values = [str(value, "latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return ",".join(values).split(",") if values else []


def _parse_ip(text: str) -> Address | None:
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return _unmapped(ip_address(text))
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    # A dual-stack socket shows IPv4 clients as ::ffff:192.0.2.1.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def is_allowed(address: Address | None, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks; without networks every address is."""
    return not networks or (address is not None and _is_within(_unmapped(address), networks))
