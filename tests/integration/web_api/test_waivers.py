"""The configuration's waivers over the API: what each covers, and which match nothing."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from tests.harness.api import put_server, serving_api
from tests.unit.issues.builders import issue

from patrolserver_exporter.issues.model import Kind, Severity, Waiver

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.api import SetTime

    from patrolserver_exporter.store import Unit


def waiver(server: str, software: str, *, until: dt.date = dt.date(2027, 1, 1), **more: Any) -> Waiver:
    return Waiver(server=server, software=software, until=until, reason="x", **more)


def _fleet(unit: Unit) -> None:
    put_server(unit, 1, "web1.example.org", issues=[issue("php"), issue("nginx")], polled_at=1000.0)
    put_server(unit, 2, "web2.example.org", issues=[issue("php", Kind.UNSUPPORTED)], polled_at=1000.0)
    put_server(unit, 3, "db1.example.org", issues=[issue("php", fixed_at=2000.0)], polled_at=1000.0)
    put_server(unit, 4, "new.example.org")


def test_each_waiver_tells_what_it_covers(tmp_path: Path, clock: SetTime) -> None:
    """Open issues only, by all that a waiver says; one that is over tells what it would cover."""
    waivers = (
        waiver("web*", "php"),
        waiver("web*", "php", kind=Kind.OUTDATED),
        waiver("web*", "php", max_severity=Severity.LOW),
        waiver("db*", "php"),
        waiver("*", "nosuch"),
        waiver("*", "*", until=dt.date(2020, 1, 1)),
    )
    with serving_api(f"sqlite:///{tmp_path / 'state.db'}", clock=clock, waivers=waivers) as api:
        api.store.run(_fleet)
        answer = api.get("/waivers").json()
    found = [(one["issues"], one["servers"], one["expired"]) for one in answer["items"]]
    assert found == [(2, 2, False), (1, 1, False), (0, 0, False), (0, 0, False), (0, 0, False), (3, 2, True)]
    assert answer["items"][1] == {
        "server": "web*",
        "software": "php",
        "exploit": None,
        "kind": "outdated",
        "max_severity": None,
        "until": "2027-01-01",
        "reason": "x",
        "expired": False,
        "issues": 1,
        "servers": 1,
    }
    assert answer["coverage"]["never_polled"] == 1


def test_without_waivers_the_list_is_empty(tmp_path: Path) -> None:
    """And not an error."""
    with serving_api(f"sqlite:///{tmp_path / 'state.db'}") as api:
        assert api.get("/waivers").json()["items"] == []
