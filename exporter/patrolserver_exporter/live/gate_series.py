"""What the gate would say of each server now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.core import GaugeMetricFamily

from patrolserver_exporter.gate.verdict import Verdict
from patrolserver_exporter.live.encoding import SnapshotCollector, encodable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """How one policy judges the servers of one account, each alone."""

    account: str
    policy: str
    servers: Mapping[Verdict, int]


class GateCollector(SnapshotCollector[Judged]):
    """Shows the verdicts that were found last."""

    def families(self, found: Iterable[Judged]) -> tuple[Metric, ...]:
        """Give every verdict of every policy, those without a server too."""
        family = GaugeMetricFamily(
            "patrolserver_gate_servers",
            "Servers by what the gate would say now of each of them alone.",
            labels=("account", "policy", "verdict"),
        )
        for judged in found:
            for verdict in Verdict:
                labels = (encodable(judged.account), encodable(judged.policy), verdict.value)
                family.add_metric(labels, judged.servers.get(verdict, 0))
        return (family,)
