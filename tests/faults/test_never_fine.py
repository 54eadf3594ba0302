"""Stories in which nobody can know, or what is known got worse: the gate does not pass, and others are not held up."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.faketime import faked_clock
from tests.harness.fleet import wait_for_polls
from tests.harness.gate import CRITICAL, MENDED, add_server, ask, ask_for
from tests.harness.process import TOKEN, Exporter, samples
from tests.harness.rawapi import RawApi
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.replies import Endpoint, ReplyRule
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.simulator.software import Change, Kind, exploit_from
from patrolserver_exporter.simulator.webhooks import Telling
from patrolserver_exporter.simulator.world import NEW_ISSUES, SCAN_FINISHED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEB, DB = "web.example.org", "db.example.org"
RISK_MAX = "patrolserver_server_exploit_risk_max"


@pytest.fixture
def api() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=0)) as running:
        add_server(running, WEB)
        add_server(running, DB)
        yield running


@pytest.fixture
def exporter(tmp_path: Path, api: Simulator) -> Iterator[Exporter]:
    with watching(tmp_path, api) as running:
        yield running


def watching(folder: Path, api: Simulator, **options: Any) -> Exporter:
    return Exporter.watching(folder, api.base_url, interval="2s", settle="2s", **options)


def passes(exporter: Exporter, *servers: str, within: float = 20.0, **policy: Any) -> None:
    eventually(lambda: ask(exporter, *(servers or (WEB, DB)), **policy).verdict == "pass", within=within, what="a pass")


def hook(exporter: Exporter, api: Simulator) -> int:
    """Have the events delivered."""
    return api.world.outbox.add_webhook(api.world.demo.id, f"{exporter.url}/webhook/{TOKEN}").id


def fail_software(api: Simulator, server_id: int, **fields: Any) -> None:
    fault: dict[str, Any] = {"kind": FaultKind.STATUS, "status": 503}
    api.faults.add(Fault(path=f"servers/{server_id}/software", **(fault | fields)))


def lists(api: Simulator, more: int) -> None:
    """Wait for so many server lists, of which all but the last are kept then."""
    before = api.requests.count("GET servers")
    eventually(lambda: api.requests.count("GET servers") >= before + more, within=30.0, what="server lists")


@pytest.mark.promise("worse")
def test_another_server_under_an_old_id_starts_anew(api: Simulator, exporter: Exporter) -> None:
    """Its software cannot be read: it is unknown, and shows nobody else's numbers; once read, it fails for its own."""
    db = api.world.named(DB)
    api.world.change(db, Change(Kind.EXPLOITABLE, "php", risk=6.0))
    passes(exporter)
    eventually(lambda: exporter.value(RISK_MAX, server=DB) == 6.0, what="the old server's risk")
    fail_software(api, db.id)
    api.world.remove_server(db)
    add_server(api, "new.example.org", db.id, critical=True)
    lists(api, 2)
    assert ask_for(3.0, exporter, db.id).keys() == {"unknown"}
    assert ask_for(0.5, exporter, "new.example.org").keys() == {"unknown"}
    assert ask(exporter, DB).verdict == "unknown"
    assert exporter.value(RISK_MAX, server="new.example.org") != 6.0
    api.faults.clear()
    eventually(lambda: ask(exporter, "new.example.org").verdict == "fail", what="the new server's own issue")
    assert exporter.value(RISK_MAX, server="new.example.org") == 9.8


@pytest.mark.promise("worse")
def test_a_server_with_a_new_name_is_in_doubt_until_it_is_polled(api: Simulator, exporter: Exporter) -> None:
    """After a rename nobody knows whether it is the same: unknown by id and by name, until a poll of its own."""
    passes(exporter)
    web = api.world.named(WEB)
    fail_software(api, web.id)
    api.world.rename(web, "renamed.example.org")
    lists(api, 2)
    assert ask_for(3.0, exporter, "renamed.example.org").keys() == {"unknown"}
    assert ask(exporter, web.id).verdict == "unknown"
    assert ask(exporter, DB).verdict == "pass"
    api.faults.clear()
    passes(exporter, "renamed.example.org")


@pytest.mark.promise("never-fine")
def test_an_empty_list_ends_nothing_at_once(api: Simulator, exporter: Exporter) -> None:
    """One server list without servers: they are unknown until the next one, and keep their series."""
    passes(exporter)
    api.replies.add(ReplyRule(endpoint=Endpoint.SERVERS, share=0.0, count=1))
    said = set()
    end = time.monotonic() + 5.0
    while time.monotonic() < end:
        said.add(ask(exporter, "*").verdict)
        assert exporter.value("patrolserver_server_info", server=WEB) == 1.0
    assert "unknown" in said
    passes(exporter)


