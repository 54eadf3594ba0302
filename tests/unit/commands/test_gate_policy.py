"""From the flags and files of the gate's command to the policy that is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from patrolserver_exporter.commands import flags, gate
from patrolserver_exporter.commands.gate_policy import BadPolicy, baseline_of, policy_of, read_baseline

if TYPE_CHECKING:
    from pathlib import Path

ISSUE: dict[str, Any] = {
    "fingerprint": "f1",
    "account": "main",
    "server": "web-01",
    "canonical_name": "php",
    "kind": "exploitable",
    "severity": "critical",
    "risk": 9.8,
    "exploits": [{"id": "1", "cve": "CVE-2026-1", "title": "T", "risk": 9.8}],
}


def policy(*arguments: str) -> dict[str, Any]:
    """What the command sends for these flags."""
    return policy_of(flags.read(gate.parser(), ["web-01", *arguments]), gate.EDITION)


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ([], {}),
        (["--policy=strict"], {"policy": "strict"}),
        (["--max-high=3", "--max-low=0"], {"max_by_severity": {"high": 3, "low": 0}}),
        (["--max-outdated=1"], {"max_by_kind": {"outdated": 1}}),
        (["--max-total=5", "--max-risk=6.9"], {"max_total": 5, "max_risk": 6.9}),
        (["--max-age=30m", "--max-scan-age=2d"], {"max_age": 1800.0, "max_scan_age": 172800.0}),
        (["--allow-empty"], {"allow_empty": True}),
        (["--no-fixable-only"], {"fixable_only": False}),
        (["--grace=high=7d", "--grace=low=1h"], {"grace": {"high": 604800.0, "low": 3600.0}}),
    ],
    ids=" ".join,
)
def test_only_what_is_given_is_sent(arguments: list[str], sent: dict[str, Any]) -> None:
    """The exporter's own defaults and policies hold for the rest."""
    assert policy(*arguments) == sent


@pytest.mark.parametrize(
    "flag",
    [
        "--max-risk=11",
        "--max-risk=nan",
        "--max-risk=-1",
        "--max-total=-1",
        "--max-age=soon",
        "--grace=dire=7d",
        "--grace=high",
        "--max-critical=1.5",
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be no limit; the flag is named."""
    with pytest.raises(SystemExit) as ended:
        policy(flag)
    assert ended.value.code == 2
    assert flag.partition("=")[0] in capsys.readouterr().err


def test_two_graces_of_one_severity_are_refused() -> None:
    """Nobody could tell which one holds."""
    with pytest.raises(BadPolicy, match="high is given twice"):
        policy("--grace=high=1d", "--grace=high=2d")


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Sorted, each issue once, without exploits that a waiver covers, and equal issues make equal texts."""
    other = {**ISSUE, "fingerprint": "f0", "exploits": [], "risk": None, "kind": "outdated", "severity": "medium"}
    waived = {**ISSUE["exploits"][0], "id": "2", "waived": True}
    text = baseline_of([{**ISSUE, "exploits": [*ISSUE["exploits"], waived]}, other, ISSUE])
    assert text == baseline_of([other, ISSUE])
    (tmp_path / "baseline.json").write_text(text)
    read = policy(f"--baseline={tmp_path / 'baseline.json'}")["baseline"]
    assert [one["fingerprint"] for one in read] == ["f0", "f1"]
    assert list(read[1]["exploits"]) == ISSUE["exploits"]


def test_an_earlier_report_is_a_baseline(tmp_path: Path) -> None:
    """All issues of its limits, each once."""
    report = {"verdict": "fail", "violations": [{"issues": [ISSUE]}, {"issues": [ISSUE]}]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert [one["fingerprint"] for one in read_baseline(tmp_path / "report.json", gate.EDITION)] == ["f1"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "it is not JSON"),
        ([], "what got worse would pass"),
        ({"version": 1, "fingerprints": []}, "what got worse would pass"),
        ({}, "neither a baseline of version 2 nor a report"),
        ({"version": 3, "issues": []}, "neither a baseline"),
        ({"version": 2, "issues": [1]}, "neither a baseline"),
        ({"version": 2, "issues": [{**ISSUE, "fingerprint": ""}]}, "neither a baseline"),
        ({"version": 2, "issues": [{**ISSUE, "fingerprint": "f" * 1025}]}, "neither a baseline"),
        ({"version": 2, "issues": [{**ISSUE, "kind": "odd"}]}, "neither a baseline"),
        ({"version": 2, "issues": [{**ISSUE, "severity": "dire"}]}, "neither a baseline"),
        ({"verdict": "fail", "violations": [{"issues": 1}]}, "neither a baseline"),
        ({"verdict": "fail", "violations": [1]}, "neither a baseline"),
        (None, "it cannot be read"),
    ],
)
def test_what_is_no_baseline_is_refused(document: Any, said: str, tmp_path: Path) -> None:
    """Nothing is accepted by a file that nobody understands; how to write one is told."""
    file = tmp_path / "baseline.json"
    if document is not None:
        file.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(BadPolicy, match=said):
        read_baseline(file, gate.EDITION)


def test_waivers_come_from_a_file(tmp_path: Path) -> None:
    """As in the configuration; one that is wrong is told with its line."""
    file = tmp_path / "waivers.yml"
    file.write_text("- {server: 'web*', software: php, until: 2099-01-31, reason: replaced}\n")
    (waiver,) = policy(f"--waivers={file}")["waivers"]
    assert (waiver["server"], waiver["until"]) == ("web*", "2099-01-31")
    file.write_text("- {server: 'web*', sofware: php, until: 2099-01-31, reason: replaced}\n")
    with pytest.raises(BadPolicy, match=r"waivers\.yml:1"):
        policy(f"--waivers={file}")
