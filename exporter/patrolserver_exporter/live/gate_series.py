"""What the gate would say of each server now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.gate.verdict import Verdict
from patrolserver_exporter.live.blocks import SnapshotRows
from patrolserver_exporter.live.families import SeriesFamily, escape, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """How one policy judges the servers of one account, each alone."""

    account: str
    policy: str
    servers: Mapping[Verdict, int]


_FAMILY = SeriesFamily("patrolserver_gate_servers", "Servers by what the gate would say now of each of them alone.")


def gate_series(snapshot: Callable[[], Iterable[Judged]]) -> SnapshotRows[Judged]:
    """Show the verdicts that were found last, every verdict of every policy, those without a server too."""
    return SnapshotRows((_FAMILY,), snapshot, key=lambda judged: (judged.account, judged.policy), lines=_lines)


def _lines(judged: Judged) -> list[str]:
    begin = f'{_FAMILY.name}{{account="{escape(judged.account)}",policy="{escape(judged.policy)}",verdict="'
    return ["".join([f'{begin}{verdict}"}} {number(judged.servers.get(verdict, 0))}\n' for verdict in Verdict])]
