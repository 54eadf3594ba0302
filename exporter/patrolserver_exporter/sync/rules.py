"""What the configuration says of issues and series, as the units of work need it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from patrolserver_exporter import globs
from patrolserver_exporter.store.fleet import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patrolserver_exporter.config.schema import Account, Config, ServerFilter
    from patrolserver_exporter.issues.model import Waiver


_CLASSIFICATION = 2
"""Rises when the same software makes other issues or series than before: an upgrade then classifies all again."""


_KEY_MARK = 6
"""Hexadecimal digits: of 16 million other keys one has the same mark."""


def _mark(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of one account. ``settle`` is in seconds, ``max_label_length`` in characters."""

    source: str
    """The API that the account is read from, as a mark to compare."""
    key: str | None = None
    """Whose account it is there, as a mark to compare: so short that it tells nothing of the key."""
    watched: ServerFilter
    exploit_risk: float
    settle: float
    waivers: tuple[Waiver, ...]
    software_series: bool
    exploit_series: bool
    software_limit_per_server: int
    max_label_length: int
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Globs on servers' names, each with labels that its servers show."""
    reading: Reading = field(init=False, compare=False)
    """How the account's list is read."""

    def __post_init__(self) -> None:
        # Asked for with each question to the gate.
        object.__setattr__(self, "reading", Reading(self.source, self.key, self.choosing))

    @classmethod
    def of(cls, config: Config, account: Account) -> Self:
        """Those that a configuration sets for one of its accounts."""
        return cls(
            source=_mark(account.api_url.rstrip("/")),
            key=_mark(account.key.reveal())[:_KEY_MARK],
            watched=account.servers,
            exploit_risk=config.issues.exploit_risk,
            settle=config.issues.settle,
            waivers=config.issues.waivers,
            software_series=config.metrics.software,
            exploit_series=config.metrics.exploits,
            software_limit_per_server=config.metrics.software_limit_per_server,
            max_label_length=config.metrics.max_label_length,
            labels=account.labels,
        )

    @property
    def classification(self) -> str:
        """Those of the rules that decide what a poll's software makes of issues and series, as a mark to compare."""
        series = (self.software_series, self.exploit_series, self.software_limit_per_server, self.max_label_length)
        return ",".join(map(str, (_CLASSIFICATION, self.exploit_risk, *series)))

    @property
    def choosing(self) -> str | None:
        """The globs that decide which servers are watched, as a mark to compare; ``None`` where all are."""
        if "*" in self.watched.include and not self.watched.exclude:
            return None
        return _mark(repr((tuple(sorted(self.watched.include)), tuple(sorted(self.watched.exclude)))))

    def watches(self, server_name: str) -> bool:
        """Whether the account's globs choose a server of that name; capitals and small letters are alike."""
        return globs.any_matches(self.watched.include, server_name) and not globs.any_matches(
            self.watched.exclude, server_name
        )
