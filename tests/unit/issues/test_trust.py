from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.issues.builders import SETTLE, SOFTWARE, exploited, software, unsupported

from patrolserver_exporter.issues.trust import Alike, Collapse, Reading, read
from patrolserver_exporter.patrolserver.models import Exploit, Software

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIVE = tuple(software(name) for name in "abcde")


def reading(
    known: Sequence[Software] | None,
    *listed: Software,
    complete: bool = True,
    at: float = 1000.0,
    collapse: Collapse | None = None,
    alike: bool = False,
) -> Reading:
    """Read a list against what was known."""
    return read(known, listed, complete=complete, started_at=at, settle=SETTLE, collapse=collapse, alike=alike)


def test_a_plain_list_is_whole() -> None:
    """What it shows is what is known from then on."""
    got = reading(FIVE, *FIVE[1:])
    assert (got.whole, got.empty, got.collapse, got.software) == (True, False, None, FIVE[1:])
    assert reading(None, *FIVE).whole


def test_an_empty_list_never_is() -> None:
    """What was known stays, however often the list is empty; the first poll of a server is no exception."""
    for at in (1000.0, 1000.0 + SETTLE, 1000.0 + 9 * SETTLE):
        got = reading(FIVE, at=at)
        assert (got.whole, got.empty, got.software) == (False, True, FIVE)
    assert (reading(None).whole, reading(None).empty, reading(None).software) == (False, True, ())
    assert not reading(FIVE, complete=False).empty


def test_a_collapsed_list_has_to_be_shown_twice() -> None:
    """One that lost more than half is believed when a poll settle later shows the same, not sooner, nor another one."""
    first = reading(FIVE, *FIVE[:2])
    assert (first.whole, first.software) == (False, FIVE)
    soon = reading(first.software, *FIVE[:2], at=999.0 + SETTLE, collapse=first.collapse)
    assert (soon.whole, soon.collapse) == (False, first.collapse)
    other = reading(first.software, FIVE[0], at=1000.0 + SETTLE, collapse=first.collapse)
    assert not other.whole
    assert other.collapse is not None
    assert other.collapse.since == 1000.0 + SETTLE
    again = reading(first.software, *FIVE[:2], at=1000.0 + SETTLE, collapse=first.collapse)
    assert (again.whole, again.collapse, again.software) == (True, None, FIVE[:2])


def test_half_is_not_more_than_half_and_three_are_too_few() -> None:
    """The limits: of four, two may go at once, three may not; of three all but one may."""
    assert reading(FIVE[:4], *FIVE[:2]).whole
    assert not reading(FIVE[:4], FIVE[0]).whole
    assert reading(FIVE[:3], FIVE[0]).whole


def test_what_is_lost_is_told_by_name_and_location() -> None:
    """A list as long as before, in which all is called otherwise or lies elsewhere, has lost all."""
    assert not reading(FIVE, *(software(name) for name in "vwxyz")).whole
    assert not reading(FIVE, *(software(name, location="/else") for name in "abcde")).whole
    assert reading(FIVE, *(software(name, version="9.9") for name in "abcde")).whole


def test_a_list_that_comes_back_ends_the_doubt() -> None:
    """A glitch leaves nothing behind."""
    first = reading(FIVE, *FIVE[:2])
    assert reading(first.software, *FIVE, at=1100.0, collapse=first.collapse).collapse is None


def test_what_a_partial_list_lacks_stays_known() -> None:
    """So a part is never what the next list is held against."""
    got = reading(FIVE, software("a", version="2.0"), software("new"), complete=False)
    assert not got.whole
    assert got.software == (software("a", version="2.0"), software("new"), *FIVE[1:])


def test_exploits_that_are_not_told_stay_known() -> None:
    """They are carried over to the same software, in doubt; an empty list of them is told."""
    known = (exploited("a", Exploit(risk=9.8)), software("b"))
    silent = reading(known, software("a", version="2.0", exploits=None), software("c", exploits=None))
    assert silent.exploits_unknown == 2
    assert silent.software[0] == exploited("a", Exploit(risk=9.8), version="2.0")
    assert silent.software[1].exploits is None
    told = reading(known, software("a"), software("b"))
    assert (told.exploits_unknown, told.software[0].exploits) == (0, ())


