"""One account: its client, its budgets, its health and what is due on its servers."""

from __future__ import annotations

import bisect
import datetime as dt
import logging
import random
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.client import PatrolServerClient, RequestBudget
from patrolserver_exporter.store import StoreUnavailable
from patrolserver_exporter.sync.health import LIST_EVERY, Health, Trouble
from patrolserver_exporter.sync.rules import Rules
from patrolserver_exporter.sync.schedule import Job, Schedule, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Account, Config
    from patrolserver_exporter.config.secret import Secret
    from patrolserver_exporter.patrolserver.client import ApiCall
    from patrolserver_exporter.patrolserver.errors import FailureReason, PatrolServerError
    from patrolserver_exporter.sync.ways import Unreached

log = logging.getLogger(__name__)

EVENTS_AT_ONCE = 4
"""Events of one account that are fetched at the same time, at most."""
_POLLS_SHARE = 0.8
"""Part of the budget that the regular polls may plan with; the rest is for lists, scans and events."""
_LOOKS_SHARE = 0.5
"""Part of what the regular polls leave that looks for unannounced scans may take."""
LOOK_EVERY = 60.0
"""Seconds from one such look at a server to the next, at least."""
_FLEET_SHARE_FOR_EVENTS = 20
_PAGE_PATIENCE = 120
"""Times, a second apart at most, that a page waits for its call before the list is taken for partial."""
_PATIENCE = 60.0
"""Seconds that somebody who asked for a poll waits for a pause to end, at most."""


OnPolled: TypeAlias = "Callable[[str | None], None]"
"""What is called when a poll has ended, with the error or ``None``."""


def calls_at_once(config: Config) -> int:
    """Calls of one account under way at the same time, at most: polls and scans, events, and the list's."""
    return config.poll.concurrency + EVENTS_AT_ONCE + 1


class Budgets(NamedTuple):
    """How many calls an account may make."""

    polls: RequestBudget
    """For lists, software and running scans."""
    events: RequestBudget


class Due(NamedTuple):
    """What is to be started now; all of it counts as taken."""

    list_servers: bool = False
    tasks: tuple[Task, ...] = ()
    passed_over: tuple[int, ...] = ()
    """Servers whose turn came while no call can be made."""
    refused: tuple[OnPolled, ...] = ()
    """Who asked for a poll that will not come about soon."""
    why: str = ""
    """Why it will not."""


class ApiStanding(NamedTuple):
    """How an account stands with its API."""

    trouble: Trouble
    detail: str | None
    """What the last failed list call said, free of credentials."""
    list_was_tried: bool
    """A list call has ended since the start, so that what is said of troubles holds."""
    reason: FailureReason | None = None
    """Why the last failed list call failed."""
    list_failures: int = 0
    """List calls in a row that failed."""
    list_at: float | None = None
    """When the next one is due, in seconds since the epoch."""


class ListStanding(NamedTuple):
    """What the last successful server list is worth."""

    complete: bool | None = None
    """It was whole; ``None`` before the first."""
    partial_because: tuple[str, ...] = ()
    """What says that it was not."""
    missing: int = 0
    """Servers that it lacked, which another list has to confirm."""


class Failing(NamedTuple):
    """A server's polls fail."""

    times: int
    since: float
    """Monotonic seconds."""


class Pause(NamedTuple):
    """The API asked the account to wait."""

    until: float
    """Seconds since the epoch."""
    reason: str
    """What it said, free of credentials."""


