"""The bodies that the control interface takes; a field that is not listed here is refused."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .errors import invalid
from .software import Exploit, Kind, Software
from .webhooks import Format
from .wire import Style

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Amount = Annotated[int, Meta(ge=0, le=1_000_000)]


class Nothing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order without fields."""


class ServerOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new server; ``software`` is how much of it to draw, or the list itself."""

    name: str
    verified: bool = True
    software: Amount | list[dict[str, Any]] = 12


class SoftwareOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More software: fields as the API has them, written as they are; ``count`` numbers as many copies."""

    software: dict[str, Any] | list[dict[str, Any]]
    count: Amount = 1


class ScanOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scan."""

    server: str | int
    seconds: Seconds | None = None


class BreakOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Break software; ``software`` is a canonical name, without it the first that is fine."""

    server: str | int
    kind: Kind = Kind.EXPLOITABLE
    software: str | None = None
    location: str | None = None
    risk: float = 9.8
    event: bool = True
    at_scan: bool = False


class MendOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mend software; without ``software`` all that is broken."""

    server: str | int
    software: str | None = None
    location: str | None = None
    at_scan: bool = False


class EventOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events; without ``data`` they carry the id of ``server``, and without both a message."""

    identifier: str
    server: str | int | None = None
    data: Any = msgspec.UNSET
    webhook_id: int | None = None
    count: Amount = 1
    deliver: bool = True


class DeliverOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deliveries of any content: forged, repeated, malformed. Without ``url`` to every webhook."""

    payload: dict[str, Any]
    url: str | None = None
    format: Format = Format.JSON
    count: Amount = 1


class WebhookOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A webhook of the demo account."""

    url: str | None = None
    format: Format = Format.JSON
    duplicates: Amount = 0
    ca_file: str | None = None


class AccountOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new account, or what logging in to one shall fail with."""

    email: str
    password: str = "demo"  # noqa: S105  the documented password of a simulation
    login_error: str | None = None


class CredentialsOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """New key and secret of the demo account: the old ones are revoked."""

    key: Annotated[str, Meta(min_length=1)]
    secret: Annotated[str, Meta(min_length=1)]


class ClockOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the clock ahead (seconds)."""

    advance: Seconds


class StyleOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Serve another style."""

    style: Style


class StoryOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Play the story, so many times as fast."""

    speed: Annotated[float, Meta(gt=0, le=1e6)] = 1.0


_PLAIN_FIELDS = {"name", "canonical_name", "version", "newest_bugfix_release", "parent", "location"}


def software_from(fields: dict[str, Any]) -> tuple[Software, dict[str, Any]]:
    """The software that API fields describe, and those of them that have to be written as they are."""
    if not isinstance(fields.get("canonical_name", ""), str) or not isinstance(fields.get("name", ""), str):
        raise invalid("name and canonical_name must be texts; use a fault for worse")
    name = fields.get("name") or fields.get("canonical_name") or "software"
    texts = {key: fields[key] for key in _PLAIN_FIELDS - {"name"} if isinstance(fields.get(key), str)}
    exploits = fields.get("exploits")
    listed = exploits if isinstance(exploits, list) else []
    risks = [one["risk"] for one in listed if isinstance(one, dict) and isinstance(one.get("risk"), int | float)]
    candidates = fields.get("versions")
    software = Software(
        name=name,
        canonical_name=texts.pop("canonical_name", name),
        candidates=tuple(map(str, candidates)) if isinstance(candidates, list) else (),
        supported=_supported(fields.get("supported")),
        exploits=tuple(Exploit(number, "", "", float(risk)) for number, risk in enumerate(risks, 1)),
        **texts,
    )
    return software, {key: value for key, value in fields.items() if key != "id"}


def _supported(value: object) -> bool | None:
    if value is None or value == "":
        return None
    return str(value).lower() in {"yes", "true", "1"}
