"""What the gate reads from the store, up to its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.harness.api import put_server
from tests.unit.issues.builders import issue, software

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.issues.merge import apply_poll
from patrolserver_exporter.issues.model import Kind
from patrolserver_exporter.patrolserver.models import Exploit
from patrolserver_exporter.store import fleet
from patrolserver_exporter.store.fleet import AccountRecord

if TYPE_CHECKING:
    import sqlalchemy as sa
    from tests.harness.api import ServedApi, SetTime

    from patrolserver_exporter.patrolserver.models import Software
    from patrolserver_exporter.store import Unit

BELOW = software("php", exploits=(Exploit(risk=4.5),))
"""An exploit below exploit_risk, 5 in these tests."""
ABOVE = software("php", exploits=(Exploit(risk=4.5), Exploit(risk=6.0)))


def poll(api: ServedApi, clock: SetTime, *installed: Software) -> None:
    """Keep what a poll of one server brings."""
    now = clock.now()
    found = apply_poll((), installed, account="main", server_id=1, started_at=now, exploit_risk=5.0, settle=0.0)

    def work(unit: Unit) -> None:
        fleet.save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=now))
        put_server(unit, 1, "web1.example.org", issues=found.issues, software=installed, polled_at=now)

    api.store.run(work)


def blocking(answer: Any) -> list[str]:
    return [reason["code"] for reason in answer["reasons"] if reason["blocking"]]


@pytest.mark.parametrize(
    ("installed", "policy", "codes"),
    [
        (BELOW, {"max_risk": 4}, ["exploit_uncounted"]),
        (BELOW, {"max_risk": 4.5}, []),
        (BELOW, {}, []),
        (ABOVE, {"max_risk": 4}, ["limit_exceeded"]),
        (ABOVE, {"max_risk": 6}, []),
    ],
)
def test_an_exploit_that_is_no_issue(
    api: ServedApi, clock: SetTime, installed: Software, policy: dict[str, Any], codes: list[str]
) -> None:
    """An exploit above max_risk keeps the verdict from passing, though it is below what counts as an issue."""
    poll(api, clock, installed)
    answer = api.gate("web1.example.org", **policy)
    assert blocking(answer) == codes
    assert answer["passed"] is (codes == [])


def test_while_stored_times_are_ahead_of_the_clock_data_is_taken_for_older(api: ServedApi, clock: SetTime) -> None:
    """It was set back, and not all exporters have followed it yet: nothing may seem younger than it is."""
    now = clock.now()

    def work(unit: Unit) -> None:
        fleet.save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=now))
        put_server(unit, 1, "web1.example.org", polled_at=now - 100)

    api.store.run(work)
    assert api.gate(1, max_age="2m")["verdict"] == "pass"
    api.accounts.clock_doubt = 40.0
    answer = api.gate(1, max_age="2m")
    assert (answer["verdict"], answer["data_age_seconds"]) == ("unknown", 140.0)
    assert blocking(answer) == ["data_too_old"]


def test_a_clock_that_is_followed_while_the_gate_reads_makes_nothing_younger(
    api: ServedApi, clock: SetTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the times of before, and takes the time of before, too."""
    now = clock.now()

    def work(unit: Unit) -> None:
        fleet.save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=now))
        put_server(unit, 1, "web1.example.org", polled_at=now - 100)

    api.store.run(work)
    api.accounts.clock_doubt = 40.0
    reading = deliveries.doubts

    def followed(connection: sa.Connection) -> deliveries.Doubts:
        api.accounts.clock_doubt = 0.0
        return reading(connection)

    monkeypatch.setattr(deliveries, "doubts", followed)
    assert api.gate(1, max_age="2m")["data_age_seconds"] == 140.0


def test_the_ages_of_what_the_verdict_rests_on(api: ServedApi, clock: SetTime) -> None:
    """Of a server's data and of its last scan, in seconds; a scan that nobody saw has none."""
    now = clock.now()

    def work(unit: Unit) -> None:
        fleet.save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=now))
        put_server(unit, 1, "web1.example.org", polled_at=now - 60, last_scan_at=now - 90)
        put_server(unit, 2, "web2.example.org", polled_at=now - 30)

    api.store.run(work)
    answer = api.gate("web*")
    ages = [(server["data_age_seconds"], server["scan_age_seconds"]) for server in answer["servers"]]
    assert ages == [(60.0, 90.0), (30.0, None)]
    assert answer["data_age_seconds"] == 60.0


