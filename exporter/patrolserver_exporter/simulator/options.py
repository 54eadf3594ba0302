"""What the simulator can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from .webhooks import Format
from .wire import Style

MOST_SERVERS = 1_000_000
MOST_SOFTWARE = 200_000
"""More would fill the machine's memory before anything is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """How to run one simulator; the command line's flags, typed.

    Raises:
        ValueError: a number is out of its range, the key or the secret is empty, or the address has no port.
    """

    listen_address: str = "127.0.0.1:10059"
    """``host:port``; port 0 takes a free one."""
    servers: int = 25
    software: int = 12
    """Installed software on each server of the fleet."""
    seed: int = 1
    """The same seed gives the same fleet, to the last version number."""
    key: str = field(default="demo", repr=False)
    secret: str = field(default="demo", repr=False)
    email: str = "demo@example.org"
    password: str = field(default="demo", repr=False)
    """With ``email``: what the scanner logs in with."""
    style: Style = Style.PLAIN
    webhook_urls: tuple[str, ...] = field(default=(), repr=False)
    """Where deliveries go. Such a URL carries a token: it is not shown."""
    webhook_format: Format = Format.JSON
    story: bool = False
    """Whether the story plays by itself from the start."""
    story_speed: float = 1.0
    """Pauses of the story are divided by it."""
    scan_seconds: float = 5.0
    """How long a scan takes that was started over the API."""

    def __post_init__(self) -> None:
        if self.servers < 0 or self.software < 0:
            raise ValueError("servers and software cannot be negative")
        if self.servers > MOST_SERVERS or self.software > MOST_SOFTWARE:
            raise ValueError(f"at most {MOST_SERVERS:,} servers with {MOST_SOFTWARE:,} software each can be simulated")
        if self.story_speed <= 0 or self.scan_seconds < 0:
            raise ValueError("story_speed must be above 0, and scan_seconds not below it")
        if not self.key or not self.secret:
            raise ValueError("key and secret cannot be empty")
        self.address()

    def address(self) -> tuple[str, int]:
        """Host and port to listen on; an empty host means every interface."""
        host, colon, port = self.listen_address.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"listen address {self.listen_address!r}: write it as host:port")
        return host.removeprefix("[").removesuffix("]"), int(port)
