from __future__ import annotations

import pytest
from msgspec.structs import replace

from patrolserver_exporter.store.fleet import ServerState
from patrolserver_exporter.sync.server_updates import is_scan_awaited as is_awaited
from patrolserver_exporter.sync.server_updates import next_scan_check_after as next_check_after
from patrolserver_exporter.sync.server_updates import scan_confirmed as confirmed
from patrolserver_exporter.sync.server_updates import scan_finished as finished
from patrolserver_exporter.sync.server_updates import scan_started as started

IDLE = ServerState()


def answer(state: ServerState, *, running: bool, at: float) -> tuple[ServerState, bool]:
    return confirmed(state, running=running, asked_at=at)


def test_an_idle_server_is_not_watched() -> None:
    """IsScanning is only asked where a scan is known or suspected."""
    assert not is_awaited(IDLE)
    assert is_awaited(started(IDLE, 100.0))
    assert is_awaited(finished(IDLE, 100.0))
    assert is_awaited(ServerState(scanning=True))


def test_a_told_start_shows_nothing_until_the_api_confirms_it() -> None:
    """An event's identifier is only a hint."""
    state = started(IDLE, 100.0)
    assert not state.scanning
    state, ended = answer(state, running=True, at=101.0)
    assert (state.scanning, ended) == (True, False)
    assert is_awaited(state)


def test_a_scan_ends_when_it_is_seen_to() -> None:
    """Without an event the end is the moment at which isScanning was first seen to say no."""
    state, _ = answer(started(IDLE, 100.0), running=True, at=101.0)
    state, ended = answer(state, running=False, at=160.0)
    assert ended
    assert (state.scanning, state.last_scan_at, is_awaited(state)) == (False, 160.0, False)


def test_an_end_that_nobody_saw_makes_no_scan_fresh() -> None:
    """While the exporter was down for days, the scan may have ended at once; only a poll after the answer shows all."""
    state, _ = answer(started(IDLE, 100.0), running=True, at=101.0)
    seen = replace(state, complete_poll_at=5_000.0)
    state, ended = answer(seen, running=False, at=300_000.0)
    assert ended
    assert (state.scanning, state.last_scan_at, state.event_received_at) == (False, 101.0, 300_000.0)
    again, _ = answer(started(seen, 200_000.0), running=False, at=300_000.0)
    assert (again.last_scan_at, again.event_received_at) == (101.0, 300_000.0)
    state, ended = answer(ServerState(scanning=True), running=False, at=300_000.0)
    assert ended
    assert (state.scanning, state.last_scan_at, state.event_received_at) == (False, None, 300_000.0)


def test_a_told_end_counts_from_when_it_was_told() -> None:
    """With an event the end is the moment of its reception, once isScanning agrees."""
    state, _ = answer(started(IDLE, 100.0), running=True, at=101.0)
    state = finished(state, 150.0)
    assert state.last_scan_at is None
    state, ended = answer(state, running=True, at=151.0)
    assert (state.scanning, ended) == (True, False)
    state, ended = answer(state, running=False, at=156.0)
    assert ended
    assert (state.scanning, state.last_scan_at) == (False, 150.0)


def test_a_scan_that_went_on_after_its_told_end_waits_for_a_poll_after_its_real_one() -> None:
    """A poll in between, which started after the told end, may have missed what the scan still found."""
    state, _ = answer(started(IDLE, 100.0), running=True, at=101.0)
    state, _ = answer(finished(state, 150.0), running=True, at=151.0)
    state = replace(state, last_poll_at=152.0, complete_poll_at=152.0, event_received_at=None)
    state, poll = answer(state, running=False, at=170.0)
    assert (poll, state.last_scan_at, state.event_received_at) == (True, 150.0, 170.0)


def test_an_end_that_was_not_seen_running_is_no_scan() -> None:
    """Anybody who knows the URL can tell of an end; it asks for a poll, and makes no scan fresh."""
    state, poll = answer(finished(IDLE, 100.0), running=False, at=101.0)
    assert poll
    assert (state.last_scan_at, state.event_received_at) == (None, 100.0)
    assert not is_awaited(state)


def test_an_end_counts_from_its_event_if_the_scan_was_seen_running() -> None:
    """And from the first "no" where no event told of it."""
    state, _ = answer(started(IDLE, 90.0), running=True, at=91.0)
    told, _ = answer(finished(state, 100.0), running=False, at=101.0)
    untold, _ = answer(state, running=False, at=101.0)
    assert (told.last_scan_at, untold.last_scan_at) == (100.0, 101.0)


def test_a_start_after_which_nothing_runs_asks_for_one_poll() -> None:
    """A very short scan may be over; it is doubted three times, and then forgotten without a scan having been."""
    state, poll = answer(started(IDLE, 100.0), running=False, at=101.0)
    assert poll
    assert state.event_received_at == 100.0
    state, poll = answer(state, running=False, at=106.0)
    assert not poll
    assert is_awaited(state)
    state, poll = answer(state, running=False, at=120.0)
    assert not poll
    assert not is_awaited(state)
    assert state.last_scan_at is None


def test_a_scan_that_goes_on_long_after_a_told_end_is_another_one() -> None:
    """The API may lag for ten minutes; later the told end belongs to an earlier scan."""
    state, _ = answer(finished(ServerState(scanning=True), 100.0), running=True, at=699.0)
    assert state.scan_finished_told_at == 100.0
    state, _ = answer(state, running=True, at=701.0)
    assert state.scan_finished_told_at is None
    state, ended = answer(state, running=False, at=900.0)
    assert ended
    assert state.last_scan_at == 900.0


@pytest.mark.parametrize("tell", [started, finished])
def test_what_was_told_before_the_last_known_end_is_no_news(tell: object) -> None:
    """Late and repeated events do not make a scan of their own."""
    state = ServerState(last_scan_at=200.0)
    assert callable(tell)
    assert tell(state, 150.0) == state
    assert tell(state, 200.0) == state
    assert tell(state, 201.0) != state


def test_the_last_scan_never_goes_back() -> None:
    """An end that was told long ago does not make the last scan older."""
    state = ServerState(scanning=True, last_scan_at=500.0, scan_finished_told_at=400.0)
    assert answer(state, running=False, at=600.0)[0].last_scan_at == 500.0


def test_checks_become_rarer() -> None:
    """The budget is precious: from five seconds up to two minutes."""
    waits = [next_check_after(ServerState(scan_checks=n)) for n in range(12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (5.0, 120.0)