def test_a_waived_exploit_is_not_met_again_below_the_issue(api: ServedApi, clock: SetTime) -> None:
    """A waiver covers all exploits of the software that its issue stands for."""
    poll(api, clock, ABOVE)
    waiver = {"server": "*", "software": "php", "until": "2027-01-01", "reason": "accepted"}
    assert api.gate(1, max_risk=4, waivers=[waiver])["verdict"] == "pass"


def test_what_covers_an_exploit_does_not_cover_lesser_ones(api: ServedApi, clock: SetTime) -> None:
    """A waiver of one exploit covers only that one, so another one above max_risk keeps the verdict from passing."""
    poll(api, clock, software("php", exploits=(Exploit(id="a", risk=4.5), Exploit(id="b", risk=6.0))))
    waiver = {"server": "*", "software": "php", "exploit": "b", "until": "2027-01-01", "reason": "accepted"}
    assert blocking(api.gate(1, max_risk=4, waivers=[waiver])) == ["exploit_uncounted"]
    assert api.gate(1, max_risk=4.5, waivers=[waiver])["verdict"] == "pass"
    assert api.gate(1, waivers=[waiver])["verdict"] == "pass"


def test_a_glob_over_an_account_that_was_never_listed(api: ServedApi, clock: SetTime) -> None:
    """Nobody knows which servers of a new account a glob means, so it passes only for accounts that were listed."""
    poll(api, clock)
    assert api.gate("web*")["verdict"] == "pass"
    api.accounts.names.append("new")
    answer = api.gate("web*")
    assert (answer["verdict"], blocking(answer)) == ("unknown", ["never_listed"])
    assert api.gate("web*", account="main")["verdict"] == "pass"


@pytest.mark.parametrize("asked", ["web1.example.org", "WEB1.example.org", 1, "1"])
def test_a_name_that_an_account_may_have_too_that_was_never_listed(
    api: ServedApi, clock: SetTime, asked: str | int
) -> None:
    """Where both have one, it is unknown which one is meant; until the list is read, nobody knows whether both do."""
    poll(api, clock)
    assert api.gate(asked)["verdict"] == "pass"
    api.accounts.names.append("new")
    answer = api.gate(asked)
    assert (answer["verdict"], blocking(answer)) == ("unknown", ["never_listed"])
    assert api.gate(asked, account="main")["verdict"] == "pass"
    listed = AccountRecord(name="new", up=True, last_success_at=clock.now())
    api.store.run(lambda unit: fleet.save_account(unit.connection, listed))
    assert api.gate(asked)["verdict"] == "pass"


def test_a_glob_over_an_account_whose_list_is_not_read_any_more(api: ServedApi, clock: SetTime) -> None:
    """Its servers may be polled well, or it may have none that the glob means: nobody knows which came since."""
    poll(api, clock)
    api.accounts.names.append("other")
    account = AccountRecord(name="other", up=False, last_success_at=clock.now() - 86_000)
    api.store.run(lambda unit: fleet.save_account(unit.connection, account))
    assert api.gate("web*")["verdict"] == "pass"
    account = AccountRecord(name="other", up=False, last_success_at=clock.now() - 87_000)
    api.store.run(lambda unit: fleet.save_account(unit.connection, account))
    assert blocking(api.gate("web*")) == ["list_incomplete"]
    assert api.gate("web1.example.org")["verdict"] == "pass"
    api.accounts.list_was_tried = False
    assert "credentials_refused" in blocking(api.gate("web*"))


def test_credentials_refused_before_a_restart_are_not_forgotten(api: ServedApi, clock: SetTime) -> None:
    """Until a list call has ended, a failed one of an earlier run keeps the verdict from passing."""
    poll(api, clock, software("php"))
    down = AccountRecord(name="main", up=False, last_success_at=clock.now())
    api.store.run(lambda unit: fleet.save_account(unit.connection, down))
    assert api.gate(1)["verdict"] == "pass"
    api.accounts.list_was_tried = False
    assert blocking(api.gate(1)) == ["credentials_refused"]


