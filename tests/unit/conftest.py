"""The tests of this folder open no connection and wait for no time to pass; what does is in ``tests/integration``."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import urllib3  # noqa: F401  # It opens a socket, once, when it is imported: here, and not within a test.

if TYPE_CHECKING:
    from collections.abc import Iterator

_forbids = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _forbids:
        return
    if event in {"socket.connect", "socket.bind"} and arguments[0].family in {socket.AF_INET, socket.AF_INET6}:
        pytest.fail(f"{event} {arguments[1]}: a unit test opens no socket; it belongs to tests/integration")
    # subprocess sleeps between two looks at a process that it waits for: that is no guess of a test.
    if event == "time.sleep" and sys._getframe(1).f_code.co_filename != subprocess.__file__:  # noqa: SLF001
        pytest.fail(f"time.sleep({arguments[0]}): a unit test waits for no time to pass; tests/harness/ticking.py")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def _no_sockets_and_no_waiting() -> Iterator[None]:
    """An audit hook cannot be taken away again, so it is told when it counts."""
    global _forbids  # noqa: PLW0603  # One hook for the whole process.
    _forbids = True
    yield
    _forbids = False


@pytest.fixture(scope="session")
def postgres() -> None:
    """Nor is there a database server."""
    pytest.fail("a unit test has no PostgreSQL; it belongs to tests/integration")
