"""A real Prometheus (Debian's) that scrapes what it is told to."""

from __future__ import annotations

import itertools
import random
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import requests
from tests.harness.daemons import Daemon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_CONFIG = """\
global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: {interval}}}
scrape_configs:
"""
_JOB = """\
  - job_name: {name}
    static_configs: [{{targets: ["{targets}"]}}]
"""


_PORTS = range(20_000, 32_000)
"""Below those that the system gives away by itself, so that nobody who asks it for any port gets one of these."""
_tries = itertools.count(random.randrange(len(_PORTS)))


def free_port() -> int:
    """A port of loopback that is free, and that neither this nor another process of the tests is likely to take."""
    for number in _tries:
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("it counts for ever")


def hurried(rules: Path, folder: Path) -> Path:
    """The rules with groups that are evaluated each second instead of each minute, as a file in ``folder``."""
    file = folder / rules.name
    file.write_text(re.sub(r"^( +interval:) 1m$", r"\1 1s", rules.read_text(), flags=re.MULTILINE))
    return file


class Prometheus(Daemon):
    """Scrapes ``target`` (host:port), or those of several jobs, every ``interval``; stopped by its process id."""

    def __init__(
        self,
        folder: Path,
        program: str,
        target: str | Mapping[str, Sequence[str]],
        *,
        interval: str = "1s",
        extra: str = "",
    ) -> None:
        self._folder = folder
        self.configuration = folder / "prometheus.yml"
        self._program = program
        jobs = {"patrolserver": [target]} if isinstance(target, str) else target
        scraped = "".join(_JOB.format(name=name, targets='", "'.join(targets)) for name, targets in jobs.items())
        self._config = _CONFIG.format(interval=interval) + scraped + extra
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log_file = folder / "prometheus.log"

    def command(self) -> list[str]:
        """Write its configuration, and return how it is started."""
        self.configuration.write_text(self._config)
        return [
            self._program,
            f"--config.file={self.configuration}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The vector that an instant query yields."""
        reply = requests.get(f"{self.url}/api/v1/query", params={"query": promql}, timeout=10).json()
        assert reply["status"] == "success", reply
        result: list[dict[str, Any]] = reply["data"]["result"]
        return result

    def value(self, promql: str) -> float | None:
        """The one value of an instant query; ``None`` for an empty answer."""
        found = self.query(promql)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None
