from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from tests.harness.api import put_server
from tests.unit.issues.builders import issue, software

from patrolserver_exporter.gate.evidence import (
    AccountHealth,
    Evidence,
    ServerEvidence,
    Standing,
    UnknownServer,
    gather,
    gather_those,
)
from patrolserver_exporter.issues.model import IssueExploit, Kind
from patrolserver_exporter.patrolserver.models import Exploit
from patrolserver_exporter.store import fleet, tables
from patrolserver_exporter.store.fleet import AccountRecord, AccountState, Reading
from patrolserver_exporter.store.queries import CHUNK, Selector, ServerKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from patrolserver_exporter.store import Store, Unit

NOW = 1_800_000_000.0
POLLED = NOW - 60


READING = Reading("the-api", "the-key", None)


def healthy(*names: str, **fields: Any) -> dict[str, AccountHealth]:
    """Accounts that are watched, and whose credentials are good."""
    known: dict[str, Any] = {"credentials_refused": False}
    return {name: AccountHealth(name=name, **(known | fields)) for name in names}


WATCHED = healthy("main")


def account(name: str = "main", **fields: Any) -> AccountRecord:
    """An account whose list was read just now, as a whole."""
    known: dict[str, Any] = {"up": True, "last_success_at": NOW, "state": AccountState(list_complete=True)}
    return AccountRecord(name=name, **(known | fields))


def keep(store: Store, *accounts: AccountRecord, servers: Iterable[tuple[int, str, dict[str, Any]]] = ()) -> None:
    """Write what is known."""

    def work(unit: Unit) -> None:
        for one in accounts:
            fleet.save_account(unit.connection, one)
        for number, name, fields in servers:
            known: dict[str, Any] = {"software": (software(),), "polled_at": POLLED}
            put_server(unit, number, name, **(known | fields))

    store.run(work)


def asked(
    store: Store,
    *selectors: int | str,
    account: str | None = None,
    watched: dict[str, AccountHealth] = WATCHED,
    news: frozenset[str] = frozenset(),
) -> list[Evidence]:
    """What is known of what is asked for; ``news`` are accounts with deliveries that wait."""
    meant = [Selector.of(one) for one in selectors]
    return store.run(
        lambda unit: gather(unit.connection, meant, account, watched, lambda name, polled: (name in news) or not polled)
    )


def only(found: list[Evidence]) -> ServerEvidence:
    """The one server, which is known."""
    (one,) = found
    assert isinstance(one, ServerEvidence)
    return one


class TestStanding:
    """How far an account's data can be trusted."""

    @pytest.mark.parametrize(
        ("health", "record", "refused"),
        [
            ({}, account(), False),
            ({"credentials_refused": True}, account(), True),
            ({}, account(up=False, state=AccountState(trouble="credentials")), True),
            ({}, account(up=True, state=AccountState(trouble="credentials")), True),
            ({}, account(up=False, state=AccountState(trouble="network")), False),
            ({"list_was_tried": False}, account(up=False, state=AccountState(trouble="network")), False),
            ({"list_was_tried": False}, account(up=False), True),
            ({"list_was_tried": False}, account(up=True), False),
            ({"list_was_tried": False}, account(up=None), False),
            ({}, account(up=False), False),
        ],
    )
    def test_refused(self, health: dict[str, Any], record: AccountRecord, refused: bool) -> None:  # noqa: FBT001
        """Credentials are refused if the API says so, said so, or failed in an earlier run that did not keep why."""
        assert Standing.of(healthy("main", **health)["main"], record).refused is refused

    @pytest.mark.parametrize(("up", "reachable"), [(True, True), (None, True), (False, False)])
    def test_reachable(self, up: bool | None, reachable: bool) -> None:  # noqa: FBT001
        """Only a call that failed says that an account is not."""
        assert Standing.of(WATCHED["main"], account(up=up)).reachable is reachable

    def test_an_account_without_a_row(self) -> None:
        """Its list was never read, and nothing more is known."""
        assert Standing.of(WATCHED["main"], None) == Standing(
            account="main", reachable=True, refused=False, listed_at=None, list_incomplete=None
        )

    @pytest.mark.parametrize(
        ("complete", "because", "why"),
        [
            (None, (), None),
            (True, ("old",), None),
            (False, (), "it was only a part"),
            (False, ("page 2 failed", "one lacked"), "page 2 failed; one lacked"),
        ],
    )
    def test_a_list_that_was_not_whole(self, complete: bool | None, because: tuple[str, ...], why: str | None) -> None:  # noqa: FBT001
        """It is told why; of one that was whole, or never read, nothing is."""
        state = AccountState(list_complete=complete, list_partial_because=because)
        assert Standing.of(WATCHED["main"], account(state=state)).list_incomplete == why


