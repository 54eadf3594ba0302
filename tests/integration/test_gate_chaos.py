"""The gate over HTTP in a thousand random states of the store: it passes exactly when nothing is wrong."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace
from tests.harness.api import SetTime, put_server, serving_api
from tests.unit.issues.builders import issue, software

from patrolserver_exporter.inbox.deliveries import DeliveryState, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.issues.model import Kind, Severity, Waiver
from patrolserver_exporter.store import fleet, tables
from patrolserver_exporter.store.fleet import AccountRecord
from patrolserver_exporter.store.history import request_catch_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.api import ServedApi

    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.patrolserver.models import Software
    from patrolserver_exporter.store import Unit

pytestmark = pytest.mark.promise("gate-closed")

NOON = 1_795_521_600.0
TODAY = dt.date(2026, 11, 24)
YESTERDAY, TOMORROW = dt.date(2026, 11, 23), dt.date(2026, 11, 25)
HOUR = 3600.0
WAIVERS = (
    Waiver(server="*", software="waived", until=TODAY, reason="known"),
    Waiver(server="*", software="lapsed", until=YESTERDAY, reason="was known"),
)


@dataclass
class Draft:
    """A server that is to be kept, sound unless a defect is put into it."""

    server_id: int
    name: str
    polled_at: float
    account: str = "main"
    issues: list[Issue] = field(default_factory=list)
    software: list[Software] = field(default_factory=lambda: [software("bash")])
    state: dict[str, Any] = field(default_factory=dict)
    gone: bool = False

    def keep(self, unit: Unit) -> None:
        """Write it."""
        record = put_server(
            unit,
            self.server_id,
            self.name,
            account=self.account,
            issues=[replace(one, fingerprint=f"{self.server_id}-{n}") for n, one in enumerate(self.issues)],
            software=tuple(self.software),
            polled_at=self.polled_at,
            **self.state,
        )
        if self.gone:
            fleet.save_servers(unit.connection, [replace(record, gone_at=NOON)])


@dataclass
class World:
    """What is in the store, and what is asked."""

    draw: random.Random
    drafts: list[Draft]
    asked: list[int | str]
    works: list[Callable[[Unit], object]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    account: str | None = None

    @property
    def victim(self) -> Draft:
        """The server that gets the next defect."""
        return self.draw.choice([draft for draft in self.drafts if draft.account == "main"])


def critical(name: str = "openssl", **fields: Any) -> Issue:
    return issue(name, Kind.EXPLOITABLE, risk=9.5, severity=Severity.CRITICAL, **fields)


def delivery(world: World, state: DeliveryState, account: str = "main", received_at: float = NOON - 1) -> None:
    new = NewDelivery(account, 1, world.draw.randrange(1, 2**40), "webhook.new_server_issues", received_at)

    def work(unit: Unit) -> None:
        BoundedInbox(100).accept(unit, [new])
        row = tables.inbox.update().where(tables.inbox.c.event_id == new.event_id)
        unit.connection.execute(row.values(state=state))

    world.works.append(work)


def catch_up(world: World, since: float) -> None:
    world.works.append(lambda unit: request_catch_up(unit.connection, "main", since))


def poll_at(world: World, at: float) -> None:
    world.victim.polled_at = at


def no_poll(world: World) -> None:
    world.victim.state |= {"last_poll_at": None, "complete_poll_at": None, "poll_success": False}


def ambiguous(world: World) -> None:
    victim = world.victim
    world.drafts.append(Draft(victim.server_id + 500, victim.name, NOON, account="other"))
    world.asked.append(victim.name)


def gone(world: World) -> None:
    # A glob would not miss it.
    victim = world.victim
    victim.gone = True
    world.asked.append(victim.server_id)


def never_listed(world: World) -> None:
    world.asked.append("web*")
    unlisted = tables.accounts.update().where(tables.accounts.c.name == "main").values(last_success_at=None)
    world.works.append(lambda unit: unit.connection.execute(unlisted))


def of_victim(change: Callable[[Draft], object]) -> Callable[[World], object]:
    return lambda world: change(world.victim)


DEFECTS: dict[str, Callable[[World], object]] = {
    "old": lambda world: poll_at(world, NOON - 25 * HOUR),
    "from the future": lambda world: poll_at(world, NOON + HOUR),
    "never polled": no_poll,
    "incomplete": of_victim(lambda draft: draft.state.update(complete_poll_at=draft.polled_at - 1)),
    "never complete": of_victim(lambda draft: draft.state.update(complete_poll_at=None)),
    "event": of_victim(lambda draft: draft.state.update(event_received_at=NOON - 5)),
    "reported": of_victim(lambda draft: draft.issues.append(issue("php", Kind.REPORTED))),
    "unknown state": of_victim(lambda draft: draft.software.append(software("perl", supported=None))),
    "unknown version": of_victim(lambda draft: draft.software.append(software("perl", version=None))),
    "unknown exploits": of_victim(lambda draft: draft.software.append(software("perl", exploits=None))),
    "critical": of_victim(lambda draft: draft.issues.append(critical())),
    "waiver that ended": of_victim(
        lambda draft: draft.issues.append(critical("lapsed", waived_until=YESTERDAY, waived_reason="was known"))
    ),
    "waiver not swept": of_victim(
        lambda draft: draft.issues.append(critical("lapsed", waived_until=TOMORROW, waived_reason="was known"))
    ),
    "waiver taken away": of_victim(
        lambda draft: draft.issues.append(critical("other", waived_until=TOMORROW, waived_reason="not in force"))
    ),
    "received": lambda world: delivery(world, DeliveryState.RECEIVED),
    "fetching": lambda world: delivery(world, DeliveryState.FETCHING),
    "retry": lambda world: delivery(world, DeliveryState.RETRY),
    "blocked": lambda world: delivery(world, DeliveryState.BLOCKED),
    "dead": lambda world: delivery(world, DeliveryState.DEAD, received_at=NOON),
    "catch-up": lambda world: catch_up(world, NOON),
    "refused": lambda world: world.refused.add("main"),
    "gone": gone,
    "ambiguous": ambiguous,
    "unknown": lambda world: world.asked.append("nosuch.example.org"),
    "unknown glob": lambda world: world.asked.append("nosuch*"),
    "never listed": never_listed,
    "unwatched account": lambda world: setattr(world, "account", "nobody"),
    "nothing asked": lambda world: world.asked.clear(),
}


def may_mean_others(world: World) -> bool:
    """A glob may match servers of every account, and nobody knows those of one whose credentials are refused."""
    return world.account is None and any(isinstance(one, str) and {"*", "?"} & set(one) for one in world.asked)


HARMLESS: dict[str, Callable[[World], object]] = {
    "waived": of_victim(
        lambda draft: draft.issues.append(critical("waived", waived_until=TODAY, waived_reason="known"))
    ),
    "fixed": of_victim(lambda draft: draft.issues.append(critical(fixed_at=NOON - HOUR))),
    "low": of_victim(lambda draft: draft.issues.append(issue("zsh", Kind.OUTDATED))),
    "failed last poll": of_victim(lambda draft: draft.state.update(poll_success=False)),
    "applied": lambda world: delivery(world, DeliveryState.APPLIED),
    "dead before the polls": lambda world: delivery(world, DeliveryState.DEAD, received_at=NOON - 30 * 24 * HOUR),
    "rejected": lambda world: delivery(world, DeliveryState.REJECTED),
    "unverified": lambda world: delivery(world, DeliveryState.UNVERIFIED),
    "caught up": lambda world: catch_up(world, NOON - 30 * 24 * HOUR),
    "others' deliveries": lambda world: delivery(world, DeliveryState.RECEIVED, "other"),
    "others refused": lambda world: None if may_mean_others(world) else world.refused.add("other"),
    "others' issues": lambda world: world.drafts.append(
        Draft(900, "db.other.example.org", NOON, account="other", issues=[critical()])
    ),
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    folder: Path = tmp_path_factory.mktemp("chaos")
    with serving_api(f"sqlite:///{folder / 'state.db'}", clock=SetTime(NOON), waivers=WAIVERS) as served:
        served.accounts.names.append("other")
        yield served


def random_world(draw: random.Random) -> World:
    count = draw.randrange(1, 5)
    drafts = [
        Draft(number, f"web{number}.example.org", NOON - draw.uniform(0, 23.9) * HOUR) for number in range(1, count + 1)
    ]
    by_name: list[int | str] = [draft.name for draft in drafts]
    by_id: list[int | str] = [draft.server_id for draft in drafts]
    # Every form names all servers, so that no defect is out of sight.
    asked: list[int | str] = draw.choice(
        [by_name, by_id, [*map(str, by_id)], ["web*.example.org"], [*by_name, "WEB?.*"]]
    )
    return World(draw, drafts, [*asked], account=draw.choice([None, "main"]))


def play(api: ServedApi, world: World) -> Any:
    def work(unit: Unit) -> None:
        for table in (tables.inbox, tables.catch_ups, tables.issues, tables.servers, tables.accounts):
            unit.connection.execute(sa.delete(table))
        for account in ("main", "other"):
            fleet.save_account(unit.connection, AccountRecord(name=account, up=True, last_success_at=NOON))
        for draft in world.drafts:
            draft.keep(unit)
        for extra in world.works:
            extra(unit)

    api.store.run(work)
    api.accounts.refused = world.refused
    return api.gate(*world.asked, account=world.account)


@pytest.mark.parametrize("hundred", range(10))
def test_it_passes_exactly_when_nothing_is_wrong(api: ServedApi, hundred: int) -> None:
    """Of a thousand random states none passes with a defect in it, and none without one is held up."""
    for seed in range(hundred * 100, hundred * 100 + 100):
        draw = random.Random(seed)
        world = random_world(draw)
        for name in draw.sample(list(HARMLESS), draw.randrange(4)):
            HARMLESS[name](world)
        # In the order of the table: the last ones are about what is asked.
        defects = [] if draw.random() < 0.3 else draw.sample(list(DEFECTS), draw.choice([1, 1, 1, 2, 3]))
        if "ambiguous" in defects:
            world.account = None
        for name in sorted(defects, key=list(DEFECTS).index):
            DEFECTS[name](world)
        verdict = play(api, world)
        assert verdict["passed"] is (verdict["verdict"] == "pass")
        assert verdict["passed"] is (not defects), (seed, defects, verdict["reasons"])
        if defects:
            assert any(reason["blocking"] for reason in verdict["reasons"]), (seed, defects)


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_alone_keeps_it_from_passing(api: ServedApi, name: str) -> None:
    """No defect needs another one's help."""
    world = World(random.Random(1), [Draft(1, "web1.example.org", NOON - HOUR)], ["web1.example.org"])
    DEFECTS[name](world)
    issues_only = {"critical", "waiver that ended", "waiver not swept", "waiver taken away"}
    assert play(api, world)["verdict"] == ("fail" if name in issues_only else "unknown")
