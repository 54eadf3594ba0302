"""The threads that make the calls: one pool for all accounts, which none of them can take for itself.

How much an account may have under way at the same time is its own business (``poll.concurrency``, its budgets). The
pool decides whose turn it is while threads are scarce:

- An account that has less under way goes first; of equal ones the one that has waited for longest.
- The last threads are only for accounts that have nothing under way.
- Accounts whose API is slow or silent together get no more than about half of the threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from patrolserver_exporter.logs import log_fields

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

THREADS: Final = 40
"""Threads, at most, unless one account alone may use more."""
RESERVED: Final = 8
"""Of these, those that only accounts may take that have nothing under way."""
SLOW: Final = 2.0
"""Seconds that a call takes whose account then counts as slow, until one of its calls takes less."""


_IDLE_NAME: Final = "call"


class _Job(NamedTuple):
    work: Callable[..., None]
    arguments: tuple[Any, ...]
    urgent: bool


class CallThreads:
    """Starts threads as they are needed, up to ``size`` of them; they end with `close`.

    ``size`` grows when an account is let in that may have more under way at once (``at_most``).
    """

    def __init__(
        self,
        size: int = THREADS,
        *,
        reserved: int = RESERVED,
        slow: float = SLOW,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size
        self._reserved = reserved
        self._monotonic = monotonic
        self._slow = slow
        self._slow_at_most = size // 2
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._ended = threading.Condition(self._lock)
        self._waiting: dict[AccountThreads, None] = {}
        """Accounts with jobs that wait; first the one that has waited for longest."""
        self._accounts: dict[AccountThreads, None] = {}
        """Accounts with jobs under way."""
        self._busy = 0
        self._idle = 0
        self._threads = 0
        self._closed = False
        self._moved_at = self._monotonic()

    def of(self, account: str, at_most: int) -> AccountThreads:
        """Let an account in, which never has more than ``at_most`` jobs under way at the same time."""
        with self._lock:
            self._size = max(self._size, at_most + self._reserved)
            self._slow_at_most = max(self._slow_at_most, at_most)
        return AccountThreads(self, account)

    @property
    def last_progress(self) -> float:
        """When a job last went on (monotonic seconds): began, made a call, or ended; now, while none waits."""
        with self._lock:
            return self._moved_at if self._waiting else self._monotonic()

    def note_call(self) -> None:
        """A job made a call. One that reads a list page by page may take minutes, and does not hang."""
        with self._lock:
            self._moved_at = self._monotonic()

    def close(self) -> None:
        """Take no more jobs; threads end when they have nothing to do."""
        with self._lock:
            self._closed = True
            self._work.notify_all()

    def _put(self, account: AccountThreads, job: _Job) -> None:
        with self._lock:
            if self._closed:
                return
            (account.urgent if job.urgent else account.waiting).append(job)
            if account not in self._waiting:
                if not self._waiting:
                    self._moved_at = self._monotonic()
                self._waiting[account] = None
            self._call_a_thread()

    def _call_a_thread(self) -> None:
        if self._idle:
            self._work.notify()
        elif self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._run, name=_IDLE_NAME, daemon=True).start()

    def _drop(self, account: AccountThreads) -> None:
        with self._lock:
            account.waiting.clear()
            if not account.urgent:
                self._waiting.pop(account, None)
            self._ended.notify_all()

    def _join(self, account: AccountThreads, patience: float) -> bool:
        with self._lock:
            return self._ended.wait_for(lambda: not account.is_busy, patience)

    def _run(self) -> None:
        thread = threading.current_thread()
        while (taken := self._take()) is not None:
            account, job, began = taken
            # For whoever looks at what hangs.
            thread.name = f"{'event' if job.urgent else 'poll'}-{account.name}"
            try:
                job.work(*job.arguments)
            except Exception:
                log.exception("A call's thread met a bug", extra=log_fields(account=account.name))
            # Nothing of it stays in a variable: a reply may be large, and the next job far off.
            del job, taken
            thread.name = _IDLE_NAME
            self._end(account, began)

    def _take(self) -> tuple[AccountThreads, _Job, float] | None:
        """Wait for a job; ``None`` once there will be none."""
        with self._lock:
            while (account := self._next()) is None:
                if self._closed and not self._waiting:
                    self._threads -= 1
                    return None
                self._idle += 1
                self._work.wait()
                self._idle -= 1
            del self._waiting[account]
            job = (account.urgent or account.waiting).popleft()
            if account.has_waiting:
                # Behind those that wait already.
                self._waiting[account] = None
            began = self._moved_at = self._monotonic()
            account.under_way.append(began)
            self._accounts[account] = None
            self._busy += 1
            if self._waiting:
                self._call_a_thread()
            return account, job, began

    def _end(self, account: AccountThreads, began: float) -> None:
        with self._lock:
            self._moved_at = self._monotonic()
            account.was_slow = self._moved_at - began >= self._slow
            account.under_way.remove(began)
            if not account.under_way:
                del self._accounts[account]
            self._busy -= 1
            if not account.is_busy:
                self._ended.notify_all()

    def _next(self) -> AccountThreads | None:
        """Whose turn it is; ``None`` if nobody may have the thread."""
        if not self._waiting:
            return None
        now = self._monotonic()
        slow = None
        if self._busy >= self._slow_at_most:
            slow = sum(len(account.under_way) for account in self._accounts if account.is_slow(now, self._slow))
        may_have = self._waiting if slow is None or slow < self._slow_at_most else self._quick(now)
        account = min(may_have, key=lambda one: len(one.under_way), default=None)
        if account is None or (account.under_way and self._size - self._busy <= self._reserved):
            return None
        return account

    def _quick(self, now: float) -> list[AccountThreads]:
        return [account for account in self._waiting if not account.is_slow(now, self._slow)]


class AccountThreads:
    """What one account has waiting and under way in the pool. Made by `CallThreads.of`, which guards what it holds."""

    def __init__(self, pool: CallThreads, name: str) -> None:
        self.name = name
        self._pool = pool
        self.waiting: deque[_Job] = deque()
        self.urgent: deque[_Job] = deque()
        self.under_way: list[float] = []
        """When each job under way began; monotonic seconds."""
        self.was_slow = False

    @property
    def has_waiting(self) -> bool:
        """Whether jobs wait for a thread."""
        return bool(self.urgent or self.waiting)

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or is under way."""
        return bool(self.under_way) or self.has_waiting

    def is_slow(self, now: float, after: float) -> bool:
        """Whether its last call took long, or one that is under way does."""
        return self.was_slow or (bool(self.under_way) and now - min(self.under_way) >= after)

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have a thread do it; does nothing once the pool is closed."""
        self._pool._put(self, _Job(work, arguments, urgent=False))  # noqa: SLF001  # Its other half.

    def submit_urgent(self, work: Callable[..., None], *arguments: Any) -> None:
        """The same, before what else the account has waiting, and also if the account is stopped meanwhile."""
        self._pool._put(self, _Job(work, arguments, urgent=True))  # noqa: SLF001  # Its other half.

    def drop_waiting(self) -> None:
        """Forget what has not begun, the urgent left aside."""
        self._pool._drop(self)  # noqa: SLF001  # Its other half.

    def join(self, patience: float) -> bool:
        """Wait until nothing waits or runs, at most ``patience`` seconds; False if something still does.

        A call to a silent API cannot hold up a stop for its whole time-out.
        """
        return self._pool._join(self, patience)  # noqa: SLF001  # Its other half.
