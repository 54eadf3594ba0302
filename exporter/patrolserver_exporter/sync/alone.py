"""In place of a follower, where one process has the store for itself: nobody else's commits have to be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.store.lease_rows import Position

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from patrolserver_exporter.config.schema import Metrics
    from patrolserver_exporter.sync.rules import Rules


class Alone:
    """Has a follower's methods, and nothing to do in any of them."""

    last_look = None
    last_look_at = None
    has_shown = True
    follows = True
    is_steady = False
    """No look tells who has which lease, so that none is taken or given."""

    def start(self) -> None:
        """Nothing is looked at."""

    def stop(self) -> None:
        """Nothing was begun."""

    def show(self, rules: Mapping[str, Rules], metrics: Metrics) -> None:
        """This process shows what it commits."""

    def own(self, _names: Collection[str]) -> Position:
        """It polls them all anyway."""
        return Position("", {})

    def disown(self, names: Collection[str], shown_already: Position | None = None) -> None:
        """Nobody else polls them."""

    def end_if_alone(self) -> None:
        """What is shown cannot lag behind the store."""

    def take_restart(self) -> bool:
        """Nothing was ended."""
        return False
