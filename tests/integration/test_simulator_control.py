"""The control interface, and the simulator as a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from patrolserver_exporter.simulator import Simulator, SimulatorOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = {"key": "demo", "secret": "demo"}


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
        reply = self._session.get(f"{self.simulator.base_url}/{path}", params=KEYS | query, timeout=10)
        return reply.json().get("data", reply.json())

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
    assert done.stderr == f"simulator: cannot listen on {address}: Address already in use\n"
