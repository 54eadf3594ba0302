"""A real exporter in a process of its own."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import requests
from tests.harness.daemons import Program

if TYPE_CHECKING:
    from collections.abc import Mapping

_LISTENING = re.compile(r"listening on (https?://[^\s\"]+)")
CONFIG = """\
accounts:
  - name: main
    api_url: {api_url}
    key: demo
    secret: demo
    webhook_tokens: [test-token-0123456789]
poll: {{interval: {interval}, max_requests_per_minute: 60000, timeout: 2s}}
webhook: {{max_event_requests_per_minute: 60000}}
issues: {{settle: {settle}}}
store: {{url: "{store_url}"}}
"""
NEW_ISSUES = "webhook.new_server_issues"
TOKEN = "test-token-0123456789"


class Exporter(Program):
    """``patrolserver-exporter`` as users start it, on free ports of loopback; killed at the end by its process id.

    ``folder`` holds its configuration, its state and its log.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        *flags: str,
        environ: Mapping[str, str] | None = None,
        wrap: tuple[str, ...] = (),
        module: str = "patrolserver_exporter",
    ) -> None:
        self.folder = folder
        self.config_file = folder / "patrolserver.yml"
        self.log_file = folder / "exporter.log"
        own = any(flag.startswith("--web.listen-address") for flag in flags)
        self.flags = flags if own else ("--web.listen-address=127.0.0.1:0", *flags)
        self.environ = dict(environ or {})
        self.wrap = wrap
        self._module = module
        self.urls: list[str] = []
        self.write_config(config)

    @classmethod
    def watching(  # The few settings in which tests differ.
        cls,
        folder: Path,
        api_url: str,
        *flags: str,
        interval: str = "10s",
        settle: str = "1s",
        store_url: str = "",
        extra: str = "",
        **options: Any,
    ) -> Self:
        """One account named main, watched closely."""
        store_url = store_url or f"sqlite:///{folder / 'state.db'}"
        config = CONFIG.format(api_url=api_url, interval=interval, settle=settle, store_url=store_url)
        return cls(folder, config + extra, *flags, **options)

    def write_config(self, config: str) -> None:
        """Replace the configuration file; a running exporter only sees it at a reload."""
        self.config_file.touch(mode=0o600)
        self.config_file.write_text(config)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *, wait: bool = True, within: float = 90.0) -> None:
        """Start it; by default, wait until it listens, for so many seconds."""
        offset = self.log_file.stat().st_size if self.log_file.exists() else 0
        command = [
            *self.wrap,
            sys.executable,
            "-m",
            self._module,
            f"--config.file={self.config_file}",
            *self.flags,
        ]
        self.launch(command, log_file=self.log_file, folder=self.folder, environ=self.environ)
        if wait:
            expected = sum("listen-address" in flag for flag in self.flags)

            def listening() -> list[str]:
                found = _LISTENING.findall(self.log_file.read_bytes()[offset:].decode(errors="replace"))
                if len(found) < expected and self.has_ended:
                    raise RuntimeError(f"the exporter ended:\n{self.log()}")
                return found if len(found) >= expected else []

            self.urls = self.await_start(listening, within=within)

    @property
    def url(self) -> str:
        """Of the main listener."""
        return self.urls[0]

    @property
    def operator(self) -> dict[str, str]:
        """The header with which the machine's own operator may do everything."""
        _, token = (self.folder / "patrolserver-exporter.token").read_text().splitlines()
        return {"Authorization": f"Bearer {token}"}

    def rss(self) -> int:
        """Bytes of memory that it holds now."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    def log(self) -> str:
        """Everything that it wrote."""
        return self.log_file.read_text(errors="replace")

    def get(self, path: str, **arguments: Any) -> requests.Response:
        """GET from the main listener; an error without an answer comes with the last words of the log."""
        try:
            return requests.get(self.url + path, timeout=10, **arguments)
        except requests.RequestException as error:
            error.add_note(f"{'It has ended' if self.has_ended else 'It runs'}; its log ends:\n{self.log()[-3000:]}")
            raise

    def metrics(self) -> str:
        """The text that a scrape gets."""
        response = self.get("/metrics")
        assert response.status_code == 200
        return response.text

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """A metric's samples by their labels, from a scrape."""
        return samples(self.metrics(), name)

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample with these labels, others aside; ``None`` if there is none."""
        found = [v for have, v in self.samples(name).items() if labels.items() <= dict(have).items()]
        assert len(found) <= 1, f"{len(found)} samples of {name} have {labels}"
        return found[0] if found else None

    def deliver(self, event_id: int, identifier: str = NEW_ISSUES, webhook_id: int = 1) -> requests.Response:
        """Post a delivery as PatrolServer does."""
        payload = {"webhook_patrolserver": 1, "identifier": identifier, "event_id": event_id, "webhook_id": webhook_id}
        return requests.post(f"{self.url}/webhook/{TOKEN}", json=payload, timeout=20)


def samples(text: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """A metric's samples in an exposition, by their labels."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }
