"""The ``gate`` and ``inbox`` commands against the API over sockets, and against what only looks like it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from tests.harness.api import OPERATOR_TOKEN, put_server, serving_api, token
from tests.harness.daemons import ServerThread
from tests.harness.waiting import eventually
from tests.unit.issues.builders import issue

from patrolserver_exporter.cli import main
from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.commands import flags
from patrolserver_exporter.commands.gate import EDITION, parser
from patrolserver_exporter.commands.gate_policy import policy_of
from patrolserver_exporter.commands.output import is_same
from patrolserver_exporter.config.schema import Gate, Scope
from patrolserver_exporter.gate.policy import Grace, NamedPolicy, SeverityLimits
from patrolserver_exporter.inbox.deliveries import DeliveryState, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.issues.model import IssueExploit, Kind, Severity, Waiver
from patrolserver_exporter.store import fleet, tables
from patrolserver_exporter.store.fleet import AccountRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.api import ServedApi
    from tests.harness.gate_editions import GateEdition, Ran

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
def gate(edition: GateEdition, api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs each edition of the gate on the API, with a token that may do everything."""
    monkeypatch.setenv("PATROLSERVER_EXPORTER_TOKEN", OPERATOR_TOKEN)
    return lambda *arguments: edition(*arguments, f"--exporter-url={api.url}")


