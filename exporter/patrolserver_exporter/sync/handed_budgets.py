"""What is left of accounts' budgets goes along when another process goes on with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.patrolserver.client import WINDOW, HandedBudget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from patrolserver_exporter.store.lease import Left
    from patrolserver_exporter.sync.account import Budgets, RunningAccount


class _Handed(msgspec.Struct, frozen=True):
    """What is left of an account's budgets."""

    at: float
    """Seconds since the epoch."""
    polls: HandedBudget
    events: HandedBudget


def hand_over(budgets: Mapping[str, Budgets], now: float) -> bytes:
    """What the next owners of these accounts have to know; ``now`` is seconds since the epoch."""
    return msgspec.json.encode(
        {name: _Handed(now, two.polls.hand_over(), two.events.hand_over()) for name, two in budgets.items()}
    )


def go_on_counting(account: RunningAccount, left: Sequence[Left], now: float) -> None:
    """Calls that other processes made within the last minute count against the budgets."""
    # Whoever came last went on from what the others had left.
    last: tuple[float, _Handed | None] | None = None
    for one in left:
        handed = {} if one.handed is None else msgspec.json.decode(one.handed, type=dict[str, _Handed])
        of_account = handed.get(account.name)
        at = one.uncleanly_at if of_account is None else of_account.at
        if at is not None and (last is None or at > last[0]):
            last = at, of_account
    if last is None:
        return
    at, of_account = last
    if of_account is not None:
        account.budgets.polls.take_over(of_account.polls, seconds_ago=now - at)
        account.budgets.events.take_over(of_account.events, seconds_ago=now - at)
    elif now - at < WINDOW:
        for budget in account.budgets:
            budget.owe()
