"""Units of work on a store, called one by one as the poller and the worker do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.issues.builders import BYSTANDER
from tests.unit.sync.accounts import MAIN, rules

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.inbox.retry import next_step_after
from patrolserver_exporter.issues.trust import Alike
from patrolserver_exporter.patrolserver.errors import NotFound
from patrolserver_exporter.patrolserver.models import Event, Server
from patrolserver_exporter.store import fleet, history
from patrolserver_exporter.sync import account_updates, server_updates
from patrolserver_exporter.sync.server_updates import OtherPolls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.harness.ticking import HeldClock

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.inbox.deliveries import Delivery
    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.patrolserver.models import ReportedIssue, Software
    from patrolserver_exporter.store import Store, Unit
    from patrolserver_exporter.store.fleet import ServerRecord, ServerState
    from patrolserver_exporter.store.history import StoredChange
    from patrolserver_exporter.sync.rules import Rules
    from patrolserver_exporter.sync.server_updates import FollowUp

NEW_ISSUES = "webhook.new_server_issues"
STARTED = "webhook.scan_started"
FINISHED = "webhook.scan_finished"


class Driver:
    """One account's units of work, at the moment that the clock shows."""

    def __init__(
        self,
        store: Store,
        clock: HeldClock,
        of_account: Rules | None = None,
        account: str = MAIN,
        *,
        events_before: int = 0,
    ) -> None:
        self.store = store
        self.clock = clock
        self.time: Clock = clock
        """What tells the time, where that is another clock than the one that the test moves."""
        self.rules = of_account or rules()
        self.account = account
        self.alike = Alike()
        self.doubted: list[int] = []
        """Servers of which the last poll of another one wants another poll."""
        self._event_ids = events_before

    def take_list(
        self,
        *names: str,
        complete: bool = True,
        because: str = "",
        trouble: str | None = None,
        claim: str | None = None,
    ) -> account_updates.Listed:
        """The account's servers are these, with ids from 1; an empty name leaves its id out.

        With ``because`` the list is a part of the whole. ``trouble`` and ``claim`` are said of each of them.
        """
        servers = [
            Server(id=n, name=name, verified=True, trouble=trouble, claim=claim)
            for n, name in enumerate(names, 1)
            if name
        ]
        return self.store.run(
            lambda unit: account_updates.apply_list(
                unit,
                self.account,
                servers,
                complete=complete and not because,
                partial_because=(because,) if because else (),
                now=self.time.now(),
                rules=self.rules,
            )
        )

    def poll(
        self,
        *software: Software,
        server_id: int = 1,
        started_at: float | None = None,
        complete: bool = True,
        next_poll_at: float | None = None,
    ) -> ServerState | None:
        """A poll that succeeded; it started just now. Where no software is given, there is some that is fine."""
        return self._poll(software or (BYSTANDER,), server_id, started_at, complete, next_poll_at)

    def poll_nothing(self, server_id: int = 1) -> ServerState | None:
        """A poll that succeeded, and showed no software at all."""
        return self._poll((), server_id, None, True, None)  # noqa: FBT003  # as in the signature above

    def _poll(
        self,
        software: tuple[Software, ...],
        server_id: int,
        started_at: float | None,
        complete: bool,  # noqa: FBT001  # as in the signature above
        next_poll_at: float | None,
    ) -> ServerState | None:
        began = self.time.now() if started_at is None else started_at
        others = OtherPolls(self.alike, 900.0)
        self.doubted = others.doubted
        state = self.store.run(
            lambda unit: server_updates.apply_poll(
                unit,
                self.account,
                server_id,
                software,
                complete=complete,
                started_at=began,
                next_poll_at=began + 900.0 if next_poll_at is None else next_poll_at,
                now=self.time.now(),
                rules=self.rules,
                others=others,
            )
        )
        self.alike.doubted(others.doubted)
        return state

    def fail(self, server_id: int = 1, answer: str | None = None) -> None:
        """A poll that failed, perhaps with an answer that is not a list."""
        next_poll_at = self.time.now() + 30.0
        self.store.run(
            lambda unit: server_updates.apply_poll_failure(
                unit, self.account, server_id, next_poll_at=next_poll_at, answer=answer
            )
        )

    def deliver(self, identifier: str = NEW_ISSUES) -> Delivery:
        """A delivery that came just now and is being fetched."""
        self._event_ids += 1
        new = NewDelivery(self.account, 1, self._event_ids, identifier, self.time.now())
        door = BoundedInbox(1000)
        self.store.run(lambda unit: door.accept(unit, [new]))
        (claimed,) = self.store.run(
            lambda unit: deliveries.claim(unit, self.account, now=self.time.now(), lease=60.0, limit=1)
        )
        return claimed

    def not_found(self, delivery: Delivery, attempts: int = 0) -> None:
        """The API does not know the delivery's event."""
        now = self.clock.now()
        next_step = next_step_after(
            NotFound("none"),
            received_at=delivery.received_at,
            state_attempts=attempts,
            credentials_are_good=True,
            now=now,
            draw=lambda: 0.0,
        )
        settle = self.rules.settle
        self.store.run(
            lambda unit: server_updates.note_failure(unit, delivery, next_step, now=now, error="none", settle=settle)
        )

    def apply(
        self,
        delivery: Delivery,
        *reported: ReportedIssue,
        server_id: int | None = 1,
        list_is_fresh: bool = False,
    ) -> FollowUp:
        """The API confirms the delivery's event."""
        event = Event(server_id=server_id, new_issues=reported)
        return self.store.run(
            lambda unit: server_updates.apply_event(
                unit, delivery, event, list_is_fresh=list_is_fresh, now=self.time.now(), rules=self.rules
            )
        )

    def check(self, *, running: bool, server_id: int = 1) -> tuple[ServerState | None, bool]:
        """IsScanning answers."""
        now = self.time.now()
        return self.store.run(
            lambda unit: server_updates.apply_check(unit, self.account, server_id, running=running, asked_at=now)
        )

    def sweep(self) -> int:
        """Waivers begin and end; the number of servers that this changed."""
        before, after = self._summaries(), 0

        def work(unit: Unit) -> int | None:
            return account_updates.sweep_waivers(unit, self.account, after=after, now=self.time.now(), rules=self.rules)

        while (last := self.store.run(work)) is not None:
            after = last
        return sum(one != other for one, other in zip(before, self._summaries(), strict=True))

    def _summaries(self) -> list[ServerSummary]:
        records = self.store.run(lambda unit: list(fleet.server_records(unit.connection, self.account)))
        return [record.summary for record in records]

    # What is there

    def server(self, server_id: int = 1) -> ServerRecord:
        """A server's row."""
        found = self.store.run(lambda unit: fleet.find_server(unit.connection, self.account, server_id))
        assert found is not None
        return found

    def issues(self, server_id: int = 1) -> Sequence[Issue]:
        """A server's issues, open and fixed."""
        return self.store.run(lambda unit: fleet.issues_of(unit.connection, self.account, server_id))

    def open_names(self, server_id: int = 1) -> list[str]:
        """What is open, by canonical name."""
        return sorted(issue.canonical_name for issue in self.issues(server_id) if issue.is_open)

    def changes(self) -> list[StoredChange]:
        """The whole change feed."""
        return self.store.run(lambda unit: history.changes_after(unit.connection, 0, 10_000))

    def told(self) -> list[tuple[str, str]]:
        """The change feed in short."""
        return [(change.kind.value, change.issue.canonical_name) for change in self.changes()]

    def tally(self) -> tuple[int, int]:
        """How many issues were opened and fixed, over all severities."""
        found = self.store.run(lambda unit: history.tallies_of(unit.connection, self.account))
        return sum(tally.opened for tally in found), sum(tally.fixed for tally in found)

    def inbox(self) -> list[str]:
        """The states of all deliveries."""
        found = self.store.run(lambda unit: deliveries.page(unit.connection, after=0, limit=10_000))
        return [delivery.state.value for delivery in found]

    def account_record(self) -> fleet.AccountRecord:
        """The account's row."""
        return self.store.run(lambda unit: fleet.account_records(unit.connection))[self.account]
