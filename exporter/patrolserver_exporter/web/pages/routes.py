"""``/`` and ``/servers/{id}``: rights, templates, answers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import logging
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response
from starlette.routing import Route

from patrolserver_exporter import __version__
from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.gate.evidence import gather_those
from patrolserver_exporter.globs import literally
from patrolserver_exporter.inbox.deliveries import doubts as news
from patrolserver_exporter.inbox.deliveries import unfinished
from patrolserver_exporter.issues.model import SEVERITIES, ChangeKind, Kind
from patrolserver_exporter.issues.spread import ExploitKey, ExploitSpread, SoftwareSpread
from patrolserver_exporter.live.encoding import accepts_gzip
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError
from patrolserver_exporter.store.fleet import account_records
from patrolserver_exporter.store.queries import IssuesWanted, ServerKey, ServersWanted
from patrolserver_exporter.store.views import (
    Changed,
    FleetFilter,
    IssueOrder,
    Order,
    accounts_with,
    as_server_id,
    changed_since,
    fleet_keys,
    fleet_view,
    issues_view,
    server_view,
)
from patrolserver_exporter.web.access import Denied, authorise
from patrolserver_exporter.web.api import sheets
from patrolserver_exporter.web.api.lists import LIKE_CVE, Lists, coverage, in_parts
from patrolserver_exporter.web.http.requests import NOTHING_HERE, PLAIN_HEADERS, ApiError, Problem, phrase
from patrolserver_exporter.web.overview import Servers
from patrolserver_exporter.web.pages import fleet
from patrolserver_exporter.web.pages.accounts import StatesReader, account_views, exporter_view
from patrolserver_exporter.web.pages.changes import CHANGES, all_changes, some_changes
from patrolserver_exporter.web.pages.connect import connect
from patrolserver_exporter.web.pages.kept import Kept
from patrolserver_exporter.web.pages.lists import (
    DID,
    ROWS,
    change_line,
    columns,
    exploit_line,
    exploit_lines,
    issue_line,
    pager,
    software_groups,
    software_line,
)
from patrolserver_exporter.web.pages.notices import notices
from patrolserver_exporter.web.pages.paths import Parameters, Paths, given_of, page_of, text_of, wanted_of
from patrolserver_exporter.web.pages.server import HISTORY, ISSUES, gate_doubts, server_page
from patrolserver_exporter.web.pages.trend import DAYS, midnight, what_changed
from patrolserver_exporter.web.pages.words import moment
from patrolserver_exporter.web.selection import Chosen, Labels, keys_chosen, servers_with
from patrolserver_exporter.web.spreadsheet import MEDIA_TYPE, Streamed, begun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    import sqlalchemy as sa
    from starlette.requests import Request

    from patrolserver_exporter.web.access import Principal
    from patrolserver_exporter.web.api.sheets import Sheet
    from patrolserver_exporter.web.context import WebContext
    from patrolserver_exporter.web.pages.accounts import FleetStates
    from patrolserver_exporter.web.pages.paths import Wanted
    from patrolserver_exporter.web.pages.trend import WhatChanged


_PACKAGE = "patrolserver_exporter.web.pages"
_NAMES = (
    *("fleet.html", "server.html", "choose.html", "problem.html"),
    *("issues.html", "software.html", "exploits.html", "changes.html"),
)


class Templates:
    """The pages' templates, all compiled when this is built."""

    def __init__(self) -> None:
        style = resources.files(_PACKAGE).joinpath("templates", "style.css").read_text(encoding="utf-8")
        environment = Environment(
            loader=PackageLoader(_PACKAGE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        # The stylesheet is ours, and its hash is in the policy: nothing that a server is called gets into it.
        environment.globals.update(style=Markup(style), version=__version__)  # noqa: S704
        environment.filters["breaking"] = breaking
        self._templates = {name: environment.get_template(name) for name in _NAMES}
        self._headers = _headers(style)

    async def answer(
        self,
        request: Request,
        name: str,
        values: Mapping[str, Any],
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Render a page in a thread."""
        # Within TLS the length of a compressed page would tell of its content who can make a browser ask (BREACH).
        zipped = request.scope.get("scheme") != "https" and accepts_gzip(request.headers.get("accept-encoding"))
        body = await asyncio.to_thread(self._render, name, values, zipped=zipped)
        coding = {"content-encoding": "gzip"} if zipped else {}
        return Response(body, status, {**self._headers, **coding, **(headers or {})}, "text/html")

    def _render(self, name: str, values: Mapping[str, Any], *, zipped: bool) -> bytes:
        body = self._templates[name].render(values).encode("utf-8", "replace")
        return gzip.compress(body, 5, mtime=0) if zipped else body


def breaking(name: str) -> Markup:
    """A name that may break behind a dot, where people would break it."""
    return Markup(".<wbr>").join(name.split("."))


def _headers(style: str) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "content-security-policy": "; ".join(policy),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
        "vary": "accept, accept-encoding",
    }


def accepts_html(accept: str | None) -> bool:
    """Whether HTML is asked for by name: browsers do so, and scripts that take anything are better off with JSON."""
    for item in (accept or "").lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        refused = any(parameter.replace(" ", "") in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for parameter in parameters)
        if media_type in {"text/html", "application/xhtml+xml"} and not refused:
            return True
    return False


log = logging.getLogger(__name__)
T = TypeVar("T")
CHANGED_KEPT, SPREAD_KEPT = 60.0, 15.0
"""Seconds for which the counts of changes, and what is spread over the fleet, are shown again as they were read."""
_ISSUE_STATES = {"open": False, "fixed": True, "all": None}
_ISSUE_STATE_NAMES = {"fixed": "fixed", "all": "open and fixed"}
_ISSUE_COLUMNS = (
    ("worst", "Severity", False),
    ("software", "Software", False),
    ("server", "Server", False),
    ("newest", "Since", False),
)
_SOFTWARE_COLUMNS = (("worst", "Severity", False), ("name", "Software", False), ("servers", "Servers", False))
_EXPLOIT_COLUMNS = (("worst", "Severity", False), ("name", "Exploit", False), ("servers", "Servers", False))


def _keys(named: Iterable[tuple[str, str, bool]]) -> tuple[str, ...]:
    return tuple(key for key, _, _ in named)


_PARAMETERS = {
    "": Parameters(states=tuple(fleet.STATE_NAMES), sorts=("worst", *_keys(fleet.COLUMNS))),
    "issues": Parameters(states=tuple(_ISSUE_STATES), sorts=_keys(_ISSUE_COLUMNS)),
    "software": Parameters(sorts=_keys(_SOFTWARE_COLUMNS)),
    "exploits": Parameters(sorts=_keys(_EXPLOIT_COLUMNS)),
    "changes": Parameters(states=tuple(kind.value for kind in ChangeKind), days=("1", str(DAYS)), paged_by="before"),
}
"""By the name of the list."""


def is_csv(request: Request) -> bool:
    """Whether the list is wanted as CSV."""
    return request.query_params.get("format", "").strip() == "csv"


async def csv_of(sheet: Sheet, pages: AsyncIterator[Sequence[Any]], name: str) -> Response:
    """A list as CSV, which browsers save under that name."""
    headers = {
        **PLAIN_HEADERS,
        "content-type": MEDIA_TYPE,
        "content-disposition": f'attachment; filename="patrolserver-{name}.csv"',
    }
    return Streamed(await begun(sheet.parts(pages)), headers)


def _mentions(search: str, *texts: str | None) -> bool:
    """Whether one of the texts has the search in it."""
    return not search or any(text is not None and search.lower() in text.lower() for text in texts)


def _slice(rows: Sequence[T], request: Request) -> tuple[Sequence[T], int]:
    """The rows of the page that is asked for, past the end those of the last one, and where they begin."""
    at = min((page_of(request.query_params) - 1) * ROWS, max(len(rows) - 1, 0) // ROWS * ROWS)
    return rows[at : at + ROWS], at


class Way(NamedTuple):
    """Where to go on from a problem."""

    link: str
    text: str
    more: str = ""


_PATIENCE = 10.0
"""Seconds that a page waits for the store."""
_NO_BROWSER = "A browser cannot send a token: set basic_auth_users in the web configuration file (--web.config.file)."


class Pages:
    """The pages for people. Nothing on them changes anything."""

    def __init__(self, context: WebContext) -> None:
        self._context = context
        self._paths = Paths.of(context)
        self._templates = Templates()
        self._states = StatesReader(context.store, context.clock)
        self._changed = Kept[float, Changed](context.clock, CHANGED_KEPT)
        self._software = Kept[Chosen, tuple[list[SoftwareSpread], Servers]](context.clock, SPREAD_KEPT)
        self._exploits = Kept[Chosen, tuple[list[tuple[ExploitKey, ExploitSpread]], Servers]](
            context.clock, SPREAD_KEPT
        )

    def routes(self) -> list[Route]:
        """The routes."""
        pages = {
            "/": self.fleet,
            "/servers/{server_id}": self.server,
            "/issues": self.issues,
            "/software": self.software,
            "/exploits": self.exploits,
            "/changes": self.changes,
        }
        return [
            Route(path, self._guarded(page, Way(self._paths.base + path, "Show the whole list")), methods=["GET"])
            for path, page in pages.items()
        ]

    def _guarded(
        self, page: Callable[[Request, Principal], Awaitable[Response]], whole_list: Way
    ) -> Callable[[Request], Awaitable[Response]]:
        redact = self._context.redactor.redact

        async def answer(request: Request) -> Response:
            allowed = authorise(request.scope, Right.READ, self._context.tokens)
            if isinstance(allowed, Denied):
                return await self._problem(request, allowed.status, f"{allowed.detail} {_NO_BROWSER}", allowed)
            try:
                return await page(request, allowed)
            except ApiError as error:
                if is_csv(request):
                    return error.problem()
                return await self._problem(request, error.status, error.detail, way=whole_list)
            except (StoreError, TimeoutError) as error:
                reason = redact(str(error) or f"It did not answer within {_PATIENCE:g} seconds.")
                log.warning("A page cannot read the store", extra=log_fields(err=reason))
                response = await self._problem(request, 503, f"The state cannot be read right now. {reason}")
                response.headers["retry-after"] = "5"
                return response

        return answer

    # The fleet

    async def fleet(self, request: Request, principal: Principal) -> Response:
        """Show the fleet, worst servers first."""
        context = self._context
        wanted, lists = self._asked(request, "")
        now, offset = lists.now, (page_of(request.query_params) - 1) * ROWS
        sort, reverse = wanted.order
        filtered = await self._fleet_filter(wanted, lists)
        keys: list[ServerKey] | None = None
        if wanted.state in set(fleet.ServerState) or sort in fleet.SORTED_HERE:
            chosen = await self._read(lambda connection: fleet_keys(connection, filtered))
            keys = fleet.standing(chosen, (await self._standing()).servers, wanted.state, sort, reverse=reverse)
        if is_csv(request):
            if keys is None:
                keys = await self._read(lambda connection: fleet_keys(connection, filtered))
            servers = ServersWanted(keys=frozenset(keys))
            return await csv_of(fleet.SHEET, lists.servers_of(servers), "servers")
        # Side by side, since each takes a while of a large fleet.
        states, changed, (view, inbox) = await asyncio.gather(
            self._standing(),
            self._what_changed(now),
            self._read(
                lambda connection: (
                    fleet_view(connection, filtered, keys=keys, offset=offset, limit=ROWS),
                    unfinished(connection),
                )
            ),
        )
        accounts = account_views(
            context.accounts.statuses(),
            view.accounts,
            inbox,
            states.fresh,
            redact=context.redactor.redact,
            now=now,
            last_delivery_at=context.last_delivery_at,
            exporters=context.exporters(),
            follows=context.accounts.follows,
        )
        failure, trouble = context.reload_failure(), context.store.trouble
        found_notices = notices(
            accounts,
            inbox,
            now=now,
            reload_failure=None if failure is None else context.redactor.redact(failure),
            store_trouble=None if trouble is None else context.redactor.redact(trouble.reason),
            waivers=context.config().issues.waivers,
            refusal=context.last_refusal(),
            differing=context.differing(),
            follows=context.accounts.follows,
        )
        values = {
            "verdict": fleet.verdict(view.totals, accounts, found_notices, len(states.servers.doubts)),
            "summary": fleet.summary_line(view.totals, accounts),
            "totals": view.totals,
            "notices": found_notices,
            "accounts": accounts,
            "exporter": exporter_view(
                inbox, ready=context.accounts.ready, writable=trouble is None, follows=context.accounts.follows
            ),
            "tiles": fleet.tiles(view.totals, self._paths),
            "standing": fleet.standing_tiles(view.totals, states.servers, self._paths),
            "changed": changed,
            "columns": columns(wanted, "worst", fleet.COLUMNS, lambda one: self._paths.fleet(one) + "#servers"),
            "rows": [
                fleet.row(summary, self._paths, now, lists.labels.of(summary.account, summary.name))
                for summary in view.rows
            ],
            "pager": pager(
                offset=view.offset,
                shown=len(view.rows),
                matching=view.matching,
                link=lambda page: self._paths.fleet(wanted, page) + "#servers",
                noun="server",
            ),
            "connect": connect(context, request.scope, principal),
            **self._list_frame(wanted, lists, "", fleet.STATE_NAMES),
        }
        return await self._page(request, "fleet.html", values)

    def _asked(self, request: Request, name: str) -> tuple[Wanted, Lists]:
        """What a list was asked for, and what reads it."""
        lists = Lists(self._context)
        return wanted_of(request.query_params.multi_items(), _PARAMETERS[name], lists.watched, lists.labels), lists

    async def _standing(self) -> FleetStates:
        return await asyncio.wait_for(self._states.read(), _PATIENCE)

    async def _fleet_filter(self, wanted: Wanted, lists: Lists) -> FleetFilter:
        sort, reverse = wanted.order
        found: frozenset[ServerKey] = frozenset()
        if LIKE_CVE.match(wanted.search):
            asked = IssuesWanted(exploits=(f"*{literally(wanted.search)}*",))
            found = await asyncio.wait_for(servers_with(self._context.store.read_async, asked), _PATIENCE)
        here = sort in set(Order)
        return FleetFilter(
            servers=await asyncio.wait_for(lists.servers_wanted(wanted.chosen(of_servers=True)), _PATIENCE),
            search=wanted.search,
            found=found,
            order=Order(sort) if here else Order.WORST,
            reverse=reverse and (here or sort == "worst"),
        )

    async def _what_changed(self, now: float) -> WhatChanged:
        begin = midnight(now, DAYS)

        async def read() -> Changed:
            return await self._context.store.read_async(lambda connection: changed_since(connection, begin))

        changed = await asyncio.wait_for(self._changed.get(begin, read), _PATIENCE)
        return what_changed(changed, self._paths, now)

    def _list_frame(self, wanted: Wanted, lists: Lists, name: str, states: Mapping[str, str]) -> dict[str, Any]:
        """What the filters and headings of every list take."""
        return {
            "wanted": wanted,
            "filtered": wanted.is_filtered,
            "list_name": name,
            "states": states,
            "any_state": "open" if states is _ISSUE_STATE_NAMES else "any",
            "account_names": sorted(lists.watched),
            "label_values": lists.labels.values(),
            "severities": [severity.value for severity in SEVERITIES],
            "kinds": [kind.value for kind in Kind],
            "csv": self._paths.to(name, wanted, format="csv"),
        }

    # Lists over the fleet

    async def issues(self, request: Request, _principal: Principal) -> Response:
        """Show issues over the fleet, the worst first."""
        wanted, lists = self._asked(request, "issues")
        state = wanted.state or "open"
        issues = await asyncio.wait_for(
            lists.issues_wanted(wanted.chosen(), fixed=_ISSUE_STATES[state], search=wanted.search), _PATIENCE
        )
        if is_csv(request):
            return await csv_of(sheets.ISSUES, lists.issues(issues), "issues")
        sort, reverse = wanted.order
        order = IssueOrder(sort) if sort in set(IssueOrder) else IssueOrder.WORST
        offset = (page_of(request.query_params) - 1) * ROWS
        view = await self._read(
            lambda connection: issues_view(connection, issues, order=order, reverse=reverse, offset=offset, limit=ROWS)
        )
        servers, chosen = (await self._standing()).servers, wanted.chosen()
        if chosen.accounts or chosen.servers or chosen.labels:
            keys = await self._read(lambda connection: keys_chosen(connection, chosen, lists.labels, lists.watched))
            servers = servers.only(chosen.accounts, keys)
        values = {
            "rows": [issue_line(row, self._paths, lists.now) for row in view.rows],
            "columns": columns(wanted, "worst", _ISSUE_COLUMNS, lambda one: self._paths.to("issues", one)),
            "pager": pager(
                offset=view.offset,
                shown=len(view.rows),
                matching=view.matching,
                link=lambda page: self._paths.to("issues", wanted, page),
                noun="issue",
            ),
            "coverage": coverage(servers),
            **self._list_frame(wanted, lists, "issues", _ISSUE_STATE_NAMES),
        }
        return await self._page(request, "issues.html", values)

    async def software(self, request: Request, _principal: Principal) -> Response:
        """Show the software that is not fine, over the fleet."""
        wanted, lists = self._asked(request, "software")
        chosen = wanted.chosen()
        if is_csv(request):
            items, _ = await lists.software(chosen)
            kept = [one for one in items if _mentions(wanted.search, one.software, one.canonical_name)]
            return await csv_of(sheets.FLEET_SOFTWARE, in_parts(kept), "software")
        found, servers = await self._software.get(chosen, lambda: lists.software_spread(chosen))
        sort, reverse = wanted.order
        groups = [
            group
            for group in software_groups(found, sort, reverse=reverse)
            if _mentions(wanted.search, group.name, group.canonical_name)
        ]
        shown, at = _slice(groups, request)
        values = {
            "rows": [software_line(group, servers, wanted, self._paths) for group in shown],
            "columns": columns(wanted, "worst", _SOFTWARE_COLUMNS, lambda one: self._paths.to("software", one)),
            "pager": pager(
                offset=at,
                shown=len(shown),
                matching=len(groups),
                link=lambda page: self._paths.to("software", wanted, page),
                noun="software",
                nouns="software",
            ),
            "coverage": coverage(servers),
            **self._list_frame(wanted, lists, "software", {}),
        }
        return await self._page(request, "software.html", values)

    async def exploits(self, request: Request, _principal: Principal) -> Response:
        """Show known exploits, over the fleet."""
        wanted, lists = self._asked(request, "exploits")
        chosen = wanted.chosen()
        if is_csv(request):
            items, _ = await lists.exploits(chosen)
            kept = [one for _, one in items if _mentions(wanted.search, one.cve, one.id, one.title, *one.software)]
            return await csv_of(sheets.EXPLOITS, in_parts(kept), "exploits")
        found, servers = await self._exploits.get(chosen, lambda: lists.exploits_spread(chosen))
        sort, reverse = wanted.order
        rows = [
            (key, one)
            for key, one in exploit_lines(found, sort, reverse=reverse)
            if _mentions(wanted.search, one.cve, one.id, one.title, *one.software)
        ]
        shown, at = _slice(rows, request)
        values = {
            "rows": [exploit_line(key, one, servers, wanted, self._paths) for key, one in shown],
            "columns": columns(wanted, "worst", _EXPLOIT_COLUMNS, lambda one: self._paths.to("exploits", one)),
            "pager": pager(
                offset=at,
                shown=len(shown),
                matching=len(rows),
                link=lambda page: self._paths.to("exploits", wanted, page),
                noun="exploit",
            ),
            "coverage": coverage(servers),
            "threshold": f"{self._context.config().issues.exploit_risk:g}",
            **self._list_frame(wanted, lists, "exploits", {}),
        }
        return await self._page(request, "exploits.html", values)

    async def changes(self, request: Request, _principal: Principal) -> Response:
        """Show what happened to issues, the newest first."""
        wanted, lists = self._asked(request, "changes")
        days = int(wanted.days or DAYS)
        since = midnight(lists.now, days)
        kinds = [kind for kind in ChangeKind if wanted.state in {"", kind.value}]
        issues = await asyncio.wait_for(
            lists.issues_wanted(wanted.chosen(), fixed=None, search=wanted.search), _PATIENCE
        )
        if is_csv(request):
            pages = all_changes(self._context.store.read_async, issues, kinds, since)
            return await csv_of(CHANGES, pages, "changes")
        before = request.query_params.get("before", "").strip()
        start = int(before) if before and len(before) < 17 else None
        shown, on = await asyncio.wait_for(
            some_changes(self._context.store.read_async, issues, kinds, since, start), _PATIENCE
        )
        values = {
            "rows": [change_line(change, self._paths, lists.now) for change in shown],
            "days": days,
            "since": moment(since, lists.now),
            "changed": await self._what_changed(lists.now),
            "older": None if on is None else self._paths.to("changes", wanted, before=str(on)),
            "newest": self._paths.to("changes", wanted) if start is not None else None,
            **self._list_frame(wanted, lists, "changes", {kind.value: did for kind, did in DID.items()}),
        }
        return await self._page(request, "changes.html", values)

    # One server

    async def server(self, request: Request, _principal: Principal) -> Response:
        """Show one server, or of which account one may want to see it.

        What is left of one that was removed is shown too, as a 410: links and monitors must not take it for watched.
        """
        text = request.path_params["server_id"]
        server_id = as_server_id(text)
        if server_id is None:
            return await self._no_server(request, f"{text[:200]} is no server's id; ids are numbers.")
        given_of(request.query_params.multi_items(), ["account"])
        account = text_of(request.query_params, "account")
        owners = await self._read(lambda connection: accounts_with(connection, server_id))
        chosen = [name for name, _ in owners if not account or name == account]
        if len(chosen) > 1:
            values = {"server_id": server_id, "owners": owners}
            return await self._page(request, "choose.html", values, status=300)
        if not chosen:
            where = f"in account {account}" if account else "in any account"
            return await self._no_server(request, f"There is no server {server_id} {where}.")
        return await self._show_server(request, chosen[0], server_id)

    async def _show_server(self, request: Request, account: str, server_id: int) -> Response:
        rules, now = self._context.config().issues, self._context.now()
        health = {one.name: one.health for one in self._context.accounts.statuses()}
        view, of_account, evidence = await self._read(
            lambda connection: (
                server_view(connection, account, server_id, issue_limit=ISSUES, history_limit=HISTORY),
                account_records(connection).get(account),
                gather_those(connection, [ServerKey(account, server_id)], health, news(connection).concern),
            )
        )
        if view is None:
            return await self._no_server(request, f"There is no server {server_id} in account {account} any more.")
        # In a thread, as a server may have a hundred thousand packages.
        labels = Labels(self._context.config()).of(account, view.record.name)
        reachable = of_account is None or of_account.up is not False
        page = await asyncio.to_thread(
            server_page,
            view,
            rules,
            now,
            labels,
            reachable=reachable,
            gate_doubts=gate_doubts(evidence, now, rules.exploit_risk),
        )
        status = 200 if view.record.gone_at is None else 410
        return await self._page(request, "server.html", {"page": page}, status=status)

    async def _read(self, work: Callable[[sa.Connection], T]) -> T:
        return await asyncio.wait_for(self._context.store.read_async(work), _PATIENCE)

    async def _page(self, request: Request, name: str, values: dict[str, Any], *, status: int = 200) -> Response:
        return await self._templates.answer(request, name, {**values, **self._frame()}, status=status)

    async def not_found(self, request: Request, _error: Exception) -> Response:
        """Show the way to the first page; without the path, which may hold a webhook's token."""
        return await self._problem(request, 404, NOTHING_HERE, way=Way(self._paths.home, "See the first page"))

    async def _no_server(self, request: Request, detail: str) -> Response:
        way = Way(
            f"{self._paths.home}#servers", "See all servers", "; a server that was removed is forgotten after a while."
        )
        return await self._problem(request, 404, detail, way=way)

    async def _problem(
        self, request: Request, status: int, detail: str, denied: Denied | None = None, way: Way | None = None
    ) -> Response:
        headers = dict(denied.headers) if denied else {}
        if not accepts_html(request.headers.get("accept")):
            return Problem(status, detail=denied.detail if denied else detail, headers=headers)
        values = {"title": phrase(status), "detail": detail, "way": way, **self._frame()}
        return await self._templates.answer(request, "problem.html", values, status=status, headers=headers)

    def _frame(self) -> dict[str, Any]:
        now = self._context.clock.now()
        return {"paths": self._paths, "made": moment(now, now)}
