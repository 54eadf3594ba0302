"""The installed collection against the real exporter: what users give wrong, where it writes, and what it prints."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness.ansible import Ansible, Run, pythons, virtual_environments
from tests.harness.process import Exporter
from tests.harness.sizes import FULL, all_or_few
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVERS = 6
READ_TOKEN = "canary-read-token-1"
EXTRA = f"""
api: {{tokens: [{{name: ansible, token: "{READ_TOKEN}", scopes: [read, refresh]}}]}}
gate:
  inline: any
  default_policy: lenient
  policies:
    lenient: {{max_by_severity: {{critical: 100}}, max_unknown_software: 100}}
"""
pytestmark = pytest.mark.sized
POLLED = "patrolserver_server_last_poll_timestamp_seconds"
ALL_KNOWN = {"max_unknown_software": 100, "max_by_severity": {"critical": 100}}


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=8)) as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[Simulator]:
    """An API that no exporter looks at: what is added to it here is in no other test's fleet."""
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=1, software=1)) as running:
        yield running


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> Iterator[Exporter]:
    """It has a policy, and wants a token from everybody; no webhook reaches it."""
    folder = tmp_path_factory.mktemp("exporter")
    made = Exporter.watching(folder, simulator.base_url, interval="10m", extra=EXTRA)
    idle = '{server: "*", software: nothing-has-it, until: 2098-01-31, reason: forgotten}'
    text = made.config_file.read_text().replace("    webhook_tokens: [test-token-0123456789]\n", "")
    made.write_config(text.replace("issues: {", f"issues: {{waivers: [{idle}], "))
    with made as running:
        eventually(lambda: len(running.samples(POLLED)) == SERVERS, within=60, what="the first polls")
        yield running


@pytest.fixture(scope="module", params=[0, -1] if FULL else [-1], ids=lambda at: "newest-core" if at else "oldest-core")
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ansible:
    """The tarball, installed under the newest core that this machine can have, in full size under the oldest one, too.

    What each module returns under the oldest one is tried by the collection's own integration tests each time.
    """
    found = pythons()
    if request.param == 0 and len(found) == 1:
        pytest.skip("there is one Python for Ansible only, so that there is one core; the other test has it")
    folder = tmp_path_factory.mktemp("ansible") / "controller"
    return Ansible(virtual_environments(found[request.param]) / "core" / "bin", folder, installed=True)


@pytest.fixture
def ansible(installed: Ansible) -> Iterator[Ansible]:
    before = dict(installed.environ)
    yield installed
    installed.environ = before


@pytest.fixture(scope="module")
def names(simulator: Simulator) -> list[str]:
    return [server.name for server in simulator.world.servers(simulator.world.demo)]


def play(exporter: Exporter, tasks: list[dict[str, Any]], **variables: Any) -> list[dict[str, Any]]:
    connection = {"patrolserver_exporter_url": exporter.url, "patrolserver_exporter_token": READ_TOKEN}
    return [{"hosts": "localhost", "gather_facts": False, "vars": {**connection, **variables}, "tasks": tasks}]


def results(ansible: Ansible, exporter: Exporter, tasks: list[dict[str, Any]], *flags: str) -> list[dict[str, Any]]:
    """Run tasks one after the other, whatever becomes of each; returns what they return."""
    kept = ansible.folder / "results.json"
    numbered = [{**task, "register": f"result_{n}", "ignore_errors": True} for n, task in enumerate(tasks)]
    copy = {
        "dest": str(kept),
        "mode": "0600",
        "content": "{{ [" + ", ".join(f"result_{n}" for n in range(len(tasks))) + "] | to_json }}",
    }
    run = ansible.playbook(play(exporter, [*numbered, {"ansible.builtin.copy": copy, "check_mode": False}]), *flags)
    assert run.ok, run.output
    found: list[dict[str, Any]] = json.loads(kept.read_text())
    return found


def gate(**options: Any) -> dict[str, Any]:
    return {"patrolserver.monitoring.gate": {"servers": ["*"], **options}}


def lookup(call: str) -> dict[str, Any]:
    return {"ansible.builtin.debug": {"msg": f"{{{{ query('patrolserver.monitoring.issues'{call}) }}}}"}}


