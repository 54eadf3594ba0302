"""Small fleets for the gate, and how it is asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import requests

from patrolserver_exporter.simulator.software import Change, Kind, Software

if TYPE_CHECKING:
    from tests.harness.process import Exporter

    from patrolserver_exporter.simulator.server import Simulator
    from patrolserver_exporter.simulator.world import Server

SOFTWARE = ("bash", "curl", "nginx", "php", "redis", "openssl")
CRITICAL = Change(Kind.EXPLOITABLE, SOFTWARE[-1], risk=9.8)
"""The last of a server's software becomes critical."""
MENDED = Change(Kind.MENDED)


class Answer(NamedTuple):
    """What the gate says."""

    verdict: str
    codes: frozenset[str]
    """Of the reasons that block."""


def add_server(simulator: Simulator, name: str, server_id: int | None = None, *, critical: bool = False) -> Server:
    """A server whose software is all fine, or all but the last."""
    world = simulator.world
    software = [Software(name=one.title(), canonical_name=one, version="1.2.3", supported=True) for one in SOFTWARE]
    server = world.add_server(world.demo, name, software=software, verified=True, server_id=server_id)
    if critical:
        world.change(server, CRITICAL)
    return server


def ask(exporter: Exporter, *servers: int | str, account: str | None = None, **policy: Any) -> Answer:
    """The verdict on some servers."""
    body = {"servers": list(servers), "policy": policy} | ({} if account is None else {"account": account})
    response = requests.post(f"{exporter.url}/api/v1/gate", json=body, timeout=10)
    assert response.status_code == 200, response.text
    told = response.json()
    return Answer(told["verdict"], frozenset(one["code"] for one in told["reasons"] if one["blocking"]))


def ask_for(seconds: float, exporter: Exporter, *servers: int | str, **policy: Any) -> dict[str, frozenset[str]]:
    """Every verdict that is given in so many seconds, with what blocked."""
    found: dict[str, frozenset[str]] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = ask(exporter, *servers, **policy)
        found[answer.verdict] = found.get(answer.verdict, frozenset()) | answer.codes
        time.sleep(0.05)
    return found
