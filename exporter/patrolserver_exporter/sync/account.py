"""One account: its client, its budgets, its health and what is due on its servers."""

from __future__ import annotations

import bisect
import logging
import random
import threading
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.budget import RequestBudget
from patrolserver_exporter.patrolserver.client import PatrolServerClient
from patrolserver_exporter.sync.health import Health
from patrolserver_exporter.sync.rules import Rules
from patrolserver_exporter.sync.schedule import Job, Schedule, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Account, Config
    from patrolserver_exporter.config.secret import Secret
    from patrolserver_exporter.patrolserver.client import ApiCall

log = logging.getLogger(__name__)

EVENT_THREADS = 4
"""Events of one account that are fetched at the same time, at most."""
_POLLS_SHARE = 0.8
"""Part of the budget that the regular polls may plan with; the rest is for lists, scans and events."""
_FLEET_SHARE_FOR_EVENTS = 20


Listener: TypeAlias = "Callable[[str | None], None]"
"""Who waits for a poll; told the error, or ``None``."""


class Budgets(NamedTuple):
    """How many calls an account may make."""

    polls: RequestBudget
    """For lists, software and running scans."""
    events: RequestBudget


class WatchedAccount:
    """What several threads need of one account.

    ``lock`` guards what is mutable; hold it for moments only, never over a call.
    """

    def __init__(  # noqa: PLR0913  # What it is made of, by keyword.
        self,
        config: Config,
        account: Account,
        *,
        clock: Clock,
        observer: Callable[[ApiCall], None],
        draw: Callable[[], float] = random.random,
        budgets: Budgets | None = None,
    ) -> None:
        self.name = account.name
        self.account = account
        self.settings = config
        self.rules = Rules.of(config, account)
        self.draw = draw
        self._clock = clock
        self.lock = threading.Lock()
        self.health = Health(draw)
        self.schedule = Schedule()
        self.in_flight: set[Task] = set()
        self.again: set[Task] = set()
        """Tasks that became due while they ran; the running one may have started too early to count."""
        self.passed_over: set[int] = set()
        """Servers whose turn came while no call could be made."""
        self.stopping = False
        """It is watched anew, or no longer: nothing more is started or kept."""
        self.waiting: dict[int, list[Listener]] = {}
        """Who asked for a poll of a server and waits for its end; told the error, or ``None``."""
        self.failures: dict[int, int] = {}
        """Polls in a row that failed, by server."""
        self.server_ids: list[int] = []
        """The watched servers, ascending: the order in which they take turns."""
        self.list_read_at: float | None = None
        """Start of the last successful call for the server list, in seconds since the epoch."""
        self.client = PatrolServerClient(
            account.name,
            account.api_url,
            self._credentials,
            timeout=config.poll.timeout,
            proxy_url=account.proxy_url.reveal() if account.proxy_url else None,
            ca_file=account.ca_file,
            pool_size=config.poll.concurrency + EVENT_THREADS + 1,
            observer=observer,
            clock=clock,
        )
        polls, events = config.poll.max_requests_per_minute, self.events_per_minute
        self.budgets = budgets or Budgets(RequestBudget(polls, clock), RequestBudget(events, clock))
        self.polls, self.events = self.budgets
        self.polls.resize(polls)
        self.events.resize(events)
        self._stretched = False

    def is_as(self, config: Config, account: Account) -> bool:
        """Whether it is watched as this configuration wants it to be."""
        return (self.account, self.settings.poll, self.settings.webhook) == (account, config.poll, config.webhook)

    def _credentials(self) -> tuple[str, str]:
        return self.account.key.reveal(), self.account.secret.reveal()

    def reread_credentials(self) -> bool:
        """Read key and secret anew where they came from; True if one changed.

        A file that is missing or empty is about to be replaced: the value stays as it was.
        """
        return any([self._changed(self.account.key), self._changed(self.account.secret)])

    def _changed(self, secret: Secret) -> bool:
        try:
            return secret.reread()
        except ConfigError as error:
            log.warning("The credentials cannot be read anew", extra=log_fields(account=self.name, err=str(error)))
            return False

    def try_new_credentials(self, now: float) -> None:
        """If they changed, have the list call made at once (``now`` in monotonic seconds)."""
        if self.reread_credentials():
            log.info("The credentials changed, so they are tried at once", extra=log_fields(account=self.name))
            with self.lock:
                self.health.list_at = now

    @property
    def events_per_minute(self) -> int:
        """Calls for events that are allowed in a minute."""
        return max(self.settings.webhook.max_event_requests_per_minute, len(self.server_ids) // _FLEET_SHARE_FOR_EVENTS)

    @property
    def interval(self) -> float:
        """Seconds in which every server is polled once: as configured, or longer if the budget asks for it."""
        per_second = self.settings.poll.max_requests_per_minute * _POLLS_SHARE / 60.0
        return max(self.settings.poll.interval, len(self.server_ids) / per_second)

    def watch(self, server_ids: Iterable[int]) -> None:
        """These are the servers now: budgets and interval follow, and a stretched interval is logged once."""
        self.server_ids = sorted(server_ids)
        self.events.resize(self.events_per_minute)
        stretched = self.interval > self.settings.poll.interval
        if stretched and not self._stretched:
            log.warning(
                "The fleet needs more calls than poll.max_requests_per_minute allows, so the interval stretches",
                extra=log_fields(
                    account=self.name,
                    servers=len(self.server_ids),
                    interval_seconds=round(self.interval),
                    configured_seconds=round(self.settings.poll.interval),
                ),
            )
        self._stretched = stretched

    def plan_turn(self, task: Task, wait: float = 0.0) -> None:
        """Have a server's job done in ``wait`` seconds at the latest, unless the account no longer has the server."""
        with self.lock:
            if self.watches(task.server_id):
                self.schedule.put(task, self._clock.monotonic() + wait)

    def plan_spread(self, server_ids: Sequence[int]) -> None:
        """Poll these servers soon, spread over half of what the budget allows."""
        pace = 120.0 / self.settings.poll.max_requests_per_minute
        with self.lock:
            start = self._clock.monotonic()
            for place, server_id in enumerate(server_ids):
                self.schedule.put(Task(Job.POLL, server_id), start + pace * place)

    def watches(self, server_id: int) -> bool:
        """Whether the server is one of the account's."""
        place = bisect.bisect_left(self.server_ids, server_id)
        return place < len(self.server_ids) and self.server_ids[place] == server_id

    def turn_after(self, server_id: int, now: float) -> float:
        """Seconds to the server's next turn (``now`` in seconds since the epoch).

        Turns are spread evenly over the interval, in the order of the servers' ids, so that the series that change
        together stand together. A turn that would come right after ``now`` is skipped.
        """
        interval = self.interval
        place = bisect.bisect_left(self.server_ids, server_id) / max(len(self.server_ids), 1)
        wait = (place * interval - now) % interval
        return wait if wait > interval / 4 else wait + interval

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
