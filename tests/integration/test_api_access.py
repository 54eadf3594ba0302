"""Who may do what over the API, and what becomes of refreshes and deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.api import put_server, serving_api, token
from tests.harness.shared_stores import commit_unheard

from patrolserver_exporter.config.schema import Scope
from patrolserver_exporter.inbox.deliveries import DeliveryState, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.store import tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.api import ServedApi

    from patrolserver_exporter.store import Unit

TOKENS = [
    token("reader", Scope.READ),
    token("refresher", Scope.READ, Scope.REFRESH),
    token("operator", Scope.INBOX),
    token("operator-next", Scope.INBOX),
]
CALLS = [
    ("GET", "/servers", Scope.READ),
    ("GET", "/servers/1", Scope.READ),
    ("GET", "/servers/1/issues", Scope.READ),
    ("GET", "/servers/1/software", Scope.READ),
    ("GET", "/issues", Scope.READ),
    ("GET", "/changes", Scope.READ),
    ("GET", "/status", Scope.READ),
    ("GET", "/openapi.json", Scope.READ),
    ("POST", "/gate", Scope.READ),
    ("GET", "/waivers", Scope.READ),
    ("POST", "/servers/1/refresh", Scope.REFRESH),
    ("POST", "/refresh", Scope.REFRESH),
    ("GET", "/inbox", Scope.INBOX),
    ("GET", "/inbox/1", Scope.INBOX),
    ("POST", "/inbox/1/replay", Scope.INBOX),
    ("DELETE", "/inbox/2", Scope.INBOX),
]
SCOPES = {
    "reader": {Scope.READ},
    "refresher": {Scope.READ, Scope.REFRESH},
    "operator": {Scope.INBOX},
    "operator-next": {Scope.INBOX},
}


def fill(unit: Unit) -> None:
    put_server(unit, 1, "web1.example.org", polled_at=1000.0)
    news = [NewDelivery("main", 1, event_id, "webhook.new_server_issues", 1000.0) for event_id in (11, 12, 13)]
    BoundedInbox(10).accept(unit, news)


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def guarded(store_url: str) -> Iterator[ServedApi]:
    """On every address of the machine, with tokens."""
    with serving_api(store_url, tokens=TOKENS, address="0.0.0.0:0") as served:  # It is what is tested.
        served.store.run(fill)
        yield served


def ask(api: ServedApi, method: str, path: str, name: str | None = None, **headers: str) -> requests.Response:
    if name is not None:
        headers["authorization"] = f"Bearer token-of-{name}"
    body = {"servers": ["web1.example.org"]} if path in {"/gate", "/refresh"} else None
    return requests.request(method, f"{api.url}/api/v1{path}", json=body, headers=headers, timeout=10)


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
@pytest.mark.parametrize("name", SCOPES)
def test_a_token_may_do_what_its_scopes_say(
    guarded: ServedApi, method: str, path: str, scope: Scope, name: str
) -> None:
    """With the scope it works, without it is a 403 that names the scope; two tokens for one purpose both work."""
    response = ask(guarded, method, path, name)
    if scope in SCOPES[name]:
        assert response.status_code in {200, 202, 204}, response.text
    else:
        assert response.status_code == 403
        assert scope in response.json()["detail"]


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_without_a_token_or_with_a_wrong_one_nothing_works(
    guarded: ServedApi, method: str, path: str, scope: Scope
) -> None:
    """401 with the kind of authentication, and the token that was tried is not repeated."""
    for response in (ask(guarded, method, path), ask(guarded, method, path, "nobody")):
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert "token-of-nobody" not in response.text


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
@pytest.mark.parametrize("address", ["0.0.0.0:0", "127.0.0.1:0"])
def test_without_tokens_only_reading_is_open(
    store_url: str, method: str, path: str, scope: Scope, address: str
) -> None:
    """What changes something, and the inbox, need a token, on loopback too: a proxy makes everybody look local."""
    with serving_api(store_url, address=address) as api:
        api.store.run(fill)
        response = ask(api, method, path)
        assert response.status_code == 401 if scope is not Scope.READ else response.status_code < 300, response.text
        own = api.session.request(method, f"{api.url}/api/v1{path}", json={"servers": ["web1.example.org"]}, timeout=10)
        assert own.status_code < 300, own.text


@pytest.mark.parametrize("path", [path for method, path, _ in CALLS if method == "GET"])
def test_a_name_that_a_web_site_points_to_loopback_reads_nothing(store_url: str, path: str) -> None:
    """A browser would take what it reads there for the site's own; 403 that names the flag."""
    with serving_api(store_url) as api:
        api.store.run(fill)
        foreign = api.get(path, headers={"host": "evil.example.org"})
        assert foreign.status_code == 403
        assert "--web.external-url" in foreign.json()["detail"]


def test_a_refresh_is_followed_to_its_end(store_url: str) -> None:
    """202 with the place to look at; there it runs, and then it is done, or failed with the reason."""
    with serving_api(store_url) as api:
        api.store.run(fill)
        answer = api.post("/servers/web1.example.org/refresh")
        assert answer.status_code == 202
        place = answer.headers["location"].removeprefix("/api/v1")
        assert place == f"/operations/{answer.json()['operation']['id']}"
        assert api.get(place).json()["operation"]["state"] == "running"
        account, server_id, done = api.accounts.waiting[0]
        assert (account, server_id) == ("main", 1)
        done("PatrolServer does not answer.")
        ended = api.get(place).json()["operation"]
        assert (ended["state"], ended["error"]) == ("failed", "PatrolServer does not answer.")
        assert ended["finished_at"] >= ended["created_at"]
        assert api.post("/servers/nosuch/refresh").status_code == 404
        assert api.get("/operations/nosuch").status_code == 404


