from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.simulator.software import Kind, Software, altered, bumped, new_issue

PHP = Software(name="PHP", canonical_name="php", version="8.3.14", supported=True)


@pytest.mark.parametrize(
    ("version", "later"), [("8.3.14", "8.3.15"), ("9.6p1", "9.6p2"), ("1.1.1w", "1.1.2w"), ("sid", "sid.1")]
)
def test_the_next_version_is_later(version: str, later: str) -> None:
    """The last number counts up."""
    assert bumped(version) == later


@given(kind=st.sampled_from(sorted(set(Kind) - {Kind.MENDED})), risk=st.floats(0, 10))
def test_mending_undoes_every_trouble(kind: Kind, risk: float) -> None:
    """Whatever broke, mended software is supported, has a version and no exploit."""
    mended = altered(altered(PHP, kind, risk=risk), Kind.MENDED)
    assert not mended.broken
    assert (mended.supported, mended.candidates, mended.newest_bugfix_release) == (True, (), None)
    assert mended.version is not None


def test_outdated_says_where_to_move() -> None:
    """Outdated: not supported, with a newer bug-fix release."""
    outdated = altered(PHP, Kind.OUTDATED)
    assert (outdated.version, outdated.supported, outdated.newest_bugfix_release) == ("8.3.14", False, "8.3.15")


def test_unsupported_says_nothing_to_move_to() -> None:
    """Unsupported: not supported, and no newer bug-fix release."""
    ended = altered(PHP, Kind.UNSUPPORTED)
    assert (ended.supported, ended.newest_bugfix_release) == (False, None)


def test_an_exploit_leaves_the_version_alone() -> None:
    """Exploitable software may be up to date."""
    hit = altered(PHP, Kind.EXPLOITABLE, risk=9.8, serial=5)
    assert (hit.supported, hit.version) == (True, "8.3.14")
    assert [(one.id, one.cve, one.risk) for one in hit.exploits] == [(5, "CVE-2099-0005", 9.8)]


def test_an_issue_has_the_documented_shape() -> None:
    """Title, description and the installed software with the product nested one level deeper."""
    assert new_issue(altered(PHP, Kind.UNSUPPORTED), Kind.UNSUPPORTED) == {
        "title": "Upgrade your PHP to a supported version.",
        "description": "Your current PHP version (8.3.14) is no longer supported, "
        "it is advised to upgrade to a supported version.",
        "software": {"version": "8.3.14", "software": {"name": "PHP", "canonical_name": "php"}},
    }


def test_an_issue_has_candidates_or_no_version_at_all() -> None:
    """The installed software of an issue has ``version``, or ``versions``, or neither."""
    candidates = new_issue(altered(PHP, Kind.CANDIDATES), Kind.CANDIDATES)["software"]
    assert candidates == {"versions": ["8.3.15", "8.3.14"], "software": {"name": "PHP", "canonical_name": "php"}}
    unknown = new_issue(altered(PHP, Kind.UNDETECTED), Kind.UNDETECTED)["software"]
    assert unknown == {"software": {"name": "PHP", "canonical_name": "php"}}
