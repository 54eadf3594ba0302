"""The API reads beside the writer: neither waits for the other, and one answer is made of one state."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from tests.harness.api import put_server, serving_api
from tests.unit.issues.builders import issue

from patrolserver_exporter.inbox.deliveries import NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.store.tables import inbox
from patrolserver_exporter.store.threads import READERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.api import ServedApi

    from patrolserver_exporter.store import Unit

READS = (
    "/servers",
    "/servers/1",
    "/servers/1/issues",
    "/servers/1/software",
    "/issues",
    "/changes",
    "/status",
    "/inbox",
)
NAME = "web1.example.org"


def fill(unit: Unit) -> None:
    """A server that is fine, and a delivery that nobody has looked at."""
    put_server(unit, 1, NAME, polled_at=1000.0)
    BoundedInbox(10).accept(unit, [NewDelivery("main", 1, 11, "webhook.new_server_issues", 1000.0)])


@pytest.fixture
def api(store_url: str) -> Iterator[ServedApi]:
    """One server, one delivery; a read waits half a second for its turn."""
    with serving_api(store_url, turn_timeout=0.5) as served:
        served.store.run(fill)
        yield served


@contextmanager
def held() -> Iterator[Callable[[object], bool]]:
    """Work that does not end before the block does."""
    release = threading.Event()
    try:
        yield lambda _: release.wait(30)
    finally:
        release.set()


def test_no_read_waits_for_a_unit_of_work(api: ServedApi) -> None:
    """While a unit takes its time, every list and the gate are answered."""
    with held() as work:
        slow = api.store.submit(work)
        statuses = {path: api.get(path).status_code for path in READS}
        assert api.gate(NAME)["servers"][0]["name"] == NAME
        assert not slow.done()
    assert statuses == dict.fromkeys(READS, 200)


def test_reads_hold_up_no_delivery(api: ServedApi) -> None:
    """While every reader is busy, units of work are done."""
    with held() as work:
        reads = [api.store.submit_read(work) for _ in range(READERS)]
        assert api.delete("/inbox/1").status_code == 204
        assert not any(read.done() for read in reads)


def test_too_much_reading_is_told_with_when_to_come_again(api: ServedApi) -> None:
    """Who gets no turn hears a 503 that says so, and is answered later."""
    with held() as work:
        for _ in range(READERS):
            api.store.submit_read(work)
        with ThreadPoolExecutor(len(READS)) as pool:
            answers = list(pool.map(lambda path: api.get(path), READS))  # noqa: PLW0108  # A kept session for each.
        refused = api.post("/gate", json={"servers": [NAME]})
    for answer in (*answers, refused):
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
        assert "did not get its turn" in answer.json()["detail"]
    assert api.get("/servers").status_code == 200


def test_a_verdict_is_made_of_one_state(api: ServedApi) -> None:
    """What is committed while the gate reads shows in none of its evidence, and in all of that of the next."""
    committed: list[bool] = []

    def apply(unit: Unit) -> None:
        unit.connection.execute(inbox.update().values(state="applied"))
        broken = issue("php", Kind.OUTDATED, severity=Severity.CRITICAL)
        put_server(unit, 1, NAME, issues=[broken], polled_at=2000.0)

    def commit_beside(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM inbox" in statement and threading.current_thread().name == "store-reader" and not committed:
            committed.append(True)
            api.store.run(apply)

    sa.event.listen(sa.Engine, "after_cursor_execute", commit_beside)
    try:
        first, second = api.gate(NAME), api.gate(NAME)
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", commit_beside)
    assert committed
    seen = [{reason["code"] for reason in answer["reasons"]} for answer in (first, second)]
    assert "event_unconfirmed" in seen[0]
    assert "event_unconfirmed" not in seen[1]
    assert [answer["counts"]["total"] for answer in (first, second)] == [0, 1]