RISKY = tuple(exploited(name, Exploit(id="1", risk=9.8)) for name in "abc")


def test_exploits_that_most_software_lost_at_once_have_to_be_missing_twice() -> None:
    """Of software that is as it was: until a poll settle later shows the same, they stay known."""
    cured = tuple(replace(one, exploits=()) for one in RISKY[:2])
    first = reading(RISKY, *cured, RISKY[2])
    assert (first.whole, first.software) == (False, RISKY)
    soon = reading(first.software, *cured, RISKY[2], at=999.0 + SETTLE, collapse=first.collapse)
    assert (soon.whole, soon.collapse) == (False, first.collapse)
    again = reading(first.software, *cured, RISKY[2], at=1000.0 + SETTLE, collapse=first.collapse)
    assert (again.whole, again.collapse, again.software) == (True, None, (*cured, RISKY[2]))
    back = reading(first.software, *RISKY, at=1001.0, collapse=first.collapse)
    assert (back.whole, back.collapse) == (True, None)


def test_a_partial_list_forgets_no_exploits_of_what_is_as_it_was() -> None:
    """Else a whole one after it would lose nothing."""
    cured = tuple(replace(one, exploits=()) for one in RISKY)
    part = reading(RISKY, *cured, complete=False)
    assert (part.whole, part.software) == (False, RISKY)
    after = reading(part.software, *cured, at=1001.0)
    assert (after.whole, after.software) == (False, RISKY)


def test_exploits_go_at_once_with_another_version_or_of_one_software() -> None:
    """As after an update, or where the distribution has taken the fix into the version."""
    updated = tuple(replace(one, exploits=(), version="99") for one in RISKY)
    assert reading(RISKY, *updated).whole
    one = (replace(RISKY[0], exploits=()), *RISKY[1:])
    assert (reading(RISKY, *one).whole, reading(RISKY, *one).software) == (True, one)
    assert reading(RISKY[:1], *one[:1]).whole


LOW = (Exploit(id="9", risk=1.0),)
BETTER_ALL_AT_ONCE: list[tuple[str, Callable[[Software], Software]]] = [
    ("its worst", lambda one: replace(one, exploits=LOW)),
    (
        "a scale",
        lambda one: replace(one, exploits=tuple(replace(e, risk=(e.risk or 0) / 10) for e in one.exploits or ())),
    ),
    ("a version spelt otherwise", lambda one: replace(one, exploits=(), version="v1.0")),
    ("a longer version", lambda one: replace(one, exploits=(), version="1.0.0")),
    ("an older version", lambda one: replace(one, exploits=(), version="0.9.12")),
    ("a version that nobody knows", lambda one: replace(one, exploits=(), version=None)),
    ("a name in capitals", lambda one: replace(one, exploits=(), canonical_name=one.canonical_name.upper())),
    ("a location spelt otherwise", lambda one: replace(one, exploits=(), location="/")),
]


@pytest.mark.parametrize(
    "changed", [change for _, change in BETTER_ALL_AT_ONCE], ids=[n for n, _ in BETTER_ALL_AT_ONCE]
)
def test_what_gets_better_all_at_once_without_a_newer_version_is_shown_twice(
    changed: Callable[[Software], Software],
) -> None:
    """Whatever it is that got better, and however the version is spelt: the known risks stay until then."""
    listed = tuple(changed(one) for one in RISKY)
    first = reading(RISKY, *listed)
    assert not first.whole
    worst = max(exploit.risk or 0.0 for one in RISKY for exploit in one.exploits or ())
    assert {exploit.risk for one in first.software for exploit in one.exploits or ()} >= {worst}
    again = reading(first.software, *listed, at=1000.0 + SETTLE, collapse=first.collapse)
    assert (again.whole, again.software) == (True, listed)


def test_software_that_is_all_supported_again_is_shown_twice() -> None:
    """Unless its version rose; one alone may be."""
    old = tuple(unsupported(name) for name in "abc")
    listed = tuple(software(name) for name in "abc")
    first = reading(old, *listed)
    assert (first.whole, first.software) == (False, old)
    again = reading(first.software, *listed, at=1000.0 + SETTLE, collapse=first.collapse)
    assert (again.whole, again.software) == (True, listed)
    assert reading(old, *(software(name, version="1.0.1") for name in "abc")).whole
    assert reading(old, listed[0], *old[1:]).software == (listed[0], *old[1:])


