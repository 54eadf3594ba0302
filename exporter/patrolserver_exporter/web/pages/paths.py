"""Where the pages are, and what a query string asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.store.queries import MAX_GLOBS, Selector
from patrolserver_exporter.web.selection import Chosen, NoLabel, label_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from enum import StrEnum

    from patrolserver_exporter.web.context import WebContext

    E = TypeVar("E", bound=StrEnum)

_LONGEST = 200
"""Characters of a search or a name that are looked at."""
_LAST_PAGE = 100_000
_MOST = 50
"""Values of one filter that are looked at; fewer than there may be globs."""
_WAIVED = {"true": True, "false": False, "both": None}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a page was asked to show; everything, in the usual order, by default. The API's filters mean the same."""

    search: str = ""
    account: tuple[str, ...] = ()
    server: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    severity: tuple[Severity, ...] = ()
    kind: tuple[Kind, ...] = ()
    software: tuple[str, ...] = ()
    exploit: tuple[str, ...] = ()
    waived: str = ""
    state: str = ""
    sort: str = ""
    """A column; with a minus in front the other way round."""
    days: str = ""

    @property
    def query(self) -> list[tuple[str, str]]:
        """As pairs of a query string; what is as usual is left out."""
        found: list[tuple[str, str]] = []
        for name, value in msgspec.structs.asdict(self).items():
            key = "q" if name == "search" else name
            found += [(key, str(one)) for one in (value if isinstance(value, tuple) else (value,)) if one]
        return found

    @property
    def is_filtered(self) -> bool:
        """Whether anything is left out."""
        return msgspec.structs.replace(self, sort="", days="") != Wanted()

    @property
    def order(self) -> tuple[str, bool]:
        """The column to sort by, and whether the other way round."""
        return self.sort.removeprefix("-"), self.sort.startswith("-")

    def chosen(self, *, of_servers: bool = False) -> Chosen:
        """The filters, as every list takes them; in one of servers, waived issues count only if that is asked."""
        labels = []
        for text in self.label:
            try:
                labels.append(label_of(text))
            except NoLabel:
                continue
        found = Chosen(
            accounts=self.account,
            servers=tuple(map(Selector.of, self.server)),
            labels=tuple(labels),
            severities=self.severity,
            kinds=self.kind,
            software=self.software,
            exploits=self.exploit,
            waived=_WAIVED.get(self.waived),
        )
        if of_servers and not self.waived and found.by_issue:
            return msgspec.structs.replace(found, waived=False)
        return found


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

    def to(self, name: str, wanted: Wanted | None = None, page: int = 1, **more: str) -> str:
        """A page of a list: ``name`` is issues, software, exploits or changes, or empty for servers."""
        pairs = [*(wanted.query if wanted else ()), *more.items()]
        if page > 1:
            pairs.append(("page", str(page)))
        encoded = urlencode(pairs)
        return f"{self.base}/{name}?{encoded}" if encoded else f"{self.base}/{name}"

    def fleet(self, wanted: Wanted, page: int = 1) -> str:
        """One page of the fleet."""
        return self.to("", wanted, page)

    def server(self, server_id: int, account: str) -> str:
        """One server; the account is named, because ids are only unique within one."""
        return f"{self.base}/servers/{server_id}?{urlencode({'account': account})}"

    def api(self, path: str, **query: str) -> str:
        """Something of the JSON API."""
        encoded = f"?{urlencode(query)}" if query else ""
        return f"{self.base}/api/v1/{path}{encoded}"


def wanted_of(pairs: Iterable[tuple[str, str]]) -> Wanted:
    """Read filters and order; what makes no sense filters nothing."""
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        if text := cut(value):
            given.setdefault(name, []).append(text)
    several = {name: tuple(dict.fromkeys(values))[:_MOST] for name, values in given.items()}

    def last(name: str) -> str:
        return given.get(name, [""])[-1]

    globs = MAX_GLOBS // 2
    return Wanted(
        search=last("q"),
        account=several.get("account", ()),
        server=several.get("server", ()),
        label=several.get("label", ()),
        severity=_choices(Severity, several.get("severity", ())),
        kind=_choices(Kind, several.get("kind", ())),
        software=several.get("software", ())[:globs],
        exploit=several.get("exploit", ())[:globs],
        waived=last("waived") if last("waived") in _WAIVED else "",
        state=last("state"),
        sort=last("sort"),
        days=last("days") if last("days") in {"1", "7"} else "",
    )


def _choices(kind: type[E], given: Iterable[str]) -> tuple[E, ...]:
    known: dict[str, Any] = {one.value: one for one in kind}
    return tuple(known[one] for one in given if one in known)


def text_of(query: Mapping[str, str], name: str) -> str:
    """Read a text, cut to what a name can be."""
    return cut(query.get(name, ""))


def cut(text: str) -> str:
    """What of a text is looked at: what a database cannot take is left out."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode().strip()[:_LONGEST].strip()


def page_of(query: Mapping[str, str]) -> int:
    """Read the number of the page, 1 for the first."""
    text = query.get("page", "")
    return min(max(int(text), 1), _LAST_PAGE) if text.isascii() and text.isdigit() and len(text) < 10 else 1
