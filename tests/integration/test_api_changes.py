"""The change feed over HTTP: each change once and in order, across waits, restarts and purges."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.api import serving_api, tell
from tests.harness.waiting import eventually
from tests.unit.issues.builders import issue

from patrolserver_exporter.issues.model import Change, ChangeKind
from patrolserver_exporter.store import history
from patrolserver_exporter.store.tables import changes, feed
from patrolserver_exporter.sync import housekeeping
from patrolserver_exporter.web.api import cursors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa
    from tests.harness.api import ServedApi

    from patrolserver_exporter.store import Unit


@pytest.fixture
def api(store_url: str) -> Iterator[ServedApi]:
    with serving_api(store_url) as served:
        yield served


def happen(api: ServedApi, *names: str, at: float = 1000.0) -> None:
    changes = [Change(kind=ChangeKind.OPENED, at=at, issue=issue(name)) for name in names]
    api.store.run(lambda unit: tell(unit, "web1.example.org", changes))


def execute(api: ServedApi, statement: sa.Executable) -> None:
    def work(unit: Unit) -> None:
        unit.connection.execute(statement)

    api.store.run(work)


def happen_one_by_one(api: ServedApi, mine: list[str]) -> None:
    for name in mine:
        happen(api, name)


def names(reply: Any) -> list[str]:
    return [item["issue"]["canonical_name"] for item in reply["items"]]


def test_the_feed_begins_with_the_oldest_change_and_goes_on_by_cursor(api: ServedApi) -> None:
    """Each page goes on where the last one ended; an item's id is the cursor after it."""
    happen(api, "a", "b", "c")
    first = api.get("/changes?limit=2").json()
    rest = api.get(f"/changes?after={first['next_cursor']}").json()
    assert (names(first), names(rest)) == (["a", "b"], ["c"])
    assert first["items"][0]["change"] == "opened"
    assert first["items"][0]["at"] == "1970-01-01T00:16:40Z"
    assert names(api.get(f"/changes?after={first['items'][0]['id']}").json()) == ["b", "c"]
    empty = api.get(f"/changes?after={rest['next_cursor']}").json()
    assert empty == {"items": [], "next_cursor": rest["next_cursor"]}


def test_latest_skips_what_was_before(api: ServedApi) -> None:
    """``after=latest`` gives the place at the end, and nothing else."""
    happen(api, "a")
    latest = api.get("/changes?after=latest").json()
    assert latest["items"] == []
    happen(api, "b")
    assert names(api.get(f"/changes?after={latest['next_cursor']}").json()) == ["b"]


@pytest.mark.alone
def test_a_wait_ends_with_the_change(api: ServedApi) -> None:
    """A waiting client gets a change at once, and not only when the wait is over."""
    heard: list[Any] = []
    waiter = threading.Thread(
        target=lambda: heard.append(requests.get(f"{api.url}/api/v1/changes?wait=30", timeout=40))
    )
    waiter.start()
    eventually(lambda: api.served.server.requests == 1, what="the waiter")
    begin = time.monotonic()
    happen(api, "a")
    waiter.join(10)
    assert time.monotonic() - begin < 1.5
    assert names(heard[0].json()) == ["a"]


@pytest.mark.alone
def test_a_wait_without_a_change_ends_empty(api: ServedApi) -> None:
    """After the seconds that were asked for, with the cursor as it was."""
    begin = time.monotonic()
    reply = api.get("/changes?wait=0.3").json()
    assert 0.3 <= time.monotonic() - begin < 2
    assert reply["items"] == []


@pytest.mark.alone
def test_a_stop_does_not_wait_for_those_who_wait(store_url: str) -> None:
    """They get their empty answer, and the server stops at once."""
    with serving_api(store_url) as api:
        heard: list[Any] = []
        waiter = threading.Thread(
            target=lambda: heard.append(requests.get(f"{api.url}/api/v1/changes?wait=60", timeout=70).json())
        )
        waiter.start()
        eventually(lambda: api.served.server.requests == 1, what="the waiter")
        begin = time.monotonic()
        api.served.run(api.served.server.stop(10))
        assert time.monotonic() - begin < 2
        waiter.join(10)
        assert heard[0]["items"] == []


def test_a_client_that_hangs_up_is_not_waited_for(api: ServedApi) -> None:
    """A request whose client is gone ends, long before its wait does."""
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{api.url}/api/v1/changes?wait=60", timeout=0.3)
    eventually(lambda: api.served.server.requests == 0, within=5, what="the end of the request")


def test_every_change_comes_once_and_in_order_across_a_restart(store_url: str) -> None:
    """Readers who follow while changes happen, and through a restart, see all of them, once, in order."""
    seen: list[str] = []
    cursor: str | None = None
    expected = [f"n{number:03}" for number in range(120)]
    for life in range(3):
        with serving_api(store_url) as api:
            mine = expected[life * 40 : life * 40 + 40]
            writer = threading.Thread(target=happen_one_by_one, args=(api, mine))
            writer.start()
            while len(seen) < 40 * (life + 1):
                query = {"wait": "10", "limit": "7"} | ({"after": cursor} if cursor else {})
                reply = api.get("/changes", params=query).json()
                seen += names(reply)
                cursor = reply["next_cursor"]
            writer.join(10)
    assert seen == expected


