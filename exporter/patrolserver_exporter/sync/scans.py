"""Scans: events hint at their start and end, isScanning confirms them.

The API never says when a scan ended. A scan's end counts if isScanning said yes before: its time is the moment at which
an event told of it, and otherwise that at which isScanning was first seen to say no. Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from patrolserver_exporter.sync.server_updates import find, show, with_state

if TYPE_CHECKING:
    from patrolserver_exporter.store.fleet import ServerState
    from patrolserver_exporter.store.writer import Unit

_CHECK_AFTER = (5.0, 10.0, 20.0, 40.0, 60.0, 120.0)
"""Seconds from one isScanning to the next while a scan runs or is suspected to: the budget is precious."""
_DOUBTS = 3
"""Answers "no" after which an announced start is taken for a scan that was over before it was seen."""
_SAME_SCAN_FOR = 600.0
"""Seconds after a told end in which isScanning may lag behind; if it still says yes later, that is another scan."""


def is_awaited(state: ServerState) -> bool:
    """A scan is known or suspected to run, so isScanning is worth a call."""
    return state.scanning or state.scan_started_told_at is not None or state.scan_finished_told_at is not None


def next_check_after(state: ServerState) -> float:
    """Seconds until isScanning should be asked again."""
    return _CHECK_AFTER[min(max(state.scan_checks - 1, 0), len(_CHECK_AFTER) - 1)]


def started(state: ServerState, told_at: float) -> ServerState:
    """An event told of a scan's start."""
    if _is_old(state, told_at):
        return state
    return replace(state, scan_started_told_at=told_at, scan_checks=0)


def finished(state: ServerState, told_at: float) -> ServerState:
    """An event told of a scan's end."""
    if _is_old(state, told_at):
        return state
    return _awaiting_poll(replace(state, scan_finished_told_at=told_at, scan_checks=0), told_at)


def _is_old(state: ServerState, told_at: float) -> bool:
    """What was told before the end of a scan that is known already is no news, however late it arrives."""
    return state.last_scan_at is not None and told_at <= state.last_scan_at


def confirmed(state: ServerState, *, running: bool, asked_at: float) -> tuple[ServerState, bool]:
    """The state after an answer of isScanning, and whether there may be news for a poll.

    A scan has ended if it was seen running before: anybody who knows the webhook's URL can tell of an end. An end that
    was told, or a start after which nothing runs any more, still asks for a poll.
    """
    if running:
        return _running(state, asked_at), False
    if state.scanning:
        told_at = state.scan_finished_told_at
        ended = _ended(state, asked_at if told_at is None else told_at)
        # One that went on after its end was told may have found more until now.
        return (_awaiting_poll(ended, asked_at) if state.scan_checks else ended), True
    checks, told_at = state.scan_checks + 1, state.scan_finished_told_at
    if told_at is not None:
        return _nothing_runs(state), True
    if state.scan_started_told_at is None:
        return _nothing_runs(state), False
    doubted = _awaiting_poll(state, state.scan_started_told_at)
    if checks < _DOUBTS:
        return replace(doubted, scan_checks=checks), checks == 1
    return _nothing_runs(state), False


def unconfirmable(state: ServerState) -> ServerState:
    """The state after isScanning turned out not to exist for the server (404): nothing runs any more.

    A scan that was seen running and whose end was told has ended.
    """
    if state.scanning and state.scan_finished_told_at is not None:
        return _ended(state, state.scan_finished_told_at)
    return _nothing_runs(state)


def _nothing_runs(state: ServerState) -> ServerState:
    return replace(state, scanning=False, scan_started_told_at=None, scan_finished_told_at=None, scan_checks=0)


def _running(state: ServerState, asked_at: float) -> ServerState:
    told_at = state.scan_finished_told_at
    if told_at is not None and asked_at - told_at > _SAME_SCAN_FOR:
        told_at = None
    checks = state.scan_checks + 1
    return replace(state, scanning=True, scan_started_told_at=None, scan_finished_told_at=told_at, scan_checks=checks)


def _ended(state: ServerState, at: float) -> ServerState:
    ended = replace(_nothing_runs(state), last_scan_at=max(at, state.last_scan_at or 0.0))
    return _awaiting_poll(ended, at)


def _awaiting_poll(state: ServerState, ended_at: float) -> ServerState:
    """What the scan found only a poll tells: until then the gate must not take older data for its result."""
    if state.complete_poll_at is not None and state.complete_poll_at >= ended_at:
        return state
    return replace(state, event_received_at=max(state.event_received_at or 0.0, ended_at))


def apply_check(
    unit: Unit, account: str, server_id: int, *, running: bool, asked_at: float
) -> tuple[ServerState | None, bool]:
    """Merge an answer of isScanning; returns the new state (``None``: the server is gone) and whether a scan ended."""
    record = find(unit, account, server_id)
    if record is None:
        return None, False
    state, ended = confirmed(record.state, running=running, asked_at=asked_at)
    if state != record.state:
        show(unit, with_state(record, state))
    return state, ended


def apply_silence(unit: Unit, account: str, server_id: int) -> None:
    """Merge that isScanning does not exist for a server."""
    record = find(unit, account, server_id)
    if record is None:
        return
    state = unconfirmable(record.state)
    if state != record.state:
        show(unit, with_state(record, state))
