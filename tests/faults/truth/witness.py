"""Tells the model what the simulator really sends: the bytes, beside the plain truth, and when."""

from __future__ import annotations

import json
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from tests.faults.truth.replies import read_sheet

from patrolserver_exporter.simulator.api import CONTROL, Api
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.simulator.webhooks import Postman

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Message, Receive, Scope, Send
    from tests.faults.truth.model import Model

    from patrolserver_exporter.simulator.exchange import Answer
    from patrolserver_exporter.simulator.options import SimulatorOptions
    from patrolserver_exporter.simulator.replies import Request
    from patrolserver_exporter.simulator.webhooks import Webhook

_TRUE: ContextVar[bytes | None] = ContextVar("true", default=None)
"""What the reply to the present call would be if no rule altered it."""


class WitnessedApi(Api):
    """The simulator's API, watched."""

    def __init__(self, simulator: Simulator, model: Model) -> None:
        super().__init__(
            simulator.world,
            style=simulator.options.style,
            faults=simulator.faults,
            replies=simulator.replies,
            control=simulator.control.application(),
        )
        self._model = model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and tell what is sent before the last byte leaves."""
        if scope["type"] != "http" or scope["path"].startswith(CONTROL):
            await super().__call__(scope, receive, send)
            return
        arrived = time.monotonic()
        _TRUE.set(None)
        status, headers, body = 0, dict[str, str](), b""

        async def watched(message: Message) -> None:
            nonlocal status, headers, body
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message["headers"]
                }
            else:
                body += message.get("body", b"")
                self._tell(scope, arrived, status, headers, body, cut=message.get("more_body", False))
            await send(message)

        await super().__call__(scope, receive, watched)

    def _as_ordered(self, request: Request, answer: Answer) -> Answer:
        _TRUE.set(answer.body)
        return super()._as_ordered(request, answer)

    def _tell(
        self, scope: Scope, arrived: float, status: int, headers: Mapping[str, str], body: bytes, *, cut: bool
    ) -> None:
        left, model = time.monotonic(), self._model
        plain = _TRUE.get()
        true: Any = None if plain is None else json.loads(plain)["data"]
        sheet = read_sheet(status, headers, body, cut=cut)
        pages = parse_qs(scope["query_string"].decode("latin-1")).get("page", ["1"])
        page = int(pages[0])
        match scope["path"].strip("/").split("/"):
            case ["servers"]:
                model.list_served(page, arrived, left, sheet)
            case ["servers", server_id, "software"]:
                model.software_served(int(server_id), page, arrived, left, sheet, true)
            case ["webhooks", webhook_id, "events", event_id]:
                model.event_served((int(webhook_id), int(event_id)), left, sheet, true)


class WitnessedPostman(Postman):
    """The simulator's postman, watched."""

    def __init__(self, model: Model) -> None:
        super().__init__(timeout=5.0)
        self._model = model

    def _send(self, webhook: Webhook, url: str, payload: Mapping[str, object]) -> int:
        sent = time.monotonic()
        status = super()._send(webhook, url, payload)
        if status == 202:
            place = int(str(payload["webhook_id"])), int(str(payload["event_id"]))
            self._model.delivered(place, str(payload["identifier"]), sent, time.monotonic())
        return status


def witnessed(options: SimulatorOptions, model: Model) -> Simulator:
    """A simulator that tells the model everything; not started yet."""
    simulator = Simulator(options)
    simulator.postman.close()
    simulator.postman = WitnessedPostman(model)
    simulator.api = WitnessedApi(simulator, model)
    simulator.requests = simulator.api.requests
    return simulator
