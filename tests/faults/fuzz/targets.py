"""What random bytes are thrown at: each parser that reads what others wrote.

A target returns when the bytes are taken, or refused in the way that its parser promises; all else that it raises is a
find.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.config.schema import Gate
from patrolserver_exporter.gate.policy import Inline, NamedPolicy, SeverityLimits
from patrolserver_exporter.inbox.intake import UnreadableDelivery, read_payload
from patrolserver_exporter.patrolserver import wire
from patrolserver_exporter.patrolserver.envelope import error_in
from patrolserver_exporter.patrolserver.errors import PatrolServerError
from patrolserver_exporter.web.api.endpoint import decode
from patrolserver_exporter.web.api.gate import read_request
from patrolserver_exporter.web.http.requests import ApiError
from patrolserver_exporter.web.http.web_config import load_web_config

if TYPE_CHECKING:
    from collections.abc import Callable

_TYPES: Final = (None, "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
_PARSERS: Final[tuple[Callable[[bytes], Any], ...]] = (
    wire.parse_servers,
    wire.parse_server,
    wire.parse_software,
    wire.parse_event,
    wire.parse_is_scanning,
)
_POLICY: Final = NamedPolicy(max_by_severity=SeverityLimits(critical=0, high=0), max_age=21_600.0)
_GATES: Final = (
    Gate(),
    Gate(policies={"production": _POLICY}, default_policy="production", inline=Inline.TIGHTEN),
    Gate(policies={"production": _POLICY}, inline=Inline.NONE),
)
_FILE: Final = Path(tempfile.gettempdir()) / f"fuzzed-{os.getpid()}.yml"
_PATHS: Final = (b"!file", b"_file")
"""A configuration may name files; the fuzzer shall open none of this machine's."""


def webhook(data: bytes) -> None:
    """A delivery's body, under each content type: a payload, or `UnreadableDelivery`."""
    try:
        payload = read_payload(data[1:], _TYPES[data[0] % len(_TYPES)] if data else None)
    except UnreadableDelivery as error:
        _refused(error)
        return
    assert 0 < payload.event_id < 2**53
    assert payload.identifier.isprintable()


def replies(data: bytes) -> None:
    """An API's reply: something that can be shown, with its doubts, or a `PatrolServerError`."""
    body = data[1:]
    error_in(body)
    try:
        found = _PARSERS[data[0] % len(_PARSERS)](body) if data else None
    except PatrolServerError as error:
        _refused(error)
        return
    msgspec.json.encode(getattr(found, "value", found))


def config(data: bytes) -> None:
    """A configuration file: a configuration, or `ConfigError` with a place for each mistake."""
    _load(data, lambda path: load_config(path, {}))


def web_config(data: bytes) -> None:
    """A file for --web.config.file: settings, or `ConfigError`."""
    _load(data, load_web_config)


def _load(data: bytes, load: Callable[[Path], object]) -> None:
    if any(word in data for word in _PATHS):
        return
    _FILE.write_bytes(data)
    try:
        load(_FILE)
    except ConfigError as error:
        _refused(error, where=error.errors)
    finally:
        _FILE.unlink(missing_ok=True)


def _refused(error: Exception, *, where: object = True) -> None:
    """Its text can be printed, and it says where."""
    str(error).encode()
    assert where


def policy(data: bytes) -> None:
    """A request to the gate: one that can be judged and never looser than the configuration, or a 400."""
    settings = _GATES[data[0] % len(_GATES)] if data else _GATES[0]
    try:
        asked = read_request(decode(data[1:]), settings)
    except ApiError as error:
        _refused(error, where=error.status == 400)
        return
    if settings.policies:
        found = asked.in_force.policy
        assert found.max_age is not None
        assert found.max_age <= 21_600.0
        assert found.max_by_severity.high == 0


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "webhook": webhook,
    "replies": replies,
    "config": config,
    "web_config": web_config,
    "policy": policy,
}
