"""Lists over the fleet: software, exploits and targets, the same filters everywhere, and all of it as CSV."""

from __future__ import annotations

import csv
import datetime as dt
import io
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests
from msgspec.structs import replace
from tests.harness.api import SetTime, put_server, serving_api
from tests.harness.prometheus import Prometheus
from tests.harness.waiting import eventually
from tests.unit.issues.builders import issue, outdated, software, unsupported

from patrolserver_exporter.issues.model import IssueExploit, Kind, Severity
from patrolserver_exporter.patrolserver.models import Exploit
from patrolserver_exporter.store import fleet, tables
from patrolserver_exporter.store.fleet import AccountRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.api import ServedApi

    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.store import Unit

NOON = 1_795_521_600.0
UNTIL = dt.date(2027, 1, 1)
LABELS = {"web*": {"team": "web"}, "*3.example.org": {"environment": "staging"}, "db*": {"team": "data"}}
CVE = IssueExploit(id="17", cve="CVE-2026-0001", risk=9.8, title="Remote code")
NAMELESS = IssueExploit(title="Something odd", risk=None)


def exploitable(name: str, *exploits: IssueExploit, **more: Any) -> Issue:
    """An issue that stands for these exploits."""
    known = [one.risk for one in exploits if one.risk is not None and not one.waived]
    severity = Severity.CRITICAL if known and max(known) >= 9 else Severity.HIGH
    found = issue(name, Kind.EXPLOITABLE, risk=max(known, default=None), severity=severity, **more)
    return replace(found, exploits=exploits)


def _fleet(unit: Unit) -> None:
    for name in ("main", "other"):
        fleet.save_account(unit.connection, AccountRecord(name=name, up=True, last_success_at=NOON))
    waived_cve = replace(CVE, waived_until=UNTIL, waived_reason="known")
    found = {
        1: [exploitable("openssl", CVE, version="1.1"), issue("php", Kind.OUTDATED, version="8.0", update_to="8.1")],
        2: [exploitable("openssl", CVE, NAMELESS, version="1.1")],
        3: [
            exploitable("openssl", waived_cve, version="1.1", waived_until=UNTIL, waived_reason="known"),
            issue("php", Kind.OUTDATED, version="8.0", update_to="8.1"),
        ],
        4: [issue("php", Kind.UNSUPPORTED, version="5.6"), issue("old", Kind.OUTDATED, fixed_at=NOON)],
    }
    for number, issues in found.items():
        put_server(
            unit,
            number,
            f"web{number}.example.org",
            issues=[replace(one, fingerprint=f"{number}-{n}") for n, one in enumerate(issues)],
            software=(outdated("php"), unsupported("x"), software("bash", exploits=())),
            polled_at=NOON - 60 if number != 2 else NOON - 100_000,
        )
    unknown = software("odd", version=None, supported=None, exploits=(Exploit(risk=1.0),))
    put_server(unit, 5, "db.example.org", account="other", software=(unknown,), polled_at=NOON - 60)
    put_server(unit, 6, "new.example.org", account="other")


@pytest.fixture
def api(store_url: str) -> Iterator[ServedApi]:
    """The API over a small fleet, on each of the two databases."""
    with serving_api(store_url, clock=SetTime(NOON), labels=LABELS) as served:
        served.accounts.names.append("other")
        served.store.run(_fleet)
        yield served


def test_software_is_counted_over_the_fleet(api: ServedApi) -> None:
    """Each version that is not fine once, with its servers; waived ones, doubtful data and unknown states are told."""
    reply = api.get("/software").json()
    counts = {
        (one["canonical_name"], one["version"]): (
            one["servers"],
            one["servers_waived"],
            one["servers_state_unknown"],
            one["servers_doubtful"],
        )
        for one in reply["items"]
    }
    assert counts == {
        ("odd", None): (1, 0, 1, 1),
        ("openssl", "1.1"): (2, 1, 0, 1),
        ("php", "5.6"): (1, 0, 0, 0),
        ("php", "8.0"): (2, 0, 0, 0),
    }
    odd, openssl, _, php = reply["items"]
    assert (odd["kinds"], odd["severity"]) == ([], None)
    assert (openssl["severity"], openssl["risk"], openssl["risk_unknown"]) == ("critical", 9.8, True)
    assert openssl["exploits"] == ["CVE-2026-0001", "Something odd"]
    assert (php["kinds"], php["update_to"]) == (["outdated"], ["8.1"])
    assert reply["coverage"] == {"servers": 6, "unknown": 3, "never_polled": 1}


