"""``--once``: everything is polled, the metrics come out on standard output, and the exit code tells if it is all."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.harness.process import CONFIG, Exporter, samples

from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SERVERS = 7
POLL_SUCCESS = "patrolserver_server_poll_success"
LAST_POLL = "patrolserver_server_last_poll_timestamp_seconds"

Once = subprocess.CompletedProcess[str]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=6)) as running:
        yield running


@pytest.fixture
def once_of(tmp_path: Path) -> Callable[[str], Once]:
    def run(api_url: str) -> Once:
        store_url = f"sqlite:///{tmp_path / 'state.db'}"
        config = tmp_path / "patrolserver.yml"
        config.touch(mode=0o600)
        config.write_text(CONFIG.format(api_url=api_url, interval="1h", settle="1s", store_url=store_url))
        command = [sys.executable, "-m", "patrolserver_exporter", "--once", f"--config.file={config}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def once(once_of: Callable[[str], Once], simulator: Simulator) -> Callable[[], Once]:
    return lambda: once_of(simulator.base_url)


def test_it_polls_everything_and_prints_the_metrics(once: Callable[[], Once]) -> None:
    """Every server, however long the interval, and nothing else on standard output."""
    ended = once()
    assert ended.returncode == 0, ended.stderr
    assert len(samples(ended.stdout, LAST_POLL)) == SERVERS
    assert list(samples(ended.stdout, "patrolserver_up").values()) == [1.0]
    assert sum(samples(ended.stdout, "patrolserver_gate_servers").values()) == SERVERS


def test_the_metrics_are_text_that_promtool_takes(
    once: Callable[[], Once], require_program: Callable[[str], str]
) -> None:
    """Fit for the node exporter's textfile collector."""
    lint = [require_program("promtool"), "check", "metrics"]
    checked = subprocess.run(lint, input=once().stdout, capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_state_goes_on_from_run_to_run(once: Callable[[], Once]) -> None:
    """What was opened in the first run is not opened again in the second, and polls are newer."""
    first, second = once(), once()
    opened = "patrolserver_issues_opened_total"
    assert sum(samples(first.stdout, opened).values()) > 0
    assert samples(first.stdout, opened) == samples(second.stdout, opened)
    before, after = samples(first.stdout, LAST_POLL), samples(second.stdout, LAST_POLL)
    assert all(after[labels] > at for labels, at in before.items())


def test_a_server_that_fails_is_told_by_exit_code_and_metric(once: Callable[[], Once], simulator: Simulator) -> None:
    """The others are polled, the metrics are printed, and the code is 1."""
    once()
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=500, path="servers/3/software"))
    ended = once()
    assert ended.returncode == 1
    assert "servers/3/software" in ended.stderr
    failed = [dict(labels)["server_id"] for labels, ok in samples(ended.stdout, POLL_SUCCESS).items() if not ok]
    assert failed == ["3"]


def test_an_api_that_cannot_be_used_is_told_once(once: Callable[[], Once], simulator: Simulator) -> None:
    """One sentence for the account, not one for each of its servers, and patrolserver_up is 0."""
    once()
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=401))
    ended = once()
    assert ended.returncode == 1
    assert ended.stderr.count("This could not be polled") == 1
    assert list(samples(ended.stdout, "patrolserver_up").values()) == [0.0]


def test_a_partial_list_is_not_all(once: Callable[[], Once], simulator: Simulator) -> None:
    """One page of several polls what it shows, and says that it is not the whole."""
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=206, path="servers"))
    assert once().returncode == 1


def test_it_needs_the_state_for_itself(once: Callable[[], Once], tmp_path: Path, simulator: Simulator) -> None:
    """Beside a running exporter it is refused with the code for a state in use."""
    with Exporter.watching(tmp_path, simulator.base_url):
        ended = once()
    assert ended.returncode == 3
    assert "in use" in ended.stderr


def test_it_waits_until_the_list_is_kept(once_of: Callable[[str], Once]) -> None:
    """A list that takes a while to store is not taken for an account without servers."""
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=1000, software=1)) as large:
        ended = once_of(large.base_url)
    assert ended.returncode == 0, ended.stderr
    assert len(samples(ended.stdout, LAST_POLL)) == 1000
