"""What a lease's row tells of who holds it, and which state of a database a position is of."""

from __future__ import annotations

import pytest

from patrolserver_exporter.store.lease_rows import INTAKE, LEASE, Holder, Position

NOW = 1_800_000_000.0


def holder(owner: str | None = "one", until: float = NOW + LEASE) -> Holder:
    """Who holds a lease, as it was read now."""
    known = {"epoch": 1, "version": 5, "since": NOW - 60.0, "name": "blue", "host": "web1", "pid": 7, "now": NOW}
    return Holder(owner=owner, until=until, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of", "is_free"),
    [
        (holder(), False),
        (holder(None), True),
        (holder(until=NOW - 0.1), True),
        (holder(until=NOW), True),
        (holder(until=NOW + 2 * LEASE), False),
        # The database's clock was set back since.
        (holder(until=NOW + 2 * LEASE + 1.0), True),
    ],
)
def test_a_lease_is_free_that_was_given_back_or_ran_out(of: Holder, is_free: bool) -> None:  # noqa: FBT001  # pytest gives it.
    """One that holds for longer than any is renewed for has run out, too."""
    assert of.is_free is is_free


def test_a_holder_is_described_for_people() -> None:
    """With its name, where it has one."""
    assert holder().described == "'blue', process 7 on host web1, since 2027-01-15 07:59:00 UTC"
    assert holder()._replace(name="").described == "process 7 on host web1, since 2027-01-15 07:59:00 UTC"


@pytest.mark.parametrize(
    ("now", "lacks"),
    [
        ({"a": 5, "b": 2, f"{INTAKE}one": 3}, False),
        ({"a": 6, "b": 2, f"{INTAKE}one": 4, "c": 1}, False),
        ({"a": 4, "b": 2, f"{INTAKE}one": 3}, True),
        ({"b": 2, f"{INTAKE}one": 3}, True),
        ({"a": 5, "b": 2, f"{INTAKE}one": 2}, True),
        # The row of a process that ended is removed.
        ({"a": 5, "b": 2}, False),
    ],
)
def test_a_state_lacks_what_has_a_lower_version_than_was_seen(now: dict[str, int], lacks: bool) -> None:  # noqa: FBT001
    """Of any lease; in another history versions begin anew."""
    seen = Position("h", {"a": 5, "b": 2, f"{INTAKE}one": 3})
    assert Position("h", now).lacks(seen) is lacks
    assert not Position("other", now).lacks(seen)
