"""A real VictoriaMetrics, with its vmalert, in versions of Debian's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import requests
from tests.harness.daemons import Program
from tests.harness.prometheus import free_port

if TYPE_CHECKING:
    from pathlib import Path


class _Listening(Program):
    """It says at /health that it has started."""

    def __init__(self, folder: Path, program: str, *flags: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log_file = folder / f"{type(self).__name__}.log"
        self._command = [program, f"-httpListenAddr={self.url.removeprefix('http://')}", *flags]

    def __enter__(self) -> Self:
        self.launch(self._command, log_file=self.log_file)
        self.await_start(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of the query API, which is Prometheus's."""
        answer = requests.get(f"{self.url}{path}", params=parameters, timeout=20)
        assert answer.ok, answer.text
        return answer.json()["data"]


class VictoriaMetrics(_Listening):
    """Scrapes what a configuration of Prometheus says."""

    def __init__(self, folder: Path, program: str, configuration: Path) -> None:
        super().__init__(
            folder,
            program,
            f"-storageDataPath={folder / 'victoria-metrics'}",
            f"-promscrape.config={configuration}",
            # It refuses what only Prometheus knows, such as rule_files.
            "-promscrape.config.strictParse=false",
            # Nothing is kept back for half a minute.
            "-search.latencyOffset=0s",
        )

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The vector that an instant query yields: labels → value."""
        found = self.ask("/api/v1/query", query=expression)["result"]
        return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in found}


class VmAlert(_Listening):
    """Evaluates rules over it, and writes back what they find."""

    def __init__(self, folder: Path, program: str, rules: Path, database: VictoriaMetrics) -> None:
        super().__init__(
            folder,
            program,
            f"-rule={rules}",
            "-evaluationInterval=1s",
            f"-datasource.url={database.url}",
            f"-remoteWrite.url={database.url}",
            # Nobody is told; the alerts are asked for.
            "-notifier.url=http://127.0.0.1:9",
        )

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health, and what was wrong with it last."""
        return [rule for group in self.ask("/api/v1/rules")["groups"] for rule in group["rules"]]
