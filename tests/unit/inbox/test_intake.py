from __future__ import annotations

import asyncio

from patrolserver_exporter.inbox.deliveries import Acceptance, NewDelivery
from patrolserver_exporter.inbox.intake import Intake
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.store import Store


def delivery(event_id: int, received_at: float, account: str = "main") -> NewDelivery:
    return NewDelivery(
        account=account,
        webhook_id=1,
        event_id=event_id,
        identifier="webhook.new_server_issues",
        received_at=received_at,
    )


def intake_of(store: Store, limit: int = 10) -> Intake:
    return Intake(store, Telemetry(version="0", revision="0", process_metrics=False), limit)


def test_the_last_delivery_is_the_last_that_was_accepted_however(prepared_url: str) -> None:
    """A duplicate and one without room in the inbox tell as well that deliveries arrive."""
    with Store(prepared_url) as store:
        intake = intake_of(store, limit=1)
        assert intake.last_delivery_at("main") is None
        for event_id, at, acceptance in (
            (1, 10.0, Acceptance.ACCEPTED),
            (1, 20.0, Acceptance.DUPLICATE),
            (2, 30.0, Acceptance.OVERFLOW),
            (1, 25.0, Acceptance.DUPLICATE),
        ):
            assert asyncio.run(intake.take_in(delivery(event_id, at))) is acceptance
        assert intake.last_delivery_at("main") == 30.0
        assert intake.last_delivery_at("other") is None


def test_a_restart_finds_the_last_delivery_in_the_inbox(prepared_url: str) -> None:
    """Each account has its own."""
    with Store(prepared_url) as store:
        for event_id, at, account in ((1, 10.0, "main"), (2, 20.0, "main"), (3, 5.0, "other")):
            asyncio.run(intake_of(store).take_in(delivery(event_id, at, account)))
    with Store(prepared_url) as store:
        intake = intake_of(store)
        intake.recall()
        assert [intake.last_delivery_at(account) for account in ("main", "other")] == [20.0, 5.0]


def test_the_inbox_takes_as_many_as_it_has_room_for_and_counts_the_others(prepared_url: str) -> None:
    """Also within one batch; whoever works on the inbox hears of it at once."""
    overflown: list[str] = []
    published: list[object] = []

    class Counting(Telemetry):
        def inbox_overflow(self, account: str) -> None:
            overflown.append(account)

    async def all_at_once(intake: Intake) -> list[Acceptance]:
        return await asyncio.gather(*(intake.take_in(delivery(event_id, 1.0)) for event_id in (1, 2, 3, 4)))

    with Store(prepared_url, published.extend) as store:
        taken = asyncio.run(all_at_once(Intake(store, Counting(version="0", revision="0", process_metrics=False), 3)))
    assert taken == [*[Acceptance.ACCEPTED] * 3, Acceptance.OVERFLOW]
    assert overflown == ["main"]
    assert any(isinstance(effect, InboxMoved) for effect in published)
