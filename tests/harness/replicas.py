"""Several exporters on one PostgreSQL behind a real HAProxy, and a real PgBouncer between them and the database."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import requests
from tests.harness.daemons import Program
from tests.harness.fleet import wait_for_polls
from tests.harness.process import NEW_ISSUES, TOKEN, Exporter
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

OWNER = "patrolserver_exporter_account_owner"
API_TOKEN = "token-of-the-tests-0123456789"
_API = f"api: {{tokens: [{{name: tests, token: {API_TOKEN}, scopes: [read, refresh, inbox]}}]}}\n"
PATIENCE = 300.0
"""Seconds that a busy machine may take for anything that is not measured."""
_ALTERED = "tests.harness.altered"
_ROOT = Path(__file__).parents[2]
# A delivery may go to another exporter only if none has it yet; the exporters know a delivery that comes twice, too.
_HAPROXY = """\
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 20s
    retries 2
    option redispatch 1
frontend exporters
    bind 127.0.0.1:{port}
    default_backend exporters
backend exporters
    balance roundrobin
    option httpchk GET /-/ready
    default-server check inter 500ms fall 2 rise 1
{servers}
"""
_PGBOUNCER = """\
[databases]
* = host={host} user=patrol
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 200
server_connect_timeout = 2
server_login_retry = 1
query_wait_timeout = 10
ignore_startup_parameters = extra_float_digits
"""


class Balancer(Program):
    """HAProxy in front of some ports of loopback; who is not ready gets nothing."""

    def __init__(self, folder: Path, program: str, ports: Sequence[int]) -> None:
        self._folder = folder
        self._program = program
        self._ports = ports
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        file, log_file = self._folder / "haproxy.cfg", self._folder / "haproxy.log"
        servers = "\n".join(f"    server exporter{n} 127.0.0.1:{port}" for n, port in enumerate(self._ports))
        file.write_text(_HAPROXY.format(port=self._port, servers=servers))
        self.launch([self._program, "-db", "-f", str(file)], log_file=log_file, folder=self._folder)
        self.await_start(lambda: _listens(self._port))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def deliver(self, event_id: int, identifier: str = NEW_ISSUES, webhook_id: int = 1) -> requests.Response:
        """Post a delivery as PatrolServer does."""
        payload = {"webhook_patrolserver": 1, "identifier": identifier, "event_id": event_id, "webhook_id": webhook_id}
        return requests.post(f"{self.url}/webhook/{TOKEN}", json=payload, timeout=30)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class PgBouncer(Program):
    """A pooler in transaction mode between some exporters and a cluster. As root it runs as ``postgres``."""

    def __init__(self, program: str, cluster_folder: Path, *, pool: int = 2) -> None:
        self._program = program
        self._host = cluster_folder
        self._pool = pool
        self._folder = Path(tempfile.mkdtemp(prefix="pgb-"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it, again if it was killed."""
        file = self._folder / "pgbouncer.ini"
        file.write_text(_PGBOUNCER.format(host=self._host, folder=self._folder, pool=self._pool))
        command = [self._program, str(file)]
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        # One that was killed leaves its socket, and does not start beside it.
        place = self._folder / ".s.PGSQL.6432"
        place.unlink(missing_ok=True)
        self.launch(command, log_file=self._folder / "log", folder=self._folder)
        self.await_start(place.exists)

    def url_of(self, url: str) -> str:
        """The URL of the same database through this pooler."""
        return f"{url.partition('?')[0]}?host={self._folder}&port=6432"


class Replicas:
    """Exporters with one configuration on one database. They run from `start` to the end of the block.

    ``urls``: each one's own way to the database; ``altered``: what is taken out of their code (see ``altered``).
    """

    def __init__(  # What tests vary.
        self,
        folder: Path,
        api_url: str,
        urls: Sequence[str],
        *,
        config: Mapping[str, str] | None = None,
        extra: str = "",
        altered: Sequence[str] = (),
        environs: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.ports = [free_port() for _ in urls]
        self.exporters: list[Exporter] = []
        self.stopped: set[Exporter] = set()
        for number, (port, url) in enumerate(zip(self.ports, urls, strict=True)):
            place = folder / f"replica{number}"
            place.mkdir()
            environ = dict(environs[number]) if environs else {}
            if altered:
                paths = (str(_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep))
                environ |= {
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                    "PATROLSERVER_TEST_ALTERED": " ".join(altered),
                }
            exporter = Exporter.watching(
                place,
                api_url,
                f"--web.listen-address=127.0.0.1:{port}",
                store_url=url,
                extra=_API + extra,
                environ=environ,
                module=_ALTERED if altered else "patrolserver_exporter",
                **(config or {}),
            )
            self.exporters.append(exporter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for exporter in self.exporters:
            exporter.kill()

    def __iter__(self) -> Iterator[Exporter]:
        return iter(self.exporters)

    def __getitem__(self, number: int) -> Exporter:
        return self.exporters[number]

    def start(self, within: float = PATIENCE) -> None:
        """Start the first one, which is the owner, and then the others together."""
        first, *others = self.exporters
        first.start(within=within)
        self.owner()
        with ThreadPoolExecutor(len(others) or 1) as pool:
            list(pool.map(functools.partial(Exporter.start, within=within), others))

    @property
    def answering(self) -> list[Exporter]:
        """Those that run."""
        return [
            one for one in self.exporters if one.process is not None and not one.has_ended and one not in self.stopped
        ]

    def stop(self, exporter: Exporter) -> None:
        """SIGSTOP."""
        self.stopped.add(exporter)
        exporter.signal(signal.SIGSTOP)

    def go_on(self, exporter: Exporter) -> None:
        """SIGCONT."""
        exporter.signal(signal.SIGCONT)
        self.stopped.discard(exporter)

    def owners(self, account: str = "main") -> list[Exporter]:
        """Those of the running ones that say that they poll this account."""
        return [one for one in self.answering if _value(one, OWNER, account) == 1.0]

    def owner(self, account: str = "main", *, within: float = PATIENCE) -> Exporter:
        """The one that polls, as soon as there is exactly one."""
        found = eventually(
            lambda: those if len(those := self.owners(account)) == 1 else [], within=within, what="one owner"
        )
        return found[0]

    def everywhere(self, probe: Callable[[Exporter], object], what: str) -> None:
        """Wait until this is so on each."""
        for exporter in self.exporters:
            eventually(functools.partial(probe, exporter), within=PATIENCE, what=f"{what} on {exporter.folder.name}")

    def wait_for_polls(self, servers: int, *, after: float = 0.0, within: float = PATIENCE) -> None:
        """Wait until each shows that many servers that were polled after this moment."""
        for exporter in self.exporters:
            wait_for_polls(exporter, servers, after=after, within=within)

    def others(self, exporter: Exporter) -> list[Exporter]:
        """All but this one."""
        return [one for one in self.exporters if one is not exporter]


def _value(exporter: Exporter, name: str, account: str) -> float | None:
    try:
        text = exporter.metrics()
    except (OSError, AssertionError):
        return None
    wanted = f'{name}{{account="{account}"}} '
    return next((float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted)), None)


def ask_gate(url: str, body: Mapping[str, Any], *, timeout: float = 10.0) -> str:
    """The verdict of the gate at this address; ``refused`` where it gives none."""
    headers = {"Authorization": f"Bearer {API_TOKEN}"}
    try:
        reply = requests.post(f"{url}/api/v1/gate", json=body, headers=headers, timeout=timeout)
    except requests.RequestException:
        return "refused"
    return str(reply.json()["verdict"]) if reply.ok else "refused"