@pytest.mark.parametrize(
    ("before", "after"),
    [("1.0", "1.1"), ("9", "10"), ("1.0.2k", "1.0.2u"), ("7.4.3-1", "7.4.3-2"), ("2.4", "2.4.1"), ("V1.0", "1.0.0.1")],
)
def test_a_version_that_rose_needs_no_second_poll(before: str, after: str) -> None:
    """Numbers are compared as numbers."""
    known = tuple(replace(one, version=before) for one in RISKY)
    assert reading(known, *(replace(one, version=after, exploits=()) for one in RISKY)).whole
    assert not reading(
        tuple(replace(one, version=after) for one in RISKY),
        *(replace(one, version=before, exploits=()) for one in RISKY),
    ).whole


def test_a_risk_of_0_after_another_one_is_no_rating() -> None:
    """The known one stays, for as long as the exploit is listed at all; of one without a name nobody knows."""
    known = software("php", exploits=(Exploit(id="7", risk=9.8), Exploit(title="x", risk=5.0), Exploit(risk=8.0)))
    listed = replace(known, exploits=(Exploit(id="7", risk=0.0), Exploit(title="x", risk=0.0), Exploit(risk=0.0)))
    kept = replace(known, exploits=(Exploit(id="7", risk=9.8), Exploit(title="x", risk=5.0), Exploit(risk=0.0)))
    got = reading((known,), listed)
    assert (got.listed, got.software, got.whole) == ((kept,), (kept,), True)
    rated = replace(known, exploits=(Exploit(id="7", risk=0.1),))
    assert reading((known,), rated).listed == (rated,)
    assert reading((software("other"),), listed).listed == (listed,)


@given(st.lists(SOFTWARE, max_size=8), st.lists(SOFTWARE, max_size=8), st.booleans())
def test_nothing_is_forgotten_but_by_a_whole_list(
    known: list[Software],
    listed: list[Software],
    complete: bool,  # noqa: FBT001  # drawn by name
) -> None:
    """What is listed is known, and what was known stays unless the list is whole."""
    got = reading(known, *listed, complete=complete)
    places = {(one.canonical_name, one.location) for one in got.software}
    assert {(one.canonical_name, one.location) for one in listed} <= places
    if got.whole:
        assert complete
        assert len(got.software) == len(listed)
    else:
        assert {(one.canonical_name, one.location) for one in known} <= places


OLD = unsupported("old")
ONE_OF_EACH = (RISKY[0], OLD, software("fine"))
EASED: list[tuple[str, tuple[Software, ...]]] = [
    ("no exploits any more", (replace(RISKY[0], exploits=()), *ONE_OF_EACH[1:])),
    ("its worst is gone", (replace(RISKY[0], exploits=LOW), *ONE_OF_EACH[1:])),
    ("supported again", (RISKY[0], replace(OLD, supported=True), ONE_OF_EACH[2])),
    ("not listed any more", ONE_OF_EACH[1:]),
    ("an older version", (replace(RISKY[0], exploits=(), version="0.9"), *ONE_OF_EACH[1:])),
]
AS_IT_WAS: list[tuple[str, tuple[Software, ...]]] = [
    ("the same", ONE_OF_EACH),
    ("a newer version", (replace(RISKY[0], exploits=(), version="2.0"), *ONE_OF_EACH[1:])),
    ("newer and supported", (RISKY[0], replace(OLD, supported=True, version="2.0"), ONE_OF_EACH[2])),
    ("fine software gone", ONE_OF_EACH[:2]),
    ("worse", (replace(RISKY[0], exploits=(*(RISKY[0].exploits or ()), Exploit(id="7", risk=9.9))), *ONE_OF_EACH[1:])),
]


