"""The control interface, and the simulator as a program."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from patrolserver_exporter.simulator import Simulator, SimulatorOptions
from patrolserver_exporter.simulator.replies import PartForm, RiskForm

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = {"key": "demo", "secret": "demo"}
DOCS = Path(__file__).parents[2] / "docs" / "simulator.md"


class Panel:
    """The control interface of one simulator, and the API beside it."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._session = requests.Session()
        self._session.trust_env = False

    def get(self, path: str) -> Any:
        """Read."""
        return self._answer("GET", path)

    def post(self, path: str, /, **order: Any) -> Any:
        """Order."""
        return self._answer("POST", path, order)

    def delete(self, path: str) -> Any:
        """Remove."""
        return self._answer("DELETE", path)

    def api(self, path: str, **query: str) -> Any:
        """The data of an API call."""
        reply = self.reply(path, **query)
        return reply.json().get("data", reply.json())

    def reply(self, path: str, **query: str) -> requests.Response:
        """The whole reply of an API call."""
        return self._session.get(f"{self.simulator.base_url}/{path}", params=KEYS | query, timeout=10)

    def raw(self, method: str, path: str, body: bytes = b"") -> requests.Response:
        """Whatever comes of it."""
        return self._session.request(method, f"{self.simulator.base_url}/-/simulator/{path}", data=body, timeout=20)

    def close(self) -> None:
        """Let the connections go."""
        self._session.close()

    def _answer(self, method: str, path: str, order: dict[str, Any] | None = None) -> Any:
        url = f"{self.simulator.base_url}/-/simulator/{path}"
        reply = self._session.request(method, url, json=order, timeout=20)
        assert reply.status_code == 200, reply.text
        return reply.json()


@pytest.fixture
def panel() -> Iterator[Panel]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", scan_seconds=0.05)) as simulator:
        panel = Panel(simulator)
        yield panel
        panel.close()


def test_it_is_healthy_and_tells_its_state(panel: Panel) -> None:
    """What a start script and a curious person ask first."""
    assert panel.get("healthy") == {"status": "ok"}
    state = panel.get("state")
    assert (state["servers"], state["style"], state["scanning"], state["faults"]) == (25, "plain", [], [])
    assert state["webhooks"] == [{"id": 1, "url": None, "format": "json", "duplicates": 0}]
    assert state["story"] == {"playing": False, "lines": []}


def test_break_and_mend(panel: Panel) -> None:
    """The list shows it, and the event is there to be fetched."""
    broken = panel.post("break", server="web-01.example.org", software="php", kind="exploitable", risk=7.5)
    assert [one["exploits"][0]["risk"] for one in broken["software"]] == [7.5]
    assert panel.api("servers/1", scope="exploitable")["exploitable"] is True
    assert panel.api("webhooks/1/events/1")["server_id"] == 1
    panel.post("mend", server=1)
    assert panel.api("servers/1", scope="status")["status"] == "ok"


def test_a_known_issue_gets_worse_and_better(panel: Panel) -> None:
    """Outdated, exploitable as told, unsupported; then each of it undone alone. The software keeps its id."""

    def openssl() -> dict[str, Any]:
        (found,) = (one for one in panel.api("servers/2/software", scope="exploits") if one["name"] == "OpenSSL")
        return found  # type: ignore[no-any-return]

    before = openssl()["id"]
    panel.post("break", server=2, software="openssl", kind="outdated")
    exploit = {"id": 7, "cve": "CVE-2099-7777", "title": "Overflow", "risk": "9.8/10"}
    panel.post("break", server=2, software="openssl", exploit=exploit)
    panel.post("break", server=2, software="openssl", exploit="no object")
    panel.post("break", server=2, software="openssl", kind="unsupported", event=False)
    assert openssl()["exploits"] == [exploit, "no object"]
    assert "newest_bugfix_release" not in openssl()
    panel.post("break", server=2, software="openssl", kind="outdated", event=False)
    assert openssl()["newest_bugfix_release"]
    panel.post("mend", server=2, software="openssl", exploit=7)
    assert openssl()["exploits"] == ["no object"]
    panel.post("mend", server=2, software="openssl")
    assert (openssl()["supported"], openssl()["exploits"], openssl()["id"]) == ("yes", [], before)
    assert panel.get("state")["events"] == 3


