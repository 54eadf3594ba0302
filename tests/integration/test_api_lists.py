"""Lists over HTTP: filters, and pages that stay whole while the fleet changes under them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from msgspec.structs import replace
from tests.harness.api import SetTime, put_server, serving_api
from tests.unit.issues.builders import issue, outdated, software, unsupported

from patrolserver_exporter.inbox.deliveries import NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.store import fleet
from patrolserver_exporter.store.fleet import AccountRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.api import ServedApi

    from patrolserver_exporter.store import Unit

NOON = 1_795_521_600.0


@pytest.fixture
def api(store_url: str) -> Iterator[ServedApi]:
    """The API over a fleet, on each of the two databases."""
    with serving_api(store_url, clock=SetTime(NOON)) as served:
        served.accounts.names.append("other")
        served.store.run(_fleet)
        yield served


def _fleet(unit: Unit) -> None:
    for number in range(1, 11):
        found = [
            issue(f"php{number}", Kind.OUTDATED),
            issue("nginx", Kind.UNSUPPORTED, waived_until=None if number % 2 else _UNTIL, waived_reason="known"),
            issue("old", Kind.OUTDATED, fixed_at=NOON - 60),
        ]
        if number == 3:
            found.append(issue("openssl", Kind.EXPLOITABLE, risk=9.5, severity=Severity.CRITICAL))
        put_server(
            unit,
            number,
            f"web{number}.example.org",
            issues=[replace(one, fingerprint=f"{number}-{one.canonical_name}") for one in found],
            software=(outdated(f"php{number}"), unsupported("nginx"), software("bash"), software("bash")),
            polled_at=NOON - 60,
        )
    put_server(unit, 7, "db.example.org", account="other", issues=[issue("db", fingerprint="db")], polled_at=NOON)
    put_server(unit, 8, "new.example.org", account="other")


_UNTIL = dt.date(2027, 1, 1)


def ids(items: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(item["account"], item["id"]) for item in items]


def test_servers_come_by_account_and_id_with_all_that_is_known(api: ServedApi) -> None:
    """Each server once, in order; what nobody knows yet is null."""
    items = api.get("/servers").json()["items"]
    assert ids(items) == [*(("main", number) for number in range(1, 11)), ("other", 7), ("other", 8)]
    first, new = items[0], items[-1]
    assert first["issues"] == {"critical": 0, "high": 1, "medium": 1, "low": 0, "total": 2, "waived": 0}
    assert first["software"] == {"supported": 2, "outdated": 1, "unsupported": 1, "unknown": 0}
    assert (first["data_age_seconds"], first["last_poll_at"]) == (60.0, "2026-11-24T11:59:00Z")
    assert (new["issues"], new["software"], new["last_poll_at"], new["poll_success"]) == (None, None, None, False)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("account=other", [7, 8]),
        ("server=web1*&server=db*", [1, 10, 7]),
        ("server=7", [7, 7]),
        ("server=7&account=other", [7]),
        ("severity=critical", [3]),
        ("severity=critical&server=web4*", []),
        ("kind=exploitable&kind=reported", [3]),
        ("kind=unsupported", [1, 3, 5, 7, 9]),
        ("server=nosuch", []),
    ],
)
def test_servers_are_filtered(api: ServedApi, query: str, found: list[int]) -> None:
    """Values of one name are alternatives, names narrow each other; waived issues do not count."""
    assert [item["id"] for item in api.get(f"/servers?{query}").json()["items"]] == found


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 22),
        ("state=fixed", 10),
        ("state=all", 32),
        ("waived=true", 5),
        ("waived=false", 17),
        ("severity=critical", 1),
        ("severity=critical&severity=high", 11),
        ("kind=unsupported&waived=true", 5),
        ("software=PHP*", 10),
        ("software=php1&software=openssl", 2),
        ("server=web1*", 4),
        ("server=7", 3),
        ("account=other", 1),
        ("server=web1.example.org&software=php*", 1),
    ],
)
@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_issues_are_filtered_and_paged(api: ServedApi, query: str, count: int, limit: int) -> None:
    """Whatever the filter and the length of a page, each issue comes once."""
    pages = api.pages(f"/issues?{query}", limit)
    fingerprints = [(item["account"], item["fingerprint"]) for page in pages for item in page]
    assert len(fingerprints) == len(set(fingerprints)) == count
    assert all(len(page) <= limit for page in pages)


def test_an_issue_tells_all_that_is_known(api: ServedApi) -> None:
    """Times are RFC 3339 in UTC, the server has its name, a waiver its end."""
    (item,) = api.get("/issues?server=web2.example.org&waived=true").json()["items"]
    assert item["server"] == "web2.example.org"
    assert (item["class"], item["kind"], item["severity"]) == ("version", "unsupported", "high")
    assert item["waiver"] == {"until": "2027-01-01", "reason": "known"}
    assert item["first_seen"] == "1970-01-01T00:16:40Z"
    assert item["confirmed"] is True


def test_pages_stay_whole_while_servers_come_and_go(api: ServedApi) -> None:
    """What was there all the time comes once, whatever was added, removed or changed in between."""
    first = api.get("/servers?limit=4").json()

    def change(unit: Unit) -> None:
        record = fleet.find_server(unit.connection, "main", 2)
        assert record is not None
        fleet.save_servers(unit.connection, [replace(record, gone_at=NOON)])
        put_server(unit, 100, "aaa.example.org", account="aaa")
        put_server(unit, 11, "web11.example.org")

    api.store.run(change)
    rest = api.get(f"/servers?limit=1000&cursor={first['next_cursor']}").json()
    assert ids(first["items"]) == [("main", number) for number in range(1, 5)]
    assert ids(rest["items"]) == [*(("main", number) for number in range(5, 12)), ("other", 7), ("other", 8)]


def test_a_page_of_issues_does_not_shift_when_one_is_fixed(api: ServedApi) -> None:
    """The second page begins where the first one ended, though an issue of the first is gone."""
    first = api.get("/issues?limit=5").json()
    wanted = [item["fingerprint"] for page in api.pages("/issues", 1000) for item in page][5:]

    def fix(unit: Unit) -> None:
        known = fleet.issues_of(unit.connection, "main", 1)
        fleet.save_issues(unit.connection, [replace(one, fixed_at=NOON) for one in known])

    api.store.run(fix)
    rest = api.get(f"/issues?limit=1000&cursor={first['next_cursor']}").json()
    assert [item["fingerprint"] for item in rest["items"]] == wanted


@pytest.mark.parametrize("path", ["/servers", "/issues", "/inbox", "/servers/1/software"])
def test_a_cursor_of_another_list_is_refused(api: ServedApi, path: str) -> None:
    """A foreign cursor is a 400 that says where cursors come from."""
    foreign = api.get("/changes?after=latest").json()["next_cursor"]
    response = api.get(f"{path}?account=main&cursor={foreign}")
    assert response.status_code == 400
    assert "next_cursor" in response.json()["detail"]


def test_a_server_is_found_by_id_and_by_name(api: ServedApi) -> None:
    """Both work; a name or id of several accounts is a 409 that names them, and ``account`` decides."""
    assert api.get("/servers/web3.example.org").json()["id"] == 3
    assert api.get("/servers/3").json()["name"] == "web3.example.org"
    several = api.get("/servers/7")
    assert (several.status_code, several.json()["accounts"]) == (409, ["main", "other"])
    assert api.get("/servers/7?account=other").json()["name"] == "db.example.org"
    assert api.get("/servers/nosuch").status_code == 404
    assert api.get("/servers/7/issues?account=other").json()["items"][0]["fingerprint"] == "db"


@pytest.mark.parametrize("asked", ["3", "web3.example.org"])
@pytest.mark.parametrize("rest", ["", "/issues", "/software", "?account=main"])
def test_a_server_that_was_removed_is_told_from_one_that_never_was(api: ServedApi, asked: str, rest: str) -> None:
    """A 404 that says which account had it, and until when; of another account nothing is said."""

    def remove(unit: Unit) -> None:
        record = fleet.find_server(unit.connection, "main", 3)
        assert record is not None
        fleet.save_servers(unit.connection, [replace(record, gone_at=NOON)])

    api.store.run(remove)
    answer = api.get(f"/servers/{asked}{rest}")
    assert answer.status_code == 404
    removed = {"account": "main", "id": 3, "name": "web3.example.org", "removed_at": "2026-11-24T12:00:00Z"}
    assert answer.json()["removed"] == [removed]
    assert "account main lost it at 2026-11-24T12:00:00Z" in answer.json()["detail"]
    assert "removed" not in api.get(f"/servers/{asked}?account=other").json()
    assert "removed" not in api.get("/servers/nothing.example.org").json()


def test_a_name_may_hold_anything(api: ServedApi) -> None:
    """A slash, a glob's letters and a question mark are only letters once they are percent-encoded."""
    name = "odd/na?me *%2F"
    api.store.run(lambda unit: put_server(unit, 50, name, software=(software("bash"),), polled_at=NOON))
    for account in ("main", "other"):
        listed = AccountRecord(name=account, up=True, last_success_at=NOON)
        api.store.run(lambda unit, listed=listed: fleet.save_account(unit.connection, listed))  # type: ignore[misc]
    assert api.get(f"/servers/{quote(name, safe='')}").json()["id"] == 50
    assert api.get(f"/servers/{quote(name, safe='')}/software").json()["items"][0]["name"] == "BASH"
    assert [one["name"] for one in api.gate(name)["servers"]] == [name]


