"""Every call of docs/patrolserver-api.md: what it does and returns. No HTTP here; see ``api`` for that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .software import Installed, Kind, trouble
from .wire import (
    Style,
    envelope,
    event_reply,
    host_taken,
    host_unresolved,
    invalid,
    not_found,
    php_json,
    software_document,
    software_list,
    styled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .accounts import Account
    from .world import Server, World


@dataclass(frozen=True, slots=True)
class Call:
    """One call, understood: credentials checked, form read, ids taken from the path."""

    world: World
    style: Style
    account: Account
    """Whose key and secret came; of calls without credentials the demo account."""
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, Any] = field(repr=False)

    @property
    def scopes(self) -> frozenset[str]:
        """``scope=a,b`` (C)."""
        return frozenset(self.query.get("scope", "").split(","))

    def number(self, name: str, what: str) -> int:
        """An id of the path; what is not a number does not exist."""
        # The scanner cuts ids out of the JSON as they stand there: of a string it keeps the quotes.
        text = self.path[name].strip('"')
        if not (text.isascii() and text.isdigit() and len(text) < 17):
            raise not_found(what)
        return int(text)

    def text(self, name: str) -> str:
        """A field of the form, ``""`` when it is missing."""
        value = self.form.get(name, "")
        return value if isinstance(value, str) else ""

    def server(self) -> Server:
        """The server of the path."""
        return self.world.server(self.account, self.number("server", "Server"))

    def software(self) -> Installed:
        """The software of the path."""
        wanted = self.number("software", "Software")
        for installed in self.world.installed(self.server()):
            if installed.id == wanted:
                return installed
        raise not_found("Software")

    def data(self, data: object) -> bytes:
        """A reply in the envelope."""
        return envelope(data, self.style)

    def without_envelope(self, document: object) -> bytes:
        """A reply whose fields stand at the top."""
        return php_json(styled(document, self.style))


def get_user(call: Call) -> bytes:
    """The account."""
    return call.data(call.account.document())


def update_user(call: Call) -> bytes:
    """A new e-mail address."""
    call.world.accounts.move(call.account, call.text("email"))
    return call.data(call.account.document())


def delete_user(call: Call) -> bytes:
    """The account is gone."""
    call.world.remove_account(call.account)
    return call.data(data=True)


def register(call: Call) -> bytes:
    """A new account with its key and secret."""
    if not call.text("password") or call.text("password") != call.text("password_confirmation"):
        raise invalid("The password confirmation does not match.")
    return call.data(call.world.accounts.add(call.text("email"), call.text("password")).credentials())


def request_api_credentials(call: Call) -> bytes:
    """Log in; the only call whose reply never had an envelope."""
    world = call.world
    return call.without_envelope(
        world.accounts.logged_in(call.text("email"), call.text("password"), world.now()).credentials()
    )


def server_exists(call: Call) -> bytes:
    """Whether the host is free. The scanner reads ``exists`` at the top, other replies have an envelope: both."""
    host = call.query.get("host", "").strip().lower().rstrip(".")
    if "." not in host or host.endswith(".invalid"):
        raise host_unresolved()
    if call.world.host_exists(host):
        raise host_taken()
    return call.without_envelope({"data": {"exists": False}, "exists": False})


def list_servers(call: Call) -> bytes:
    """All servers of the account."""
    if call.scopes & {"exploitable", "status"}:
        return call.data([_server(call, server) for server in call.world.servers(call.account)])
    kept, asked = call.world.kept_lists, (call.account.id, call.style)
    with call.world.lock:
        version, reply = kept.get(asked, (-1, b""))
        if version != call.world.list_version:
            reply = call.data([_server(call, server) for server in call.world.servers(call.account)])
            kept[asked] = call.world.list_version, reply
    return reply


def get_server(call: Call) -> bytes:
    """One server."""
    return call.data(_server(call, call.server()))


def add_server(call: Call) -> bytes:
    """A new server, not verified."""
    return call.data(_server(call, call.world.add_server(call.account, call.text("domain"))))


def delete_server(call: Call) -> bytes:
    """The server is gone."""
    call.world.remove_server(call.server())
    return call.data(data=True)


def request_verification_token(call: Call) -> bytes:
    """What ``verify`` asks for; without credentials."""
    domain = call.query.get("domain", "")
    if not domain:
        raise invalid("The domain is required.")
    return call.data({"token": call.world.verification_token(domain)})


def verify_server(call: Call) -> bytes:
    """Prove that the server is one's own."""
    server = call.server()
    call.world.verify(server, call.text("token"))
    return call.data(_server(call, server))


