"""The peer of ``bench_webhook.py``: ``webhook_peer.py DATABASE PORT``."""

from __future__ import annotations

import sqlite3
import sys
import time
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
database.execute("PRAGMA synchronous=FULL")
database.execute("CREATE TABLE inbox (webhook_id, event_id, identifier, received_at, UNIQUE (webhook_id, event_id))")


async def webhook(request: Request) -> JSONResponse:
    """Write it, then answer."""
    fields = await request.json()
    database.execute(
        "INSERT OR IGNORE INTO inbox VALUES (?, ?, ?, ?)",
        (fields["webhook_id"], fields["event_id"], fields["identifier"], time.time()),
    )
    return JSONResponse({"status": "accepted"}, 202)


if __name__ == "__main__":
    app = Starlette(routes=[Route("/webhook/{token}", webhook, methods=["POST"])])
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
