from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.issues.model import Identity, IssueClass, fingerprint

PARTS = st.tuples(
    st.text(max_size=4),
    st.integers(0, 2**53 - 1),
    st.builds(Identity, st.text(max_size=4), st.none() | st.text(max_size=4), st.sampled_from(IssueClass)),
)


def test_it_never_changes() -> None:
    """Baselines hold fingerprints for years, so the hash is what it was."""
    identity = Identity("php", "/", IssueClass.VERSION)
    assert fingerprint("main", 7, identity) == "3fc928424f6b63ac"
    assert fingerprint("main", 7, identity, {"3fc928424f6b63ac"}) == "2e8882c708970df4"


@given(PARTS, PARTS)
def test_different_identities_differ(one: tuple[str, int, Identity], other: tuple[str, int, Identity]) -> None:
    """Two identities have the same fingerprint only if they are the same."""
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)


@given(PARTS, st.integers(1, 5))
def test_taken_ones_are_skipped(parts: tuple[str, int, Identity], births: int) -> None:
    """An identity whose fingerprint is taken gets the next of its row, always 16 hexadecimal digits."""
    taken: set[str] = set()
    for _ in range(births):
        given_ = fingerprint(*parts, taken)
        assert given_ not in taken
        assert len(given_) == 16
        assert set(given_) <= set(string.hexdigits.lower())
        taken.add(given_)
