"""What the gate would say now of every server alone, under each policy: found out in the background, again and again.

It costs less than an eightieth of a core, whatever the size of the fleet: after each step it rests for eighty times as
long as the step took. Ten thousand servers under two policies take a few minutes; some dozens take seconds. Between two
sweeps it rests for as long as one takes, from ten seconds to a minute: hundreds of small accounts take half as much.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa
from msgspec.structs import replace

from patrolserver_exporter.gate.evidence import AccountHealth, gather_those
from patrolserver_exporter.gate.judge import judge
from patrolserver_exporter.gate.policy import BUILTIN, Policy
from patrolserver_exporter.gate.verdict import Verdict
from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.live.gate_series import Judged
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError
from patrolserver_exporter.store.queries import ServerKey
from patrolserver_exporter.store.tables import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.gate.evidence import Evidence
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.web.context import Accounts

log = logging.getLogger(__name__)
_AT_ONCE = 100
"""Servers that are judged in one step."""
_REST = 80.0
"""Times as long as a step took is rested after it."""
_BETWEEN, _BETWEEN_AT_MOST = 10.0, 60.0
"""Seconds from one sweep to the next."""
_HEALTH_HOLDS = 10.0
"""Seconds for which what is known of the accounts' APIs is used: of hundreds it costs as much as the step itself."""
_JOIN = 5.0

_NEXT = (
    sa.select(servers.c.account, servers.c.server_id)
    .where(
        sa.tuple_(servers.c.account, servers.c.server_id)
        > sa.tuple_(sa.bindparam("account"), sa.bindparam("server_id")),
        servers.c.gone_at.is_(None),
    )
    .order_by(servers.c.account, servers.c.server_id)
    .limit(_AT_ONCE)
)


class GateSweep:
    """Judges all servers, in a thread of its own; ``judged`` is what the last whole sweep found."""

    def __init__(  # noqa: PLR0913  # The parts that it looks at, and its pace.
        self,
        store: Store,
        accounts: Accounts,
        config: Callable[[], Config],
        *,
        clock: Clock,
        telemetry: Telemetry,
        rest: float = _REST,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._config = config
        self._clock = clock
        self._telemetry = telemetry
        self._rest = rest
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gate-sweep", daemon=True)
        self.judged: tuple[Judged, ...] = ()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.sweep()
            except StoreError as error:
                # A gate that is asked now does not let anything pass, whatever the last sweep found.
                self.judged = tuple(_unknown(judged) for judged in self.judged)
                log.debug("The servers cannot be judged now", extra=log_fields(err=str(error)))
            except Exception:
                self.judged = tuple(_unknown(judged) for judged in self.judged)
                self._telemetry.error("exposition")
                log.exception("The servers could not be judged; this is a bug")
            self._stop.wait(pause_after(time.monotonic() - began))

    def sweep(self) -> None:
        """Judge every server once; raises `StoreError`."""
        config = self._config()
        policies: dict[str, Policy] = {BUILTIN: Policy(), **config.gate.policies}
        accounts = [status.name for status in self._accounts.statuses()]
        found: dict[tuple[str, str], Counter[Verdict]] = defaultdict(Counter)
        for at_least, step in self._steps():
            began = time.thread_time()
            for one in step.evidence:
                for name, policy in policies.items():
                    verdict = judge(
                        [one],
                        policy,
                        max(self._now(), at_least),
                        waivers=config.issues.waivers,
                        exploit_risk=config.issues.exploit_risk,
                    ).verdict
                    found[str(one.account), name][verdict] += 1
            if self._stop.wait((step.cost + time.thread_time() - began) * self._rest):
                return
        self.judged = tuple(
            Judged(account=account, policy=policy, servers=found[account, policy])
            for account in accounts
            for policy in policies
        )

    def _now(self) -> float:
        # Stored times may not have followed the clock back yet.
        return self._clock.now() + self._accounts.clock_doubt

    def _steps(self) -> Iterator[tuple[float, _Step]]:
        """Evidence on all servers, some at a time, each with the time at which its reading began."""
        last: ServerKey | None = ServerKey("", 0)
        health: dict[str, AccountHealth] = {}
        looked_at = float("-inf")
        while last is not None:
            if time.monotonic() - looked_at >= _HEALTH_HOLDS:
                looked_at = time.monotonic()
                health = {one.name: one.health for one in self._accounts.statuses()}
            began = self._now()
            step = self._store.read_patiently(functools.partial(_read, after=last, health=health))
            yield began, step
            last = step.last


def pause_after(sweep: float) -> float:
    """Seconds from the end of a sweep that took so many to the next one."""
    return min(max(sweep, _BETWEEN), _BETWEEN_AT_MOST)


def _unknown(judged: Judged) -> Judged:
    return replace(judged, servers=Counter({Verdict.UNKNOWN: sum(judged.servers.values())}))


class _Step(NamedTuple):
    """Some servers."""

    last: ServerKey | None
    """Behind it the next step begins; ``None`` if this was the last one."""
    evidence: list[Evidence]
    cost: float
    """Seconds of a core that reading them took."""


def _read(connection: sa.Connection, *, after: ServerKey, health: Mapping[str, AccountHealth]) -> _Step:
    """The next servers of one account, or of as many small ones as come together."""
    began = time.thread_time()
    has_news = deliveries.doubts(connection).concern
    keys = [ServerKey(*row) for row in connection.execute(_NEXT, after._asdict())]
    evidence = gather_those(connection, keys, health, has_news)
    return _Step(keys[-1] if len(keys) == _AT_ONCE else None, evidence, time.thread_time() - began)
