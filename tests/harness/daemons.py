"""What tests start, wait for and stop: programs in a process of their own, and servers in a thread."""

from __future__ import annotations

import abc
import os
import signal
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import requests
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    import socketserver
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import TypeVar

    T = TypeVar("T")


class Program:
    """A program in a process of its own. It is stopped by its process id, never by its name."""

    process: subprocess.Popen[bytes] | None = None

    def launch(
        self,
        command: Sequence[str],
        *,
        log_file: Path | None = None,
        folder: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; what it writes goes behind what is in the file already, or nowhere."""
        with open(log_file or os.devnull, "ab") as log:  # noqa: PTH123  # One way for both.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **(environ or {})}
            )

    def await_start(self, started: Callable[[], T], *, within: float = 90.0) -> T:
        """Wait until it has started, and return what tells so."""

        def probe() -> T:
            found = started()
            if not found and self.has_ended:
                assert self.process is not None
                raise RuntimeError(f"{type(self).__name__} ended with {self.process.returncode}")
            return found

        try:
            return eventually(probe, within=within, what=f"the start of {type(self).__name__}")
        except BaseException:
            # A block that is not entered is not left, so nobody else would end it.
            self.kill()
            raise

    @property
    def has_ended(self) -> bool:
        """It was started, and does not run any longer."""
        return self.process is not None and self.process.poll() is not None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, within: float = 90.0) -> int:
        """Wait for its end; the exit code. One that takes longer is killed, since nobody else would end it."""
        assert self.process is not None
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def terminate(self, within: float = 20.0) -> int:
        """SIGTERM, and wait; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(within)

    def kill(self) -> None:
        """``kill -9``, if it still runs."""
        if self.process is not None and not self.has_ended:
            self.process.kill()
            self.process.wait(10)

    def stop(self) -> None:
        """End it in peace, or else by force."""
        if self.process is None or self.has_ended:
            return
        with suppress(subprocess.TimeoutExpired):
            self.terminate(10)


class Daemon(Program, abc.ABC):
    """A program that says at ``url``/-/ready that it has started. A subclass gives its ``command``."""

    url: str
    log_file: Path

    @abc.abstractmethod
    def command(self) -> list[str]:
        """Write its configuration, and return how it is started."""

    def __enter__(self) -> Self:
        self.launch(self.command(), log_file=self.log_file)
        self.await_start(lambda: requests.get(f"{self.url}/-/ready", timeout=5).ok)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class ServerThread:
    """A server that answers in a thread as long as the block lasts."""

    def __init__(self, server: socketserver.TCPServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        self.port = int(server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
