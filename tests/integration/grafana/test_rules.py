from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from grafana.dashboards.files import FOLDER
from grafana.prometheus_rule import ROOT, RULES, TARGET, rendered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CASES = sorted((RULES.parent / "tests").glob("*.test.yml"))
RUNBOOKS = ROOT / "grafana" / "runbooks.md"
DEMANDED = {
    "PatrolServerExporterDown",
    "PatrolServerApiUnreachable",
    "PatrolServerCredentialsRefused",
    "PatrolServerDataStale",
    "PatrolServerCriticalIssueOpen",
    "PatrolServerHighIssueOpenTooLong",
    "PatrolServerRemediationOverdue",
    "PatrolServerUnsupportedSoftware",
    "PatrolServerScanOverdue",
    "PatrolServerNeverScanned",
    "PatrolServerServersDisappeared",
    "PatrolServerInboxStuck",
    "PatrolServerDeadDeliveries",
    "PatrolServerEventLagHigh",
}


def alerts() -> dict[str, dict[str, Any]]:
    """Name → alerting rule."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def headings() -> set[str]:
    """The anchors that a reader of the runbooks can jump to."""
    return {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", RUNBOOKS.read_text(), re.MULTILINE)}


def test_promtool_finds_nothing_with_all_lints(require_program: Callable[[str], str]) -> None:
    """``promtool check rules --lint=all --lint-fatal`` is silent."""
    command = [require_program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(RULES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_rules_fire_and_stay_silent_as_they_should(cases: Path, require_program: Callable[[str], str]) -> None:
    """The cases of ``promtool test rules`` hold."""
    command = [require_program("promtool"), "test", "rules", str(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_demanded_alert_is_missing() -> None:
    """Every alert that an operator relies on is there."""
    assert DEMANDED - alerts().keys() == set()


def test_each_alert_is_tested_firing_silent_and_around_a_gap() -> None:
    """Each has an expectation to fire and one not to, and one with series that go away and return."""
    seen: dict[str, set[str]] = {name: set() for name in alerts()}
    for path in CASES:
        for test in yaml.safe_load(path.read_text())["tests"]:
            gap = any(re.search(r"stale|_x?", str(one["values"])) for one in test["input_series"])
            for name, fires in expectations(test):
                seen[name] |= {"firing" if fires else "silent", *(["gap"] if gap else [])}
    # The "up" of a scrape is never missing.
    without_gap = {name for name, sides in seen.items() if sides != {"firing", "silent", "gap"}}
    assert without_gap == {"PatrolServerExporterDown"}
    assert seen["PatrolServerExporterDown"] == {"firing", "silent"}


def expectations(test: dict[str, Any]) -> list[tuple[str, bool]]:
    """(alert, whether it has to fire) of a case."""
    firing = [(one["alertname"], bool(one["exp_alerts"])) for one in test.get("alert_rule_test", ())]
    asked = [
        (re.findall(r'alertname="(\w+)"', one["expr"])[0], bool(one["exp_samples"]))
        for one in test.get("promql_expr_test", ())
    ]
    return firing + asked


@pytest.mark.parametrize("name", sorted(alerts()))
def test_each_alert_says_what_is_wrong_and_where_to_go_on(name: str) -> None:
    """Severity, one static sentence, a description, a runbook that exists, and a dashboard that exists."""
    rule = alerts()[name]
    notes = rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert notes["summary"].endswith(".")
    assert "{{" not in notes["summary"]
    assert notes["description"]
    assert name.startswith("PatrolServer")
    page, anchor = notes["runbook_url"].split("#")
    assert page.endswith(f"/{RUNBOOKS.relative_to(ROOT)}")
    assert anchor in headings()
    dashboard = re.findall(r"/d/([\w-]+)", notes["dashboard_url"])[0]
    assert (FOLDER / f"{dashboard}.json").is_file()


def test_each_runbook_belongs_to_an_alert_and_is_complete() -> None:
    """Meaning, impact, diagnosis with commands, mitigation; and no orphan."""
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    assert {section.splitlines()[0] for section in sections} == alerts().keys()
    for section in sections:
        for part in ("**Meaning.**", "**Impact.**", "**Diagnosis.**", "```sh\n", "**Mitigation.**"):
            assert part in section, section.splitlines()[0]


def test_the_operators_copy_of_the_rules_is_fresh() -> None:
    """PrometheusRule holds the same rules; else run ``make dashboards``."""
    assert TARGET.read_text() == rendered()
    assert yaml.safe_load(TARGET.read_text())["spec"] == yaml.safe_load(RULES.read_text())


def test_the_page_names_every_alert_with_its_severity() -> None:
    """docs/grafana.md has each alert in a row of its severity."""
    rows = re.findall(r"^\| (PatrolServer[^|]*) \| (\w+) \|", (ROOT / "docs" / "grafana.md").read_text(), re.MULTILINE)
    told = {name: severity for names, severity in rows for name in names.split(", ")}
    assert told == {name: rule["labels"]["severity"] for name, rule in alerts().items()}
