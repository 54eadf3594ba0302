"""Cursors: where a page or the change feed goes on. Opaque to clients, checked when they come back."""

from __future__ import annotations

import base64
import binascii
import contextlib
from typing import TypeVar

import msgspec

from patrolserver_exporter.patrolserver.models import MAX_ID
from patrolserver_exporter.web.http.requests import ApiError

_MAX_LENGTH = 8192


class ServersCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="s", tag_field="k"):
    """After that server."""

    account: str
    server_id: int


class IssuesCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="i", tag_field="k"):
    """After the issue with that row id."""

    row: int


class SoftwareCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="w", tag_field="k"):
    """After the software with that sort key."""

    name: str
    location: str
    ordinal: int
    """Among those of the same name and location."""


class FleetSoftwareCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fw", tag_field="k"):
    """After that software over the fleet."""

    name: str
    version: str


class ExploitsCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fx", tag_field="k"):
    """After that exploit."""

    name: str
    named_by: str
    software: str


class ChangesCursor(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="c", tag_field="k"
):
    """After that change."""

    row: int
    history: str = ""
    """Of the feed in which that row counts; empty in the cursors of a version that knew none."""


class InboxCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="d", tag_field="k"):
    """After that delivery."""

    row: int


AnyCursor = (
    ServersCursor | IssuesCursor | SoftwareCursor | FleetSoftwareCursor | ExploitsCursor | ChangesCursor | InboxCursor
)
C = TypeVar("C", bound=AnyCursor)


def write(cursor: AnyCursor) -> str:
    """The cursor as text that needs no escaping in a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).rstrip(b"=").decode("ascii")


def read(text: str, kind: type[C], parameter: str = "cursor") -> C:
    """The cursor that `write` wrote; a 400 that names the parameter for anything else, and for one of another list."""
    cursor = None
    if len(text) <= _MAX_LENGTH:
        with contextlib.suppress(ValueError, binascii.Error, msgspec.MsgspecError, RecursionError):
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            cursor = msgspec.json.decode(raw, type=kind)
    if cursor is None or write(cursor) != text or not _is_sound(cursor):
        raise ApiError(
            400, f"{parameter} is not a cursor of this list; take it from next_cursor of a reply, unchanged."
        )
    return cursor


def _is_sound(cursor: msgspec.Struct) -> bool:
    """Numbers that the database takes, and no text that it refuses."""
    return all(
        "\0" not in part if isinstance(part, str) else 0 <= part <= MAX_ID for part in msgspec.structs.astuple(cursor)
    )