def scan_server(call: Call) -> bytes:
    """Start a scan."""
    call.world.start_scan(call.server())
    return call.data(data=True)


def is_scanning(call: Call) -> bytes:
    """``true`` or ``false`` as ``data``."""
    return call.data(call.world.is_scanning(call.server()))


def list_software(call: Call) -> bytes:
    """The software of a server."""
    return software_list(call.world.installed(call.server()), call.style, exploits="exploits" in call.scopes)


def get_software(call: Call) -> bytes:
    """One software."""
    return b'{"data":%b}' % software_document(call.software(), call.style, exploits="exploits" in call.scopes)


def list_exploits(call: Call) -> bytes:
    """The exploits of one software."""
    installed = call.software()
    return call.data(
        (installed.overrides or {}).get("exploits", [one.document() for one in installed.software.exploits])
    )


def list_buckets(call: Call) -> bytes:
    """The buckets of a server."""
    buckets = call.world.buckets.of(call.server().id, call.world.now())
    return call.data([bucket.document() for bucket in buckets])


def get_bucket(call: Call) -> bytes:
    """One bucket."""
    return call.data(call.world.buckets.find(call.server().id, call.path["key"], call.world.now()).document())


def push_bucket(call: Call) -> bytes:
    """Make or replace a bucket; ``scope=silent`` leaves its software out of the reply."""
    expire = call.form.get("expire")
    if expire in (None, ""):
        seconds = None
    else:
        text = str(expire)
        if not (text.isascii() and text.isdigit()):
            raise invalid("The expire must be a number of seconds.")
        seconds = int(text)
    with call.world.lock:
        bucket = call.world.buckets.push(
            call.server().id, call.path["key"], call.form.get("software"), seconds, call.world.now()
        )
    return call.data(bucket.document(silent="silent" in call.scopes))


def delete_bucket(call: Call) -> bytes:
    """The bucket is gone; the SDK says that a number comes back."""
    with call.world.lock:
        call.world.buckets.remove(call.server().id, call.path["key"], call.world.now())
    return call.data(1)


def get_event(call: Call) -> bytes:
    """An event's data, for 30 days."""
    webhook_id, event_id = call.number("webhook", "Webhook"), call.number("event", "Event")
    event = call.world.outbox.find(webhook_id, event_id)
    if event is None or event.account_id != call.account.id:
        raise not_found("Event")
    return event_reply(event.data, call.style)


def _server(call: Call, server: Server) -> dict[str, object]:
    document: dict[str, object] = {"id": server.id, "name": server.name, "verified": server.verified}
    if call.scopes & {"exploitable", "status"}:
        troubles = {trouble(one.software) for one in call.world.installed(server)}
        if "exploitable" in call.scopes:
            document["exploitable"] = Kind.EXPLOITABLE in troubles
        if "status" in call.scopes:
            worst = (Kind.EXPLOITABLE, Kind.UNSUPPORTED, Kind.OUTDATED)
            document["status"] = next((kind.value for kind in worst if kind in troubles), "ok")
    return document


OPEN = frozenset({register, request_api_credentials, server_exists, request_verification_token})
"""Calls without credentials (C)."""

READ_BY_WGET = OPEN | {update_user}
"""Calls whose errors the scanner reads: with wget, which shows no body but that of a 200."""

ROUTES: tuple[tuple[str, str, Callable[[Call], bytes]], ...] = (
    ("GET", "user", get_user),
    ("POST", "user", update_user),
    ("POST", "user/update", update_user),
    ("POST", "user/delete", delete_user),
    ("POST", "users", register),
    ("POST", "user/request_api_credentials", request_api_credentials),
    ("GET", "serverExists", server_exists),
    ("GET", "request_verification_token", request_verification_token),
    ("GET", "servers", list_servers),
    ("POST", "servers", add_server),
    ("GET", "servers/:server", get_server),
    ("POST", "servers/:server/delete", delete_server),
    ("POST", "servers/:server/verify", verify_server),
    ("POST", "servers/:server/scan", scan_server),
    ("GET", "servers/:server/isScanning", is_scanning),
    ("GET", "servers/:server/software", list_software),
    ("GET", "servers/:server/software/:software", get_software),
    ("GET", "servers/:server/software/:software/exploits", list_exploits),
    *(
        row
        for folder in ("software_bucket", "buckets")
        for row in (
            ("GET", f"servers/:server/{folder}", list_buckets),
            ("GET", f"servers/:server/{folder}/:key", get_bucket),
            ("POST", f"servers/:server/{folder}/:key", push_bucket),
            ("POST", f"servers/:server/{folder}/:key/delete", delete_bucket),
        )
    ),
    ("GET", "webhooks/:webhook/events/:event", get_event),
)