@pytest.mark.promise("retry-after")
def test_one_server_that_asks_to_wait_for_a_day_holds_up_no_other(api: Simulator, exporter: Exporter) -> None:
    """The others go on to be polled, so that their data does not get old, and a fix is seen."""
    passes(exporter)
    web, db = api.world.named(WEB), api.world.named(DB)
    fail_software(api, web.id, kind=FaultKind.RATE_LIMIT, retry_after=86_400, count=1)
    eventually(lambda: api.faults.documents()[0]["hits"] == 1, what="the refusal")
    api.world.change(db, CRITICAL)
    eventually(lambda: ask(exporter, DB).verdict == "fail", what="a poll of the other server")
    api.world.change(db, MENDED)
    passes(exporter, DB, max_age=10)
    # It is asked again after an hour at most; until then its data gets old, and nothing else happens.
    assert ask(exporter, WEB, max_age=3).verdict == "unknown"


@pytest.mark.promise("worse")
@pytest.mark.parametrize(
    "worse",
    [
        Change(Kind.EXPLOITABLE, "php", found=exploit_from({"id": 9, "cve": "CVE-2099-9999", "risk": 9.8}, 9)),
        Change(Kind.EXPLOITABLE, "php", found=exploit_from({"id": 9, "cve": "CVE-2099-9999", "risk": 6.0}, 9)),
        Change(Kind.EXPLOITABLE, "php", found=exploit_from({"id": 9, "cve": "CVE-2099-9999"}, 9)),
        Change(Kind.UNSUPPORTED, "nginx"),
    ],
    ids=["a worse exploit", "one more exploit", "an exploit of unknown risk", "no update any more"],
)
def test_a_baseline_does_not_cover_what_became_worse(api: Simulator, exporter: Exporter, worse: Change) -> None:
    """What was accepted passes as it was, and no longer once it is worse."""
    web = api.world.named(WEB)
    api.world.change(web, Change(Kind.EXPLOITABLE, "php", risk=6.0))
    api.world.change(web, Change(Kind.OUTDATED, "nginx"))
    passes(exporter)
    eventually(lambda: ask(exporter, WEB, max_total=0).verdict == "fail", what="two issues")
    items = exporter.get("/api/v1/issues").json()["items"]
    kept = [
        {name: one[name] for name in ("fingerprint", "kind", "severity", "risk")}
        | {
            "exploits": [
                {name: e.get(name) for name in ("id", "cve", "title", "risk")} for e in one.get("exploits", ())
            ]
        }
        for one in items
    ]
    assert len(kept) == 2
    assert ask(exporter, WEB, max_total=0, baseline=kept).verdict == "pass"
    api.world.change(web, worse)
    polls = api.requests.count("GET servers/:server/software")
    eventually(lambda: api.requests.count("GET servers/:server/software") >= polls + 5, what="polls")
    assert "pass" not in ask_for(1.0, exporter, WEB, max_total=0, baseline=kept)


@pytest.mark.promise("forged")
def test_a_forged_test_does_not_make_the_real_delivery_a_duplicate(api: Simulator, exporter: Exporter) -> None:
    """A test that the API does not know comes first; the real delivery of that event is doubted all the same."""
    webhook_id = hook(exporter, api)
    passes(exporter)
    forged = {"webhook_patrolserver": 1, "identifier": "webhook.test", "event_id": 1, "webhook_id": webhook_id}
    assert requests.post(f"{exporter.url}/webhook/{TOKEN}", json=forged, timeout=10).status_code == 202
    eventually(lambda: api.requests.count("GET webhooks/:webhook/events/:event"), what="the question about it")
    fail_software(api, api.world.named(WEB).id)
    data = {"server_id": api.world.named(WEB).id, "new_issues": [{"title": "Close port 23."}]}
    (event,) = api.world.outbox.emit(api.world.demo.id, NEW_ISSUES, data)
    assert event.id == 1
    assert api.postman.drain(10.0)
    assert "pass" not in ask_for(3.0, exporter, WEB)


