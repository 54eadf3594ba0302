"""Reads what clients post: forms as PHP reads them, nested fields included, and the scanner's list of software (C)."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl

from .errors import ApiError, invalid
from .fleet import assessed
from .software import Software

_NESTED = re.compile(r"([^\[]+)((?:\[[^\]]*\])+)")
_STRAY_QUOTE = re.compile(r"(?<!\\)((?:\\\\)*)\\'")
MAX_FIELDS = 2_000_000


def form(body: bytes, content_type: str) -> dict[str, Any]:
    """The posted fields: ``a=1`` and ``a[0][n]=php`` as PHP would see them; a JSON object is taken as well.

    Raises:
        ApiError: 400, the body is neither.
    """
    if content_type.partition(";")[0].strip().lower() == "application/json":
        return _json_object(body)
    fields: dict[str, Any] = {}
    try:
        pairs = parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise ApiError(400, "invalid", "The body has too many fields.") from None
    for name, value in pairs:
        nested = _NESTED.fullmatch(name)
        if nested:
            _put(fields, [nested[1], *re.findall(r"\[([^\]]*)\]", nested[2])], value)
        else:
            fields[name] = value
    return fields


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body or b"{}")
    except ValueError:
        raise ApiError(400, "invalid", "The body is not JSON.") from None
    if not isinstance(document, dict):
        raise ApiError(400, "invalid", "The body is not a JSON object.")
    return document


def _put(fields: dict[str, Any], path: list[str], value: str) -> None:
    for step in path[:-1]:
        inner = fields.get(step)
        if not isinstance(inner, dict):
            inner = fields[step] = {}
        fields = inner
    fields[path[-1] or str(len(fields))] = value


def pushed_software(value: object) -> tuple[dict[str, str], ...]:
    """The lines of a bucket's ``software`` field, each with ``n``, ``v``, ``p`` and ``l``.

    In the scanner's form, a JSON text, a field left out repeats the line before it, and an empty last line is no
    software. In the SDK's form, nested fields, what is left out is empty.

    Raises:
        ApiError: 422, it is no list of objects.
    """
    repeats = isinstance(value, str)
    lines = _json_list(value) if isinstance(value, str) else value
    if isinstance(lines, dict):
        lines = list(lines.values())
    if not isinstance(lines, list) or not all(isinstance(line, dict | list) for line in lines):
        raise invalid("The software must be a list of software.")
    before = dict.fromkeys("nvpl", "")
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for line in lines:
        if not line:
            continue
        told = {name: str(line[name] or "") for name in "nvpl" if name in line}
        before = (before if repeats else dict.fromkeys("nvpl", "")) | told
        if before["n"]:
            found[tuple(before.values())] = before
    return tuple(found.values())


def _json_list(text: str) -> object:
    if not text.strip():
        return []
    try:
        # The scanner escapes apostrophes, which JSON does not know.
        return json.loads(_STRAY_QUOTE.sub(r"\1'", text))
    except ValueError:
        raise invalid("The software is not a JSON list.") from None


def found_software(line: dict[str, str]) -> Software:
    """What a scan says of one pushed line."""
    parent = line["p"] or None
    name = line["n"]
    canonical = name
    if parent and name.startswith(f"{parent}:"):
        name = name.removeprefix(f"{parent}:")
        canonical = f"{parent}/{name}"
    supported, newest = assessed(canonical, line["v"]) if line["v"] else (None, None)
    return Software(
        name=name,
        canonical_name=canonical,
        version=line["v"] or None,
        supported=supported,
        newest_bugfix_release=newest,
        parent=parent,
        location=line["l"] or "/",
    )
