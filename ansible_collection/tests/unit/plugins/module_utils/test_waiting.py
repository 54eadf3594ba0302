# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting: always bounded, and an error is never the end of a scan."""

from __future__ import annotations

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import (
    ConnectionFailed,
    PatrolServerError,
    Refused,
    TimedOut,
    Unreadable,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.scanning import Bounds, Scan
from ansible_collections.patrolserver.monitoring.plugins.module_utils.waiting import Wait, settled


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        """Return the time."""
        return self.time

    elapsed = now

    def sleep(self, duration: float) -> None:
        """Let it pass."""
        self.time += duration


def next_of(answers: list) -> object:
    """Return or raise the next answer; the last one stays for ever."""
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, PatrolServerError):
        raise answer
    return answer


class Scanned:
    """Says whether a scan runs, one answer after the other; the last one for ever."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.starts = 0

    def is_scanning(self, _server_id: int) -> bool:
        """Return or raise the next answer."""
        return next_of(self.answers)

    def start_scan(self, _server_id: int) -> None:
        """Count it."""
        self.starts += 1


def follow(*answers: object, errors: int = 3) -> dict:
    """Run a scan to its end; returns what was seen."""
    result = {"changed": False, "state": "unknown", "started": False, "finished": False}
    scan = Scan(Scanned(*answers), 1, Bounds(start=60, whole=600, pause=5, errors=errors), Clock(), result)
    try:
        scan.begin(dry=False)
        scan.follow()
    except PatrolServerError as error:
        return {**result, "error": type(error)}
    return {**result, "error": None}


GONE, BUSY, ODD = ConnectionFailed("x"), Refused("x", 503), Unreadable("x")


@pytest.mark.parametrize(
    "answers", [(False, True, False), (False, False, False, True, True, False), (False, GONE, True, BUSY, ODD, False)]
)
def test_a_scan_is_finished_once_it_was_seen_running_and_then_not(answers):
    """Passing errors in between do not matter."""
    seen = follow(*answers)
    assert (seen["state"], seen["finished"], seen["error"]) == ("finished", True, None)
    assert seen["requested_at"] <= seen["running_at"] <= seen["finished_at"]


@pytest.mark.parametrize(
    ("answers", "error", "state"),
    [
        ((False,), TimedOut, "requested"),
        ((False, True), TimedOut, "running"),
        ((False, True, GONE), ConnectionFailed, "running"),
        ((False, True, ODD), Unreadable, "running"),
        ((False, True, Refused("x", 404)), Refused, "running"),
        ((False, Refused("x", 200)), Refused, "requested"),
    ],
)
def test_what_was_not_seen_to_end_is_not_finished(answers, error, state):
    """Silence, errors and oddities are none of them an end."""
    seen = follow(*answers)
    assert (seen["state"], seen["finished"], seen["error"]) == (state, False, error)


def test_a_scan_that_runs_already_is_not_started_again():
    """It is waited for."""
    seen = follow(True, True, False)
    assert (seen["started"], seen["changed"], seen["finished"]) == (False, False, True)


def test_a_scan_that_would_be_started_has_the_time_of_that():
    """A task after it can take the time, whether it only looks or not."""
    result, api = {"changed": False, "state": "unknown", "started": False, "finished": False}, Scanned(False)
    Scan(api, 1, Bounds(start=60, whole=600, pause=5, errors=3), Clock(), result).begin(dry=True)
    assert result == {**result, "changed": True, "state": "would_start", "requested_at": "1970-01-01T00:16:40Z"}
    assert (result["started"], api.starts) == (False, 0)


@pytest.mark.parametrize(
    ("error", "changed"),
    [(GONE, True), (ConnectionFailed("x", sent=False), False), (Refused("x", 401), False), (BUSY, False)],
)
def test_a_scan_that_surely_was_not_started_has_changed_nothing(error, changed):
    """A request whose answer was lost may have arrived; one that was refused, or never left, has not."""
    result, api = {"changed": False, "state": "unknown", "started": False, "finished": False}, Scanned(False)
    api.start_scan = lambda _server_id: next_of([error])
    with pytest.raises(PatrolServerError):
        Scan(api, 1, Bounds(start=60, whole=600, pause=5, errors=3), Clock(), result).begin(dry=False)
    assert (result["changed"], result["started"]) == (changed, False)


class Exporter:
    """Has lists of servers and operations, one after the other; the last one for ever.

    An older one takes refreshes of single servers only.
    """

    def __init__(self, servers: list, states: tuple = ("done",), older: bool = False, takes: tuple = (True,)) -> None:
        self._servers = servers
        self._takes = list(takes)
        self._states = list(states)
        self._older = older
        self.requests = 0

    def unknown_of(self, _selection: dict) -> list:
        """Return none: it knows all."""
        return []

    def refresh_many(self, _selection: dict) -> dict:
        """Return a refresh that has begun."""
        self.requests += 1
        if self._older:
            return None
        next_of(self._takes)
        return self._refresh("pending")

    def refresh_of_many(self, _id: str) -> dict:
        """Return or raise its next state."""
        self.requests += 1
        return self._refresh(next_of(self._states))

    def _refresh(self, state: str) -> dict:
        told = {"account": "main", "error": "it broke" if state == "failed" else None, "state": state}
        return {"id": "r", "servers": [{**told, "server_id": one["id"], "server": one["name"]} for one in self._servers[0]]}

    def servers(self, _selection: dict) -> list:
        """Return or raise the next list."""
        return next_of(self._servers)

    def refresh(self, server: dict) -> dict:
        """Return an operation that has begun."""
        next_of(self._takes)
        return {"id": server["id"], "state": "pending"}

    def operation(self, _id: str) -> dict:
        """Return or raise its next state."""
        return {"id": 1, "state": next_of(self._states), "error": "it broke"}


def server(scanned: str | None, polled: str | None, scanning: bool = False, unconfirmed: bool = False) -> dict:
    """Return a server."""
    return {
        "id": 1,
        "name": "a",
        "last_scan_at": scanned,
        "last_poll_at": polled,
        "scanning": scanning,
        "unconfirmed_event": unconfirmed,
    }


T1, T2, T3 = ("2026-11-24T07:00:0{0}Z".format(second) for second in (1, 2, 3))


@pytest.mark.parametrize(
    ("state", "since", "expected"),
    [
        (server(T1, T2), None, True),
        (server(None, T2), None, True),
        (server(None, None), None, True),
        (server(T2, T1), None, False),
        (server(T2, None), None, False),
        (server(T1, T2, scanning=True), None, False),
        (server(T1, T2, unconfirmed=True), None, False),
        (server(T1, T3), 1795503602.0, False),
        (server(None, T3), 1795503602.0, False),
        (server(T2, T3), 1795503602.0, True),
    ],
)
def test_a_server_is_settled_when_a_poll_has_seen_its_last_scan(state, since, expected):
    """And, if a time was given, when that scan ended after it."""
    assert settled(state, since) is expected


def test_waiting_for_scans_gets_over_passing_errors():
    """A look that failed is looked at again."""
    exporter = Exporter([[server(T1, T2, scanning=True)], GONE, BUSY, [server(T1, T2)]])
    Wait(exporter, 60, 1, Clock()).for_scans({}, None)


@pytest.mark.parametrize("answer", [[], [server(T1, T2, scanning=True)], GONE, BUSY])
def test_waiting_for_scans_ends_at_its_bound(answer):
    """Also when there is nothing to wait for."""
    with pytest.raises(TimedOut):
        Wait(Exporter([answer]), 60, 1, Clock()).for_scans({}, None)


def test_waiting_does_not_hide_a_refusal():
    """A wrong token stays wrong."""
    with pytest.raises(Refused):
        Wait(Exporter([Refused("x", 401)]), 60, 1, Clock()).for_scans({}, None)


@pytest.mark.parametrize("older", [False, True])
def test_refreshes_are_followed_to_their_end(older):
    """Over passing errors."""
    exporter = Exporter([[server(T1, T2)]], ("running", GONE, "done"), older)
    assert Wait(exporter, 60, 1, Clock()).refresh({}) == 1


def test_a_refresh_of_many_servers_is_one_request_and_one_for_each_look():
    """However many there are."""
    exporter = Exporter([[server(T1, T2)] * 3000], ("running", "running", "done"))
    assert Wait(exporter, 60, 1, Clock()).refresh({}) == 3000
    assert exporter.requests == 4


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("states", "error"), [(("failed",), PatrolServerError), (("running",), TimedOut), ((Refused("x", 404),), Refused)])
def test_a_refresh_that_was_not_seen_done_is_an_error(states, error, older):
    """Failed, hanging, or forgotten."""
    with pytest.raises(error):
        Wait(Exporter([[server(T1, T2)]], states, older), 60, 1, Clock()).refresh({})


@pytest.mark.parametrize(
    ("takes", "older", "asked"),
    [
        ((Refused("x", 401),), False, False),
        ((Refused("x", 401),), True, False),
        ((BUSY,), False, False),
        ((ConnectionFailed("x", sent=False),), False, False),
        ((GONE,), False, True),
        ((Refused("x", 504),), False, True),
        ((ODD,), False, True),
        ((True, Refused("x", 429)), True, True),
    ],
)
def test_a_refresh_that_surely_was_not_taken_has_changed_nothing(takes, older, asked):
    """Of several that are asked for one by one, the first is enough."""
    wait = Wait(Exporter([[server(T1, T2)] * 2], older=older, takes=takes), 60, 1, Clock())
    with pytest.raises(PatrolServerError):
        wait.refresh({})
    assert wait.asked is asked
