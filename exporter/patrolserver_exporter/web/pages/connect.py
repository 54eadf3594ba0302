"""How to connect Prometheus and PatrolServer's webhook: with the addresses at which this page was asked for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from patrolserver_exporter.web.access import header
from patrolserver_exporter.web.http.addresses import is_loopback

if TYPE_CHECKING:
    from starlette.types import Scope

    from patrolserver_exporter.web.access import Principal
    from patrolserver_exporter.web.context import WebContext

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_UNKNOWN = "this-host:10058"
TOKEN = "<token>"  # noqa: S105  # The placeholder; the tokens themselves never come near a page.


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """What people copy."""

    scrape_config: str
    """YAML for ``prometheus.yml``."""
    webhook_url: str | None
    """With a placeholder for the token; ``None`` when webhooks have a listener of their own."""
    only_local: bool
    """The address only leads here on this machine itself."""


def connect(context: WebContext, scope: Scope, principal: Principal) -> Connect:
    """Write it for the reader."""
    scheme, host, path = _address(context, scope)
    return Connect(
        scrape_config=_scrape_config(
            scheme, host, path + context.telemetry_path, principal, needs_token=context.tokens.guards_metrics
        ),
        webhook_url=f"{scheme}://{host}{path}/webhook/{TOKEN}" if context.webhook_here else None,
        only_local=is_loopback(urlsplit(f"//{host}").hostname or ""),
    )


def _address(context: WebContext, scope: Scope) -> tuple[str, str, str]:
    external = urlsplit(context.external_url)
    if external.netloc and _HOST.fullmatch(external.netloc):
        return external.scheme, external.netloc, external.path.rstrip("/")
    asked = header(scope, b"host") or ""
    return scope.get("scheme", "http"), asked if _HOST.fullmatch(asked) else _UNKNOWN, context.route_prefix


def _scrape_config(scheme: str, host: str, path: str, principal: Principal, *, needs_token: bool) -> str:
    lines = ["scrape_configs:", "  - job_name: patrolserver"]
    if scheme != "http":
        lines.append(f"    scheme: {scheme}")
    if path != "/metrics":
        lines.append(f"    metrics_path: {_quoted(path)}")
    if principal.name and not principal.is_token:
        lines += [
            "    basic_auth:",
            f"      username: {_quoted(principal.name)}",
            "      password_file: /path/to/password",
        ]
    elif needs_token:
        lines += ["    authorization:", "      credentials_file: /path/to/token"]
    lines += ["    static_configs:", f"      - targets: [{_quoted(host)}]"]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    # JSON's strings are YAML's.
    return json.dumps(text)