class TestGlob:
    """What a glob may mean besides the servers that are known."""

    def test_a_list_that_is_whole_only_has_its_age(self, store: Store) -> None:
        """Which the policy judges."""
        keep(store, account(), servers=[(1, "web1", {})])
        listed, server = asked(store, "web*")
        assert listed == UnknownServer(selector="web*", account="main", listed_at=NOW)
        assert only([server]).name == "web1"

    @pytest.mark.parametrize(
        ("record", "health", "doubt"),
        [
            (None, {}, {"never_listed": True}),
            (None, {"credentials_refused": True}, {"refused": True}),
            (account(), {"credentials_refused": True}, {"refused": True}),
            (account(state=AccountState(list_complete=False)), {}, {"list_incomplete": "it was only a part"}),
        ],
    )
    def test_an_account_of_which_not_all_servers_are_known(
        self, store: Store, record: AccountRecord | None, health: dict[str, Any], doubt: dict[str, Any]
    ) -> None:
        """It leaves the glob in doubt, though servers are known that it means, in this account and in others."""
        keep(store, *([] if record is None else [record]), account("other"), servers=[(1, "web1", {})])
        watched = healthy("main", **health) | healthy("other")
        found = asked(store, "web*", watched=watched)
        assert UnknownServer(selector="web*", account="main", **doubt) in found
        assert sum(isinstance(one, ServerEvidence) for one in found) == 1
        assert not any(one.account == "main" for one in asked(store, "web*", account="other", watched=watched))

    def test_a_name_that_is_known_asks_no_list(self, store: Store) -> None:
        """Only a name that nobody knows may be in what an account is silent about."""
        keep(store, servers=[(1, "web1", {})])
        assert only(asked(store, "web1")).server_id == 1
        assert asked(store, "web2") == [UnknownServer(selector="web2", account="main", never_listed=True)]

    def test_a_name_that_no_whole_list_has(self, store: Store) -> None:
        """It is unknown, in the account that was asked for."""
        keep(store, account())
        assert asked(store, "web*") == [
            UnknownServer(selector="web*"),
            UnknownServer(selector="web*", account="main", listed_at=NOW),
        ]
        assert asked(store, "web2") == [UnknownServer(selector="web2")]
        assert asked(store, "web2", account="main") == [UnknownServer(selector="web2", account="main")]

    def test_an_account_that_nobody_watches(self, store: Store) -> None:
        """Its servers are not known, and those that are watched are named."""
        keep(store, account(), account("old"), servers=[(1, "web1", {"account": "old"})])
        assert asked(store, "web1") == [UnknownServer(selector="web1")]
        assert asked(store, "web1", account="old") == [
            UnknownServer(selector="web1", account="old", not_among=("main",))
        ]

    def test_a_name_that_two_accounts_have(self, store: Store) -> None:
        """It is neither, and what is asked for beside it is still looked for; a glob means both."""
        keep(
            store,
            account(),
            account("b"),
            servers=[(1, "web1", {}), (1, "web1", {"account": "b"}), (2, "web2", {"account": "b"})],
        )
        watched = healthy("main", "b")
        unknown, server = asked(store, "web1", "web2", watched=watched)
        assert unknown == UnknownServer(selector="web1", ambiguous_in=("b", "main"))
        assert only([server]).name == "web2"
        servers = [one for one in asked(store, "web*", watched=watched) if isinstance(one, ServerEvidence)]
        assert [(one.account, one.name) for one in servers] == [("b", "web1"), ("b", "web2"), ("main", "web1")]