WAIVER = {"server": "*", "software": "php", "until": "2099-01-31", "reason": "x"}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    (gate(account="nosuch"), "account: the exporter has no account 'nosuch'; it has main"),
    ({"patrolserver.monitoring.issues_info": {"account": ["nosuch"]}}, "account: the exporter has no account 'nosuch'"),
    ({"patrolserver.monitoring.fleet_info": {"account": ["nosuch"]}}, "account: the exporter has no account 'nosuch'"),
    (lookup(", account=['nosuch']"), "account: the exporter has no account 'nosuch'"),
    (lookup(", severity=['Critical']"), "Critical"),
    (lookup(", kind=['outdatet']"), "outdatet"),
    (lookup(", severty=['critical']"), "does not know severty; it takes account, severity"),
    ({"patrolserver.monitoring.issues_info": {"servers": ["nosuch"]}}, "the exporter has no server 'nosuch'; check"),
    (
        {"patrolserver.monitoring.fleet_info": {"servers": ["nosuch", "*"]}},
        "the exporter has no server 'nosuch'; check",
    ),
    (lookup(", 'nosuch', '4711'"), "the exporter has no server 'nosuch', '4711'; check the name"),
    ({"patrolserver.monitoring.issues_info": {"page_size": 0}}, "page_size: it has to be from 1 to 1000, not 0"),
    ({"patrolserver.monitoring.issues_info": {"limit": -1}}, "limit: it has to be 0, for all, or more, not -1"),
    (gate(waivers=[{**WAIVER, "server": ["a", "b"]}]), "waiver 1: server has to be one text"),
    (gate(retries=-1), "retries: it has to be 0 or more, not -1"),
    (lookup(", retries=-1"), "retries: it has to be 0 or more, not -1"),
    (gate(timeout=0), "timeout: it has to be more than 0 seconds"),
    (
        gate(exporter_url="http://127.0.0.1:1/api/v1/"),
        "exporter_url: it has the path of the API, /api/v1; leave that out",
    ),
    (gate(ca_file="/no/such/ca.pem"), "ca_file: /no/such/ca.pem cannot be read: No such file or directory"),
    (gate(grace={"high": "soon"}), "grace.high: 'soon' is no duration"),
    (gate(max_age="1 year"), "max_age: '1 year' is no duration"),
    (gate(wait_timeout="long"), "wait_timeout: 'long' is no duration"),
    (gate(max_by_severity={"high": -1}), "max_by_severity.high: it must not be negative"),
    (gate(max_listed=0), "max_listed: it has to be 1 or more, not 0"),
    (gate(scanned_after="2026-01-01T00:00:00Z"), "scanned_after: it means nothing without wait_for_scan"),
    (gate(baseline_mode="create"), "baseline_mode: it means nothing without baseline_file"),
    (gate(policy="nosuch"), "nosuch"),
    (
        gate(exporter_url="http://127.0.0.1:9", retries=0),
        "127.0.0.1:9: [Errno 111] Connection refused; check exporter_url",
    ),
    (gate(proxy_url="https://canary@127.0.0.1:9"), "proxy_url: it starts with https://, and a proxy is not spoken to"),
    (lookup(", proxy_url='https://127.0.0.1:9'"), "proxy_url: it starts with https://, and a proxy is not spoken to"),
    ({"patrolserver.monitoring.refresh": {"servers": ["nosuch"]}}, "the exporter has no server 'nosuch'"),
    ({"patrolserver.monitoring.refresh": {"servers": []}}, "servers: the list is empty"),
    ({"patrolserver.monitoring.waiver_report": {"servers": ["nosuch"]}}, "nosuch: no such server is watched"),
]


def test_what_cannot_be_meant_is_refused_with_a_sentence(ansible: Ansible, exporter: Exporter) -> None:
    """Each mistake fails in every mode, with the option's name and what is wrong with it."""
    report = {"mode": "report", "on_unknown": "warn"}
    tasks = []
    mistakes = all_or_few(MISTAKES, 20)
    for task, _ in mistakes:
        module, options = next(iter(task.items()))
        lenient = module.endswith("gate") and "9" not in options.get("exporter_url", "")
        tasks.append({module: {**report, **options} if lenient else options})
    for (task, sentence), result in zip(mistakes, results(ansible, exporter, tasks), strict=True):
        assert result["failed"], task
        assert sentence in result["msg"], (task, result["msg"])
        if "patrolserver.monitoring.gate" in task:
            assert (result["verdict"], result["passed"]) == ("unknown", False)


