"""The promise on replicas that die, stop and lose their database: nothing acknowledged is lost, doubled or let pass."""

from __future__ import annotations

import itertools
import logging
import math
import random
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from tests.faults.replicas.asking import Asking, Truth, Watching
from tests.faults.truth.witness import witnessed
from tests.harness.events import report
from tests.harness.fleet import issues_by_server, wait_for_polls
from tests.harness.gate import CRITICAL, add_server
from tests.harness.process import Exporter
from tests.harness.promises import measured
from tests.harness.replicas import PATIENCE, Balancer, PgBouncer, Replicas
from tests.harness.sending import Sender
from tests.harness.sizes import FULL, LONGEST
from tests.harness.waiting import eventually

from patrolserver_exporter.issues.model import ChangeKind, Kind
from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.store import Store, fleet, history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.calm, pytest.mark.long, pytest.mark.promise("replicas")]

log = logging.getLogger(__name__)

SETTLE = 3600.0
"""So long that no poll ends what an event told."""
BUSY = 10
"""Servers that most events are about. Each round has one event about one of the others."""
INBOX = "patrolserver_exporter_inbox_deliveries"
SOME_FAIL = Fault(kind=FaultKind.STATUS, status=503, path="webhooks/*/events/*", probability=0.2)
PAST_THE_LEASE = 13.0
"""Seconds of a stop: the lease holds 10."""


KINDS = ("cut_sessions", "kill_the_owner", "stop_the_owner", "restart_database", "kill_a_reader")
ROUNDS = 60 if FULL else len(KINDS)
SERVERS = BUSY + ROUNDS + 3
"""Made by the simulator's seed."""
ALL = SERVERS + ROUNDS
"""With those that have no issue until one breaks in each round."""


@dataclass
class Disasters:
    """What happens to the replicas and to their database, one after the other, while deliveries are sent."""

    replicas: Replicas
    cluster: PostgresCluster
    simulator: Simulator
    sessions: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._draw = random.Random(1)

    def happen(self, kinds: Sequence[str]) -> Iterator[Callable[[], None]]:
        """These in turn, for ever."""
        return itertools.cycle(getattr(self, kind) for kind in kinds)

    def kill_the_owner(self) -> None:
        """SIGKILL, and a start a moment later."""
        self._kill(self.replicas.owner())

    def kill_a_reader(self) -> None:
        """SIGKILL of one that does not poll."""
        self._kill(self._draw.choice(self.replicas.others(self.replicas.owner())))

    def _kill(self, exporter: Exporter) -> None:
        self.counts["kills"] += 1
        exporter.kill()
        time.sleep(self._draw.uniform(0.0, 2.0))
        exporter.start(within=PATIENCE)

    def stop_the_owner(self) -> None:
        """SIGSTOP past the lease with a list call under way, a new server meanwhile, and SIGCONT."""
        owner = self.replicas.owner()
        self.counts["stops"] += 1
        number = self.simulator.faults.add(Fault(kind=FaultKind.LATENCY, path="servers", seconds=1.5))
        hits = self._hits(number)
        eventually(lambda: self._hits(number) > hits, within=PATIENCE, every=0.005, what="a list call")
        self.replicas.stop(owner)
        stopped_at = time.monotonic()
        # The answer of that call leaves, and waits where the stopped one finds it.
        time.sleep(2.0)
        self.simulator.faults.clear(number)
        # Its issue would end with it.
        add_server(self.simulator, f"late-{self.counts['stops']}.example.org", critical=True)
        time.sleep(max(stopped_at + PAST_THE_LEASE - time.monotonic(), 0.0))
        self.replicas.owner()
        servers = len(self.simulator.world.servers(self.simulator.world.demo))
        others = self.replicas.others(owner)
        eventually(
            lambda: others[0].value("patrolserver_servers", account="main") == servers,
            within=PATIENCE,
            what="the new server",
        )
        self.replicas.go_on(owner)

    def _hits(self, number: int) -> int:
        return next(int(str(one["hits"])) for one in self.simulator.faults.documents() if one["id"] == number)

    def cut_sessions(self) -> None:
        """``pg_terminate_backend`` of some sessions, whatever they do just then."""
        query = b"SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        for _ in range(12):
            with psycopg.connect(host=str(self.cluster.folder), user="patrol", dbname="postgres") as connection:
                found = [int(row[0]) for row in connection.execute(query)]
            if found:
                self.counts["sessions cut"] += 1
                self.cluster.execute(f"SELECT pg_terminate_backend({self._draw.choice(found)})")
            time.sleep(0.15)

    def restart_database(self) -> None:
        """At once, as after a crash."""
        self.counts["restarts of the database"] += 1
        self.cluster.stop_at_once()
        self.cluster.start()


