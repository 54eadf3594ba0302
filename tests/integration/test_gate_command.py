"""The ``gate`` and ``inbox`` commands against the API over sockets, and against what only looks like it."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from tests.harness.api import put_server, serving_api, token
from tests.harness.waiting import eventually
from tests.unit.issues.builders import issue

from patrolserver_exporter.cli import main
from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.config.schema import Scope
from patrolserver_exporter.inbox.delivery import DeliveryState, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.store import fleet, tables
from patrolserver_exporter.store.fleet import AccountRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.api import ServedApi

    from patrolserver_exporter.store import Unit

WEB, DB = "web1.example.org", "db1.example.org"
ODD = "odd \x00\x1b[31m<&\ud7ff\uffff name"


def fill(unit: Unit) -> None:
    now = SystemClock().now()
    put_server(
        unit,
        1,
        WEB,
        issues=[
            issue(
                "openssl", Kind.EXPLOITABLE, risk=9.8, severity=Severity.CRITICAL, fingerprint="a" * 16, location=None
            ),
            issue("php", Kind.OUTDATED, version="8.1.0", update_to="8.1.29", fingerprint="b" * 16),
        ],
        polled_at=now,
    )
    put_server(unit, 2, DB, polled_at=now)
    fleet.save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=now))
    news = [NewDelivery("other", 1, event_id, "webhook.new_server_issues", now) for event_id in (11, 12, 13)]
    BoundedInbox(10).accept(unit, news)
    dead = tables.inbox.update().where(tables.inbox.c.id > 1)
    unit.connection.execute(dead.values(state=DeliveryState.DEAD, body=b"<html>\x1b[2J", last_error="no JSON"))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ServedApi]:
    with serving_api(f"sqlite:///{tmp_path / 'state.db'}") as served:
        served.store.run(fill)
        yield served


@pytest.fixture
def run(api: ServedApi, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on the API; exit code, standard output and standard error."""

    def ran(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, f"--exporter-url={api.url}"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return ran


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([DB], 0),
        (["2"], 0),
        (["db*", "--max-total=0", "--max-low=0", "--max-risk=0", "--max-age=5m"], 0),
        ([WEB], 1),
        ([WEB, "--max-critical=1"], 0),
        ([WEB, "--max-critical=1", "--max-high=1"], 0),
        ([WEB, "--max-critical=1", "--max-medium=1"], 1),
        ([WEB, "--max-critical=1", "--max-outdated=0"], 1),
        ([WEB, "--max-critical=1", "--max-exploitable=0"], 1),
        ([WEB, "--max-critical=1", "--max-total=1"], 1),
        ([WEB, "--max-critical=1", "--max-risk=9"], 1),
        ([DB, "nosuch"], 4),
        ([WEB, "nosuch"], 1),
        ([DB, "--max-scan-age=1h"], 4),
        ([DB, "--account=nobody"], 4),
        ([DB, "--account=main"], 0),
    ],
)
def test_the_exit_code_is_the_verdict(
    run: Callable[..., tuple[int, str, str]], arguments: list[str], code: int
) -> None:
    """0 pass, 1 fail, 4 unknown, and each flag of the policy counts."""
    assert run("gate", *arguments)[0] == code


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [WEB, "--max-high=-1"],
        [WEB, "--max-high=many"],
        [WEB, "--max-hig=1"],
        [WEB, "--max-risk=11"],
        [WEB, "--max-risk=nan"],
        [WEB, "--max-age=3600"],
        [WEB, "--timeout=0"],
        [WEB, "--format=xml"],
        [WEB, "--baseline=/nosuch"],
        [WEB, "--waivers=/nosuch"],
        [WEB, "--token-file=/nosuch"],
        [WEB, "--ca-file=/nosuch"],
        [WEB, "--exporter-url=ftp://127.0.0.1"],
        [WEB, "--exporter-url=http://user:canary-password@127.0.0.1"],
    ],
)
def test_a_bad_flag_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be meant is told on standard error, and no secret is repeated."""
    with pytest.raises(SystemExit) as ended:
        main(["gate", *arguments])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert "error:" in captured.err
    assert "canary" not in captured.err


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"version": 3, "issues": []}', '{"version": 2, "issues": [{}]}']
)
def test_a_broken_baseline_is_never_an_empty_one(tmp_path: Path, text: str) -> None:
    """It ends with 2, because an empty one would let known issues through as new, or new ones as known."""
    file = tmp_path / "baseline.json"
    file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["gate", WEB, f"--baseline={file}"])
    assert ended.value.code == 2


def test_a_baseline_lets_known_issues_pass_and_new_ones_not(
    run: Callable[..., tuple[int, str, str]], api: ServedApi, tmp_path: Path
) -> None:
    """Written once, it covers what was there; what comes later counts. An earlier report will do, too."""
    baseline = tmp_path / "baseline.json"
    code, report, _ = run("gate", WEB, f"--write-baseline={baseline}", "--format=json")
    assert code == 1
    assert [one["fingerprint"] for one in json.loads(baseline.read_text())["issues"]] == ["a" * 16, "b" * 16]
    (tmp_path / "report.json").write_text(report)
    for name in ("baseline.json", "report.json"):
        assert run("gate", WEB, f"--baseline={tmp_path / name}")[0] == 0
    new = issue("bash", Kind.EXPLOITABLE, risk=9.9, severity=Severity.CRITICAL, fingerprint="c" * 16)
    now = SystemClock().now()
    api.store.run(lambda unit: put_server(unit, 1, WEB, issues=[new], polled_at=now))
    code, report, _ = run("gate", WEB, f"--baseline={baseline}", "--format=json")
    assert (code, [one["fingerprint"] for one in json.loads(report)["violations"][0]["issues"]]) == (1, ["c" * 16])


@pytest.mark.parametrize(
    "text", ['["aaaaaaaaaaaaaaaa"]', '{"version": 1, "issues": [{"fingerprint": "aaaaaaaaaaaaaaaa"}]}']
)
def test_a_baseline_that_does_not_tell_how_bad_it_was_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With it, what became worse would pass; the error names the command that writes a new one."""
    file = tmp_path / "baseline.json"
    file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["gate", WEB, f"--baseline={file}"])
    assert ended.value.code == 2
    assert "--write-baseline=FILE" in capsys.readouterr().err


