"""A state that the version before wrote: ``state_0001.sql`` is the dump of a file that it made of these polls.

php had an exploit of risk 5, nginx one that nobody rated, ssh was outdated and perl unsupported until the second poll;
after it an event reported exim.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import START, HeldClock
from tests.unit.issues.builders import exploited, outdated, reported, software
from tests.unit.sync.accounts import configured
from tests.unit.sync.driving import Driver

from patrolserver_exporter.issues.model import Severity
from patrolserver_exporter.patrolserver.models import Exploit
from patrolserver_exporter.store import Store, history
from patrolserver_exporter.sync import restore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.issues.model import Issue

DUMP = Path(__file__).parent.parent / "store" / "state_0001.sql"
PHP = Exploit(cve="CVE-2026-0001", risk=5.0)
NGINX = Exploit(title="Overflow")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """The new version has just started with the old state."""
    file = tmp_path / "patrolserver.db"
    connection = sqlite3.connect(file)
    connection.executescript(DUMP.read_text())
    connection.close()
    with Store(f"sqlite:///{file}") as store:
        made = Driver(store, HeldClock(START + 1000.0), events_before=1)
        of = {"main": made.rules}
        store.run(lambda unit: restore.restore(unit, of, configured().metrics, now=made.clock.now()))
        yield made


def known(driver: Driver) -> dict[str, Issue]:
    """The open issues by software."""
    return {issue.canonical_name: issue for issue in driver.issues() if issue.is_open}


def test_the_issues_are_there_since_they_were(driver: Driver) -> None:
    """They have had their severity since they were first seen, and no exploits yet; nothing is told."""
    told = len(driver.changes())
    assert told == 6
    issues = known(driver)
    assert set(issues) == {"php", "nginx", "ssh", "exim"}
    assert {name: issue.severity_since for name, issue in issues.items()} == {
        name: issue.first_seen for name, issue in issues.items()
    }
    assert issues["php"].since(Severity.LOW) == START + 1.0
    assert (issues["php"].exploits, issues["php"].severity) == ((), Severity.MEDIUM)


def test_what_the_new_version_judges_otherwise_has_not_got_worse(driver: Driver) -> None:
    """An exploit that nobody rated is high now; the feed and the counters stay as they were."""
    nginx = known(driver)["nginx"]
    assert (nginx.severity, nginx.risk, nginx.severity_since) == (Severity.HIGH, None, START + 1.0)
    summary = driver.server().summary
    assert (summary.open_issues, summary.exploits_unknown_risk, summary.poll_complete) == ((0, 2, 2, 0), 1, True)
    tallies = driver.store.run(lambda unit: history.tallies_of(unit.connection, "main"))
    assert sum(tally.worsened for tally in tallies) == 0


def test_the_next_whole_poll_brings_the_exploits_silently(driver: Driver) -> None:
    """After that a new one is news."""
    told = driver.told()
    listed = [
        exploited("php", PHP, location="/"),
        exploited("nginx", NGINX, location="/"),
        outdated("ssh", location="/"),
        software("perl", location="/"),
        software("bash", location="/"),
    ]
    driver.poll(*listed)
    assert driver.told() == told
    assert [exploit.cve for exploit in known(driver)["php"].exploits] == ["CVE-2026-0001"]
    assert [exploit.title for exploit in known(driver)["nginx"].exploits] == ["Overflow"]
    driver.clock.advance(900.0)
    driver.poll(exploited("php", PHP, Exploit(cve="CVE-2026-0002", risk=5.5), location="/"), *listed[1:])
    assert ("worsened", "php") in driver.told()


def test_events_and_lists_go_on(driver: Driver) -> None:
    """An event about one of its issues, and a list, find the old state as they would their own."""
    driver.apply(driver.deliver(), reported("ssh", title="Upgrade."))
    assert known(driver)["ssh"].title == "Upgrade."
    assert driver.take_list("web.example.org").added == ()
