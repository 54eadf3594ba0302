"""``/`` and ``/servers/{id}``: rights, templates, answers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import logging
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response
from starlette.routing import Route

from patrolserver_exporter import __version__
from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.inbox.deliveries import unfinished
from patrolserver_exporter.issues.model import SEVERITIES
from patrolserver_exporter.live.encoding import accepts_gzip
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError
from patrolserver_exporter.store.views import FleetFilter, accounts_with, as_server_id, fleet_view, server_view
from patrolserver_exporter.web.access import Denied, authorise
from patrolserver_exporter.web.http.requests import Problem, phrase
from patrolserver_exporter.web.pages import fleet
from patrolserver_exporter.web.pages.accounts import FreshnessReader, account_views, exporter_view
from patrolserver_exporter.web.pages.connect import connect
from patrolserver_exporter.web.pages.notices import notices
from patrolserver_exporter.web.pages.paths import Paths, page_of, text_of, wanted_of
from patrolserver_exporter.web.pages.server import HISTORY, ISSUES, server_page
from patrolserver_exporter.web.pages.words import moment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import sqlalchemy as sa
    from starlette.requests import Request

    from patrolserver_exporter.web.access import Principal
    from patrolserver_exporter.web.context import WebContext


_PACKAGE = "patrolserver_exporter.web.pages"
_NAMES = ("fleet.html", "server.html", "choose.html", "problem.html")


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
        zipped = accepts_gzip(request.headers.get("accept-encoding"))
        body = await asyncio.to_thread(self._render, name, values, zipped=zipped)
        coding = {"content-encoding": "gzip"} if zipped else {}
        return Response(body, status, {**self._headers, **coding, **(headers or {})}, "text/html")

    def _render(self, name: str, values: Mapping[str, Any], *, zipped: bool) -> bytes:
        body = self._templates[name].render(values).encode("utf-8", "replace")
        return gzip.compress(body, 5, mtime=0) if zipped else body


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
_PATIENCE = 10.0
"""Seconds that a page waits for the store."""
_NO_BROWSER = "A browser cannot send a token: set basic_auth_users in the web configuration file (--web.config.file)."


class Pages:
    """The pages for people. Nothing on them changes anything."""

    def __init__(self, context: WebContext) -> None:
        self._context = context
        self._paths = Paths.of(context)
        self._templates = Templates()
        self._freshness = FreshnessReader(context.store, context.clock)

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/", self._guarded(self.fleet), methods=["GET"]),
            Route("/servers/{server_id}", self._guarded(self.server), methods=["GET"]),
        ]

    def _guarded(
        self, page: Callable[[Request, Principal], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        redact = self._context.redactor.redact

        async def answer(request: Request) -> Response:
            allowed = authorise(request.scope, Right.READ, self._context.tokens)
            if isinstance(allowed, Denied):
                return await self._problem(request, allowed.status, f"{allowed.detail} {_NO_BROWSER}", allowed)
            try:
                return await page(request, allowed)
            except (StoreError, TimeoutError) as error:
                reason = redact(str(error) or f"It did not answer within {_PATIENCE:g} seconds.")
                log.warning("A page cannot read the store", extra=log_fields(err=reason))
                response = await self._problem(request, 503, f"The state cannot be read right now. {reason}")
                response.headers["retry-after"] = "5"
                return response

        return answer

    async def fleet(self, request: Request, principal: Principal) -> Response:
        """Show the fleet, worst servers first."""
        context, now = self._context, self._context.clock.now()
        wanted, offset = wanted_of(request.query_params), (page_of(request.query_params) - 1) * fleet.ROWS
        view, inbox = await self._read(
            lambda connection: (
                fleet_view(connection, wanted, offset=offset, limit=fleet.ROWS),
                unfinished(connection),
            )
        )
        fresh = await asyncio.wait_for(self._freshness.read(), _PATIENCE)
        accounts = account_views(
            context.accounts.statuses(), view.accounts, inbox, fresh, redact=context.redactor.redact, now=now
        )
        failure = context.reload_failure()
        trouble = context.store.trouble
        found = notices(
            accounts,
            inbox,
            now=now,
            reload_failure=None if failure is None else context.redactor.redact(failure),
            store_trouble=None if trouble is None else context.redactor.redact(trouble.reason),
            waivers=context.config().issues.waivers,
        )
        values = {
            "verdict": fleet.verdict(view.totals, accounts, found),
            "summary": fleet.summary_line(view.totals, accounts),
            "totals": view.totals,
            "notices": found,
            "accounts": accounts,
            "exporter": exporter_view(inbox, ready=context.accounts.ready, writable=trouble is None),
            "tiles": fleet.tiles(view.totals, self._paths, FleetFilter()),
            "wanted": wanted,
            "filtered": wanted != FleetFilter(),
            "severities": [severity.value for severity in SEVERITIES],
            "rows": [fleet.row(summary, self._paths, now) for summary in view.rows],
            "pager": fleet.pager(view, wanted, self._paths),
            "connect": connect(context, request.scope, principal),
        }
        return await self._page(request, "fleet.html", values)

    async def server(self, request: Request, _principal: Principal) -> Response:
        """Show one server, or of which account one may want to see it.

        What is left of one that was removed is shown too, as a 410: links and monitors must not take it for watched.
        """
        text = request.path_params["server_id"]
        server_id = as_server_id(text)
        if server_id is None:
            return await self._problem(request, 404, f"{text[:200]} is no server's id; ids are numbers.")
        account = text_of(request.query_params, "account")
        owners = await self._read(lambda connection: accounts_with(connection, server_id))
        chosen = [name for name, _ in owners if not account or name == account]
        if len(chosen) > 1:
            values = {"server_id": server_id, "owners": owners}
            return await self._page(request, "choose.html", values, status=300)
        if not chosen:
            where = f"in account {account}" if account else "in any account"
            return await self._problem(request, 404, f"There is no server {server_id} {where}.")
        return await self._show_server(request, chosen[0], server_id)

    async def _show_server(self, request: Request, account: str, server_id: int) -> Response:
        view = await self._read(
            lambda connection: server_view(connection, account, server_id, issue_limit=ISSUES, history_limit=HISTORY)
        )
        if view is None:
            return await self._problem(request, 404, f"There is no server {server_id} in account {account} any more.")
        # In a thread, as a server may have a hundred thousand packages.
        page = await asyncio.to_thread(server_page, view, self._context.config().issues, self._context.clock.now())
        status = 200 if view.record.gone_at is None else 410
        return await self._page(request, "server.html", {"page": page}, status=status)

    async def _read(self, work: Callable[[sa.Connection], T]) -> T:
        return await asyncio.wait_for(self._context.store.read_async(work), _PATIENCE)

    async def _page(self, request: Request, name: str, values: dict[str, Any], *, status: int = 200) -> Response:
        return await self._templates.answer(request, name, {**values, **self._frame()}, status=status)

    async def _problem(self, request: Request, status: int, detail: str, denied: Denied | None = None) -> Response:
        headers = dict(denied.headers) if denied else {}
        if not accepts_html(request.headers.get("accept")):
            return Problem(status, detail=denied.detail if denied else detail, headers=headers)
        values = {"status": status, "title": phrase(status), "detail": detail, **self._frame()}
        return await self._templates.answer(request, "problem.html", values, status=status, headers=headers)

    def _frame(self) -> dict[str, Any]:
        now = self._context.clock.now()
        return {"paths": self._paths, "made": moment(now, now)}