def test_no_baseline_is_written_from_doubtful_data(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """While the verdict is unknown nothing becomes known, and whoever asked is told."""
    code, _, told = run("gate", DB, "nosuch", f"--write-baseline={tmp_path / 'baseline.json'}")
    assert code == 4
    assert "was not written" in told
    assert not list(tmp_path.glob("baseline*"))


def test_the_table_says_why(run: Callable[..., tuple[int, str, str]]) -> None:
    """The verdict first, then the reasons, each server, and the issues over a limit."""
    _, table, _ = run("gate", WEB, DB, "nosuch")
    assert table.startswith("gate: fail\n")
    for said in ("max_by_severity.critical allows 0", "nosuch: no such server", "openssl", "risk 9.8", "a" * 16):
        assert said.lower() in table.lower()


def test_the_report_goes_to_a_file(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Whole, and nothing on standard output; where it cannot be written a pass is none."""
    file = tmp_path / "gate.json"
    assert run("gate", DB, "--format=json", f"--output={file}")[:2] == (0, "")
    assert json.loads(file.read_text())["passed"] is True
    code, _, told = run("gate", DB, f"--output={tmp_path / 'nosuch' / 'gate'}")
    assert code == 4
    assert "could not be written" in told


def odd_server(api: ServedApi) -> None:
    now = SystemClock().now()
    found = [
        issue("openssl", Kind.EXPLOITABLE, risk=9.8, severity=Severity.CRITICAL, software=ODD, fingerprint="d" * 16)
    ]
    api.store.run(lambda unit: put_server(unit, 3, ODD, issues=found, polled_at=now))


def test_junit_is_sound_and_red_unless_all_pass(run: Callable[..., tuple[int, str, str]], api: ServedApi) -> None:
    """Counts, failures and errors are where the common schema has them, and odd names break nothing."""
    odd_server(api)
    for servers, failures, errors in (([DB], 0, 0), ([WEB, "3", DB], 3, 0), ([DB, "nosuch"], 0, 2)):
        _, text, _ = run("gate", *servers, "--format=junit")
        root = ET.fromstring(text)  # noqa: S314  # It is our own.
        (suite,) = root
        cases = suite.findall("testcase")
        assert (root.tag, suite.tag) == ("testsuites", "testsuite")
        for counted in (root, suite):
            assert int(counted.attrib["tests"]) == len(cases) == len(servers) + 1
            assert int(counted.attrib["failures"]) == len(suite.findall("testcase/failure")) == failures
            assert int(counted.attrib["errors"]) == len(suite.findall("testcase/error")) == errors
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        for case in cases:
            assert set(case.attrib) == {"classname", "name", "time"}
            assert {child.tag for child in case} <= {"failure", "error", "system-out"}
            assert all({"message", "type"} <= set(child.attrib) for child in case if child.tag != "system-out")


def test_sarif_is_sound(run: Callable[..., tuple[int, str, str]], api: ServedApi, tmp_path: Path) -> None:
    """Each issue over a limit is a result with a rule, a place and a fingerprint; a waived one is suppressed."""
    odd_server(api)
    waivers = tmp_path / "waivers.yml"
    waivers.write_text('- { server: "web*", software: openssl, until: 2099-01-01, reason: "accepted" }\n')
    code, text, _ = run("gate", WEB, "3", "nosuch", "--format=sarif", f"--waivers={waivers}")
    log = json.loads(text)
    (sarif_run,) = log["runs"]
    assert (code, log["version"], log["$schema"].rpartition("/")[2]) == (1, "2.1.0", "sarif-schema-2.1.0.json")
    rules = [rule["id"] for rule in sarif_run["tool"]["driver"]["rules"]]
    over, waived = sarif_run["results"]
    for result in (over, waived):
        assert result["ruleId"] in rules
        assert result["level"] in {"error", "warning", "note"}
        assert result["message"]["text"]
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9._~%/-]+", uri)
    assert over["partialFingerprints"] == {"patrolserverIssue/v1": "d" * 16}
    assert waived["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "until 2099-01-01: accepted"}
    ]
    (invocation,) = sarif_run["invocations"]
    assert invocation["executionSuccessful"] is True
    assert "unknown_server" in {one["descriptor"]["id"] for one in invocation["toolExecutionNotifications"]}


def test_a_terminal_is_never_moved_by_a_name(run: Callable[..., tuple[int, str, str]], api: ServedApi) -> None:
    """What is not printable is replaced in what people read."""
    odd_server(api)
    _, table, _ = run("gate", "3")
    assert all(letter.isprintable() for letter in table.replace("\n", ""))


def test_a_refresh_is_waited_for(run: Callable[..., tuple[int, str, str]], api: ServedApi) -> None:
    """The verdict comes after the poll; one that fails, or takes too long, is unknown."""

    def poller(error: str | None) -> threading.Thread:
        def work() -> None:
            eventually(lambda: bool(api.accounts.waiting), what="a refresh")
            api.accounts.waiting.pop()[2](error)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    for error, code in ((None, 0), ("PatrolServer does not answer.", 4)):
        thread = poller(error)
        ran = run("gate", DB, "--refresh", "--format=json")
        thread.join()
        assert ran[0] == code
        assert ("refresh_failed" in ran[1]) is (error is not None)
    assert run("gate", DB, "--refresh", "--refresh-timeout=300ms")[0] == 4


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, or with a wrong one, the verdict is unknown and says what is missing."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with serving_api(url, tokens=[token("ci", Scope.READ)], address="0.0.0.0:0") as api:
        api.store.run(fill)
        file = tmp_path / "token"
        file.write_text("token-of-ci\n")
        command = ["gate", DB, f"--exporter-url={api.url}"]
        assert main(command) == 4
        assert main([*command, f"--token-file={file}"]) == 0
        monkeypatch.setenv("PATROLSERVER_EXPORTER_TOKEN", "token-of-nobody")
        assert main(command) == 4
        monkeypatch.setenv("PATROLSERVER_EXPORTER_TOKEN_FILE", str(file))
        assert main(command) == 0


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """Something that answers everything the same, as a proxy or a login page would."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


PASS = {"verdict": "pass", "passed": True, "servers": [{"name": DB, "verdict": "pass"}]}


@pytest.mark.parametrize(
    ("status", "body", "headers", "said"),
    [
        (302, b"", {"location": "http://127.0.0.1:1/login"}, "redirect"),
        (200, b"<html>Please log in</html>", {"content_type": "text/html"}, "text/html"),
        (200, b"", {}, "no content type"),
        (200, b"{", {"content_type": "application/json"}, "broken JSON"),
        (200, b"[" * 100_000, {"content_type": "application/json"}, "broken JSON"),
        (200, b"{}", {"content_type": "application/json"}, "no verdict"),
        (200, json.dumps(PASS | {"passed": False}).encode(), {"content_type": "application/json"}, "contradicts"),
        (200, json.dumps(PASS | {"verdict": "fail"}).encode(), {"content_type": "application/json"}, "contradicts"),
        (200, json.dumps(PASS | {"verdict": "fine"}).encode(), {"content_type": "application/json"}, "contradicts"),
        (200, json.dumps(PASS | {"servers": []}).encode(), {"content_type": "application/json"}, "not every server"),
        (502, json.dumps(PASS).encode(), {"content_type": "application/json"}, "502"),
        (500, b'{"detail":"broken"}', {"content_type": "application/problem+json"}, "broken"),
    ],
)
def test_what_only_looks_like_an_exporter_is_unknown(
    capsys: pytest.CaptureFixture[str], status: int, body: bytes, headers: dict[str, str], said: str
) -> None:
    """A redirect, a page, a broken or contradictory answer is never a pass, and the report says what came."""
    with answering(status, body, **headers) as url:
        assert main(["gate", DB, f"--exporter-url={url}"]) == 4
    assert said in capsys.readouterr().out


def test_nobody_there_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """A port where nothing listens gives a report, too."""
    assert main(["gate", DB, "--exporter-url=http://127.0.0.1:1", "--format=json"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["reasons"][0]["code"]) == ("unknown", "exporter_unavailable")


def test_inbox_lists_shows_replays_and_drops(run: Callable[..., tuple[int, str, str]], api: ServedApi) -> None:
    """What an operator does with deliveries that could not be understood."""
    code, table, _ = run("inbox", "list", "--state=dead")
    assert code == 0
    assert [line.split()[0] for line in table.splitlines()] == ["id", "2", "3"]
    assert len(json.loads(run("inbox", "list", "--format=json")[1])) == 3
    assert run("inbox", "list", "--account=main")[:2] == (0, "")
    code, shown, _ = run("inbox", "show", "2")
    assert code == 0
    assert "<html>" in shown
    assert "\x1b" not in shown
    assert json.loads(run("inbox", "show", "2", "--format=json")[1])["body"] == "<html>\x1b[2J"
    assert run("inbox", "replay", "2")[:2] == (0, "2: due again\n")
    assert run("inbox", "replay", "--state=dead")[:2] == (0, "3: due again\n")
    assert api.get("/inbox?state=dead").json()["items"] == []
    assert run("inbox", "drop", "2", "3")[:2] == (0, "2: dropped\n3: dropped\n")
    code, out, told = run("inbox", "drop", "1", "3")
    assert (code, out) == (1, "1: dropped\n")
    assert "no delivery 3" in told
    assert run("inbox", "show", "99")[0] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["eat"],
        ["list", "1"],
        ["show"],
        ["show", "1", "2"],
        ["drop"],
        ["replay"],
        ["drop", "x"],
        ["show", "1", "--state=dead"],
    ],
)
def test_inbox_refuses_what_cannot_be_meant(arguments: list[str]) -> None:
    """A bad flag ends with 2 before anything is asked."""
    with pytest.raises(SystemExit) as ended:
        main(["inbox", *arguments])
    assert ended.value.code == 2


def test_inbox_without_an_exporter_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """It says that nobody answers."""
    assert main(["inbox", "list", "--exporter-url=http://127.0.0.1:1"]) == 1
    assert "Nothing answers" in capsys.readouterr().err
