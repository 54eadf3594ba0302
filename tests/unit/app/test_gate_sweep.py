from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness.api import put_server
from tests.harness.pages import CONFIG, NOW, Accounts, StillClock, status
from tests.unit.issues.builders import issue, software

from patrolserver_exporter.app.gate_sweep import GateSweep, pause_after
from patrolserver_exporter.config.schema import Gate
from patrolserver_exporter.gate.policy import NamedPolicy, SeverityLimits
from patrolserver_exporter.gate.verdict import Verdict
from patrolserver_exporter.issues.model import Kind
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.store.fleet import AccountRecord, save_account

if TYPE_CHECKING:
    from patrolserver_exporter.store import Store, Unit


class Told(GateSweep):
    """Tells when a sweep is done."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.done = threading.Event()

    def sweep(self) -> None:
        """As ever."""
        super().sweep()
        self.done.set()


def sweep_of(store: Store, *, refused: bool = False) -> Told:
    policies = {"relaxed": NamedPolicy(max_by_severity=SeverityLimits(critical=5))}
    config = dataclasses.replace(CONFIG, gate=Gate(policies=policies))
    accounts = Accounts((status("main", 3, credentials_refused=refused), status("empty", 0)))
    telemetry = Telemetry(version="0", revision="0", process_metrics=False)
    return Told(store, accounts, lambda: config, clock=StillClock(NOW), telemetry=telemetry)


def fill(store: Store) -> None:
    def work(unit: Unit) -> None:
        save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=NOW))
        critical = issue(kind=Kind.EXPLOITABLE, risk=9.5)
        put_server(unit, 1, "bad", issues=[critical], software=(software(),), polled_at=NOW - 5)
        put_server(unit, 2, "good", software=(software(),), polled_at=NOW - 5)
        put_server(unit, 3, "new")

    store.run(work)


def verdicts(sweep: GateSweep) -> dict[tuple[str, str], dict[str, int]]:
    sweep.sweep()
    return {
        (one.account, one.policy): {verdict.value: one.servers.get(verdict, 0) for verdict in Verdict}
        for one in sweep.judged
    }


def test_every_server_is_judged_alone_by_every_policy(store: Store) -> None:
    """The built-in one among them, and accounts without servers have zeros."""
    fill(store)
    assert verdicts(sweep_of(store)) == {
        ("main", "builtin"): {"pass": 1, "fail": 1, "unknown": 1},
        ("main", "relaxed"): {"pass": 2, "fail": 0, "unknown": 1},
        ("empty", "builtin"): {"pass": 0, "fail": 0, "unknown": 0},
        ("empty", "relaxed"): {"pass": 0, "fail": 0, "unknown": 0},
    }


def test_many_small_accounts_and_a_large_one_are_all_gone_through(store: Store) -> None:
    """Servers of several accounts are read together, those of a large one in several steps; the same ids are others."""
    sizes = {"small": 3, "large": 250, "exact": 100, "none": 0, "last": 1}

    def work(unit: Unit) -> None:
        for name, size in sizes.items():
            save_account(unit.connection, AccountRecord(name=name, up=True, last_success_at=NOW))
            for number in range(1, size + 1):
                polled_at = NOW - 5 if number % 2 else None
                put_server(unit, number, f"s{number}", account=name, software=(software(),), polled_at=polled_at)

    store.run(work)
    accounts = Accounts(tuple(status(name, size) for name, size in sizes.items()))
    telemetry = Telemetry(version="0", revision="0", process_metrics=False)
    sweep = GateSweep(store, accounts, lambda: CONFIG, clock=StillClock(NOW), telemetry=telemetry, rest=0.0)
    assert verdicts(sweep) == {
        (name, "builtin"): {"pass": (size + 1) // 2, "fail": 0, "unknown": size // 2} for name, size in sizes.items()
    }


def test_nothing_passes_that_only_seems_young(store: Store) -> None:
    """Stored times have not followed a clock that was set back: what they tell of ages is later than that."""
    store.run(lambda unit: save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=NOW)))
    store.run(lambda unit: put_server(unit, 1, "web", software=(software(),), polled_at=NOW - 5))
    accounts = Accounts((status("main", 1),), clock_doubt=40 * 86_400.0)
    telemetry = Telemetry(version="0", revision="0", process_metrics=False)
    sweep = GateSweep(store, accounts, lambda: CONFIG, clock=StillClock(NOW), telemetry=telemetry, rest=0.0)
    assert verdicts(sweep)["main", "builtin"] == {"pass": 0, "fail": 0, "unknown": 1}
    accounts.clock_doubt = 0.0
    assert verdicts(sweep)["main", "builtin"] == {"pass": 1, "fail": 0, "unknown": 0}


def test_nothing_passes_with_refused_credentials(store: Store) -> None:
    """The sweep asks the gate, with all that the gate knows."""
    fill(store)
    found = verdicts(sweep_of(store, refused=True))
    assert found["main", "builtin"] == {"pass": 0, "fail": 0, "unknown": 3}


def test_a_sweep_that_fails_leaves_nothing_that_passes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is that keeps servers from being judged, an old verdict is none."""
    fill(store)
    sweep = sweep_of(store)
    sweep.sweep()
    failed = threading.Event()

    def fail(_: object) -> None:
        failed.set()
        raise ZeroDivisionError

    monkeypatch.setattr(sweep, "sweep", lambda: fail(None))
    sweep.start()
    assert failed.wait(20)
    sweep.stop()
    assert all(set(one.servers) <= {Verdict.UNKNOWN} for one in sweep.judged)
    assert sum(one.servers[Verdict.UNKNOWN] for one in sweep.judged if one.account == "main") == 6


def test_the_sweep_goes_on_by_itself_and_ends_when_told(store: Store) -> None:
    """What it found last stays."""
    fill(store)
    sweep = sweep_of(store)
    sweep.start()
    try:
        assert sweep.done.wait(20)
    finally:
        sweep.stop()
    assert {one.account for one in sweep.judged} == {"main", "empty"}


@pytest.mark.parametrize(("sweep", "pause"), [(0.0, 10.0), (3.0, 10.0), (25.0, 25.0), (400.0, 60.0)])
def test_a_sweep_is_followed_by_a_pause_as_long_as_it_was(sweep: float, pause: float) -> None:
    """Within bounds: verdicts on few servers are seconds old, and those on many wait a minute longer at most."""
    assert pause_after(sweep) == pause