def test_exploits_are_told_with_their_risk_and_servers(api: ServedApi) -> None:
    """A CVE is one exploit wherever it is; one without a name is only the same within its software."""
    reply = api.get("/exploits").json()
    cve, odd = reply["items"]
    assert (cve["cve"], cve["id"], cve["risk"], cve["severity"]) == ("CVE-2026-0001", "17", 9.8, "critical")
    assert cve["url"] == "https://nvd.nist.gov/vuln/detail/CVE-2026-0001"
    assert (cve["servers"], cve["servers_waived"], cve["servers_doubtful"]) == (2, 1, 1)
    assert [(one["id"], one["waived"], one["doubtful"]) for one in cve["on"]] == [
        (1, False, False),
        (2, False, True),
        (3, True, False),
    ]
    assert (odd["title"], odd["risk"], odd["risk_unknown"], odd["severity"]) == ("Something odd", None, True, "high")
    assert reply["coverage"]["never_polled"] == 1


ALIKE = [
    ("account=main", {1, 2, 3, 4}),
    ("server=web1*&server=6", {1, 6}),
    ("label=team%3Dweb&label=environment%3Dstag*", {3}),
    ("label=team%3D", {5, 6}),
    ("label=team%3Ddata", set()),
    ("severity=critical", {1, 2}),
    ("kind=outdated&kind=unsupported", {1, 3, 4}),
    ("software=PHP&severity=high", {4}),
    ("software=o*", {1, 2}),
    ("exploit=cve-2026-*", {1, 2}),
    ("exploit=17&waived=true", {3}),
    ("exploit=17&waived=both", {1, 2, 3}),
    ("exploit=CVE-2026-0001&software=php", set()),
    ("waived=true", {3}),
    ("waived=false", {1, 2, 3, 4}),
    ("software=nosuch", set()),
]


@pytest.mark.parametrize(("query", "found"), ALIKE)
def test_every_list_takes_the_same_filters(api: ServedApi, query: str, found: set[int]) -> None:
    """Servers, targets and their CSV agree; issues, software and exploits name none but what is on those servers."""
    assert {one["id"] for one in api.get(f"/servers?{query}").json()["items"]} == found
    assert {int(one["id"]) for one in sheet(api, f"/servers?{query}")} == found
    targets = api.get(f"/sd?{query}").json()
    assert {int(one["labels"]["__meta_patrolserver_server_id"]) for one in targets} == found
    waived = "" if "waived" in query else "&waived=false"
    of_issues = {one["server_id"] for one in api.get(f"/issues?{query}{waived}").json()["items"]}
    by_issue = any(name in query for name in ("severity", "kind", "software", "exploit", "waived"))
    assert of_issues == (found if by_issue else found & {1, 2, 3, 4})
    named = {one["canonical_name"] for one in api.get(f"/software?{query}{waived}").json()["items"]}
    of = {one["canonical_name"] for one in api.get(f"/issues?{query}{waived}").json()["items"]}
    assert named == of
    for one in api.get(f"/exploits?{query}{waived}").json()["items"]:
        assert {server["id"] for server in one["on"]} <= found


def test_the_number_of_servers_is_that_of_the_list_behind_it(api: ServedApi) -> None:
    """What `/software` and `/exploits` count is what `/servers` lists for that name."""
    for one in api.get("/exploits").json()["items"]:
        if one["cve"]:
            behind = api.get(f"/servers?exploit={one['cve']}").json()["items"]
            assert len(behind) == one["servers"]
    openssl = next(one for one in api.get("/software?software=openssl").json()["items"])
    assert len(api.get("/servers?software=openssl").json()["items"]) == openssl["servers"]