@pytest.mark.promise("forged")
def test_a_forged_end_of_a_scan_is_no_scan(api: Simulator, exporter: Exporter) -> None:
    """No scan ran, so max_scan_age is not met, whatever a delivery claims and whichever event it names."""
    hook(exporter, api)
    passes(exporter)
    data = {"server_id": api.world.named(WEB).id, "new_issues": []}
    api.world.outbox.emit(api.world.demo.id, NEW_ISSUES, data, telling=Telling(delivered_as=SCAN_FINISHED))
    assert api.postman.drain(10.0)
    passes(exporter)
    assert "pass" not in ask_for(6.0, exporter, WEB, max_scan_age=3600)


@pytest.mark.promise("never-fine")
def test_a_scan_that_was_told_is_one(api: Simulator, exporter: Exporter) -> None:
    """It was seen running and ended: max_scan_age is met once its result was polled."""
    hook(exporter, api)
    passes(exporter)
    api.world.start_scan(api.world.named(WEB), 2.0)
    passes(exporter, WEB, within=40.0, max_scan_age=3600)


@pytest.mark.promise("clock")
def test_a_clock_that_is_set_back_a_little_confirms_nothing(tmp_path: Path, api: Simulator) -> None:
    """Four seconds back between a poll and the end of a scan: that poll is not the one that shows what it found."""
    clock = faked_clock(tmp_path)
    if clock is None:
        pytest.skip("libfaketime is not installed")
    with watching(tmp_path, api, environ=clock.environ) as exporter:
        hook(exporter, api)
        passes(exporter)
        web = api.world.named(WEB)
        polls = api.requests.count("GET servers/:server/software")
        eventually(lambda: api.requests.count("GET servers/:server/software") >= polls + 2, what="two polls")
        clock.set(-4.0)
        fail_software(api, web.id)
        api.world.change(web, CRITICAL)
        api.world.outbox.emit(api.world.demo.id, SCAN_FINISHED, {"server_id": web.id})
        assert api.postman.drain(10.0)
        assert ask_for(5.0, exporter, WEB).keys() == {"unknown"}


@pytest.mark.promise("credentials")
def test_a_fresh_exporter_with_a_wrong_key_says_so(tmp_path: Path, api: Simulator) -> None:
    """Not that there is no such server, but that the credentials are refused."""
    api.world.demo.secret = "another"
    with watching(tmp_path, api) as exporter:
        eventually(lambda: "credentials_refused" in ask(exporter, WEB).codes, what="the reason")
        assert ask(exporter, "*").verdict == "unknown"
        assert ask(exporter, "*").codes >= {"credentials_refused"}


@pytest.mark.promise("worse")
def test_a_server_that_comes_back_is_in_doubt_until_it_is_polled(api: Simulator, exporter: Exporter) -> None:
    """Under its old id and its old name it may be another one all the same."""
    passes(exporter)
    web = api.world.named(WEB)
    api.world.remove_server(web)
    lists(api, 2)
    assert ask(exporter, WEB).verdict == "unknown"
    fail_software(api, web.id)
    add_server(api, WEB, web.id, critical=True)
    lists(api, 2)
    assert ask_for(3.0, exporter, WEB).keys() == {"unknown"}
    api.faults.clear()
    eventually(lambda: ask(exporter, WEB).verdict == "fail", what="a poll of its own")


@pytest.mark.promise("never-fine")
@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"exploitable": False, "status": "ok", "error": None}, "pass"),
        ({"exploitable": True}, "unknown"),
        ({"status": "vulnerable"}, "unknown"),
        ({"error": "host unreachable"}, "unknown"),
        ({"last_scan": {"status": "failed"}}, "unknown"),
    ],
)
def test_what_the_server_list_says_of_a_server_is_heard(tmp_path: Path, said: dict[str, object], verdict: str) -> None:
    """That its scan failed, or that it has exploits that no poll shows; at the gate, in the metrics and on its page."""
    fine = {"name": "PHP", "canonical_name": "php", "version": "8.1", "supported": "yes", "exploits": []}
    answers = {
        "/servers": json.dumps({"data": [{"id": 1, "name": "web", "verified": True, **said}]}).encode(),
        "/servers/1/software": json.dumps({"data": [fine]}).encode(),
    }
    with RawApi(answers) as raw, Exporter.watching(tmp_path, raw.base_url, interval="10m") as exporter:
        wait_for_polls(exporter, 1)
        answer = ask(exporter, "web")
        assert answer.verdict == verdict
        assert answer.codes == ({"poll_incomplete"} if verdict == "unknown" else set())
        complete = samples(exporter.metrics(), "patrolserver_server_poll_complete")
        assert set(complete.values()) == {float(verdict == "pass")}
        page = exporter.get("/servers/1?account=main").text
        assert ("The list says:" in page) is (verdict == "unknown")
