from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.inbox.retry import back_off
from patrolserver_exporter.patrolserver.errors import (
    ConnectionFailed,
    NotFound,
    PatrolServerError,
    RateLimited,
    Refused,
    ServerFailure,
)
from patrolserver_exporter.sync.health import LIST_EVERY, PROBE_EVERY, Health, Trouble

UNIT = st.floats(0, 1, exclude_max=True)


def health(draw: float = 0.5) -> Health:
    return Health(lambda: draw)


@given(
    st.integers(1, 10**6),
    st.floats(0.1, 100),
    st.floats(0.1, 1e5),
    st.none() | st.floats(0, 86_400),
    UNIT,
)
def test_a_back_off_stays_within_its_bounds(
    attempt: int, base: float, cap: float, retry_after: float | None, draw: float
) -> None:
    """Never above the cap, but never less than the API asked for, and never at once."""
    wait = back_off(attempt, base=base, cap=cap, retry_after=retry_after, draw=lambda: draw)
    assert wait >= (retry_after or 0.0)
    assert wait >= min(base, 1.0)
    assert wait <= max(cap, retry_after or 0.0, min(base, 1.0))


@given(st.integers(1, 30))
def test_a_back_off_doubles(attempt: int) -> None:
    """With the same luck the wait doubles from try to try, up to the cap."""

    def wait(n: int) -> float:
        return back_off(n, base=5.0, cap=1000.0, retry_after=None, draw=lambda: 0.999)

    assert wait(attempt + 1) == pytest.approx(min(2 * wait(attempt), 999.0))


def test_an_account_begins_with_its_list() -> None:
    """The list is due at once, and other calls are allowed meanwhile."""
    fresh = health()
    assert fresh.list_at <= 0.0
    assert fresh.allows_calls(0.0)
    assert fresh.allows_events(0.0)


@pytest.mark.parametrize(("interval", "wait"), [(900.0, LIST_EVERY), (10.0, 10.0)])
def test_the_list_is_asked_for_every_minute(interval: float, wait: float) -> None:
    """Or more often, if the servers are."""
    judge = health()
    assert judge.listed(100.0, interval) is False
    assert judge.list_at == 100.0 + wait


def test_refused_credentials_pause_everything_but_a_probe() -> None:
    """While the list is refused no call is made but one every two minutes, until it succeeds."""
    judge = health()
    assert judge.list_failed(100.0, Refused("wrong", status=401)) is True
    assert judge.trouble is Trouble.CREDENTIALS
    assert judge.list_at == 100.0 + PROBE_EVERY
    assert not judge.allows_calls(1e6)
    assert not judge.allows_events(1e6)
    assert judge.list_failed(220.0, Refused("wrong", status=401)) is False
    judge.ask_for_list(230.0)
    assert judge.list_at == 220.0 + PROBE_EVERY
    assert judge.listed(300.0, 900.0) is True
    assert judge.allows_calls(300.0)
    assert judge.allows_events(300.0)


def test_an_unreachable_api_gets_no_polls_but_events_go_on() -> None:
    """Events have back-offs of their own; the list backs off."""
    judge = health(draw=0.99)
    waits = []
    now = 0.0
    for _ in range(9):
        judge.list_failed(now, ConnectionFailed("refused"))
        waits.append(judge.list_at - now)
        now = judge.list_at
    assert waits[0] < waits[1] < waits[2]
    assert max(waits) <= 300.0
    assert judge.trouble is Trouble.UNREACHABLE
    assert not judge.allows_calls(now)
    assert judge.allows_events(now)


@pytest.mark.parametrize(("interval", "longest"), [(1.0, 5.0), (10.0, 10.0), (900.0, 60.0)])
def test_a_short_interval_shows_a_recovery_as_soon(interval: float, longest: float) -> None:
    """The list's back-off grows to the interval and to a minute at most, but no API is asked all the time."""
    judge = health(draw=0.999)
    now = before = 0.0
    for _ in range(9):
        judge.list_failed(now, ConnectionFailed("refused"), interval)
        now, before = judge.list_at, now
    assert now - before == pytest.approx(longest, rel=0.01)


def test_a_change_of_trouble_is_told() -> None:
    """From unreachable to refused is worth a line in the log."""
    judge = health()
    assert judge.list_failed(0.0, ConnectionFailed("refused"))
    assert judge.list_failed(1.0, Refused("wrong"))
    assert not judge.list_failed(2.0, Refused("wrong"))


def test_a_call_that_is_put_off_is_put_off_alone() -> None:
    """A 429 or a 503 with Retry-After for one or two servers says nothing of the others, however often."""
    judge = health()
    for server_id in (1, 2, 1, 2):
        judge.call_failed(100.0, ServerFailure("later", retry_after=50.0), server_id)
    assert judge.allows_calls(100.0)
    judge.call_failed(300.0, RateLimited("later", retry_after=50.0), 3)
    assert judge.allows_calls(300.0), "the others were long ago"


def test_an_api_that_puts_off_several_calls_is_left_alone() -> None:
    """Three different calls, events being one of them: then no call is made but the list's, as long as it asked."""
    judge = health()
    for server_id in (1, 2, None):
        judge.call_failed(100.0, RateLimited("later", retry_after=50.0), server_id)
    assert not judge.allows_calls(149.0)
    assert not judge.allows_events(149.0)
    assert judge.allows_calls(150.0)
    judge.call_failed(160.0, RateLimited("later"), 1)
    assert not judge.allows_calls(164.9)
    assert judge.allows_calls(170.0)


def test_no_pause_is_longer_than_configured() -> None:
    """Neither that of the account nor that of the list."""
    judge = Health(lambda: 0.5, max_pause=600.0)
    for server_id in (1, 2, 3):
        judge.call_failed(100.0, RateLimited("later", retry_after=86_400.0), server_id)
    assert judge.paused_until == 700.0
    assert str(judge.pause_reason).startswith("later")
    judge.end_pause()
    judge.list_failed(200.0, RateLimited("a day", retry_after=86_400.0))
    assert (judge.list_at, judge.paused_until) == (800.0, 800.0)
    assert str(judge.pause_reason).startswith("a day")


def test_an_operator_has_one_try_a_minute_in_a_pause() -> None:
    """The list call is due at once; whoever asks again soon is told until when to wait."""
    judge = health()
    judge.list_failed(100.0, RateLimited("later", retry_after=600.0))
    assert judge.try_in_pause(110.0)
    assert judge.list_at == 110.0
    assert not judge.try_in_pause(169.0)
    assert judge.try_in_pause(170.0)


@pytest.mark.parametrize(
    ("error", "times", "asks"),
    [
        (Refused("no"), 1, True),
        (ConnectionFailed("no"), 4, False),
        (ConnectionFailed("no"), 5, True),
        (NotFound("no"), 50, False),
    ],
)
def test_only_what_looks_like_more_has_the_list_judge(error: PatrolServerError, times: int, asks: bool) -> None:  # noqa: FBT001  # by name
    """A refusal, or five failures in a row; but an event that does not exist says nothing against the API."""
    judge = health()
    judge.listed(100.0, 900.0)
    for _ in range(times):
        judge.call_failed(101.0, error)
    assert (judge.list_at == 101.0) is asks


def test_a_success_in_between_starts_the_count_anew() -> None:
    """Five failures only count in a row."""
    judge = health()
    judge.listed(100.0, 900.0)
    for _ in range(20):
        judge.call_failed(101.0, ConnectionFailed("no"))
        judge.call_succeeded()
    assert judge.list_at == 100.0 + LIST_EVERY