def test_what_was_refused_or_not_heard_has_changed_nothing(
    ansible: Ansible, exporter: Exporter, elsewhere: Simulator, names: list[str]
) -> None:
    """A refresh with a wrong token, a refresh and a scan where nobody listens, and a scan with a wrong key."""
    nobody = "http://127.0.0.1:9"
    api = {"server": "1", "api_key": "wrong", "api_secret": "demo", "retries": 0}
    tasks: list[dict[str, Any]] = [
        {"patrolserver.monitoring.refresh": {"servers": names[:1], "token": "wrong"}},
        {"patrolserver.monitoring.refresh": {"servers": names[:1], "exporter_url": nobody}},
        {"patrolserver.monitoring.scan": {**api, "api_url": nobody}},
        {"patrolserver.monitoring.scan": {**api, "api_url": elsewhere.base_url}},
    ]
    for result in results(ansible, exporter, tasks):
        assert (result["failed"], result["changed"]) == (True, False), result
    (taken,) = results(
        ansible,
        exporter,
        [{"patrolserver.monitoring.refresh": {"servers": names[:1], "poll_interval": "100ms"}}],
    )
    assert taken["changed"]


def test_capitals_and_a_dot_at_the_end_mean_the_same_host(
    ansible: Ansible, exporter: Exporter, names: list[str]
) -> None:
    """In the gate, its waivers, the lists, the lookup and the refresh."""
    spelled = names[0].upper() + "."
    selected = {"servers": [spelled]}
    waived = [{**WAIVER, "server": spelled, "software": "*"}]
    tasks: list[dict[str, Any]] = [
        {"patrolserver.monitoring.gate": {**selected, **ALL_KNOWN}},
        {"patrolserver.monitoring.gate": {**selected, **ALL_KNOWN, "waivers": waived}},
        {"patrolserver.monitoring.fleet_info": selected},
        {"patrolserver.monitoring.issues_info": selected},
        {"patrolserver.monitoring.issues_info": {"servers": [names[0]]}},
        lookup(f", '{spelled}'"),
        {"patrolserver.monitoring.refresh": {**selected, "poll_interval": "100ms"}},
    ]
    plain, covered, fleet, issues, same, looked_up, refreshed = results(ansible, exporter, tasks)
    assert plain["servers"][0]["name"] == names[0]
    assert len(covered["waived"]) == plain["counts"]["total"] > 0
    assert fleet["count"] == 1
    assert issues["issues"] == same["issues"] == looked_up["msg"] != []
    assert [one["state"] for one in refreshed["servers"]] == ["done"]


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """What does not change from one poll to the next."""
    aside = {"judged_at", "data_age_seconds", "servers", "invocation", "exception"}
    kept = {key: value for key, value in result.items() if key not in aside}
    kept["violations"] = [
        {**one, "issues": [{**issue, "last_seen": None} for issue in one["issues"]]} for one in result["violations"]
    ]
    return kept


def test_files_are_written_or_the_verdict_says_that_they_are_not(ansible: Ansible, exporter: Exporter) -> None:
    """Names without a folder, a folder as a file, a folder that is not there: and check mode tells it before."""
    (ansible.folder / "folder").mkdir(exist_ok=True)
    for name in ("gate.xml", "b.json"):
        (ansible.folder / name).unlink(missing_ok=True)
    lists = set(gate()["patrolserver.monitoring.gate"])
    good = gate(**ALL_KNOWN, report_file="gate.xml", baseline_file="b.json", baseline_mode="create")
    cases = [
        good,
        gate(**ALL_KNOWN, report_file="folder"),
        gate(**ALL_KNOWN, report_file="no/such/gate.xml"),
        gate(max_unknown_software=100, max_by_severity={"low": 0}, report_file="no/such/gate.sarif"),
        gate(**ALL_KNOWN, baseline_file="folder", baseline_mode="create"),
        gate(**ALL_KNOWN, baseline_file="no/such/b.json", baseline_mode="create"),
        gate(
            max_unknown_software=100,
            max_by_severity={"low": 0},
            baseline_file="no/such/b.json",
            baseline_mode="create",
            report_file="told.json",
        ),
    ]
    predicted = results(ansible, exporter, [{**case, "check_mode": True} for case in cases])
    assert not (ansible.folder / "gate.xml").exists()
    done = results(ansible, exporter, cases)
    for before, after in zip(predicted, done, strict=True):
        assert without_times(before) == without_times(after)
        assert lists <= set(after)
    assert [one["verdict"] for one in done] == ["pass", "unknown", "unknown", "fail", "unknown", "unknown", "unknown"]
    assert [one.get("failed", False) for one in done] == [False] + [True] * 6
    assert (ansible.folder / "gate.xml").read_text().startswith("<?xml")
    assert done[0]["baseline"]["count"] == len(json.loads((ansible.folder / "b.json").read_text())["issues"])
    for result, told in zip(
        done[1:], ["it is a folder", "does not exist", "does not exist", "Is a directory"], strict=False
    ):
        assert told in result["msg"].splitlines()[0 if result["verdict"] == "unknown" else 1]
    assert done[3]["violations"]
    assert "report_file: no/such/gate.sarif cannot be written" in done[3]["msg"]
    assert done[3]["reasons"][0]["code"] == "report"
    assert json.loads((ansible.folder / "told.json").read_text())["reasons"][0]["code"] == "baseline"