def test_software_is_paged_with_its_state(api: ServedApi) -> None:
    """Every installation comes once, the same name and place twice too."""
    pages = api.pages("/servers/1/software", 1)
    assert [(item["canonical_name"], item["state"]) for (item,) in pages] == [
        ("bash", "supported"),
        ("bash", "supported"),
        ("nginx", "unsupported"),
        ("php1", "outdated"),
    ]
    assert api.get("/servers/new.example.org/software").json() == {"items": [], "next_cursor": None}


def test_a_delivery_that_waits_marks_its_account(api: ServedApi) -> None:
    """While nobody has looked at it, the account's servers show that an event is not confirmed."""
    new = NewDelivery("other", 1, 5, "webhook.new_server_issues", NOON)
    api.store.run(lambda unit: BoundedInbox(10).accept(unit, [new]))
    items = api.get("/servers?account=other").json()["items"]
    assert any(item["last_poll_at"] for item in items)
    assert all("waits_for_poll" in item["unknown_because"] for item in items if item["last_poll_at"] is not None)
    marked = {item["id"]: item["unconfirmed_event"] for item in items}
    assert marked == {7: True, 8: True}
    assert api.get("/servers/1").json()["unconfirmed_event"] is False


def test_a_head_request_gets_the_headers_alone(api: ServedApi) -> None:
    """HEAD works wherever GET does; nothing may be kept by caches."""
    response = api.session.head(f"{api.url}/api/v1/servers", timeout=10)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["cache-control"] == "no-store"
    assert int(response.headers["content-length"]) > 100


def test_another_method_is_told_what_is_allowed(api: ServedApi) -> None:
    """405 with Allow, as a problem."""
    response = api.session.put(f"{api.url}/api/v1/inbox/1", timeout=10)
    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET, HEAD")
    assert response.headers["content-type"] == "application/problem+json"


def test_status_tells_of_accounts_and_inbox(api: ServedApi) -> None:
    """Without the secrets that a trouble's text may hold."""
    api.redactor.register("canary-secret")
    api.accounts.trouble = "refused: canary-secret"
    status = api.get("/status").json()
    assert [one["name"] for one in status["accounts"]] == ["main", "other"]
    assert "canary" not in status["accounts"][0]["trouble"]
    assert status["inbox"]["received"] == 0