def test_a_refresh_of_many_servers_is_one_call_and_followed_to_its_end(store_url: str) -> None:
    """By names, ids and globs, each server once; it is over when all are, and tells of each how its poll ended."""
    with serving_api(store_url) as api:
        api.store.run(fill)
        api.store.run(lambda unit: put_server(unit, 2, "web2.example.org", polled_at=1000.0))
        answer = api.post("/refresh", json={"servers": ["web*", "web2.example.org", 1], "account": "main"})
        assert answer.status_code == 202
        place = answer.headers["location"].removeprefix("/api/v1")
        assert place == f"/refresh/{answer.json()['refresh']['id']}"
        assert sorted(server_id for _, server_id, _ in api.accounts.waiting) == [1, 2]
        for account, server_id, done in api.accounts.waiting:
            under_way = api.get(place).json()["refresh"]
            assert (under_way["state"], under_way["finished_at"], account) == ("running", None, "main")
            done("PatrolServer does not answer." if server_id == 2 else None)
        ended = api.get(place).json()["refresh"]
        assert (ended["state"], ended["finished_at"] >= ended["created_at"]) == ("failed", True)
        assert {(one["server"], one["state"], one["error"]) for one in ended["servers"]} == {
            ("web1.example.org", "done", None),
            ("web2.example.org", "failed", "PatrolServer does not answer."),
        }
        assert api.get("/refresh/nosuch").status_code == 404


def test_a_refresh_with_a_server_that_nobody_knows_polls_none(store_url: str) -> None:
    """A mistyped name is told, and so is an account; nothing and no list at all are refused."""
    with serving_api(store_url) as api:
        api.store.run(fill)
        mistyped = api.post("/refresh", json={"servers": ["web1.example.org", "wbe*", "nosuch"]})
        assert (mistyped.status_code, mistyped.json()["unknown"]) == (404, ["wbe*", "nosuch"])
        assert "None was refreshed" in mistyped.json()["detail"]
        elsewhere = api.post("/refresh", json={"servers": [1], "account": "nosuch"})
        assert (elsewhere.status_code, elsewhere.json()["accounts"]) == (404, ["main"])
        unclear: list[Any] = [{}, {"servers": []}, {"servers": "web1"}, {"servers": [1], "account": 1}]
        for body in [*unclear, {"servers": [1], "unknown": 1}]:
            assert api.post("/refresh", json=body).status_code == 400
        assert api.accounts.waiting == []


def test_deliveries_are_listed_shown_replayed_and_dropped(store_url: str) -> None:
    """By state, with the body that could not be understood, masked; a replay makes one due again."""
    with serving_api(store_url) as api:
        api.store.run(fill)
        api.redactor.register("canary-secret")
        table = tables.inbox
        dead = {
            "state": DeliveryState.DEAD,
            "attempts": 3,
            "body": b"\xff canary-secret",
            "last_error": "canary-secret!",
        }
        api.store.run(lambda unit: unit.connection.execute(table.update().where(table.c.id == 2).values(**dead)))
        assert [item["id"] for item in api.get("/inbox?state=dead").json()["items"]] == [2]
        assert [item["id"] for item in api.get("/inbox?state=dead&state=received").json()["items"]] == [1, 2, 3]
        assert [len(page) for page in api.pages("/inbox", 2)] == [2, 1]
        shown = api.get("/inbox/2").json()
        assert shown["body"].startswith("\N{REPLACEMENT CHARACTER} ")
        assert "canary" not in api.get("/inbox/2").text
        replayed = api.post("/inbox/2/replay")
        assert (replayed.status_code, replayed.json()["state"], replayed.json()["attempts"]) == (202, "received", 0)
        assert api.post("/inbox/2/replay").status_code == 202
        api.store.run(lambda unit: unit.connection.execute(table.update().values(account="removed")))
        aside = api.post("/inbox/2/replay")
        assert (aside.status_code, aside.json()["state"]) == (202, "expired")
        assert "not in the configuration" in aside.json()["last_error"]
        waiting = api.get("/inbox?state=received").json()["items"]
        assert [item["id"] for item in waiting] == [1, 3], "others of the account are left as they are"
        assert api.delete("/inbox/2").status_code == 204
        for gone in (api.get("/inbox/2"), api.delete("/inbox/2"), api.post("/inbox/2/replay"), api.get("/inbox/x")):
            assert gone.status_code == 404


@pytest.mark.parametrize("prepared_url", ["postgresql"], indirect=True)
def test_a_delivery_is_dropped_once_though_the_commit_was_not_heard(
    prepared_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal is done a second time, which finds nothing; the answer is that of the first."""
    with serving_api(prepared_url) as api:
        api.store.run(fill)
        lost = commit_unheard(api.store, monkeypatch)
        assert api.delete("/inbox/2").status_code == 204
        assert lost
        assert api.delete("/inbox/2").status_code == 404


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "text/plain"}, b"{}", 415),
        ({}, b"{}", 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, b"{}", 415),
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/json"}, b"[" * 200_000, 400),
        ({"content-type": "application/json; charset=utf-8"}, b'{"servers":["a"]}', 200),
        ({"content-type": "application/json"}, b" " * (8 * 1024 * 1024 + 1), 413),
    ],
)
def test_the_gate_takes_plain_json_of_bounded_size(
    store_url: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    """Anything else has its own answer, and none is a verdict."""
    with serving_api(store_url) as api:
        response = api.post("/gate", data=body, headers=headers)
        assert response.status_code == status
        assert ("verdict" in response.json()) is (status == 200)
