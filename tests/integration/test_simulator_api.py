"""Every call of docs/patrolserver-api.md, over real sockets, in every style, with and without the prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from patrolserver_exporter.simulator import Simulator, SimulatorOptions, Style
from patrolserver_exporter.simulator.software import Change, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = {"key": "demo", "secret": "demo"}
PARTS = (
    "isScanning",
    "software",
    "software/100001",
    "software/100001/exploits",
    "software_bucket",
    "software_bucket/key",
    "buckets",
    "buckets/key",
)


class Client:
    """Calls as the vendor's clients make them: credentials in the query, forms as bodies."""

    def __init__(self, simulator: Simulator, prefix: str) -> None:
        self.simulator = simulator
        self.style = simulator.options.style
        self._base = simulator.base_url + prefix
        self._session = requests.Session()
        self._session.trust_env = False

    def get(self, path: str, **query: str) -> requests.Response:
        """A GET with the demo account's credentials, unless others are given."""
        return self._session.get(f"{self._base}/{path}", params=KEYS | query, timeout=10)

    def post(self, path: str, form: dict[str, str] | None = None, **query: str) -> requests.Response:
        """A POST of a form."""
        return self._session.post(f"{self._base}/{path}", params=KEYS | query, data=form or {}, timeout=10)

    def data(self, reply: requests.Response) -> Any:
        """What a good reply holds."""
        assert reply.status_code == 200
        assert reply.headers["Content-Type"] == "application/json"
        assert list(reply.json()) == ["data"]
        return reply.json()["data"]

    def number(self, value: float) -> float | str:
        """A number as the style writes it."""
        return str(value) if self.style is Style.STRINGS else value

    def close(self) -> None:
        """Let the connections go."""
        self._session.close()


