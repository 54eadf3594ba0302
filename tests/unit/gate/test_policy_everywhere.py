"""One policy: these tests say where a new member of `Policy` is still missing."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from tests.harness.reference import reference

from patrolserver_exporter.commands.gate import EDITION, parser, policy_flags
from patrolserver_exporter.commands.gate_policy import (
    KEPT,
    KEPT_OF_EXPLOITS,
    KeptExploit,
    KeptIssue,
    baseline_of,
)
from patrolserver_exporter.gate.policy import (
    LOOSENING,
    AcceptedExploit,
    AcceptedIssue,
    AskedPolicy,
    Grace,
    KindLimits,
    NamedPolicy,
    Policy,
    SeverityLimits,
    limits_of,
)
from patrolserver_exporter.gate.verdict import ReasonCode
from patrolserver_exporter.issues.model import Kind, Severity, Waiver
from patrolserver_exporter.web.api.catalogue import OPERATIONS
from patrolserver_exporter.web.api.gate import GateReply
from patrolserver_exporter.web.api.openapi import document
from patrolserver_exporter.web.api.types import (
    AccountReport,
    FleetRefresh,
    Issue,
    IssueExploit,
    Operation,
    OperationState,
    Problem,
    Server,
    Status,
)

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[3]
COLLECTION = ROOT / "ansible_collection"
GATE_PAGE = (ROOT / "docs" / "gate.md").read_text()
INNER: dict[str, Any] = {"max_by_severity": SeverityLimits, "max_by_kind": KindLimits, "grace": Grace}
MEMBERS = set(Policy.__struct_fields__)
OF_THE_COMMAND = {"exporter_unavailable", "no_verdict", "refresh_failed"}


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the collection's ``module_utils`` that needs no Ansible."""
    link = tmp_path / "ansible_collections" / "patrolserver" / "monitoring"
    link.parent.mkdir(parents=True)
    link.symlink_to(COLLECTION)
    monkeypatch.syspath_prepend(str(tmp_path))

    def imported(name: str) -> ModuleType:
        return importlib.import_module(f"ansible_collections.patrolserver.monitoring.plugins.module_utils.{name}")

    return imported


