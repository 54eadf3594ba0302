"""Where the pages are, and what a query string asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.store.queries import MAX_GLOBS, Selector, TooManyGlobs, selectors_of
from patrolserver_exporter.web.http.requests import ApiError
from patrolserver_exporter.web.selection import Chosen, NoLabel, NoSuch, label_of, refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from enum import StrEnum

    from patrolserver_exporter.web.context import WebContext
    from patrolserver_exporter.web.selection import Labels

    E = TypeVar("E", bound=StrEnum)

_LONGEST = 200
"""Characters of a search that are looked at."""
_LONGEST_VALUE = 2048
"""Characters of a filter: more than a glob has that chooses the longest name alone."""
_LAST_PAGE = 100_000
_WAIVED = {"true": True, "false": False, "both": None}
_SEVERAL = ("account", "server", "label", "severity", "kind", "software", "exploit")
_OF_LINK_TRACKERS = frozenset({"fbclid", "gclid", "msclkid"})


class Parameters(NamedTuple):
    """What a list can be asked beyond the filters, which all lists take."""

    states: tuple[str, ...] = ()
    sorts: tuple[str, ...] = ()
    days: tuple[str, ...] = ()
    paged_by: str = "page"

    @property
    def names(self) -> tuple[str, ...]:
        """All that it takes."""
        further = {"state": self.states, "sort": self.sorts, "days": self.days}
        return ("q", *_SEVERAL, "waived", *(name for name, has in further.items() if has), self.paged_by, "format")

    def choices(self, name: str) -> tuple[str, ...]:
        """The words that a parameter takes; empty when it takes others too."""
        return {
            "severity": tuple(one.value for one in Severity),
            "kind": tuple(one.value for one in Kind),
            "waived": tuple(_WAIVED),
            "state": self.states,
            "sort": self.sorts,
            "days": self.days,
            "format": ("csv",),
        }.get(name, ())


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
        found = Chosen(
            accounts=self.account,
            servers=tuple(map(Selector.of, self.server)),
            labels=tuple(map(label_of, self.label)),
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


def wanted_of(pairs: Iterable[tuple[str, str]], takes: Parameters, accounts: Sequence[str], labels: Labels) -> Wanted:
    """Read filters and order; a 400 that names what is wrong and what is allowed.

    ``accounts`` and ``labels`` are those there are.
    """
    given = given_of(pairs, takes.names)
    for name, values in given.items():
        _check(name, values, takes)
    several = {name: tuple(dict.fromkeys(map(cut, given.get(name, ())))) for name in _SEVERAL}
    _check_names(several, accounts, labels)
    one = {name: values[0] for name, values in given.items() if name not in _SEVERAL}
    return Wanted(
        search=cut(one.get("q", ""))[:_LONGEST].strip(),
        account=several["account"],
        server=several["server"],
        label=several["label"],
        severity=tuple(map(Severity, several["severity"])),
        kind=tuple(map(Kind, several["kind"])),
        software=several["software"],
        exploit=several["exploit"],
        waived=one.get("waived", ""),
        state=one.get("state", ""),
        sort=one.get("sort", ""),
        days=one.get("days", ""),
    )


def given_of(pairs: Iterable[tuple[str, str]], names: Sequence[str]) -> dict[str, list[str]]:
    """What is given of these parameters; a 400 for any other one. What is empty asks for nothing: forms send all."""
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        if name.startswith("utm_") or name in _OF_LINK_TRACKERS:
            continue
        if name not in names:
            raise ApiError(400, f"There is no parameter {_shown(name)} here; there are: {', '.join(names)}.")
        if "\0" in value:
            raise ApiError(400, f"{name} holds a NUL character.")
        if text := value.strip():
            given.setdefault(name, []).append(text)
    return given


def _check(name: str, values: Sequence[str], takes: Parameters) -> None:
    if name not in _SEVERAL and len(values) > 1:
        raise ApiError(400, f"{name} is given {len(values)} times; give it once.")
    choices = takes.choices(name)
    for value in values:
        word = value.removeprefix("-") if name == "sort" else value
        if choices and word not in choices:
            allowed = f"it is one of {', '.join(choices)}" if len(choices) > 1 else f"it is {choices[0]} or left out"
            turned = ", with a minus in front the other way round" if name == "sort" else ""
            raise ApiError(400, f"{name} cannot be {_shown(value)}; {allowed}{turned}.")
        if name in {"page", "before"} and not _is_number(value):
            raise ApiError(400, f"{name} cannot be {_shown(value)}; it is a number from 1.")
        if name != "q" and len(value) > _LONGEST_VALUE:
            raise ApiError(400, f"{name} has {len(value)} characters, and {_LONGEST_VALUE} are allowed.")


def _check_names(given: Mapping[str, Sequence[str]], accounts: Sequence[str], labels: Labels) -> None:
    try:
        refuse_unknown(given["account"], given["label"], accounts, labels)
    except NoLabel as error:
        raise ApiError(400, f"label is wrong: {error}") from None
    except NoSuch as error:
        raise ApiError(400, str(error)) from None
    try:
        selectors_of(given["server"])
    except TooManyGlobs as error:
        raise ApiError(400, str(error)) from None
    if (globs := sum(len(given[name]) for name in ("label", "software", "exploit"))) > MAX_GLOBS:
        raise ApiError(400, f"There are {globs} globs, and {MAX_GLOBS} are allowed.")


def _shown(text: str) -> str:
    return repr(text[:100])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and text.strip("0") != ""


def text_of(query: Mapping[str, str], name: str) -> str:
    """Read a text, cut to what a name can be."""
    return cut(query.get(name, ""))


def cut(text: str) -> str:
    """What of a text is looked at: what a database cannot take is left out."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode().strip()[:_LONGEST_VALUE].strip()


def page_of(query: Mapping[str, str]) -> int:
    """The number of the page, which `wanted_of` has checked; 1 for the first."""
    text = query.get("page", "").strip().lstrip("0")
    return min(int(text or "1"), _LAST_PAGE) if len(text) < 10 else _LAST_PAGE
