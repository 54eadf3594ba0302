"""Which proxy an account's calls take where its ``proxy_url`` says nothing, and what of a proxy may show."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from patrolserver_exporter.config import values
from patrolserver_exporter.config.problem import ConfigError, Unfit
from patrolserver_exporter.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

PROXY_URL = "PATROLSERVER_PROXY_URL"
VARIABLES = (PROXY_URL, f"{PROXY_URL}_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
"""Of the last three the spelling in small letters is known as well, as other programs know both."""


def variable_for(api_url: str, environ: Mapping[str, str]) -> str | None:
    """Return which variable names the proxy for that URL; None when none does, or NO_PROXY leaves it out."""
    own = [name for name in (PROXY_URL, f"{PROXY_URL}_FILE") if environ.get(name)]
    if own:
        return own[0]
    name = _given(f"{urlsplit(api_url).scheme}_PROXY".upper(), environ)
    exempt = _given("NO_PROXY", environ)
    if name is None or (exempt is not None and is_exempt(api_url, environ[exempt])):
        return None
    return name


def proxy_from(variable: str, environ: Mapping[str, str]) -> Secret:
    """Return the proxy that the variable names; raises `Unfit`. One without a scheme is spoken to in plain HTTP."""
    file = f"{PROXY_URL}_FILE"
    if variable == PROXY_URL and environ.get(file):
        raise Unfit(f"is set, and {file} too; unset one of them")
    if variable == file:
        try:
            found = Secret.from_file(Path(environ[variable]))
        except ConfigError as error:
            raise Unfit(error.errors[0].message) from None
        values.proxy_url(found.reveal())
        return found
    text = environ[variable].strip()
    return Secret.from_env(variable, {variable: values.proxy_url(text if "://" in text else f"http://{text}")})


def _given(name: str, environ: Mapping[str, str]) -> str | None:
    return next((one for one in (name, name.lower()) if environ.get(one, "").strip()), None)


def is_exempt(url: str, no_proxy: str) -> bool:
    """Whether NO_PROXY leaves the URL's host out: by its name or that of a domain above, its network, or ``*``."""
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return any(_covers(entry, host, port) for entry in no_proxy.lower().replace(",", " ").split())


def _covers(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        # One of the two is a name, or has a port.
        pass
    try:
        parts = urlsplit(f"//{entry}")
        name, only_port = parts.hostname or "", parts.port
    except ValueError:
        return False
    name = name.removeprefix("*").strip(".")
    return bool(name) and only_port in {None, port} and (host == name or host.endswith(f".{name}"))


def shown(proxy: Secret) -> str:
    """Return the proxy's URL without its user and password, and where it is named."""
    parts = urlsplit(proxy.reveal())
    credentials, _, address = parts.netloc.rpartition("@")
    source = proxy.origin.removeprefix("environment ").replace("literal", "proxy_url")
    return f"{parts.scheme}://{'***@' if credentials else ''}{address} ({source})"


def credentials_of(proxy: Secret) -> frozenset[str]:
    """Return what of its URL must not show; nothing when it has neither user nor password."""
    url = proxy.reveal()
    credentials = urlsplit(url).netloc.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    return frozenset({url, password or user} if credentials else ())