def test_differences_are_rendered(ansible: Ansible, exporter: Exporter, elsewhere: Simulator) -> None:
    """Ansible's own callback prints them for each module that claims diff mode, in check mode as well."""
    (ansible.folder / "d.json").unlink(missing_ok=True)
    api = {"api_url": elsewhere.base_url, "api_key": "demo", "api_secret": "demo"}
    name = f"diff{time.monotonic_ns()}.example.org"
    software = [{"name": "php", "version": "5.6.40", "location": "/srv"}, {"name": "nginx"}]
    tasks = [
        gate(**ALL_KNOWN, baseline_file="d.json", baseline_mode="create"),
        {"patrolserver.monitoring.server": {**api, "name": name, "state": "verified"}},
        {"patrolserver.monitoring.software_bucket": {**api, "server": name, "software": software}},
        {"patrolserver.monitoring.software_bucket": {**api, "server": name, "software": software[:1]}},
        {"patrolserver.monitoring.software_bucket": {**api, "server": name, "state": "absent"}},
        {"patrolserver.monitoring.server": {**api, "name": name, "state": "absent"}},
    ]
    run = ansible.playbook(play(exporter, tasks), "--diff")
    assert run.ok, run.output
    assert "Callback" not in run.output
    for line in ("+++ after: d.json", '+  "version": 2', "+php 5.6.40 at /srv", "-nginx ?", "-php 5.6.40 at /srv"):
        assert line in run.output, run.output
    assert f'+    "name": "{name}"' in run.output
    assert f'-    "name": "{name}"' in run.output
    checked = ansible.playbook(play(exporter, tasks[:2]), "--diff", "--check")
    assert checked.ok, checked.output
    assert f'+    "name": "{name}"' in checked.output


def test_waiting_that_cannot_end_is_said_at_once(ansible: Ansible, exporter: Exporter, names: list[str]) -> None:
    """Without webhooks nobody tells the exporter of a scan, and a mistyped name gets no server by waiting."""
    wait = {**ALL_KNOWN, "wait_for_scan": True, "wait_timeout": "100s"}
    began = time.monotonic()
    deaf, mistyped, settled = results(
        ansible,
        exporter,
        [
            gate(**{**wait, "servers": names[:1], "scanned_after": "2026-01-01T00:00:00Z"}),
            gate(**{**wait, "servers": [names[0], "web-1.exmaple.org"], "refresh": True}),
            gate(**{**wait, "servers": names[:1]}),
        ],
    )
    assert time.monotonic() - began < 60
    assert "wait_for_scan: the exporter gets no webhooks for account main" in deaf["msg"]
    assert (mistyped["verdict"], mistyped["refreshed"]) == ("unknown", 0)
    assert "web-1.exmaple.org: no such server is watched" in mistyped["msg"]
    assert settled["verdict"] == "pass"


