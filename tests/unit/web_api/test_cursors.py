from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.patrolserver.models import MAX_ID
from patrolserver_exporter.web.api import cursors
from patrolserver_exporter.web.http.requests import ApiError

NUMBERS = st.integers(0, MAX_ID)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
CURSORS = st.one_of(
    st.builds(cursors.ServersCursor, TEXTS, NUMBERS),
    st.builds(cursors.IssuesCursor, NUMBERS),
    st.builds(cursors.SoftwareCursor, TEXTS, TEXTS, NUMBERS),
    st.builds(cursors.FleetSoftwareCursor, TEXTS, TEXTS),
    st.builds(cursors.ExploitsCursor, TEXTS, TEXTS, TEXTS),
    st.builds(cursors.ChangesCursor, NUMBERS),
    st.builds(cursors.InboxCursor, NUMBERS),
)


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@given(CURSORS)
def test_a_cursor_comes_back_as_it_was(cursor: cursors.IssuesCursor) -> None:
    """What was written reads as the same place, and needs no escaping in a URL."""
    text = cursors.write(cursor)
    assert cursors.read(text, type(cursor)) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()


@given(CURSORS, st.sampled_from([cursors.IssuesCursor, cursors.ServersCursor, cursors.ChangesCursor]))
def test_a_cursor_of_another_list_is_refused(cursor: cursors.IssuesCursor, kind: type[cursors.IssuesCursor]) -> None:
    """A cursor only goes on in the list that gave it."""
    if not isinstance(cursor, kind):
        with pytest.raises(ApiError) as refused:
            cursors.read(cursors.write(cursor), kind)
        assert refused.value.status == 400


@given(st.text(max_size=80))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """Any other text is a 400, never an exception of ours."""
    with pytest.raises(ApiError, match="after is not a cursor"):
        cursors.read(text, cursors.ChangesCursor, "after")


@pytest.mark.parametrize(
    "text",
    [
        encoded('{"k":"i","row":-1}'),
        encoded('{"k":"i","row":9007199254740992}'),
        encoded('{"k":"i","row":1,"more":2}'),
        encoded('{"k":"i", "row":1}'),
        encoded('{"k":"i","row":"1"}'),
        encoded('{"k":"i","row":1}') + "=",
        "A" * 9000,
    ],
)
def test_a_forged_cursor_is_refused(text: str) -> None:
    """A number that no database takes, a member too many or another spelling do not get through."""
    with pytest.raises(ApiError):
        cursors.read(text, cursors.IssuesCursor)


def test_a_nul_in_a_cursor_is_refused() -> None:
    """PostgreSQL takes no NUL in a text."""
    with pytest.raises(ApiError):
        cursors.read(cursors.write(cursors.ServersCursor("a\0b", 1)), cursors.ServersCursor)
