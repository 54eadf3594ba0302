"""Where the pages are, and what a query string asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from patrolserver_exporter.issues.model import Severity
from patrolserver_exporter.store.views import FleetFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patrolserver_exporter.web.context import WebContext

_LONGEST = 200
"""Characters of a search or an account's name that are looked at."""
_LAST_PAGE = 100_000


@dataclass(frozen=True, slots=True)
class Paths:
    """Makes links. ``base`` is in front of every path, as browsers see it, without a slash at the end."""

    base: str = ""
    metrics: str = "/metrics"

    @classmethod
    def of(cls, context: WebContext) -> Paths:
        """Those of a service: a proxy that strips a path is only known by the external URL."""
        base = urlsplit(context.external_url).path.rstrip("/") if context.external_url else context.route_prefix
        return cls(quote(base), quote(base + context.telemetry_path))

    @property
    def home(self) -> str:
        """The fleet."""
        return f"{self.base}/"

    def fleet(self, wanted: FleetFilter, page: int = 1) -> str:
        """One page of the fleet; what is as usual is left out of the link."""
        query = {
            "q": wanted.search,
            "severity": wanted.severity.value if wanted.severity else "",
            "account": wanted.account or "",
            "page": str(page) if page > 1 else "",
        }
        encoded = urlencode({name: value for name, value in query.items() if value})
        return f"{self.home}?{encoded}" if encoded else self.home

    def server(self, server_id: int, account: str) -> str:
        """One server; the account is named, because ids are only unique within one."""
        return f"{self.base}/servers/{server_id}?{urlencode({'account': account})}"

    def api(self, path: str, **query: str) -> str:
        """Something of the JSON API."""
        encoded = f"?{urlencode(query)}" if query else ""
        return f"{self.base}/api/v1/{path}{encoded}"


def wanted_of(query: Mapping[str, str]) -> FleetFilter:
    """Read a filter; what makes no sense filters nothing."""
    try:
        severity = Severity(query.get("severity", ""))
    except ValueError:
        severity = None
    return FleetFilter(search=text_of(query, "q"), severity=severity, account=text_of(query, "account") or None)


def text_of(query: Mapping[str, str], name: str) -> str:
    """Read a text, cut to what a name can be; what a database cannot take is left out."""
    text = query.get(name, "").replace("\0", "").encode("utf-8", "ignore").decode()
    return text.strip()[:_LONGEST]


def page_of(query: Mapping[str, str]) -> int:
    """Read the number of the page, 1 for the first."""
    text = query.get("page", "")
    return min(max(int(text), 1), _LAST_PAGE) if text.isascii() and text.isdigit() and len(text) < 10 else 1
