"""What orders do to the simulated world, as the API then shows it; in process, over no socket."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from patrolserver_exporter.simulator import Simulator, SimulatorOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

NO_QUERY: Mapping[str, str] = {}
CREDENTIALS = {"key": "demo", "secret": "demo"}
WEB = "web-01.example.org"


class Desk:
    """A simulator whose application is called as its server would call it."""

    def __init__(self) -> None:
        self.simulator = Simulator(SimulatorOptions(servers=3, software=4), clock=lambda: 1_000_000.0)

    def ask(self, method: str, path: str, body: bytes = b"", query: Mapping[str, str] = NO_QUERY) -> tuple[int, Any]:
        """Status and document of a reply."""
        sent: list[MutableMapping[str, Any]] = []
        form = [(b"content-type", b"application/x-www-form-urlencoded")]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query).encode(),
            "headers": [(b"host", b"sim"), *(form if body and not path.startswith("/-/") else [])],
        }
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> MutableMapping[str, Any]:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.simulator.api(scope, receive, send))
        return sent[0]["status"], json.loads(b"".join(one.get("body", b"") for one in sent[1:]))

    def order(self, path: str, method: str = "POST", /, **order: Any) -> Any:
        """An order that is carried out; what it answers."""
        status, document = self.ask(method, f"/-/simulator/{path}", json.dumps(order).encode() if order else b"")
        assert status == 200, document
        return document

    def refused(self, path: str, **order: Any) -> tuple[int, str]:
        """Status and message of an order that is not."""
        status, document = self.ask("POST", f"/-/simulator/{path}", json.dumps(order).encode())
        return status, document["error"]["message"]

    def get(self, path: str, **query: str) -> Any:
        """The data of an API call."""
        status, document = self.ask("GET", f"/{path}", query=CREDENTIALS | query)
        assert status == 200, document
        return document["data"]

    def post(self, path: str, **form: str) -> tuple[int, Any]:
        """Status and document of an API call that changes something."""
        return self.ask("POST", f"/{path}", urlencode(form).encode(), CREDENTIALS)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_server_comes_is_renamed_and_goes(desk: Desk) -> None:
    """By its name or its id, and the API's list shows it."""
    added = desk.order("servers", name="new.example.org", software=[{"name": "PHP", "version": "1.0"}], id=77)
    assert added["id"] == 77
    assert [one["name"] for one in desk.get("servers/77/software")] == ["PHP"]
    desk.order("servers/77/rename", name="other.example.org")
    assert "other.example.org" in [one["name"] for one in desk.get("servers")]
    assert desk.order("servers/other.example.org", "GET")["software"][0]["name"] == "PHP"
    desk.order("servers/77", "DELETE")
    assert 77 not in [one["id"] for one in desk.get("servers")]
    assert desk.ask("GET", "/servers/77", query=CREDENTIALS)[0] == 404
    drawn = desk.order("servers", name="drawn.example.org", software=2)
    assert len(desk.get(f"servers/{drawn['id']}/software")) == 2


def test_software_breaks_and_is_mended(desk: Desk) -> None:
    """The list of software, one software, and its exploits tell the same."""
    broken = desk.order("break", server=WEB, kind="exploitable", software="openssl", risk=9.1)
    server, installed = broken["server"]["id"], broken["software"][0]
    assert [one["risk"] for one in desk.get(f"servers/{server}/software/{installed['id']}/exploits")] == [9.1]
    shown = desk.get(f"servers/{server}/software/{installed['id']}", scope="exploits")
    assert [one["risk"] for one in shown["exploits"]] == [9.1]
    (row,) = (one for one in desk.get("servers", scope="exploitable,status") if one["id"] == server)
    assert (row["exploitable"], row["status"]) == (True, "exploitable")
    desk.order("mend", server=WEB, software="openssl")
    assert desk.get(f"servers/{server}/software/{installed['id']}/exploits") == []
    status, said = desk.refused("break", server=WEB, kind="outdated", exploit={"cve": "CVE-1"})
    assert status == 422
    assert 'leave out "kind" or "exploit"' in said


