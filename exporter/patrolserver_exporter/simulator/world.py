"""The simulated PatrolServer: accounts, servers, scans, buckets, events and webhooks. No HTTP; time is passed in."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from .accounts import Account, Accounts
from .buckets import Buckets
from .fleet import server_name, software_of
from .software import Change, Installed, Kind, Software, applied, new_issue, trouble
from .webhooks import Outbox
from .wire import host_taken, invalid, not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .options import SimulatorOptions
    from .webhooks import Event, Webhook

SCAN_STARTED, NEW_ISSUES, SCAN_FINISHED = "webhook.scan_started", "webhook.new_server_issues", "webhook.scan_finished"
SCAN_EVENTS = frozenset({SCAN_STARTED, NEW_ISSUES, SCAN_FINISHED})
_IDS_PER_SERVER = 100_000
_FIRST_EXTRA_ID = 10**12
"""Ids of software that was not there from the start."""


@dataclass(slots=True)
class Server:
    """A watched server."""

    id: int
    name: str
    account_id: int
    verified: bool
    index: int | None = None
    """Its place in the fleet; ``None``: a client or a test added it."""
    scanning_until: float | None = None
    last_scan: float | None = None
    scan_events: frozenset[str] = SCAN_EVENTS
    """What is told of the scan that is running."""


class World:
    """All state behind the API. Safe to use from several threads.

    ``clock`` tells seconds since the epoch; ``deliver`` is called with each webhook and its event once that can be
    fetched, with the world locked: it must not wait.
    """

    def __init__(
        self,
        options: SimulatorOptions,
        *,
        clock: Callable[[], float] = time.time,
        deliver: Callable[[Webhook, Event], None] = lambda _webhook, _event: None,
    ) -> None:
        self.options = options
        self.lock = threading.RLock()
        self.woken = threading.Event()
        """Set when a scan starts; before that a caller of ``tick`` has nothing to look for."""
        self.accounts = Accounts(options.seed)
        self.buckets = Buckets()
        self.list_version = 0
        """Grows whenever the list of servers changes."""
        self.kept_lists: dict[tuple[int, str], tuple[int, bytes]] = {}
        """Finished lists of servers by account and style, with the version they show: benchmarks ask for 100,000."""
        self.demo = self.accounts.add(options.email, options.password, key=options.key, secret=options.secret)
        self._clock, self._ahead = clock, 0.0
        self.outbox = Outbox(self.now, deliver)
        self._servers: dict[int, Server] = {}
        self._changed: dict[int, tuple[Installed, ...]] = {}
        self._pending: dict[int, list[tuple[Change, bool]]] = {}
        self._scanning: set[int] = set()
        self._extra_ids, self._exploit_ids = count(_FIRST_EXTRA_ID), count(1001)
        self._server_ids = count(1)
        for index in range(options.servers):
            server_id = next(self._server_ids)
            self._servers[server_id] = Server(server_id, server_name(index), self.demo.id, index % 9 != 8, index)
        for url in options.webhook_urls or (None,):
            self.outbox.add_webhook(self.demo.id, url, options.webhook_format)

    def now(self) -> float:
        """Seconds since the epoch, as the simulator sees them."""
        return self._clock() + self._ahead

    def advance(self, seconds: float) -> None:
        """Set the simulator's clock ahead: scans end, buckets and events expire."""
        with self.lock:
            self._ahead += seconds
            self.tick()

    # Servers

    def servers(self, account: Account) -> list[Server]:
        """The account's servers, oldest first."""
        with self.lock:
            return [server for server in self._servers.values() if server.account_id == account.id]

    def server(self, account: Account, server_id: int) -> Server:
        """One server of the account.

        Raises:
            ApiError: 404, there is none.
        """
        server = self._servers.get(server_id)
        if server is None or server.account_id != account.id:
            raise not_found("Server")
        return server

    def named(self, name: str) -> Server:
        """The server of that name, or with that id in digits, of any account.

        Raises:
            ApiError: 404, there is none.
        """
        with self.lock:
            if name.isascii() and name.isdigit() and int(name) in self._servers:
                return self._servers[int(name)]
            for server in self._servers.values():
                if server.name == name:
                    return server
        raise not_found(f"Server {name}")

    def host_exists(self, host: str) -> bool:
        """Whether the host, or a subdomain of it, is somebody's server."""
        with self.lock:
            return any(one.name == host or one.name.endswith(f".{host}") for one in self._servers.values())

    def add_server(
        self,
        account: Account,
        name: str,
        *,
        software: Iterable[Software] | None = None,
        verified: bool = False,
        server_id: int | None = None,
    ) -> Server:
        """A new server; without ``software`` nothing is known of it until a client pushes a bucket and it is scanned.

        ``server_id`` is for one that takes the id of a server that was removed.

        Raises:
            ApiError: 422, the name is empty or the id is taken; 15, the name is taken.
        """
        with self.lock:
            self._refuse_name(name)
            if server_id is None:
                server_id = next(number for number in self._server_ids if number not in self._servers)
            elif server_id in self._servers:
                raise invalid(f"Server {server_id} exists; remove it first.")
            server = Server(server_id, name, account.id, verified)
            self._servers[server_id] = server
            self._changed[server_id] = tuple(Installed(next(self._extra_ids), one) for one in software or ())
            self.list_version += 1
            return server

    def rename(self, server: Server, name: str) -> None:
        """The server has another name from now on, and is the same in all else.

        Raises:
            ApiError: 422, the name is empty; 15, the name is taken.
        """
        with self.lock:
            if name != server.name:
                self._refuse_name(name)
            server.name = name
            self.list_version += 1

    def _refuse_name(self, name: str) -> None:
        if not name.strip():
            raise invalid("The domain is required.")
        if any(server.name == name for server in self._servers.values()):
            raise host_taken()

    def remove_server(self, server: Server) -> None:
        """The server and all that is known of it is gone."""
        with self.lock:
            self._servers.pop(server.id, None)
            self._changed.pop(server.id, None)
            self._pending.pop(server.id, None)
            self._scanning.discard(server.id)
            self.buckets.forget(server.id)
            self.list_version += 1

    def remove_account(self, account: Account) -> None:
        """The account, its servers and its webhooks are gone."""
        with self.lock:
            for server in self.servers(account):
                self.remove_server(server)
            self.outbox.remove_account(account.id)
            self.accounts.remove(account)

    def verification_token(self, domain: str) -> str:
        """What proves the ownership of a domain."""
        return hashlib.sha256(f"{self.options.seed}:verify:{domain}".encode(errors="replace")).hexdigest()[:40]

    def verify(self, server: Server, token: str) -> None:
        """Mark the server as verified.

        Raises:
            ApiError: 422, it is not that server's token.
        """
        if token != self.verification_token(server.name):
            raise invalid("The verification token is not valid.")
        with self.lock:
            server.verified = True
            self.list_version += 1

    # Software

    def installed(self, server: Server) -> tuple[Installed, ...]:
        """The server's software as the last scan found it."""
        with self.lock:
            changed = self._changed.get(server.id)
        if changed is not None:
            return changed
        if server.index is None:
            return ()
        first = server.id * _IDS_PER_SERVER + 1
        found = software_of(self.options.seed, server.index, self.options.software)
        return tuple(Installed(number, one) for number, one in enumerate(found, first))

    def install(self, server: Server, software: Iterable[Installed]) -> None:
        """Set what is installed, as a scan would find it."""
        with self.lock:
            self._changed[server.id] = tuple(software)

    def new_software_id(self) -> int:
        """An id that no software has."""
        return next(self._extra_ids)

    def change(self, server: Server, change: Change, *, at_scan: bool = False, tell: bool = False) -> list[Installed]:
        """Break or mend software: at once, or when the next scan ends; what was, or is to be, changed.

        ``tell`` sends ``new_server_issues`` at once for what broke, before the list shows it if ``at_scan``.

        Raises:
            ApiError: 404, no such software on the server, or no such exploit.
        """
        with self.lock:
            before = self.installed(server)
            after, touched = applied(before, change, self._exploit_ids)
            if not touched and (change.kind is not Kind.MENDED or change.gone is not None):
                raise not_found("Software" if change.gone is None else f"Exploit {change.gone}")
            if at_scan:
                self._pending.setdefault(server.id, []).append((change, tell))
            else:
                self._changed[server.id] = after
            if tell:
                self._tell(server, [new_issue(one.software, change.kind) for one in touched if one.software.broken])
            return touched

    def new_exploit_id(self) -> int:
        """An id that no made-up exploit has."""
        return next(self._exploit_ids)

    # Scans

    def start_scan(self, server: Server, seconds: float | None = None, *, events: frozenset[str] = SCAN_EVENTS) -> None:
        """Start a scan, unless one is running; it ends ``seconds`` later, by ``tick``.

        ``events`` are the identifiers of what is told of it: its start, its end and what it finds.
        """
        with self.lock:
            if server.scanning_until is not None:
                return
            server.scanning_until = self.now() + (self.options.scan_seconds if seconds is None else seconds)
            server.scan_events = events
            self._scanning.add(server.id)
            if SCAN_STARTED in events:
                self.outbox.emit(server.account_id, SCAN_STARTED, {"server_id": server.id})
        self.woken.set()

    def is_scanning(self, server: Server) -> bool:
        """Whether a scan is running."""
        self.tick()
        return server.scanning_until is not None

    def scanning(self) -> list[int]:
        """Ids of the servers that are being scanned."""
        with self.lock:
            return sorted(self._scanning)

    def tick(self) -> bool:
        """End the scans whose time has come; whether others are still running."""
        with self.lock:
            now = self.now()
            for server_id in sorted(self._scanning):
                server = self._servers[server_id]
                if server.scanning_until is not None and server.scanning_until <= now:
                    self._finish_scan(server, now)
            return bool(self._scanning)

    def _finish_scan(self, server: Server, now: float) -> None:
        before = self.installed(server)
        after = before
        known = {(one.software.identity, trouble(one.software)) for one in before}
        for change, told in self._pending.pop(server.id, ()):
            after, touched = applied(after, change, self._exploit_ids)
            if told:
                known |= {(one.software.identity, trouble(one.software)) for one in touched}
        after = self.buckets.scanned(server.id, after, self.new_software_id, now)
        self._changed[server.id] = after
        server.scanning_until, server.last_scan = None, now
        self._scanning.discard(server.id)
        fresh = [one.software for one in after if (one.software.identity, trouble(one.software)) not in known]
        if NEW_ISSUES in server.scan_events:
            self._tell(server, [new_issue(one, kind) for one in fresh if (kind := trouble(one)) is not None])
        if SCAN_FINISHED in server.scan_events:
            self.outbox.emit(server.account_id, SCAN_FINISHED, {"server_id": server.id})

    def _tell(self, server: Server, issues: list[dict[str, object]]) -> None:
        if issues:
            data = {"server_id": server.id, "new_issues": issues}
            self.outbox.emit(server.account_id, NEW_ISSUES, data)
