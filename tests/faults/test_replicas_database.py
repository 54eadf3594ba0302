"""The promises on replicas whose database fails over, whose clocks differ, whose accounts do, or that are cut off."""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import requests
from psycopg import sql
from tests.faults.replicas.asking import LENIENT, Asking, Truth
from tests.faults.truth.witness import witnessed
from tests.harness.events import report
from tests.harness.faketime import faked_clock
from tests.harness.fleet import LAST_POLL, issues_by_server
from tests.harness.postgres import PostgresCluster
from tests.harness.replicas import OWNER, PATIENCE, Balancer, PgBouncer, Replicas, ask_gate
from tests.harness.sizes import FULL, LONGEST
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.simulator.software import Change, Kind
from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.process import Exporter

pytestmark = [pytest.mark.calm, pytest.mark.promise("replicas"), pytest.mark.timeout(LONGEST * 4)]

SERVERS = 5
SETTLE = 1.0
DIFFERS = "patrolserver_exporter_replicas_config_differs"
INBOX = "patrolserver_exporter_inbox_deliveries"
TRIED = {"retry", "unverified"}
WAITING = {"received", "retry", "unverified", "fetching"}
OWN_TABLES = ("accounts", "catch_ups", "servers", "issues", "inbox", "changes", "tallies", "operations")


@pytest.fixture
def database(cluster: PostgresCluster) -> str:
    """The URL of an empty state."""
    url = cluster.create_database()
    Store(url).close()
    return url


def all_servers(exporter: Exporter) -> str:
    """What its gate says of all servers, by a policy that minds nothing but what is not known."""
    return ask_gate(exporter.url, {"servers": ["*"], "policy": LENIENT})


def applied(exporter: Exporter) -> float:
    """Deliveries that took effect."""
    return exporter.value(INBOX, state="applied") or 0.0


def test_a_standby_without_the_last_commits_is_promoted(
    tmp_path: Path, cluster: PostgresCluster, database: str, simulator: Simulator
) -> None:
    """No false pass on any replica; what the standby lacks is caught up by a poll, and nothing else is lost."""
    standby = PostgresCluster(cluster.programs, cluster)
    both = re.sub(r"host=(.*)$", rf"host=\1,{standby.folder}", database)
    # So far apart that nothing is polled by chance.
    config = {"interval": "10m", "settle": f"{SETTLE:.0f}s"}
    with Replicas(tmp_path, simulator.base_url, [both] * 3, config=config) as replicas:
        replicas.start()
        replicas.wait_for_polls(SERVERS)
        kept = report(simulator, 2, "kept")
        assert replicas[1].deliver(kept.id).status_code == 202
        replicas.everywhere(lambda one: all_servers(one) == "pass", "a pass")
        with standby:
            for number, exporter in enumerate(replicas):
                # Enough that the new owner's first commits have versions that were there before.
                for turn in range(4):
                    event = report(simulator, 1 + number, f"lost-{number}-{turn}")
                    assert exporter.deliver(event.id).status_code == 202
            replicas.everywhere(lambda one: applied(one) == 13.0, "the effect")
            cursors = [latest(exporter) for exporter in replicas]
            server = simulator.world.servers(simulator.world.demo)[0]
            simulator.world.change(server, Change(Kind.EXPLOITABLE, _software_of(simulator), risk=9.8))
            cluster.stop_at_once()
            away_since = time.time()
            standby.promote()
            passes = _passes_until_polled(replicas, away_since)
            polled = min(min(polls(exporter)) for exporter in replicas)
            assert [at for at in passes if away_since + 0.5 < at < polled] == []
            event = report(simulator, 3, "afterwards")
            eventually(lambda: replicas[2].deliver(event.id).status_code == 202, within=PATIENCE, what="a 202")
            replicas.everywhere(lambda one: applied(one) == 2.0, "the effect")
            replicas.everywhere(lambda one: all_servers(one) == "pass", "a pass")
            eventually(lambda: _all_show_the_same(replicas), within=PATIENCE, what="the same series on all")
            for exporter, cursor in zip(replicas, cursors, strict=True):
                reply = exporter.get(f"/api/v1/changes?after={cursor}", headers=exporter.operator)
                assert reply.status_code == 410
                assert "Traceback" not in exporter.log()
            assert _state_of(both, "main", kept.id) == "applied"
            assert len(replicas.owners()) == 1