@pytest.mark.parametrize("path", ["/software", "/exploits"])
def test_the_lists_over_the_fleet_are_paged(api: ServedApi, path: str) -> None:
    """One by one each item comes once; a cursor of another list is refused."""
    whole = api.get(path).json()["items"]
    assert [item for (item,) in api.pages(path, 1)] == whole
    foreign = api.get("/changes?after=latest").json()["next_cursor"]
    assert api.get(f"{path}?cursor={foreign}").status_code == 400


def test_a_server_tells_its_labels_and_why_it_is_unknown(api: ServedApi) -> None:
    """Its labels by the configuration; never polled, old, and software of unknown state; nothing of fine ones."""
    items = {one["id"]: one for one in api.get("/servers").json()["items"]}
    assert items[3]["labels"] == {"environment": "staging", "team": "web"}
    assert items[5]["labels"] == {}, "the labels are those of another account"
    assert {number: one["unknown_because"] for number, one in items.items()} == {
        1: [],
        2: ["old"],
        3: [],
        4: [],
        5: ["software_unknown"],
        6: ["never_polled"],
    }
    api.store.run(lambda unit: fleet.save_account(unit.connection, AccountRecord(name="main", up=False)))
    assert api.get("/servers/1").json()["unknown_because"] == ["account_down"]


def sheet(api: ServedApi, path: str) -> list[dict[str, str]]:
    """A list as CSV, read by Python's own reader."""
    response = api.get(f"{path}{'&' if '?' in path else '?'}format=csv")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(response.content.decode(), newline="")))


@pytest.mark.parametrize(
    "path", ["/servers", "/issues", "/software", "/exploits", "/servers/1/issues", "/servers/1/software"]
)
def test_csv_has_every_item_of_the_list(api: ServedApi, path: str) -> None:
    """As many rows as items, whatever limit says; HEAD has no body."""
    items = [item for page in api.pages(path, 2) for item in page]
    assert len(sheet(api, f"{path}?limit=1")) == len(items) > 1
    head = api.session.head(f"{api.url}/api/v1{path}?format=csv", timeout=10)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("path", ["/servers", "/issues", "/software", "/exploits", "/servers/6/software"])
def test_csv_without_items_has_its_first_line(api: ServedApi, path: str) -> None:
    """An empty list is told from one that did not come."""
    query = "" if path.startswith("/servers/") else "&software=nosuch"
    response = api.get(f"{path}?format=csv{query}")
    assert (response.status_code, response.text.count("\r\n")) == (200, 1)


def test_csv_tells_what_is_unknown_as_unknown(api: ServedApi) -> None:
    """Counts of a server that was never polled are empty and not 0, and the reason stands beside them."""
    rows = {row["id"]: row for row in sheet(api, "/servers")}
    assert (rows["6"]["critical"], rows["6"]["unsupported"], rows["6"]["unknown_because"]) == ("", "", "never_polled")
    assert (rows["4"]["critical"], rows["4"]["high"], rows["4"]["unknown_because"]) == ("0", "1", "")
    assert rows["3"]["labels"] == "environment=staging; team=web"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", '=cmd|"/c calc"!A1', 'a,"b"\n=c'])
def test_a_formula_is_text_in_csv(api: ServedApi, name: str) -> None:
    """A cell that begins like one gets an apostrophe; commas, quotes and lines stay inside their cell."""
    api.store.run(lambda unit: put_server(unit, 9, name, polled_at=NOON))
    row = next(row for row in sheet(api, "/servers") if row["id"] == "9")
    assert row["name"] == (f"'{name}" if name[0] in "=+-@\t\r" else name)


def test_a_long_csv_is_whole_and_made_of_bounded_reads(api: ServedApi) -> None:
    """2,500 servers come once each, in chunks, without a length that was known before."""

    def many(unit: Unit) -> None:
        for number in range(10, 2510):
            put_server(unit, number, f"many{number}", polled_at=NOON)

    api.store.run(many)
    response = api.get("/servers?format=csv&server=many*")
    assert "content-length" not in response.headers
    names = [row["name"] for row in csv.DictReader(io.StringIO(response.text))]
    assert names == [f"many{number}" for number in range(10, 2510)]


