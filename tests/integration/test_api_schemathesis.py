"""Schemathesis against the running exporter, whose store holds what no sane API would send."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from tests.harness.api import put_server
from tests.harness.locked import locked_program
from tests.harness.process import Exporter
from tests.harness.sizes import FULL
from tests.unit.issues.builders import issue, outdated, software, unsupported

from patrolserver_exporter.inbox.deliveries import DeliveryState, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.issues.model import Change, ChangeKind, Kind, Severity
from patrolserver_exporter.patrolserver.models import Exploit
from patrolserver_exporter.store import Store, fleet, history, tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.store import Unit

pytestmark = pytest.mark.promise("bad-input")

HOSTILE = [
    "web1.example.org",
    "*",
    "../../etc/passwd",
    "a/b?c=d#e%2F%00",
    "<script>alert(1)</script>",
    "'; DROP TABLE servers; --",
    "\u202egro.elpmaxe\u202c",
    "\N{PILE OF POO}" * 60,
    "x" * 255,
    "[!a-z]*\\",
    "7",
    "{server:path}",
]
NOON = 1_795_521_600.0


def fill(unit: Unit) -> None:
    """Servers, issues, software, changes and deliveries with the oddest texts that the door lets through."""
    for number, name in enumerate(HOSTILE, 1):
        found = [
            issue(name or "x", Kind.OUTDATED, location=name, title=name, description=name * 20),
            issue("php", Kind.EXPLOITABLE, risk=None, severity=Severity.LOW),
            issue("old", Kind.UNSUPPORTED, fixed_at=0.0, first_seen=0.0, last_seen=0.0),
            issue("told", Kind.REPORTED, version=None),
        ]
        found = [replace(one, fingerprint=f"{number}-{n}") for n, one in enumerate(found)]
        put_server(
            unit,
            2**53 - number,
            name,
            issues=found,
            software=(
                outdated(name, exploits=(Exploit(), Exploit(risk=10.0, cve=name, title=name))),
                unsupported(name, id=2**53 - 1, parent=name, location=name),
                software("php", version=None, candidates=(name,), supported=None, exploits=None),
            ),
            polled_at=NOON if number % 3 else None,
            event_received_at=NOON if number % 4 else None,
            last_scan_at=0.0,
        )
        history.record(unit.connection, name, [Change(kind=kind, at=NOON, issue=found[0]) for kind in ChangeKind])
    # The targets of an account that never had a list are a 503, which is no mistake but looks like one.
    fleet.save_account(unit.connection, fleet.AccountRecord(name="main", up=False, last_success_at=NOON))
    news = [NewDelivery("main", 2**53 - 1, number, HOSTILE[number % 12], NOON) for number in range(1, 31)]
    BoundedInbox(100).accept(unit, news)
    states = list(DeliveryState)
    for number in range(1, 31):
        row = tables.inbox.update().where(tables.inbox.c.id == number)
        state = states[number % len(states)]
        unit.connection.execute(row.values(state=state, body=bytes(range(256)), last_error=HOSTILE[number % 12]))


@pytest.fixture(scope="session")
def schemathesis() -> Path:
    return locked_program("schemathesis", "schemathesis")


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with Store(url) as store:
        store.run(fill)
    # Nobody listens there, so that the API neither confirms nor removes what is in the store.
    made = Exporter.watching(tmp_path, "http://127.0.0.1:1", store_url=url)
    tokens = "    webhook_tokens: [test-token-0123456789]\n"
    before = made.config_file.read_text()
    assert tokens in before
    made.write_config(before.replace(tokens, tokens + '    labels: {"*": {team: web}}\n'))
    with made as running:
        yield running


def test_no_request_makes_the_api_break_its_own_document(schemathesis: Path, exporter: Exporter) -> None:
    """All checks on: no 5xx, no status that is not documented, no answer against its schema, nothing wrong accepted."""
    here = Path(__file__).with_name("schemathesis")
    environ = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "hooks",
        "PYTHONPATH": str(here),
        "HOSTILE_NAMES": json.dumps(HOSTILE),
    }
    command = [
        str(schemathesis),
        "--config-file",
        str(here / "schemathesis.toml"),
        "run",
        f"{exporter.url}/api/v1/openapi.json",
        "--workers=2",
        f"--max-examples={100 if FULL else 6}",
        "--seed=1",
        "--request-timeout=10",
        "--no-color",
        "--max-failures=20",
        "--generation-database=none",
    ]
    ran = subprocess.run(command, env=environ, cwd=exporter.folder, capture_output=True, text=True, check=False)
    report = "\n".join(line[:400] for line in (ran.stdout + ran.stderr).splitlines())
    assert ran.returncode == 0, report
    assert "Traceback" not in exporter.log()
