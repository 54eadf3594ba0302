"""What is counted of each account: its calls of the API, its budget, and what could not be read or taken in.

There may be hundreds of accounts with some 300 series each, of which a scrape finds few changed. So the counters are
plain numbers, and their lines are kept finished.
"""

from __future__ import annotations

from bisect import bisect_left
from threading import Lock
from typing import TYPE_CHECKING, Final

from prometheus_client.utils import floatToGoString

from patrolserver_exporter.live.blocks import Rows, describe
from patrolserver_exporter.live.encoding import encodable
from patrolserver_exporter.live.families import SeriesFamily, escape, histogram_lines, number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from patrolserver_exporter.live.encoding import Format, Piece

REQUEST_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BOUND_LABELS = tuple(floatToGoString(bound) for bound in (*REQUEST_BOUNDS, float("inf")))  # type: ignore[no-untyped-call]

_REQUESTS = SeriesFamily("patrolserver_exporter_api_requests", "Calls of the PatrolServer API.", "counter")
_FAILURES = SeriesFamily(
    "patrolserver_exporter_api_request_failures", "Calls of the PatrolServer API that failed.", "counter"
)
_DURATIONS = SeriesFamily(
    "patrolserver_exporter_api_request_duration_seconds", "Duration of PatrolServer API calls.", "histogram"
)
_OF_CALLS = (_REQUESTS, _FAILURES, _DURATIONS)
_BUDGET = SeriesFamily(
    "patrolserver_exporter_api_budget_available_requests", "Calls that the account's budget allows right now."
)
_INTERVAL = SeriesFamily(
    "patrolserver_exporter_poll_interval_seconds", "Effective interval between two polls of a server."
)
_OVERFLOWS = SeriesFamily(
    "patrolserver_exporter_inbox_overflows",
    "Deliveries accepted without room in the inbox; a catch-up poll takes their place.",
    "counter",
)
_ODDITIES = SeriesFamily(
    "patrolserver_exporter_wire_oddities",
    "Values in PatrolServer's replies that could not be read and were left out.",
    "counter",
)
_OF_ACCOUNT = (_BUDGET, _INTERVAL, _OVERFLOWS, _ODDITIES)


class _Calls:
    """The calls of one endpoint."""

    __slots__ = ("counts", "failures", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUND_LABELS)
        self.seconds = 0.0
        self.failures: dict[str, int] = {}

    def lines(self, account: str, endpoint: str) -> list[str]:
        labels = f'account="{escape(account)}",endpoint="{escape(endpoint)}"'
        failures = [
            f'{_FAILURES.name}_total{{{labels},reason="{escape(reason)}"}} {number(count)}\n'
            for reason, count in self.failures.items()
        ]
        return [
            f"{_REQUESTS.name}_total{{{labels}}} {number(sum(self.counts))}\n",
            "".join(failures),
            histogram_lines(_DURATIONS.name, (labels, ""), _BOUND_LABELS, self.counts, self.seconds),
        ]


class _Account:
    """What is counted without a further label; what is ``None`` has no series."""

    __slots__ = ("budget", "interval", "oddities", "overflows")

    def __init__(self) -> None:
        self.budget: float | None = None
        self.interval: float | None = None
        self.overflows: int | None = None
        self.oddities: int | None = None

    def lines(self, account: str) -> list[str]:
        labels = f'{{account="{escape(account)}"}}'
        values = (self.budget, self.interval, self.overflows, self.oddities)
        return [
            "" if value is None else f"{family.sample_name}{labels} {number(value)}\n"
            for family, value in zip(_OF_ACCOUNT, values, strict=True)
        ]


class AccountCounters:
    """The counters of all accounts. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls: dict[tuple[str, str], _Calls] = {}
        self._accounts: dict[str, _Account] = {}
        self._calls_changed: dict[tuple[str, str], None] = {}
        """A dictionary, since it keeps the order in which series came."""
        self._accounts_changed: dict[str, None] = {}
        self._call_rows: Rows[tuple[str, str]] = Rows(_OF_CALLS)
        self._account_rows: Rows[str] = Rows(_OF_ACCOUNT)

    def describe(self) -> Iterable[Metric]:
        """Give the families without samples."""
        return describe((*_OF_CALLS, *_OF_ACCOUNT))

    def pieces(self, chosen: Format, names: frozenset[str] | None) -> list[Piece]:
        """Give them as they are now; with ``names`` only samples so named."""
        with self._lock:
            for key in self._calls_changed:
                self._call_rows.put(key, self._calls[key].lines(*key))
            for account in self._accounts_changed:
                self._account_rows.put(account, self._accounts[account].lines(account))
            self._calls_changed.clear()
            self._accounts_changed.clear()
            return [*self._call_rows.pieces(chosen, names), *self._account_rows.pieces(chosen, names)]

    def watch(self, account: str, endpoints: Iterable[str], reasons: Iterable[str]) -> None:
        """Start the account's closed sets at zero, or the first failure of its kind would be no increase."""
        reasons = tuple(reasons)
        with self._lock:
            for endpoint in endpoints:
                calls = self._calls_of(account, endpoint)
                calls.failures = dict.fromkeys(reasons, 0) | calls.failures
            mine = self._account_of(account)
            mine.overflows, mine.oddities = mine.overflows or 0, mine.oddities or 0

    def forget(self, account: str) -> None:
        """End all series of an account."""
        account = encodable(account)
        with self._lock:
            for key in [key for key in self._calls if key[0] == account]:
                del self._calls[key]
                self._calls_changed.pop(key, None)
                self._call_rows.remove(key)
            if self._accounts.pop(account, None) is not None:
                self._accounts_changed.pop(account, None)
                self._account_rows.remove(account)

    def call(self, account: str, endpoint: str, seconds: float, reason: str | None) -> None:
        """Count a call and its duration; ``reason`` is why it failed, if it did."""
        with self._lock:
            calls = self._calls_of(account, endpoint)
            calls.counts[bisect_left(REQUEST_BOUNDS, seconds)] += 1
            calls.seconds += seconds
            if reason is not None:
                calls.failures[reason] = calls.failures.get(reason, 0) + 1

    def set_budget(self, account: str, calls: float) -> None:
        """Tell how many calls the account's budget allows."""
        with self._lock:
            if (known := self._accounts.get(encodable(account))) is None or known.budget != calls:
                self._account_of(account).budget = calls

    def set_interval(self, account: str, seconds: float) -> None:
        """Tell the interval between two polls of a server."""
        with self._lock:
            if (known := self._accounts.get(encodable(account))) is None or known.interval != seconds:
                self._account_of(account).interval = seconds

    def disown(self, account: str) -> None:
        """End what only the exporter that polls the account knows: another one shows it from now on."""
        with self._lock:
            if encodable(account) in self._accounts:
                mine = self._account_of(account)
                mine.budget = mine.interval = None

    def overflow(self, account: str) -> None:
        """Count a delivery without room in the inbox."""
        with self._lock:
            mine = self._account_of(account)
            mine.overflows = (mine.overflows or 0) + 1

    def oddity(self, account: str, count: int) -> None:
        """Count values that could not be read."""
        with self._lock:
            mine = self._account_of(account)
            mine.oddities = (mine.oddities or 0) + count

    def _calls_of(self, account: str, endpoint: str) -> _Calls:
        """Those that are about to change."""
        key = encodable(account), endpoint
        self._calls_changed[key] = None
        return self._calls.setdefault(key, _Calls())

    def _account_of(self, account: str) -> _Account:
        """The one that is about to change."""
        account = encodable(account)
        self._accounts_changed[account] = None
        return self._accounts.setdefault(account, _Account())
