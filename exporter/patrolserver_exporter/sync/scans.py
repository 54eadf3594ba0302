"""Scans: events hint at their start and end, isScanning confirms them.

The API never says when a scan ended, so the end is the moment at which an event told of it, if isScanning agrees, and
otherwise the moment at which isScanning was first seen to say no after it had said yes. Times are seconds since the
epoch.
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
    """The state after an answer of isScanning, and whether a scan turned out to have ended."""
    checks = state.scan_checks + 1
    if running:
        return _running(state, checks, asked_at), False
    told_at = state.scan_finished_told_at
    if told_at is not None:
        return _ended(state, told_at), True
    if state.scanning:
        return _ended(state, asked_at), True
    if checks < _DOUBTS and state.scan_started_told_at is not None:
        return replace(state, scan_checks=checks), False
    return replace(state, scan_started_told_at=None, scan_checks=0), False


def unconfirmable(state: ServerState) -> ServerState:
    """The state after isScanning turned out not to exist for the server (404): a told end stands, and nothing runs.

    The poll that a told end asks for is the confirmation then; a start is never believed without isScanning.
    """
    told_at = state.scan_finished_told_at
    if told_at is not None:
        return _ended(state, told_at)
    return replace(state, scanning=False, scan_started_told_at=None, scan_checks=0)


def _running(state: ServerState, checks: int, asked_at: float) -> ServerState:
    told_at = state.scan_finished_told_at
    if told_at is not None and asked_at - told_at > _SAME_SCAN_FOR:
        told_at = None
    return replace(state, scanning=True, scan_started_told_at=None, scan_finished_told_at=told_at, scan_checks=checks)


def _ended(state: ServerState, at: float) -> ServerState:
    ended = replace(
        state,
        scanning=False,
        scan_started_told_at=None,
        scan_finished_told_at=None,
        scan_checks=0,
        last_scan_at=max(at, state.last_scan_at or 0.0),
    )
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
