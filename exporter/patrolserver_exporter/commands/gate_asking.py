"""Asks the running exporter for its verdict, and reports it: all of the gate's command but what its editions differ in.

With Python's own library alone, and for Python 3.9, since the file for CI machines is made of it.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.commands import exporter_client, flags, gate_policy, gate_report, output
from patrolserver_exporter.commands.exporter_client import ExporterError, Refused
from patrolserver_exporter.commands.gate_policy import BadPolicy
from patrolserver_exporter.config.duration import format_duration
from patrolserver_exporter.gate import telling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from patrolserver_exporter.commands.exporter_client import ExporterClient
    from patrolserver_exporter.commands.gate_policy import Edition


SELECTED_AT_ONCE = 50
"""Names in one request: a request line has its limits."""
_LOOK_EVERY, _LOOK_EVERY_FOR_EACH = 0.2, 0.0005
"""Seconds between two looks at a refresh: at least, and for each of its servers."""
_OVER = {"done", "failed"}
_Unpolled = tuple[str, str]
"""A server's name, and why it was not polled."""


def selections(servers: Sequence[str], account: str | None) -> Iterator[list[tuple[str, str]]]:
    """Queries that together ask for these servers."""
    of_account = [] if account is None else [("account", account)]
    for start in range(0, len(servers), SELECTED_AT_ONCE):
        yield [*of_account, *(("server", one) for one in servers[start : start + SELECTED_AT_ONCE])]


def refresh(client: ExporterClient, servers: Sequence[str], account: str | None, timeout: float) -> list[_Unpolled]:
    """Poll the servers, all by one request, and wait.

    Returns each that was not polled, with a sentence; of one that nobody knows the verdict tells.

    Raises:
        ExporterError: the exporter cannot be asked.
    """
    end = time.monotonic() + timeout
    found = _started(client, servers, account)
    while found is not None and (late := [one for one in found["servers"] if one["state"] not in _OVER]):
        if time.monotonic() > end:
            return [*_failures(found), *((one["server"], _too_late(one["server"], timeout)) for one in late)]
        # Each look brings all of them.
        time.sleep(max(_LOOK_EVERY, len(found["servers"]) * _LOOK_EVERY_FOR_EACH))
        found = _refresh_of(client.get(f"/refresh/{found['id']}"))
    return _failures(found) if found is not None else []


def _started(client: ExporterClient, servers: Sequence[str], account: str | None) -> dict[str, Any] | None:
    """The refresh of those that the exporter knows; ``None`` where it knows none."""
    of_account = {} if account is None else {"account": account}
    try:
        return _refresh_of(client.post("/refresh", {"servers": servers, **of_account}))
    except Refused as error:
        known = [one for one in servers if one not in error.unknown]
        if len(known) == len(servers):
            raise
    return _started(client, known, account) if known else None


def _refresh_of(answer: Any) -> dict[str, Any]:
    found = answer.get("refresh") if isinstance(answer, dict) else None
    listed = found.get("servers") if isinstance(found, dict) else None
    if isinstance(found, dict) and "id" in found and isinstance(listed, list) and listed and all(map(_tells, listed)):
        return found
    raise ExporterError("The exporter's answer to a refresh does not tell how each server stands.")


def _tells(listed: Any) -> bool:
    return isinstance(listed, dict) and "server" in listed and isinstance(listed.get("state"), str)


def _failures(found: Mapping[str, Any]) -> list[_Unpolled]:
    return [
        (one["server"], f"{one['server']}: it could not be polled before the verdict: {one.get('error')}")
        for one in found["servers"]
        if one["state"] == "failed"
    ]


def _too_late(name: str, timeout: float) -> str:
    return f"{name}: its poll did not end within {format_duration(timeout)} (--refresh-timeout)."


EXIT_CODES = {gate_report.PASS: 0, gate_report.FAIL: 1, gate_report.UNKNOWN: 4}
REPORTS: dict[str, Callable[[gate_report.Reply], str]] = {
    "junit": gate_report.as_junit,
    "sarif": gate_report.as_sarif,
}

_DESCRIPTION = """\
Asks the running exporter whether servers meet a policy, for any CI system. SERVER is an id, a name, or a glob on names.
Old, missing or partial data, an unknown server, and an exporter that cannot be asked are never a pass."""

_EPILOG = """\
exit codes: 0 pass; 1 fail, or a pass whose files could not be written; 2 bad flags, files or policy; 4 unknown"""


def parser(edition: Edition) -> flags.Parser:
    """All flags of the gate."""
    found = flags.Parser(edition.program, _DESCRIPTION, _EPILOG)
    found.add_argument("servers", metavar="SERVER", nargs="+", type=flags.text, help="id, name or glob")
    found.add_argument(
        "--account", metavar="NAME", type=flags.text, help="whose servers; needed when several accounts have such a one"
    )
    gate_policy.add_flags(found, edition)
    report = found.add_argument_group("report")
    report.add_argument("--format", choices=["table", "json", "junit", "sarif"], default="table", help="default: table")
    report.add_argument(
        "--output",
        metavar="FILE",
        default=output.STDOUT,
        help="where to write the report (default: -, standard output)",
    )
    report.add_argument(
        "--detail",
        choices=[telling.PROBLEMS, telling.ALL],
        help=f"what is listed: problems, which are at most {telling.MAX_LISTED} servers and issues that do not pass, "
        f"the worst first, or all (default: all up to {telling.LISTED_WHOLE} servers, then problems; a table has "
        f"{gate_report.MAX_LINES} lines unless all is asked for)",
    )
    fresh = found.add_argument_group("fresh data")
    fresh.add_argument("--refresh", action="store_true", help="poll the servers first (the token needs refresh)")
    fresh.add_argument(
        "--refresh-timeout", metavar="DURATION", default="2m", help="for all polls together (default: 2m)"
    )
    exporter_client.add_flags(found)
    found.version_flag(edition.distribution)
    return found