def test_a_made_up_exploit_tells_what_it_is(panel: Panel) -> None:
    """Id, CVE, title and URL besides the risk, and no two alike."""
    for _ in range(2):
        panel.post("break", server=2, software="openssl", risk=9.8)
    (openssl,) = (one for one in panel.api("servers/2/software", scope="exploits") if one["name"] == "OpenSSL")
    first, second = openssl["exploits"]
    assert sorted(first) == ["cve", "id", "risk", "title", "url"]
    assert first["url"].endswith(first["cve"])
    assert first["id"] != second["id"]


@pytest.mark.parametrize("kind", ["outdated", "unsupported", "exploitable", "unknown", "undetected", "candidates"])
def test_every_kind_of_trouble(panel: Panel, kind: str) -> None:
    """Each can be ordered, with or without a name; quietly if so ordered."""
    panel.post("break", server=1, kind=kind, event=False)
    assert panel.post("break", server=1, kind=kind, software="php", event=False)["software"][0]["name"] == "PHP"
    assert panel.get("state")["events"] == 0


def test_a_change_that_waits_for_the_scan(panel: Panel) -> None:
    """The event is told at once, the list catches up with the scan."""
    panel.post("break", server=1, software="php", at_scan=True)
    assert panel.api("servers/1", scope="exploitable")["exploitable"] is False
    panel.post("scan", server=1, seconds=0)
    while panel.api("servers/1/isScanning"):
        pass
    assert panel.api("servers/1", scope="exploitable")["exploitable"] is True


def test_servers_and_software_come_and_go(panel: Panel) -> None:
    """A server with drawn software, one with a list, odd fields as they are, and a thousand copies."""
    drawn = panel.post("servers", name="drawn.example.net", software=5)
    assert len(panel.api(f"servers/{drawn['id']}/software")) == 5
    odd = {"name": "a\n\ud800", "canonical_name": "odd", "version": 7, "supported": "0", "newest_bugfix_release": None}
    listed = panel.post("servers", name="listed.example.net", verified=False, software=[odd])
    (written,) = panel.api(f"servers/{listed['id']}/software")
    assert {name: written[name] for name in odd} == odd
    ids = panel.post(f"servers/{listed['id']}/software", software={"canonical_name": "copy"}, count=1000)["ids"]
    assert len(panel.api(f"servers/{listed['id']}/software")) == 1001
    panel.delete(f"servers/{listed['id']}/software/{ids[0]}")
    assert len(panel.get("servers/listed.example.net")["software"]) == 1000
    panel.delete("servers/listed.example.net")
    assert [server["name"] for server in panel.get("servers")["servers"]][-1] == "drawn.example.net"
    assert len(panel.api("servers")) == 26


def test_an_id_goes_to_another_server_and_a_server_to_another_name(panel: Panel) -> None:
    """Removed and back under another name with the same id; and renamed in place, with all that it has."""
    panel.delete("servers/2")
    assert panel.post("servers", id=2, name="new.example.org", software=3)["id"] == 2
    assert panel.api("servers/2")["name"] == "new.example.org"
    assert len(panel.api("servers/2/software")) == 3
    before = panel.api("servers/1/software")
    assert panel.post("servers/1/rename", name="renamed.example.org")["id"] == 1
    assert [server["name"] for server in panel.api("servers") if server["id"] < 3] == [
        "renamed.example.org",
        "new.example.org",
    ]
    assert panel.api("servers/1/software") == before
    assert panel.raw("POST", "servers", b'{"id": 1, "name": "third.example.org"}').status_code == 422
    assert panel.raw("POST", "servers/1/rename", b'{"name": "new.example.org"}').status_code == 409


def test_an_event_that_the_api_knows_late_or_never(panel: Panel) -> None:
    """Its delivery is out, but for so many seconds it cannot be fetched; others meanwhile can."""
    panel.post("events", identifier="webhook.scan_finished", server=1, late=25)
    panel.post("events", identifier="webhook.scan_finished", server=1, late="never")
    panel.post("events/delay", late=25, count=1)
    panel.post("events", identifier="webhook.scan_finished", server=1)
    panel.post("events", identifier="webhook.scan_finished", server=1)

    def statuses() -> list[int]:
        return [panel.reply(f"webhooks/1/events/{number}").status_code for number in (1, 2, 3, 4)]

    assert statuses() == [404, 404, 404, 200]
    panel.post("clock", advance=26)
    assert statuses() == [200, 404, 200, 200]
    panel.post("events/delay", late="never")
    panel.post("events", identifier="webhook.test")
    panel.post("events/delay")
    panel.post("events", identifier="webhook.test")
    assert [panel.reply(f"webhooks/1/events/{number}").status_code for number in (5, 6)] == [404, 200]