def test_software_is_added_in_numbers_and_removed(desk: Desk) -> None:
    """Copies have names of their own."""
    ids = desk.order(f"servers/{WEB}/software", software={"name": "Perl", "canonical_name": "perl"}, count=3)["ids"]
    server = desk.order(f"servers/{WEB}", "GET")["id"]

    def names() -> list[str]:
        return [
            one["canonical_name"] for one in desk.get(f"servers/{server}/software") if "perl" in one["name"].lower()
        ]

    assert names() == ["perl-0", "perl-1", "perl-2"]
    desk.order(f"servers/{WEB}/software/{ids[1]}", "DELETE")
    assert names() == ["perl-0", "perl-2"]


def test_a_scan_is_told_and_ends_with_its_time(desk: Desk) -> None:
    """Nothing but the clock ends it."""
    server = desk.order("scan", server=WEB, seconds=60)["id"]
    assert desk.get(f"servers/{server}/isScanning") is True
    assert desk.order("state", "GET")["scanning"] == [server]
    desk.order("clock", advance=61.0)
    assert desk.get(f"servers/{server}/isScanning") is False


def test_events_can_be_fetched_by_their_ids(desk: Desk) -> None:
    """Late ones only when it is time; those of another webhook not at all."""
    hook = desk.order("webhooks", url=None)["id"]
    told = desk.order("events", identifier="webhook.test", server=WEB, deliver=False, webhook_id=hook, count=2)[
        "events"
    ]
    assert len({one["event_id"] for one in told}) == 2
    event = desk.get(f"webhooks/{hook}/events/{told[0]['event_id']}")
    assert event["server_id"] == desk.order(f"servers/{WEB}", "GET")["id"]
    assert desk.ask("GET", f"/webhooks/{hook}/events/999999", query=CREDENTIALS)[0] == 404
    late = desk.order("events", identifier="webhook.test", deliver=False, webhook_id=hook, late=30.0)["events"][0]
    assert desk.ask("GET", f"/webhooks/{hook}/events/{late['event_id']}", query=CREDENTIALS)[0] == 404
    desk.order("clock", advance=31.0)
    desk.get(f"webhooks/{hook}/events/{late['event_id']}")
    desk.order(f"webhooks/{hook}", "DELETE")
    assert hook not in [one["id"] for one in desk.order("webhooks", "GET")["webhooks"]]


def test_faults_and_replies_come_and_go(desk: Desk) -> None:
    """One by one, or all at once; the state names them."""
    first, second = (desk.order("faults", kind="status", status=503)["id"] for _ in range(2))
    assert desk.ask("GET", "/servers", query=CREDENTIALS)[0] == 503
    desk.order(f"faults/{first}", "DELETE")
    assert [one["id"] for one in desk.order("faults", "GET")["faults"]] == [second]
    desk.order("faults", "DELETE")
    assert desk.order("state", "GET")["faults"] == []
    desk.get("servers")


def test_credentials_that_were_replaced_open_nothing(desk: Desk) -> None:
    """The new ones do, at once."""
    desk.order("credentials", key="new", secret="newer")
    assert desk.ask("GET", "/servers", query=CREDENTIALS)[0] in {401, 403}
    assert desk.ask("GET", "/servers", query={"key": "new", "secret": "newer"})[0] == 200


