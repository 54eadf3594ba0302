"""What a deploy of each server would be told now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.core import GaugeMetricFamily

from patrolserver_exporter.gate.verdict import Verdict
from patrolserver_exporter.live.account_series import encodable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """How one policy judges the servers of one account, each alone."""

    account: str
    policy: str
    servers: Mapping[Verdict, int]


class GateCollector:
    """Shows the verdicts that were found last."""

    def __init__(self, judged: Callable[[], Iterable[Judged]]) -> None:
        self._judged = judged

    def describe(self) -> Iterable[Metric]:
        """Give the family without samples."""
        return [_family()]

    def collect(self) -> Iterator[Metric]:
        """Give every verdict of every policy, those without a server too."""
        family = _family()
        for judged in self._judged():
            for verdict in Verdict:
                labels = (encodable(judged.account), encodable(judged.policy), verdict.value)
                family.add_metric(labels, judged.servers.get(verdict, 0))
        yield family


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "patrolserver_gate_servers",
        "Servers by what the gate would say now of each of them alone.",
        labels=("account", "policy", "verdict"),
    )
