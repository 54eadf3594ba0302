from __future__ import annotations

import pytest

from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.inbox.retry import (
    BUG_TRIES,
    EXPIRY_TRIES,
    KEPT_FOR,
    UNVERIFIED_WAITS,
    NextStep,
    next_step_after,
    next_step_after_bug,
)
from patrolserver_exporter.patrolserver.errors import NotFound, PatrolServerError, RateLimited, Refused, ServerFailure

NOW = 1_700_000_000.0


def next_step(
    error: PatrolServerError, *, attempts: int = 0, age: float = 0.0, trusted: bool = False, draw: float = 0.5
) -> NextStep:
    return next_step_after(
        error,
        received_at=NOW - age,
        state_attempts=attempts,
        credentials_are_good=trusted,
        now=NOW,
        draw=lambda: draw,
    )


def test_a_failure_is_tried_again_after_a_growing_wait_with_jitter() -> None:
    """5 s × 2ⁿ, drawn from nothing up to all of it, and six hours at most."""
    waits = [next_step(ServerFailure(""), attempts=n, draw=1.0).wait for n in (0, 1, 2, 40)]
    assert waits == [5.0, 10.0, 20.0, 21_600.0]
    assert next_step(ServerFailure(""), attempts=3, draw=0.25) == NextStep(DeliveryState.RETRY, 4, 10.0)


@pytest.mark.parametrize(("asked", "wait"), [(60.0, 60.0), (1e9, 86_400.0), (0.0, 2.5)])
def test_the_wait_is_never_shorter_than_asked_nor_longer_than_a_day(asked: float, wait: float) -> None:
    """Retry-After is the least, capped at 24 hours."""
    assert next_step(RateLimited("", retry_after=asked)).wait == wait
    assert next_step(NotFound("", retry_after=asked)).wait == max(wait, 5.0)


def test_nothing_is_tried_again_at_once() -> None:
    """Whatever is drawn, a second passes."""
    assert next_step(ServerFailure(""), draw=0.0) == NextStep(DeliveryState.RETRY, 1, 1.0)


def test_what_is_not_found_is_tried_over_ten_minutes_and_then_rejected() -> None:
    """The API may know an event late; a forged one costs eight calls."""
    tries = [next_step(NotFound(""), attempts=number) for number in range(len(UNVERIFIED_WAITS))]
    assert [one.state for one in tries] == [DeliveryState.UNVERIFIED] * 7
    assert sum(one.wait or 0.0 for one in tries) == 615.0
    assert [one.attempts for one in tries] == [1, 2, 3, 4, 5, 6, 7]
    last = len(UNVERIFIED_WAITS)
    assert next_step(NotFound(""), attempts=last) == NextStep(DeliveryState.REJECTED, last + 1, None)
    assert next_step(NotFound(""), attempts=last, age=KEPT_FOR - 1).state is DeliveryState.REJECTED
    assert next_step(NotFound(""), attempts=last, age=KEPT_FOR).state is DeliveryState.EXPIRED


def test_a_refusal_blocks_without_burning_an_attempt_unless_the_credentials_are_good() -> None:
    """With good credentials a refused event is somebody else's, like one that is not found."""
    assert next_step(Refused(""), attempts=2) == NextStep(DeliveryState.BLOCKED, 2, None)
    assert next_step(Refused(""), attempts=0, trusted=True).state is DeliveryState.UNVERIFIED


def test_what_meets_a_bug_is_left_to_the_operator_after_a_few_tries() -> None:
    """Tried again ever more seldom and never at once, then dead; age and health do not matter."""
    fates = [next_step_after_bug(state_attempts=n, draw=lambda: 1.0) for n in range(BUG_TRIES)]
    assert [next_step.state for next_step in fates] == [DeliveryState.RETRY] * (BUG_TRIES - 1) + [DeliveryState.DEAD]
    assert [next_step.wait for next_step in fates] == [5.0, 10.0, 20.0, 40.0, None]
    assert [next_step.attempts for next_step in fates] == [1, 2, 3, 4, 5]
    assert next_step_after_bug(state_attempts=3, draw=lambda: 0.0).wait == 5.0


def test_age_alone_expires_nothing() -> None:
    """After 30 days a failed try ends it, but not one of the first few: the clock may have been set ahead."""
    assert next_step(ServerFailure(""), attempts=0, age=2 * KEPT_FOR).state is DeliveryState.RETRY
    last = EXPIRY_TRIES - 1
    assert next_step(ServerFailure(""), attempts=last, age=KEPT_FOR) == NextStep(DeliveryState.EXPIRED, last + 1, None)
    assert next_step(ServerFailure(""), attempts=last - 1, age=2 * KEPT_FOR).state is DeliveryState.RETRY
    assert next_step(ServerFailure(""), attempts=EXPIRY_TRIES, age=KEPT_FOR - 1).state is DeliveryState.RETRY
