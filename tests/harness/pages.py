"""Fleets to look at: a realistic one, a hostile one and a large one, in a real store."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.config.schema import Account, Config, Issues
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.issues.model import Kind, Waiver
from patrolserver_exporter.issues.summary import summarise
from patrolserver_exporter.logs import Redactor
from patrolserver_exporter.patrolserver.models import Exploit, ReportedIssue, ReportedSoftware, Server, Software
from patrolserver_exporter.simulator.fleet import PRODUCTS, ROLES, SITES, SLOTS
from patrolserver_exporter.store import Store, fleet
from patrolserver_exporter.store.history import request_catch_up
from patrolserver_exporter.sync.account_updates import apply_list, save_account
from patrolserver_exporter.sync.rules import Rules
from patrolserver_exporter.sync.server_updates import (
    apply_poll,
    apply_poll_failure,
    apply_reported,
    find,
    show,
    with_state,
)
from patrolserver_exporter.sync.statuses import AccountStatus
from patrolserver_exporter.web.access import BearerTokens, Guard
from patrolserver_exporter.web.context import WebContext
from patrolserver_exporter.web.http.requests import main_app, not_found_app
from patrolserver_exporter.web.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.types import ASGIApp

    from patrolserver_exporter.simulator.fleet import Product
    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.sync.exporters import LivingExporter

NOW = 1_800_000_000.0
"""2027-01-15 08:00 UTC."""
DAY, HOUR = 86_400.0, 3600.0
POLLS = (40 * DAY, 9 * DAY, 2 * DAY)
"""How long ago the earlier polls were."""
CANARY = "canary-token-000000000000000000"
WAIVERS = (
    Waiver(
        server="*.staging.example.org",
        software="php",
        kind=Kind.UNSUPPORTED,
        until=dt.date(2027, 3, 31),
        reason="replaced with the new shop in Q1",
    ),
    Waiver(
        server="*.staging.example.org", software="linux", until=dt.date(2027, 1, 31), reason="rebooted with the move"
    ),
    Waiver(
        server="web-*", software="mysql", until=dt.date(2026, 12, 31), reason="was to be gone by the end of the year"
    ),
)
SCRIPT = "<script>window.pwned=1</script>"
HOSTILE = (
    SCRIPT,
    "\"><img src=x onerror='window.pwned=1'>",
    "quote'\"`${7*7}{{7*7}}.example.org",
    "\u202egro.elpmaxe.drawkcab",
    "\u05e9\u05e8\u05ea.example.org",
    "x" * 200,
    "a-" * 100,
    "javascript:window.pwned=1",
    "</style></title><svg onload=window.pwned=1>",
    "\u200b\u00ad\u2066.example.org",
)


@dataclass
class StillClock:
    """A clock that is set by hand."""

    at: float = NOW
    ticks: float = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.at

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self.ticks


@dataclass
class Accounts:
    """What the service would tell of its accounts."""

    all: tuple[AccountStatus, ...]
    ready: bool = True
    follows: bool = True
    clock_doubt: float = 0.0

    def begin_refreshes(self) -> None:
        """Nothing is polled here."""

    def statuses(self) -> tuple[AccountStatus, ...]:
        """How each account stands."""
        return self.all


@dataclass
class Site:
    """The pages over a store, with everything that a test may turn."""

    store: Store
    accounts: Accounts
    clock: StillClock = field(default_factory=StillClock)
    tokens: BearerTokens = field(default_factory=BearerTokens)
    external_url: str = ""
    route_prefix: str = ""
    webhook_here: bool = True
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of the account main."""
    exporters: tuple[LivingExporter, ...] = ()
    """Those that work on the store."""

    def context(self) -> WebContext:
        """What the routes get."""
        return WebContext(
            store=self.store,
            accounts=self.accounts,
            tokens=self.tokens,
            clock=self.clock,
            config=lambda: replace(CONFIG, accounts=(replace(CONFIG.accounts[0], labels=self.labels),)),
            redactor=Redactor(CANARY),
            on_feed=lambda _: None,
            on_inbox=lambda _: None,
            external_url=self.external_url,
            route_prefix=self.route_prefix,
            webhook_here=self.webhook_here,
            exporters=lambda: self.exporters,
        )

    def app(self) -> ASGIApp:
        """The application, behind the guard that stands before it in the service."""
        pages = Pages(self.context())
        app = main_app(
            pages.routes(),
            metrics=not_found_app,
            webhook=None,
            prefix=self.route_prefix,
            not_found=pages.not_found,
        )
        return Guard(app, tokens=self.tokens, route_prefix=self.route_prefix, external_url=self.external_url)