def test_a_delivery_that_claims_another_identifier(panel: Panel) -> None:
    """What the API says of the event stays true."""
    issue = {"title": "Close port 23."}
    data = {"server_id": 1, "new_issues": [issue]}
    panel.post("webhooks", url=f"{panel.simulator.base_url}/hook/token")
    (told,) = panel.post("events", identifier="webhook.new_server_issues", data=data, delivered_as="webhook.test")[
        "events"
    ]
    assert told["identifier"] == "webhook.test"
    assert [one["payload"] for one in panel.get("deliveries")["deliveries"]] == [told]
    assert panel.api(f"webhooks/{told['webhook_id']}/events/{told['event_id']}") == data


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([], 0),
        (["webhook.scan_finished"], 1),
        (["webhook.scan_started"], 1),
        (["webhook.scan_started", "webhook.new_server_issues", "webhook.scan_finished"], 3),
    ],
)
def test_what_is_told_of_a_scan(panel: Panel, events: list[str], told: int) -> None:
    """It runs for its time and finds what it finds, whatever its webhooks tell."""
    panel.post("break", server=1, software="php", at_scan=True, event=False)
    panel.post("scan", server=1, seconds=60, events=events)
    assert panel.api("servers/1/isScanning") is True
    panel.post("clock", advance=60)
    assert panel.api("servers/1/isScanning") is False
    assert panel.api("servers/1", scope="exploitable")["exploitable"] is True
    assert panel.get("state")["events"] == told


def test_one_servers_calls_are_refused(panel: Panel) -> None:
    """With ``Retry-After``, or just so; all other servers answer."""
    panel.post("faults", kind="rate_limit", retry_after=86400, path="servers/2/software", count=1)
    panel.post("faults", kind="status", status=500, path="servers/2/software")
    refused = [panel.reply("servers/2/software") for _ in range(2)]
    assert [reply.status_code for reply in refused] == [429, 500]
    assert [reply.headers.get("Retry-After") for reply in refused] == ["86400", None]
    assert panel.reply("servers/1/software").status_code == 200
    panel.post("faults", kind="status", status=503, retry_after=60, path="servers", count=1)
    assert [panel.reply("servers").status_code for _ in range(2)] == [503, 200]


def test_an_empty_list_for_one_server_until_it_is_taken_back(panel: Panel) -> None:
    """The rule is listed with its hits, and a server's name is as good as its id."""
    number = panel.post("replies", endpoint="software", server="web-02.example.org", share=0)["id"]
    assert [panel.api("servers/2/software"), len(panel.api("servers/1/software"))] == [[], 12]
    (rule,) = panel.get("replies")["replies"]
    assert (rule["id"], rule["server"], rule["hits"]) == (number, 2, 1)
    assert panel.get("state")["replies"] == [rule]
    panel.delete(f"replies/{number}")
    assert len(panel.api("servers/2/software")) == 12


@pytest.mark.parametrize("form", ["next_link", "next_page_url"])
@pytest.mark.parametrize("path", ["servers", "servers/1/software"])
def test_pages_are_read_to_the_end(panel: Panel, form: str, path: str) -> None:
    """A client that follows the links with key and secret gets the whole list; a page without them is refused."""
    whole = panel.api(path, scope="exploits")
    panel.post("replies", endpoint=path.rpartition("/")[2], form=form, per_page=5, count=1)
    read, following = [], panel.reply(path, scope="exploits")
    while following is not None:
        read += following.json()["data"]
        link = following.links.get("next", {}).get("url") or following.json().get("next_page_url")
        if link is None:
            break
        assert requests.get(link, timeout=10).status_code == 401
        following = requests.get(link, params=KEYS, timeout=10)
    assert read == whole
    assert panel.api(path, scope="exploits") == whole


def test_a_part_by_status_and_headers(panel: Panel) -> None:
    """206 with ``Content-Range``, and whatever else was ordered."""
    panel.post("replies", endpoint="servers", form="content_range", count=1)
    panel.post("replies", endpoint="servers", status=203, headers={"X-Part": "1"}, body="no JSON")
    first, second = panel.reply("servers"), panel.reply("servers")
    assert (first.status_code, first.headers["Content-Range"]) == (206, "items 0-12/25")
    assert (second.status_code, second.headers["X-Part"], second.text) == (203, "1", "no JSON")


def test_errors_are_not_altered(panel: Panel) -> None:
    """A rule is for good replies: what is not there stays so."""
    panel.post("replies", endpoint="event", data={"server_id": 1})
    panel.post("replies", endpoint="software", data=[])
    assert panel.reply("webhooks/1/events/1").status_code == 404
    assert panel.reply("servers/1/software", key="wrong").status_code == 401


