from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from grafana.alerting.files import OPERATORS, PAGE, ROOT, RULES, operators_rules, page, rules
from grafana.alerting.recorded import ISSUES, OWNERS_ISSUES, OWNERS_SERVERS
from grafana.dashboards.files import FOLDER
from grafana.lint import drawn
from grafana.settings import load
from tests.harness.promtool import counted, firing, rules_hold, series
from tests.harness.rule_cases import CASES, FIRST, HEALTHY, MAIN, SECOND, Case, name, software

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUNBOOKS = ROOT / "grafana" / "runbooks.md"


def alerts() -> dict[str, list[dict[str, Any]]]:
    """Name → alerting rules of that name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                found.setdefault(rule["alert"], []).append(rule)
    return found


def headings() -> set[str]:
    """The anchors that a reader of the runbooks can jump to."""
    return {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", RUNBOOKS.read_text(), re.MULTILINE)}


def test_promtool_finds_nothing_with_all_lints(require_program: Callable[[str], str]) -> None:
    """``promtool check rules --lint=all --lint-fatal`` is silent."""
    command = [require_program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(RULES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def shown(case: Case, instance: str) -> dict[str, str]:
    """What an exporter of a case shows: as while all is well, but for what the case says."""
    differs = case.second if instance == SECOND and case.second is not None else case.series
    samples = case.minutes // case.step
    found = {}
    for (metric, labels), values in {**HEALTHY, **differs}.items():
        healthy = values.format(n=samples)
        if case.step != 1:
            healthy = healthy.replace("+60x", f"+{60 * case.step}x")
        found[name(metric, labels, instance=instance)] = healthy
    return found


def timeline(case: Case, *, two: bool) -> dict[str, Any]:
    """The case as promtool takes it."""
    instances = (FIRST, SECOND) if two else (FIRST,)
    found: dict[str, str] = {}
    for instance in instances:
        found |= shown(case, instance)
    factor = 2 if two and case.each and case.second is None else 1
    query = firing(case.alert, case.severity)
    return {
        "name": f"{case.alert}: {case.what}",
        "interval": f"{case.step}m",
        "input_series": series(found),
        "promql_expr_test": [
            *(counted(query, number * factor, minute) for minute, number in case.firing.items()),
            *(counted(firing(case.alert, case.not_as), 0, minute) for minute in case.firing if case.not_as),
        ],
    }


def with_what_it_reads(alert: str, folder: Path) -> Path:
    """The rules of an alert and the recorded series that they read, since promtool evaluates all at each step."""
    content = yaml.safe_load(RULES.read_text())
    every = [rule for group in content["groups"] for rule in group["rules"]]
    needed = [rule for rule in every if rule.get("alert") == alert]
    for rule in needed:
        names = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", rule["expr"]))
        # What reads alerts could read each.
        read = [one for one in every if one.get("record") in names or ("alert" in one and "ALERTS" in names)]
        needed += [one for one in read if one not in needed]
    for group in content["groups"]:
        group["rules"] = [rule for rule in group["rules"] if rule in needed]
    content["groups"] = [group for group in content["groups"] if group["rules"]]
    file = folder / "rules.yml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.mark.parametrize("alert", sorted({case.alert for case in CASES}))
@pytest.mark.parametrize("exporters", [1, 2])
def test_each_alert_fires_and_resolves(
    alert: str, exporters: int, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """With one exporter and with two, through restarts and gaps, as often as it should and no more."""
    promtool = require_program("promtool")
    read = with_what_it_reads(alert, tmp_path)
    mine = [case for case in CASES if case.alert == alert and (case.alone or exporters == 2)]
    for step in sorted({case.step for case in mine}):
        tests = [timeline(case, two=exporters == 2) for case in mine if case.step == step]
        assert rules_hold(promtool, read, tests, tmp_path, step=f"{step}m") == ""


def resolves(case: Case) -> bool:
    """It is silent, fires, and is silent again."""
    return re.fullmatch("0+[1-9]+0+", "".join(str(number) for _, number in sorted(case.firing.items()))) is not None


def test_each_alert_is_tested_firing_resolving_and_around_a_gap() -> None:
    """Each, with each of its severities, is seen to begin and to end; and each has a case with series that return."""
    for alert, all_ in alerts().items():
        mine = [case for case in CASES if case.alert == alert]
        for severity in (rule["labels"]["severity"] for rule in all_):
            as_that = [case for case in mine if case.severity == severity or (len(all_) == 1 and not case.severity)]
            assert any(map(resolves, as_that)), f"{alert}, {severity}"
        assert any(re.search(r"stale|_x|0x\d+ 1", values) for case in mine for values in case.series.values()), alert
    assert {case.alert for case in CASES} == alerts().keys()


def test_a_page_names_the_count_the_servers_and_the_software(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Sixty servers with one exploit are one alert, whose text says what to do first; each server is a ticket."""
    found: dict[str, str] = {name("up"): "1x20", **account_series(FIRST)}
    for number in range(60):
        found |= server_series(FIRST, f"web-{number:02}", number, critical=3 if number < 5 else 1, labels='team="shop"')
    page = {
        "eval_time": "10m",
        "alertname": "PatrolServerCriticalIssueOpen",
        "exp_alerts": [
            {
                "exp_labels": {
                    "job": "patrolserver",
                    "account": "main",
                    "software": "openssl",
                    "team": "shop",
                    "severity": "critical",
                    "issue_severity": "critical",
                },
                "exp_annotations": notes(
                    "PatrolServerCriticalIssueOpen",
                    "critical",
                    "openssl is critical on 60 servers of account main, team shop: web-00, web-01, web-02, web-03, "
                    "web-04 and others. A known exploit has a risk of 9 or more.",
                    "/d/patrolserver-fleet?var-account=main",
                ),
            }
        ],
    }
    test = {
        "interval": "1m",
        "input_series": series(found),
        "alert_rule_test": [page],
        "promql_expr_test": [counted(firing("PatrolServerServerCritical", "warning"), 60, 10)],
    }
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