@pytest.mark.parametrize("listed", [row[1] for row in EASED], ids=[row[0] for row in EASED])
def test_one_software_that_gets_better_is_believed_unless_other_servers_do_alike(listed: tuple[Software, ...]) -> None:
    """Then it stays as it was known until a poll settle later shows the same."""
    alone = reading(ONE_OF_EACH, *listed)
    assert (alone.whole, alone.eased, alone.ailing) == (True, True, False)
    first = reading(ONE_OF_EACH, *listed, alike=True)
    assert (first.whole, first.eased) == (False, True)
    kept = {one.name: (one.exploits, one.supported) for one in first.software}
    assert kept == {one.name: (one.exploits, one.supported) for one in ONE_OF_EACH}
    for alike in (False, True):
        soon = reading(first.software, *listed, at=999.0 + SETTLE, collapse=first.collapse, alike=alike)
        assert (soon.whole, soon.collapse) == (False, first.collapse)
    for alike in (False, True):
        again = reading(first.software, *listed, at=1000.0 + SETTLE, collapse=first.collapse, alike=alike)
        assert (again.whole, again.collapse, again.software) == (True, None, listed)


@pytest.mark.parametrize("listed", [row[1] for row in AS_IT_WAS], ids=[row[0] for row in AS_IT_WAS])
def test_what_newer_versions_explain_is_believed_whatever_other_servers_do(listed: tuple[Software, ...]) -> None:
    """A rollout of updates gets better everywhere at once."""
    got = reading(ONE_OF_EACH, *listed, alike=True)
    assert (got.whole, got.eased, got.ailing, got.software) == (True, False, True, listed)


INTERVAL = 900.0
WORSE, BETTER = reading(ONE_OF_EACH, *ONE_OF_EACH), reading(ONE_OF_EACH, *EASED[0][1])
STILL_BETTER, WORSE_AGAIN = reading(EASED[0][1], *EASED[0][1]), reading(EASED[0][1], *ONE_OF_EACH)


def polls(*shown: tuple[int, float, Reading]) -> Alike:
    """Polls of servers, each with its start."""
    alike = Alike()
    for server_id, started_at, got in shown:
        alike.note(server_id, started_at, INTERVAL, got, settle=SETTLE)
    return alike


@pytest.mark.parametrize(
    ("shown", "is_suspicious"),
    [
        ([], False),
        ([(1, 0.0, BETTER)], False),
        ([(1, 0.0, BETTER), (2, 1.0, BETTER)], True),
        # The server itself counts once.
        ([(1, 0.0, BETTER), (3, 1.0, BETTER)], False),
        # Others have been polled meanwhile, and are as they were.
        ([(1, 0.0, BETTER), (2, 1.0, BETTER), (4, 2.0, WORSE), (5, 3.0, WORSE)], True),
        ([(1, 0.0, BETTER), (2, 1.0, BETTER), (4, 2.0, WORSE), (5, 3.0, WORSE), (6, 4.0, WORSE)], False),
        # Polled again before settle has passed, it tells nothing new.
        ([(1, 0.0, BETTER), (1, 0.5, STILL_BETTER), (2, 1.0, BETTER), (2, 1.5, STILL_BETTER)], True),
        ([(1, 0.0, BETTER), (1, SETTLE, STILL_BETTER), (2, 301.0, BETTER)], False),
        # The fault is over there.
        ([(1, 0.0, BETTER), (2, 1.0, BETTER), (1, 2.0, WORSE_AGAIN)], False),
        # One that was mended long before the fault hides it not.
        ([(1, 0.0, BETTER), *((n, float(n), WORSE) for n in range(9, 19)), (2, 20.0, BETTER), (4, 21.0, BETTER)], True),
        # Those that were polled before may have got better, too.
        ([*((n, 0.0, WORSE) for n in range(4, 34)), (1, 500.0, BETTER), (2, 501.0, BETTER)], True),
        # But three of very many are few.
        ([*((n, 0.0, WORSE) for n in range(4, 35)), (1, 500.0, BETTER), (2, 501.0, BETTER)], False),
        # Longer ago than an interval.
        ([(1, 0.0, BETTER), (2, 951.0, BETTER)], False),
    ],
)
def test_three_servers_that_get_better_alike_are_a_fault_unless_more_stay_as_they_were(
    shown: list[tuple[int, float, Reading]], *, is_suspicious: bool
) -> None:
    """Within an interval, in which each server is polled once."""
    assert polls(*shown).are_suspicious(3, 952.0 if shown and shown[-1][1] > 900 else 502.0, INTERVAL) is is_suspicious