def test_a_scan_that_only_the_api_sees(panel: Panel) -> None:
    """``isScanning`` is true for three replies, though nothing runs."""
    panel.post("replies", endpoint="is_scanning", server=1, data=True, count=3)
    assert [panel.api("servers/1/isScanning") for _ in range(4)] == [True, True, True, False]


def documented() -> list[tuple[str, str, str]]:
    """Each example of the docs: its method, path and body."""
    found = []
    for line in re.findall(r"^curl (.*\$S/.*)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE):
        words = shlex.split(line, comments=True)
        body = words[words.index("-d") + 1] if "-d" in words else ""
        (path,) = (word.removeprefix("$S/") for word in words if word.startswith("$S/"))
        found.append(("DELETE" if "-X" in words else "POST", path, body))
    return found


def test_the_examples_of_the_docs_work(panel: Panel) -> None:
    """One after the other, as a reader tries them; together they use each form of each field."""
    examples = documented()
    assert len(examples) > 50
    for method, path, body in examples:
        reply = panel.raw(method, path, body.encode())
        assert reply.status_code == 200, f"{method} {path} {body}: {reply.text}"
    bodies = [json.loads(body) for _, path, body in examples if path == "replies" and body]
    forms = {rule[name] for rule in bodies for name in ("form", "risk") if name in rule}
    assert forms >= {*PartForm, *RiskForm}
    assert {rule["endpoint"] for rule in bodies} >= {"servers", "software", "event", "is_scanning"}


def test_events_of_any_kind_and_number(panel: Panel) -> None:
    """With the server's id, with data of one's own, and in bulk; undelivered if so ordered."""
    (one,) = panel.post("events", identifier="webhook.scan_finished", server="web-02.example.org")["events"]
    assert one == {"webhook_patrolserver": 1, "identifier": "webhook.scan_finished", "event_id": 1, "webhook_id": 1}
    assert panel.api("webhooks/1/events/1") == {"server_id": 2}
    panel.post("events", identifier="webhook.of_tomorrow", data=[1, {"a": None}], deliver=False)
    assert panel.api("webhooks/1/events/2") == [1, {"a": None}]
    many = panel.post("events", identifier="webhook.scan_started", server=1, count=500)["events"]
    assert len({event["event_id"] for event in many}) == 500


def test_webhooks_and_their_deliveries(panel: Panel) -> None:
    """Delivered to every URL, twice if so ordered; each outcome is told, and the URL's token is not."""
    url = f"{panel.simulator.base_url}/token-canary"
    webhook = panel.post("webhooks", url=url, format="form", duplicates=1)
    panel.post("webhooks", url="http://127.0.0.1:1/refused")
    panel.post("events", identifier="webhook.test")
    told = panel.get("deliveries")
    assert told["drained"] is True
    assert told["counts"] == {"404": 2, "error": 1, "waiting": 0}
    assert {one["payload"]["identifier"] for one in told["deliveries"]} == {"webhook.test"}
    assert {one["error"] for one in told["deliveries"]} == {None, "ConnectionError"}
    assert "canary" not in str(told) + str(panel.get("webhooks")) + str(panel.get("state"))
    panel.delete("deliveries")
    panel.delete(f"webhooks/{webhook['id']}")
    assert panel.post("deliver", url=url, payload={"webhook_patrolserver": "x", "event_id": -1}, count=3) == {
        "deliveries": 3
    }
    assert panel.get("deliveries")["counts"] == {"404": 3, "waiting": 0}


def test_faults_and_requests(panel: Panel) -> None:
    """Set, listed with their hits, cleared; the calls are counted, the orders are not."""
    first = panel.post("faults", kind="status", status=503, path="servers", count=1)["id"]
    panel.post("faults", kind="latency", seconds=0)
    panel.api("servers")
    assert [(fault["id"], fault["kind"], fault["hits"]) for fault in panel.get("faults")["faults"]] == [
        (first, "status", 1),
        (2, "latency", 0),
    ]
    panel.delete(f"faults/{first}")
    panel.delete("faults")
    assert panel.get("faults") == {"faults": []}
    panel.api("servers")
    counted = panel.get("requests")
    assert counted["by_endpoint"] == {"GET servers": {"count": 2, "statuses": {"200": 1, "503": 1}}}
    panel.delete("requests")
    assert panel.get("requests")["total"] == 0


def test_credentials_clock_and_style(panel: Panel) -> None:
    """Revoked keys, a later date, and numbers as strings: all while it runs."""
    panel.post("events", identifier="webhook.test")
    panel.post("style", style="strings")
    assert panel.api("servers/1")["id"] == "1"
    before = panel.get("state")["now"]
    assert panel.post("clock", advance=31 * 86_400)["now"] >= before + 31 * 86_400
    assert "error" in panel.api("webhooks/1/events/1")
    panel.post("credentials", key="new", secret="newer")
    assert panel.api("user")["error"]["code"] == "unauthorized"
    assert panel.api("user", key="new", secret="newer")["id"] == "1"


def test_the_story_plays_and_stops(panel: Panel) -> None:
    """Its lines are told, its events are there."""
    panel.post("story/start", speed=200)
    end = time.monotonic() + 20
    while not any(line.startswith("fixed:") for line in panel.get("state")["story"]["lines"]):
        assert time.monotonic() < end
    panel.post("story/stop")
    state = panel.get("state")
    assert state["story"]["playing"] is False
    assert state["events"] >= 5


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "break", b"{", 422),
        ("POST", "break", b'{"server":1,"knid":"outdated"}', 422),
        ("POST", "break", b'{"server":1,"kind":"cursed"}', 422),
        ("POST", "break", b'{"server":"nobody"}', 404),
        ("POST", "break", b'{"server":1,"software":"nothing"}', 404),
        ("POST", "faults", b'{"kind":"earthquake"}', 422),
        ("POST", "faults", b'{"kind":"status","status":99}', 422),
        ("POST", "faults", b'{"kind":"status","status":600}', 422),
        ("POST", "faults", b'{"kind":"latency","seconds":-1}', 422),
        ("POST", "faults", b'{"kind":"rate_limit","retry_after":"1\\r\\nX: y"}', 422),
        ("POST", "faults", b'{"kind":"redirect","location":"http://a/\\n"}', 422),
        ("POST", "story/start", b'{"speed":0}', 422),
        ("POST", "story/start", b'{"speed":-1}', 422),
        ("POST", "clock", b'{"advance":1e400}', 422),
        ("POST", "clock", b'{"advance":NaN}', 422),
        ("POST", "clock", b'{"advance":-1}', 422),
        ("POST", "scan", b'{"server":1,"seconds":-1}', 422),
        ("POST", "credentials", b'{"key":"","secret":""}', 422),
        ("POST", "events", b'{"identifier":"webhook.test","count":-1}', 422),
        ("POST", "break", b'{"server":1,"kind":"outdated","exploit":{"risk":9}}', 422),
        ("POST", "mend", b'{"server":1,"exploit":"CVE-2099-0000"}', 404),
        ("POST", "events", b'{"identifier":"webhook.test","late":"sometimes"}', 422),
        ("POST", "scan", b'{"server":1,"events":["webhook.test"]}', 422),
        ("POST", "replies", b'{"endpoint":"servers","server":1}', 422),
        ("POST", "replies", b'{"endpoint":"software","server":"nobody"}', 404),
        ("POST", "replies", b'{"endpoint":"software","form":"sometimes"}', 422),
        ("GET", "nothing", b"", 404),
        ("DELETE", "servers/nobody", b"", 404),
    ],
)
def test_a_wrong_order_is_refused(panel: Panel, method: str, path: str, body: bytes, status: int) -> None:
    """A test that orders nonsense must hear of it."""
    assert panel.raw(method, path, body).status_code == status


PROGRAM = """
import sys
from patrolserver_exporter.simulator import SimulatorOptions, serve
sys.exit(serve(SimulatorOptions(listen_address=sys.argv[1], story=True, story_speed=500)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_a_program_it_says_where_it_is_and_stops_cleanly(number: signal.Signals) -> None:
    """The first line names the URL, the story follows, a signal ends it with exit code 0 and no complaint."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        lines = [program.stdout.readline() for _ in range(3)]
        url = next(word for line in lines for word in line.split() if word.startswith("http")).rstrip(",")
        assert requests.get(f"{url}/servers", params=KEYS, timeout=10).status_code == 200
        program.send_signal(number)
        _, complaint = program.communicate(timeout=20)
        assert (program.returncode, complaint) == (0, "")


def test_a_taken_address_is_told() -> None:
    """Exit code 1 and the address, no traceback."""
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0")) as simulator:
        address = simulator.base_url.removeprefix("http://")
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, address],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    assert done.returncode == 1
    assert (
        done.stderr
        == f"simulator: cannot listen on {address}: Address already in use: choose another --web.listen-address\n"
    )
