"""A webhook delivery, from its reception to its end.

```
received → fetching (claim, lease) → applied
              ├→ retry       time-out, 5xx, 429, unreadable: again at next_attempt_at
              ├→ unverified  404: three tries, then rejected, which is soon purged
              ├→ blocked     credentials refused: waits for new ones, burns no attempt
              ├→ expired     30 days old, and a last try failed; or its account is not configured
              └→ dead        a reply that cannot be understood or applied; its body is kept for the operator
```
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    RECEIVED = "received"
    FETCHING = "fetching"
    RETRY = "retry"
    UNVERIFIED = "unverified"
    BLOCKED = "blocked"
    APPLIED = "applied"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DEAD = "dead"


WAITING = (
    DeliveryState.RECEIVED,
    DeliveryState.FETCHING,
    DeliveryState.RETRY,
    DeliveryState.UNVERIFIED,
    DeliveryState.BLOCKED,
)
"""States that still fill the inbox."""

DUE = (DeliveryState.RECEIVED, DeliveryState.RETRY, DeliveryState.UNVERIFIED)
"""States in which a worker may take a delivery."""


class NewDelivery(msgspec.Struct, frozen=True):
    """What a webhook brought. Ids are 1 to 2⁵³−1."""

    account: str
    webhook_id: int
    event_id: int
    identifier: str
    received_at: float


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the inbox."""

    id: int
    account: str
    webhook_id: int
    event_id: int
    identifier: str
    state: DeliveryState
    attempts: int
    received_at: float
    updated_at: float
    next_attempt_at: float | None = None
    claim: str | None = None
    server_id: int | None = None
    last_error: str | None = None


class Acceptance(StrEnum):
    """What became of a delivery at the door; each is answered with a 202."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    OVERFLOW = "overflow"
    """The inbox is full: a catch-up poll, noted durably, takes its place."""
