"""What of a configuration must not show, so that the log can mask it and the secrets can be read again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.config.secret import Secret

_URL_PASSWORD = re.compile(r"://[^:@/]*:(.*)@")


def secrets_of(config: Config) -> tuple[Secret, ...]:
    """Return every secret, in the order of the configuration."""
    return tuple(_secrets(config))


def hidden_values(config: Config) -> frozenset[str]:
    """Return every text that must not show: the secrets as they are now, and the passwords within URLs."""
    values = {secret.reveal() for secret in secrets_of(config)}
    urls = [config.store.url, *values]
    passwords = {match.group(1) for url in urls if (match := _URL_PASSWORD.search(url))}
    return frozenset(values | passwords | {unquote(password) for password in passwords})


def url_password(url: str) -> str | None:
    """Return the password within a URL, as it is written there."""
    match = _URL_PASSWORD.search(url)
    return match.group(1) if match else None


def _secrets(config: Config) -> Iterator[Secret]:
    for account in config.accounts:
        yield account.key
        yield account.secret
        yield from account.webhook_tokens
        if account.proxy_url is not None:
            yield account.proxy_url
    for entry in config.api.tokens:
        yield entry.token
