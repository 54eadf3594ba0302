"""Calls for the server list whose answers are not the whole truth, from the simulator to what a gate sees."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness.waiting import eventually
from tests.harness.watching import LIST, QUICK, Watching
from tests.unit.sync.accounts import MAIN

from patrolserver_exporter.gate.evidence import AccountHealth, ServerEvidence, UnknownServer, gather
from patrolserver_exporter.simulator.replies import Endpoint, PartForm, ReplyRule
from patrolserver_exporter.store import Store, fleet
from patrolserver_exporter.store.queries import Selector

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock

    from patrolserver_exporter.gate.evidence import Evidence

SETTLE = 100.0


def seen_by_gate(watching: Watching) -> list[Evidence]:
    """The evidence on all servers."""
    health = {MAIN: AccountHealth(name=MAIN, credentials_refused=False)}
    return watching.store.run(
        lambda unit: gather(unit.connection, [Selector.of("*")], None, health, lambda _account, _at: False)
    )


def missing(watching: Watching) -> list[bool]:
    """Whether each server that is there is missing, as a gate sees it."""
    return [one.missing_from_list for one in seen_by_gate(watching) if isinstance(one, ServerEvidence)]


def ask_for_list(watching: Watching) -> None:
    """Have the list read now, and wait for its end."""
    lists = watching.count(LIST)
    watching.list_now()
    watching.until(lambda: watching.count(LIST) > lists)
    watching.rest()


def test_an_empty_list_is_asked_for_again_after_settle_and_ends_the_servers_then(
    prepared_url: str, clock: HeldClock
) -> None:
    """Also when the service is restarted in between; until then the series stay and the gate knows of it."""
    with Watching(prepared_url, clock=clock) as watching:
        config = watching.start(settle=SETTLE)
        watching.rest()
        watching.simulator.replies.add(ReplyRule(endpoint=Endpoint.SERVERS, share=0.0))
        ask_for_list(watching)
        assert watching.accounts.statuses()[0].servers_missing == 3
        assert missing(watching) == [True] * 3
        watching.end()
        clock.advance(50.0)
        watching.begin()
        watching.accounts.start(config)
        assert watching.accounts.statuses()[0].servers_missing == 3
        watching.until(lambda: watching.account.list_read_at)
        watching.rest()
        lists = watching.count(LIST)
        clock.advance(49.0)
        watching.rest()
        assert watching.count(LIST) == lists
        assert 'server_id="1"' in watching.scrape()
        clock.advance(1.0)
        watching.until(lambda: watching.records() == [])
        assert 'server_id="1"' not in watching.scrape()
        assert watching.accounts.statuses()[0].servers_missing == 0


def test_a_list_that_is_whole_again_before_it_was_confirmed_changes_nothing(
    prepared_url: str, clock: HeldClock
) -> None:
    """Although it is the same list as before: the doubt has to go."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start(settle=SETTLE)
        watching.rest()
        rule = watching.simulator.replies.add(ReplyRule(endpoint=Endpoint.SERVERS, share=0.0))
        ask_for_list(watching)
        watching.simulator.replies.clear(rule)
        ask_for_list(watching)
        assert missing(watching) == [False] * 3
        assert watching.accounts.statuses()[0].servers_missing == 0


def test_a_partial_list_is_known_as_one_everywhere(prepared_url: str, clock: HeldClock) -> None:
    """Its reason is told, also after a restart; a glob is unknown; and it is no news of which servers there are."""
    with Watching(prepared_url, clock=clock) as watching:
        config = watching.start()
        watching.rest()
        read_at = watching.account.list_read_at
        rule = ReplyRule(endpoint=Endpoint.SERVERS, share=0.5, members={"truncated": True})
        watching.simulator.replies.add(rule)
        clock.advance(10.0)
        ask_for_list(watching)
        watching.end()
        watching.begin()
        watching.accounts.start(config)
        (status,) = watching.accounts.statuses()
        assert status.list_complete is False
        assert "truncated" in "; ".join(status.list_partial_because)
        assert [one for one in seen_by_gate(watching) if isinstance(one, UnknownServer) and one.list_incomplete]
        watching.until(lambda: watching.rest() and watching.account.list_standing.complete is False)
        assert watching.account.list_read_at is None
        assert read_at is not None
        assert len(watching.records()) == 3


@pytest.mark.parametrize("members", [{"success": False}, {"status": "error"}, {"errors": ["no"]}])
def test_a_list_that_is_an_error_in_other_words_is_no_list(
    prepared_url: str, clock: HeldClock, members: dict[str, object]
) -> None:
    """It ends no server; globs are unknown until a whole list comes, even if that is the same as before."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start()
        watching.rest()
        rule = watching.simulator.replies.add(ReplyRule(endpoint=Endpoint.SERVERS, members=members))
        ask_for_list(watching)
        assert len(watching.records()) == 3
        assert [one for one in seen_by_gate(watching) if isinstance(one, UnknownServer) and one.list_incomplete]
        watching.simulator.replies.clear(rule)
        ask_for_list(watching)
        assert not [one for one in seen_by_gate(watching) if isinstance(one, UnknownServer) and one.list_incomplete]


def test_a_list_that_takes_effect_while_the_clock_is_set_back_is_not_of_the_future(
    prepared_url: str, clock: HeldClock
) -> None:
    """Large lists take effect in parts, and the state follows the clock between two of them."""

    class Setting(Store):
        """A store beside which the clock is set back, once the list was held against the state."""

        was_set = False

        def read_patiently(self, work: Any) -> Any:
            found = super().read_patiently(work)
            # Others read, too, and a second step back would leave this list in the future.
            if threading.current_thread().name.startswith("poll-") and not self.was_set:
                self.was_set = True
                clock.set(clock.now() - 86_400.0)
                # The test ticks, and two that follow the clock at once would follow it twice.
                eventually(lambda: not watching.clock.step(), what="the state that follows it")
            return found

    began = clock.now()
    with Watching(prepared_url, clock=clock, store=Setting) as watching:
        watching.accounts.start(watching.config())
        watching.until(lambda: watching.accounts.statuses()[0].list_complete)
        assert clock.now() < began
        record = watching.store.run(lambda unit: fleet.account_records(unit.connection))[MAIN]
        assert record.last_success_at is not None
        assert record.last_success_at <= clock.now()


def test_pages_of_a_list_keep_to_the_budget(prepared_url: str, clock: HeldClock) -> None:
    """Each takes a call; one that has to wait for it does not make the list a partial one."""
    with Watching(prepared_url, servers=40, clock=clock) as watching:
        rule = ReplyRule(endpoint=Endpoint.SERVERS, form=PartForm.TOTAL_PAGES, per_page=4)
        watching.simulator.replies.add(rule)
        watching.accounts.start(watching.config(poll=QUICK))
        watching.until(lambda: watching.accounts.statuses()[0].list_complete)
        assert len(watching.records()) == 40
        watching.rest()
        made = int(str(watching.simulator.requests.document()["total"]))
        assert made == watching.count(LIST) + 40
        left = watching.account.budgets.polls.available()
        ask_for_list(watching)
        assert left - watching.account.budgets.polls.available() == 10.0