@pytest.fixture
def run(
    api: ServedApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on the API, with a token that may do everything; exit code, standard output and standard error."""
    monkeypatch.setenv("PATROLSERVER_EXPORTER_TOKEN", OPERATOR_TOKEN)

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
def test_the_exit_code_is_the_verdict(gate: Callable[..., Ran], arguments: list[str], code: int) -> None:
    """0 pass, 1 fail, 4 unknown, and each flag of the policy counts."""
    assert gate(*arguments)[0] == code


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
def test_a_bad_flag_ends_with_2(edition: GateEdition, arguments: list[str]) -> None:
    """What cannot be meant is told on standard error, and no secret is repeated."""
    code, _, told = edition(*arguments)
    assert code == 2
    assert "error:" in told
    assert "canary" not in told


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"version": 3, "issues": []}', '{"version": 2, "issues": [{}]}']
)
def test_a_broken_baseline_is_never_an_empty_one(edition: GateEdition, tmp_path: Path, text: str) -> None:
    """It ends with 2, because an empty one would let known issues through as new, or new ones as known."""
    file = tmp_path / "baseline.json"
    file.write_text(text)
    assert edition(WEB, f"--baseline={file}").code == 2


def test_a_baseline_lets_known_issues_pass_and_new_ones_not(
    gate: Callable[..., Ran], api: ServedApi, tmp_path: Path
) -> None:
    """Written once, it covers what was there; what comes later counts. An earlier report will do, too."""
    baseline = tmp_path / "baseline.json"
    code, report, _ = gate(WEB, f"--write-baseline={baseline}", "--format=json")
    assert code == 1
    assert [one["fingerprint"] for one in json.loads(baseline.read_text())["issues"]] == ["a" * 16, "b" * 16]
    (tmp_path / "report.json").write_text(report)
    for name in ("baseline.json", "report.json"):
        assert gate(WEB, f"--baseline={tmp_path / name}")[0] == 0
    new = issue("bash", Kind.EXPLOITABLE, risk=9.9, severity=Severity.CRITICAL, fingerprint="c" * 16)
    now = SystemClock().now()
    api.store.run(lambda unit: put_server(unit, 1, WEB, issues=[new], polled_at=now))
    code, report, _ = gate(WEB, f"--baseline={baseline}", "--format=json")
    assert (code, [one["fingerprint"] for one in json.loads(report)["violations"][0]["issues"]]) == (1, ["c" * 16])


def test_a_baseline_covers_an_issue_as_it_was(gate: Callable[..., Ran], api: ServedApi, tmp_path: Path) -> None:
    """It has the exploits that were known; one more counts, and the same ones at a lower risk do not."""

    def known(*exploits: IssueExploit) -> None:
        risk = max(one.risk or 0.0 for one in exploits)
        found = issue(
            "openssl", Kind.EXPLOITABLE, risk=risk, severity=Severity.CRITICAL, fingerprint="e" * 16, exploits=exploits
        )
        now = SystemClock().now()
        api.store.run(lambda unit: put_server(unit, 4, "app", issues=[found], polled_at=now))

    first = IssueExploit(id="EDB-1", cve="CVE-2026-0001", title="First", risk=9.1, first_seen=1.0)
    second = IssueExploit(id="EDB-2", cve="CVE-2026-0002", title="Second", risk=9.0, first_seen=2.0)
    known(first)
    baseline = tmp_path / "baseline.json"
    assert gate("app", f"--write-baseline={baseline}")[0] == 1
    (kept,) = json.loads(baseline.read_text())["issues"]
    assert kept["exploits"] == [{"id": "EDB-1", "cve": "CVE-2026-0001", "title": "First", "risk": 9.1}]
    assert gate("app", f"--baseline={baseline}")[0] == 0
    known(first, second)
    assert gate("app", f"--baseline={baseline}")[0] == 1
    known(msgspec.structs.replace(first, risk=9.0))
    assert gate("app", f"--baseline={baseline}")[0] == 0


@pytest.mark.parametrize(
    "text", ['["aaaaaaaaaaaaaaaa"]', '{"version": 1, "issues": [{"fingerprint": "aaaaaaaaaaaaaaaa"}]}']
)
def test_a_baseline_that_does_not_tell_how_bad_it_was_is_refused(
    edition: GateEdition, tmp_path: Path, text: str
) -> None:
    """With it, what became worse would pass; the error names the command that writes a new one."""
    file = tmp_path / "baseline.json"
    file.write_text(text)
    code, _, told = edition(WEB, f"--baseline={file}")
    assert code == 2
    assert "--write-baseline=FILE" in told


def test_no_baseline_is_written_from_doubtful_data(gate: Callable[..., Ran], tmp_path: Path) -> None:
    """While the verdict is unknown nothing is written, and the command says so."""
    code, _, told = gate(DB, "nosuch", f"--write-baseline={tmp_path / 'baseline.json'}")
    assert code == 4
    assert "was not written" in told
    assert not list(tmp_path.glob("baseline*"))


def test_the_table_says_why(gate: Callable[..., Ran]) -> None:
    """The verdict first, then the reasons, each server, and the issues over a limit."""
    _, table, _ = gate(WEB, DB, "nosuch")
    assert table.startswith("gate: fail\n")
    for said in ("max_by_severity.critical allows 0", "nosuch: no such server", "openssl", "risk 9.8", "a" * 16):
        assert said.lower() in table.lower()


def test_the_report_goes_to_a_file(gate: Callable[..., Ran], tmp_path: Path) -> None:
    """Whole, and nothing on standard output, unless the file is called ``-``."""
    file = tmp_path / "gate.json"
    assert gate(DB, "--format=json", f"--output={file}")[:2] == (0, "")
    assert json.loads(file.read_text())["passed"] is True
    code, shown, _ = gate(DB, "--output=-")
    assert (code, shown[:10]) == (0, "gate: pass")


@pytest.mark.promise("outputs")
@pytest.mark.parametrize("flag", ["--output", "--write-baseline"])
@pytest.mark.parametrize(("servers", "code"), [([DB], 1), ([WEB], 1), ([DB, "nosuch"], 4)])
def test_a_file_that_was_asked_for_and_not_written_turns_a_pass_into_1(
    gate: Callable[..., Ran], tmp_path: Path, flag: str, servers: list[str], code: int
) -> None:
    """Other verdicts keep their code, and it is told."""
    for file in ("/dev/full", str(tmp_path / "nosuch" / "file")):
        ended, _, told = gate(*servers, f"{flag}={file}")
        assert ended == code
        assert "not written" in told or "could not be written" in told
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


GATE, INBOX = ([sys.executable, "-m", "patrolserver_exporter", name] for name in ("gate", "inbox"))


def command(
    api: ServedApi, program: list[str], *arguments: str, shell: str = '"$@"', **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell does."""
    program = [*program, *arguments, f"--exporter-url={api.url}"]
    return subprocess.run(
        ["bash", "-c", shell, "bash", *program], capture_output=True, text=True, timeout=60, check=False, **options
    )


STATUS = "; exit ${PIPESTATUS[0]}"


@pytest.mark.promise("outputs")
@pytest.mark.parametrize(
    ("servers", "code", "shell"),
    [
        ([DB], 0, '"$@" | true' + STATUS),
        ([DB], 0, '"$@" > /dev/full'),
        ([WEB], 1, '"$@" 2>&1 >/dev/full | true' + STATUS),
        (["nosuch"], 4, '"$@" >&-'),
    ],
)
def test_standard_output_never_changes_the_verdict(
    edition: GateEdition, api: ServedApi, servers: list[str], code: int, shell: str
) -> None:
    """The reader may stop early; there is no traceback, and the exit code is the verdict's."""
    ended = command(api, edition.program, *servers, "--format=json", shell=shell)
    assert (ended.returncode, ended.stderr) == (code, "")


@pytest.mark.promise("outputs")
def test_inbox_does_not_mind_a_closed_pipe_either(api: ServedApi) -> None:
    """``inbox list | head`` ends well, and so does ``inbox --help | head``."""
    environ = os.environ | {"PATROLSERVER_EXPORTER_TOKEN": OPERATOR_TOKEN}
    for arguments in (["list"], ["--help"]):
        ended = command(api, INBOX, *arguments, shell='"$@" | true' + STATUS, env=environ)
        assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.promise("outputs")
def test_an_ascii_terminal_gets_what_it_can_show(api: ServedApi) -> None:
    """What it cannot is replaced."""
    environ = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    ended = command(api, GATE, "nosuch", DB, env=environ)
    assert (ended.returncode, ended.stderr) == (4, "")
    assert "nosuch" in ended.stdout


@pytest.mark.promise("outputs")
@pytest.mark.parametrize(
    "arguments", [["gate", "web\udcff"], ["gate", DB, "--policy=\udcff"], ["inbox", "list", "--account=\udcff"]]
)
def test_an_argument_that_is_no_text_ends_with_2(arguments: list[str]) -> None:
    """It cannot be anybody's name."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@contextmanager
def silent() -> Iterator[tuple[str, threading.Event]]:
    """Something that takes a connection and never answers; the event tells that somebody waits."""
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            with listener.accept()[0] as connection:
                while connection.recv(1024 * 1024):
                    asked.set()

        threading.Thread(target=work, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked


@pytest.mark.promise("outputs")
def test_ctrl_c_ends_the_gate_without_a_traceback(edition: GateEdition) -> None:
    """A gate that was not answered is unknown."""
    interrupt([*edition.program, DB], 4)


@pytest.mark.promise("outputs")
def test_ctrl_c_ends_inbox_without_a_traceback() -> None:
    """It did not do what it was asked for."""
    interrupt([*INBOX, "list"], 1)


def interrupt(command: list[str], code: int) -> None:
    with silent() as (url, asked):
        program = [*command, f"--exporter-url={url}"]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert asked.wait(30)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (code, b"")


@pytest.mark.promise("outputs")
def test_a_late_ctrl_c_does_not_change_the_exit_code() -> None:
    """While Python ends, the code is decided."""
    program = (
        "import atexit, os, signal, sys; from patrolserver_exporter.cli import main; "
        "atexit.register(os.kill, os.getpid(), signal.SIGINT); sys.argv[1:] = ['--version']; sys.exit(main())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.promise("outputs")
def test_dev_stdout_is_standard_output(edition: GateEdition, api: ServedApi, tmp_path: Path) -> None:
    """What the shell sent there before stays, and what it sends there later follows."""
    file = tmp_path / "all"
    shell = f'{{ echo before; "$@" --output=/dev/stdout; echo after; }} > {file}'
    assert command(api, edition.program, DB, shell=shell).returncode == 0
    lines = file.read_text().splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("before", "gate: pass", "after")


def test_two_things_do_not_share_standard_output(edition: GateEdition) -> None:
    """A baseline in the middle of a report would be neither."""
    assert edition(DB, "--write-baseline=-").code == 2
    assert edition(DB, "--write-baseline=/dev/stdout", "--output=-").code == 2


def test_two_things_do_not_share_a_file(tmp_path: Path) -> None:
    """The second would replace the first; a device takes both."""
    (tmp_path / "link").symlink_to("file")
    for one, other in (("file", "file"), ("file", "link"), ("link", "./file")):
        with pytest.raises(SystemExit) as ended:
            main(["gate", DB, f"--write-baseline={tmp_path / one}", f"--output={tmp_path / other}"])
        assert ended.value.code == 2
    assert not is_same(os.devnull, os.devnull)
    assert not is_same(str(tmp_path / "file"), str(tmp_path / "other"))


def strict(**policy: Any) -> Gate:
    return Gate(policies={"strict": NamedPolicy(**policy), "other": NamedPolicy()}, default_policy="strict")


def asked_of(settings: Gate, edition: GateEdition, tmp_path: Path, *arguments: str) -> Ran:
    with serving_api(f"sqlite:///{tmp_path / 'state.db'}", gate=settings) as served:
        served.store.run(fill)
        return edition(*arguments, f"--exporter-url={served.url}")


def test_a_flag_that_is_not_given_changes_no_named_policy(edition: GateEdition, tmp_path: Path) -> None:
    """The policy of the configuration holds as it is, with every member that loosens."""
    loose = strict(
        max_by_severity=SeverityLimits(critical=5),
        grace=Grace(critical=3600.0),
        fixable_only=True,
        allow_empty=True,
        max_unknown_software=3,
    )
    code, report, _ = asked_of(loose, edition, tmp_path, WEB, "--format=json")
    assert (code, json.loads(report)["policy"]) == (0, "strict")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--policy=nosuch"], "no policy 'nosuch'"),
        (["--grace=high=7d"], "allow_grace"),
        (["--fixable-only"], "allow_fixable_only"),
        (["--allow-empty"], "allow_allow_empty"),
        (["--waivers=FILE"], "allow_waivers"),
    ],
)
def test_a_policy_that_the_exporter_refuses_ends_with_2(
    edition: GateEdition, tmp_path: Path, arguments: list[str], key: str
) -> None:
    """It is no verdict: nothing was judged, and the sentence names the key."""
    waivers = tmp_path / "waivers.json"
    waivers.write_text('[{"server": "*", "software": "openssl", "until": "2099-01-01", "reason": "accepted"}]')
    given = [one.replace("FILE", str(waivers)) for one in arguments]
    code, out, told = asked_of(strict(), edition, tmp_path, DB, *given)
    assert (code, out) == (2, "")
    assert key in told


def test_another_policy_can_be_named(edition: GateEdition, tmp_path: Path) -> None:
    """With ``--policy``; flags beside it make it stricter."""
    settings = strict(max_by_severity=SeverityLimits(critical=5))
    assert asked_of(settings, edition, tmp_path, WEB).code == 0
    assert asked_of(settings, edition, tmp_path, WEB, "--policy=other").code == 1
    assert asked_of(settings, edition, tmp_path, WEB, "--max-critical=0").code == 1


@pytest.mark.parametrize(
    ("arguments", "policy"),
    [
        ([], {}),
        (["--grace=high=7d", "--grace=low=1h"], {"grace": {"high": 604_800.0, "low": 3_600.0}}),
        (["--fixable-only", "--allow-empty"], {"fixable_only": True, "allow_empty": True}),
        (["--no-fixable-only"], {"fixable_only": False}),
        (["--policy=x", "--max-high=0"], {"policy": "x", "max_by_severity": {"high": 0}}),
        (["--max-age=1h", "--max-risk=7"], {"max_age": 3600.0, "max_risk": 7.0}),
    ],
)
def test_what_is_given_is_sent_and_nothing_else(arguments: list[str], policy: dict[str, Any]) -> None:
    """A default that is sent would count as asked for."""
    assert policy_of(flags.read(parser(), [DB, *arguments]), EDITION) == policy


@pytest.mark.parametrize("grace", ["high", "high=", "=7d", "urgent=7d", "high=soon", "high=7d --grace=high=8d"])
def test_a_grace_that_cannot_be_meant_ends_with_2(edition: GateEdition, grace: str) -> None:
    """A severity, and how long."""
    assert edition(DB, *f"--grace={grace}".split()).code == 2


def test_a_waiver_of_a_file_is_passed_on_whole(tmp_path: Path) -> None:
    """With its exploit and the severity up to which it holds."""
    waiver = {
        "server": "web*",
        "software": "openssl",
        "exploit": "CVE-2026-*",
        "kind": "exploitable",
        "max_severity": "high",
        "until": "2099-01-01",
        "reason": "accepted",
    }
    assert set(waiver) == set(Waiver.__struct_fields__)
    file = tmp_path / "waivers.json"
    for document in ([waiver], {"waivers": [waiver]}):
        file.write_text(json.dumps(document))
        assert policy_of(flags.read(parser(), [DB, f"--waivers={file}"]), EDITION) == {"waivers": [waiver]}


def test_a_large_fleet_is_told_in_twenty_lines(gate: Callable[..., Ran], api: ServedApi) -> None:
    """The worst first and the rest counted; ``--detail=all`` shows it all, and the files say what they do not list."""
    now = SystemClock().now()

    def work(unit: Unit) -> None:
        for number in range(100, 620):
            found = [issue("php", Kind.OUTDATED, fingerprint=f"{number:016}")] if number % 10 == 0 else []
            put_server(unit, number, f"app{number}", issues=found, polled_at=now)
        worst = issue("bash", Kind.EXPLOITABLE, risk=9.9, severity=Severity.CRITICAL, fingerprint="f" * 16)
        put_server(unit, 620, "app620", issues=[worst], polled_at=now)

    api.store.run(work)
    code, table, _ = gate("app*", "--max-medium=0")
    lines = table.splitlines()
    assert code == 1
    assert len(lines) <= 20
    assert next(line for line in lines if line.startswith("app")).startswith("app620 ")
    assert "(of all, 53 fail, 0 are unknown, 468 pass)" in table
    assert "app620: bash" in table.lower()
    _, whole, _ = gate("app*", "--max-medium=0", "--detail=all")
    assert whole.count("\napp") == 521
    reply = json.loads(gate("app*", "--max-medium=0", "--format=json")[1])
    assert (len(reply["servers"]), reply["servers_not_listed"]) == (53, 468)
    for form in ("junit", "sarif"):
        assert "Not listed: 468 servers, 0 issues over a limit" in gate("app*", "--max-medium=0", f"--format={form}")[1]
        assert "Not listed" not in gate("app*", "--max-medium=0", f"--format={form}", "--detail=all")[1]
    code, table, _ = gate("app*", "--max-critical=1")
    assert (code, table.splitlines()[0]) == (0, "gate: pass")
    assert "521 more servers (of all, 0 fail, 0 are unknown, 521 pass)" in table


def test_nobody_knows_is_no_zero(gate: Callable[..., Ran]) -> None:
    """Counts that nobody knows are a dash, and null."""
    assert "nosuch  -        unknown  –" in gate("nosuch")[1]
    assert json.loads(gate("nosuch", "--format=json")[1])["counts"] is None


def odd_server(api: ServedApi) -> None:
    now = SystemClock().now()
    found = [
        issue("openssl", Kind.EXPLOITABLE, risk=9.8, severity=Severity.CRITICAL, software=ODD, fingerprint="d" * 16)
    ]
    api.store.run(lambda unit: put_server(unit, 3, ODD, issues=found, polled_at=now))


def test_junit_is_sound_and_red_unless_all_pass(gate: Callable[..., Ran], api: ServedApi) -> None:
    """Counts, failures and errors are where the common schema has them, and odd names break nothing."""
    odd_server(api)
    for servers, failures, errors in (([DB], 0, 0), ([WEB, "3", DB], 3, 0), ([DB, "nosuch"], 0, 2)):
        _, text, _ = gate(*servers, "--format=junit")
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


def test_sarif_is_sound(gate: Callable[..., Ran], api: ServedApi, tmp_path: Path) -> None:
    """Each issue over a limit is a result with a rule, a place and a fingerprint; a waived one is suppressed."""
    odd_server(api)
    waivers = tmp_path / "waivers.json"
    waivers.write_text('[{"server": "web*", "software": "openssl", "until": "2099-01-01", "reason": "accepted"}]')
    code, text, _ = gate(WEB, "3", "nosuch", "--format=sarif", f"--waivers={waivers}")
    log = json.loads(text)
    (sarif_run,) = log["runs"]
    assert (code, log["version"], log["$schema"].rpartition("/")[2]) == (1, "2.1.0", "sarif-schema-2.1.0.json")
    rules = {rule["id"]: rule["properties"]["security-severity"] for rule in sarif_run["tool"]["driver"]["rules"]}
    severities = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0"}
    assert rules == {one: severities[one.partition("/")[2]] for one in rules}
    over, waived = sarif_run["results"]
    for result in (over, waived):
        assert result["ruleId"] in rules
        assert result["level"] in {"error", "warning", "note"}
        assert result["message"]["text"]
        assert result["ruleId"] == f"{result['properties']['kind']}/{result['properties']['severity']}"
        assert 0 < float(result["properties"]["security-severity"]) <= 10
        physical = result["locations"][0]["physicalLocation"]
        assert physical["region"] == {"startLine": 1}
        uri = physical["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9._~%/-]+", uri)
    assert over["partialFingerprints"] == {"patrolserverIssue/v1": "d" * 16}
    assert waived["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "until 2099-01-01: accepted"}
    ]
    (invocation,) = sarif_run["invocations"]
    assert invocation["executionSuccessful"] is True
    assert "unknown_server" in {one["descriptor"]["id"] for one in invocation["toolExecutionNotifications"]}


def test_a_terminal_is_never_moved_by_a_name(gate: Callable[..., Ran], api: ServedApi) -> None:
    """What is not printable is replaced in what people read."""
    odd_server(api)
    _, table, _ = gate("3")
    assert all(letter.isprintable() for letter in table.replace("\n", ""))


def test_a_refresh_is_waited_for(gate: Callable[..., Ran], api: ServedApi) -> None:
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
        ran = gate(DB, "--refresh", "--format=json")
        thread.join()
        assert ran[0] == code
        assert ("refresh_failed" in ran[1]) is (error is not None)
    assert gate(DB, "--refresh", "--refresh-timeout=300ms")[0] == 4


@contextmanager
def polled(api: ServedApi, count: int) -> Iterator[None]:
    """Ends that many refreshes, once all of them have been asked for."""

    def work() -> None:
        eventually(lambda: len(api.accounts.waiting) == count, what="all refreshes")
        for _account, _server, done in api.accounts.waiting:
            done(None)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_all_servers_are_asked_to_be_polled_at_once(gate: Callable[..., Ran], api: ServedApi) -> None:
    """None waits for the poll of another one."""
    now = SystemClock().now()
    api.store.run(lambda unit: [put_server(unit, 100 + n, f"many{n}.example.org", polled_at=now) for n in range(150)])
    with polled(api, 150):
        assert gate("many*", "--refresh")[0] == 0
    assert {server for _, server, _ in api.accounts.waiting} == set(range(100, 250))


def test_a_server_that_nobody_knows_keeps_no_other_from_being_polled(gate: Callable[..., Ran], api: ServedApi) -> None:
    """The verdict tells of it, and is the same as without a refresh."""
    with polled(api, 1):
        ended = gate("nosuch", DB, "4711", "no*such", "--refresh", "--format=json")
    assert ended.code == 4
    assert {one["server"] for one in json.loads(ended.out)["reasons"]} == {"nosuch", "4711", "no*such"}
    assert [server for _, server, _ in api.accounts.waiting] == [2]
    assert gate("nosuch", "--refresh") == gate("nosuch")


def test_a_refresh_of_an_account_that_is_not_there_is_no_pass(gate: Callable[..., Ran]) -> None:
    """Those that are there are named."""
    ended = gate(DB, "--account=nosuch", "--refresh")
    assert ended.code == 4
    assert "main" in ended.out


def test_a_token_comes_from_a_file_or_the_environment(
    edition: GateEdition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one, or with a wrong one, the verdict is unknown and says what is missing."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with serving_api(url, tokens=[token("ci", Scope.READ)], address="0.0.0.0:0") as api:
        api.store.run(fill)
        file = tmp_path / "token"
        file.write_text("token-of-ci\n")
        command = [DB, f"--exporter-url={api.url}"]
        assert edition(*command).code == 4
        assert edition(*command, f"--token-file={file}").code == 0
        monkeypatch.setenv("PATROLSERVER_EXPORTER_TOKEN", "token-of-nobody")
        assert edition(*command).code == 4
        monkeypatch.setenv("PATROLSERVER_EXPORTER_TOKEN_FILE", str(file))
        assert edition(*command).code == 0


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

    with ServerThread(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.port}"


PASS = {
    "verdict": "pass",
    "passed": True,
    "servers": [{"name": DB, "verdict": "pass"}],
    "servers_by_verdict": {"pass": 1, "fail": 0, "unknown": 0},
}
NONE = {"pass": 0, "fail": 0, "unknown": 0}
NO_PASS: tuple[dict[str, Any], ...] = (
    {"servers": []},
    {"servers_by_verdict": NONE},
    {"servers": [], "servers_by_verdict": NONE},
    {"servers": [], "servers_by_verdict": NONE, "servers_not_listed": 1},
    {"servers_by_verdict": NONE | {"pass": 2}},
    {"servers_by_verdict": NONE | {"pass": 1, "unknown": 1}, "servers_not_listed": 1},
    {"servers_by_verdict": NONE | {"pass": 1, "fail": -1, "unknown": 1}},
    {"servers_by_verdict": NONE | {"pass": 1, "of a newer version": 1}},
    {"servers": [{"name": DB, "verdict": "fail"}]},
)
JSON = {"content_type": "application/json"}
NO_JSON = (
    json.dumps(PASS | {"policy": "half a character: \ud800"}).encode(),
    json.dumps(PASS | {"policy": "x"}).encode().replace(b'"x"', b"NaN"),
    json.dumps(PASS).encode().replace(b"web", b"\xff").replace(b"db", b"\xff"),
)
OTHER_TYPES: tuple[dict[str, Any], ...] = (
    {"passed": 1},
    {"servers": {}},
    {"servers": [{"name": DB, "verdict": "pass", "counts": {"high": 10**400, "critical": 0.5}}]},
    {"servers": [{"name": DB, "verdict": "pass", "data_age_seconds": 10**400}]},
    {"servers": [{"name": 1, "verdict": "pass"}]},
    {"servers": [{"verdict": "pass"}]},
    {"servers_not_listed": True},
    {"reasons": [None]},
)


@pytest.mark.parametrize(
    ("status", "body", "headers", "said"),
    [
        (302, b"", {"location": "http://127.0.0.1:1/login"}, "redirect"),
        (200, b"<html>Please log in</html>", {"content_type": "text/html"}, "text/html"),
        (200, b"", {}, "no content type"),
        (200, b"{", {"content_type": "application/json"}, "broken JSON"),
        (200, b"[" * 100_000, {"content_type": "application/json"}, "broken JSON"),
        (200, b"{}", {"content_type": "application/json"}, "no verdict"),
        *((200, odd, {"content_type": "application/json"}, "broken JSON") for odd in NO_JSON),
        *((200, json.dumps(PASS | wrong).encode(), JSON, "no verdict") for wrong in OTHER_TYPES),
        (200, json.dumps(PASS | {"passed": False}).encode(), {"content_type": "application/json"}, "contradicts"),
        (200, json.dumps(PASS | {"verdict": "fail"}).encode(), {"content_type": "application/json"}, "contradicts"),
        (200, json.dumps(PASS | {"verdict": "fine"}).encode(), {"content_type": "application/json"}, "contradicts"),
        *((200, json.dumps(PASS | wrong).encode(), JSON, "not every server") for wrong in NO_PASS),
        (200, json.dumps({"verdict": "pass", "passed": True, "servers": []}).encode(), JSON, "none is counted"),
        (200, json.dumps(PASS | {"issues_not_listed": 1}).encode(), JSON, "contradicts"),
        (200, json.dumps(PASS | {"reasons": [{"code": "x", "message": "y"}]}).encode(), JSON, "contradicts"),
        (502, json.dumps(PASS).encode(), {"content_type": "application/json"}, "502"),
        (500, b'{"detail":"broken"}', {"content_type": "application/problem+json"}, "broken"),
    ],
)
def test_what_only_looks_like_an_exporter_is_unknown(
    edition: GateEdition, status: int, body: bytes, headers: dict[str, str], said: str
) -> None:
    """A redirect, a page, a broken or contradictory answer is never a pass, and the report says what came."""
    with answering(status, body, **headers) as url:
        code, out, _ = edition(DB, f"--exporter-url={url}")
    assert code == 4
    assert said in out


def test_nobody_there_is_unknown(edition: GateEdition) -> None:
    """A port where nothing listens gives a report, too."""
    code, out, _ = edition(DB, "--exporter-url=http://127.0.0.1:1", "--format=json")
    report = json.loads(out)
    assert (code, report["verdict"], report["reasons"][0]["code"]) == (4, "unknown", "exporter_unavailable")


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


def test_inbox_names_an_account_that_is_not_there(run: Callable[..., tuple[int, str, str]], api: ServedApi) -> None:
    """An empty list would pass for good news; an account that is there, or was, has none."""
    for action in ("list", "replay"):
        more = ["--state=dead"] if action == "replay" else []
        code, out, told = run("inbox", action, "--account=nope", *more)
        assert (code, out) == (1, "")
        assert told == "There is no account nope; there are: main.\n"
    assert run("inbox", "list", "--account=main")[0] == 0
    code, out, told = run("inbox", "list", "--account=main", "--account=nope")
    assert (code, told) == (1, "There is no account nope; there are: main.\n")
    assert run("inbox", "list", "--account=nope", "--format=json")[:2] == (1, "[]\n")


def test_gate_names_an_account_that_is_not_there(run: Callable[..., tuple[int, str, str]]) -> None:
    """The name of the server is right, and need not be looked at."""
    for selector in ("*", DB):
        code, out, _ = run("gate", selector, "--account=nope")
        assert code == 4
        assert f"{selector}: there is no account nope; there are: main." in out


def test_inbox_fits_a_screen(
    run: Callable[..., tuple[int, str, str]], api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery is a line; what is cut, show tells."""
    for columns in (80, 132):
        monkeypatch.setenv("COLUMNS", str(columns))
        _, table, _ = run("inbox", "list")
        assert len(table.splitlines()) == 4
        assert max(map(len, table.splitlines())) <= columns


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