@pytest.mark.parametrize("damaged", [1400, 10])
def test_a_csv_that_cannot_be_read_to_its_end_is_cut_off(api: ServedApi, damaged: int) -> None:
    """A damaged row far down ends the connection, so that nobody takes the rest for all; at once it is a 503."""

    def many(unit: Unit) -> None:
        for number in range(10, 1500):
            put_server(unit, number, f"many{number}", polled_at=NOON)
        row = tables.servers.update().where(tables.servers.c.server_id == damaged)
        unit.connection.execute(row.values(summary=b"damaged"))

    api.store.run(many)
    if damaged > 1000:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            api.get("/servers?format=csv&server=many*")
    else:
        assert api.get("/servers?format=csv&server=many*").status_code == 503


def test_targets_are_refused_until_every_list_was_read(api: ServedApi) -> None:
    """An account that never answered makes a 503, at which Prometheus keeps what it has; the others can be asked."""
    api.accounts.names.append("silent")
    response = api.get("/sd")
    assert (response.status_code, response.json()["accounts"]) == (503, ["silent"])
    assert response.headers["retry-after"]
    assert len(api.get("/sd?account=main").json()) == 4


def test_a_real_prometheus_takes_the_targets(
    api: ServedApi, require_program: Callable[[str], str], tmp_path: Path
) -> None:
    """It finds each server with its labels; odd names cost only themselves."""
    for number, name in ((20, "a b"), (21, "[2001:db8::1]"), (22, "odd/name"), (23, 'quote"\\ü')):
        api.store.run(lambda unit, number=number, name=name: put_server(unit, number, name))  # type: ignore[misc]
    extra = f"""\
  - job_name: fleet
    scrape_interval: 1h
    scrape_timeout: 1s
    http_sd_configs:
      - url: {api.url}/api/v1/sd
        refresh_interval: 1s
        authorization: {{credentials: token-of-the-operator}}
    relabel_configs:
      - {{source_labels: [__meta_patrolserver_label_team], target_label: team}}
      - {{source_labels: [__meta_patrolserver_server], target_label: server}}
      - {{source_labels: [__meta_patrolserver_severity], target_label: severity}}
      - {{target_label: __address__, replacement: "127.0.0.1:1"}}
"""
    with Prometheus(tmp_path, require_program("prometheus"), "127.0.0.1:1", extra=extra) as prometheus:

        def found() -> dict[str, dict[str, str]]:
            reply = requests.get(f"{prometheus.url}/api/v1/targets?state=active", timeout=10).json()
            active = [one["labels"] for one in reply["data"]["activeTargets"] if one["labels"]["job"] == "fleet"]
            return {one["server"]: one for one in active} if len(active) >= 9 else {}

        targets = eventually(found, within=30)
    assert targets["web1.example.org"]["team"] == "web"
    assert targets["web1.example.org"]["severity"] == "critical"
    assert targets["new.example.org"]["severity"] == "unknown"
    assert {"a b", "[2001:db8::1]", 'quote"\\ü'} <= set(targets)


def test_a_wrong_label_is_named(api: ServedApi) -> None:
    """A filter that says nothing is refused, never taken for everything."""
    response = api.get(f"/servers?label={quote('team')}")
    assert response.status_code == 400
    assert "team=web" in response.json()["detail"]


@pytest.mark.parametrize("path", ["servers", "issues", "software", "exploits", "sd"])
def test_a_filter_on_what_there_is_not_is_refused(api: ServedApi, path: str) -> None:
    """Whoever mistypes an account or a label's name would have an empty list, as if all was well."""
    for asked, said in (
        ("account=main&account=nope", "There is no account 'nope'; there are: main, other."),
        ("label=teem%3Dweb", "There is no label 'teem'; there are: environment, team."),
    ):
        response = api.get(f"/{path}?{asked}")
        assert (response.status_code, response.json()["detail"]) == (400, said)
    assert api.get(f"/{path}?account=other&label=team%3D").status_code == 200
