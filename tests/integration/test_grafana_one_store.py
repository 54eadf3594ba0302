"""Who is told what when of two exporters on one store one loses its API or is killed: all cases beside each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest
import requests
from tests.harness.alerting import Cable, route_to, shortened
from tests.harness.alertmanager import Alertmanager, Pager
from tests.harness.fleet import wait_for_polls
from tests.harness.prometheus import Prometheus
from tests.harness.replicas import Replicas
from tests.harness.sizes import all_or_few
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.postgres import PostgresCluster

pytestmark = [pytest.mark.long, pytest.mark.sized, pytest.mark.turn(2)]

SERVERS = 3
DOWN, CUT, STALE = "PatrolServerExporterDown", "PatrolServerApiUnreachable", "PatrolServerDataStale"
CRITICAL = "PatrolServerCriticalIssueOpen"
WITHIN = 90.0
"""Seconds until everybody has been told: who loses its API gives the account up after some 30, leases take 10 at most,
the rules 5 to 25, the pager's route 10."""


class Told(NamedTuple):
    """An alert, and of which of the two exporters; of none where it is about all of them."""

    alert: str
    exporters: str = ""


class Case(NamedTuple):
    """What the pager is told, and what the team."""

    pager: frozenset[Told]
    team: frozenset[Told]
    perhaps: frozenset[str]
    """Alerts that may be told for a moment, since the rules wait for so much less than is shipped."""


def case(pager: dict[str, str], team: dict[str, str], *, critical: bool, perhaps: tuple[str, ...] = ()) -> Case:
    """A row of the table; ``critical``: a critical issue that appears meanwhile reaches the pager."""
    pages, warnings = (frozenset(Told(*one) for one in receiver.items()) for receiver in (pager, team))
    return Case(pages | ({Told(CRITICAL)} if critical else frozenset()), warnings, frozenset(perhaps))


WHO_IS_TOLD_WHAT: dict[tuple[str, str], Case] = {
    # The owner, the other:   the pager                the team                  a critical issue
    ("well", "cut"): case({}, {}, critical=True),
    ("well", "killed"): case({}, {DOWN: "1"}, critical=True),
    # The account goes to the other one when the lease has run out.
    ("killed", "well"): case({}, {DOWN: "0"}, critical=True),
    # And when its owner has given it up.
    ("cut", "well"): case({}, {}, critical=True, perhaps=(STALE, CUT)),
    # Here nobody is better off, so all that live show what was known, and say that it is old.
    ("cut", "cut"): case({STALE: "01"}, {CUT: "01"}, critical=False),
    ("cut", "killed"): case({STALE: "0"}, {CUT: "0", DOWN: "1"}, critical=False),
    ("killed", "cut"): case({STALE: "1"}, {DOWN: "0", CUT: "1"}, critical=False),
    ("killed", "killed"): case({DOWN: ""}, {}, critical=False),
}


TRIED = all_or_few([*WHO_IS_TOLD_WHAT], 4)
"""Of each two exporters run."""