def documentation(name: str, path: str = "modules/gate.py") -> Any:
    """DOCUMENTATION, RETURN or EXAMPLES of the collection's gate, or of another of its files."""
    tree = ast.parse((COLLECTION / "plugins" / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise LookupError(name)


def test_the_command_has_a_flag_for_each_member() -> None:
    """Waivers and the baseline come in files, and the policy by its name."""
    flags = {flag for action in parser()._actions for flag in action.option_strings}  # noqa: SLF001  # No public way.
    assert {one.flag for one in policy_flags()} | {"--policy", "--waivers", "--baseline"} <= flags
    members = {one.member.partition(".")[0] for one in policy_flags()} | {"waivers"}
    assert members == MEMBERS
    for name in ("max_by_severity", "max_by_kind"):
        found = {one.member.partition(".")[2] for one in policy_flags() if one.member.startswith(f"{name}.")}
        assert found == set(INNER[name].__struct_fields__)
    assert MEMBERS | {"policy", "baseline"} == set(AskedPolicy.__struct_fields__)


def test_a_reason_names_a_flag_that_there_is() -> None:
    """Of each limit that a policy can set."""
    counts = dict.fromkeys(SeverityLimits.__struct_fields__, 0)
    kinds = dict.fromkeys(KindLimits.__struct_fields__, 0)
    policy = Policy(
        max_by_severity=SeverityLimits(**counts), max_by_kind=KindLimits(**kinds), max_total=0, max_risk=0.0
    )
    flags = {one.member: one.flag for one in policy_flags()}
    assert {limit.name: limit.flag for limit in limits_of(policy)}.items() <= flags.items()


def test_the_http_api_has_each_member() -> None:
    """As the OpenAPI document describes it."""
    schemas = msgspec.json.decode(document(OPERATIONS, ""))["components"]["schemas"]
    assert set(schemas["AskedPolicy"]["properties"]) == MEMBERS | {"policy", "baseline"}
    assert schemas["AskedPolicy"]["additionalProperties"] is False
    for kind in (*INNER.values(), AcceptedIssue, AcceptedExploit, Waiver):
        assert set(schemas[kind.__name__]["properties"]) == set(kind.__struct_fields__)


def test_the_configuration_has_each_member_and_its_page_too() -> None:
    """Below ``gate.policies``, with what a request may loosen."""
    prefix = "gate.policies.NAME."
    paths = {entry.path.removeprefix(prefix) for entry in reference() if entry.path.startswith(prefix)}
    expected = set(NamedPolicy.__struct_fields__)
    expected |= {f"{name}.{member}" for name, kind in INNER.items() for member in kind.__struct_fields__}
    expected |= {f"waivers[].{member}" for member in Waiver.__struct_fields__}
    assert paths == expected
    page = (ROOT / "docs" / "configuration.md").read_text()
    shown = set(re.findall(r"^\| `gate\.policies\.NAME\.([^`]+)` \|", page, re.MULTILINE))
    assert shown == expected - set(INNER)
    assert set(LOOSENING.values()) <= shown


def test_the_page_of_the_gate_has_each_member_and_flag() -> None:
    """Its table, in which a row is a member."""
    section = GATE_PAGE.partition("\n## Policy\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section.partition("**Grace.**")[0], re.MULTILINE))
    assert set(rows) == set(AskedPolicy.__struct_fields__)
    for one in policy_flags():
        assert f"`{one.flag}" in rows[one.member.partition(".")[0]]


def test_the_collection_has_an_option_for_each_member(collection: Any) -> None:
    """In its argument specification and its documentation, with the members within."""
    policy = collection("policy")
    fragment = documentation("DOCUMENTATION", "doc_fragments/waivers.py")["options"]
    described = documentation("DOCUMENTATION")["options"] | fragment
    for options, inner in ((policy.OPTIONS, "options"), (described, "suboptions")):
        assert MEMBERS | {"policy"} <= set(options)
        for name, kind in (*INNER.items(), ("waivers", Waiver)):
            assert set(options[name][inner]) == set(kind.__struct_fields__)
    assert set(policy.OPTIONS) == MEMBERS | {"policy"}
    for name, option in policy.OPTIONS.items():
        assert "default" not in option
        assert "default" not in described[name]
        assert option["type"] == described[name]["type"]
    assert (list(Severity), list(Kind)) == (policy.SEVERITIES, policy.KINDS)
    required = {field.name for field in msgspec.structs.fields(Waiver) if field.required}
    assert {name for name, option in policy.WAIVER_OPTIONS.items() if option.get("required")} == required


ISSUES: list[dict[str, Any]] = [
    {
        "fingerprint": "b" * 16,
        "account": "main",
        "server": "web1",
        "canonical_name": "php",
        "kind": "exploitable",
        "severity": "critical",
        "risk": 9.8,
        "exploits": [
            {"id": "1", "cve": "CVE-1", "title": None, "risk": 9.8, "first_seen": "x", "waived": False},
            {"id": "2", "cve": None, "title": None, "risk": 7.0, "first_seen": "x", "waived": True},
        ],
    },
    {"fingerprint": "a" * 16, "kind": "outdated", "severity": "medium"},
]


def test_the_command_and_the_collection_write_the_same_baseline(collection: Any) -> None:
    """Each reads the other's, the API takes it, and a waived exploit is not in it."""
    baseline = collection("baseline")
    text = baseline_of(ISSUES)
    assert baseline.document(baseline.kept_of(ISSUES)) == text
    assert (baseline.KEPT, baseline.KEPT_OF_EXPLOITS) == (KEPT, KEPT_OF_EXPLOITS)
    accepted = msgspec.convert(baseline.accepted(text, "b.json"), tuple[AcceptedIssue, ...])
    assert [exploit.id for issue in accepted for exploit in issue.exploits] == ["1"]
    assert set(KEPT) | {"exploits"} == set(AcceptedIssue.__struct_fields__)
    assert set(KEPT_OF_EXPLOITS) == set(AcceptedExploit.__struct_fields__)
    for kept, type_ in ((KeptIssue, AcceptedIssue), (KeptExploit, AcceptedExploit)):
        assert [one.name for one in dataclasses.fields(kept)] == list(type_.__struct_fields__)
    assert (EDITION.severities, EDITION.kinds) == (tuple(Severity), tuple(Kind))


def test_the_pages_know_each_reason_and_no_other(collection: Any) -> None:
    """Each code can be looked up."""
    codes = set(ReasonCode)
    tables = GATE_PAGE.partition("## It fails closed")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", tables))
    assert codes <= named
    assert named - codes - OF_THE_COMMAND <= {
        "max_age",
        "max_risk",
        "max_scan_age",
        "max_unknown_software",
        "allow_empty",
    }
    own = {*collection("judging").CODES.values(), "error", "report", "baseline"}
    ansible_page = (ROOT / "docs" / "ansible.md").read_text().partition("## The gate stopped")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", ansible_page, re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"`(\w+)`", row)} - {"code"} <= codes | own
    returned = documentation("RETURN")["reasons"]
    assert {one["code"] for one in returned["sample"]} <= codes
    assert set(re.findall(r"C\((\w+)\)", " ".join(returned["description"]))) - {"blocking"} <= codes | own


def test_the_collection_returns_what_the_exporter_answers(collection: Any) -> None:
    """Each member of the reply, under the same name, with counts that may be unknown."""
    members = {field.encode_name for field in msgspec.structs.fields(GateReply)}
    # What the module itself leaves out of lists that the exporter gives whole.
    shortened = {f"{which}_waivers_not_listed" for which in ("expired", "unused", "expiring")}
    assert members | shortened == set(collection("judging").nothing_known())
    assert members <= set(documentation("RETURN"))


@pytest.fixture
def stand_in() -> Any:
    """The collection's stand-in for the exporter, as a module."""
    path = COLLECTION / "tests/integration/targets/setup_fake_api/files/fake_api.py"
    spec = importlib.util.spec_from_file_location("fake_api", path)
    assert spec is not None
    assert spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    return fake


def members(kind: Any) -> set[str]:
    """The members of a document of the API."""
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def test_the_collections_stand_in_answers_as_the_exporter_does(stand_in: Any) -> None:
    """For a pass, a fail and what is unknown, listed and only counted; and it knows the same policy."""
    assert set(AskedPolicy.__struct_fields__) == stand_in.POLICY
    for servers in (["web1*"], ["nosuch"], ["web*", "nosuch"], []):
        for policy in ({}, {"max_by_severity": {"high": 0}}, {"policy": "production"}):
            for detail in ("all", "problems"):
                status, _, answer = stand_in.judge({"servers": servers, "policy": policy, "detail": detail})
                reply = msgspec.json.decode(json.dumps(answer), type=GateReply)
                assert status == 200
                assert members(GateReply) == set(answer)
                judged = reply.servers_by_verdict
                assert judged.passing + judged.fail + judged.unknown == len(reply.servers) + reply.servers_not_listed


def test_the_collections_stand_in_lists_and_refreshes_as_the_exporter_does(stand_in: Any) -> None:
    """What it says of servers, issues, operations, accounts and trouble has the exporter's names and types."""
    issue = stand_in.issue("f", 1, "critical", "exploitable", "PHP")
    status = stand_in.status()
    documents: list[tuple[Any, dict[str, Any]]] = [
        (Server, stand_in.server(1)),
        (Issue, {name: value for name, value in issue.items() if name != "exploits"}),
        (IssueExploit, issue["exploits"][0]),
        *((Operation, stand_in.operation("1", state)["operation"]) for state in OperationState),
        (Status, {name: value for name, value in status.items() if name != "accounts"}),
        (AccountReport, status["accounts"][0]),
        (FleetRefresh, stand_in.refresh(stand_in.STATE["fleet"], "running")),
        (FleetRefresh, stand_in.refresh_many({"servers": ["*"]})[2]["refresh"]),
        (Problem, stand_in.problem(404, "There is no such path.")[2]),
    ]
    for kind, told in documents:
        types = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        for name, value in told.items():
            msgspec.convert(value, types[name])