class RunningAccount:
    """What several threads need of one account.

    Its lock guards all that is mutable. It is held for moments only, never over a call.
    """

    def __init__(  # noqa: PLR0913  # What it is made of, by keyword.
        self,
        config: Config,
        settings: Account,
        *,
        clock: Clock,
        observer: Callable[[ApiCall], None],
        draw: Callable[[], float] = random.random,
        budgets: Budgets | None = None,
        hidden: Callable[[], Iterable[str]] = tuple,
        check_held: Callable[[], None] = lambda: None,
    ) -> None:
        """``check_held`` raises `StoreUnavailable` while another process may be the owner; no calls are made then."""
        self.name = settings.name
        self.draw = draw
        self._check_held = check_held
        self._clock = clock
        self._lock = threading.RLock()
        self._config = config
        self._settings = settings
        self._rules = Rules.of(config, settings)
        self._health = Health(draw, config.poll.max_pause)
        self._tries: dict[int, bool] = {}
        """Servers of which an operator wants one poll in spite of a pause, and whether it is under way."""
        self._trying_list = False
        """An operator wants to know whether the list call ends the pause."""
        self._schedule = Schedule()
        self._listing = False
        """The list call is under way."""
        self._in_flight: set[Task] = set()
        self._again: set[Task] = set()
        """Tasks that became due while they ran; the running one may have started too early to count."""
        self._passed_over: set[int] = set()
        """Servers whose turn came while no call could be made."""
        self._stopping = False
        self._stopped = threading.Event()
        self._awaiting: dict[int, list[OnPolled]] = {}
        """Who asked for a poll of a server and waits for its end."""
        self._failures: dict[int, Failing] = {}
        """Polls in a row that failed, by server."""
        self._server_ids: tuple[int, ...] = ()
        self._list_read_at: float | None = None
        self._observer = observer
        self._clock_offset: float | None = None
        self._list_standing = ListStanding()
        self._stretched = False
        self.client = PatrolServerClient(
            settings.name,
            settings.api_url,
            self._credentials,
            timeout=config.poll.timeout,
            proxy_url=settings.proxy_url.reveal() if settings.proxy_url else None,
            ca_file=settings.ca_file,
            pool_size=calls_at_once(config),
            observer=self._observe,
            before_call=check_held,
            before_page=self._wait_for_page,
            clock=clock,
            hidden=hidden,
        )
        polls, events = config.poll.max_requests_per_minute, self.events_per_minute
        self.budgets = budgets or Budgets(RequestBudget(polls, clock), RequestBudget(events, clock))
        self.budgets.polls.resize(polls)
        self.budgets.events.resize(events)

    # The configuration

    @property
    def config(self) -> Config:
        """The configuration in force."""
        with self._lock:
            return self._config

    @property
    def settings(self) -> Account:
        """The account's own part of it."""
        with self._lock:
            return self._settings

    @property
    def rules(self) -> Rules:
        """What it says of the account's issues and series."""
        with self._lock:
            return self._rules

    def is_configured_as(self, config: Config, settings: Account) -> bool:
        """Whether it can go on as it is under this configuration."""
        with self._lock:
            # Labels only show, so they interrupt nothing.
            mine = (replace(self._settings, labels=settings.labels), self._config.poll, self._config.webhook)
        return mine == (settings, config.poll, config.webhook)

    def adopt(self, config: Config, settings: Account, rules: Rules) -> None:
        """Go on under another configuration, for which `is_configured_as` holds."""
        with self._lock:
            self._config, self._settings, self._rules = config, settings, rules

    def _credentials(self) -> tuple[str, str]:
        settings = self.settings
        return settings.key.reveal(), settings.secret.reveal()

    def reread_credentials(self) -> bool:
        """Read key and secret again where they came from; True if one changed.

        A file that is missing or empty is about to be replaced: the value stays as it was.
        """
        settings = self.settings
        return any([self._changed(settings.key), self._changed(settings.secret)])

    def _changed(self, secret: Secret) -> bool:
        try:
            return secret.reread()
        except ConfigError as error:
            log.warning("The credentials cannot be read again", extra=log_fields(account=self.name, err=str(error)))
            return False

    def try_new_credentials(self) -> None:
        """If they are refused and have changed since, have the list call made at once."""
        if self.credentials_refused and self.reread_credentials():
            log.info("The credentials changed, so they are tried at once", extra=log_fields(account=self.name))
            with self._lock:
                self._health.list_at = self._clock.monotonic()

    def _observe(self, call: ApiCall) -> None:
        if call.clock_offset is not None:
            with self._lock:
                self._clock_offset = call.clock_offset
        self._observer(call)

    @property
    def clock_offset(self) -> float | None:
        """Seconds that our clock is ahead of the API's, by its last reply that told the time."""
        with self._lock:
            return self._clock_offset

    def _wait_for_page(self) -> bool:
        """Take a call for one more page of a list, which may take some time; False if there is none."""
        for _ in range(_PAGE_PATIENCE):
            if self.is_stopping:
                return False
            if self.budgets.polls.try_take():
                return True
            self._stopped.wait(min(self.budgets.polls.seconds_until_available(), 1.0))
        return False

    # The servers

    @property
    def server_ids(self) -> tuple[int, ...]:
        """The watched servers, ascending: the order in which they take turns."""
        with self._lock:
            return self._server_ids

    def has_server(self, server_id: int) -> bool:
        """Whether the server is one of the account's."""
        with self._lock:
            place = bisect.bisect_left(self._server_ids, server_id)
            return place < len(self._server_ids) and self._server_ids[place] == server_id

    def set_servers(self, server_ids: Iterable[int]) -> None:
        """These are the servers now: budgets and interval follow, and a stretched interval is logged once."""
        with self._lock:
            self._server_ids = tuple(sorted(server_ids))
            self.budgets.events.resize(self.events_per_minute)
            stretched = self.interval > self._config.poll.interval
            news, self._stretched = stretched and not self._stretched, stretched
        if news:
            log.warning(
                "The fleet needs more calls than poll.max_requests_per_minute allows, so the interval gets longer",
                extra=log_fields(
                    account=self.name,
                    servers=len(self.server_ids),
                    interval_seconds=round(self.interval),
                    configured_seconds=round(self.config.poll.interval),
                ),
            )

    def change_servers(
        self, *, added: Collection[int], gone: Collection[int], renamed: Collection[int]
    ) -> list[tuple[OnPolled, int]]:
        """Follow a list: new and renamed servers are due at once.

        Returns who waits for a poll of a server that is gone.
        """
        awaiting = []
        with self._lock:
            self.set_servers((set(self._server_ids) - set(gone)) | set(added))
            now = self._clock.monotonic()
            for server_id in gone:
                self._schedule.drop(server_id)
                self._failures.pop(server_id, None)
                awaiting += [(done, server_id) for done in self._awaiting.pop(server_id, ())]
            for server_id in (*added, *renamed):
                self._schedule.put(Task(Job.POLL, server_id), now)
        return awaiting

    @property
    def events_per_minute(self) -> int:
        """Calls for events that are allowed in a minute."""
        with self._lock:
            configured = self._config.webhook.max_event_requests_per_minute
            return max(configured, len(self._server_ids) // _FLEET_SHARE_FOR_EVENTS)

    @property
    def interval(self) -> float:
        """Seconds in which every server is polled once: as configured, or longer if the budget asks for it."""
        with self._lock:
            return poll_interval(self._config, len(self._server_ids))

    @property
    def look_interval(self) -> float | None:
        """Seconds from one look for an unannounced scan of a server to the next; ``None`` without calls to spare.

        Looks get half of what the regular polls leave of their part of the budget.
        """
        with self._lock:
            servers, per_minute = len(self._server_ids), self._config.poll.max_requests_per_minute
            spare = per_minute * _POLLS_SHARE - servers * 60.0 / self.interval
            looks = spare * _LOOKS_SHARE
            if looks < 1.0:
                return None
            return max(min(LOOK_EVERY, self._config.poll.interval), servers * 60.0 / looks)

    def plan_look(self, server_id: int, *, at_least: float = 0.0) -> None:
        """Look for an unannounced scan of the server after a while, if there are calls to spare.

        ``at_least``: not before so many seconds.
        """
        wait = self.look_interval
        if wait is not None:
            self.plan_turn(Task(Job.LOOK_FOR_SCAN, server_id), max(wait, at_least))

    # The schedule

    def plan(self, task: Task, wait: float = 0.0) -> None:
        """Have a server's job done in ``wait`` seconds at the latest."""
        with self._lock:
            self._schedule.put(task, self._clock.monotonic() + wait)

    def plan_turn(self, task: Task, wait: float = 0.0) -> None:
        """The same, unless the account no longer has the server."""
        with self._lock:
            if self.has_server(task.server_id):
                self.plan(task, wait)

    def plan_all(self, waits: Mapping[Task, float]) -> None:
        """Have these jobs done in so many seconds at the latest."""
        with self._lock:
            for task, wait in waits.items():
                self.plan(task, wait)

    def plan_spread(self, server_ids: Iterable[int]) -> None:
        """Poll these servers soon, spread over half of what the budget allows."""
        pace = 120.0 / self.config.poll.max_requests_per_minute
        self.plan_all({Task(Job.POLL, server_id): pace * place for place, server_id in enumerate(server_ids)})

    def turn_after(self, server_id: int, now: float) -> float:
        """Seconds to the server's next turn (``now`` in seconds since the epoch).

        Turns are spread evenly over the interval, in the order of the servers' ids, so that the series that change
        together stand together. A turn that would come right after ``now`` is skipped.
        """
        with self._lock:
            interval = self.interval
            place = bisect.bisect_left(self._server_ids, server_id) / max(len(self._server_ids), 1)
        wait = (place * interval - now) % interval
        return wait if wait > interval / 4 else wait + interval

    def take_due(self) -> Due:
        """Take what is due, as far as health, budget and ``poll.concurrency`` allow."""
        with self._lock:
            now, health = self._clock.monotonic(), self._health
            # First, since hundreds of accounts are asked a few times a second, and nearly all have nothing due.
            if self._stopping or not self._has_due(now) or not self._is_held():
                return Due()
            list_servers = not self._listing and now >= health.list_at and self.budgets.polls.try_take()
            self._listing = self._listing or list_servers
            if health.allows_calls(now):
                return Due(list_servers=list_servers, tasks=self._take_tasks(now))
            tries = self._take_tries()
            # Nobody may take for polled what will not be polled for hours.
            if health.trouble is Trouble.NONE and health.paused_until - now <= _PATIENCE:
                return Due(list_servers=list_servers, tasks=tries)
            return Due(
                list_servers=list_servers,
                tasks=tries,
                passed_over=self._pass_over(now),
                refused=self._take_all_awaiting(),
                why=self._why_paused() or health.detail or "the API asked to wait.",
            )

    def _has_due(self, now: float) -> bool:
        due_at = self._schedule.next_at()
        is_task_due = due_at is not None and due_at <= now
        return is_task_due or now >= self._health.list_at or bool(self._tries) or bool(self._awaiting)

    def _is_held(self) -> bool:
        try:
            self._check_held()
        except StoreUnavailable:
            return False
        return True

    def _take_tries(self) -> tuple[Task, ...]:
        taken = []
        for server_id, runs in self._tries.items():
            task = Task(Job.POLL, server_id)
            if not runs and task not in self._in_flight and self.budgets.polls.try_take():
                self._schedule.remove(task)
                self._in_flight.add(task)
                taken.append(task)
        self._tries.update((task.server_id, True) for task in taken)
        return tuple(taken)

    def _why_paused(self) -> str | None:
        pause = self.pause
        return None if pause is None else f"its calls are paused until {_utc(pause.until)}: {pause.reason}"

    def _take_tasks(self, now: float) -> tuple[Task, ...]:
        taken: list[Task] = []
        polls = self.budgets.polls
        while len(self._in_flight) < self._config.poll.concurrency:
            due_at = self._schedule.next_at()
            if due_at is None or due_at > now or not polls.try_take():
                break
            task = self._schedule.pop_due(now)
            if task is None:
                break
            if task in self._in_flight:
                self._again.add(task)
                polls.give_back(1)
                continue
            self._in_flight.add(task)
            taken.append(task)
        return tuple(taken)

    def _pass_over(self, now: float) -> tuple[int, ...]:
        passed = []
        while (task := self._schedule.pop_due(now)) is not None:
            if task.job is Job.CHECK_SCAN:
                self._schedule.put(task, now + LIST_EVERY)
            elif task.job is Job.LOOK_FOR_SCAN:
                # The next poll plans another one.
                continue
            elif task.server_id not in self._passed_over:
                passed.append(task.server_id)
        self._passed_over.update(passed)
        return tuple(passed)

    def task_ended(self, task: Task) -> None:
        """A task from `take_due` ended, well or not."""
        with self._lock:
            self._in_flight.discard(task)
            if task.job is Job.POLL:
                self._tries.pop(task.server_id, None)
            if task in self._again:
                self._again.discard(task)
                self.plan(task)

    @property
    def has_listed(self) -> bool:
        """A list call has ended since the start, and what it brought is kept, or could not be; none is under way."""
        with self._lock:
            return self._health.list_was_tried and not self._listing

    def list_ended(self) -> None:
        """The list call from `take_due` ended, well or not."""
        with self._lock:
            self._listing = False

    def take_passed_over(self) -> list[int]:
        """Those that are still watched, ascending, to be polled now; none while no call can be made."""
        with self._lock:
            if not self._health.allows_calls(self._clock.monotonic()):
                return []
            passed_over, self._passed_over = sorted(self._passed_over), set()
            return [server_id for server_id in passed_over if self.has_server(server_id)]

    def give_turns_back(self, server_ids: Collection[int], wait: float) -> None:
        """Servers that could not be marked as passed over have their turn again in ``wait`` seconds."""
        with self._lock:
            self._passed_over.difference_update(server_ids)
            for server_id in server_ids:
                self.plan_turn(Task(Job.POLL, server_id), wait)

    # Who waits for a poll

    def await_poll(self, server_id: int, done: OnPolled) -> str | None:
        """Call ``done`` when the server's next poll has ended; returns why there will be none."""
        with self._lock:
            if self._stopping:
                return stopped(self.name)
            if not self.has_server(server_id):
                return unknown(self.name, server_id)
            if (why := self._why_paused()) is not None and server_id not in self._tries:
                now = self._clock.monotonic()
                if self._health.trouble is Trouble.CREDENTIALS or not self._health.try_in_pause(now):
                    return f"The account {self.name} cannot be polled now: {why}"
                self._tries[server_id] = False
            self._awaiting.setdefault(server_id, []).append(done)
            return None

    def take_awaiting(self, server_id: int) -> list[OnPolled]:
        """Who waits for a poll of the server; they have to be told."""
        with self._lock:
            return self._awaiting.pop(server_id, [])

    def _take_all_awaiting(self) -> tuple[OnPolled, ...]:
        kept = {} if self._stopping else {i: done for i, done in self._awaiting.items() if i in self._tries}
        waiting = tuple(done for i, of_server in self._awaiting.items() if i not in kept for done in of_server)
        self._awaiting = kept
        return waiting

    # How calls ended

    @property
    def list_read_at(self) -> float | None:
        """Start of the last call that brought a whole server list, in seconds since the epoch."""
        with self._lock:
            return self._list_read_at

    @property
    def list_standing(self) -> ListStanding:
        """What the last successful server list is worth."""
        with self._lock:
            return self._list_standing

    def list_was_read(self, standing: ListStanding, started_at: float | None = None) -> None:
        """A list is in the state, of a call that started then, or of an earlier run."""
        with self._lock:
            self._list_standing = standing
            if standing.complete and started_at is not None:
                self._list_read_at = started_at

    def follow_clock(self, step: float) -> None:
        """The system's clock was set by ``step`` seconds."""
        with self._lock:
            if self._list_read_at is not None:
                self._list_read_at += step

    def list_succeeded(self) -> bool:
        """The list call succeeded; True if that ended a trouble."""
        with self._lock:
            if self._trying_list and not self._tries:
                self._health.end_pause()
            self._trying_list = False
            return self._health.listed(self._clock.monotonic(), self._config.poll.interval)

    def list_failed(self, error: PatrolServerError) -> tuple[bool, Trouble]:
        """The list call failed: whether that began a trouble or changed its nature, and which it is."""
        with self._lock:
            self._trying_list = False
            began = self._health.list_failed(self._clock.monotonic(), error, self._config.poll.interval)
            return began, self._health.trouble

    def call_succeeded(self, polled: int | None = None) -> bool:
        """A call other than the list's succeeded: the poll of this server, or another one.

        True if it was a try that ended a pause.
        """
        with self._lock:
            self._health.call_succeeded()
            if polled is None:
                return False
            self._failures.pop(polled, None)
            ended = self._tries.pop(polled, False) and self.pause is not None
            if ended:
                self._health.end_pause()
            return ended

    def call_failed(self, error: PatrolServerError, server_id: int | None = None) -> bool:
        """A call other than the list's failed, for this server or for an event; True if that began a pause."""
        with self._lock:
            before = self.pause
            self._health.call_failed(self._clock.monotonic(), error, server_id)
            return self.pause != before

    def wait_for(self, error: PatrolServerError) -> float | None:
        """Seconds that the API asked to wait, at most ``poll.max_pause``."""
        return self._health.wait_for(error)

    @property
    def pause(self) -> Pause | None:
        """Until when the account makes no calls, because the API asked to wait."""
        with self._lock:
            left = self._health.paused_until - self._clock.monotonic()
            if left <= 0:
                return None
            return Pause(round(self._clock.now() + left), self._health.pause_reason or "the API asked to wait")

    def go_on_pausing(self, pause: Pause, *, without_list: bool) -> None:
        """A pause of an earlier run goes on; ``without_list``: it was the list call that the API put off."""
        with self._lock:
            left = min(pause.until - self._clock.now(), self._config.poll.max_pause)
            if left > 0:
                until = self._clock.monotonic() + left
                self._health.pause(until, pause.reason)
                if without_list:
                    self._health.list_at = until

    def go_on_in_trouble(self, before: ApiStanding) -> None:
        """Another exporter could not use the API; its next list call is made when that one would have made it."""
        with self._lock:
            wait = min(max((before.list_at or 0.0) - self._clock.now(), 0.0), self._config.poll.max_pause)
            self._health.go_on_in_trouble(
                before.trouble, before.detail, before.reason, before.list_failures, self._clock.monotonic() + wait
            )

    def try_list(self) -> None:
        """Ask for the server list at once; one that is answered ends a pause."""
        with self._lock:
            now = self._clock.monotonic()
            if self.pause is None:
                self._health.ask_for_list(now)
            elif self._health.try_in_pause(now):
                self._trying_list = True

    def poll_failed(self, server_id: int) -> int:
        """The call for a server's software failed; returns how often it did so in a row."""
        with self._lock:
            before = self._failures.get(server_id, Failing(0, self._clock.monotonic()))
            failing = before._replace(times=before.times + 1)
            if self.has_server(server_id):
                self._failures[server_id] = failing
            return failing.times

    def failures_of(self, server_id: int) -> int:
        """How often the call for a server's software has failed in a row."""
        with self._lock:
            failing = self._failures.get(server_id)
            return 0 if failing is None else failing.times

    def failing_for(self, seconds: float) -> dict[int, Failing]:
        """Servers whose polls have all failed for so long."""
        with self._lock:
            before = self._clock.monotonic() - seconds
            return {i: failing for i, failing in self._failures.items() if failing.since <= before}

    def ask_for_list(self, wait: float = 0.0) -> None:
        """Make the list call due in ``wait`` seconds at the latest, unless a trouble spaces such calls out."""
        with self._lock:
            self._health.ask_for_list(self._clock.monotonic() + wait)

    def allows_events(self) -> bool:
        """Whether events may be fetched now."""
        with self._lock:
            return self._is_held() and self._health.allows_events(self._clock.monotonic())

    @property
    def credentials_refused(self) -> bool:
        """Whether the last list call said so."""
        with self._lock:
            return self._health.trouble is Trouble.CREDENTIALS

    @property
    def standing(self) -> ApiStanding:
        """How it stands with its API."""
        with self._lock:
            health = self._health
            list_at = self._clock.now() + max(health.list_at - self._clock.monotonic(), 0.0)
            return ApiStanding(
                health.trouble, health.detail, health.list_was_tried, health.reason, health.list_failures, list_at
            )

    @property
    def unreached(self) -> Unreached | None:
        """How its list calls fail, if somebody else might reach the API."""
        with self._lock:
            return self._health.unreached(self._clock.monotonic())

    # Its end

    @property
    def is_stopping(self) -> bool:
        """It was restarted or removed: nothing more is started or kept."""
        with self._lock:
            return self._stopping

    def stop(self) -> tuple[OnPolled, ...]:
        """Start nothing more; returns who waits for a poll."""
        with self._lock:
            self._stopping = True
            waiting = self._take_all_awaiting()
        self._stopped.set()
        self.client.close()
        return waiting


def poll_interval(config: Config, servers: int) -> float:
    """Seconds in which each of so many servers is polled once."""
    per_second = config.poll.max_requests_per_minute * _POLLS_SHARE / 60.0
    return max(config.poll.interval, servers / per_second)


def _utc(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def unknown(account: str, server_id: int) -> str:
    """Why a server is not polled."""
    return f"Server {server_id} is no longer in account {account}."


def stopped(account: str) -> str:
    """Why nothing of an account is polled."""
    return f"The account {account} is no longer watched as it was; ask again."
