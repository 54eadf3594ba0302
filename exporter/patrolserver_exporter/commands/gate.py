"""``patrolserver-exporter gate``: may these servers be deployed to? Asks the running exporter."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.commands import exporter_client, flags, gate_policy, gate_refresh
from patrolserver_exporter.commands.exporter_client import ExporterError
from patrolserver_exporter.commands.gate_policy import BadPolicy
from patrolserver_exporter.commands.gate_report import junit, reply, sarif, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patrolserver_exporter.commands.exporter_client import ExporterClient

EXIT_CODES = {reply.PASS: 0, reply.FAIL: 1, reply.UNKNOWN: 4}
REPORTS: dict[str, Callable[[reply.Reply], str]] = {
    "table": table.render,
    "junit": junit.render,
    "sarif": sarif.render,
}

_DESCRIPTION = """\
Asks the running exporter whether servers meet a policy, for any CI system. SERVER is an id, a name, or a glob on names.
Old, missing or partial data, an unknown server, and an exporter that cannot be asked are never a pass."""

_EPILOG = """\
exit codes: 0 pass; 1 fail; 2 bad flags; 4 unknown"""


def parser() -> flags.Parser:
    """All flags of the gate."""
    found = flags.Parser("patrolserver-exporter gate", _DESCRIPTION, _EPILOG)
    found.add_argument("servers", metavar="SERVER", nargs="+", help="id, name or glob")
    found.add_argument("--account", metavar="NAME", help="whose servers; needed when several accounts have such a one")
    gate_policy.add_flags(found)
    report = found.add_argument_group("report")
    report.add_argument("--format", choices=["table", "json", "junit", "sarif"], default="table", help="default: table")
    report.add_argument("--output", metavar="FILE", help="where to write the report (default: standard output)")
    fresh = found.add_argument_group("fresh data")
    fresh.add_argument("--refresh", action="store_true", help="poll the servers first (the token needs refresh)")
    fresh.add_argument(
        "--refresh-timeout", metavar="DURATION", default="2m", help="for all polls together (default: 2m)"
    )
    exporter_client.add_flags(found)
    found.version_flag()
    return found


def main(arguments: Sequence[str]) -> int:
    """Ask, report, and return the exit code."""
    flag_parser = parser()
    values: dict[str, Any] = flags.read(flag_parser, arguments)
    client = exporter_client.from_flags(flag_parser, values)
    refresh_timeout = exporter_client.duration(flag_parser, "--refresh-timeout", values["refresh-timeout"])
    try:
        policy = gate_policy.policy_of(values)
    except BadPolicy as error:
        flag_parser.error(str(error))
    body = {"servers": values["servers"], "policy": policy}
    if values["account"] is not None:
        body["account"] = values["account"]
    data, answer = _judged(client, body, refresh_timeout if values["refresh"] else None, values["write-baseline"])
    text = _rendered(data, answer, values["format"])
    code = EXIT_CODES[answer.verdict]
    if not _written(text, values["output"]):
        return code or EXIT_CODES[reply.UNKNOWN]
    return code


def _judged(
    client: ExporterClient, body: dict[str, Any], refresh_timeout: float | None, baseline: str | None
) -> tuple[dict[str, Any], reply.Reply]:
    """The answer as it came, and as it was read; unknown when there is none that can be used."""
    try:
        failures: list[str] = []
        if refresh_timeout is not None:
            failures = gate_refresh.refresh(client, body["servers"], body.get("account"), refresh_timeout)
        # Before the verdict: an issue that comes in between is then judged, and not slipped into the baseline.
        issues = [] if baseline is None else list(_open_issues(client, body["servers"], body.get("account")))
        data = client.post("/gate", body)
        reply.read(data)
        for failure in failures:
            data = reply.with_doubt(data, "refresh_failed", failure)
        answer = reply.read(data)
    except ExporterError as error:
        return _no_answer("exporter_unavailable", str(error))
    except reply.NoVerdict as error:
        return _no_answer("no_verdict", str(error))
    if baseline is not None:
        _keep_baseline(Path(baseline), issues, answer)
    return data, answer


def _no_answer(code: str, message: str) -> tuple[dict[str, Any], reply.Reply]:
    now = dt.datetime.fromtimestamp(int(time.time()), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = reply.unanswered(code, message, now)
    return data, reply.read(data)


def _open_issues(client: ExporterClient, servers: Sequence[str], account: str | None) -> Iterable[dict[str, Any]]:
    for query in gate_refresh.selections(servers, account):
        yield from client.items("/issues", [*query, ("waived", "false")])


def _keep_baseline(path: Path, issues: Iterable[dict[str, Any]], answer: reply.Reply) -> None:
    if answer.verdict == reply.UNKNOWN:
        _say(f"The baseline {path} was not written, because the verdict is unknown.")
        return
    try:
        gate_policy.write_baseline(path, issues)
    except OSError as error:
        _say(f"The baseline {path} could not be written: {error.strerror}.")


def _rendered(data: dict[str, Any], answer: reply.Reply, form: str) -> str:
    if form == "json":
        return json.dumps(data, indent=2) + "\n"
    return REPORTS[form](answer)


def _written(text: str, output: str | None) -> bool:
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return True
    try:
        gate_policy.write_whole(Path(output), text)
    except OSError as error:
        _say(f"The report {output} could not be written: {error.strerror}.")
        return False
    return True


def _say(message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201  # Beside the report, for people.
