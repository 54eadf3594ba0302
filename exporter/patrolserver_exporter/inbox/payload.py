"""A delivery's body, as JSON, as a form or as multipart, whatever its Content-Type claims (grades D, C)."""

from __future__ import annotations

import email.message
import email.parser
import email.policy
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from patrolserver_exporter.patrolserver.models import MAX_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_IDENTIFIER = 128
_MOST_FIELDS = 100
_BOUNDARY = re.compile(rb"--([!-~ ]{1,200})\r?\n")
_TRUE = (1, True, "1", "true", "yes", "on")


class UnreadableDelivery(Exception):  # named for what happened
    """The body is no delivery; the text says why, and repeats nothing of it."""


class Payload(msgspec.Struct, frozen=True):
    """What a delivery says (D). ``identifier`` is only a hint: the API confirms what happened."""

    webhook_id: int
    event_id: int
    identifier: str


def read_payload(body: bytes, content_type: str | None) -> Payload:
    """Read a delivery's body; raises `UnreadableDelivery`."""
    fields = _fields(body.removeprefix(b"\xef\xbb\xbf").strip(), content_type or "")
    if fields.get("webhook_patrolserver") not in _TRUE:
        raise UnreadableDelivery("The field webhook_patrolserver is missing or not 1, so this is no delivery.")
    return Payload(_id(fields, "webhook_id"), _id(fields, "event_id"), _identifier(fields))


def _fields(body: bytes, content_type: str) -> Mapping[str, Any]:
    if not body:
        raise UnreadableDelivery("The body is empty.")
    if body.startswith(b"{"):
        return _json(body)
    if body.startswith(b"--"):
        return _multipart(body)
    if b"=" in body:
        return _form(body)
    detail = "The body is neither a JSON object nor a form."
    if "json" in content_type.lower():
        detail = "The body is no JSON object."
    raise UnreadableDelivery(detail)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        try:
            fields = json.loads(body.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise UnreadableDelivery("The body begins like JSON but is none.") from None
    if not isinstance(fields, dict):
        raise UnreadableDelivery("The body is no JSON object.")
    return fields


def _form(body: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="replace"
        )
    except ValueError:
        raise UnreadableDelivery(f"The form has more than {_MOST_FIELDS} fields.") from None
    return dict(pairs)


def _multipart(body: bytes) -> Mapping[str, str]:
    boundary = _BOUNDARY.match(body)
    if boundary is None:
        raise UnreadableDelivery("The body begins like multipart but has no boundary.")
    head = b'Content-Type: multipart/form-data; boundary="' + boundary[1].rstrip() + b'"\r\n\r\n'
    try:
        message = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(head + body)
        parts = [part for part in message.walk() if not part.is_multipart()]
        fields = dict(_part(part) for part in parts[:_MOST_FIELDS])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UnreadableDelivery("The multipart body cannot be read.") from None
    return {name: value for name, value in fields.items() if name}


def _part(part: email.message.Message) -> tuple[str, str]:
    name = part.get_param("name", "", header="content-disposition")
    content = part.get_payload(decode=True)
    return str(name), content.decode("utf-8", "replace").strip() if isinstance(content, bytes) else ""


def _id(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if isinstance(value, str):
        digits = value.strip()
        value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 16 else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_ID:
        raise UnreadableDelivery(f"The field {name} is missing or no id: digits, from 1 to 2^53-1.")
    return value


def _identifier(fields: Mapping[str, Any]) -> str:
    value = fields.get("identifier")
    if not isinstance(value, str) or not 0 < len(value) <= MAX_IDENTIFIER or not value.isprintable():
        raise UnreadableDelivery(
            f"The field identifier is missing, or not printable text of at most {MAX_IDENTIFIER} characters."
        )
    return value
