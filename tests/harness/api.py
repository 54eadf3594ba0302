"""The JSON API over a real store and a real socket, with accounts that a test moves by hand."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import requests
from msgspec.structs import replace
from tests.serving import serving
from tests.unit.sync.accounts import rules

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.config.schema import Account, ApiToken, Config, Gate, Issues, Scope
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.issues.summary import summarise
from patrolserver_exporter.live.effects import FeedGrew, InboxMoved
from patrolserver_exporter.logs import Redactor
from patrolserver_exporter.patrolserver.models import Server
from patrolserver_exporter.store import Store, fleet, history
from patrolserver_exporter.store.fleet import ServerRecord, ServerState
from patrolserver_exporter.sync import operations
from patrolserver_exporter.sync.statuses import AccountStatus
from patrolserver_exporter.web.access import BearerTokens, Guard
from patrolserver_exporter.web.api import api_routes
from patrolserver_exporter.web.context import WebContext
from patrolserver_exporter.web.http.protocol import ConnectionLimits
from patrolserver_exporter.web.http.requests import main_app, not_found_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tests.serving import Served

    from patrolserver_exporter.issues.model import Change, Issue, Waiver
    from patrolserver_exporter.patrolserver.models import Software
    from patrolserver_exporter.store import Unit

ALL = tuple(Scope)
OPERATOR_TOKEN = "token-of-the-operator"
BY_DEFAULT = rules().classification
"""The mark of what was judged without any settings."""


@dataclass
class SetTime:
    """A clock that a test sets; monotonic time goes along."""

    at: float

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.at

    def monotonic(self) -> float:
        """The same."""
        return self.at


@dataclass
class Accounts:
    """What watches the accounts: statuses as set, refreshes end when the test says so, or at once."""

    names: list[str] = field(default_factory=lambda: ["main"])
    refused: set[str] = field(default_factory=set)
    trouble: str | None = None
    list_was_tried: bool = True
    waiting: list[tuple[str, int, Callable[[str | None], None]]] = field(default_factory=list)
    ready: bool = True
    follows: bool = True
    store: Store | None = None
    """Where refreshes are asked for."""
    clock_doubt: float = 0.0

    def begin_refreshes(self) -> None:
        """Note those that were asked for, for the test to end."""
        store = self.store
        assert store is not None
        while begun := store.run(lambda unit: operations.begin(unit, operations.pending(unit.connection, self.names))):
            self.waiting += [(one.account, one.server_id, partial(self._end, store, one.id)) for one in begun]

    @staticmethod
    def _end(store: Store, refresh_id: str, error: str | None) -> None:
        store.run(lambda unit: operations.finish(unit, [refresh_id], error))

    def statuses(self) -> tuple[AccountStatus, ...]:
        """As set."""
        return tuple(
            AccountStatus(
                name=name,
                servers=0,
                poll_interval=900.0,
                trouble=self.trouble,
                credentials_refused=name in self.refused,
                list_was_tried=self.list_was_tried,
                webhook=True,
            )
            for name in self.names
        )


@dataclass
class ServedApi:
    """A running API, asked as the machine's operator."""

    store: Store
    accounts: Accounts
    served: Served
    redactor: Redactor
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.headers["authorization"] = f"Bearer {OPERATOR_TOKEN}"

    @property
    def url(self) -> str:
        """Of the listener."""
        return f"http://127.0.0.1:{self.served.port}"

    def get(self, path: str, **arguments: Any) -> requests.Response:
        """GET below /api/v1."""
        return self.session.get(f"{self.url}/api/v1{path}", timeout=30, **arguments)

    def post(self, path: str, **arguments: Any) -> requests.Response:
        """POST below /api/v1."""
        return self.session.post(f"{self.url}/api/v1{path}", timeout=30, **arguments)

    def delete(self, path: str, **arguments: Any) -> requests.Response:
        """DELETE below /api/v1."""
        return self.session.delete(f"{self.url}/api/v1{path}", timeout=30, **arguments)

    def gate(self, *servers: int | str, account: str | None = None, **policy: Any) -> Any:
        """The gate's answer."""
        body: dict[str, Any] = {"servers": list(servers), "policy": policy}
        response = self.post("/gate", json=body | ({} if account is None else {"account": account}))
        assert response.status_code == 200, response.text
        return response.json()

    def pages(self, path: str, limit: int, **query: Any) -> list[list[Any]]:
        """The items of every page of a list."""
        pages, cursor = [], None
        while True:
            page = self.get(path, params={"limit": limit, **query} | ({"cursor": cursor} if cursor else {})).json()
            pages.append(page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return pages


@contextmanager
def serving_api(
    store_url: str,
    *,
    clock: Any = None,
    waivers: Sequence[Waiver] = (),
    tokens: Sequence[ApiToken] = (),
    gate: Gate | None = None,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    address: str = "127.0.0.1:0",
    turn_timeout: float = 20.0,
) -> Iterator[ServedApi]:
    """Open the store and serve the API."""
    on_feed: list[Callable[[], None]] = []
    on_inbox: list[Callable[[], None]] = []

    def publish(effects: list[object]) -> None:
        for kind, listeners in ((FeedGrew, on_feed), (InboxMoved, on_inbox)):
            if any(isinstance(effect, kind) for effect in effects):
                for listener in listeners:
                    listener()

    account = Account(
        name="main",
        key=Secret.literal("key-of-main"),
        secret=Secret.literal("secret-of-main"),
        labels=labels or {},
    )
    config = Config(accounts=(account,), issues=Issues(waivers=tuple(waivers)), gate=gate or Gate())
    accounts, redactor = Accounts(), Redactor()
    with Store(store_url, publish, turn_timeout=turn_timeout) as store:
        accounts.store = store
        context = WebContext(
            store=store,
            accounts=accounts,
            tokens=BearerTokens(tokens, operator=Secret.literal(OPERATOR_TOKEN)),
            clock=clock or SystemClock(),
            config=lambda: config,
            redactor=redactor,
            on_feed=on_feed.append,
            on_inbox=on_inbox.append,
        )
        app = Guard(main_app(api_routes(context), metrics=not_found_app, webhook=None), None, context.tokens)
        with serving(app, limits=ConnectionLimits(), address=address) as served:
            yield ServedApi(store, accounts, served, redactor)


def token(name: str, *scopes: Scope) -> ApiToken:
    """A token whose value is ``token-of-`` and its name."""
    return ApiToken(name=name, token=Secret.literal(f"token-of-{name}"), scopes=frozenset(scopes))


def put_server(
    unit: Unit,
    server_id: int,
    name: str,
    *,
    account: str = "main",
    issues: Iterable[Issue] = (),
    software: tuple[Software, ...] | None = (),
    polled_at: float | None = None,
    **state: Any,
) -> ServerRecord:
    """Keep a server, its software and its issues, as a poll at that moment would."""
    issues = [replace(issue, account=account, server_id=server_id) for issue in issues]
    known = ServerState(
        **({"last_poll_at": polled_at, "complete_poll_at": polled_at, "poll_success": polled_at is not None} | state)
    )
    summary = summarise(
        account=account,
        server=Server(id=server_id, name=name),
        software=None if polled_at is None else software,
        issues=issues,
        exploit_risk=5.0,
        scanning=known.scanning,
        last_scan_at=known.last_scan_at,
        last_poll_at=known.last_poll_at,
        poll_success=known.poll_success,
    )
    summary = replace(summary, classified_by=BY_DEFAULT)
    record = ServerRecord(account=account, server_id=server_id, name=name, state=known, summary=summary)
    fleet.save_servers(unit.connection, [record], None if polled_at is None else software)
    fleet.save_issues(unit.connection, issues)
    return record


def tell(unit: Unit, server: str, changes: Sequence[Change]) -> None:
    """Append to the change feed, as the units of work do."""
    history.record(unit.connection, server, changes)
    unit.effects.append(FeedGrew())