@contextmanager
def three_replicas(  # What the tests vary.
    folder: Path,
    cluster: PostgresCluster,
    simulator: Simulator,
    haproxy: str,
    *,
    pgbouncer: str | None = None,
    altered: tuple[str, ...] = (),
) -> Iterator[tuple[Replicas, Balancer, str]]:
    """Three that watch the simulator, started; with a balancer in front of them, and the URL of the database."""
    url = cluster.create_database()
    Store(url).close()
    for number in range(SERVERS + 1, ALL + 1):
        assert add_server(simulator, f"sound-{number}.example.org").id == number
    with ExitStack() as stack:
        way = url
        if pgbouncer is not None:
            way = stack.enter_context(PgBouncer(pgbouncer, cluster.folder, pool=2)).url_of(url)
        replicas = stack.enter_context(
            Replicas(
                folder,
                simulator.base_url,
                [way] * 3,
                config={"interval": "2s", "settle": "1h"},
                altered=altered,
            )
        )
        for exporter in replicas:
            # A call that was under way at a stop shall still be answered after it.
            exporter.write_config(exporter.config_file.read_text().replace("timeout: 2s", "timeout: 60s"))
        replicas.start()
        balancer = stack.enter_context(Balancer(folder, haproxy, replicas.ports))
        replicas.wait_for_polls(ALL)
        yield replicas, balancer, url


@dataclass
class Outcomes:
    """What became of a run."""

    sent: int
    acknowledged: int
    disasters: Counter[str]
    verdicts: Counter[str]
    lost: set[str]
    """Acknowledged, and without an effect."""
    doubled: set[str]
    """Took effect more than once."""
    ended: list[str]
    """Issues and servers that the fleet has, and that were told to have ended."""
    false: list[str]
    """Passes that nobody could vouch for."""
    owners: int
    """Exporters that say in the end that they poll the account."""
    differing: list[str]
    """Exporters whose issues are not those of one that has just begun."""
    unpolled: bool
    """In the end, servers of the account were not polled."""

    @property
    def is_flawless(self) -> bool:
        """Whether nothing went wrong."""
        wrong = (self.lost, self.doubled, self.ended, self.false, self.differing, self.unpolled)
        return self.owners == 1 and not any(wrong)