@pytest.fixture(params=[*Style], ids=str)
def simulator(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    options = SimulatorOptions(listen_address="127.0.0.1:0", style=request.param, scan_seconds=0.05)
    with Simulator(options) as running:
        yield running


@pytest.fixture(params=["", "/extern/api"], ids=["plain path", "extern path"])
def client(request: pytest.FixtureRequest, simulator: Simulator) -> Iterator[Client]:
    client = Client(simulator, request.param)
    yield client
    client.close()


def test_the_account(client: Client) -> None:
    """It can be read, given another address by two calls, and deleted with its credentials."""
    assert client.data(client.get("user")) == {"id": client.number(1), "email": "demo@example.org"}
    for path in ("user", "user/update"):
        assert client.data(client.post(path, {"email": f"{path}@example.net"}))["email"] == f"{path}@example.net"
    assert client.data(client.post("user/delete")) is True
    assert client.get("user").status_code == 401


def test_registering(client: Client) -> None:
    """A new account gets credentials that work, and sees none of the demo's servers."""
    form = {"email": "new@example.net", "password": "secret1", "password_confirmation": "secret1"}
    registered = client.data(client.post("users", form))
    assert registered["user"]["email"] == "new@example.net"
    assert client.data(client.get("servers", **registered["api_credentials"])) == []
    again = client.post("users", form)
    assert (again.status_code, again.json()["error"]["code"]) == (200, client.number(82))
    assert "The email has already been taken" in again.json()["error"]["message"]


def test_a_registration_needs_its_password_twice(client: Client) -> None:
    """A slip is told."""
    form = {"email": "new@example.net", "password": "secret1", "password_confirmation": "secret2"}
    assert client.post("users", form).json()["error"]["code"] == "invalid"


@pytest.mark.parametrize("prefix", ["", "/api", "/extern/api"])
def test_logging_in(simulator: Simulator, prefix: str) -> None:
    """The reply has no envelope; the errors carry the scanner's codes, with status 200 because wget shows no other."""
    url = f"{simulator.base_url}{prefix}/user/request_api_credentials"
    reply = requests.post(url, data={"email": "demo@example.org", "password": "demo"}, timeout=10).json()
    assert reply["api_credentials"] == KEYS
    assert reply["user"]["email"] == "demo@example.org"
    codes = []
    for _ in range(6):
        failed = requests.post(url, data={"email": "demo@example.org", "password": "no"}, timeout=10)
        assert failed.status_code == 200
        codes.append(failed.json()["error"]["code"])
    assert codes == ["wrong_credentials"] * 5 + ["too_many_failed_attempts"]


def test_only_logging_in_is_under_the_api_path(simulator: Simulator) -> None:
    """The rest is under the prefix or without any."""
    assert requests.get(f"{simulator.base_url}/api/servers", params=KEYS, timeout=10).status_code == 404


def test_whether_a_host_exists(client: Client) -> None:
    """A free host; one with an account, 15; one that does not resolve, 83."""
    free = client.get("serverExists", host="free.example.net").json()
    assert free["exists"] is False
    assert free["data"] == {"exists": False}
    for host, code in (("web-01.example.org", 15), ("example.org", 15), ("host.invalid", 83), ("", 83)):
        assert client.get("serverExists", host=host).json()["error"]["code"] == client.number(code)


def test_the_servers(client: Client) -> None:
    """The list, and each of them by its id."""
    servers = client.data(client.get("servers"))
    assert len(servers) == 25
    assert servers[0] == {"id": client.number(1), "name": "web-01.example.org", "verified": True}
    assert client.data(client.get(f"servers/{servers[3]['id']}")) == servers[3]
    assert any(not server["verified"] for server in servers)


def test_scopes_of_a_server(client: Client) -> None:
    """``exploitable`` and ``status`` are there when asked for, on one server and on the list."""
    server = client.data(client.get("servers/1", scope="exploitable,status"))
    assert isinstance(server["exploitable"], bool)
    assert server["status"] in {"ok", "outdated", "unsupported", "exploitable"}
    assert all(
        "status" in one and "exploitable" not in one for one in client.data(client.get("servers", scope="status"))
    )


def test_a_server_comes_and_goes(client: Client) -> None:
    """Created, in the list at once, verified with the token of its domain, deleted."""
    server = client.data(client.post("servers", {"domain": "new.example.net"}))
    assert (server["name"], server["verified"]) == ("new.example.net", False)
    assert client.data(client.get("servers"))[-1] == server
    token = client.data(client.get("request_verification_token", domain="new.example.net"))["token"]
    path = f"servers/{server['id']}"
    assert client.post(f"{path}/verify", {"token": "guess"}).json()["error"]["message"]
    assert client.data(client.post(f"{path}/verify", {"token": token}))["verified"] is True
    assert client.data(client.get("servers"))[-1]["verified"] is True
    assert client.data(client.post(f"{path}/delete")) is True
    assert client.get(path).status_code == 404
    assert len(client.data(client.get("servers"))) == 25


def test_a_domain_that_is_taken_or_empty(client: Client) -> None:
    """It gets no second server."""
    assert client.post("servers", {"domain": "web-01.example.org"}).json()["error"]["code"] == client.number(15)
    assert client.post("servers", {"domain": ""}).status_code == 422


def test_a_scan(client: Client) -> None:
    """``isScanning`` is ``true`` or ``false`` as ``data``."""
    assert client.get("servers/1/isScanning").text == '{"data":false}'
    client.simulator.world.start_scan(client.simulator.world.named("2"), 60.0)
    assert client.get("servers/2/isScanning").text == '{"data":true}'
    assert client.data(client.post("servers/1/scan")) is True
    while client.data(client.get("servers/1/isScanning")):
        pass
    assert client.simulator.world.named("1").last_scan is not None


def test_the_software(client: Client) -> None:
    """The list, one of it, and its exploits; ``exploits`` in it only with the scope."""
    _break_php(client.simulator)
    listed = client.data(client.get("servers/1/software", scope="exploits"))
    assert len(listed) == 12
    (php,) = (one for one in listed if one["canonical_name"] == "php")
    assert [exploit["risk"] for exploit in php["exploits"]] == [client.number(9.8)]
    assert all("exploits" not in one for one in client.data(client.get("servers/1/software")))
    path = f"servers/1/software/{php['id']}"
    assert client.data(client.get(path, scope="exploits")) == php
    assert "exploits" not in client.data(client.get(path))
    assert client.data(client.get(f"{path}/exploits")) == php["exploits"]


@pytest.mark.parametrize("folder", ["software_bucket", "buckets"])
def test_buckets(client: Client, folder: str) -> None:
    """Not there, pushed as a scanner does, listed, read, pushed again, deleted: under both names."""
    path = f"servers/1/{folder}/BashScanner"
    missing = client.get(path)
    assert (missing.status_code, missing.json()["error"]["message"]) == (404, "Bucket does not exist")
    form = {"expire": "129600", "software": '[{"l":"/","p":"","n":"acme","v":"1"},{"n":"bcme"},{}]'}
    bucket = client.data(client.post(path, form))
    assert (bucket["key"], bucket["expire"]) == ("BashScanner", client.number(129600))
    assert bucket["software"][1] == {"n": "bcme", "v": "1", "p": "", "l": "/"}
    assert client.data(client.get(path)) == bucket
    assert client.data(client.get(f"servers/1/{folder}")) == [bucket]
    silent = client.data(client.post(path, form, scope="silent"))
    assert silent["id"] == bucket["id"]
    assert "software" not in silent
    assert client.data(client.post(f"{path}/delete")) == client.number(1)
    assert client.get(path).status_code == 404


def test_a_bucket_as_the_sdk_posts_it(client: Client) -> None:
    """Nested fields, which repeat nothing."""
    form = {"software[0][n]": "php", "software[0][v]": "4.2.3", "software[1][n]": "acme"}
    bucket = client.data(client.post("servers/1/software_bucket/myTestBucket", form))
    assert bucket["software"] == [
        {"n": "php", "v": "4.2.3", "p": "", "l": ""},
        {"n": "acme", "v": "", "p": "", "l": ""},
    ]
    assert bucket["expire"] is None


def test_events(client: Client) -> None:
    """In the envelope, or bare; under their webhook only; for thirty days."""
    world = client.simulator.world
    _break_php(client.simulator)
    (event,) = world.outbox.emit(world.demo.id, "webhook.scan_started", {"server_id": 1})
    path = f"webhooks/{event.webhook_id}/events/{event.id}"
    expected = {"server_id": client.number(1)}
    assert client.get(path).json() == (expected if client.style is Style.BARE else {"data": expected})
    issues = client.get(f"webhooks/{event.webhook_id}/events/{event.id - 1}").json()
    (issue,) = issues.get("data", issues)["new_issues"]
    assert sorted(issue) == ["description", "software", "title"]
    assert issue["software"] == {"version": "8.3.14", "software": {"name": "PHP", "canonical_name": "php"}}
    assert client.get(f"webhooks/9/events/{event.id}").status_code == 404
    world.advance(30 * 86_400 - 60)
    assert client.get(path).status_code == 200
    world.advance(61)
    assert client.get(path).status_code == 404


def test_wrong_credentials(client: Client) -> None:
    """Key or secret wrong or missing: 401 and an error with code and message, whatever was asked for."""
    for path in ("user", "servers", "servers/1", *(f"servers/1/{part}" for part in PARTS), "webhooks/1/events/1"):
        for wrong in ({"key": "x"}, {"secret": "x"}, {"key": "", "secret": ""}):
            reply = client.get(path, **wrong)
            assert reply.status_code == 401
            assert sorted(reply.json()["error"]) == ["code", "message"]


def test_what_is_not_there(client: Client) -> None:
    """Unknown servers, software, buckets, events and calls: 404 and an error."""
    unknown = ("servers/26", "servers/x", *(f"servers/26/{part}" for part in PARTS), "nothing/here", "")
    of_server = ("servers/1/software/1", "servers/1/software/200001", "servers/1/buckets/none")
    events = ("webhooks/1/events/1", "webhooks/1/events/99999999999999999999999")
    for path in (*unknown, *of_server, *events):
        reply = client.get(path)
        assert reply.status_code == 404
        assert reply.json()["error"]["message"]


def test_json_is_written_as_php_writes_it(client: Client) -> None:
    r"""Escaped slashes and ``\uXXXX`` in every reply."""
    text = client.get("servers/1/software").text
    assert r'"location":"\/"' in text
    assert '"/' not in text
    assert text.isascii()


def test_errors_have_status_200_for_the_bash_scanner(simulator: Simulator) -> None:
    """It says who it is, and its wget shows no other body."""
    reply = requests.get(f"{simulator.base_url}/servers", headers={"X-PS-Bash": "1"}, timeout=10)
    assert (reply.status_code, reply.json()["error"]["code"]) == (200, "unauthorized")


def _break_php(simulator: Simulator) -> None:
    simulator.world.change(simulator.world.named("1"), Change(Kind.EXPLOITABLE, "php", risk=9.8), tell=True)