def test_only_what_nothing_has_confirmed_was_believed() -> None:
    """Not what a second poll settle later showed, nor what is worse again, nor what is longer ago."""
    alike = polls(*((number, 10.0, BETTER) for number in (1, 2, 4, 5)), (3, 20.0, WORSE))
    assert alike.believed == {1, 2, 4, 5}
    for server_id, started_at, got in (
        (1, 11.0, STILL_BETTER),
        (2, 10.0 + SETTLE, STILL_BETTER),
        (4, 30.0, WORSE_AGAIN),
    ):
        alike.note(server_id, started_at, INTERVAL, got, settle=SETTLE)
    assert alike.believed == {1, 5}
    alike.doubted([5])
    assert alike.believed == {1}
    doubted = reading(ONE_OF_EACH, *EASED[0][1], alike=True)
    alike.note(6, 40.0, INTERVAL, doubted, settle=SETTLE)
    again = reading(doubted.software, *EASED[0][1], at=1000.0 + SETTLE, collapse=doubted.collapse)
    alike.note(7, 41.0, INTERVAL, again, settle=SETTLE, confirmed=True)
    assert again.whole
    assert alike.believed == {1}
    alike.note(8, 911.0, INTERVAL, WORSE, settle=SETTLE)
    assert alike.believed == frozenset()


def test_a_doubt_is_held_against_what_got_better_and_not_against_the_rest() -> None:
    """Lists in which some entry is other at each poll settle all the same, and a trivial change ends no doubt."""
    first = reading(ONE_OF_EACH, *EASED[0][1], alike=True)
    for number, at in enumerate((1001.0, 1002.0, 999.0 + SETTLE)):
        got = reading(first.software, *EASED[0][1], software(f"new{number}"), at=at, collapse=first.collapse)
        assert (got.whole, got.collapse) == (False, first.collapse)
    assert reading(first.software, *EASED[0][1], software("x"), at=1000.0 + SETTLE, collapse=first.collapse).whole


@pytest.mark.parametrize("listed", [(), (replace(RISKY[0], exploits=()),)])
def test_a_reply_that_tells_nothing_ends_no_doubt(listed: tuple[Software, ...]) -> None:
    """Neither an empty one nor a part of a list."""
    first = reading(ONE_OF_EACH, *EASED[0][1], alike=True)
    between = reading(first.software, *listed, complete=not listed, at=1001.0, collapse=first.collapse)
    assert (between.whole, between.collapse) == (False, first.collapse)
    assert reading(between.software, *EASED[0][1], at=1000.0 + SETTLE, collapse=between.collapse).whole


@pytest.mark.parametrize(
    ("before", "after", "is_eased"),
    [
        ((None,), (2.0,), False),
        ((None, 5.0), (5.0, 1.0), False),
        ((None, 5.0), (4.0, 1.0), True),
        ((None,), (), True),
        ((9.8,), (9.7,), True),
    ],
)
def test_a_risk_that_becomes_known_makes_nothing_better(
    before: tuple[float | None, ...], after: tuple[float | None, ...], *, is_eased: bool
) -> None:
    """What nobody had rated may get any rating, on all servers at once."""

    def php(risks: tuple[float | None, ...]) -> Software:
        return exploited("php", *(Exploit(id=str(number), risk=risk) for number, risk in enumerate(risks)))

    got = reading((php(before), software("ssh")), php(after), software("ssh"), alike=True)
    assert (got.eased, got.whole) == (is_eased, not is_eased)


def test_software_that_all_got_a_risk_at_once_is_believed_when_it_is_shown_twice() -> None:
    """A risk that nobody knew counts as the worst, so two of them are doubted; but not for ever."""
    unrated = tuple(exploited(name, Exploit(id="1")) for name in "ab")
    rated = tuple(exploited(name, Exploit(id="1", risk=2.0)) for name in "ab")
    first = reading(unrated, *rated)
    assert not first.whole
    assert reading(first.software, *rated, at=1000.0 + SETTLE, collapse=first.collapse).whole


def test_software_that_moved_is_not_gone() -> None:
    """A release folder has another name at each rollout."""
    here = (exploited("wp", Exploit(id="1", risk=9.8), location="/rel/1"), software("fine"))
    moved = reading(here, replace(here[0], location="/rel/2"), here[1])
    assert (moved.whole, moved.eased) == (True, False)
    assert reading(here, replace(here[0], location="/rel/2", exploits=()), here[1]).eased
