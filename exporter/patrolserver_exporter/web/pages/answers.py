"""Pages as answers: templates that are compiled once, and headers under which nothing foreign can run."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

from patrolserver_exporter import __version__
from patrolserver_exporter.exposition.coding import accepts_gzip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

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