def many(api: ServedApi, clock: SetTime, good: int, bad: int, never_polled: int = 0) -> None:
    """A fleet: the good ones without issues, the bad ones with more and more of them."""
    now = clock.now()

    def work(unit: Unit) -> None:
        fleet.save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=now))
        for number in range(1, good + 1):
            put_server(unit, number, f"good{number}", polled_at=now)
        for number in range(bad):
            found = [
                issue("php", Kind.OUTDATED, location=f"/{one}", fingerprint=f"{number}-{one}")
                for one in range(number + 1)
            ]
            put_server(unit, 10_000 + number, f"bad{number}", issues=found, polled_at=now)
        for number in range(never_polled):
            put_server(unit, 20_000 + number, f"new{number}", polled_at=None)

    api.store.run(work)


def asked(api: ServedApi, detail: str | None = None, **policy: Any) -> Any:
    body = {"servers": ["*"], "policy": policy} | ({} if detail is None else {"detail": detail})
    return api.post("/gate", json=body).json()


class TestDetail:
    """What is listed, and that the rest is counted."""

    def test_up_to_500_servers_everything_is_listed(self, api: ServedApi, clock: SetTime) -> None:
        """Unless problems are asked for."""
        many(api, clock, good=499, bad=1)
        answer = asked(api)
        assert (len(answer["servers"]), answer["servers_not_listed"]) == (500, 0)
        assert answer["servers_by_verdict"] == {"pass": 500, "fail": 0, "unknown": 0}
        answer = asked(api, "problems")
        assert (answer["passed"], answer["servers"], answer["servers_not_listed"]) == (True, [], 500)
        assert answer["servers_by_verdict"] == {"pass": 500, "fail": 0, "unknown": 0}
        assert answer["counts"]["medium"] == 1

    def test_above_that_problems_are_listed_the_worst_first(self, api: ServedApi, clock: SetTime) -> None:
        """What fails, then what is unknown, with the counts of everything."""
        many(api, clock, good=495, bad=4, never_polled=2)
        answer = asked(api, max_by_severity={"medium": 0})
        assert [server["name"] for server in answer["servers"]] == ["bad3", "bad2", "bad1", "bad0", "new0", "new1"]
        assert answer["servers_by_verdict"] == {"pass": 495, "fail": 4, "unknown": 2}
        assert answer["servers_not_listed"] == 495
        assert [server["counts"] for server in answer["servers"]][-1] is None
        assert len(asked(api, "all", max_by_severity={"medium": 0})["servers"]) == 501

    def test_at_most_1000_of_each_are_listed(self, api: ServedApi, clock: SetTime) -> None:
        """Servers, issues and reasons; ``found`` of a limit is of all."""
        many(api, clock, good=1, bad=50, never_polled=1001)
        answer = asked(api, max_total=0, max_by_severity={"low": 0})
        assert (len(answer["servers"]), answer["servers_not_listed"]) == (1000, 52)
        assert answer["servers_by_verdict"] == {"pass": 1, "fail": 50, "unknown": 1001}
        assert [one["found"] for one in answer["violations"]] == [1275, 1275]
        assert [len(one["issues"]) for one in answer["violations"]] == [1000, 1000]
        assert answer["issues_not_listed"] == 275
        assert (len(answer["reasons"]), answer["reasons_not_listed"]) == (1000, 3)

    def test_waived_issues_pass_and_are_counted(self, api: ServedApi, clock: SetTime) -> None:
        """Problems do not list them."""
        many(api, clock, good=1, bad=2)
        waiver = {"server": "*", "software": "php", "until": "2027-01-01", "reason": "accepted"}
        answer = asked(api, "problems", waivers=[waiver])
        assert (answer["waived"], answer["waived_not_listed"], answer["counts"]["waived"]) == ([], 3, 3)
        assert len(asked(api, "all", waivers=[waiver])["waived"]) == 3

    def test_another_word_is_refused(self, api: ServedApi) -> None:
        """With its place."""
        response = api.post("/gate", json={"servers": [1], "detail": "some"})
        assert (response.status_code, response.json()["at"]) == (400, "detail")


@pytest.mark.parametrize("servers", [[], ["nosuch"]])
def test_counts_of_what_nobody_knows_are_null(api: ServedApi, servers: list[str]) -> None:
    """And no server of a selection without any is counted as anything but unknown."""
    answer = api.gate(*servers)
    assert answer["counts"] is None
    assert answer["servers_by_verdict"] == {"pass": 0, "fail": 0, "unknown": len(servers)}