def latest(exporter: Exporter) -> str:
    """The cursor behind the newest change."""
    return str(exporter.get("/api/v1/changes?after=latest", headers=exporter.operator).json()["next_cursor"])


def _all_show_the_same(replicas: Replicas) -> bool:
    first, *others = [issues_by_server(exporter.metrics()) for exporter in replicas]
    return all(one == first for one in others)


def _passes_until_polled(replicas: Replicas, since: float) -> list[float]:
    """When a gate let all servers pass, until each replica shows that all were polled since."""
    passes, end = [], time.monotonic() + PATIENCE
    while time.monotonic() < end and not all(min(polls(one), default=0.0) > since for one in replicas):
        for exporter in replicas:
            at = time.time()
            if all_servers(exporter) == "pass":
                passes.append(at)
    return passes


def _software_of(simulator: Simulator) -> str:
    world = simulator.world
    return world.installed(world.servers(world.demo)[0])[0].software.canonical_name


def polls(exporter: Exporter) -> list[float]:
    """When its servers were last polled."""
    return list(exporter.samples(LAST_POLL).values())


def test_clocks_that_are_minutes_apart(tmp_path: Path, database: str, haproxy: str) -> None:
    """At -7, 0 and +7 minutes, each being the owner once: nothing is lost, no false pass, and no age is off."""
    environs = [_clock(tmp_path / f"clock{minutes}", minutes) for minutes in (-7, 0, 7)]
    truth, config = Truth(SETTLE), {"interval": "2s", "settle": f"{SETTLE:.0f}s"}
    options = SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=6)
    with (
        witnessed(options, truth) as simulator,  # type: ignore[arg-type]  # It has what is called.
        Replicas(tmp_path, simulator.base_url, [database] * 3, config=config, environs=environs) as replicas,
    ):
        replicas.start()
        with (
            Balancer(tmp_path, haproxy, replicas.ports) as balancer,
            Asking(replicas, balancer, truth, SERVERS, SERVERS) as asking,
        ):
            delivered = 0
            for turn in range(3):
                owner = replicas[turn]
                assert replicas.owner() is owner
                replicas.wait_for_polls(SERVERS, after=time.time() - 30.0)
                for exporter in replicas:
                    assert all(-1.0 < time.time() - at < 60.0 for at in polls(exporter))
                    delivered += _deliver(exporter, simulator, truth, delivered)
                replicas.everywhere(_applies(delivered), "the effect")
                asking.await_pass(10.0)
                if turn < 2:
                    _hand_on(replicas, turn + 1)
        assert asking.false == []
        assert asking.verdicts["pass, rightly"] > 0
        assert asking.verdicts["unknown"] > 0
        for exporter in replicas:
            assert "Traceback" not in exporter.log()


def _applies(count: int) -> Callable[[Exporter], bool]:
    return lambda exporter: applied(exporter) == count


def _clock(place: Path, minutes: int) -> dict[str, str]:
    """What a process needs to see a clock that is so many minutes off."""
    place.mkdir()
    clock = faked_clock(place)
    if clock is None:
        pytest.skip("libfaketime is not installed")
    clock.set(60.0 * minutes)
    return clock.environ


def _deliver(exporter: Exporter, simulator: Simulator, truth: Truth, number: int) -> int:
    """Deliver another event, and tell the truth of it; 1."""
    server_id = 1 + number % SERVERS
    event = report(simulator, server_id, f"at-{number}")
    truth.servers[event.id] = server_id
    sent = time.monotonic()
    assert exporter.deliver(event.id).status_code == 202
    truth.acknowledged(event.id, sent)
    return 1


def _hand_on(replicas: Replicas, place: int) -> None:
    """Make this one the owner."""
    ended = replicas.others(replicas[place])
    for exporter in ended:
        assert exporter.terminate(within=60.0) == 0
    assert replicas.owner() is replicas[place]
    for exporter in ended:
        exporter.start(within=PATIENCE)