class Pair:
    """Two exporters on a store of their own; the first one polls their account, which is called as what happens."""

    def __init__(self, folder: Path, what: tuple[str, str], simulator: Simulator, store_url: str) -> None:
        self.what = what
        self.account = "-".join(what)
        self.job = f"patrolserver-{self.account}"
        self._stack = ExitStack()
        names = ("first", "second")
        self._cable = self._stack.enter_context(Cable(simulator.base_url, *names))
        folder.mkdir()
        self.replicas = Replicas(
            folder,
            simulator.base_url,
            [store_url] * 2,
            config={"interval": "5s"},
            environs=[{"HTTP_PROXY": self._cable.proxy_for(name), "NO_PROXY": "", "no_proxy": ""} for name in names],
        )
        for exporter in self.replicas:
            exporter.write_config(exporter.config_file.read_text().replace("name: main", f"name: {self.account}"))

    def __enter__(self) -> Self:
        self._stack.enter_context(self.replicas)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start the owner, then the other one, and wait until both show polls."""
        for exporter in self.replicas:
            exporter.start(within=120.0)
            wait_for_polls(exporter, SERVERS, within=120.0)

    @property
    def targets(self) -> list[str]:
        """Where the two are scraped."""
        return [f"127.0.0.1:{port}" for port in self.replicas.ports]

    def suffer(self) -> None:
        """What the table says happens now."""
        for exporter, cut, what in zip(self.replicas, self._cable.cut.values(), self.what, strict=True):
            if what == "cut":
                cut.set()
            elif what == "killed":
                exporter.kill()

    def told(self, receiver: Pager) -> frozenset[Told]:
        """What somebody was told of this pair that fires: alerts, each with the exporters that its labels name."""
        found: dict[str, set[str]] = {}
        for one in [*receiver.alerts]:
            labels: dict[str, str] = one["labels"]
            if one["status"] == "firing" and labels["job"] == self.job:
                places = found.setdefault(labels["alertname"], set())
                if "instance" in labels:
                    places.add(str(self.targets.index(labels["instance"])))
        return frozenset(Told(alert, "".join(sorted(places))) for alert, places in found.items())


Heard = dict[tuple[str, str], tuple[frozenset[Told], frozenset[Told]]]
"""What the pager and the team were told of each pair."""


@pytest.fixture(scope="module")
def heard(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresCluster, require_program: Callable[[str], str]
) -> Heard:
    """A while after it happened to each pair at once, or when all have been told what the table says.

    They share one fleet, on which a critical issue appears meanwhile, and one Prometheus, to which each is a job.
    """
    folder = tmp_path_factory.mktemp("one-store")
    options = SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=6)
    with ExitStack() as stack:
        enter = stack.enter_context
        simulator = enter(Simulator(options))
        pairs = {
            what: enter(Pair(folder / "-".join(what), what, simulator, postgres.create_database())) for what in TRIED
        }
        with ThreadPoolExecutor(len(pairs)) as pool:
            list(pool.map(Pair.start, pairs.values()))
        pager, team = enter(Pager()), enter(Pager())
        alertmanager = enter(
            Alertmanager(
                folder,
                require_program("prometheus-alertmanager"),
                route_to({"pager": pager.url, "team": team.url}),
            )
        )
        extra = f"""\
rule_files: ["{shortened(folder)}"]
alerting:
  alertmanagers: [{{static_configs: [{{targets: ["{alertmanager.url.removeprefix("http://")}"]}}]}}]
"""
        jobs = {pair.job: pair.targets for pair in pairs.values()}
        prometheus = enter(Prometheus(folder, require_program("prometheus"), jobs, extra=extra))
        owned = "sum(patrolserver_exporter_account_owner)"
        eventually(lambda: prometheus.value(owned) == len(pairs), within=120, what="an owner of each account")
        polled = "count(patrolserver_server_last_poll_timestamp_seconds)"
        eventually(lambda: prometheus.value(polled) == 2.0 * SERVERS * len(pairs), within=120, what="all polls")
        assert [*pager.alerts, *team.alerts] == []
        for pair in pairs.values():
            pair.suffer()
        name = simulator.world.servers(simulator.world.demo)[0].name
        order = {"server": name, "kind": "exploitable", "risk": 9.8}
        assert requests.post(f"{simulator.base_url}/-/simulator/break", json=order, timeout=10).ok

        def told() -> Heard:
            return {what: (pair.told(pager), pair.told(team)) for what, pair in pairs.items()}

        with suppress(AssertionError):  # What is missing then each case tells by itself.
            eventually(
                lambda: all(
                    wanted <= found
                    for what, both in told().items()
                    for wanted, found in zip(WHO_IS_TOLD_WHAT[what][:2], both, strict=True)
                ),
                within=WITHIN,
                what="all that the table says",
            )
        return told()


@pytest.mark.parametrize("what", TRIED, ids="-".join)
def test_who_is_told_what_when_one_of_two_exporters_on_one_store_is_cut_or_killed(
    what: tuple[str, str], heard: Heard
) -> None:
    """As the table says, soon, and nothing else; a critical issue, too, where an owner can read it."""
    wanted, (pager, team) = WHO_IS_TOLD_WHAT[what], heard[what]
    assert {one for one in pager if one.alert not in wanted.perhaps} == wanted.pager
    assert {one for one in team if one.alert not in wanted.perhaps} == wanted.team