def page_texts(alert: str, found: dict[str, str], expected: dict[str, str], minute: int) -> dict[str, Any]:
    """A test that an alert of critical openssl says just this, by team."""
    return {
        "interval": "1m",
        "input_series": series(found),
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": alert,
                "exp_alerts": [
                    {
                        "exp_labels": {
                            "job": "patrolserver",
                            "account": "main",
                            "software": "openssl",
                            **({"team": team} if team else {}),
                            "severity": "critical",
                            "issue_severity": "critical",
                        },
                        "exp_annotations": notes(alert, "critical", text, "/d/patrolserver-fleet?var-account=main"),
                    }
                    for team, text in expected.items()
                ],
            }
        ],
    }


def test_a_page_names_the_servers_of_its_owner_only(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """Who is woken up for one server of his own reads of no other team's."""
    found: dict[str, str] = {name("up"): "1x20", **account_series(FIRST)}
    for number, team in enumerate(("shop", "web", "web", "")):
        labels = f'team="{team}"' if team else ""
        found |= server_series(FIRST, f"{team or 'no'}-{number}", number, critical=1, labels=labels)
    risk = "A known exploit has a risk of 9 or more."
    expected = {
        "shop": f"openssl is critical on 1 server of account main, team shop: shop-0. {risk}",
        "web": f"openssl is critical on 2 servers of account main, team web: web-1, web-2. {risk}",
        "": f"openssl is critical on 1 server of account main: no-3. {risk}",
    }
    test = page_texts("PatrolServerCriticalIssueOpen", found, expected, 10)
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


def test_a_page_of_what_spreads_names_the_new_servers(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """Those that have it for less than ten minutes, and not those that were told of before."""
    found: dict[str, str] = {name("up"): "1x40", **account_series(FIRST, read="0+60x40")}
    for number in range(3):
        found |= server_series(FIRST, f"web-{number}", number, critical=1, labels='team="web"', polled="0+60x40")
    found = {key: values.replace("x20", "x40") for key, values in found.items()}
    new = f'{MAIN},server="web-2",server_id="2"'
    found[name("patrolserver_server_issues", new, 'severity="critical"')] = "0x29 1x11"
    found[name("patrolserver_server_software_info", software("critical", "openssl", new))] = "_x30 1x10"
    expected = {
        "web": "openssl is critical on 1 more server of account main, team web: web-2. Ten minutes ago it was not so "
        "there. Resolves by itself ten minutes after the last one."
    }
    test = page_texts("PatrolServerCriticalIssueSpreads", found, expected, 32)
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


def test_a_server_with_other_labels_after_a_restart_of_prometheus_breaks_no_rule(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Its series of before, which nobody ended, is seen for five minutes more; today's labels hold at once."""
    found: dict[str, str] = {name("up"): "1x20", **account_series(FIRST)}
    found |= server_series(FIRST, "web-01", 7, critical=1)
    who = f'{MAIN},server="web-01",server_id="7"'
    del found[name("patrolserver_server_info", who, 'verified="true"')]
    found[name("patrolserver_server_info", who, 'team="shop"', 'verified="true"')] = "1x8 _x12"
    found[name("patrolserver_server_info", who, 'team="web"', 'verified="true"')] = "_x10 1x10"
    fires = 'count(ALERTS{{alertname="PatrolServerCriticalIssueOpen",alertstate="firing",team="{}"}}) or vector(0)'
    tests = [
        counted(fires.format(team), number, minute)
        for minute, whose in ((9, "shop"), (10, "web"), (12, "web"), (18, "web"))
        for team, number in (("shop", int(whose == "shop")), ("web", int(whose == "web")))
    ]
    test = {"interval": "1m", "input_series": series(found), "promql_expr_test": tests}
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


def test_targets_that_differ_in_another_label_only_break_no_rule(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """As two clusters in one Prometheus do, or a target whose labels were changed; nor does anything fire."""
    found = {
        f'{name(metric, labels)[:-1]},cluster="{cluster}"}}': values.format(n=30)
        for (metric, labels), values in HEALTHY.items()
        for cluster in ("east", "west")
    }
    tests = [counted('count(ALERTS{alertstate="firing"}) or vector(0)', 0, minute) for minute in (5, 15, 29)]
    test = {"interval": "1m", "input_series": series(found), "promql_expr_test": tests}
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


@pytest.mark.parametrize(("offset", "said"), [(90, "ahead by 90 s"), (-90, "behind by 90 s")])
def test_a_clock_that_is_off_is_ahead_or_behind_by_so_many_seconds(
    offset: int, said: str, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """The number has no sign, as the word says the direction."""
    text = f"The clock of {FIRST} is {said}. Ages, waivers and the gate's max_age are wrong by as much."
    dashboard = "/d/patrolserver-exporter?var-instance=first%3A10058"
    expected = {
        "exp_labels": {"job": "patrolserver", "instance": FIRST, "severity": "warning"},
        "exp_annotations": notes("PatrolServerClockOff", "warning", text, dashboard),
    }
    test = {
        "interval": "1m",
        "input_series": series({name("patrolserver_exporter_clock_offset_seconds", MAIN): f"{offset}x20"}),
        "alert_rule_test": [{"eval_time": "10m", "alertname": "PatrolServerClockOff", "exp_alerts": [expected]}],
    }
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"server": "*", "software": "php"}, "php on *"),
        (
            {"server": "web-*", "software": "openssl", "exploit": "CVE-2026-0001"},
            "openssl with exploit CVE-2026-0001 on web-*",
        ),
        ({"server": "web-*", "kind": "outdated"}, "any software that is outdated on web-*"),
    ],
)
def test_a_waiver_that_ends_is_named_by_all_that_it_says(
    labels: dict[str, str], said: str, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Several waivers may have the same software and server, and one may name no software."""
    waiver = ",".join(f'{label}="{value}"' for label, value in labels.items())
    text = f"The waiver for {said} ends in 13d 23h 50m 0s. What it covers is open from then on."
    expected = {
        "exp_labels": {"job": "patrolserver", "severity": "warning", **labels},
        "exp_annotations": notes("PatrolServerWaiverEnding", "warning", text, "/d/patrolserver-fleet"),
    }
    test = {
        "interval": "1m",
        "input_series": series({name("patrolserver_waiver_expiry_timestamp_seconds", waiver): "1209600x20"}),
        "alert_rule_test": [{"eval_time": "10m", "alertname": "PatrolServerWaiverEnding", "exp_alerts": [expected]}],
    }
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


def notes(alert: str, severity: str, description: str, dashboard: str) -> dict[str, str]:
    """The annotations of an alert whose description is this."""
    (rule,) = (rule for rule in alerts()[alert] if rule["labels"]["severity"] == severity)
    settings = load()
    return {
        "summary": rule["annotations"]["summary"],
        "description": description,
        "runbook_url": rule["annotations"]["runbook_url"],
        "dashboard_url": f"{settings.grafana_url}{dashboard}",
    }


def account_series(instance: str, *, read: str = "0+60x20") -> dict[str, str]:
    """What an exporter shows of an account."""
    return {
        name("patrolserver_up", MAIN, instance=instance): "1x20",
        name("patrolserver_last_success_timestamp_seconds", MAIN, instance=instance): read,
        name("patrolserver_exporter_poll_interval_seconds", MAIN, instance=instance): "900x20",
    }


def server_series(
    instance: str, server: str, number: int, *, critical: int, labels: str = "", polled: str = "0+60x20"
) -> dict[str, str]:
    """What it shows of a server."""
    who = f'{MAIN},server="{server}",server_id="{number}"'
    return {
        name("patrolserver_server_info", who, 'verified="true"', labels, instance=instance): "1x20",
        name("patrolserver_server_last_poll_timestamp_seconds", who, instance=instance): polled,
        name("patrolserver_server_issues", who, 'severity="critical"', instance=instance): f"{critical}x20",
        name("patrolserver_server_issues", who, 'severity="high"', instance=instance): "0x20",
        **(
            {name("patrolserver_server_software_info", software("critical", "openssl", who), instance=instance): "1x20"}
            if critical
            else {}
        ),
    }


@pytest.mark.parametrize(
    ("first", "second", "critical"),
    [
        pytest.param((1, "60x20"), (0, "0+60x20"), 0, id="what the fresher one sees fixed is fixed"),
        pytest.param((0, "60x20"), (1, "0+60x20"), 1, id="what the fresher one sees open is open"),
        pytest.param((0, "0+60x20"), (1, "5000+60x20"), 0, id="a clock that runs ahead makes nobody fresh"),
    ],
)
def test_a_value_is_that_of_the_exporter_that_polled_last(
    first: tuple[int, str],
    second: tuple[int, str],
    critical: int,
    tmp_path: Path,
    require_program: Callable[[str], str],
) -> None:
    """Not the highest of all exporters: one that lost the API would show its old issues for ever."""
    found = {name("up"): "1x20", name("up", instance=SECOND): "1x20"}
    for instance, (issues, polled) in ((FIRST, first), (SECOND, second)):
        found |= account_series(instance) | server_series(instance, "web-01", 7, critical=issues, polled=polled)
    test = {
        "interval": "1m",
        "input_series": series(found),
        "promql_expr_test": [
            counted(firing("PatrolServerServerCritical"), critical, 10),
            counted(firing("PatrolServerCriticalIssueOpen"), critical, 10),
            counted(f'sum({ISSUES}{{severity="critical"}})', critical, 10),
            # It keeps the instance that it was taken from.
            counted(f'count({ISSUES}{{severity="critical",instance=~".+:10058"}})', 1, 10),
        ],
    }
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


@pytest.mark.parametrize(
    ("replicas", "owners", "fires"),
    [
        pytest.param((1, 1, 1), (1, 1, 1), 0, id="each has a store of its own"),
        pytest.param((3, 3, 3), (0, 1, 0), 0, id="one of three polls"),
        pytest.param((3, 3, 3), (0, 1, 1), 1, id="two of three poll"),
        pytest.param((3, 3, 3), (0, 0, 0), 1, id="none of three polls"),
        pytest.param((3, 3), (0, 1), 0, id="one that does not poll is not scraped"),
        pytest.param((3,), (1,), 0, id="only the one that polls is scraped"),
        pytest.param((3, 3), (0, 0), 1, id="whether the one that is not scraped polls is not known"),
        pytest.param((2, 2, 1), (1, 0, 1), 0, id="one of two polls, and one with a store of its own"),
        pytest.param((2, 2, 1), (0, 0, 1), 1, id="none of two polls, beside one with a store of its own"),
        pytest.param((2, 2, 1), (1, 1, 1), 1, id="both of two poll, beside one with a store of its own"),
        pytest.param((2, 2, 2, 2), (1, 0, 0, 1), 0, id="one of two polls in each of two stores"),
        *(pytest.param((n,) * n, (1, *(0,) * (n - 1)), 0, id=f"one of {n} polls") for n in (6, 7, 10, 11, 13)),
    ],
)
def test_exactly_one_exporter_of_a_store_polls_an_account(
    replicas: tuple[int, ...],
    owners: tuple[int, ...],
    fires: int,
    tmp_path: Path,
    require_program: Callable[[str], str],
) -> None:
    """Those that share a store are one together, which each of them tells by how many they are."""
    found = {}
    for number, (shared, owner) in enumerate(zip(replicas, owners, strict=True)):
        instance = f"exporter-{number}:10058"
        found[name("patrolserver_exporter_replicas", instance=instance)] = f"{shared}x10"
        found[name("patrolserver_exporter_account_owner", MAIN, instance=instance)] = f"{owner}x10"
    tests = [counted(firing("PatrolServerAccountOwners"), fires, 5)]
    test = {"interval": "1m", "input_series": series(found), "promql_expr_test": tests}
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


def test_a_server_that_only_an_exporter_without_the_api_still_shows_is_gone(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """When its list is a quarter of an hour older than another exporter's, it is not asked about servers any more."""
    minutes = 30
    found = {name("up"): f"1x{minutes}", name("up", instance=SECOND): f"1x{minutes}"}
    cut = account_series(FIRST, read=f"60x{minutes}") | server_series(FIRST, "gone", 7, critical=1, polled="60x30")
    fresh = account_series(SECOND, read=f"0+60x{minutes}")
    found |= {key: values.replace("x20", f"x{minutes}") for key, values in {**cut, **fresh}.items()}
    tests = [
        counted(firing("PatrolServerServerCritical"), 1, 10),
        counted(firing("PatrolServerServerCritical"), 0, 20),
        counted(firing("PatrolServerCriticalIssueOpen"), 0, 20),
    ]
    test = {"interval": "1m", "input_series": series(found), "promql_expr_test": tests}
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


def column(dashboard: str, table: str, heading: str) -> str:
    """The query behind a column, with everything selected."""
    found = json.loads((FOLDER / f"patrolserver-{dashboard}.json").read_text())
    (panel,) = (panel for panel in drawn(found) if panel["title"] == table)
    organized = next(one["options"] for one in panel["transformations"] if one["id"] == "organize")
    (field,) = (field for field, shown in organized["renameByName"].items() if shown == heading)
    (target,) = (target for target in panel["targets"] if field == f"Value #{target['refId']}")
    return re.sub(r"\$\w+", ".+", target["expr"])


def test_the_worst_servers_are_listed_with_all_their_issues(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Fifty of seventy on two exporters, those that have just become critical before all others."""
    found = {name("up"): "1x20", name("up", instance=SECOND): "1x20"}
    for instance in (FIRST, SECOND):
        found |= account_series(instance)
        for number in range(70):
            # Whichever exporter polled a server last tells of it.
            polled = "0+60x20" if (number % 2 == 0) == (instance == FIRST) else "-30+60x20"
            found |= server_series(instance, f"web-{number:02}", number, critical=0, polled=polled)
            who = f'{MAIN},server="web-{number:02}",server_id="{number}"'
            counts = ("0x9 2x10", "1x20", "3x20") if number >= 63 else ("0x20", f"{number}x20", "3x20")
            for severity, values in zip(("critical", "high", "medium"), counts, strict=True):
                found[name("patrolserver_server_issues", who, f'severity="{severity}"', instance=instance)] = values
    critical, high, medium = (column("fleet", "Worst servers", one) for one in ("Critical", "High", "Medium"))
    before = [counted(f"count({critical})", 50, 9), counted(f"sum({critical})", 0, 9), counted(f"min({high})", 13, 9)]
    after = [
        counted(f"count({critical})", 50, 10),
        counted(f"count({critical} == 2)", 7, 10),
        counted(f"count(({critical} == 2) and ({high} == 1) and ({medium} == 3))", 7, 10),
        # Of the others those with the most high issues.
        counted(f"min({high} unless {critical} == 2)", 20, 10),
    ]
    test = {"interval": "1m", "input_series": series(found), "promql_expr_test": before + after}
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


@pytest.mark.parametrize("exporters", [1, 2])
def test_who_polls_an_account_stands_in_a_table(
    exporters: int, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """One row for each account and exporter, also with a single one."""
    accounts = ("main", "shop")
    found: dict[str, str] = {}
    for instance, polls in ((FIRST, 1), (SECOND, 0))[:exporters]:
        found |= {
            name("patrolserver_exporter_replicas", instance=instance): f"{exporters}x10",
            name("patrolserver_exporter_replicas_config_differs", instance=instance): f"{1 - polls}x10",
            name("patrolserver_exporter_last_follow_timestamp_seconds", instance=instance): (
                "0+60x10" if polls else "-30+60x10"
            ),
        }
        for account in accounts:
            found[name("patrolserver_exporter_account_owner", f'account="{account}"', instance=instance)] = (
                f"{polls}x10"
            )
    expected = {
        "Polls it": {FIRST: 1, SECOND: 0},
        "Exporters on store": {FIRST: exporters, SECOND: exporters},
        "Configuration": {FIRST: 0, SECOND: 1},
        "Behind its store": {FIRST: 0, SECOND: 30},
    }
    tests = [
        {
            "expr": column("exporter", "Who polls which account", heading),
            "eval_time": "5m",
            "exp_samples": [
                {"labels": f'{{account="{account}", instance="{instance}"}}', "value": values[instance]}
                for account in accounts
                for instance in (FIRST, SECOND)[:exporters]
            ],
        }
        for heading, values in expected.items()
    ]
    test = {"interval": "1m", "input_series": series(found), "promql_expr_test": tests}
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


def test_owners_have_the_issues_of_their_servers_once(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """By the labels that the configuration gives, also where two exporters show each; some servers have none."""
    found = {name("up"): "1x20", name("up", instance=SECOND): "1x20"}
    for instance in (FIRST, SECOND):
        found |= account_series(instance)
        for number, (labels, critical) in enumerate([('team="shop"', 2), ('team="shop"', 1), ("", 4)]):
            found |= server_series(instance, f"web-{number}", number, critical=critical, labels=labels)
    test = {
        "interval": "1m",
        "input_series": series(found),
        "promql_expr_test": [
            counted(f'sum({OWNERS_ISSUES}{{team="shop",severity="critical"}})', 3, 10),
            counted(f'sum({OWNERS_ISSUES}{{team="",severity="critical"}})', 4, 10),
            counted(f'sum({OWNERS_SERVERS}{{team="shop"}})', 2, 10),
            counted(f'sum({OWNERS_SERVERS}{{team=""}})', 1, 10),
        ],
    }
    assert rules_hold(require_program("promtool"), RULES, [test], tmp_path) == ""


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_each_alert_says_what_is_wrong_and_where_to_go_on(alert: str) -> None:
    """Severity, one static sentence, a description, a runbook that exists, and a dashboard that exists."""
    severities = [rule["labels"]["severity"] for rule in alerts()[alert]]
    assert len(set(severities)) == len(severities)
    for rule in alerts()[alert]:
        notes = rule["annotations"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert notes["summary"].endswith(".")
        assert "{{" not in notes["summary"]
        assert notes["description"].endswith((".", "}}"))
        assert alert.startswith("PatrolServer")
        page, anchor = notes["runbook_url"].split("#")
        assert page.endswith(f"/{RUNBOOKS.relative_to(ROOT)}")
        assert anchor in headings()
        dashboard = re.findall(r"/d/([\w-]+)", notes["dashboard_url"])[0]
        assert (FOLDER / f"{dashboard}.json").is_file()


def test_texts_are_true_for_one_and_for_many() -> None:
    """A number stands behind what it counts, or chooses the word that follows it."""
    texts = {name: one["annotations"]["description"] for name, rules in alerts().items() for one in rules}
    plural = re.compile(r"\$value[^}]*}}\s+(?:servers|deliveries|targets|exploits|issues|installed)\b")
    assert {name for name, text in texts.items() if plural.search(text)} == set()
    unreachable = texts["PatrolServerApiUnreachable"]
    assert unreachable.startswith("{{ $labels.instance }} cannot read the server list of account {{ $labels.account }}")


def test_each_runbook_belongs_to_an_alert_and_is_complete() -> None:
    """Meaning, impact, diagnosis with commands, mitigation; and no orphan."""
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    assert {section.splitlines()[0] for section in sections} == alerts().keys()
    for section in sections:
        for part in ("**Meaning.**", "**Impact.**", "**Diagnosis.**", "```sh\n", "**Mitigation.**"):
            assert part in section, section.splitlines()[0]


def test_the_runbooks_find_the_line_however_long_the_trouble_lasts() -> None:
    """No command looks at the last minutes of the log only: what lasts was said when it began."""
    assert "--since" not in RUNBOOKS.read_text()


def test_the_files_are_fresh() -> None:
    """Rules, PrometheusRule and the page of the alerts are what the generator writes; else run ``make dashboards``."""
    assert RULES.read_text() == rules(load())
    assert OPERATORS.read_text() == operators_rules(load())
    assert PAGE.read_text() == page(load())
    assert yaml.safe_load(OPERATORS.read_text())["spec"] == yaml.safe_load(RULES.read_text())


def test_the_page_names_every_alert_with_its_severities() -> None:
    """docs/grafana.md has each alert in rows of its severities."""
    rows = re.findall(r"^\| (PatrolServer[^|]*) \| (\w+) \|", (ROOT / "docs" / "grafana.md").read_text(), re.MULTILINE)
    told = sorted((alert, severity) for alerts_, severity in rows for alert in alerts_.split(", "))
    have = sorted((alert, rule["labels"]["severity"]) for alert, all_ in alerts().items() for rule in all_)
    assert told == have


def test_own_settings_make_other_rules(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """Thresholds, job, links and owner's labels come from a file of one's own; what it leaves out stays."""
    own = tmp_path / "own.yml"
    own.write_text(
        'job: "edge\\\\.exporters"\ngrafana_url: https://grafana.example.org\nrunbook_url: https://wiki.example.org/p\n'
        "owner_labels: []\nthresholds: {overdue: {critical: 1d}, waiver_ending: 3d}\n"
    )
    text = rules(load(own))
    assert r'job=~"edge\\.exporters"' in text
    assert "https://wiki.example.org/p#patrolserverwaiverending" in text
    assert "https://grafana.example.org/d/" in text
    assert "allowed are 1 day for critical, 30 days for high" in text
    assert "group_left (team" not in text
    file = tmp_path / "rules.yml"
    file.write_text(text)
    command = [require_program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("thresholds: {gap: soon}", "gap"),
        ("threshold: {}", "threshold"),
        ("owner_labels: [server]", "server is no label"),
        ("- a", "no list of keys"),
    ],
)
def test_wrong_settings_are_refused(text: str, said: str, tmp_path: Path) -> None:
    """The message names the key."""
    own = tmp_path / "own.yml"
    own.write_text(text)
    with pytest.raises(ValueError, match=said):
        load(own)