def test_one_that_is_cut_off_alone_gives_way(
    tmp_path: Path, cluster: PostgresCluster, database: str, simulator: Simulator, require_program: Callable[[str], str]
) -> None:
    """The owner without its database: another one goes on within the lease; it shows no fleet, says so, and comes back.

    After a minute; in the small size that is made shorter.
    """
    program = require_program("pgbouncer")
    altered = () if FULL else ("sync.follower:_ALONE_AFTER=12",)
    with PgBouncer(program, cluster.folder, pool=20) as way:
        urls = [way.url_of(database), database, database]
        config = {"interval": "2s", "settle": "1s"}
        with Replicas(tmp_path, simulator.base_url, urls, config=config, altered=altered) as replicas:
            replicas.start()
            cut_off, *others = replicas
            replicas.wait_for_polls(SERVERS)
            assert replicas.owner() is cut_off
            way.kill()
            event = report(simulator, 1, "meanwhile")
            assert others[0].deliver(event.id).status_code == 202
            assert cut_off.deliver(event.id).status_code == 503
            assert all_servers(cut_off) == "refused"
            eventually(lambda: any(_owns(one) for one in others), within=PATIENCE, what="another owner")
            eventually(lambda: not _owns(cut_off), within=20.0, what="that it gives way")
            for exporter in others:
                eventually(functools.partial(_applies(1), exporter), within=PATIENCE, what="the effect")
            assert all_servers(cut_off) == "refused"
            eventually(lambda: issues_by_server(cut_off.metrics()) == {}, within=PATIENCE, what="no fleet series")
            ready = cut_off.get("/-/ready")
            assert ready.status_code == 503
            assert "could not be followed" in cut_off.log()
            assert cut_off.get("/-/healthy").status_code == 200
            assert others[0].get("/-/ready").status_code == 200
            way.start()
            eventually(lambda: cut_off.get("/-/ready").status_code == 200, within=PATIENCE, what="that it is back")
            eventually(lambda: applied(cut_off) == 1.0, within=PATIENCE, what="the effect")
            eventually(
                lambda: issues_by_server(cut_off.metrics()) == issues_by_server(others[0].metrics()) != {},
                within=PATIENCE,
                what="the same series",
            )
            assert len(replicas.owners()) == 1
            for exporter in replicas:
                assert "Traceback" not in exporter.log()


def _owns(exporter: Exporter, account: str = "main") -> bool:
    return exporter.value(OWNER, account=account) == 1.0


LAB = """\
  - name: lab
    api_url: {api_url}
    key: demo
    secret: demo
    webhook_tokens: [token-of-the-lab-0123456789]
"""
SOON = (
    "store.replicas:KEPT_CONFIGURED=25",
    "store.replicas:UNHEARD_AFTER=8",
    "store.lease:_ACCOUNTS_EVERY=3",
    "sync.housekeeping:_RETIRE_EVERY=5",
)
"""Ten minutes and one are too long for a test."""