def run(  # What the tests vary.
    folder: Path,
    cluster: PostgresCluster,
    haproxy: str,
    *,
    pgbouncer: str | None = None,
    altered: tuple[str, ...] = (),
    kinds: Sequence[str] = KINDS,
    rounds: int = ROUNDS,
    patience: float = PATIENCE,
    events: int,
    pace: float,
) -> Outcomes:
    """Send so many events while disasters happen, and hold what is left against what is true."""
    truth = Truth(SETTLE)
    options = SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=6)
    with (
        witnessed(options, truth) as simulator,  # type: ignore[arg-type]  # It has what is called.
        three_replicas(folder, cluster, simulator, haproxy, pgbouncer=pgbouncer, altered=altered) as made,
    ):
        replicas, balancer, url = made
        chunks = _chunks(simulator, truth, rounds, events // rounds)
        disasters, world = Disasters(replicas, cluster, simulator), simulator.world
        sent, acknowledged, began = 0, set[int](), time.monotonic()
        # With two sessions for all, who asks without a pause leaves none to the others.
        every = 0.05 if pgbouncer is None else 0.5
        with Watching(url) as watching, Asking(replicas, balancer, truth, ALL, SERVERS, every) as asking:
            for turn, (chunk, happen) in enumerate(zip(chunks, disasters.happen(kinds), strict=False)):
                world.change(world.server(world.demo, SERVERS + 1 + turn), CRITICAL)
                fault = simulator.faults.add(SOME_FAIL)
                sender = Sender(balancer, list(chunk), pace=pace, on_acknowledged=truth.acknowledged)
                sender.start()
                sender.deliver_some(len(chunk) / 4)
                happen()
                sender.join()
                simulator.faults.clear(fault)
                asking.await_pass(10.0)
                sent, acknowledged = sent + sender.sent, acknowledged | set(sender.acknowledged)
                log.info("%.0f s: %s", time.monotonic() - began, disasters.counts)
            # What never takes effect is lost.
            unpolled = False
            if _all_take_effect(replicas, patience):
                log.info("%.0f s: the inbox is empty", time.monotonic() - began)
                unpolled = not _all_are_polled(replicas, len(world.servers(world.demo)), patience)
            asking.await_pass(10.0)
        owners = len(replicas.owners())
        shown = [issues_by_server(exporter.metrics()) for exporter in replicas]
        polled = _shown_by_a_fresh_one(simulator, folder / "fresh")
        for exporter in replicas:
            assert exporter.terminate(within=60.0) == 0
            assert altered or "Traceback" not in exporter.log()
            assert "the fence has another form" not in exporter.log()
        named = {event_id: name for chunk in chunks for event_id, name in chunk.items()}
        kept = Kept.read(url)
        outcomes = Outcomes(
            sent=sent,
            acknowledged=len(acknowledged),
            disasters=disasters.counts,
            verdicts=asking.verdicts,
            lost={named[event_id] for event_id in acknowledged} - set(kept.reported),
            doubled={name for name in named.values() if kept.opened[name] > 1 or kept.reported[name] > 1},
            ended=[*kept.ended, *watching.gone],
            false=asking.false,
            owners=owners,
            differing=[
                f"replica {number}: {one} and not {polled + kept.by_server}"
                for number, one in enumerate(map(_by_server, shown))
                if one != polled + kept.by_server
            ],
            unpolled=unpolled,
        )
        log.info("%s", outcomes)
        return outcomes


def _chunks(simulator: Simulator, truth: Truth, rounds: int, events: int) -> list[dict[int, str]]:
    """So many events for each round, and what they report; one of each is about a server that no other is about."""
    chunks: list[dict[int, str]] = []
    for turn in range(rounds):
        chunk = {}
        for number in range(events):
            server_id = 1 + number % BUSY if number else 1 + BUSY + turn
            name = f"pkg-{turn}-{number}"
            event = report(simulator, server_id, name)
            chunk[event.id], truth.servers[event.id] = name, server_id
        chunks.append(chunk)
    return chunks


def _by_server(found: Mapping[tuple[tuple[str, str], ...], float]) -> Counter[int]:
    """Open issues of each server that has any."""
    counts: Counter[int] = Counter()
    for have, count in found.items():
        counts[int(dict(have)["server_id"])] += int(count)
    return +counts


def _shown_by_a_fresh_one(simulator: Simulator, folder: Path) -> Counter[int]:
    """Issues of each server, as an exporter finds them that asks the API now."""
    folder.mkdir()
    fresh = Exporter.watching(folder, simulator.base_url)
    try:
        fresh.start(within=PATIENCE)
        wait_for_polls(fresh, len(simulator.world.servers(simulator.world.demo)), within=PATIENCE)
        return _by_server(issues_by_server(fresh.metrics()))
    finally:
        fresh.kill()


class Kept(NamedTuple):
    """What the database has in the end."""

    reported: Counter[str]
    """Software of open issues that events told of."""
    by_server: Counter[int]
    """How many those are."""
    opened: Counter[str]
    """How often an issue of that software opened, as the change feed tells."""
    ended: list[str]
    """Issues that ended; the fleet stays as it is, but for new servers, so none does."""

    @classmethod
    def read(cls, url: str) -> Kept:
        """Nobody else may have the database open."""
        with Store(url) as store:
            some = store.run(lambda unit: [i for _, one in fleet.open_issues(unit.connection, "main") for i in one])
            changes = store.run(lambda unit: history.changes_after(unit.connection, 0, limit=100_000))
        issues = [one for one in some if one.kind is Kind.REPORTED]
        opens = {ChangeKind.OPENED, ChangeKind.REOPENED}
        return cls(
            reported=Counter(one.canonical_name for one in issues),
            by_server=Counter(one.server_id for one in issues),
            opened=Counter(one.issue.canonical_name for one in changes if one.kind in opens),
            ended=[
                f"{one.server}: {one.kind} {one.issue.canonical_name}"
                for one in changes
                if one.kind is not ChangeKind.OPENED
            ],
        )


def _all_take_effect(replicas: Replicas, patience: float) -> bool:
    """Whether none is left in the end; when their number does not fall for so long, those that are left are lost."""
    left, end = math.inf, time.monotonic() + patience
    while now_left := max(map(waiting, replicas)):
        if now_left < left:
            left, end = now_left, time.monotonic() + patience
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def _all_are_polled(replicas: Replicas, servers: int, patience: float) -> bool:
    """Whether each shows that many servers that were polled from now on, in so many seconds."""
    try:
        replicas.wait_for_polls(servers, after=time.time(), within=patience)
    except AssertionError:
        return False
    return True


def waiting(exporter: Exporter) -> int:
    """How many deliveries are not at their end, as it counts them."""
    states = {dict(have)["state"]: value for have, value in exporter.samples(INBOX).items()}
    return int(sum(states[one] for one in ("received", "fetching", "retry", "unverified", "blocked")))


SIZE: dict[str, Any] = {"events": 10_000, "pace": 100.0} if FULL else {"events": 300, "pace": 50.0}

FEWER: dict[str, Any] = SIZE if FULL else {"events": 120, "pace": 20.0}
"""Two sessions do not get far."""


def _judge(outcomes: Outcomes, request: pytest.FixtureRequest, load: str) -> None:
    measured(
        request.node,
        load=f"{load}: {dict(outcomes.disasters)}, 20 % of the API's answers 503, 10 % sent twice",
        sent=outcomes.sent,
        lost=len(outcomes.lost),
        doubled=len(outcomes.doubled),
        bound=f"{outcomes.acknowledged} acknowledged, {len(outcomes.false)} false passes",
    )
    assert outcomes.acknowledged > outcomes.sent / 4, str(outcomes)
    assert outcomes.verdicts["pass, rightly"] > 0, str(outcomes)
    assert outcomes.verdicts["unknown"] > 0, str(outcomes)
    assert outcomes.verdicts["fail"] > 0, str(outcomes)
    assert outcomes.is_flawless, str(outcomes)


@pytest.mark.timeout(LONGEST * 4)
def test_replicas_through_disasters(
    tmp_path: Path, cluster: PostgresCluster, haproxy: str, request: pytest.FixtureRequest
) -> None:
    """Kills, stops past the lease, cut sessions, a database that crashes: 0 lost, 0 doubled, 0 false passes."""
    _judge(run(tmp_path, cluster, haproxy, **SIZE), request, "three replicas")


@pytest.mark.timeout(LONGEST * 4)
def test_replicas_through_disasters_behind_a_pooler(
    tmp_path: Path,
    cluster: PostgresCluster,
    haproxy: str,
    require_program: Callable[[str], str],
    request: pytest.FixtureRequest,
) -> None:
    """The same with a PgBouncer in transaction mode that has two sessions for all of them."""
    outcomes = run(tmp_path, cluster, haproxy, pgbouncer=require_program("pgbouncer"), **FEWER)
    _judge(outcomes, request, "three replicas, two sessions")


A_STOP: dict[str, Any] = {"kinds": ("stop_the_owner",), "rounds": 1, "events": 40, "pace": 10.0}


@pytest.mark.timeout(LONGEST * 4)
def test_what_a_stopped_owner_has_in_hand_is_written_by_nobody(
    tmp_path: Path, cluster: PostgresCluster, haproxy: str
) -> None:
    """A server list from before the stop ends no server that another owner has found since."""
    outcomes = run(tmp_path, cluster, haproxy, **A_STOP)
    assert outcomes.is_flawless, str(outcomes)


@pytest.mark.timeout(LONGEST * 4)
def test_without_the_fence_it_is_noticed(tmp_path: Path, cluster: PostgresCluster, haproxy: str) -> None:
    """So it is the fence that keeps it off. What is late by chance does no harm, so it may take some tries."""

    def is_noticed(folder: Path) -> bool:
        folder.mkdir()
        return not run(folder, cluster, haproxy, altered=("no-fence",), patience=30.0, **A_STOP).is_flawless

    assert any(is_noticed(tmp_path / f"try-{number}") for number in range(4))
