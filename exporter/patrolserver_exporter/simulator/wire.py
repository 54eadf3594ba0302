r"""How the API writes: JSON as PHP does, slashes escaped and other than ASCII as ``\uXXXX`` (C), and its errors.

Two things the vendor's scanner relies on are kept everywhere: ``parent`` is there as ``null`` when there is none, and
``version``, ``versions`` and ``newest_bugfix_release`` are never ``null`` (it would print the word).

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import json
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .software import Installed, Software


class Style(StrEnum):
    """Which of the plausible forms the simulator serves."""

    PLAIN = "plain"
    """Envelope and numbers as the vendor's clients see them."""
    STRINGS = "strings"
    """Numbers as strings, and absent texts as ``""`` (?)."""
    BARE = "bare"
    """Events without the envelope, as the documentation prints them (D)."""


def php_json(value: object) -> bytes:
    """``value`` as PHP's ``json_encode`` would write it; lone surrogates pass."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/").encode("ascii")


def styled(value: object, style: Style) -> object:
    """``value`` with its numbers as that style has them; booleans stay booleans."""
    if style is not Style.STRINGS or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        return {key: styled(inner, style) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [styled(inner, style) for inner in value]
    return value


def envelope(data: object, style: Style) -> bytes:
    """A successful reply: ``{"data": …}`` (C, D)."""
    return b'{"data":%b}' % php_json(styled(data, style))


def event_reply(data: object, style: Style) -> bytes:
    """An event, in the envelope as the SDK reads it (C) or without, as documented (D)."""
    return php_json(styled(data, style)) if style is Style.BARE else envelope(data, style)


def software_document(installed: Installed, style: Style, *, exploits: bool) -> bytes:
    """One software of one server; ``exploits`` for ``scope=exploits``."""
    head = b'{"id":"%d",' if style is Style.STRINGS else b'{"id":%d,'
    if installed.overrides:
        fields = _fields(installed.software, style, exploits=exploits) | installed.overrides
        return php_json(styled({"id": installed.id, **fields}, style))
    return head % installed.id + _after_id(installed.software, style is Style.STRINGS, exploits)


def software_list(installed: Iterable[Installed], style: Style, *, exploits: bool) -> bytes:
    """All software of one server, in the envelope. Cheap: only the ids are written again."""
    return b'{"data":[%b]}' % b",".join(software_document(one, style, exploits=exploits) for one in installed)


@lru_cache(maxsize=65_536)
def _after_id(software: Software, strings: bool, exploits: bool) -> bytes:  # noqa: FBT001  a key must be cheap to hash
    style = Style.STRINGS if strings else Style.PLAIN
    return php_json(styled(_fields(software, style, exploits=exploits), style))[1:]


def _fields(software: Software, style: Style, *, exploits: bool) -> dict[str, object]:
    fields: dict[str, object] = {"name": software.name, "canonical_name": software.canonical_name}
    if software.candidates:
        fields["versions"] = list(software.candidates)
    else:
        fields |= _text("version", software.version, style)
    if software.supported is not None:
        fields["supported"] = "yes" if software.supported else "no"
    fields |= _text("newest_bugfix_release", software.newest_bugfix_release, style)
    fields["parent"] = software.parent
    fields["location"] = software.location
    if exploits:
        fields["exploits"] = [exploit.document() for exploit in software.exploits]
    return fields


def _text(name: str, value: str | None, style: Style) -> dict[str, object]:
    if value is None:
        return {name: ""} if style is Style.STRINGS else {}
    return {name: value}


class ApiError(Exception):
    """A call failed: ``{"error": {"code": …, "message": …}}`` (C).

    Codes that the vendor's clients know: 15 host already has an account, 82 e-mail taken, 83 host does not resolve,
    ``too_many_failed_attempts`` and ``different_country`` on login (C). All other codes are the simulator's own (?).
    """

    def __init__(self, status: int, code: int | str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def document(self) -> dict[str, object]:
        """The ``error`` object."""
        return {"code": self.code, "message": self.message}


def not_found(what: str) -> ApiError:
    """Whatever was asked for is not there, or belongs to another account."""
    return ApiError(404, "not_found", f"{what} does not exist")


def invalid(message: str) -> ApiError:
    """A field of the call is missing or cannot be read."""
    return ApiError(422, "invalid", message)


def host_taken() -> ApiError:
    """Code 15 (C)."""
    return ApiError(409, 15, "An account was already created for this host or a subdomain of this host.")


def email_taken() -> ApiError:
    """Code 82 (C): when it registers the scanner looks for these words, when it changes the address for the code."""
    return ApiError(409, 82, "The email has already been taken.")


def host_unresolved() -> ApiError:
    """Code 83 (C)."""
    return ApiError(422, 83, "The host does not resolve.")