def rows(url: str, account: str) -> dict[str, list[Any]]:
    """Everything that the database has of an account."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        found = {}
        for table in OWN_TABLES:
            column = "name" if table == "accounts" else "account"
            query = sql.SQL("SELECT * FROM {} WHERE {} = %s ORDER BY 1, 2")
            found[table] = connection.execute(
                query.format(sql.Identifier(table), sql.Identifier(column)), [account]
            ).fetchall()
        return found


def quiet(url: str, account: str) -> dict[str, list[Any]]:
    """`rows`, once they stay as they are."""

    def stays() -> dict[str, list[Any]] | None:
        before = rows(url, account)
        time.sleep(2.0)
        return before if rows(url, account) == before else None

    return eventually(stays, within=PATIENCE, what="that nothing is written") or {}


def test_an_account_comes_and_goes_one_replica_at_a_time(tmp_path: Path, database: str, simulator: Simulator) -> None:
    """No start and no reload changes a row of an account; what waits for one that another replica has is kept."""
    with (
        Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=6, seed=2)) as lab,
        Replicas(
            tmp_path,
            simulator.base_url,
            [database] * 3,
            # So far apart that nothing is polled by chance.
            config={"interval": "6h", "settle": "1s"},
            altered=() if FULL else SOON,
        ) as replicas,
    ):
        replicas.start()
        replicas.wait_for_polls(SERVERS)
        lab_config = LAB.format(api_url=lab.base_url)
        of_main = quiet(database, "main")
        # Rolled out: one starts again, one reloads, and the last one starts again.
        for place in (2, 1, 0):
            exporter = replicas[place]
            text = exporter.config_file.read_text()
            exporter.write_config(text.replace("poll:", lab_config + "poll:", 1))
            _take_up(exporter, reload=place == 1)
            if place:
                assert quiet(database, "main") == of_main
            replicas.everywhere(_tells(differs=place > 0), "whether they differ")
        replicas.everywhere(lambda one: _polled(one, "lab") == SERVERS, "the lab")
        # Whoever took the accounts over from the last one that started again has asked the API for their servers.
        of_main = quiet(database, "main")
        # A delivery waits for the lab while it is taken away.
        lab.faults.add(Fault(kind=FaultKind.STATUS, status=503, path="webhooks/*/events/*"))
        waits = report(lab, 1, "waits")
        assert _deliver_to_lab(replicas[0], waits.id) == 202
        eventually(
            lambda: _state_of(database, "lab", waits.id) in {"retry", "unverified"}, within=PATIENCE, what="a try"
        )
        servers_of_lab = rows(database, "lab")["servers"]
        for place in (2, 1):
            exporter = replicas[place]
            exporter.write_config(exporter.config_file.read_text().replace(lab_config, ""))
            _take_up(exporter, reload=place == 1)
            time.sleep(2.0)
            assert [row[:4] for row in rows(database, "lab")["servers"]] == [row[:4] for row in servers_of_lab]
            assert _state_of(database, "lab", waits.id) in WAITING
            assert _judge_lab(replicas[0]) != "pass"
        assert _without_calls(quiet(database, "main")) == _without_calls(of_main)
        # Longer than an account is kept that nobody has configured: the last replica has.
        if not FULL:
            time.sleep(30.0)
            assert _state_of(database, "lab", waits.id) in WAITING
        lab.faults.clear()
        eventually(
            lambda: _state_of(database, "lab", waits.id) == "applied", within=PATIENCE, what="the delivery's effect"
        )
        last = replicas[0]
        last.write_config(last.config_file.read_text().replace(lab_config, ""))
        _take_up(last, reload=False)
        before = _version_of(database, "lab")
        assert before > 0
        if not FULL:
            eventually(lambda: _all_gone(database, "lab"), within=PATIENCE, what="that the lab's servers are gone")
            # Who still follows it learns of it by that.
            assert _version_of(database, "lab") >= before
        assert _without_calls(rows(database, "main")) == _without_calls(of_main)
        for exporter in replicas:
            assert "Traceback" not in exporter.log()


def _tells(*, differs: bool) -> Callable[[Exporter], bool]:
    return lambda exporter: exporter.value(DIFFERS) == float(differs)


def _without_calls(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """But for the account's own row, which tells when the API was asked for its servers."""
    return {table: some for table, some in found.items() if table != "accounts"}


def _take_up(exporter: Exporter, *, reload: bool) -> None:
    """Let it use its new configuration."""
    if reload:
        reply = requests.post(f"{exporter.url}/-/reload", headers=exporter.operator, timeout=30)
        assert reply.status_code == 200, reply.text
        return
    assert exporter.terminate(within=60.0) == 0
    exporter.start(within=PATIENCE)


def _polled(exporter: Exporter, account: str) -> int:
    return sum(dict(have)["account"] == account for have in exporter.samples(LAST_POLL))


def _deliver_to_lab(exporter: Exporter, event_id: int) -> int:
    payload = {
        "webhook_patrolserver": 1,
        "identifier": "webhook.new_server_issues",
        "event_id": event_id,
        "webhook_id": 1,
    }
    return requests.post(f"{exporter.url}/webhook/token-of-the-lab-0123456789", json=payload, timeout=20).status_code


def _judge_lab(exporter: Exporter) -> str:
    return ask_gate(exporter.url, {"servers": ["*"], "account": "lab", "policy": LENIENT})


def _state_of(url: str, account: str, event_id: int) -> str:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        query = b"SELECT state FROM inbox WHERE account = %s AND event_id = %s"
        row = connection.execute(query, [account, event_id]).fetchone()
        return "" if row is None else str(row[0])


def _all_gone(url: str, account: str) -> bool:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        query = b"SELECT count(*) FROM servers WHERE account = %s AND gone_at IS NULL"
        return connection.execute(query, [account]).fetchone() == (0,)


def _version_of(url: str, account: str) -> int:
    """Of the account's lease, which goes on when the account is retired."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        row = connection.execute(b"SELECT version FROM leases WHERE account = %s", [account]).fetchone()
        return 0 if row is None else int(row[0])
