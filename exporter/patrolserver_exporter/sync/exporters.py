"""The exporters that work on one store, as they are shown to people."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from patrolserver_exporter import __version__

if TYPE_CHECKING:
    from collections.abc import Collection

    from patrolserver_exporter.sync.follower import Found


class LivingExporter(NamedTuple):
    """One that works on the store."""

    name: str
    """``store.replica_name``; empty without one."""
    host: str
    pid: int
    version: str
    is_this: bool
    accounts: tuple[str, ...]
    """Those that it polls."""
    config_differs: bool
    """Its configuration is another one than that of the exporter that tells this."""

    @property
    def described(self) -> str:
        """As people know it."""
        named = f"{self.name!r}, " if self.name else ""
        return f"{named}process {self.pid} on host {self.host}"


def this_one(name: str, accounts: Collection[str]) -> LivingExporter:
    """The exporter of this process."""
    return LivingExporter(
        name,
        socket.gethostname(),
        os.getpid(),
        __version__,
        is_this=True,
        accounts=tuple(accounts),
        config_differs=False,
    )


def others(found: Found, owner: str, config: str) -> tuple[LivingExporter, ...]:
    """All but the one with the id ``owner`` and the configuration ``config``, as of a look at the store."""
    return tuple(
        LivingExporter(
            one.name,
            one.host,
            one.pid,
            one.version,
            is_this=False,
            accounts=tuple(
                account
                for account, holder in sorted(found.holders.items())
                if holder.owner == one.owner and not holder.is_free and not account.startswith("/")
            ),
            config_differs=one.config != config and not one.leaves,
        )
        for one in sorted(found.living)
        if one.owner != owner
    )


def differing(found: Found, owner: str, config: str) -> tuple[str, ...]:
    """Those of the others that have another configuration, as people know them."""
    return tuple(
        one.described for one in found.living if one.owner != owner and one.config != config and not one.leaves
    )
