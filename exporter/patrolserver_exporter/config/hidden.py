"""What of a configuration must not show, so that the log can mask it."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from patrolserver_exporter.config.proxy import credentials_of
from patrolserver_exporter.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.config.schema import Config

_URL_PASSWORD = re.compile(r"://[^:@/]*:(.*)@")


def hidden_values(config: Config) -> frozenset[str]:
    """Return every text that must not show: the secrets as they are now, and the passwords within URLs."""
    values = set(_secrets(config))
    passwords = {password for url in (config.store.url, *values) if (password := url_password(url))}
    return frozenset(values | passwords | {unquote(password) for password in passwords})


def url_password(url: str) -> str | None:
    """Return the password within a URL, as it is written there."""
    match = _URL_PASSWORD.search(url)
    return match.group(1) if match else None


def _secrets(part: object) -> Iterator[str]:
    if isinstance(part, Secret):
        yield part.reveal()
    elif isinstance(part, tuple):
        for item in part:
            yield from _secrets(item)
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            # A proxy's address may be told, and is.
            is_proxy = field.name == "proxy_url" and isinstance(value, Secret)
            yield from credentials_of(value) if is_proxy else _secrets(value)