def test_a_customer_gets_key_and_secret_and_moves(desk: Desk) -> None:
    """As the vendor's own scanner does it at its first start."""
    body = {"email": "me@example.org", "password": "a", "password_confirmation": "a"}
    status, account = desk.ask("POST", "/users", urlencode(body).encode())
    assert status == 200
    own = account["data"]["api_credentials"]
    body["password_confirmation"] = "b"
    assert "confirmation" in desk.ask("POST", "/users", urlencode(body).encode())[1]["error"]["message"]
    login = urlencode({"email": "me@example.org", "password": "a"}).encode()
    assert desk.ask("POST", "/user/request_api_credentials", login)[1]["api_credentials"] == own
    moved = urlencode({"email": "other@example.org"}).encode()
    assert desk.ask("POST", "/user/update", moved, own)[1]["data"]["email"] == "other@example.org"
    assert desk.ask("GET", "/user", query=own)[1]["data"]["email"] == "other@example.org"
    assert desk.ask("POST", "/user/delete", query=own)[0] == 200
    assert desk.ask("GET", "/user", query=own)[0] in {401, 403}


def test_a_server_is_ones_own_with_its_token(desk: Desk) -> None:
    """A host that is free is added, verified and scanned; a wrong token verifies nothing."""
    assert desk.ask("GET", "/serverExists", query={"host": "mine.example.org"})[1]["exists"] is False
    server = desk.post("servers", domain="mine.example.org")[1]["data"]
    assert server["verified"] is False
    # The scanner reads errors of this call with wget, which shows no body but that of a 200.
    assert desk.ask("GET", "/serverExists", query={"host": "mine.example.org"})[1]["error"]["code"] == 15
    assert desk.ask("GET", "/serverExists", query={"host": "x.invalid"})[1]["error"]["code"] == 83
    token = desk.ask("GET", "/request_verification_token", query={"domain": "mine.example.org"})[1]["data"]["token"]
    assert desk.post(f"servers/{server['id']}/verify", token="wrong")[0] >= 400
    assert desk.post(f"servers/{server['id']}/verify", token=token)[1]["data"]["verified"] is True
    assert desk.post(f"servers/{server['id']}/scan")[0] == 200
    assert desk.post(f"servers/{server['id']}/delete")[0] == 200
    assert desk.ask("GET", f"/servers/{server['id']}", query=CREDENTIALS)[0] == 404


@pytest.mark.parametrize(
    ("path", "order"),
    [
        ("servers", {}),
        ("break", {"server": WEB, "kind": "odd"}),
        ("break", {"server": WEB, "unknown": 1}),
        ("clock", {"advance": -1.0}),
        ("story/start", {"speed": 0}),
    ],
)
def test_an_order_that_cannot_be_meant_is_refused(desk: Desk, path: str, order: dict[str, Any]) -> None:
    """With 422 and what is wrong, and nothing has happened."""
    before = desk.order("state", "GET")
    status, said = desk.refused(path, **order)
    assert status == 422
    assert said
    assert desk.order("state", "GET") == before


def test_a_server_that_is_not_there_is_not_found(desk: Desk) -> None:
    """Orders say so, as the API does."""
    assert desk.refused("scan", server="none.example.org")[0] == 404
    assert desk.ask("GET", "/servers/x", query=CREDENTIALS)[0] == 404
    assert desk.ask("GET", "/servers/1/software/x", query=CREDENTIALS)[0] == 404


def test_a_bucket_of_packages_is_kept_until_it_expires(desk: Desk) -> None:
    """A push takes the place of the one before; what is no list of software or no time is refused."""
    server = desk.order(f"servers/{WEB}", "GET")["id"]
    packages = {"software[0][n]": "php", "software[0][v]": "8.1"}
    path = f"servers/{server}/software_bucket/main"
    assert desk.post(path, expire="60", **packages)[0] == 200
    assert len(desk.get(f"servers/{server}/software_bucket")) == 1
    assert desk.get(path)["software"] == [{"n": "php", "v": "8.1", "p": "", "l": ""}]
    assert desk.post(path, expire="soon", **packages)[0] == 422
    desk.order("clock", advance=61.0)
    assert desk.ask("GET", f"/{path}", query=CREDENTIALS)[0] == 404
    assert desk.post(path, **packages)[0] == 200
    assert desk.post(f"{path}/delete")[1]["data"] == 1
    assert desk.get(f"servers/{server}/software_bucket") == []