_SECRET = Secret.literal(CANARY)
CONFIG = Config(
    accounts=(Account(name="main", key=_SECRET, secret=_SECRET, webhook_tokens=(_SECRET,)),),
    issues=Issues(waivers=WAIVERS),
)
RULES = Rules.of(CONFIG, CONFIG.accounts[0])


def status(name: str, servers: int, **changes: object) -> AccountStatus:
    """An account that works."""
    working = AccountStatus(
        name=name, servers=servers, poll_interval=900.0, trouble=None, credentials_refused=False, webhook=True
    )
    return msgspec.structs.replace(working, **changes)


def open_store(folder: Path) -> Store:
    return Store(f"sqlite:///{folder / 'state.db'}")


def realistic(store: Store, *, servers: int = 80) -> Accounts:
    """Two accounts with a past: things broke, were fixed and waived; a scan runs; one server fails, one is old."""
    hosting = max(servers // 4, 1)
    store.run(lambda unit: _realistic(unit, "main", servers - hosting, first_id=1, seed=3))
    store.run(lambda unit: _realistic(unit, "hosting", hosting, first_id=1, seed=5))
    return Accounts((status("main", servers - hosting), status("hosting", hosting, webhook=False)))


def _realistic(unit: Unit, account: str, count: int, *, first_id: int, seed: int) -> None:
    draw = random.Random(seed)
    names = _names(count)
    listed = [Server(id=first_id + index, name=name, verified=True) for index, name in enumerate(names)]
    apply_list(unit, account, listed, complete=True, now=NOW - 24, rules=RULES)
    for index, server in enumerate(listed[:-1]):
        age = draw.uniform(10, 880)
        _live(unit, account, server.id, _installed(draw, names[index]), last=NOW - age)
    _mishaps(unit, account, [server.id for server in listed], draw)


def _names(count: int) -> list[str]:
    numbers: dict[tuple[str, str], int] = {}
    names = []
    for index in range(count):
        slot = SLOTS[index % len(SLOTS)]
        numbers[slot] = numbers.get(slot, 0) + 1
        names.append(f"{slot[0]}-{numbers[slot]:02}.{slot[1]}")
    return names


def _installed(draw: random.Random, name: str) -> list[tuple[Software, int, int]]:
    """What runs there, each broken from one poll on and mended at another."""
    site = draw.choice(SITES)
    found = []
    for canonical_name in ROLES[name.partition("-")[0]]:
        product = PRODUCTS[canonical_name]
        breaks = draw.choice((0, 1, 2, 3)) if draw.random() < 0.35 else 9
        found.append((_software(product, draw, site), breaks, breaks + draw.choice((1, 2, 9, 9))))
    return found


def _software(product: Product, draw: random.Random, site: str) -> Software:
    """As it is while it is broken."""
    location = "/" if product.place == "/" else site
    chance = draw.random()
    broken = Software(
        name=product.name,
        canonical_name=product.canonical_name,
        version=product.older,
        supported=False,
        newest_bugfix_release=product.newest,
        parent=product.parent,
        location=location,
        exploits=(),
    )
    if chance < 0.25:
        return msgspec.structs.replace(broken, version=product.end_of_life, newest_bugfix_release=None)
    if chance < 0.4:
        risk = draw.choice((5.3, 6.1, 7.5, 8.8, 9.1, 9.8))
        reference = f"CVE-2099-{draw.randrange(9999):04}"
        return msgspec.structs.replace(broken, exploits=(Exploit(risk=risk, cve=reference),))
    return broken


def _live(unit: Unit, account: str, server_id: int, installed: list[tuple[Software, int, int]], *, last: float) -> None:
    for index, at in enumerate((*(NOW - ago - server_id * 97 % HOUR for ago in POLLS), last)):
        software = tuple(item if breaks <= index < ends else _mended(item) for item, breaks, ends in installed)
        apply_poll(
            unit,
            account,
            server_id,
            software,
            complete=True,
            started_at=at,
            next_poll_at=at + 900,
            now=at + 1,
            rules=RULES,
        )


def _mended(software: Software) -> Software:
    newest = PRODUCTS[software.canonical_name].newest
    return msgspec.structs.replace(software, version=newest, supported=True, newest_bugfix_release=None, exploits=())


def _mishaps(unit: Unit, account: str, ids: list[int], draw: random.Random) -> None:
    for server_id in ids[:-1]:
        record = find(unit, account, server_id)
        assert record is not None
        scanned = msgspec.structs.replace(record.state, last_scan_at=NOW - draw.uniform(HOUR, 30 * HOUR))
        show(unit, with_state(record, msgspec.structs.replace(scanned, scanning=server_id == ids[0])))
    first = find(unit, account, ids[0])
    assert first is not None
    reported = ReportedIssue(
        software=ReportedSoftware(name="OpenSSH", canonical_name="openssh", version="9.6p1"),
        title="Your OpenSSH can be exploited.",
        description="A known exploit affects your current OpenSSH version (9.6p1). Update it to 9.9p1, or restrict "
        "who can reach port 22.",
    )
    apply_reported(unit, first, [reported], received_at=NOW - 200, now=NOW - 199, rules=RULES)


def trouble(store: Store, accounts: Accounts) -> Accounts:
    """One account is refused, polls fail, data is old, deliveries wait, and the inbox overflowed."""
    store.run(_trouble)
    first, *others = accounts.all
    refused = msgspec.structs.replace(
        first, trouble=f"The API refused the credentials (403, key {CANARY}).", credentials_refused=True
    )
    return replace(accounts, all=(refused, *others))


def _trouble(unit: Unit) -> None:
    for server_id in (3, 4, 5):
        apply_poll_failure(unit, "main", server_id, next_poll_at=NOW + 60)
    for server_id in (6, 7):
        record = find(unit, "main", server_id)
        assert record is not None
        show(unit, with_state(record, msgspec.structs.replace(record.state, last_poll_at=NOW - 3 * DAY)))
    known = fleet.account_records(unit.connection)["main"]
    save_account(unit, msgspec.structs.replace(known, up=False))
    request_catch_up(unit.connection, "main", NOW - HOUR)


def hostile(store: Store) -> Accounts:
    """Names, software and texts that try to break out of a page."""
    store.run(_hostile)
    return Accounts((status("main", len(HOSTILE)), status(SCRIPT, 1, trouble=SCRIPT)))


def _hostile(unit: Unit) -> None:
    servers = [Server(id=index + 1, name=name) for index, name in enumerate(HOSTILE)]
    apply_list(unit, "main", servers, complete=True, now=NOW, rules=RULES)
    apply_list(unit, SCRIPT, [Server(id=1, name="twin")], complete=True, now=NOW, rules=RULES)
    for server in servers:
        software = tuple(
            Software(
                name=text,
                canonical_name=f"{text}/{index}",
                version=text,
                supported=index % 3 == 0,
                newest_bugfix_release=text if index % 2 else None,
                parent=text,
                location=text,
                exploits=(Exploit(risk=9.9, cve=text, title=text),) if index == 1 else (),
            )
            for index, text in enumerate(HOSTILE)
        )
        apply_poll(
            unit,
            "main",
            server.id,
            software,
            complete=True,
            started_at=NOW - 60,
            next_poll_at=NOW,
            now=NOW,
            rules=RULES,
        )
        record = find(unit, "main", server.id)
        assert record is not None
        reported = ReportedIssue(
            software=ReportedSoftware(name=SCRIPT, canonical_name="new"), title=SCRIPT, description=HOSTILE[1]
        )
        apply_reported(unit, record, [reported], received_at=NOW - 1, now=NOW, rules=RULES)


def large(store: Store, *, servers: int = 10_000) -> Accounts:
    """Many servers with as much software as real ones have."""
    draw = random.Random(7)
    software = tuple(
        Software(
            name=f"Software {index}",
            canonical_name=f"vendor/software-{index}",
            version="1.2.3",
            supported=index % 5 > 0,
            newest_bugfix_release="1.2.4" if index % 10 else None,
            location=f"/var/www/site-{index}",
            exploits=(),
        )
        for index in range(40)
    )
    records = [_record(server_id, software, draw) for server_id in range(1, servers + 1)]

    def fill(unit: Unit) -> None:
        fleet.save_servers(unit.connection, records, software)
        save_account(unit, fleet.AccountRecord(name="main", up=True, last_success_at=NOW - 5))

    store.run(fill)
    return Accounts((status("main", servers),))


def _record(server_id: int, software: tuple[Software, ...], draw: random.Random) -> fleet.ServerRecord:
    name = f"web-{server_id:05}.example.org"
    summary = summarise(
        account="main",
        server=Server(id=server_id, name=name, verified=True),
        software=software,
        issues=[],
        exploit_risk=5.0,
        scanning=False,
        last_scan_at=NOW - HOUR,
        last_poll_at=NOW - draw.uniform(1, 900),
        poll_success=True,
    )
    counts = (int(draw.random() < 0.02), draw.randrange(2), draw.randrange(5), draw.randrange(2))
    state = fleet.ServerState(last_poll_at=summary.last_poll_at, poll_success=True)
    summary = msgspec.structs.replace(summary, open_issues=counts)
    return fleet.ServerRecord(account="main", server_id=server_id, name=name, state=state, summary=summary)
