"""msgspec knows all structs before there are threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import patrolserver_exporter.commands.serve
import patrolserver_exporter.commands.simulator  # noqa: F401  # With all that the two import.
from patrolserver_exporter import cli
from patrolserver_exporter.gate.policy import Policy
from patrolserver_exporter.inbox.deliveries import Delivery
from patrolserver_exporter.store.fleet import AccountState, ServerState
from patrolserver_exporter.structs import prepare_structs

RACE = """
import sys, threading
import msgspec
from patrolserver_exporter.structs import prepare_structs

sys.setswitchinterval(1e-6)
kinds = []
for number in range(400):
    inner = msgspec.defstruct(f"Inner{number}", [(f"f{field}", int | None, None) for field in range(30)])
    kinds.append(msgspec.defstruct(f"Outer{number}", [(f"g{field}", list[inner] | None, None) for field in range(30)]))
if "prepared" in sys.argv:
    prepare_structs()
for kind in kinds:
    together = threading.Barrier(4)
    def decode(kind=kind, together=together):
        together.wait()
        msgspec.json.decode(b'{"g0": [{"f1": 1}], "g29": [{"f29": 2}]}', type=kind)
    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_what_is_stored_and_what_is_asked_are_among_them() -> None:
    """Documents of servers and accounts, deliveries, policies."""
    assert {ServerState, AccountState, Delivery, Policy} <= prepare_structs()


def test_each_command_begins_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the command, and so before its first thread."""
    done = []
    monkeypatch.setattr(cli, "prepare_structs", lambda: done.append("prepared"))
    with pytest.raises(SystemExit):
        cli.main(["simulator", "--no-such-flag"])
    assert done == ["prepared"]


@pytest.mark.slow
def test_threads_that_decode_the_same_structs_for_the_first_time_are_safe() -> None:
    """Without it such a process ends with a segmentation fault, sooner or later."""
    ended = subprocess.run([sys.executable, "-c", RACE, "prepared"], check=False, timeout=120)
    assert ended.returncode == 0