def main(arguments: Sequence[str], edition: Edition) -> int:
    """Ask, report, and return the exit code."""
    flag_parser = parser(edition)
    values: dict[str, Any] = flags.read(flag_parser, arguments)
    client = exporter_client.from_flags(flag_parser, values)
    refresh_timeout = exporter_client.duration(flag_parser, "--refresh-timeout", values["refresh-timeout"])
    baseline = values["write-baseline"]
    if baseline is not None and output.is_stdout(baseline) and output.is_stdout(values["output"]):
        flag_parser.error("--write-baseline and the report would both go to standard output; give --output=FILE")
    if baseline is not None and output.is_same(baseline, values["output"]):
        flag_parser.error("--write-baseline and --output lead to the same file")
    try:
        policy = gate_policy.policy_of(values, edition)
    except BadPolicy as error:
        flag_parser.refuse(str(error))
    body = {"servers": values["servers"], "policy": policy}
    body |= {name: values[name] for name in ("account", "detail") if values[name] is not None}
    try:
        answer = _judged(client, body, refresh_timeout if values["refresh"] else None, with_issues=baseline is not None)
    except PolicyRefused as error:
        flag_parser.refuse(str(error))
    return _given_out(answer, values)


class PolicyRefused(Exception):
    """The exporter does not take the policy; the text names the key."""


@dataclass(frozen=True)
class _Answer:
    data: dict[str, Any]
    """As it came."""
    reply: gate_report.Reply
    issues: list[dict[str, Any]]
    """Open issues as they were before the verdict."""


def _judged(
    client: ExporterClient, body: dict[str, Any], refresh_timeout: float | None, *, with_issues: bool
) -> _Answer:
    """The answer; unknown when there is none that can be used. Raises `PolicyRefused`."""
    try:
        failures: list[_Unpolled] = []
        if refresh_timeout is not None:
            failures = refresh(client, body["servers"], body.get("account"), refresh_timeout)
        # Before the verdict: an issue that comes in between is then judged, and not slipped into the baseline.
        issues = list(_open_issues(client, body["servers"], body.get("account"))) if with_issues else []
        asked_at = time.time()
        data = _asked(client, body)
        reply = gate_report.read(data)
        policy = body["policy"].get("policy")
        gate_report.check(reply, body["servers"], body.get("account"), policy, asked_at=asked_at)
        for server, failure in failures:
            data = gate_report.with_doubt(data, "refresh_failed", failure, server)
        return _Answer(data, gate_report.read(data), issues)
    except ExporterError as error:
        return _no_answer("exporter_unavailable", str(error))
    except gate_report.NoVerdict as error:
        return _no_answer("no_verdict", str(error))


def _asked(client: ExporterClient, body: dict[str, Any]) -> Any:
    try:
        return client.post("/gate", body)
    except Refused as error:
        if error.status == 400 and error.at is not None and error.at.partition(".")[0] == "policy":
            raise PolicyRefused(str(error)) from None
        raise


def _no_answer(code: str, message: str) -> _Answer:
    now = dt.datetime.fromtimestamp(int(time.time()), dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = gate_report.unanswered(code, message, now)
    return _Answer(data, gate_report.read(data), [])


def _open_issues(client: ExporterClient, servers: Sequence[str], account: str | None) -> Iterable[dict[str, Any]]:
    for query in selections(servers, account):
        yield from client.items("/issues", [*query, ("waived", "false")])


def _given_out(answer: _Answer, values: Mapping[str, Any]) -> int:
    """Write what was asked for; the exit code is the verdict's, but a pass with a file missing is none."""
    code = EXIT_CODES[answer.reply.verdict]
    files = [_baseline(answer, values["write-baseline"])] if values["write-baseline"] is not None else []
    is_told = _file("report", values["output"], _rendered(answer, values["format"], values["detail"]))
    if not is_told:
        # Nothing else would tell it.
        output.remark(f"The verdict is {answer.reply.verdict}.")
    files.append(is_told)
    return code or int(not all(files))


def _baseline(answer: _Answer, path: str) -> bool:
    if answer.reply.verdict == gate_report.UNKNOWN:
        output.remark(f"The baseline {path} was not written, because the verdict is unknown.")
        return False
    return _file("baseline", path, gate_policy.baseline_of(answer.issues))


def _rendered(answer: _Answer, form: str, detail: str | None) -> str:
    if form == "json":
        return json.dumps(answer.data, indent=2) + "\n"
    if form == "table":
        return gate_report.as_table(answer.reply, whole=detail == telling.ALL)
    return REPORTS[form](answer.reply)


def _file(what: str, path: str, text: str) -> bool:
    """Write it; returns whether it was written, and says so if not."""
    try:
        output.write_file(path, text)
    except OSError as error:
        output.remark(f"The {what} {path} could not be written: {error.strerror}.")
        return False
    except KeyboardInterrupt:
        # The verdict is known by now, and stays what it is.
        return output.is_stdout(path)
    return True