class TestServer:
    """What is known of one server."""

    def test_one_beyond_doubt(self, store: Store) -> None:
        """All that there is to doubt is not there."""
        outdated = issue("nginx")
        state = {"history_since": NOW - 500, "last_scan_at": NOW - 90}
        keep(store, account(), servers=[(1, "web1", {"issues": [outdated], **state})])
        found = only(asked(store, 1))
        assert [one.canonical_name for one in found.issues] == ["nginx"]
        assert found == ServerEvidence(
            account="main",
            server_id=1,
            name="web1",
            last_poll_at=POLLED,
            poll_success=True,
            history_since=NOW - 500,
            last_scan_at=NOW - 90,
            software=(1, 0, 0, 0),
            issues=found.issues,
        )

    @pytest.mark.parametrize(
        ("state", "doubt"),
        [
            ({"poll_success": False}, {"poll_success": False}),
            ({"complete_poll_at": POLLED - 1}, {"poll_complete": False}),
            ({"incomplete_because": "cut"}, {"poll_complete": False, "incomplete_because": "cut"}),
            ({"empty": True}, {"empty": True}),
            ({"in_doubt_since": NOW}, {"identity_in_doubt": True}),
            ({"came_back_at": NOW}, {"identity_in_doubt": True}),
            ({"missing_since": NOW}, {"missing_from_list": True}),
            ({"exploits_unknown": 3}, {"exploits_unknown": 3}),
            ({"event_received_at": NOW}, {"unconfirmed_event": True}),
            ({"software": (software(exploits=None), software("b"))}, {"exploits_unknown": 1}),
            ({"software": (software(exploits=(Exploit(risk=4.5), Exploit(risk=3.0))),)}, {"uncounted_risk": 4.5}),
        ],
    )
    def test_each_doubt(self, store: Store, state: dict[str, Any], doubt: dict[str, Any]) -> None:
        """What the store says against a server reaches the gate, and nothing else does."""
        keep(store, account(), servers=[(1, "web1", {}), (2, "web2", state)])
        sound, doubted = (only(asked(store, number)) for number in (1, 2))
        told = ("poll_success", "poll_complete", "incomplete_because", "empty", "identity_in_doubt")
        more = ("missing_from_list", "exploits_unknown", "uncounted_risk", "unconfirmed_event", "account_refused")
        differing = {
            name: getattr(doubted, name) for name in (*told, *more) if getattr(doubted, name) != getattr(sound, name)
        }
        assert differing == doubt

    def test_one_that_was_never_polled(self, store: Store) -> None:
        """Nobody knows its software, and deliveries may be news of it."""
        keep(store, account(), servers=[(1, "web1", {"polled_at": None})])
        found = only(asked(store, 1))
        assert (found.last_poll_at, found.software, found.poll_success) == (None, None, False)
        assert found.unconfirmed_event

    def test_deliveries_that_wait(self, store: Store) -> None:
        """They are asked for by the account, and by when the server was last answered for."""
        keep(store, account(), account("b"), servers=[(1, "web1", {}), (2, "web2", {"account": "b"})])
        watched = healthy("main", "b")
        both = asked(store, 1, 2, watched=watched, news=frozenset({"b"}))
        assert [only([one]).unconfirmed_event for one in both] == [True, False]

    def test_its_account(self, store: Store) -> None:
        """Refused credentials and a failed list call belong to the servers of that account alone."""
        servers = [(1, "web1", {}), (2, "web2", {"account": "b"})]
        keep(store, account(), account("b", up=False), servers=servers)
        watched = healthy("main", credentials_refused=True) | healthy("b")
        found = [only([one]) for one in asked(store, 2, 1, watched=watched)]
        assert [(one.account_refused, one.account_reachable) for one in found] == [(False, False), (True, True)]

    def test_the_exploits_beside_those_that_an_issue_stands_for(self, store: Store) -> None:
        """The highest risk of them, by the issue's fingerprint; elsewhere the same software stands for itself."""
        worst = issue("php", Kind.EXPLOITABLE, risk=6.0, location="/a", exploits=(IssueExploit(id="a", risk=6.0),))
        others = (Exploit(risk=6.0), Exploit(risk=2.0), Exploit(risk=4.5), Exploit(risk=None))
        alone, beside = (software("php", location="/a", exploits=some) for some in (others[:1], others))
        elsewhere = software("php", location="/b", exploits=(Exploit(risk=3.0),))
        servers = [
            (1, "web1", {"issues": [worst], "software": (software("perl"), beside, elsewhere)}),
            (2, "web2", {"issues": [replace(worst, fingerprint="2")], "software": (alone, elsewhere)}),
        ]
        keep(store, account(), servers=servers)
        some, none = (only([one]) for one in asked(store, 1, 2))
        assert some.lesser_risks == ((worst.fingerprint, 4.5),)
        assert (some.uncounted_risk, none.uncounted_risk, none.lesser_risks) == (3.0, 3.0, ())

    def test_exploits_of_software_that_is_spelt_otherwise(self, store: Store) -> None:
        """They are those of its issue, unless other software has just the spelling of the issue."""
        worst = issue("php", Kind.EXPLOITABLE, risk=6.0, location="/", exploits=(IssueExploit(id="a", risk=6.0),))
        exploits = (Exploit(risk=6.0), Exploit(risk=4.5))
        own = software("php", location="/", exploits=exploits[:1])
        respelt = software("PHP", location=None, exploits=exploits)
        servers = [
            (1, "web1", {"issues": [worst], "software": (respelt,)}),
            (2, "web2", {"issues": [replace(worst, fingerprint="2")], "software": (own, respelt)}),
        ]
        keep(store, account(), servers=servers)
        alone, beside = (only([one]) for one in asked(store, 1, 2))
        assert (alone.lesser_risks, alone.uncounted_risk) == (((worst.fingerprint, 4.5),), 0.0)
        assert (beside.lesser_risks, beside.uncounted_risk) == ((), 6.0)

    def test_each_server_has_its_own_issues(self, store: Store) -> None:
        """Fixed ones aside."""
        servers = [
            (1, "web1", {"issues": [issue("a", fingerprint="1"), issue("b", fingerprint="2", fixed_at=NOW)]}),
            (2, "web2", {"issues": [issue("c", fingerprint="3")]}),
        ]
        keep(store, account(), servers=servers)
        found = [only([one]) for one in asked(store, 1, 2)]
        assert [[one.canonical_name for one in server.issues] for server in found] == [["a"], ["c"]]

    def test_no_server_of_a_large_selection_is_left_out(self, store: Store) -> None:
        """They are read some at a time, by account and name, and each once."""
        count = CHUNK + 3
        keep(store, account(), servers=[(number, f"web{number:04}", {}) for number in range(1, count + 1)])
        found = [one for one in asked(store, "web*", 1, "web0002") if isinstance(one, ServerEvidence)]
        assert [one.server_id for one in found] == list(range(1, count + 1))

    def test_those_that_are_named_by_their_keys(self, store: Store) -> None:
        """One that is gone or never was is unknown, and one of an account that nobody watches is none."""
        keep(store, account(up=False), servers=[(1, "web1", {}), (2, "web2", {"account": "old"}), (3, "web3", {})])
        store.run(
            lambda unit: unit.connection.execute(
                tables.servers.update().where(tables.servers.c.server_id == 3).values(gone_at=NOW)
            )
        )
        keys = [ServerKey("main", 1), ServerKey("old", 2), ServerKey("main", 3), ServerKey("main", 4)]
        found = store.run(lambda unit: gather_those(unit.connection, keys, WATCHED, lambda _name, _polled: False))
        assert only(found[:1]).server_id == 1
        assert not only(found[:1]).account_reachable
        assert found[1:] == [UnknownServer(selector=number, account="main") for number in ("3", "4")]
        assert asked(store, 3) == [UnknownServer(selector="3")]


@pytest.mark.parametrize(
    ("fields", "because", "in_doubt"),
    [
        ({}, None, False),
        ({"list_key": None}, None, False),
        ({"list_source": None}, None, False),
        ({"list_chosen_by": "web-*"}, "include and exclude lists", False),
        ({"list_key": "another"}, "key has changed", True),
        ({"list_source": "elsewhere"}, "api_url has changed", True),
    ],
)
def test_a_list_that_another_exporter_reads_otherwise_is_none(
    store: Store, fields: dict[str, Any], because: str | None, *, in_doubt: bool
) -> None:
    """Its configuration differs: this one may mean more servers, or other ones."""
    state = AccountState(**{"list_complete": True, "list_source": "the-api", "list_key": "the-key", **fields})
    keep(store, account(state=state), servers=[(1, "web", {})])
    watched = healthy("main", reading=READING)
    found = asked(store, "*", watched=watched)
    incomplete = [one.list_incomplete for one in found if isinstance(one, UnknownServer) and one.list_incomplete]
    assert [because in one for one in incomplete if because] == [True] * (because is not None)
    (web,) = [one for one in found if isinstance(one, ServerEvidence)]
    assert web.identity_in_doubt is in_doubt
