"""Sixteen APIs that fail in sixteen ways, for one exporter that watches them all."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.harness.fronts import Canary, TlsFront
from tests.harness.process import TOKEN

from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from pathlib import Path

SERVERS = 3


class Case(NamedTuple):
    """What an API does, and what its calls are said to fail of."""

    reason: str
    fault: dict[str, Any]


CASES = {
    "error": Case("server_error", {"kind": FaultKind.STATUS, "status": 500}),
    "wait-2": Case("rate_limited", {"kind": FaultKind.RATE_LIMIT, "retry_after": "2"}),
    "wait-negative": Case("rate_limited", {"kind": FaultKind.RATE_LIMIT, "retry_after": "-3"}),
    "wait-word": Case("rate_limited", {"kind": FaultKind.RATE_LIMIT, "retry_after": "soon"}),
    "wait-date": Case("rate_limited", {"kind": FaultKind.RATE_LIMIT, "retry_after": "date+2"}),
    "wait-past": Case("rate_limited", {"kind": FaultKind.RATE_LIMIT, "retry_after": "date-30"}),
    "wait-huge": Case("rate_limited", {"kind": FaultKind.RATE_LIMIT, "retry_after": "99999999999"}),
    "html": Case("unreadable", {"kind": FaultKind.HTML}),
    "half": Case("unreadable", {"kind": FaultKind.HALF_BODY}),
    "garbage": Case("unreadable", {"kind": FaultKind.GARBAGE}),
    "bomb": Case("too_large", {"kind": FaultKind.GZIP_BOMB}),
    "redirect": Case("redirect", {"kind": FaultKind.REDIRECT}),
    "error-200": Case("api_error", {"kind": FaultKind.ERROR_200}),
    "silent": Case("timeout", {"kind": FaultKind.HANG, "seconds": 60.0}),
    "tls": Case("tls", {}),
    "down": Case("connect", {}),
}
ACCOUNT = """\
  - name: {name}
    api_url: {api_url}
    key: {key}
    secret: {secret}
    webhook_tokens: [{token}]
"""
CONFIG = """\
poll: {{interval: 10s, concurrency: 2, max_requests_per_minute: 60000, timeout: 2s}}
issues: {{settle: 1s}}
store: {{url: "sqlite:///{folder}/state.db"}}
{extra}accounts:
"""


class Upstream:
    """One API for each case, and all that stands around them."""

    def __init__(
        self,
        folder: Path,
        *,
        key: str = "demo",
        secret: str = "demo",  # noqa: S107  # As the simulator's own.
        token: str = TOKEN,
    ) -> None:
        self._folder = folder
        self._key, self._secret, self._token = key, secret, token
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.canary = self._stack.enter_context(Canary())
        self.apis = {name: self._stack.enter_context(self._simulator(place)) for place, name in enumerate(CASES)}
        tls_port = int(self.apis["tls"].base_url.rpartition(":")[2])
        self.front = self._stack.enter_context(TlsFront(self._folder, tls_port))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _simulator(self, seed: int, port: int = 0) -> Simulator:
        options = SimulatorOptions(
            listen_address=f"127.0.0.1:{port}",
            servers=SERVERS,
            software=6,
            seed=seed,
            key=self._key,
            secret=self._secret,
        )
        return Simulator(options)

    def token(self, name: str) -> str:
        """The webhook's token of an account."""
        return f"{self._token}-{name}"

    def config(self, extra: str = "") -> str:
        """An account for each."""
        accounts = [
            ACCOUNT.format(
                name=name,
                api_url=self.front.url if name == "tls" else api.base_url,
                # JSON's texts are YAML's.
                **{k: json.dumps(v) for k, v in (("key", self._key), ("secret", self._secret))},
                token=json.dumps(self.token(name)),
            )
            + (f"    ca_file: {self.front.ca_file}\n" if name == "tls" else "")
            for name, api in self.apis.items()
        ]
        return CONFIG.format(folder=self._folder, extra=extra) + "".join(accounts)

    def fail(self) -> None:
        """Let each API fail in its way."""
        for name, case in CASES.items():
            if case.fault:
                self.apis[name].faults.add(Fault(**{"location": self.canary.url, **case.fault}))
        self.front.go_bad()
        self.apis["down"].stop()

    def work_again(self) -> None:
        """Let all be well."""
        for api in self.apis.values():
            api.faults.clear()
        self.front.go_good()
        port = int(self.apis["down"].base_url.rpartition(":")[2])
        place = list(CASES).index("down")
        self.apis["down"] = self._stack.enter_context(self._simulator(place, port))