def test_the_connection_comes_from_variables_or_the_environment(
    ansible: Ansible, exporter: Exporter, names: list[str]
) -> None:
    """The same names for modules and lookup; what the task says wins over variables, and these over the environment."""
    count = "query('patrolserver.monitoring.issues') | length"
    tasks: list[dict[str, Any]] = [
        {"patrolserver.monitoring.fleet_info": {}, "register": "fleet"},
        {"ansible.builtin.assert": {"that": [f"fleet.count == {SERVERS}", f"{count} > 0"]}},
    ]
    plain: dict[str, Any] = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    refused = ansible.playbook([{**plain, "vars": {"patrolserver_exporter_url": exporter.url}}])
    assert "HTTP 401" in refused.output
    ansible.environ.update(PATROLSERVER_EXPORTER_URL=exporter.url, PATROLSERVER_EXPORTER_TOKEN=READ_TOKEN)
    by_environment = ansible.playbook([plain])
    assert by_environment.ok, by_environment.output
    ansible.environ.update(PATROLSERVER_EXPORTER_URL="http://127.0.0.1:9", PATROLSERVER_EXPORTER_TOKEN="wrong-token")
    by_variables = ansible.playbook(play(exporter, tasks, patrolserver_exporter_proxy_url="{{ omit }}"))
    assert by_variables.ok, by_variables.output
    own = {
        "patrolserver.monitoring.fleet_info": {"servers": names[:1], "exporter_url": "http://127.0.0.1:9", "retries": 0}
    }
    assert "no answer: 127.0.0.1:9" in ansible.playbook(play(exporter, [own])).output


def test_waived_issues_are_reported_and_suppressed(ansible: Ansible, exporter: Exporter) -> None:
    """A report sorts all waivers by state, the configuration's too; SARIF has what they cover as suppressed."""
    waivers = [
        {**WAIVER, "software": "*", "kind": "outdated", "reason": "all | of it"},
        {**WAIVER, "software": "nosuch", "reason": "for nothing"},
        {**WAIVER, "software": "*", "until": "2020-01-31", "reason": "long ago"},
    ]
    report = {"waivers": waivers, "policy": "lenient"}
    tasks = [
        {"patrolserver.monitoring.waiver_report": {**report, "report_file": "waivers.md"}},
        {
            "patrolserver.monitoring.waiver_report": {
                **report,
                "expiring_within": "99999d",
                "report_file": "waivers.json",
            }
        },
        gate(**ALL_KNOWN, waivers=waivers, report_file="waived.sarif"),
    ]
    found, expiring, judged = results(ansible, exporter, tasks)
    assert [one["state"] for one in found["waivers"]] == ["expired", "unused", "unused", "active"]
    assert found["counts"] == {"expired": 1, "expiring": 0, "unused": 2, "active": 1}
    assert (found["configuration_known"], found["waivers"][1]["reason"]) == (True, "forgotten")
    assert found["waivers"][3]["issues"] == len(judged["waived"]) > 0
    assert [one["state"] for one in expiring["waivers"]] == ["expired", "expiring", "unused", "unused"]
    text = (ansible.folder / "waivers.md").read_text()
    assert "all \\| of it" in text
    assert json.loads((ansible.folder / "waivers.json").read_text())["counts"] == expiring["counts"]
    (run,) = json.loads((ansible.folder / "waived.sarif").read_text())["runs"]
    suppressed = [one["suppressions"][0] for one in run["results"] if one["suppressions"]]
    assert len(suppressed) == len(judged["waived"])
    assert suppressed[0] == {
        "kind": "external",
        "status": "accepted",
        "justification": "all | of it (until 2099-01-31)",
    }


def test_the_verdict_is_printed_as_a_table(ansible: Ansible, exporter: Exporter, names: list[str]) -> None:
    """With the callback, for a gate that passes and for one that fails, by a named policy."""
    ansible.environ["ANSIBLE_CALLBACKS_ENABLED"] = "patrolserver.monitoring.gate_table"
    ansible.environ["PATROLSERVER_GATE_TABLE_ROWS"] = "3"
    tasks = [gate(policy="lenient"), gate(policy="lenient", max_by_severity={"low": 0}, servers=[*names, "nosuch"])]
    run: Run = ansible.playbook(play(exporter, tasks))
    assert not run.ok
    assert f"gate by policy lenient: PASS ({SERVERS} pass, 0 fail, 0 unknown)" in run.output
    failed = run.output.partition("gate by policy lenient: FAIL")[2].splitlines()
    assert re.match(r"VERDICT +SERVER +CRITICAL +HIGH +MEDIUM +LOW +WHY", failed[1]), run.output
    assert failed[2].startswith("fail ")
    assert failed[5] == f"and {SERVERS + 1 - 3} more"
    assert "Callback" not in run.output
