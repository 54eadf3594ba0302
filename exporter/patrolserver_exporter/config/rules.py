"""Rules that look at more than one key, and what is worth a warning."""

from __future__ import annotations

import datetime as dt
import re
from itertools import takewhile
from typing import TYPE_CHECKING

from patrolserver_exporter.config import values
from patrolserver_exporter.config.hidden import url_password
from patrolserver_exporter.config.nodes import Mapping, Scalar
from patrolserver_exporter.config.problem import Problem
from patrolserver_exporter.config.source import File, Literal, is_world_readable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patrolserver_exporter.config.nodes import Node
    from patrolserver_exporter.config.reading import FoundSecret, Reading

_TOKEN_KEY = re.compile(
    r"api\.tokens\[\d+\]\.token|accounts\[\d+\]\.webhook_tokens\[\d+\]|PATROLSERVER_WEBHOOK_TOKEN.*"
)
_UNTIL_KEY = re.compile(r"issues\.waivers\[\d+\]\.until")


def check(reading: Reading) -> Iterator[Problem]:
    """Find names and tokens that are used twice, in as much as could be read."""
    yield from _same_names(reading, "accounts", "default")
    yield from _same_names(reading, "api.tokens", None)
    tokens: list[FoundSecret] = []
    for found in reading.secrets:
        if not _TOKEN_KEY.fullmatch(found.key):
            continue
        if twin := next((other for other in tokens if other.secret == found.secret), None):
            yield found.problem(f"is the same token as {twin.key}; give each its own ({values.MAKE_TOKEN})")
        tokens.append(found)


def warn(reading: Reading, path: Path | None, today: dt.date) -> Iterator[Problem]:
    """Find what works but should not stay so."""
    is_open = path is not None and is_world_readable(path)
    for found in reading.secrets:
        source = found.secret.source
        if isinstance(source, Literal) and is_open:
            yield found.problem(f"is a secret in a file that everyone may read; chmod o-r {path}, or use !file")
        elif isinstance(source, File) and source.is_world_readable():
            yield found.problem(f"is read from a file that everyone may read; chmod o-r {source.path}")
        if _TOKEN_KEY.fullmatch(found.key) and len(found.secret.reveal()) < values.GOOD_TOKEN:
            yield found.problem(
                f"is shorter than {values.GOOD_TOKEN} characters and may be guessed; {values.MAKE_TOKEN}"
            )
    for key, (node, value) in reading.found.items():
        if message := _warning(key, node, value, today, is_open=is_open):
            yield _problem(reading, node, key, message)


def plain_http_warning() -> str:
    """Return what to say about an API that is called by http."""
    return "sends key and secret over plain http, where others can read them; use https"


def _warning(key: str, node: Node, value: object, today: dt.date, *, is_open: bool) -> str | None:
    if _UNTIL_KEY.fullmatch(key) and isinstance(value, dt.date) and value < today:
        return f"has passed ({value}); the waiver has no effect any more, remove or renew it"
    if key.endswith(".api_url") and values.is_plain_http_abroad(str(value)):
        return plain_http_warning()
    if key == "store.url" and is_open and isinstance(node, Scalar) and not node.tag and url_password(str(value)):
        return "holds a password in a file that everyone may read; chmod o-r the file, or use !file"
    return None


def _same_names(reading: Reading, path: str, default: str | None) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for item in takewhile(reading.found.__contains__, (f"{path}[{index}]" for index in range(len(reading.found)))):
        node, name = reading.found.get(f"{item}.name", (reading.found[item][0], default))
        if not isinstance(reading.found[item][0], Mapping) or not isinstance(name, str):
            continue
        if name in first:
            remedy = "give each its own name" + (" (without one it is default)" if name == default else "")
            yield _problem(reading, node, f"{item}.name", f"is the same as that of {first[name]}; {remedy}")
        first.setdefault(name, item)


def _problem(reading: Reading, node: Node, key: str, message: str) -> Problem:
    return Problem(reading.file, node.place.line, node.place.column, key, message)
