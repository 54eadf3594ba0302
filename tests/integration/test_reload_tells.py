"""What a reload of a real exporter tells, and what ``/config`` shows of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
import yaml
from tests.harness.process import TOKEN, Exporter

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """Nothing answers for the API."""
    with Exporter.watching(tmp_path_factory.mktemp("reload"), "http://127.0.0.1:1") as running:
        yield running


def reloaded(exporter: Exporter, old: str, new: str) -> requests.Response:
    """The answer to a reload after this change of the file, which is taken back."""
    before = exporter.config_file.read_text()
    exporter.write_config(before.replace(old, new))
    try:
        return requests.post(f"{exporter.url}/-/reload", headers=exporter.operator, timeout=20)
    finally:
        exporter.write_config(before)


def test_a_reload_says_what_changed(exporter: Exporter) -> None:
    """In the answer and in the log, by the keys."""
    answer = reloaded(exporter, "settle: 1s", "settle: 2s")
    assert answer.text == "The configuration was reloaded.\nChanged: issues.settle.\n"
    assert 'msg="The configuration was reloaded" changed=issues.settle' in exporter.log()
    assert reloaded(exporter, "settle: 1s", "settle: 2s").text.endswith("Changed: nothing.\n")


def test_a_reload_takes_over_all_but_what_needs_a_restart(exporter: Exporter) -> None:
    """The store stays the old one, and that is said; the rest is in force."""
    answer = reloaded(exporter, "state.db", "other.db")
    assert answer.status_code == 200
    assert "After a restart only: store.url." in answer.text
    assert (
        'msg="Some changes take effect after a restart; until then the old values hold" keys=store.url'
        in exporter.log()
    )
    shown = yaml.safe_load(exporter.get("/config", headers=exporter.operator).text)
    assert shown["store"]["url"].endswith("/state.db")
    assert not (exporter.folder / "other.db").exists()
    assert exporter.value("patrolserver_exporter_config_last_reload_successful") == 1


def test_several_mistakes_are_several_lines(exporter: Exporter) -> None:
    """Of the log, each with its place; a reader need not take one apart."""
    before = len(exporter.log())
    answer = reloaded(exporter, "poll: {", "pol: {}\nwebhok: {}\npoll: {")
    assert answer.status_code == 500
    assert len(answer.json()["mistakes"]) == 2
    lines = [line for line in exporter.log()[before:].splitlines() if "was not reloaded" in line]
    assert [("pol:" in line, "webhok:" in line) for line in lines] == [(True, False), (False, True)]
    assert not any("\\n" in line for line in lines)
    reloaded(exporter, "", "")


def test_the_configuration_in_force_is_shown_to_the_known_alone(exporter: Exporter) -> None:
    """Also where everybody may read the rest: it names servers, networks and files."""
    assert exporter.get("/api/v1/status").status_code == 200
    denied = exporter.get("/config")
    assert (denied.status_code, denied.headers["www-authenticate"]) == (401, "Bearer")
    shown = exporter.get("/config", headers=exporter.operator)
    assert shown.status_code == 200
    assert yaml.safe_load(shown.text)["accounts"][0]["webhook_tokens"] == ["<secret>"]
    assert TOKEN not in shown.text
