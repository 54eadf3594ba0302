"""What of a configuration must not show, so that the log can mask it."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

from patrolserver_exporter.config.proxy import credentials_of
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.redaction import secret_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from patrolserver_exporter.config.schema import Config

_URL_PASSWORD = re.compile(r"://[^:@/]*:(.*)@")


class Hidden:
    """What of one configuration must not show. Its secrets are looked for once, and told as they are whenever asked."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._store_url = config.store.url
        self._secrets = tuple(_secrets(config))

    def values(self) -> frozenset[str]:
        """Return every text that must not show: the secrets as they are now, and the passwords within URLs."""
        values = {text for told in self._secrets for text in told()}
        passwords = {password for url in (self._store_url, *values) for password in url_passwords(url)}
        return frozenset(values | passwords | {unquote(password) for password in passwords})


def hidden_values(config: Config) -> frozenset[str]:
    """Return every text that must not show: the secrets as they are now, and the passwords within URLs."""
    return Hidden(config).values()


def url_passwords(url: str) -> tuple[str, ...]:
    """Return the passwords within a URL, as they are written there: that of its user, and those of its parameters."""
    match = _URL_PASSWORD.search(url)
    of_user = (match.group(1),) if match and match.group(1) else ()
    return (*of_user, *secret_parameters(url))


def _secrets(part: object) -> Iterator[Callable[[], Iterable[str]]]:
    if isinstance(part, Secret):
        yield lambda: (part.reveal(),)
    elif isinstance(part, tuple):
        for item in part:
            yield from _secrets(item)
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.name == "proxy_url" and isinstance(value, Secret):
                # A proxy's address may be told, and is.
                yield partial(credentials_of, value)
            else:
                yield from _secrets(value)