def test_a_cursor_older_than_what_is_kept_is_gone(api: ServedApi) -> None:
    """410 with the place where the feed now begins, as soon as a change after the cursor may be missing."""
    happen(api, "a", "b", "c", at=1000.0)
    happen(api, "d", at=5000.0)
    first, second, third, _ = (item["id"] for item in api.get("/changes").json()["items"])
    start = api.get("/changes?after=latest").json()["next_cursor"]
    api.store.run(lambda unit: housekeeping.purge(unit, now=5000.0, retention=100.0))
    for stale in (first, second):
        gone = api.get(f"/changes?after={stale}")
        assert gone.status_code == 410
        assert names(api.get(f"/changes?after={gone.json()['oldest_cursor']}").json()) == ["d"]
    assert names(api.get(f"/changes?after={third}").json()) == ["d"]
    assert names(api.get("/changes").json()) == ["d"]
    assert api.get(f"/changes?after={start}").json()["items"] == []


def test_the_very_first_place_is_not_kept_for_ever(api: ServedApi) -> None:
    """A reader who was there before the first change is told, too, that it missed some."""
    before = api.get("/changes").json()["next_cursor"]
    happen(api, "a", at=1000.0)
    happen(api, "b", at=5000.0)
    api.store.run(lambda unit: housekeeping.purge(unit, now=5000.0, retention=100.0))
    assert api.get(f"/changes?after={before}").status_code == 410


@pytest.mark.parametrize("after", ["", "0", "1", "oldest", "eyJrIjoiaSIsInJvdyI6MX0"])
def test_a_malformed_cursor_is_refused(api: ServedApi, after: str) -> None:
    """What is not a cursor of the feed is a 400 that names the parameter."""
    response = api.get(f"/changes?after={after}")
    assert response.status_code == 400
    assert "after" in response.json()["detail"]


def begin_again(api: ServedApi) -> None:
    api.store.run(lambda unit: history.begin_again(unit.connection, 1000.0))


def test_a_cursor_of_another_history_is_gone(api: ServedApi) -> None:
    """Where ids may have been given twice, an old cursor is refused; the one that the answer names goes on."""
    happen(api, "a", "b")
    old = [api.get("/changes?after=latest").json()["next_cursor"], api.get("/changes").json()["items"][0]["id"]]
    begin_again(api)
    happen(api, "c")
    for cursor in old:
        gone = api.get(f"/changes?after={cursor}")
        assert gone.status_code == 410
        assert names(api.get(f"/changes?after={gone.json()['oldest_cursor']}").json()) == ["a", "b", "c"]
    latest = api.get("/changes?after=latest").json()["next_cursor"]
    happen(api, "d")
    assert names(api.get(f"/changes?after={latest}").json()) == ["d"]


def test_a_reader_that_waits_hears_of_another_history(api: ServedApi) -> None:
    """It is not left waiting with a cursor that counts no more."""
    latest = api.get("/changes?after=latest").json()["next_cursor"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.get, f"/changes?after={latest}&wait=30")
        eventually(lambda: api.served.server.requests == 1, what="the reader")
        begin_again(api)
        assert waiting.result(20).status_code == 410


def test_a_cursor_ahead_of_the_feed_is_gone(api: ServedApi) -> None:
    """A state that was restored from a backup does not know it: what comes next would seem to be told already."""
    happen(api, "a", "b")
    ahead = api.get("/changes?after=latest").json()["next_cursor"]
    execute(api, changes.delete().where(changes.c.id == 2))
    assert api.get(f"/changes?after={ahead}").status_code == 410


def test_ids_that_were_used_up_are_not_missing_changes(api: ServedApi) -> None:
    """What a rolled back transaction leaves out of the numbers was not purged: a reader in front of it goes on."""
    happen(api, "a", at=1000.0)
    first = api.get("/changes?after=latest").json()["next_cursor"]

    def skip(unit: Unit) -> None:
        tell(unit, "web1.example.org", [Change(kind=ChangeKind.OPENED, at=5000.0, issue=issue("b"))])
        unit.connection.execute(changes.update().where(changes.c.id == 2).values(id=7))

    api.store.run(skip)
    api.store.run(lambda unit: housekeeping.purge(unit, now=5000.0, retention=100.0))
    assert names(api.get(f"/changes?after={first}").json()) == ["b"]


def test_a_cursor_of_a_version_without_histories_holds_while_its_feed_goes_on(api: ServedApi) -> None:
    """After the upgrade of a feed with changes it goes on; in a feed that was begun anew it is refused."""
    happen(api, "a", "b")
    old = cursors.write(cursors.ChangesCursor(1))
    assert api.get(f"/changes?after={old}").status_code == 410
    execute(api, feed.update().values(history=""))
    assert names(api.get(f"/changes?after={old}").json()) == ["b"]
