"""What accounts, servers, labels and filters choose, and the lists over the fleet that are made of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import exploited, outdated, software, unsupported
from tests.unit.sync.accounts import account, configured
from tests.unit.sync.driving import Driver

from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.patrolserver.models import Exploit
from patrolserver_exporter.store.queries import Selector, ServerKey
from patrolserver_exporter.web import overview
from patrolserver_exporter.web.selection import Chosen, Labels, NoLabel, issues_wanted, label_of, servers_wanted
from patrolserver_exporter.web.standing import Doubt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import sqlalchemy as sa

    from patrolserver_exporter.store import Store

CONFIG = configured(
    account(labels={"web-*": {"team": "web", "stage": "live"}, "db-*": {"team": "data"}}),
    account("other"),
)
LABELS = Labels(CONFIG)
WATCHED = ("main", "other")
WORST = Exploit(id="1", cve="CVE-2026-1", risk=9.8)


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def read(store: Store, clock: HeldClock) -> Callable[[Callable[[sa.Connection], Any]], Awaitable[Any]]:
    """Reads of a state of two accounts; one server was never polled."""
    main, other = Driver(store, clock), Driver(store, clock, account="other")
    main.take_list("web-01", "web-02", "db-01")
    other.take_list("web-01", "new")
    main.poll(outdated(), exploited("openssl", WORST), server_id=1)
    main.poll(software(), server_id=2)
    main.poll(outdated(version="2.0"), software("odd", supported=None), server_id=3)
    other.poll(unsupported("perl"), server_id=1)

    async def work(wanted: Callable[[sa.Connection], Any]) -> Any:
        return store.read(wanted)

    return work


def chosen_servers(read: Any, **asked: Any) -> set[tuple[str, int]] | None:
    """The keys that are asked for; None: all."""
    wanted = asyncio.run(servers_wanted(read, Chosen(**asked), LABELS, WATCHED))
    return None if wanted.keys is None else {tuple(key) for key in wanted.keys}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ({}, None),
        ({"servers": (Selector.of("web-01"),)}, {("main", 1), ("other", 1)}),
        ({"servers": (Selector.of("web-*"),), "accounts": ("main",)}, {("main", 1), ("main", 2)}),
        ({"labels": (("team", "web"),)}, {("main", 1), ("main", 2)}),
        ({"labels": (("team", "w*"), ("team", "data"))}, {("main", 1), ("main", 2), ("main", 3)}),
        ({"labels": (("team", "web"), ("stage", "test"))}, set()),
        ({"labels": (("team", ""),)}, {("other", 1), ("other", 2)}),
        ({"labels": (("team", "data"),), "servers": (Selector.of("web-*"),)}, set()),
        ({"exploits": ("CVE-2026-*",)}, {("main", 1)}),
        ({"exploits": ("CVE-2025-*",)}, set()),
    ],
    ids=lambda one: str(sorted(one)) if isinstance(one, set) else str(one),
)
def test_filters_narrow_each_other(read: Any, asked: dict[str, Any], keys: set[tuple[str, int]] | None) -> None:
    """Values of one filter are alternatives; a label without a value means the servers that lack it."""
    assert chosen_servers(read, **asked) == keys


def test_what_is_asked_of_issues_is_asked_of_one_issue(read: Any) -> None:
    """Where the database alone can tell, it does; the software is named as it is known."""
    wanted = asyncio.run(servers_wanted(read, Chosen(kinds=(Kind.OUTDATED,), software=("PH*",)), LABELS, WATCHED))
    assert wanted.issue is not None
    assert (wanted.issue.kinds, wanted.issue.names) == ((Kind.OUTDATED,), frozenset({"php"}))
    assert wanted.keys is None
    issues = asyncio.run(issues_wanted(read, Chosen(software=("none*",)), LABELS, WATCHED))
    assert issues.names == frozenset()


@pytest.mark.parametrize("text", ["", "team", "=web"])
def test_a_label_is_a_name_and_a_value(text: str) -> None:
    """What is none says how one is written."""
    with pytest.raises(NoLabel, match="team=web"):
        label_of(text)
    assert label_of("team=") == ("team", "")
    assert label_of("team=a=b") == ("team", "a=b")


def test_the_labels_that_there_are() -> None:
    """Each with its values, for those who choose; an account without labels gives none."""
    assert LABELS.values() == {"stage": ("live",), "team": ("data", "web")}
    assert LABELS.of("main", "web-01") == {"stage": "live", "team": "web"}
    assert LABELS.of("other", "web-01") == LABELS.of("gone", "web-01") == {}


def servers(read: Any, clock: HeldClock, **asked: Any) -> overview.Servers:
    return asyncio.run(overview.read_servers(read, Chosen(**asked), LABELS, WATCHED, clock.now()))


def test_a_server_that_no_poll_has_looked_at_is_doubtful(read: Any, clock: HeldClock) -> None:
    """It may have anything; a list says of how many servers that holds."""
    every = servers(read, clock)
    assert len(every.states) == 5
    assert every.doubts[ServerKey("other", 2)] == (Doubt.NEVER_POLLED,)
    assert every.never_polled == 1
    assert set(servers(read, clock, accounts=("main",)).states) == {("main", n) for n in (1, 2, 3)}
    assert servers(read, clock, labels=(("team", "web"),)).never_polled == 0


def test_software_over_the_fleet(read: Any, clock: HeldClock) -> None:
    """What is not fine, by version, and what is in a state that nobody knows, unless issues are asked for."""

    def found(**asked: Any) -> dict[tuple[str, str | None], int]:
        chosen = Chosen(**asked)
        spread = asyncio.run(overview.read_software(read, chosen, LABELS, WATCHED, servers(read, clock, **asked)))
        return {(one.canonical_name, one.version): len(one.on) for one in spread}

    every = {("odd", "1.0"): 1, ("openssl", "1.0"): 1, ("perl", "1.0"): 1, ("php", "1.0"): 1, ("php", "2.0"): 1}
    assert found() == every
    assert found(software=("o*",)) == {("odd", "1.0"): 1, ("openssl", "1.0"): 1}
    assert found(kinds=(Kind.UNSUPPORTED,)) == {("perl", "1.0"): 1}
    assert found(accounts=("other",)) == {("perl", "1.0"): 1}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({}, ["CVE-2026-1"]),
        ({"severities": (Severity.CRITICAL,)}, ["CVE-2026-1"]),
        ({"severities": (Severity.LOW,)}, []),
        ({"exploits": ("1",)}, ["CVE-2026-1"]),
        ({"waived": True}, []),
        ({"accounts": ("other",)}, []),
    ],
    ids=str,
)
def test_exploits_over_the_fleet(read: Any, asked: dict[str, Any], names: list[str]) -> None:
    """Filters hold for the exploit itself, and not for the issue that it is part of."""
    found = asyncio.run(overview.read_exploits(read, Chosen(**asked), LABELS, WATCHED))
    assert [key.name for key, _ in found] == names
